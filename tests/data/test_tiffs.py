"""TIFFs as satellites' and NumPy's users have them."""

import numpy as np
import pytest
import tifffile

from tinyseg.data.images import open_image
from tinyseg.data.stacks import load_stack


def grey(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 250, shape).astype(dtype)


def write_geotiff(path, pixels, no_data):
    tifffile.imwrite(path, pixels, photometric="minisblack", extratags=[(42113, "s", 0, no_data, True)])


@pytest.mark.parametrize(
    ("dtype", "no_data"), [(np.int16, "-9999"), (np.float32, "-3.4028234663852886e+38"), (np.uint16, "65535 ")]
)
def test_pixels_without_data_in_a_geotiff(tmp_path, dtype, no_data):
    pixels = grey(20, 30, dtype=dtype)
    write_geotiff(tmp_path / "a.tif", pixels, no_data)
    np.testing.assert_array_equal(load_stack(tmp_path / "a.tif")[0][0], pixels)
    pixels[:5] = float(no_data)
    write_geotiff(tmp_path / "a.tif", pixels, no_data)
    with pytest.raises(ValueError, match=r"a\.tif in .* holds .* in 25\.0% of its pixels, which stands for no data"):
        load_stack(tmp_path / "a.tif")


def test_black_stands_for_no_data_in_a_geotiff(tmp_path):
    pixels = grey(20, 30)
    pixels[:5] = 0
    for no_data in ("0", "nan", "none"):
        write_geotiff(tmp_path / "a.tif", pixels, no_data)
        np.testing.assert_array_equal(load_stack(tmp_path / "a.tif")[0][0], pixels)


def test_four_bands_of_a_satellite_are_no_sections(tmp_path):
    for shape, layout in (((20, 30, 4), "contig"), ((4, 20, 30), "separate")):
        tifffile.imwrite(
            tmp_path / "a.tif", grey(*shape, dtype=np.uint16), photometric="minisblack", planarconfig=layout,
            extrasamples=3 * ["unspecified"], metadata=None,
        )  # fmt: skip
        with pytest.raises(ValueError, match="several channels"):
            load_stack(tmp_path / "a.tif")


def test_an_array_with_its_sections_or_channels_last(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", grey(40, 48, 3), photometric="minisblack")
    with pytest.raises(ValueError, match=r"40 sections of 48×3 pixels\. If its last axis .*moveaxis\(array, -1, 0\)"):
        open_image(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", grey(40, 48, 12), photometric="minisblack")
    with pytest.warns(UserWarning, match="40 sections of 48×12 pixels"):
        assert load_stack(tmp_path / "b.tif")[0].shape == (40, 48, 12)
    tifffile.imwrite(tmp_path / "c.tif", grey(4, 48, 12), photometric="minisblack")  # narrow, and no reason to warn
    assert load_stack(tmp_path / "c.tif")[0].shape == (4, 48, 12)
