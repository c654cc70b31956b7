"""TIFFs whose OME-XML text claims what is not there, or what is elsewhere."""

import numpy as np
import pytest
import tifffile

from tinyseg.data.images import open_image

TEXT = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1"><Image ID="Image:0">
<Pixels ID="Pixels:0" Type="uint8" DimensionOrder="XYZCT" SizeX="9" SizeY="7" SizeC="1" {sizes}>
<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>"""
PLANE = '<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{file}">urn:uuid:{uuid}</UUID></TiffData>'


def write(path, planes="", sizes='SizeZ="2" SizeT="1"', pages=2):
    text = TEXT.format(planes=planes, sizes=sizes)
    pixels = np.arange(pages * 63, dtype=np.uint8).reshape(pages, 7, 9)
    with tifffile.TiffWriter(path) as tif:
        for k, page in enumerate(pixels):
            tif.write(page, photometric="minisblack", description=text if k == 0 else None, metadata=None)
    return pixels


def read(path):
    with open_image(path) as image:
        return np.concatenate([image.section(k) for k in range(len(image))])


def test_the_sections_of_a_file_of_ome_are_its_planes(tmp_path):
    pixels = write(tmp_path / "a.ome.tif", '<TiffData IFD="0" PlaneCount="2"/>')
    np.testing.assert_array_equal(read(tmp_path / "a.ome.tif"), pixels)


@pytest.mark.parametrize("name", ["../secret.tif", "b.ome.tif", "/etc/hostname"])
def test_a_file_that_names_other_files_is_read_alone(tmp_path, name):
    (tmp_path / "images").mkdir()
    write(tmp_path / "secret.tif")
    write(tmp_path / "images" / "b.ome.tif")
    planes = PLANE.format(z=0, file="a.ome.tif", uuid=1) + PLANE.format(z=1, file=name, uuid=2)
    pixels = write(tmp_path / "images" / "a.ome.tif", planes, pages=1)
    with pytest.warns(UserWarning, match=r"its own 1 sections are read, and no others \(" + name):
        found = read(tmp_path / "images" / "a.ome.tif")
    np.testing.assert_array_equal(found, pixels)


def test_a_file_that_was_given_another_name_is_still_its_own(tmp_path):
    planes = PLANE.format(z=0, file="old.ome.tif", uuid=1)
    pixels = write(tmp_path / "new.ome.tif", planes, sizes='SizeZ="1" SizeT="1"', pages=1)
    np.testing.assert_array_equal(read(tmp_path / "new.ome.tif"), pixels)


@pytest.mark.parametrize(
    ("planes", "sizes"),
    [
        ("", 'SizeZ="100000000" SizeT="1"'), ("", 'SizeZ="30000" SizeT="30000"'), ("", f'SizeZ="{10**400}" SizeT="1"'),
        ('<TiffData IFD="0" PlaneCount="30000000"/>', 'SizeZ="2" SizeT="1"'),
        ('<TiffData IFD="0" NumPlanes="30000000"/>', 'SizeZ="2" SizeT="1"'),
    ],
)  # fmt: skip
def test_a_small_file_that_claims_many_planes_is_refused(tmp_path, planes, sizes):
    write(tmp_path / "a.ome.tif", planes, sizes)
    with pytest.raises(ValueError, match=r"a\.ome\.tif cannot be read.*many more planes than its 2 pages can hold"):
        read(tmp_path / "a.ome.tif")
