"""TIFFs are read in the page as tinyseg.data reads them: the same values, of the same type, turned the same way."""

import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.export.page.page_images import check, pixels, read, refusal

INTEGERS = [np.uint8, np.uint16, np.uint32, np.int8, np.int16, np.int32]
FLOATS = [np.float16, np.float32, np.float64]


# ---- TIFF: types, orders of bytes, packings, strips and tiles


@pytest.mark.parametrize("dtype", [np.bool_, *INTEGERS, *FLOATS])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_types_and_orders_of_bytes(tmp_path, dtype, byteorder, bigtiff):
    x = pixels(3, 37, 53, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", x, photometric="minisblack", byteorder=byteorder, bigtiff=bigtiff)
    assert check(tmp_path / "a.tif")["kind"] == "TIFF"


def test_all_floats_of_16_bits(tmp_path):
    x = np.arange(2**16, dtype=np.uint16).view(np.float16)
    tifffile.imwrite(tmp_path / "a.tif", x[np.isfinite(x)].reshape(256, -1), photometric="minisblack")
    check(tmp_path / "a.tif")


@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 7}, {"tile": (16, 32)}], ids=["whole", "strips", "tiles"])
@pytest.mark.parametrize("options", [[], ["--without-streams"]], ids=["streams", "no streams"])
@pytest.mark.parametrize("packing", ["none", "lzw", "zlib", "deflate", "packbits"])
def test_packings(tmp_path, packing, layout, options):
    if packing in ("lzw", "packbits"):
        pytest.importorskip("imagecodecs")
    x = pixels(2, 67, 83, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", x, compression=packing, photometric="minisblack", **layout)
    check(tmp_path / "a.tif", *options)


@pytest.mark.parametrize("packing", ["lzw", "zlib"])
def test_long_strips(tmp_path, packing):
    pytest.importorskip("imagecodecs")
    for k, x in enumerate([pixels(700, 500), np.zeros((700, 500), np.uint8), np.random.default_rng(1).bytes(350000)]):
        x = np.frombuffer(x, np.uint8).reshape(700, 500) if isinstance(x, bytes) else x
        tifffile.imwrite(tmp_path / f"{k}.tif", x, compression=packing, rowsperstrip=700)
        check(tmp_path / f"{k}.tif")
        check(tmp_path / f"{k}.tif", "--without-streams")


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("layout", [{"rowsperstrip": 7}, {"tile": (16, 32)}], ids=["strips", "tiles"])
@pytest.mark.parametrize(
    ("dtype", "predictor"),
    [*((d, 2) for d in INTEGERS), *((d, 3) for d in FLOATS)],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_predictors(tmp_path, dtype, predictor, layout, byteorder):
    pytest.importorskip("imagecodecs")
    x = pixels(37, 53, dtype=dtype)
    options = {"compression": "zlib", "predictor": predictor, "photometric": "minisblack", "byteorder": byteorder}
    tifffile.imwrite(tmp_path / "a.tif", x, **options, **layout)
    check(tmp_path / "a.tif")


def test_predictor_of_floats_in_several_channels(tmp_path):
    pytest.importorskip("imagecodecs")
    x = np.dstack([pixels(37, 53, dtype=np.float32)] * 3)
    tifffile.imwrite(tmp_path / "a.tif", x, compression="zlib", predictor=3, photometric="rgb")
    check(tmp_path / "a.tif")


def test_packbits_with_bytes_that_mean_nothing(tmp_path):
    pytest.importorskip("imagecodecs")
    packed = bytes([2, 5, 6, 7, 0x80, 0xFD, 9, 0x80, 4, 1, 2, 3, 4, 5])  # 5 6 7, nothing, four times 9, nothing, 1 to 5
    tags = [(256, 4), (257, 3), (258, 8), (259, 32773), (262, 1), (273, 8), (277, 1), (278, 3), (279, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    content = b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(content)
    check(tmp_path / "a.tif")
    assert read(tmp_path / "a.tif")[1][0, 0].tolist() == [[5, 6, 7, 9], [9, 9, 9, 1], [2, 3, 4, 5]]


def test_a_tile_that_is_not_stored_is_black(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels(37, 53), compression="zlib", tile=(16, 16), photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        places = [tif.pages[0].tags[name].valueoffset for name in ("TileOffsets", "TileByteCounts")]
        size = [tif.pages[0].tags[name].dtype.value for name in ("TileOffsets", "TileByteCounts")]
    content = bytearray((tmp_path / "a.tif").read_bytes())
    for place, kind in zip(places, size, strict=True):
        width = {3: 2, 4: 4}[kind]
        content[place + 5 * width : place + 6 * width] = bytes(width)
    (tmp_path / "a.tif").write_bytes(content)
    check(tmp_path / "a.tif")
    assert not read(tmp_path / "a.tif")[1][0, 0, 16:32, 16:32].any()


def test_strips_whose_sizes_are_wrong(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels(37, 53), rowsperstrip=37, photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        place = tif.pages[0].tags["StripByteCounts"].offset + 8
    content = (tmp_path / "a.tif").read_bytes()
    for count in (0, 37, 4096):
        (tmp_path / "a.tif").write_bytes(content[:place] + struct.pack("<I", count) + content[place + 4 :])
        np.testing.assert_array_equal(read(tmp_path / "a.tif")[1][0, 0], pixels(37, 53))


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("layout", [{"rowsperstrip": 7}, {"tile": (16, 32)}], ids=["strips", "tiles"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_saved_as_rgb(tmp_path, dtype, planes, layout):
    pytest.importorskip("imagecodecs")
    x = pixels(37, 53, dtype=dtype)
    x = np.stack([x] * 3, axis=-1 if planes == "contig" else 0)
    options = {"photometric": "rgb", "planarconfig": planes, "compression": "lzw", "predictor": 2, "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", x, **options, **layout)
    assert check(tmp_path / "a.tif")["count"] == 1


@pytest.mark.parametrize("bits", [2, 4, 7, 10, 12, 14])
def test_bits_that_are_no_bytes(tmp_path, bits):
    pytest.importorskip("imagecodecs")
    x = pixels(37, 53, dtype=np.uint16) >> (16 - bits)
    x = x.astype(np.uint8 if bits <= 8 else np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", x, bitspersample=bits, photometric="minisblack")
    check(tmp_path / "a.tif")


@pytest.mark.parametrize("packing", ["none", "lzw", "packbits"])
def test_bits_in_the_other_order_within_bytes(tmp_path, packing):
    pytest.importorskip("imagecodecs")
    x = pixels(37, 53)
    tag = (65000, 3, 1, 2, True)  # becomes FillOrder, which tifffile does not write
    tifffile.imwrite(tmp_path / "a.tif", x, compression=packing, photometric="minisblack", extratags=[tag])
    content = (tmp_path / "a.tif").read_bytes()
    entry = struct.pack("<HHIHH", 65000, 3, 1, 2, 0)
    assert content.count(entry) == 1
    (tmp_path / "a.tif").write_bytes(content.replace(entry, struct.pack("<H", 266) + entry[2:]))
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:  # turn the bits of the pixels alone
        page, content = tif.pages[0], bytearray((tmp_path / "a.tif").read_bytes())
        assert page.fillorder == 2
        for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            content[start : start + count] = bytes(int(f"{b:08b}"[::-1], 2) for b in content[start : start + count])
    (tmp_path / "a.tif").write_bytes(content)
    check(tmp_path / "a.tif")
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[1][0, 0], x)


# ---- TIFF: what values stand for


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_white_is_the_smallest_value(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", pixels(2, 37, 53, dtype=dtype), photometric="miniswhite")
    check(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", np.arange(20, dtype=np.uint64).reshape(4, 5), photometric="miniswhite")
    assert "has white as 0 and integers of 64 bits" in refusal(tmp_path / "a.tif")


def test_white_is_the_smallest_of_one_bit(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels(37, 53, dtype=bool), photometric="miniswhite", metadata=None)
    check(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", pixels(37, 53, dtype=bool))
    assert "is a boolean array of tifffile, and the file says that True is black" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("packing", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["1", "L", "I;16", "F", "LA", "RGB", "RGBA", "P"])
def test_what_pillow_and_libtiff_write(tmp_path, mode, packing):
    if packing == "tiff_lzw":
        pytest.importorskip("imagecodecs")
    types = {"1": bool, "I;16": np.uint16, "F": np.float32}
    picture = Image.fromarray(pixels(137, 253, dtype=types.get(mode, np.uint8)))
    picture = picture if picture.mode == mode else picture.convert(mode)
    picture.save(tmp_path / "a.tif", compression=packing, dpi=(300, 100))
    said = check(tmp_path / "a.tif")
    assert said["pixelSize"]["x"] == pytest.approx(1 / 300) and said["pixelSize"]["unit"] == "inch"


@pytest.mark.parametrize("scale", [1, 256, 257, 300])
def test_colour_maps_of_8_and_of_16_bits(tmp_path, scale):
    ramp = (np.arange(256)[::-1] * scale * (0.7 if scale == 300 else 1)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels(37, 53), photometric="palette", colormap=np.stack([ramp] * 3))
    check(tmp_path / "a.tif")


def test_pages_with_a_colour_map_each(tmp_path):
    pages = []
    for first in (0, 255):
        page = Image.new("P", (53, 37))
        page.putpalette([first] * 3 + [255 - first] * 3)
        page.putdata(pixels(37, 53, dtype=bool).astype(np.uint8).ravel())
        pages.append(page)
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    check(tmp_path / "a.tif")


def test_no_data_of_a_geotiff(tmp_path):
    x = pixels(37, 53, dtype=np.float32)
    for no_data in ("-9999", "0", "nan", "-3.4028234663852886e+38"):
        tifffile.imwrite(tmp_path / "a.tif", x, photometric="minisblack", extratags=[(42113, "s", 0, no_data, True)])
        check(tmp_path / "a.tif")
        if float(no_data) < 0:
            y = x.copy()
            y[:5] = float(no_data)
            tifffile.imwrite(
                tmp_path / "b.tif", y, photometric="minisblack", extratags=[(42113, "s", 0, no_data, True)]
            )
            assert f"in {500 / 37:.1f} % of the pixels" in refusal(tmp_path / "b.tif")


@pytest.mark.parametrize("same", [True, False])
def test_an_opacity_in_a_tiff(tmp_path, same):
    x, opacity = pixels(37, 53), np.full((37, 53), 128, np.uint8)
    opacity[3, 4] = 128 if same else 127
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([x, x, x, opacity]), photometric="rgb", extrasamples=["unassalpha"])
    if same:
        check(tmp_path / "a.tif")
    else:
        assert "has an opacity (alpha, transparency) that is not the same everywhere" in refusal(tmp_path / "a.tif")


def test_what_is_not_finite(tmp_path):
    for bad in (np.nan, np.inf, 1e39):
        x = pixels(2, 37, 53, dtype=np.float64)
        x[1, 3, 4] = bad
        tifffile.imwrite(tmp_path / "a.tif", x, photometric="minisblack")
        assert "holds NaN or infinity" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("packing", ["zstd", "lerc", "jpeg2000", "lzma", "webp"])
def test_a_packing_that_is_not_read_is_named(tmp_path, packing):
    pytest.importorskip("imagecodecs")
    x = np.dstack([pixels(37, 53)] * 3) if packing == "webp" else pixels(37, 53)
    tifffile.imwrite(tmp_path / "a.tif", x, compression=packing)
    name = {"zstd": "Zstandard", "jpeg2000": "JPEG 2000"}.get(packing, packing)
    assert name.lower() in refusal(tmp_path / "a.tif").lower()
    assert refusal(tmp_path / "a.tif").endswith("save it without compression, or with LZW or deflate (zip).")
