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


# ---- TIFF: which pages are sections


def test_hyperstacks_of_imagej_with_one_page_for_all_sections(tmp_path):
    for axes, shape in (("ZYX", (5,)), ("TZYX", (2, 3)), ("TYX", (4,)), ("CYX", (6,))):
        x = pixels(*shape, 37, 53, dtype=np.uint16)
        tifffile.imwrite(
            tmp_path / "a.tif", x, imagej=True, metadata={"axes": axes, "unit": "um", "spacing": 0.4}, resolution=(4, 2)
        )
        said = check(tmp_path / "a.tif")
        assert said["count"] == len(x.reshape(-1, 37, 53))
        assert {key: said["pixelSize"][key] for key in ("x", "y", "z", "unit")} == {
            "x": 0.25,
            "y": 0.5,
            "z": 0.4,
            "unit": "µm",
        }
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
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        x,
        ome=True,
        photometric="minisblack",
        metadata={"axes": axes, **size},
        compression="zlib",
    )
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
    tifffile.imwrite(
        tmp_path / "a.tif",
        pixels(37, 53),
        photometric="minisblack",
        resolution=(100, 300),
        resolutionunit=3,
        extratags=[tag],
    )
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
            paeth = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            packed += bytes([(x[y, i] - [0, a, b, (a + b) // 2, paeth][filter_type]) % 256])
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
    png(tmp_path / "a.png", rows, bits, 0, (b"tRNS", struct.pack(">H", highest)))
    assert "has an opacity (alpha, transparency) that is not the same everywhere" in refusal(tmp_path / "a.png")


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
        picture.convert(mode if mode != "P" else None).save(tmp_path / "a.png")
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


def test_colour_of_16_bits_becomes_grey_of_16_bits(tmp_path):
    x = pixels(3, 37, 53, dtype=np.uint16).transpose(1, 2, 0)
    expected = np.floor((x @ np.array([19595.0, 38470, 7471]) + 32768) / 65536)
    png(tmp_path / "a.png", np.ascontiguousarray(x.astype(">u2")).reshape(37, -1).view(np.uint8), 16, 2)
    tifffile.imwrite(tmp_path / "a.tif", x, photometric="rgb")
    for name in ("a.png", "a.tif"):
        said, found = read(tmp_path / name)
        assert said["colour"] and said["dtype"] == "uint16"
        np.testing.assert_array_equal(found[0, 0], expected)


# ---- writing


def write(tmp_path, what, x, *options, **job):
    """Write sections (S, H, W) as the page does; return the path of the file."""
    x.astype(float).tofile(tmp_path / "pixels.raw")
    out = tmp_path / f"out.{'png' if what == 'writePng' else 'tif'}"
    said = {what: True, "pixels": str(tmp_path / "pixels.raw"), "out": str(out), "dtype": str(x.dtype)}
    (answer,) = run([{**said, "height": x.shape[-2], "width": x.shape[-1], **job}], *options)
    assert "error" not in answer, answer["error"]
    return out


@pytest.mark.parametrize("options", [[], ["--without-streams"]], ids=["streams", "no streams"])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_written_tiff_is_read_by_tifffile_and_pillow(tmp_path, dtype, count, options):
    x = pixels(count, 37, 53, dtype=dtype)
    size = {"x": 0.25, "y": 0.5, "z": 2, "unit": "µm"}
    path = write(tmp_path, "writeTiff", x, *options, pixelSize=size)
    with tifffile.TiffFile(path) as tif:
        assert [series.shape for series in tif.series] == [x.squeeze().shape if count == 1 else x.shape]
        np.testing.assert_array_equal(tif.asarray().reshape(x.shape), x)
        assert tif.imagej_metadata["unit"] == "\\u00B5m" and tif.imagej_metadata["spacing"] == 2
        assert "images=" not in tif.pages[0].description
        assert all(page.compression == (1 if options else 8) for page in tif.pages)
        tags = tif.pages[-1].tags
        assert tags["XResolution"].value[0] / tags["XResolution"].value[1] == 4
        assert tags["YResolution"].value[0] / tags["YResolution"].value[1] == 2
    with Image.open(path) as picture:
        assert picture.n_frames == count
        for k in range(count):
            picture.seek(k)
            np.testing.assert_array_equal(np.array(picture), x[k])
    said = check(path)
    assert {key: said["pixelSize"][key] for key in size} == size


def test_resolution_and_units_are_kept(tmp_path):
    x, metadata = pixels(3, 37, 53), {"axes": "ZYX", "unit": "nm", "spacing": 45, "xorigin": 7}
    tifffile.imwrite(tmp_path / "a.tif", x, imagej=True, metadata=metadata, resolution=((7, 30), (9, 40)))
    path = write(tmp_path, "writeTiff", x, pixelSize=read(tmp_path / "a.tif")[0]["pixelSize"])
    with tifffile.TiffFile(path) as tif, tifffile.TiffFile(tmp_path / "a.tif") as old:
        for name in ("XResolution", "YResolution", "ResolutionUnit"):
            assert tif.pages[0].tags[name].value == old.pages[0].tags[name].value
        assert {key: tif.imagej_metadata[key] for key in ("unit", "spacing", "xorigin")} == {
            "unit": "nm",
            "spacing": 45,
            "xorigin": 7,
        }
    tifffile.imwrite(tmp_path / "a.tif", x, resolution=((7, 3), (9, 4)), resolutionunit=3, photometric="minisblack")
    path = write(tmp_path, "writeTiff", x, pixelSize=read(tmp_path / "a.tif")[0]["pixelSize"])
    with tifffile.TiffFile(path) as tif:
        assert (tif.pages[0].tags["XResolution"].value, tif.pages[0].tags["ResolutionUnit"].value) == ((7, 3), 3)


@pytest.mark.parametrize("options", [[], ["--without-streams"]], ids=["streams", "no streams"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_written_png_is_read_by_pillow(tmp_path, dtype, options):
    for x in (pixels(1, 37, 53, dtype=dtype), pixels(1, 301, 453, dtype=dtype)):
        path = write(tmp_path, "writePng", x, *options, pixelSize={"x": 1 / 300, "y": 1 / 100, "unit": "inch"})
        with Image.open(path) as picture:
            assert picture.info["dpi"] == pytest.approx((300, 100), abs=0.1)
            np.testing.assert_array_equal(np.array(picture), x[0])
        check(path)


def test_what_cannot_be_written(tmp_path):
    x = pixels(1, 37, 53, dtype=np.int32)
    x.astype(float).tofile(tmp_path / "pixels.raw")
    job = {
        "pixels": str(tmp_path / "pixels.raw"),
        "height": 37,
        "width": 53,
        "dtype": "int32",
        "out": str(tmp_path / "o"),
    }
    tiff, png, size, none = run([
        {**job, "writeTiff": True}, {**job, "writePng": True}, {**job, "writePng": True, "dtype": "uint8", "width": 52},
        {**job, "writeTiff": True, "dtype": "uint8", "height": 10**6},
    ])  # fmt: skip
    assert tiff["error"] == "A TIFF is written as uint8, uint16 or float32, not as int32: convert the pixels."
    assert png["error"] == "A PNG is written as uint8 or uint16, not as int32: convert the pixels."
    assert size["error"] == "A PNG of 37 × 52 pixels was given 1961 values: give one for each."
    assert none["error"] == "A TIFF needs at least one section: none was given."
