"""Images are read in the page as tinyseg.data reads them: the same values, of the same type, turned the same way."""

import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.export.page_images import read, refusal, run
from tinyseg.data.images import open_image

INTEGERS = [np.uint8, np.uint16, np.uint32, np.int8, np.int16, np.int32]
FLOATS = [np.float16, np.float32, np.float64]


def pixels(*shape, dtype=np.uint8, seed=0):
    """Smooth parts and noise, over the whole range of the type."""
    rng = np.random.default_rng(seed)
    x = np.add.outer(np.arange(shape[-2]), np.arange(shape[-1])) / sum(shape[-2:]) + rng.random(shape) * 0.3
    x = np.floor(x * 8) / 8 * (rng.random(shape) > 0.2)
    if np.dtype(dtype).kind == "b":
        return x > 0.4
    if np.dtype(dtype).kind == "f":
        return ((x - 0.5) * 1000.1).astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(limits.min + x * (float(limits.max) - limits.min), limits.min, limits.max).astype(dtype)


def check(path, *options, colour=False):
    """Compare what the page reads with what tinyseg reads; return what the page says."""
    said, found = read(path, *options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_image(path) as image:
            expected = np.stack(list(image))
            assert (said["count"], said["height"], said["width"]) == (len(image), *image.shape)
            assert said["dtype"] == str(image.dtype)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert said["colour"] == colour
    return said


# ---- TIFF: types, orders of bytes, packings, strips and tiles


@pytest.mark.parametrize("dtype", [np.bool_, *INTEGERS, *FLOATS])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_types_and_orders_of_bytes(tmp_path, dtype, byteorder, bigtiff):
    x = pixels(3, 37, 53, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", x, photometric="minisblack", byteorder=byteorder, bigtiff=bigtiff)
    assert check(tmp_path / "a.tif")["kind"] == "TIFF"


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
    ("dtype", "predictor"), [*((d, 2) for d in INTEGERS), *((d, 3) for d in FLOATS)], ids=lambda x: getattr(x, "__name__", x)
)
def test_predictors(tmp_path, dtype, predictor, layout, byteorder):
    pytest.importorskip("imagecodecs")
    x = pixels(37, 53, dtype=dtype)
    options = {"compression": "zlib", "predictor": predictor, "photometric": "minisblack", "byteorder": byteorder}
    tifffile.imwrite(tmp_path / "a.tif", x, **options, **layout)
    check(tmp_path / "a.tif")


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("layout", [{"rowsperstrip": 7}, {"tile": (16, 32)}], ids=["strips", "tiles"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_saved_as_rgb(tmp_path, dtype, planes, layout):
    pytest.importorskip("imagecodecs")
    x = pixels(37, 53, dtype=dtype)
    x = np.stack([x] * 3, axis=-1 if planes == "contig" else 0)
    options = {"photometric": "rgb", "planarconfig": planes, "compression": "lzw", "predictor": 2}
    tifffile.imwrite(tmp_path / "a.tif", x, **options, **layout)
    check(tmp_path / "a.tif")


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


# ---- TIFF: which pages are sections


def test_hyperstacks_of_imagej_with_one_page_for_all_sections(tmp_path):
    for axes, shape in (("ZYX", (5,)), ("TZYX", (2, 3)), ("TYX", (4,)), ("CYX", (6,))):
        x = pixels(*shape, 37, 53, dtype=np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", x, imagej=True, metadata={"axes": axes, "unit": "um", "spacing": 0.4}, resolution=(4, 2))
        said = check(tmp_path / "a.tif")
        assert said["count"] == len(x.reshape(-1, 37, 53))
        assert {key: said["pixelSize"][key] for key in ("x", "y", "z", "unit")} == {"x": 0.25, "y": 0.5, "z": 0.4, "unit": "µm"}
    content = (tmp_path / "a.tif").read_bytes()
    tifffile.imwrite(tmp_path / "b.tif", x, imagej=True, truncate=True, metadata={"axes": "CYX"})
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        assert len(tif.pages) == 1
    check(tmp_path / "b.tif")
    content = (tmp_path / "b.tif").read_bytes()
    (tmp_path / "b.tif").write_bytes(content[:-100])
    assert "more is expected up to byte" in refusal(tmp_path / "b.tif", sections=[0])


def test_channels_are_refused(tmp_path):
    x = pixels(3, 2, 37, 53)
    for options in ({"imagej": True}, {"ome": True}, {}):
        tifffile.imwrite(tmp_path / "a.tif", x, metadata={"axes": "ZCYX"}, photometric="minisblack", **options)
        assert "a.tif has 2 channels: expected grey. Save the one channel to use" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("axes", ["ZYX", "TZYX", "ZTYX", "CYX"])
def test_planes_of_ome(tmp_path, axes):
    x = pixels(*{"ZYX": (5,), "TZYX": (2, 3), "ZTYX": (3, 2), "CYX": (6,)}[axes], 37, 53)
    size = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(tmp_path / "a.ome.tif", x, ome=True, photometric="minisblack", metadata={"axes": axes, **size}, compression="zlib")
    assert check(tmp_path / "a.ome.tif")["pixelSize"] == {"x": 0.25, "y": 0.5, "unit": "µm"}


def write_ome(path, planes, sizes='SizeZ="2" SizeT="1"', pages=2):
    text = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'UUID="urn:uuid:1"><Image ID="Image:0"><Pixels ID="Pixels:0" Type="uint8" DimensionOrder="XYZCT" SizeX="9" '
        f'SizeY="7" SizeC="1" {sizes}><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>'
    )
    with tifffile.TiffWriter(path) as tif:
        for k in range(pages):
            tif.write(pixels(7, 9, seed=k), photometric="minisblack", description=None if k else text, metadata=None)


def test_what_ome_claims(tmp_path):
    path = tmp_path / "a.ome.tif"
    plane = '<TiffData FirstZ="{}" IFD="{}" PlaneCount="1"/>'
    write_ome(path, '<TiffData IFD="0" PlaneCount="2"/>')
    check(path)
    write_ome(path, plane.format(0, 0) + plane.format(1, 1))
    check(path)
    write_ome(path, plane.format(0, 1) + plane.format(1, 0))
    assert "planes in another order than its pages" in refusal(path)
    write_ome(path, "", 'SizeZ="3" SizeT="1"')
    assert "names 3 planes, and it has 2 pages" in refusal(path)
    write_ome(path, "", 'SizeZ="30000" SizeT="30000"')
    assert "many more planes than its 2 pages" in refusal(path)
    other = '<TiffData FirstZ="{0}" IFD="0" PlaneCount="1"><UUID FileName="{1}.ome.tif">urn:uuid:{2}</UUID></TiffData>'
    write_ome(path, other.format(0, "a", 1) + other.format(1, "b", 2), pages=1)
    (note,) = check(path)["notes"]
    assert "its own 1 sections are read, and no others (b.ome.tif)" in note


@pytest.mark.parametrize("how", ["sub-IFDs", "pages", "turned"])
def test_smaller_copies_are_no_sections(tmp_path, how):
    tags = [(274, 3, 1, 3, True)] if how == "turned" else []
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for k in range(2):
            options = {"photometric": "minisblack", "metadata": None, "extratags": tags}
            tif.write(pixels(64, 96, seed=k), subifds=1 if how == "sub-IFDs" else None, **options)
            tif.write(pixels(32, 48, seed=k), subfiletype=1, **options)
    assert check(tmp_path / "a.tif")["count"] == 2


@pytest.mark.parametrize("orientation", [0, *range(1, 9), 300])
def test_a_tiff_is_turned_as_it_is_shown(tmp_path, orientation):
    tag = (274, "H", 1, orientation, True)
    tifffile.imwrite(tmp_path / "a.tif", pixels(37, 53), photometric="minisblack", resolution=(100, 300), resolutionunit=3, extratags=[tag])
    said, across, down = check(tmp_path / "a.tif")["pixelSize"], 1 / 100, 1 / 300
    if 5 <= orientation <= 8:
        across, down = down, across
    assert (said["x"], said["y"], said["unit"]) == (pytest.approx(across), pytest.approx(down), "cm")


def test_only_the_second_page_is_turned(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for tags in ([], [(274, 3, 1, 3, True)], []):
            tif.write(pixels(37, 53), metadata=None, photometric="minisblack", extratags=tags)
    check(tmp_path / "a.tif")


@pytest.mark.parametrize("shape", [(3,), (4,), (1, 3), (1, 1, 4), (3, 1)])
def test_a_bare_stack_that_looks_like_colours(tmp_path, shape):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tifffile.imwrite(tmp_path / "a.tif", pixels(*shape, 37, 53))
    assert check(tmp_path / "a.tif")["count"] == np.prod(shape)


def test_sections_that_differ(tmp_path):
    for other in (pixels(18, 26), pixels(37, 53, dtype=np.int16)):
        with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
            for page in (pixels(37, 53), other):
                tif.write(page, metadata=None, photometric="minisblack")
        assert "section 0 is 37 × 53 uint8, section 1 is " in refusal(tmp_path / "a.tif")


def test_an_array_with_its_sections_last(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels(40, 48, 3), photometric="minisblack")
    assert "is a stack of 40 sections of 48 × 3 pixels. If its last axis" in refusal(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", pixels(40, 48, 12), photometric="minisblack")
    assert "numpy.moveaxis" in check(tmp_path / "a.tif")["notes"][0]


# ---- TIFF: what values stand for


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_white_is_the_smallest_value(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", pixels(2, 37, 53, dtype=dtype), photometric="miniswhite")
    check(tmp_path / "a.tif")


def test_white_is_the_smallest_of_one_bit(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels(37, 53, dtype=bool), photometric="miniswhite", metadata=None)
    check(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", pixels(37, 53, dtype=bool))
    assert "is a boolean array of tifffile, and the file says that True is black" in refusal(tmp_path / "a.tif")


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
            tifffile.imwrite(tmp_path / "b.tif", y, photometric="minisblack", extratags=[(42113, "s", 0, no_data, True)])
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
