"""Pictures and TIFFs are read as they are shown: what a file says about its values is applied, or refused by name."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from tinyseg.data import load_stack, memory
from tinyseg.data.image_file import oriented
from tinyseg.data.images import open_image, output_name, write_like


def grey(shape=(18, 23), seed=0, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def read(path):
    """Return the one section of a file, and check that its header said the truth."""
    with open_image(path) as image:
        assert len(image) == 1
        section = image.section(0)[0]
        assert (image.shape, image.dtype) == (section.shape, section.dtype)
    np.testing.assert_array_equal(load_stack(path)[0], section[None])
    return section


def png(path, rows, bits, colour, *chunks, after=(), interlace=0):
    """Write a PNG from rows (H, bytes of a row) and further chunks."""
    H = len(rows)
    W = rows.shape[1] * 8 // (bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour])
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", W, H, bits, colour, 0, 0, interlace)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), *chunks, (b"IDAT", pixels), *after, (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content)


# ---- palettes


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_a_palette_with_white_first(tmp_path, suffix):
    picture = Image.fromarray((grey() > 100).astype(np.uint8), "L").convert("P")
    picture.putpalette([255, 255, 255, 0, 0, 0])
    picture.putdata((grey() > 100).astype(np.uint8).ravel())
    picture.save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read(tmp_path / f"a.{suffix}") > 128, grey() <= 100)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_palette_of_colours(tmp_path, suffix):
    picture = Image.fromarray(grey() % 3, "L").convert("P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.putdata((grey() % 3).ravel())
    picture.save(tmp_path / f"a.{suffix}")
    with pytest.raises(ValueError, match=rf"a\.{suffix} in .* is in colour.*Lookup Tables"):
        load_stack(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize(("palette", "found"), [(None, 0), (b"", 0), (bytes(range(31)), 10)])
def test_a_palette_that_lacks_colours_of_the_pixels(tmp_path, palette, found):
    png(tmp_path / "a.png", grey() % 11, 8, 3, *([] if palette is None else [(b"PLTE", palette)]))
    with pytest.raises(ValueError, match=rf"a\.png cannot be read: .* colour 10, .* palette of {found} colours"):
        load_stack(tmp_path / "a.png")


@pytest.mark.parametrize("scale", [1, 256, 257, 300])
def test_colour_maps_of_8_and_of_16_bits(tmp_path, scale):
    """Some programs write 8 bits into the 16 of a TIFF's colour map."""
    ramp = (np.arange(256)[::-1] * scale * (0.7 if scale == 300 else 1)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", grey(), photometric="palette", colormap=np.stack([ramp] * 3))
    expected = ramp[grey()] if scale == 300 else 255 - grey()
    found = read(tmp_path / "a.tif")
    assert found.dtype == (np.uint16 if scale == 300 else np.uint8)
    np.testing.assert_array_equal(found, expected)


def test_pages_with_a_colour_map_each(tmp_path):
    pages = []
    for first in (0, 255):
        page = Image.new("P", (23, 18))
        page.putpalette([first] * 3 + [255 - first] * 3)
        page.putdata((grey() > 100).astype(np.uint8).ravel())
        pages.append(page)
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    stack, _ = load_stack(tmp_path / "a.tif")
    np.testing.assert_array_equal(stack, np.where([grey() > 100, grey() <= 100], 255, 0))


# ---- dark and bright exchanged


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int8, np.int16, np.int32, np.float32, np.float64])
def test_white_is_the_smallest_value(tmp_path, dtype):
    x = grey((4, 18, 23)).astype(dtype) - np.array(50, dtype) * (np.dtype(dtype).kind != "u")
    x = x.astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", x, photometric="miniswhite")
    kind = np.dtype(dtype).kind
    expected = np.iinfo(dtype).max - x if kind == "u" else -1 - x if kind == "i" else -x
    np.testing.assert_array_equal(load_stack(tmp_path / "a.tif")[0], expected)


def test_white_is_the_smallest_of_one_bit(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", grey() > 100, photometric="miniswhite", metadata=None)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), grey() <= 100)


def test_a_boolean_array_saved_by_tifffile_is_refused_since_the_file_says_that_true_is_black(tmp_path):
    for array in (grey() > 100, (grey() > 100)[None]):
        tifffile.imwrite(tmp_path / "a.tif", array)
        with pytest.raises(ValueError, match=r"a\.tif is a boolean array of tifffile.*True is black.*255 \* mask"):
            read(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", grey() > 100, photometric="minisblack")
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), grey() > 100)


# ---- what tifffile takes for something else


@pytest.mark.parametrize("shape", [(1, 3), (1, 4), (1, 1, 3), (3, 1)])
def test_a_bare_stack_with_an_axis_of_one_before_it(tmp_path, shape):
    x = grey((np.prod(shape), 18, 23))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tifffile.imwrite(tmp_path / "a.tif", x.reshape(*shape, 18, 23))
        np.testing.assert_array_equal(load_stack(tmp_path / "a.tif")[0], x)


def test_only_the_second_page_is_turned(tmp_path):
    x, turn = grey((18, 23)), (274, 3, 1, 3, True)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for tags in ([], [turn], []):
            tif.write(x, metadata=None, photometric="minisblack", extratags=tags)
    np.testing.assert_array_equal(load_stack(tmp_path / "a.tif")[0], [x, x[::-1, ::-1], x])


def test_a_small_copy_of_a_turned_picture_is_no_section(tmp_path):
    x, turn = grey((40, 56)), (274, 3, 1, 3, True)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for step in (1, 2):
            options = {"photometric": "minisblack", "subfiletype": step - 1, "extratags": [turn]}
            tif.write(x[::step, ::step], metadata=None, **options)
    np.testing.assert_array_equal(load_stack(tmp_path / "a.tif")[0], x[None, ::-1, ::-1])


def test_a_section_of_half_the_size_is_not_left_out(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for step in (1, 2):
            tif.write(grey((40, 56))[::step, ::step], metadata=None)
    with pytest.raises(ValueError, match=r"one shape and type: .*a\.tif\[0\] is 40×56 uint8 and a\.tif\[1\] is 20×28"):
        load_stack(tmp_path / "a.tif")


# ---- orientation


def exif_block(orientation):
    return b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1" + struct.pack(">HH", orientation, 0) + b"\0\0\0\0"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "late.png", "tif"])
def test_pictures_are_turned_as_they_are_shown_and_masks_lie_on_them(tmp_path, kind, orientation):
    path, x = tmp_path / f"a.{kind}", grey((40, 56))
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "tif":
        tag = (274, "H", 1, orientation, True)
        tifffile.imwrite(path, x, photometric="minisblack", resolution=(100, 300), extratags=[tag])
    elif kind == "late.png":
        png(path, x, 8, 0, after=[(b"eXIf", exif_block(orientation))])
    else:
        Image.fromarray(x).save(path, exif=exif, quality=95, dpi=(100, 300))
    Image.fromarray(x).save(tmp_path / "oracle.png", exif=exif)  # Pillow misreads a TIFF whose rows become columns
    with Image.open(path if kind != "tif" else tmp_path / "oracle.png") as picture:
        shown = np.array(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(read(path), shown)
    if kind != "jpg":
        np.testing.assert_array_equal(oriented(x, orientation), shown)
    with open_image(path) as image, write_like(image, tmp_path / output_name(image)) as out:
        out.write((image.section(0) > 100).astype(np.uint8))
    with Image.open(tmp_path / output_name(path)) as mask:
        upright = ImageOps.exif_transpose(mask)
        np.testing.assert_array_equal(np.array(upright), shown > 100)
        if kind in ("jpg", "tif"):
            across, down = (300, 100) if orientation >= 5 else (100, 300)
            assert mask.info["dpi"] == pytest.approx((across, down), abs=0.1)


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_an_orientation_that_there_is_not_means_upright(tmp_path, orientation):
    png(tmp_path / "a.png", grey(), 8, 0, (b"eXIf", exif_block(orientation)))
    np.testing.assert_array_equal(read(tmp_path / "a.png"), grey())
    png(tmp_path / "a.png", grey(), 8, 0, (b"eXIf", b"damaged"))
    np.testing.assert_array_equal(read(tmp_path / "a.png"), grey())
    tag = (274, "H", 1, orientation, True)
    tifffile.imwrite(tmp_path / "a.tif", grey(), photometric="minisblack", extratags=[tag])
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), grey())


# ---- channels, bits, transparency


@pytest.mark.parametrize("colour", [2, 4, 6])
def test_a_png_of_16_bits_in_several_channels(tmp_path, colour):
    channels = {2: 3, 4: 2, 6: 4}[colour]
    rows = np.repeat(grey(dtype=">u2")[..., None] * 300, channels, axis=-1).astype(">u2")
    png(tmp_path / "a.png", rows.reshape(18, -1).view(np.uint8), 16, colour)
    with pytest.raises(ValueError, match=r"a\.png in .* several channels of 16 bits.*Save it as grey"):
        load_stack(tmp_path / "a.png")


def test_a_png_of_16_bits_in_grey(tmp_path):
    x = grey(dtype=np.uint16) * 300
    png(tmp_path / "a.png", x.astype(">u2").view(np.uint8), 16, 0)
    np.testing.assert_array_equal(read(tmp_path / "a.png"), x)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_grey_value_that_is_transparent(tmp_path, bits):
    """Pixels of that value are not to be seen: refused if there are any, else it means nothing."""
    rows = grey((18, 24)) if bits != 16 else (grey((18, 24), dtype=">u2") + 256).view(np.uint8)
    if bits < 8:
        rows = rows & (0b01010101 if bits == 2 else 0b01110111 if bits == 4 else 0)
    highest = 2**bits - 1
    png(tmp_path / "a.png", rows, bits, 0)
    expected = read(tmp_path / "a.png")
    png(tmp_path / "a.png", rows, bits, 0, (b"tRNS", struct.pack(">H", highest)))
    np.testing.assert_array_equal(read(tmp_path / "a.png"), expected)
    rows = rows.copy()
    rows[3, 4:6] = 255
    png(tmp_path / "a.png", rows, bits, 0, (b"tRNS", struct.pack(">H", highest)))
    with pytest.raises(ValueError, match=r"a\.png in .* has an opacity .* not the same everywhere"):
        load_stack(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_an_opacity_is_left_out_if_it_is_the_same_everywhere(tmp_path, mode):
    for same in (True, False):
        opacity = np.full((18, 23), 128, np.uint8)
        opacity[3, 4] = 128 if same else 127
        picture = Image.merge("LA", [Image.fromarray(grey()), Image.fromarray(opacity)])
        if mode == "P":
            picture = Image.fromarray(grey()).convert("P")
            picture.info["transparency"] = bytes([128] * 255 + [128]) if same else bytes([128] * 40 + [127])
        else:
            picture = picture.convert(mode)
        picture.save(tmp_path / "a.png")
        if same:
            np.testing.assert_array_equal(read(tmp_path / "a.png"), grey())
        else:
            with pytest.raises(ValueError, match="has an opacity"):
                load_stack(tmp_path / "a.png")


def test_a_second_channel_is_no_opacity(tmp_path):
    """ImageJ's hyperstack of two channels, one of them blank."""
    x = np.stack([grey(), np.zeros((18, 23), np.uint8)])
    tifffile.imwrite(tmp_path / "a.tif", x[None], imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(ValueError, match=r"several channels \(shape \(18, 23, 2\)\)"):
        load_stack(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["CMYK", "RGB"])
def test_colour_is_refused(tmp_path, mode):
    x = Image.fromarray(grey((18, 23, 3))).convert(mode)
    x.save(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg in .* is in colour"):
        load_stack(tmp_path / "a.jpg")


def test_a_picture_of_several_frames(tmp_path):
    frames = [Image.fromarray(grey(seed=k)) for k in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=r"a\.png in .* has 3 frames.*TIFF stack"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize(("kind", "found"), [("GIF", "a GIF"), ("TIFF", "a TIFF"), ("WEBP", "a WebP")])
def test_a_picture_under_a_wrong_name(tmp_path, kind, found):
    Image.fromarray(grey()).save(tmp_path / "a.png", kind)
    with pytest.raises(ValueError, match=rf"a\.png cannot be read: .* found {found}.* saved under this name"):
        load_stack(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ValueError, match="pointer of Git LFS"):
        load_stack(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_a_picture_that_is_cut_short(tmp_path, suffix):
    Image.fromarray(grey((64, 96))).save(tmp_path / f"a.{suffix}")
    content = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=rf"a\.{suffix} cannot be read: .* found a damaged file"):
        load_stack(tmp_path / f"a.{suffix}")


# ---- size


def test_a_picture_above_the_limit_of_pillow(tmp_path, monkeypatch):
    Image.fromarray(grey()).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    np.testing.assert_array_equal(read(tmp_path / "a.png"), grey())


def test_a_small_picture_that_claims_to_be_huge_is_refused_with_the_size(tmp_path):
    png(tmp_path / "a.png", np.zeros((1, 1), np.uint8), 8, 0)
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = struct.pack(">II", 2**22, 2**22)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"a\.png cannot be read.* too few for the 16384\.0 GiB that its header asks for"
    ):
        open_image(tmp_path / "a.png")


def test_what_does_not_fit_into_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "memory_limit", lambda: 4096)
    Image.fromarray(grey((90, 80))).save(tmp_path / "a.png")
    with (
        open_image(tmp_path / "a.png") as image,
        pytest.raises(ValueError, match=r"a\.png in .*, 90 × 80 pixels of uint8, would take 0\.0 GiB .* has 0\.0 GiB"),
    ):
        image.section(0)
    tifffile.imwrite(tmp_path / "b.tif", grey((8, 18, 23)), photometric="minisblack")
    with pytest.raises(ValueError, match=r"the stack of .*b\.tif would take"):
        load_stack(tmp_path / "b.tif")


# ---- TIFFs of several kinds


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_a_stack_of_few_sections_written_by_bare_tifffile(tmp_path, count, options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that tifffile takes three or four for colours
        tifffile.imwrite(tmp_path / "a.tif", grey((count, 18, 23)), **options)
    if count == 2:
        stack, names = load_stack(tmp_path / "a.tif")
    else:
        with pytest.warns(UserWarning, match=rf"a stack of {count} sections, .*minisblack"):
            stack, names = load_stack(tmp_path / "a.tif")
    np.testing.assert_array_equal(stack, grey((count, 18, 23)))
    assert names[-1] == f"a.tif[{count - 1}]"


def test_a_tiff_in_colour_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", grey((18, 23, 3)), photometric="rgb")
    with pytest.raises(ValueError, match="is in colour"):
        load_stack(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", grey((3, 18, 23)), photometric="rgb", planarconfig="separate", shaped=False)
    with pytest.raises(ValueError, match="is in colour"):
        load_stack(tmp_path / "a.tif")


@pytest.mark.parametrize("how", ["sub-IFDs", "pages"])
def test_a_tiff_of_several_resolutions(tmp_path, how):
    options = {"photometric": "minisblack", "metadata": None}
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for k in range(2):
            tif.write(grey((64, 96), k), subifds=1 if how == "sub-IFDs" else None, **options)
            tif.write(grey((32, 48), k), subfiletype=1, **options)
    np.testing.assert_array_equal(load_stack(tmp_path / "a.tif")[0], [grey((64, 96), k) for k in range(2)])


def test_ome_tiff_of_several_images_keeps_channels_together(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        for k in range(2):
            tif.write(grey((3, 18, 23), k), photometric="minisblack", metadata={"axes": "CYX"})
    with pytest.raises(ValueError, match="several channels"):
        load_stack(tmp_path / "a.ome.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_a_tiff_with_predictor(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", grey(dtype=dtype), compression="zlib", predictor=2, photometric="minisblack")
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), grey(dtype=dtype))


@pytest.mark.parametrize("compression", ["zstd", "tiff_lzw", "jpeg"])
def test_a_decoder_that_is_not_installed(tmp_path, compression):
    """It is read, or the sentence says what to install."""
    buffer = io.BytesIO()
    try:
        Image.fromarray(grey((64, 64))).save(buffer, "TIFF", compression=compression)
    except (OSError, ValueError):
        pytest.skip(f"Pillow cannot write {compression} here")
    (tmp_path / "a.tif").write_bytes(buffer.getvalue())
    try:
        found = read(tmp_path / "a.tif")
    except ValueError as error:
        assert "pip install imagecodecs" in str(error)  # noqa: PT017
    else:
        assert np.corrcoef(found.ravel(), grey((64, 64)).ravel())[0, 1] > 0.9
