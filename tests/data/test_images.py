"""Reading and writing images of any kind a section at a time: round trips, what is refused, what is left behind."""

import builtins
import errno
import math
import os
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from tinyseg.data import image_writers, writing
from tinyseg.data.images import find_images, open_image, output_name, write_like

REAL = Path(__file__).resolve().parents[3] / "shared/data"
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason="no real data beside the repository")

real_open = builtins.open
AFFINE = np.array([[-0.9, 0.1, 0, 12], [0.2, 1.1, 0.3, -7.5], [0, -0.25, 3, 41], [0, 0, 0, 1.0]])


def values(shape, dtype=np.uint8, seed=0):
    x = np.random.default_rng(seed).integers(0, 200, shape)
    return (x - 100 if np.dtype(dtype) == np.int16 else x).astype(dtype)


def write_nifti(path, array, affine=AFFINE, **fields):
    volume = nibabel.Nifti1Image(array, affine)
    for name, value in fields.items():
        volume.header[name] = value
    nibabel.save(volume, path)


def sections(path):
    with open_image(path) as image:
        return np.stack(list(image))


def write_all(image, out, array, **options):
    with write_like(image, out, **options) as writer:
        for section in array:
            writer.write(section)


def copy_of(path, out, array, **options):
    """Write `array` like the image at `path`."""
    with open_image(path) as image:
        write_all(image, out, array, **options)


def example(folder, kind, count=5):
    """A small image of each kind, and its sections."""
    name = {"tiff": "a.tif", "zlib": "a.tif", "imagej": "a.tif", "picture": "a.png"}.get(kind, f"a.{kind}")
    path, array = folder / name, values((1 if kind == "picture" else count, 18, 23))
    if kind == "picture":
        Image.fromarray(array[0]).save(path)
    elif kind.startswith("nii"):
        write_nifti(path, np.moveaxis(array, 0, -1))
    else:
        options = {"tiff": {}, "zlib": {"compression": "zlib"}, "imagej": {"imagej": True}}[kind]
        tifffile.imwrite(path, array, photometric="minisblack", **options)
    return path, array


KINDS = ["tiff", "zlib", "imagej", "picture", "nii", "nii.gz"]


# ---- finding and naming


def test_natural_order_and_what_is_left_out(tmp_path):
    names = ["s2.png", "s10.TIF", "s1.nii.gz", "s11.nii", "s3.jpeg", "s4.bmp"]
    for name in [*names, "._s1.png", ".s5.tif", "notes.txt", "s6.gz"]:
        (tmp_path / name).write_bytes(b"")
    found = [path.name for path in find_images(tmp_path)]
    assert found == ["s1.nii.gz", "s2.png", "s3.jpeg", "s4.bmp", "s10.TIF", "s11.nii"]
    assert find_images(str(tmp_path / "s2.png")) == [tmp_path / "s2.png"]


def test_nothing_there(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"no images in .*\.nii\.gz.*There is: notes\.txt"):
        find_images(tmp_path)
    for function in (find_images, open_image):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.tif does not exist"):
            function(tmp_path / "nowhere.tif")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cells.tif", "cells_mask.tif"),
        ("a.b.TIFF", "a.b_mask.TIFF"),
        ("case.nii.gz", "case_mask.nii.gz"),
        ("case.1.nii", "case.1_mask.nii"),
        ("a.jpg", "a_mask.png"),
        ("a.bmp", "a_mask.png"),
    ],
)
def test_output_name(name, expected):
    assert output_name(Path("folder") / name) == expected
    assert output_name(name, suffix="_p") == expected.replace("_mask", "_p")


def test_output_name_of_an_open_image(tmp_path):
    path, _ = example(tmp_path, "nii.gz")
    with open_image(path) as image:
        assert output_name(image) == "a_mask.nii.gz"


def test_kinds_that_are_not_read(tmp_path):
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match=r"a\.gif is of a kind .*\.nii\.gz"):
        open_image(tmp_path / "a.gif")
    with pytest.raises(ValueError, match="is a folder: .*find_images"):
        open_image(tmp_path)


# ---- reading


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_open_image_says(tmp_path, kind):
    path, array = example(tmp_path, kind)
    with open_image(str(path)) as image:
        assert image.path == path
        assert image.kind == ("nifti" if kind.startswith("nii") else "picture" if kind == "picture" else "tiff")
        assert (len(image), image.shape, image.channels, image.dtype) == (len(array), (18, 23), 1, np.uint8)
        for k in [*range(len(array)), 0]:  # forwards, and back
            section = image.section(k)
            np.testing.assert_array_equal(section, array[k][None])
            assert section.dtype == np.uint8
            section += 1  # it is ours
        np.testing.assert_array_equal(image.section(0), array[:1])
        assert image.name(0) == (path.name if kind == "picture" else f"{path.name}[0]")
        for k in (-1, len(array)):
            with pytest.raises(IndexError, match=f"there is no section {k}"):
                image.section(k)


@pytest.mark.parametrize("suffix", ["tif", "nii", "nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float16, np.float32, np.float64])
def test_types(tmp_path, suffix, dtype):
    if suffix != "tif" and dtype == np.float16:
        pytest.skip("NIfTI has no float16")
    array = values((4, 18, 23), dtype)
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, array, photometric="minisblack", byteorder=">")
    else:
        write_nifti(path, np.moveaxis(array, 0, -1))
    with open_image(path) as image:
        assert image.dtype == image.section(3).dtype == (np.float32 if np.dtype(dtype).kind == "f" else dtype)
        assert image.section(3).dtype.isnative
    np.testing.assert_array_equal(sections(path)[:, 0], array)


@pytest.mark.parametrize("options", [{}, {"metadata": None}, {"bigtiff": True}, {"compression": "zlib"}])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_tiff_flavours(tmp_path, options, photometric):
    array = values((6, 18, 23))
    tifffile.imwrite(tmp_path / "a.tif", array, photometric=photometric, **options)
    expected = array if photometric == "minisblack" else 255 - array
    np.testing.assert_array_equal(sections(tmp_path / "a.tif")[:, 0], expected)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_time_and_depth_are_sections(tmp_path, compression):
    array = values((6, 18, 23))
    tifffile.imwrite(
        tmp_path / "a.tif",
        array.reshape(2, 3, 18, 23),
        photometric="minisblack",
        compression=compression,
        metadata={"axes": "TZYX"},
    )
    np.testing.assert_array_equal(sections(tmp_path / "a.tif")[:, 0], array)


@pytest.mark.parametrize("options", [{"imagej": True}, {}])
def test_many_sections_and_one_page(tmp_path, options):
    """How ImageJ writes stacks of more than 4 GB."""
    array = values((6, 18, 23), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", truncate=True, **options)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert len(tif.pages) == 1
    np.testing.assert_array_equal(sections(tmp_path / "a.tif")[:, 0], array)
    os.truncate(tmp_path / "a.tif", (tmp_path / "a.tif").stat().st_size - 40)
    with pytest.raises(ValueError, match="ends before its last section"):
        open_image(tmp_path / "a.tif")


def test_tiff_of_bricks(tmp_path):
    array = values((16, 32, 48))
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", volumetric=True, tile=(16, 16, 16))
    np.testing.assert_array_equal(sections(tmp_path / "a.tif")[:, 0], array)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_channels_of_a_tiff(tmp_path, compression):
    """Pages of channels make one section: grey where they agree, refused where they do not."""
    array = values((5, 1, 18, 23))
    options = {"photometric": "minisblack", "compression": compression, "metadata": {"axes": "ZCYX"}}
    tifffile.imwrite(tmp_path / "a.tif", np.repeat(array, 3, axis=1), **options)
    np.testing.assert_array_equal(sections(tmp_path / "a.tif"), array)
    tifffile.imwrite(tmp_path / "a.tif", values((5, 3, 18, 23)), **options)
    with open_image(tmp_path / "a.tif") as image:
        assert (len(image), image.shape) == (5, (18, 23))
        with pytest.raises(ValueError, match=r"a\.tif\[2\] in .* several channels \(shape \(18, 23, 3\)\)"):
            image.section(2)


def test_pages_written_one_by_one(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for section in values((4, 18, 23)):
            tif.write(section, photometric="minisblack", contiguous=False)
    np.testing.assert_array_equal(sections(tmp_path / "a.tif")[:, 0], values((4, 18, 23)))
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(values((18, 23)), photometric="minisblack")
        tif.write(values((18, 22)), photometric="minisblack")
    with pytest.raises(ValueError, match=r"a\.tif\[0\] is 18×23 uint8 and a\.tif\[1\] is 18×22 uint8"):
        open_image(tmp_path / "a.tif")


def test_nifti_with_channels_scale_and_two_axes(tmp_path):
    array = values((7, 5, 4, 3), np.int16)
    for name in ("a.nii", "a.nii.gz"):
        write_nifti(tmp_path / name, array)
        with open_image(tmp_path / name) as image:
            assert (len(image), image.shape, image.channels, image.dtype) == (4, (7, 5), 3, np.int16)
            for k in (0, 1, 3, 2):
                np.testing.assert_array_equal(image.section(k), np.moveaxis(array[:, :, k], -1, 0))
    volume = nibabel.Nifti1Image(array[..., 0], AFFINE)
    volume.header.set_slope_inter(0.5, -3)
    volume.to_filename(tmp_path / "b.nii")  # nibabel rescales what it stores
    with open_image(tmp_path / "b.nii") as image:
        assert image.dtype == image.section(0).dtype == np.float32
    expected = nibabel.load(tmp_path / "b.nii").get_fdata(dtype=np.float32)
    assert np.ptp(expected) > 50
    np.testing.assert_allclose(np.moveaxis(sections(tmp_path / "b.nii")[:, 0], 0, -1), expected, rtol=1e-6)
    write_nifti(tmp_path / "c.nii", array[:, :, 0, 0])
    np.testing.assert_array_equal(sections(tmp_path / "c.nii")[0, 0], array[:, :, 0, 0])


def test_big_endian_nifti(tmp_path):
    array = values((7, 5, 4), np.int16)
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nibabel.save(nibabel.Nifti1Image(array, AFFINE, header), tmp_path / "a.nii")
    with open_image(tmp_path / "a.nii") as image:
        assert image.header.endianness == ">"
        np.testing.assert_array_equal(image.section(2)[0], array[:, :, 2])
        write_all(image, tmp_path / "b.nii", np.moveaxis(array, -1, 0).astype(np.float32), dtype=np.float32)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "b.nii").get_fdata(), array)


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((3, 4, 2, 3, 2), np.uint8), r"a\.nii has shape \(3, 4, 2, 3, 2\): expected \(X, Y\)"),
        (np.zeros((3, 4, 2), np.complex64), r"a\.nii has values of type complex64"),
    ],
)
def test_nifti_that_is_refused(tmp_path, array, match):
    write_nifti(tmp_path / "a.nii", array)
    with pytest.raises(ValueError, match=match):
        open_image(tmp_path / "a.nii")


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_colour(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(values((18, 23, 3))).save(path)
    with open_image(path) as image, pytest.raises(ValueError, match=r"in colour .*\(18, 23, 3\).*expected grey"):
        image.section(0)
    Image.fromarray(np.repeat(values((18, 23, 1)), 3, axis=2)).save(path)
    np.testing.assert_array_equal(sections(path)[0, 0], values((18, 23, 1))[..., 0])


def test_pictures(tmp_path):
    grey = values((18, 23))
    palette = Image.fromarray(grey).convert("P")
    palette.save(tmp_path / "p.png")
    Image.fromarray(grey > 100).save(tmp_path / "m.png")
    Image.fromarray(grey.astype(np.uint16) * 300).save(tmp_path / "d.png")
    for name, expected in (("p", grey), ("m", grey > 100), ("d", grey.astype(np.uint16) * 300)):
        with open_image(tmp_path / f"{name}.png") as image:
            np.testing.assert_array_equal(image.section(0)[0], expected)
            assert (image.dtype, image.shape) == (expected.dtype, (18, 23))
            assert image.section(0).dtype == expected.dtype


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("suffix", ["tif", "nii.gz"])
def test_not_finite(tmp_path, bad, suffix):
    array = values((4, 18, 23), np.float64)
    array[2, 3, 4] = bad
    if suffix == "tif":
        tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    else:
        write_nifti(tmp_path / "a.nii.gz", np.moveaxis(array, 0, -1))
    with open_image(tmp_path / f"a.{suffix}") as image:
        image.section(1)
        with pytest.raises(ValueError, match=rf"a\.{suffix}\[2\] in .* holds NaN or infinity"):
            image.section(2)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.2, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("kind", KINDS)
def test_cut_short(tmp_path, kind, kept):
    path, _ = example(tmp_path, kind)
    content = path.read_bytes()
    kept = kept if kind != "picture" else min(kept, 0.9)  # what comes last in a PNG are no pixels
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=rf"{path.name} cannot be read: .*Copy or export it again"):
        sections(path)
    if not kept:
        with pytest.raises(ValueError, match="empty, 0 bytes"):
            open_image(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_the_last_pixels_are_missed_before_the_first_are_read(tmp_path, compression):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        for section in values((4, 18, 23)):
            options = {"contiguous": False, "metadata": None, "compression": compression}
            tif.write(section, photometric="minisblack", **options)
    os.truncate(path, path.stat().st_size - 10)
    with pytest.raises(ValueError, match=r"a\.tif cannot be read: .*ends before its last section"):
        open_image(path)


def test_damage_that_only_the_checksum_shows(tmp_path):
    path, _ = example(tmp_path, "nii.gz")
    for content in (path.read_bytes()[:-8], path.read_bytes()[:-8] + bytes(8)):
        path.write_bytes(content)
        with open_image(path) as image:
            image.section(0)
            with pytest.raises(ValueError, match=r"a\.nii\.gz cannot be read"):
                image.section(4)


@pytest.mark.parametrize("kind", ["tif", "zlib", "one by one", "nii", "nii.gz"])
def test_memory_does_not_grow_with_the_stack(tmp_path, kind):
    count, size = 32, 512
    path = tmp_path / ("a.tif" if "nii" not in kind else f"a.{kind}")
    section = np.tile(np.arange(size, dtype=np.uint8), (size, 1))
    if "nii" in kind:
        write_nifti(path, np.repeat(section[:, :, None], count, axis=2))
    else:
        with tifffile.TiffWriter(path) as tif:
            for _ in range(count):
                options = {"contiguous": True} if kind == "tif" else {"contiguous": False, "compression": "zlib"}
                if kind == "zlib":
                    options["metadata"] = None  # one series of compressed pages
                tif.write(section, photometric="minisblack", **options)
    tracemalloc.start()
    try:
        with open_image(path) as image:
            assert len(image) == count
            write_all(image, tmp_path / "out", (255 * (x[0] > 9).astype(np.uint8) for x in image))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * size**2  # bytes: ten sections of 32


# ---- writing


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_round_trip(tmp_path, kind, dtype):
    path, array = example(tmp_path, kind)
    result = values(array.shape, dtype, seed=1) / 200 if dtype == np.float32 else values(array.shape, dtype, seed=1)
    out = tmp_path / output_name(path, "_result")
    copy_of(path, out, result, dtype=dtype)
    written = sections(out)[:, 0]
    if kind == "picture" and dtype == np.float32:
        assert written.dtype == np.uint16
        np.testing.assert_allclose(written / 65535, result, atol=0.6 / 65535)
    else:
        assert written.dtype == dtype
        np.testing.assert_array_equal(written, result.astype(dtype))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, out.name])


@pytest.mark.parametrize("options", [{"metadata": None}, {"imagej": True}, {"compression": "zlib"}])
def test_tiff_is_one_series_with_its_resolution(tmp_path, options):
    path, out = tmp_path / "a.tif", tmp_path / "out"
    resolution = {"resolution": ((25000, 7), (12000, 11)), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, values((30, 18, 23)), photometric="minisblack", **resolution, **options)
    for dtype in (np.uint8, np.float32):
        copy_of(path, out, values((30, 18, 23), dtype, seed=1), dtype=dtype, overwrite=True)
        with tifffile.TiffFile(out) as tif:
            (series,) = tif.series
            assert (len(tif.pages), series.shape, series.dtype) == (30, (30, 18, 23), dtype)
            np.testing.assert_array_equal(series.asarray(), values((30, 18, 23), dtype, seed=1))
            for page in (tif.pages[0], tif.pages[29].aspage()):
                assert page.tags["XResolution"].value == (25000, 7)
                assert page.tags["YResolution"].value == (12000, 11)
                assert page.tags["ResolutionUnit"].value == 3
                plain = dtype == np.float32 or "imagej" in options
                assert page.compression == (1 if plain else 8)
                assert page.photometric == tifffile.PHOTOMETRIC.MINISBLACK
            assert tif.is_imagej == ("imagej" in options)


def test_imagej_text_is_kept(tmp_path):
    path, out = tmp_path / "a.tif", tmp_path / "out.tif"
    metadata = {"axes": "TZYX", "spacing": 0.05, "unit": "um", "finterval": 2.5}
    tifffile.imwrite(path, values((2, 3, 18, 23)), imagej=True, metadata=metadata, resolution=(250.0, 250.0))
    copy_of(path, out, values((6, 18, 23), np.float32), dtype=np.float32)
    with tifffile.TiffFile(out) as tif:
        found = tif.imagej_metadata
        assert tif.series[0].axes == "TZYX"
        assert tif.series[0].shape == (2, 3, 18, 23)
        assert tif.pages[0].dataoffsets[0] + 6 * 18 * 23 * 4 <= tif.pages[1].offset  # the pixels are one block
    assert {
        "images": 6,
        "slices": 3,
        "frames": 2,
        "spacing": 0.05,
        "unit": "um",
        "finterval": 2.5,
    }.items() <= found.items()


def test_micrometres(tmp_path):
    path, out = tmp_path / "a.tif", tmp_path / "out.tif"
    for text in ("unit=µm".encode(), b"unit=\\u00B5m"):
        description = b"ImageJ=1.54f\nimages=2\nslices=2\n" + text + b"\nspacing=0.05\n"
        tifffile.imwrite(path, values((2, 18, 23)), description=description, metadata=None)
        copy_of(path, out, values((2, 18, 23)), overwrite=True)
        with tifffile.TiffFile(out) as tif:
            lines = tif.pages[0].description.splitlines()
        assert {"ImageJ=1.54f", "images=2", "slices=2", r"unit=\u00B5m", "spacing=0.05"} <= set(lines)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("imagej", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_channels_in_a_tiff(tmp_path, count, imagej, dtype):
    path, out = tmp_path / "a.tif", tmp_path / "out.tif"
    tifffile.imwrite(path, values((count, 18, 23)), photometric="minisblack", imagej=imagej, metadata={"axes": "ZYX"})
    result = values((count, 3, 18, 23), dtype, seed=1)
    copy_of(path, out, result, dtype=dtype, channels=3)
    with tifffile.TiffFile(out) as tif:
        assert len(tif.series) == 1
        assert tif.series[0].axes in (("ZCYX",) if count > 1 else ("ZCYX", "CYX"))
        np.testing.assert_array_equal(tif.asarray().reshape(result.shape), result)


def test_bigtiff_when_it_does_not_fit(tmp_path, monkeypatch):
    path, array = example(tmp_path, "imagej")
    for limit, big in ((array.size * 4, False), (array.size * 4 - 1, True)):
        monkeypatch.setattr(image_writers, "CLASSIC_TIFF", limit)
        copy_of(path, tmp_path / "out.tif", array.astype(np.float32), dtype=np.float32, overwrite=True)
        with tifffile.TiffFile(tmp_path / "out.tif") as tif:
            assert tif.is_bigtiff == big
            assert tif.series[0].shape == array.shape


@pytest.mark.parametrize(("kind", "value"), [("2I", (0, 0)), ("2i", (-4, 2)), ("2I", (1, 0)), ("d", 1e300)])
def test_strange_resolution_is_left_out(tmp_path, kind, value):
    tags = [(number, kind, 1, value, True) for number in (282, 283)]
    tifffile.imwrite(tmp_path / "a.tif", values((2, 18, 23)), metadata=None, resolution=(0, 0), extratags=tags)
    copy_of(tmp_path / "a.tif", tmp_path / "out.tif", values((2, 18, 23)))
    np.testing.assert_array_equal(sections(tmp_path / "out.tif")[:, 0], values((2, 18, 23)))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_dots_per_inch(tmp_path, suffix):
    Image.fromarray(values((18, 23))).save(tmp_path / f"a.{suffix}", dpi=(300, 150))
    copy_of(tmp_path / f"a.{suffix}", tmp_path / "out", values((1, 18, 23), seed=1))
    with Image.open(tmp_path / "out") as picture:
        assert picture.format == "PNG"
        assert picture.info["dpi"] == pytest.approx((300, 150), abs=0.02)
        np.testing.assert_array_equal(np.asarray(picture), values((18, 23), seed=1))


@pytest.mark.parametrize("dpi", [(1e300, 1), (math.inf, 1), (math.nan, 1), (-5, 1), (0, 0), (4294967295, 1)])
def test_dots_per_inch_that_a_png_cannot_have_are_left_out(tmp_path, dpi):
    Image.fromarray(values((18, 23))).save(tmp_path / "a.png")
    with open_image(tmp_path / "a.png") as image:
        image.dpi = dpi
        write_all(image, tmp_path / "out", values((1, 18, 23)))
    with Image.open(tmp_path / "out") as picture:
        np.testing.assert_array_equal(np.asarray(picture), values((18, 23)))


@pytest.mark.parametrize("dpi", [(300, 150), (math.nan, 1), None])
def test_a_picture_written_as_tiff(tmp_path, dpi):
    Image.fromarray(values((18, 23))).save(tmp_path / "a.png", **({"dpi": (300, 150)} if dpi else {}))
    numbers = values((1, 18, 23)).astype(np.uint32) * 70000
    with open_image(tmp_path / "a.png") as image:
        image.dpi = dpi
        with write_like(image, tmp_path / "out", dtype=np.uint32, as_tiff=True) as out:
            out.write(numbers[0])
    with tifffile.TiffFile(tmp_path / "out") as tif:
        assert tif.pages[0].dtype == np.uint32
        np.testing.assert_array_equal(tif.asarray(), numbers[0])
        tags = tif.pages[0].tags
        found = [tags[name].value for name in ("XResolution", "YResolution")]
        assert tags["ResolutionUnit"].value == (2 if dpi == (300, 150) else 1)
        assert [n / m for n, m in found] == pytest.approx(dpi if dpi == (300, 150) else (1, 1))


FIELDS = {"descrip": b"by hand", "xyzt_units": 10, "qform_code": 1, "sform_code": 2, "cal_max": 900, "toffset": 1.5}


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize(("shape", "channels"), [((7, 5), 1), ((7, 5, 4), 1), ((7, 5, 4), 3), ((7, 5, 4, 2), 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_nifti_round_trip(tmp_path, suffix, shape, channels, dtype):
    path, out = tmp_path / f"a.{suffix}", tmp_path / f"out.{suffix}"
    write_nifti(path, values(shape, np.int16), **FIELDS)
    count = 1 if len(shape) == 2 else shape[2]
    result = values((count, channels, 7, 5), dtype, seed=1)
    copy_of(path, out, result, dtype=dtype, channels=channels)
    old, new = nibabel.load(path), nibabel.load(out)
    expected = np.moveaxis(result, (2, 3, 0, 1), (0, 1, 2, 3))
    expected = expected if channels > 1 else expected[..., 0][(..., 0) if len(shape) == 2 else ...]
    np.testing.assert_array_equal(np.asarray(new.dataobj), expected)
    assert new.get_data_dtype() == dtype
    np.testing.assert_array_equal(new.affine, old.affine)
    for name in ("qform_code", "sform_code", "xyzt_units", "descrip", "toffset", "quatern_b", "qoffset_x", "srow_x"):
        np.testing.assert_array_equal(new.header[name], old.header[name])
    np.testing.assert_array_equal(new.header["pixdim"][:4], old.header["pixdim"][:4])
    assert new.header["cal_max"] == 0  # the brightest of the image says nothing about the mask
    assert out.read_bytes()[:2] == (b"\x1f\x8b" if suffix == "nii.gz" else (348).to_bytes(2, "little"))
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, out.name]


def test_nifti_extensions_and_gzip(tmp_path):
    path, array = tmp_path / "a.nii.gz", values((7, 5, 4))
    volume = nibabel.Nifti1Image(array, AFFINE)
    volume.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"drawn by two people" * 5))
    nibabel.save(volume, path)
    for name in ("out.nii", "out.nii.gz"):
        copy_of(path, tmp_path / name, np.moveaxis(array, -1, 0))
        new = nibabel.load(tmp_path / name)
        np.testing.assert_array_equal(np.asarray(new.dataobj), array)
        assert new.header.extensions[0].get_content() == volume.header.extensions[0].get_content()


# ---- all or nothing


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_after_an_error(tmp_path, kind, channels):
    path, array = example(tmp_path, kind)
    result = np.repeat(array[:, None], channels, axis=1)
    before = path.read_bytes()
    out = tmp_path / "out"
    for was_there in (False, True):
        if was_there:
            out.write_bytes(b"precious")
        with open_image(path) as image:
            for error in (KeyError("mine"), KeyboardInterrupt()):
                with pytest.raises(type(error)), write_like(image, out, channels=channels, overwrite=True) as writer:
                    writer.write(result[0])
                    assert len(list(tmp_path.iterdir())) == 2 + was_there
                    raise error
        assert sorted(p.name for p in tmp_path.iterdir()) == [path.name] + ["out"] * was_there
    assert out.read_bytes() == b"precious"
    copy_of(path, out, result, channels=channels, overwrite=True)
    assert out.read_bytes() != b"precious"
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_sections(tmp_path, kind):
    path, array = example(tmp_path, kind)
    with open_image(path) as image:
        with pytest.raises(ValueError, match=rf"is to have {len(array)} sections.* only {len(array) - 1} were written"):
            write_all(image, tmp_path / "out", array[1:])
        with pytest.raises(ValueError, match=rf"is to have {len(array)} sections.* one more"):
            write_all(image, tmp_path / "out", [*array, array[0]])
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_overwritten_unasked(tmp_path):
    path, array = example(tmp_path, "tiff")
    out = tmp_path / "out.tif"
    with open_image(path) as image:
        out.write_bytes(b"precious")
        with pytest.raises(FileExistsError, match=r"out\.tif already exists: pass overwrite=True or choose another"):
            write_like(image, out)
        out.unlink()
        with pytest.raises(FileExistsError, match="already exists"), write_like(image, out) as writer:
            for section in array:
                writer.write(section)
            out.write_bytes(b"precious")  # somebody else, meanwhile
        assert out.read_bytes() == b"precious"
        with pytest.raises(ValueError, match=r"a\.tif is the image itself"):
            write_like(image, path, overwrite=True)
        with pytest.raises(IsADirectoryError, match="is a folder"):
            write_like(image, tmp_path, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "out.tif"]
    np.testing.assert_array_equal(sections(path)[:, 0], array)


def test_sections_that_do_not_fit(tmp_path):
    path, array = example(tmp_path, "tiff")
    bad = np.full((18, 23), np.nan, np.float32)
    with open_image(path) as image:
        for section, dtype, match in (
            (array[0, 1:], np.uint8, r"have shape \(1, 18, 23\).*found \(17, 23\)"),
            (array[:2], np.uint8, r"found \(2, 18, 23\)"),
            (array[0].astype(np.float32), np.uint8, "written as uint8, found a section of float32"),
            (array[0].astype(np.int64), np.uint8, "found a section of int64"),
            (bad, np.float32, "section 0 for .* holds NaN"),
        ):
            with pytest.raises(ValueError, match=match):
                write_all(image, tmp_path / "out", [section], dtype=dtype)
        with pytest.raises(ValueError, match="uint8, uint16, uint32 or float32, not as int64"):
            write_like(image, tmp_path / "out", dtype=np.int64)
        write_all(image, tmp_path / "out", array > 100)  # bool becomes 0 and 1
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out"), array > 100)
    path, array = example(tmp_path, "picture")
    with open_image(path) as image:
        with pytest.raises(ValueError, match="a PNG holds 8 or 16 bits, not uint32"):
            write_like(image, tmp_path / "p.png", dtype=np.uint32)
        with pytest.raises(ValueError, match=r"probabilities from 0 to 1, found .* to 1\.5"):
            write_all(image, tmp_path / "p.png", [np.full((18, 23), 1.5)], dtype=np.float32)


def test_a_folder_that_is_not_there(tmp_path):
    path, array = example(tmp_path, "nii.gz")
    with pytest.raises(FileNotFoundError, match=r"out\.nii could not be written.*The folder .*nowhere does not exist"):
        copy_of(path, tmp_path / "nowhere" / "out.nii", array)


def test_a_folder_that_is_read_only(tmp_path, monkeypatch):
    path, array = example(tmp_path, "tiff")
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    if os.geteuid() == 0:  # whom permissions do not stop

        def locked(file, mode="r", *args, **kwargs):
            if str(file).startswith(str(folder)) and set(mode) & set("wx"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
            return real_open(file, mode, *args, **kwargs)

        monkeypatch.setattr(builtins, "open", locked)
    with pytest.raises(PermissionError, match=r"out\.tif could not be written: Permission denied\. Choose"):
        copy_of(path, folder / "out.tif", array)
    assert list(folder.iterdir()) == []


class FullDisk:
    """A file that takes so many bytes and no more."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, content):
        self.room -= memoryview(content).nbytes
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(content)


@pytest.mark.parametrize("room", [0, 400, 1500])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_full_disk(tmp_path, monkeypatch, kind, room, channels):
    path, array = example(tmp_path, kind, count=30)
    noise = np.random.default_rng(0).random((len(array), channels, 18, 23), np.float32)  # cannot be compressed
    room = room if kind != "picture" else min(room, 400)
    monkeypatch.setattr(writing, "open", lambda *args: FullDisk(real_open(*args), room), raising=False)
    (tmp_path / "out").write_bytes(b"precious")
    with pytest.raises(
        OSError, match=r"out could not be written: No space left.* Up to 0\.\d MiB are needed"
    ) as caught:
        copy_of(path, tmp_path / "out", noise, dtype=np.float32, channels=channels, overwrite=True)
    assert caught.value.errno == errno.ENOSPC
    assert (tmp_path / "out").read_bytes() == b"precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, "out"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_is_full_when_buffers_are_emptied(tmp_path, monkeypatch, kind):
    path, array = example(tmp_path, kind)

    def open_full(name, mode):
        Path(name).touch()
        return real_open("/dev/full", "wb")

    monkeypatch.setattr(writing, "open", open_full, raising=False)
    with pytest.raises(OSError, match=r"out could not be written: No space left"):
        copy_of(path, tmp_path / "out", array)
    assert list(tmp_path.iterdir()) == [path]


# ---- the real thing


@needs_real_data
def test_the_challenge_stack(tmp_path):
    path = REAL / "isbi2012/test-volume.tif"
    volume = tifffile.imread(path)
    with open_image(path) as image, write_like(image, tmp_path / output_name(image), dtype=np.float32) as out:
        assert (len(image), image.shape, image.dtype) == (30, (512, 512), np.uint8)
        for section in image:
            out.write(section / np.float32(255))
    with tifffile.TiffFile(tmp_path / "test-volume_mask.tif") as tif:
        (series,) = tif.series
        assert (len(tif.pages), series.shape, series.dtype) == (30, (30, 512, 512), np.float32)
        assert {page.compression for page in tif.pages} == {1}
        np.testing.assert_array_equal(series.asarray(), volume / np.float32(255))


@needs_real_data
@pytest.mark.parametrize("folder", ["msd_brain_4ch", "brats2015_2ch"])
def test_a_brain(tmp_path, folder):
    path = find_images(REAL / folder / "imagesTr")[0]
    old = nibabel.load(path)
    array = np.asarray(old.dataobj)
    out = tmp_path / output_name(path)
    with open_image(path) as image, write_like(image, out) as writer:
        assert (image.shape, len(image), image.channels) == (array.shape[:2], array.shape[2], array.shape[3])
        for k, section in enumerate(image):
            np.testing.assert_array_equal(section, np.moveaxis(array[:, :, k], -1, 0))
            writer.write(section[0] > 100)
    new = nibabel.load(out)
    np.testing.assert_array_equal(np.asarray(new.dataobj), array[..., 0] > 100)
    np.testing.assert_array_equal(new.affine, old.affine)
    changed = {"dim", "datatype", "bitpix", "pixdim", "scl_slope", "scl_inter", "vox_offset", "cal_max", "cal_min"}
    for name in set(old.header) - changed:
        np.testing.assert_array_equal(new.header[name], old.header[name])
    np.testing.assert_array_equal(new.header["pixdim"][:4], old.header["pixdim"][:4])
