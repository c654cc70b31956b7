"""Reading stacks and masks: layouts, file formats, and a sentence for everything that can be wrong."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tinyseg.data import isbi
from tinyseg.data.isbi import Sections, binarize_labels, load, load_stack, standardize

REAL = Path(__file__).resolve().parents[3] / "shared/data/isbi2012"
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason="no ISBI 2012 data beside the repository")


def grey(sections=5, height=18, width=23, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, min(np.iinfo(dtype).max, 1000), (sections, height, width)).astype(dtype)


def mask(sections=5, height=18, width=23):
    """255 inside, with one black row in each section, at its own height."""
    masks = np.full((sections, height, width), 255, np.uint8)
    for i in range(sections):
        masks[i, i] = 0
    return masks


def write_challenge(folder, images, masks, suffix=".tif"):
    tifffile.imwrite(folder / f"train-volume{suffix}", images, photometric="minisblack")
    if masks is not None:
        tifffile.imwrite(folder / f"train-labels{suffix}", masks, photometric="minisblack")


def write_pngs(folder, sections, name="section_{}.png"):
    folder.mkdir(exist_ok=True)
    for i, section in enumerate(sections):
        Image.fromarray(section).save(folder / name.format(i))


# ---- predictions


def record(folder, *names):
    """Write what predict.py keeps beside its files."""
    content = {"classes": ["inside of a cell"], "files": dict.fromkeys(names, "x"), "settings": {}}
    (folder / "predictions.json").write_text(json.dumps(content))


def test_predictions_beside_their_images_are_not_labels(tmp_path):
    write_pngs(tmp_path, grey(3), "{}.png")
    write_pngs(tmp_path, mask(3), "{}_mask.png")
    assert load(tmp_path).labels is not None
    record(tmp_path, "0_mask.png", "1_mask.png", "2_mask.png")
    with pytest.raises(FileNotFoundError, match="no images in .* with masks beside them"):
        load(tmp_path)


@pytest.mark.parametrize("suffix", ["{}.png", "{}_mask.png"])
def test_predictions_in_a_folder_of_labels_are_not_labels(tmp_path, suffix):
    write_pngs(tmp_path / "images", grey(3), "{}.png")
    write_pngs(tmp_path / "labels", mask(3), suffix)
    record(tmp_path / "labels", suffix.format(2))
    with pytest.raises(ValueError, match=rf"{suffix.format(2)} is a prediction of predict\.py \(see predictions\.json"):
        load(tmp_path)
    (tmp_path / "labels" / "predictions.json").unlink()
    assert len(load(tmp_path)) == 3


# ---- layouts


@pytest.mark.parametrize("suffix", [".tif", ".tiff"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_challenge_layout(tmp_path, suffix, count):
    write_challenge(tmp_path, grey(count), mask(count), suffix)
    sections = load(tmp_path)
    np.testing.assert_array_equal(sections.images, grey(count))
    np.testing.assert_array_equal(sections.labels, mask(count) == 255)
    assert sections.labels.dtype == bool and sections.images.dtype == np.uint8
    assert sections.names[-1] == f"train-volume{suffix}" + (f"[{count - 1}]" if count > 1 else "")


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("Image", "mask"), ("train", "Masks")])
def test_folders_of_pngs_in_natural_order(tmp_path, images, labels):
    write_pngs(tmp_path / images, grey(12))
    write_pngs(tmp_path / labels, mask(12), "mask{}.png")
    (tmp_path / images / "notes.txt").write_text("not a section")
    (tmp_path / images / "._section_0.png").write_bytes(b"left by a Mac")
    sections = load(tmp_path)
    np.testing.assert_array_equal(sections.images, grey(12))
    np.testing.assert_array_equal(sections.labels, mask(12) == 255)
    assert sections.names[1:3] + sections.names[9:11] == [f"section_{i}.png" for i in (1, 2, 9, 10)]


def test_labels_argument(tmp_path):
    write_challenge(tmp_path, grey(), None)
    assert load(tmp_path).labels is None
    with pytest.raises(FileNotFoundError, match=r"no labels in .*train-labels.tif.*There is: train-volume.tif"):
        load(tmp_path, labels="required")
    other = tmp_path / "drawn"
    write_pngs(other, mask())
    for images in (tmp_path, tmp_path / "train-volume.tif"):
        np.testing.assert_array_equal(load(images, labels=other).labels, mask() == 255)
    np.testing.assert_array_equal(load(other, labels=None).images, mask())  # no layout: a folder of sections
    with pytest.raises(ValueError, match="one file: give the folder"):
        load(tmp_path / "train-volume.tif", labels="required")


def test_labels_are_left_alone_when_not_wanted(tmp_path):
    write_challenge(tmp_path, grey(), mask())
    (tmp_path / "train-labels.tif").write_bytes(b"broken")
    assert load(tmp_path, labels=None).labels is None


def test_what_was_looked_for_and_what_is_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"looked for train-volume\.tif.*images.*There is: nothing\."):
        load(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "volume.nii").write_text("")
    with pytest.raises(FileNotFoundError, match=r"There is: sub/, volume\.nii\."):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no sections in .*\.png.*There is: sub/, volume\.nii\."):
        load_stack(tmp_path)
    for i in range(20):
        (tmp_path / f"{i}.txt").write_text("")
    with pytest.raises(FileNotFoundError, match="and 10 more"):
        load_stack(tmp_path)
    for function in (load, load_stack):
        with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
            function(tmp_path / "nowhere")


def test_a_challenge_folder_is_not_a_stack(tmp_path):
    write_challenge(tmp_path, grey(), mask())
    with pytest.raises(ValueError, match="holds images and labels: give one file"):
        load_stack(tmp_path)


# ---- file formats


def test_tiff_with_time_and_depth_is_one_row_of_sections(tmp_path):
    images = grey(6).reshape(2, 3, 18, 23)
    tifffile.imwrite(tmp_path / "a.tif", images, imagej=True, metadata={"axes": "TZYX"})
    np.testing.assert_array_equal(load_stack(tmp_path / "a.tif")[0], grey(6))


def test_one_bit_png_is_a_mask(tmp_path):
    write_pngs(tmp_path / "a", mask() > 0)
    np.testing.assert_array_equal(binarize_labels(load_stack(tmp_path / "a")[0], "a"), mask() == 255)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("opacity", [None, 255])
def test_grey_saved_as_colour(tmp_path, suffix, opacity):
    section = grey(1)[0]
    channels = [section] * 3 + ([] if opacity is None else [np.full_like(section, opacity)])
    Image.fromarray(np.stack(channels, axis=-1)).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(load_stack(tmp_path / f"a.{suffix}")[0], section[None])


def test_grey_with_opacity(tmp_path):
    Image.fromarray(np.stack([grey(1)[0], np.full((18, 23), 255, np.uint8)], axis=-1)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_stack(tmp_path / "a.png")[0], grey(1))


def test_varying_opacity_is_an_error(tmp_path):
    section = grey(1)[0]
    Image.fromarray(np.stack([section * 0] * 3 + [section], axis=-1)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="opacity"):
        load_stack(tmp_path / "a.png")


def test_several_channels_are_an_error(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", grey(10).reshape(5, 2, 18, 23), imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(ValueError, match=r"a\.tif\[0\] in .* several channels \(shape \(18, 23, 2\)\)"):
        load_stack(tmp_path / "a.tif")


# ---- damaged files


@pytest.mark.parametrize("content", [b"", b"not a TIFF at all", b"II*\0"])
@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_not_an_image(tmp_path, content, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\{suffix} cannot be read: .*Copy or export it again"):
        load_stack(path)


TIFFS = ["by Pillow", {}, {"metadata": None}, {"imagej": True}, {"compression": "zlib"}, {"bigtiff": True}]


@pytest.mark.parametrize("kept", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("how", TIFFS, ids=str)
def test_truncated_tiff(tmp_path, how, kept):
    path = tmp_path / "a.tif"
    if how == "by Pillow":
        first, *rest = map(Image.fromarray, grey(9))
        first.save(path, save_all=True, append_images=rest)
    else:
        tifffile.imwrite(path, grey(9), photometric="minisblack", **how)
    np.testing.assert_array_equal(load_stack(path)[0], grey(9))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"a\.tif cannot be read"):
        load_stack(path)


def test_compression_that_needs_imagecodecs(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", grey(), photometric="minisblack")

    def asarray(self, *args, **kwargs):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", asarray)
    with pytest.raises(ValueError, match=r"a\.tif is compressed.*pip install imagecodecs"):
        load_stack(tmp_path / "a.tif")


def test_lzw_is_read_or_says_what_to_install(tmp_path):
    first, *rest = map(Image.fromarray, grey())
    first.save(tmp_path / "a.tif", save_all=True, append_images=rest, compression="tiff_lzw")
    try:
        stack, _ = load_stack(tmp_path / "a.tif")
    except ValueError as error:
        assert "pip install imagecodecs" in str(error)  # noqa: PT017
    else:
        np.testing.assert_array_equal(stack, grey())


# ---- things that do not fit


def test_sections_of_different_shapes(tmp_path):
    write_pngs(tmp_path / "b", [grey(1, 18, 23)[0], grey(1, 18, 22)[0]])
    with pytest.raises(ValueError, match=r"section_0\.png is 18×23 uint8 and section_1\.png is 18×22 uint8"):
        load_stack(tmp_path / "b")
    write_pngs(tmp_path / "c", [grey(1)[0], grey(1, dtype=np.uint16)[0]])
    with pytest.raises(ValueError, match=r"18×23 uint8 and section_1\.png is 18×23 uint16"):
        load_stack(tmp_path / "c")


@pytest.mark.parametrize(
    ("masks", "found"), [(mask(4), "4 sections of 18×23"), (mask(1), "1 section of"), (mask(5, 17), "5 .*17×23")]
)
def test_images_and_labels_that_do_not_match(tmp_path, masks, found):
    write_challenge(tmp_path, grey(), masks)
    with pytest.raises(ValueError, match=rf"train-volume.tif has 5 sections of 18×23, .*train-labels.tif has {found}"):
        load(tmp_path)


# ---- masks


@pytest.mark.parametrize("values", [(0, 255), (0, 1), (False, True), (7, 9), (0.0, 1.0), (-1, 1)])
def test_any_two_values(values):
    masks = np.array(values)[(mask() > 0).astype(int)]
    expected = mask() > 0
    np.testing.assert_array_equal(binarize_labels(masks, "a.tif"), expected)
    np.testing.assert_array_equal(binarize_labels(masks[:, :, ::-1], "a.tif"), expected[:, :, ::-1])


def test_foreground_black():
    inverted = 255 - mask()
    np.testing.assert_array_equal(binarize_labels(inverted, "a.tif", foreground="black"), mask() == 255)
    with pytest.warns(
        UserWarning, match=r'only 6% of a\.tif\[0\] to a\.tif\[4\].*--foreground black .*foreground="black"'
    ):
        labels = binarize_labels(inverted, "a.tif")
    np.testing.assert_array_equal(labels, inverted == 255)
    with pytest.warns(UserWarning, match="--foreground white"):
        binarize_labels(mask(), "a.tif", foreground="black")
    with pytest.raises(ValueError, match=r'must be "white" or "black", found \'green\''):
        binarize_labels(mask(), "a.tif", foreground="green")


def test_load_passes_foreground_on(tmp_path):
    write_challenge(tmp_path, grey(), 255 - mask())
    np.testing.assert_array_equal(load(tmp_path, foreground="black").labels, mask() == 255)


def test_a_section_without_membrane_is_fine():
    masks = mask()
    masks[2] = 255
    assert binarize_labels(masks, "a.tif")[2].all()


def test_masks_with_the_wrong_values(tmp_path):
    masks = mask()
    masks[3, 4, 5] = 128
    blurred = np.tile(np.arange(23, dtype=np.uint8), (5, 18, 1))
    with pytest.raises(ValueError, match=r"found 23 \(0, 1, 2, 3, 4, 5, \.\.\.\) up to a\.tif\[0\]"):
        binarize_labels(blurred, "a.tif")
    with pytest.raises(ValueError, match=r"found 3 \(0, 128, 255\) up to a\.tif\[3\]\. .*JPEG.*Threshold"):
        binarize_labels(masks, "a.tif")
    with pytest.raises(ValueError, match=r"found only \[255\] in all of a\.tif\[0\] to a\.tif\[4\]"):
        binarize_labels(np.full_like(masks, 255), "a.tif")
    write_pngs(tmp_path / "images", grey())
    write_pngs(tmp_path / "labels", masks)
    with pytest.raises(ValueError, match=r"up to section_3\.png in .*labels"):
        load(tmp_path)


def test_a_mask_saved_as_jpeg(tmp_path):
    write_pngs(tmp_path / "images", grey())
    write_pngs(tmp_path / "labels", mask(), "{}.jpg")
    with pytest.raises(ValueError, match=r"exactly two values.* up to 0\.jpg in .*JPEG"):
        load(tmp_path)


# ---- Sections


def sections(count=7):
    return Sections(grey(count), mask(count) == 255, [f"s{i}" for i in range(count)])


@pytest.mark.parametrize(
    ("val", "held_out"), [(2, [5, 6]), ("2", [5, 6]), (6, range(1, 7)), ("0:1", [0]), ("2:4", [2, 3]), ("5:7", [5, 6])]
)
def test_split(val, held_out):
    whole = sections()
    train = [i for i in range(7) if i not in held_out]
    for part, index in zip(whole.split(val), (train, list(held_out)), strict=True):
        assert len(part) == len(index)
        assert part.names == [f"s{i}" for i in index]
        np.testing.assert_array_equal(part.images, whole.images[index])
        np.testing.assert_array_equal(part.labels, whole.labels[index])


@pytest.mark.parametrize("val", [0, 7, 8, "0:7", "3:3", "4:2", "5:8", "0"])
def test_split_that_leaves_nothing(val):
    with pytest.raises(ValueError, match=rf"{val!r} of 7: both .* from 1 to 6"):
        sections().split(val)


@pytest.mark.parametrize("val", [-1, "last", "1:", ":", "1:2:3", 1.5])
def test_split_that_is_not_one(val):
    with pytest.raises(ValueError, match=rf"{re.escape(repr(val))}: expected a number"):
        sections().split(val)


def test_split_without_labels():
    assert [part.labels for part in Sections(grey(3), None, ["a", "b", "c"]).split(1)] == [None, None]


def test_sections_that_do_not_match():
    with pytest.raises(ValueError, match=r"labels \(5, 17, 23\) must have the shape of images \(5, 18, 23\)"):
        Sections(grey(), mask(5, 17) > 0, ["a"] * 5)
    with pytest.raises(ValueError, match="4 names"):
        Sections(grey(), None, ["a"] * 4)


def test_resize_keeps_types_and_places():
    """A bright square with its mask: both shrink to the same place, and the mask stays a mask."""
    images = np.zeros((2, 40, 60), np.uint8)
    images[:, 10:20, 20:40] = 200
    whole = Sections(images, images > 100, ["a", "b"])
    small = whole.resized((20, 15))
    assert small.images.dtype == np.uint8 and small.labels.dtype == bool and small.names == ["a", "b"]
    expected = np.zeros((2, 20, 15), bool)
    expected[:, 5:10, 5:10] = True
    np.testing.assert_array_equal(small.labels, expected)
    np.testing.assert_array_equal(small.images > 100, small.labels)
    assert abs(small.images.mean() - images.mean()) < 1  # averages, not samples
    assert whole.resized((40, 60)) is whole


@pytest.mark.parametrize("size", [(20, 30), (13, 25), (7, 60), (40, 41)])
def test_shrinking_reads_image_and_mask_at_the_same_place(size):
    """A resized ramp says where it was read. The mask must come from there: flips turn any offset round."""
    for axis, n in ((0, 40), (1, 60)):
        ramp = np.moveaxis(np.broadcast_to(np.arange(n, dtype=np.float32), (1, 100 - n, n)), 2, 1 + axis)
        for threshold in (0.35 * n, 0.5 * n, 0.8 * n):
            small = Sections(np.ascontiguousarray(ramp), ramp > threshold, ["a"]).resized(size)
            inner = (slice(None), slice(2, -2), slice(2, -2))  # at the border the Gaussian bends the ramp
            np.testing.assert_array_equal(small.images[inner] > threshold, small.labels[inner])


def test_enlarging_interpolates_images_and_repeats_masks():
    ramp = np.tile(np.arange(6, dtype=np.float32), (1, 4, 1))
    large = Sections(ramp, ramp > 2, ["a"]).resized((4, 12))
    np.testing.assert_allclose(large.images[0, 0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75, 5])
    np.testing.assert_array_equal(large.labels[0, 0], np.repeat(np.arange(6) > 2, 2))


def test_resize_smooths_before_it_samples():
    noise = 255 * np.random.default_rng(0).integers(0, 2, (1, 33, 64)).astype(np.uint8)
    small = Sections(noise, None, ["a"]).resized((33, 16))
    assert small.labels is None
    # Four times smaller is a Gaussian of σ = 1.5 first: of white noise, 1 / (2 √π σ) of the variance is left.
    # Linear interpolation alone, between two pixels, would leave a half.
    assert small.images.std() < 1.1 * 127.5 * np.sqrt(1 / (2 * np.sqrt(np.pi) * 1.5))


def test_resize_of_floats_and_wrong_sizes():
    images = grey(2).astype(np.float32) / 1000
    small = Sections(images, None, ["a", "b"]).resized(9)
    assert small.images.shape == (2, 9, 9) and small.images.dtype == np.float32
    assert small.images.max() <= images.max()
    for size in (0, (4, -1), 2.5, "9", (9,), None, (9, 9, 9)):
        with pytest.raises(ValueError, match="positive"):
            Sections(images, None, ["a", "b"]).resized(size)


# ---- standardize


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_standardize(dtype):
    images = grey(dtype=np.uint16).astype(dtype)
    images[1] //= 2
    kept = images.copy()
    x = standardize(images)
    assert x.dtype == np.float32 and x.shape == images.shape
    np.testing.assert_allclose(x.mean(axis=(1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(axis=(1, 2)), 1, rtol=1e-5)
    x = standardize(images, how="stack")
    np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=1e-5)
    assert abs(x[1].std() - 1) > 0.05  # over the stack, not over each section
    np.testing.assert_array_equal(images, kept)


def test_a_constant_section_is_zeros():
    images = grey().astype(np.float32)
    images[2] = 0.1  # whose mean rounds
    x = standardize(images)
    assert (x[2] == 0).all() and np.isfinite(x).all()
    assert (standardize(np.full((2, 5, 7), 3, np.uint8), how="stack") == 0).all()


def test_unit():
    np.testing.assert_allclose(standardize(grey(), how="unit"), grey() / 255, rtol=1e-6)
    np.testing.assert_allclose(standardize(grey(dtype=np.uint16), "unit"), grey(dtype=np.uint16) / 65535, rtol=1e-6)
    np.testing.assert_allclose(standardize(np.array([[[-128, 127]]], np.int8), "unit"), [[[0, 1]]])
    ready = grey().astype(np.float32) / 255
    np.testing.assert_array_equal(standardize(ready, "unit"), ready)
    with pytest.raises(ValueError, match=r"expects float images in \[0, 1\], found \[0, 25\d\]"):
        standardize(grey().astype(np.float32), "unit")
    for nothing in (np.zeros((0, 4, 5), np.uint8), np.full((1, 4, 5), np.nan)):
        with pytest.raises(ValueError, match="must have pixels, and finite ones"):
            standardize(nothing)
    with pytest.raises(ValueError, match="must be .*found 'minmax'"):
        standardize(grey(), "minmax")


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (grey()[0], r"of integers or floats, but are uint8 \(\d+, \d+\): give a single image as image\[None\]"),
        (grey()[None], r"but are uint8 \(1, .*: give a stack of grey sections"), ("a.tif", r"but are <U5 \(\)"),
        (grey().astype(complex), "but are complex128"), (grey().astype(object), "but are object"),
        ([[[1, 2], [3]]], "cannot be made one"), (np.ma.masked_greater(grey(), 100), "but are masked: fill them first"),
        ([np.ma.masked_greater(grey()[0], 100)], "but are masked: fill them first"),
        (np.float64([[[0, 1e300]]]), "that float32 can hold"),
    ],
    ids=["one image", "four axes", "a path", "complex", "objects", "ragged", "masked", "masked in a list", "too large"],
)  # fmt: skip
@pytest.mark.parametrize("how", ["section", "stack", "unit"])
def test_standardizing_what_is_no_stack_of_grey_values_is_refused(images, words, how):
    with pytest.raises(ValueError, match=words):
        standardize(images, how)


def test_a_list_of_sections_is_standardized_as_their_stack():
    np.testing.assert_array_equal(standardize(list(grey())), standardize(grey()))
    np.testing.assert_array_equal(standardize(grey().tolist()), standardize(grey()))


@pytest.mark.parametrize(("dtype", "offset"), [("u8", 2**63), ("i8", -(2**63)), (">u8", 2**64 - 256)])
@pytest.mark.parametrize("how", ["section", "stack"])
def test_integers_of_64_bits_keep_their_contrast_however_large(dtype, offset, how):
    images = (grey().astype(object) + offset).astype(dtype)
    np.testing.assert_allclose(standardize(images, how), standardize(grey(), how), atol=1e-6)


def test_the_least_and_the_largest_integer_are_as_far_apart_as_they_are():
    x = standardize(np.array([[[-(2**63), 2**63 - 1]]]))
    np.testing.assert_allclose(x, [[[-1, 1]]])


# ---- the real thing


@needs_real_data
def test_the_challenge_files():
    sections = load(REAL, labels="required")  # without a warning: they are errors
    np.testing.assert_array_equal(sections.images, tifffile.imread(REAL / "train-volume.tif"))
    assert 0.7 < sections.labels.mean() < 0.85
    for image, label in zip(sections.images, sections.labels, strict=True):
        assert image[label].mean() - image[~label].mean() > 20  # membrane is darker, in every section
    assert len(load_stack(REAL / "test-volume.tif")[0]) == 30
    train, val = sections.split(6)
    assert (len(train), val.names[0]) == (len(sections) - 6, f"train-volume.tif[{len(sections) - 6}]")
    small = val.resized(256)
    assert abs(small.labels.mean() - val.labels.mean()) < 0.01
    assert isbi.standardize(small.images).shape == (6, 256, 256)
