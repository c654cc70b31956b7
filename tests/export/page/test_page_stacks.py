"""Which pages of a TIFF are sections: the page decides as tinyseg.data does."""

import warnings

import numpy as np
import pytest
import tifffile

from tests.export.page.page_images import check, pixels, refusal, run
from tinyseg.data.images import open_image

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
        for array, axes in ((x, "ZCYX"), (x[0], "CYX")):
            tifffile.imwrite(tmp_path / "a.tif", array, metadata={"axes": axes}, photometric="minisblack", **options)
            assert "a.tif has 2 channels: expected grey. Save the one channel to use" in refusal(tmp_path / "a.tif")
            with pytest.raises(ValueError, match="several channels"), open_image(tmp_path / "a.tif") as image:
                image.section(0)


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


def test_one_page_for_all_sections_of_which_tifffile_tells(tmp_path):
    x = pixels(5, 37, 53, dtype=np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(x, photometric="minisblack", truncate=True)
    assert check(tmp_path / "a.tif")["count"] == 5
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content.replace(b"[5,", b"[9,"))
    assert "too few for the 9 sections" in refusal(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", x, photometric="minisblack")
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content.replace(b"[5,", b"[9,"))
    assert "its text names 9 sections, and it has 5 pages" in refusal(tmp_path / "a.tif")


def write_ome(path, planes, sizes='SizeZ="2" SizeT="1"', pages=2, own=True):
    text = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'UUID="urn:uuid:1"><Image ID="Image:0"><Pixels ID="Pixels:0" Type="uint8" DimensionOrder="XYZCT" SizeX="9" '
        f'SizeY="7" SizeC="1" {sizes}><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>'
    )
    text = text if own else text.replace('UUID="urn:uuid:1"', "")
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
    write_ome(path, other.format(0, "a", 1), 'SizeZ="1" SizeT="1"', pages=1, own=False)
    assert check(path)["notes"] == []
    write_ome(path, other.format(0, "old", 1), 'SizeZ="1" SizeT="1"', pages=1, own=False)  # it was renamed
    assert check(path)["notes"] == []
    write_ome(path, other.format(0, "A", 1) + other.format(1, "b", 2), pages=1, own=False)
    assert check(path)["notes"] == [note]
    write_ome(path, "", 'SizeZ="1" SizeT="1"', pages=2)
    assert "names 1 of its 2 pages: the others are left out" in run({"read": str(path)})["notes"][0]


@pytest.mark.parametrize("how", ["sub-IFDs", "pages", "turned"])
def test_smaller_copies_are_no_sections(tmp_path, how):
    tags = [(274, 3, 1, 3, True)] if how == "turned" else []
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for k in range(2):
            options = {"photometric": "minisblack", "metadata": None, "extratags": tags}
            tif.write(pixels(64, 96, seed=k), subifds=1 if how == "sub-IFDs" else None, **options)
            tif.write(pixels(32, 48, seed=k), subfiletype=1, **options)
    assert check(tmp_path / "a.tif")["count"] == 2


def test_a_page_of_opacity_is_no_section(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(pixels(37, 53), photometric="minisblack", metadata=None)
        tif.write(pixels(37, 53, dtype=bool), photometric="mask", subfiletype=4, metadata=None)
    assert check(tmp_path / "a.tif")["count"] == 1


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
    x, of_x, y, of_y, _ = said["resolution"]
    assert (of_x / x, of_y / y) == (pytest.approx(across), pytest.approx(down))
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
