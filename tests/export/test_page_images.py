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
    tifffile.imwrite(tmp_path / "a.tif", x, bitspersample=bits, photometric="minisblack", compression="packints")
