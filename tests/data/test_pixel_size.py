"""The size of a pixel as microscopes' programs write it, and where nothing is known of it."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from tinyseg.data.images import open_image, write_like
from tinyseg.data.pixel_size import pixel_size

STACK = np.zeros((3, 20, 31), np.uint8)


def size_of(path, **options):
    tifffile.imwrite(path, STACK, **({"photometric": "minisblack"} | options))
    with open_image(path) as image:
        return pixel_size(image)


@pytest.mark.parametrize(
    ("unit", "factor"), [("micron", 1), ("um", 1), ("\\u00B5m", 1), ("nm", 1e-3), ("mm", 1e3), ("cm", 1e4)]
)
def test_imagej(tmp_path, unit, factor):
    found = size_of(tmp_path / "a.tif", imagej=True, resolution=(4, 5), metadata={"unit": unit, "axes": "ZYX"})
    assert found == pytest.approx((factor / 5, factor / 4))


def test_imagej_without_a_unit_of_length(tmp_path):
    for unit in ("pixel", "inch", "furlong"):
        assert size_of(tmp_path / "a.tif", imagej=True, resolution=(4, 5), metadata={"unit": unit}) is None
    assert size_of(tmp_path / "a.tif", imagej=True) is None


@pytest.mark.parametrize(("unit", "factor"), [("µm", 1), ("nm", 1e-3), (None, 1)])
def test_ome(tmp_path, unit, factor):
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25}
    metadata |= {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit} if unit else {}
    found = size_of(tmp_path / "a.ome.tif", metadata=metadata)
    assert found == pytest.approx((0.25 * factor, 0.5 * factor))
    assert size_of(tmp_path / "b.ome.tif", metadata={"axes": "ZYX"}) is None
    metadata |= {"PhysicalSizeXUnit": "pixel", "PhysicalSizeYUnit": "pixel"}
    assert size_of(tmp_path / "c.ome.tif", metadata=metadata) is None


def test_pixels_in_a_centimetre_count_and_those_in_an_inch_do_not(tmp_path):
    found = size_of(tmp_path / "a.tif", resolution=(20000, 10000), resolutionunit="CENTIMETER")
    assert found == pytest.approx((1.0, 0.5))
    assert size_of(tmp_path / "a.tif", resolution=(300, 300), resolutionunit="INCH") is None
    assert size_of(tmp_path / "a.tif", resolution=(1, 1), resolutionunit="NONE") is None
    assert size_of(tmp_path / "a.tif") is None
    assert size_of(tmp_path / "a.tif", description="<no xml", metadata=None) is None
    Image.fromarray(STACK[0]).save(tmp_path / "a.png", dpi=(300, 300))
    with open_image(tmp_path / "a.png") as image:
        assert pixel_size(image) is None


@pytest.mark.parametrize("size", [0.5, 0.004, 1e-6, 1e9])
def test_what_is_made_of_an_ome_tiff_keeps_the_size_of_a_pixel(tmp_path, size):
    metadata = {"axes": "ZYX", "PhysicalSizeX": size, "PhysicalSizeY": 2 * size}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, photometric="minisblack", metadata=metadata)
    with open_image(tmp_path / "a.ome.tif") as image, write_like(image, tmp_path / "out.tif", dtype=np.uint16) as out:
        for section in STACK:
            out.write(section)
    with open_image(tmp_path / "out.tif") as result:
        # Sizes that the tags of a TIFF cannot hold are left out.
        assert pixel_size(result) == (pytest.approx((2 * size, size)) if 1e-3 < size < 1e6 else None)
