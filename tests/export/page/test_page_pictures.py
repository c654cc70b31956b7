"""PNGs are read in the page as tinyseg.data reads them; colour becomes grey as Pillow does it."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.export.page.page_images import check, pixels, read, refusal
from tinyseg.data.images import open_image

# ---- PNG


def png(path, rows, bits, colour, *chunks, after=(), interlace=0):
    """Write a PNG from rows (H, bytes of a row) and further chunks."""
    H = len(rows)
    W = rows.shape[1] * 8 // (bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour])
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", W, H, bits, colour, 0, 0, interlace)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), *chunks, (b"IDAT", packed), *after, (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content)


@pytest.mark.parametrize("options", [[], ["--without-streams"]], ids=["streams", "no streams"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_pngs_of_all_bit_depths(tmp_path, bits, options):
    rows = np.random.default_rng(bits).integers(0, 256, (37, 54)).astype(np.uint8)
    png(tmp_path / "a.png", rows, bits, 0)
    assert check(tmp_path / "a.png", *options)["kind"] == "PNG"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_filters_of_png(tmp_path, dtype):
    """Pillow chooses one of the five filters for each row."""
    for k, x in enumerate([pixels(61, 83, dtype=dtype), np.sort(pixels(61, 83, dtype=dtype), axis=0)]):
        Image.fromarray(x).save(tmp_path / f"{k}.png")
        check(tmp_path / f"{k}.png")
    filtered = {row[0] for row in np.frombuffer(unpacked(tmp_path / "1.png"), np.uint8).reshape(61, -1)}
    assert len(filtered) > 1


def unpacked(path):
    content, at, packed = path.read_bytes(), 8, b""
    while at < len(content):
        size, kind = struct.unpack(">I4s", content[at : at + 8])
        packed += content[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += 12 + size
    return zlib.decompress(packed)


@pytest.mark.parametrize("filter_type", range(5))
def test_each_filter_of_png(tmp_path, filter_type):
    """Filtered here by the equations of the specification, for 3 bytes a pixel."""
    H, W, bpp = 9, 11, 3
    x = np.repeat(pixels(H, W)[..., None], 3, axis=-1).reshape(H, -1).astype(int)
    packed = b""
    for y in range(H):
        packed += bytes([filter_type])
        for i in range(W * bpp):
            a = x[y, i - bpp] if i >= bpp else 0
            b = x[y - 1, i] if y else 0
            c = x[y - 1, i - bpp] if y and i >= bpp else 0
            nearest = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            packed += bytes([(x[y, i] - [0, a, b, (a + b) // 2, nearest][filter_type]) % 256])
    png(tmp_path / "a.png", x.astype(np.uint8), 8, 2)
    content = (tmp_path / "a.png").read_bytes()
    data = zlib.compress(packed)
    start = content.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))
    (tmp_path / "a.png").write_bytes(content[:start] + chunk + content[-12:])
    check(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png")[1][0, 0], x[:, ::3])


PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


@pytest.mark.parametrize("size", [(37, 53), (1, 1), (3, 5), (5, 2), (8, 8), (1, 9)])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_interlaced_pngs(tmp_path, bits, size):
    """Interlaced here; Pillow reads it back as the oracle."""
    H, W = size
    x = np.random.default_rng(bits).integers(0, 2**bits, size)
    packed = b""
    for x0, y0, dx, dy in PASSES:
        part = x[y0::dy, x0::dx]
        for row in part if part.size else ():
            in_bits = "".join(f"{value:0{bits}b}" for value in row)
            in_bits += "0" * (-len(in_bits) % 8)
            packed += b"\0" + bytes(int(in_bits[i : i + 8], 2) for i in range(0, len(in_bits), 8))
    content = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", W, H, bits, 0, 0, 0, 1)
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(packed)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    (tmp_path / "a.png").write_bytes(content)
    check(tmp_path / "a.png")


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_grey_value_that_is_transparent(tmp_path, bits):
    rows = pixels(18, 24) // 2 if bits == 8 else np.zeros((18, 24), np.uint8)
    highest = 2**bits - 1
    png(tmp_path / "a.png", rows, bits, 0, (b"tRNS", struct.pack(">H", highest)))
    check(tmp_path / "a.png")
    rows[3, 4:6] = 255
    for value in (highest, *([3] if bits == 1 else [])):  # Pillow takes any number for white in a picture of 1 bit
        png(tmp_path / "a.png", rows, bits, 0, (b"tRNS", struct.pack(">H", value)))
        assert "has an opacity (alpha, transparency) that is not the same everywhere" in refusal(tmp_path / "a.png")
        with pytest.raises(ValueError, match="not the same everywhere"), open_image(tmp_path / "a.png") as image:
            image.section(0)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "RGB"])
def test_grey_pngs_saved_with_channels(tmp_path, mode):
    x = pixels(37, 53)
    for same in (True, False):
        opacity = np.full((37, 53), 128, np.uint8)
        opacity[3, 4] = 128 if same else 127
        picture = Image.merge("LA", [Image.fromarray(x), Image.fromarray(opacity)])
        if mode == "P":
            picture = Image.fromarray(x).convert("P")
            picture.info["transparency"] = bytes([128] * 256) if same else bytes([127] + [128] * 200)
        elif mode == "RGB":
            picture = Image.fromarray(np.dstack([x] * 3))
        picture = picture if picture.mode == mode else picture.convert(mode)
        picture.save(tmp_path / "a.png")
        if same or mode == "RGB":
            check(tmp_path / "a.png")
        else:
            assert "has an opacity" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_png(tmp_path, bits):
    rows = np.random.default_rng(bits).integers(0, 256, (37, 54)).astype(np.uint8)
    greys = np.random.default_rng(9).permutation(256)[: 2**bits].astype(np.uint8)
    png(tmp_path / "a.png", rows, bits, 3, (b"PLTE", np.repeat(greys, 3).tobytes()))
    check(tmp_path / "a.png")
    png(tmp_path / "a.png", rows, bits, 3, (b"PLTE", np.repeat(greys, 3).tobytes()[:-3]))
    assert f"refers to colour {2**bits - 1}, counted from 0, of a palette of {2**bits - 1} colours" in refusal(
        tmp_path / "a.png"
    )


def exif_block(orientation):
    return b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1" + struct.pack(">HH", orientation, 0) + b"\0\0\0\0"


@pytest.mark.parametrize("orientation", [*range(10), 300])
def test_a_png_is_turned_as_it_is_shown(tmp_path, orientation):
    for chunks in ({"after": [(b"eXIf", exif_block(orientation))]}, {"after": [(b"eXIf", b"damaged")]}):
        png(tmp_path / "a.png", pixels(37, 53), 8, 0, (b"pHYs", struct.pack(">IIB", 4000, 2000, 1)), **chunks)
        said = check(tmp_path / "a.png")
        assert said["pixelSize"]["unit"] == "m"
        turned = said["height"] == 53
        assert (said["pixelSize"]["x"], said["pixelSize"]["y"]) == (
            (1 / 2000, 1 / 4000) if turned else (1 / 4000, 1 / 2000)
        )


def test_a_png_without_unit_and_one_cut_short_behind_its_pixels(tmp_path):
    png(tmp_path / "a.png", pixels(37, 53), 8, 0, (b"pHYs", struct.pack(">IIB", 4000, 2000, 0)))
    assert check(tmp_path / "a.png")["pixelSize"] is None
    png(tmp_path / "a.png", pixels(37, 53), 8, 0, after=[(b"tEXt", b"A comment that is not whole")])
    content = (tmp_path / "a.png").read_bytes()
    for cut in (4, 12, 30):
        (tmp_path / "a.png").write_bytes(content[:-cut])
        np.testing.assert_array_equal(read(tmp_path / "a.png")[1][0, 0], pixels(37, 53))


# ---- colour, which tinyseg refuses


@pytest.mark.parametrize("kind", ["rgb.png", "rgba.png", "palette.png", "rgb.tif", "planes.tif", "palette.tif"])
def test_colour_becomes_the_grey_that_pillow_makes_of_it(tmp_path, kind):
    x = pixels(3, 37, 53).transpose(1, 2, 0)
    picture, path = Image.fromarray(x), tmp_path / kind
    if kind.startswith("palette"):
        picture = picture.quantize(31)
        picture.save(path)
    elif kind == "planes.tif":
        tifffile.imwrite(path, x.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", metadata=None)
    else:
        picture.convert("RGBA" if "rgba" in kind else "RGB").save(path)
    said, found = read(path)
    assert said["colour"] and said["dtype"] == "uint8"
    np.testing.assert_array_equal(found[0, 0], np.array(picture.convert("RGB").convert("L")))
    assert ["lookup table of colours" in note for note in said["notes"]] == [True] * (kind == "palette.tif")


def test_colour_of_16_bits_becomes_grey_of_16_bits(tmp_path):
    x = pixels(3, 37, 53, dtype=np.uint16).transpose(1, 2, 0)
    expected = np.floor((x @ np.array([19595.0, 38470, 7471]) + 32768) / 65536)
    png(tmp_path / "a.png", np.ascontiguousarray(x.astype(">u2")).reshape(37, -1).view(np.uint8), 16, 2)
    tifffile.imwrite(tmp_path / "a.tif", x, photometric="rgb")
    for name in ("a.png", "a.tif"):
        said, found = read(tmp_path / name)
        assert said["colour"] and said["dtype"] == "uint16"
        np.testing.assert_array_equal(found[0, 0], expected)
