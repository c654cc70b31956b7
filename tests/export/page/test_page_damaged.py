"""What the page says of files that are damaged, of other kinds, or larger than a browser can take."""

import re
import struct
import zlib

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.export.page.damaged_images import damage, write_bases
from tests.export.page.page_images import check, pixels, read, refusal, run


@pytest.mark.parametrize("options", [[], ["--without-streams"]], ids=["streams", "no streams"])
def test_damaged_files_give_a_sentence_or_pixels(tmp_path, options):
    """They give no error of a program, take no long time and no gigabytes."""
    pytest.importorskip("imagecodecs")
    rng, bases, answers = np.random.default_rng(7), write_bases(tmp_path), []
    for base in bases:
        for _ in range(25):
            case = tmp_path / f"case{base.name[base.name.index('.') :]}"
            case.write_bytes(damage(base.read_bytes(), rng))
            answers.append(run({"read": str(case)}, *options))
    refused = [answer for answer in answers if "error" in answer]
    assert 100 < len(refused) < len(answers) - 50
    for answer in refused:
        assert answer["kind"] == "Error" and answer.get("cause") in (None, "Error"), answer
        assert re.fullmatch(r"(?s)case\.\S+ .{30,}\.", answer["error"]), answer["error"]
    assert max(answer["seconds"] for answer in answers) < 20
    assert max(answer["memory"] for answer in answers) < 2e6  # in kB; Node.js itself takes a part of it


def png_header(height, width):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packed = b"IDAT" + zlib.compress(bytes(1000))
    parts = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, packed)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff_header(height, width, offset=8, next_page=0, strip=(0, 10)):
    tags = [(256, width), (257, height), (258, 8), (259, 1), (273, strip[0]), (279, strip[1])]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", offset, len(tags)) + entries + struct.pack("<I", next_page)


def test_small_files_that_claim_to_be_large(tmp_path):
    (tmp_path / "a.png").write_bytes(png_header(10001, 10000))
    assert "up to 100 million pixels fit into a browser. Cut it into parts, or make it smaller." in refusal(
        tmp_path / "a.png"
    )
    (tmp_path / "a.png").write_bytes(png_header(9000, 9000))
    assert "too few for the 9000 × 9000 pixels that its header asks for" in refusal(tmp_path / "a.png")
    (tmp_path / "a.tif").write_bytes(tiff_header(2**16, 2**16))
    assert "up to 100 million pixels fit into a browser" in refusal(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(tiff_header(9000, 9000))
    assert "it ends at byte 86, and more is expected up to byte 81000000" in refusal(tmp_path / "a.tif")


def test_a_text_that_claims_millions_of_sections(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels(2, 1, 1), imagej=True, truncate=True, metadata={"axes": "ZYX"})
    content = (tmp_path / "a.tif").read_bytes()
    content = content.replace(b"images=2\nslices=2", b"images=2000000\n  ") + bytes(5_000_000)
    (tmp_path / "a.tif").write_bytes(content)
    assert b"images=2000000" in content and "for the 2000000 sections" in refusal(tmp_path / "a.tif")


def test_strips_that_lie_far_apart_are_read_by_themselves(tmp_path):
    tags = [(256, 4), (257, 6), (258, 8), (259, 1), (273, 8), (277, 1), (278, 3), (279, 16)]
    entries = b"".join(struct.pack("<HHII", *entry) for entry in (
        (tag, 4, 2 if tag in (273, 279) else 1, value) for tag, value in tags
    ))  # fmt: skip
    x = pixels(6, 4)
    start = 24 + 10**6
    content = b"II*\0" + struct.pack("<I", start + 12) + struct.pack("<IIII", 24, start, 12, 12) + x[:3].tobytes()
    content = content.ljust(start, b"\0") + x[3:].tobytes() + struct.pack("<H", len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(content)
    assert check(tmp_path / "a.tif")["read"] < 20_000
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[1][0, 0], x)


def test_pages_that_follow_each_other_in_a_circle_or_lie_over_each_other(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff_header(3, 4, next_page=8))
    assert "its pages follow each other in a circle" in refusal(tmp_path / "a.tif")
    # Page k begins at byte 8 + 4 k and says that it has 1000 tags, behind which it names page k + 1.
    counts = struct.pack("<H", 1000) * 6001
    following = b"".join(struct.pack("<I", 12 + 4 * k) for k in range(1000))
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8) + counts + following)
    assert "its pages lie over each other" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty, 0 bytes"), (b"%PDF-1.7 and so on", "is a PDF"), (b"PK\x03\x04 and so on", "is an archive"),
        (b"\x89HDF\r\n and so on", "is HDF5"), (b"\x93NUMPY and so on", "is a file of NumPy"),
        (b"<!DOCTYPE html>", "is a web page"), (bytes(128) + b"DICM" + bytes(9), "is a DICOM file"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"), (b"ZISRAWFILE and so on", "is a CZI file"),
        (b"\x1f\x8b and so on", "does not end in .nii.gz"), (bytes(range(99)), "is of a kind that is not read"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "does not say how large it is"), (b"BM and so on", "only a browser"),
    ],
)  # fmt: skip
def test_files_of_other_kinds_are_named(tmp_path, content, said):
    (tmp_path / "a.xyz").write_bytes(content)
    message = refusal(tmp_path / "a.xyz")
    assert message.startswith("a.xyz ") and said in message and message.endswith(".")


def test_a_picture_of_several_frames(tmp_path):
    frames = [Image.fromarray(pixels(37, 53, seed=k)) for k in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert "a.png is a picture of 3 frames" in refusal(tmp_path / "a.png")


def test_a_jpeg_needs_a_browser(tmp_path):
    Image.fromarray(pixels(37, 53)).save(tmp_path / "a.jpg")
    assert "a.jpg holds JPEG, which only a browser" in refusal(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[:-99])
    assert "it ends before its pixels do" in refusal(tmp_path / "a.jpg")


def test_sections_that_there_are_not(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels(3, 37, 53), photometric="minisblack")
    for k in (3, -1, 0.5):
        assert refusal(tmp_path / "a.tif", sections=[k]) == f"a.tif has sections 0 to 2: there is no section {k}."


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"imagej": True}, {"tile": (64, 64)}], ids=str)
def test_only_the_section_that_is_asked_for_is_read_from_the_file(tmp_path, options):
    x = np.random.default_rng(0).integers(0, 256, (40, 256, 320)).astype(np.uint8)
    kind = {} if "imagej" in options else {"photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", x, **kind, **options)
    size = (tmp_path / "a.tif").stat().st_size
    answer = run({"read": str(tmp_path / "a.tif"), "sections": [17]})
    assert answer["opened"] < size / 10
    assert answer["read"] - answer["opened"] < size / 20
    check(tmp_path / "a.tif")


@pytest.mark.parametrize("options", [[], ["--without-streams"]], ids=["streams", "no streams"])
def test_a_checksum_that_is_wrong(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tif", pixels(37, 53), compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        end = tif.pages[0].dataoffsets[0] + tif.pages[0].databytecounts[0]
    nib.save(nib.Nifti1Image(pixels(5, 7, 9), np.eye(4)), tmp_path / "b.nii.gz")
    for path, place in ((tmp_path / "a.tif", end - 1), (tmp_path / "b.nii.gz", -8)):
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
        assert "the checksum of its packed data is wrong" in refusal(path, *options)


@pytest.mark.parametrize("options", [[], ["--without-streams"]], ids=["streams", "no streams"])
def test_packed_data_that_refer_to_what_is_before_them(tmp_path, options):
    x = pixels(37, 53)
    packer = zlib.compressobj(wbits=-15, zdict=x.tobytes())
    packed = b"\x78\x01" + packer.compress(x.tobytes()) + packer.flush() + struct.pack(">I", zlib.adler32(x.tobytes()))
    tags = [(256, 53), (257, 37), (258, 8), (259, 8), (273, 8), (277, 1), (278, 37), (279, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    content = b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(content)
    assert "its packed data refer to what is before them" in refusal(tmp_path / "a.tif", *options)


def test_bytes_behind_packed_strips(tmp_path):
    """As programs leave them that begin each strip at an even byte."""
    x = pixels(37, 53)
    tifffile.imwrite(tmp_path / "a.tif", x, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        tag, (count,) = tif.pages[0].tags["StripByteCounts"], tif.pages[0].databytecounts
        place, end = tag.valueoffset, tif.pages[0].dataoffsets[0] + count
    content = (tmp_path / "a.tif").read_bytes()
    content = content[:end] + bytes(5) + content[end:]
    (tmp_path / "a.tif").write_bytes(content[:place] + struct.pack("<I", count + 5) + content[place + 4 :])
    for options in ([], ["--without-streams"]):
        answer = run({"read": str(tmp_path / "a.tif"), "out": str(tmp_path / "a.raw")}, *options)
        assert "error" not in answer, answer
        np.testing.assert_array_equal(np.fromfile(tmp_path / "a.raw").reshape(37, 53), x)
