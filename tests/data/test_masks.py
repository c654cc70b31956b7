"""Masks and predictions as people save them: understood, or refused in a sentence."""

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFilter
from skimage.measure import label

from tinyseg.data import isbi
from tinyseg.data.masks import as_probabilities, binarize_labels, count_objects


def cells(shape=(40, 52)):
    """Labels 1 to 20 of rectangles that touch each other, and a background of 0 at the border; bool: inside alone."""
    labels, inside = np.zeros(shape, int), np.zeros(shape, bool)
    for k in range(20):
        i, j = 2 + 9 * (k // 5), 1 + 10 * (k % 5)
        labels[i : i + 9, j : j + 10] = k + 1
        inside[i + (k >= 5) : i + 9 - (k < 15), j + (k % 5 > 0) : j + 10 - (k % 5 < 4)] = True
    return labels, inside


def check_load(folder, masks, suffix="png"):
    """Return the labels that load gives for masks, which are written one by one."""
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for k, mask in enumerate(masks):
        Image.fromarray(np.zeros(mask.shape[:2], np.uint8)).save(folder / "images" / f"{k}.png")
        if suffix == "tif":
            tifffile.imwrite(folder / "labels" / f"{k}.tif", mask)
        else:
            Image.fromarray(mask).save(folder / "labels" / f"{k}.{suffix}")
    return isbi.load(folder, "required").labels


# ---- masks of two values


def mostly_white(k=0):
    mask = np.ones((18, 23), bool)
    mask[k] = False
    return mask


def test_one_file_has_0_and_1_and_another_0_and_255(tmp_path):
    masks = [mostly_white(k) for k in range(4)]
    masks[3][:] = True  # all foreground, with a white of its own
    types = [np.uint8, np.uint8, np.uint8, np.uint8]
    written = [(m * w).astype(t) for m, w, t in zip(masks, (1, 255, 1, 255), types, strict=True)]
    np.testing.assert_array_equal(check_load(tmp_path, written), masks)


def test_files_of_one_bit_of_eight_and_of_sixteen(tmp_path):
    masks = [mostly_white(k) for k in range(3)]
    written = [masks[0], masks[1].astype(np.uint8) * 255, masks[2].astype(np.uint16) * 65535]
    np.testing.assert_array_equal(check_load(tmp_path, written), masks)


@pytest.mark.parametrize("values", [(1, 255), (1, 2), (0.0, 1.0), (0, 3)])
def test_any_two_values_in_all(values):
    masks = np.stack([mostly_white(k) for k in range(3)])
    np.testing.assert_array_equal(binarize_labels(np.array(values)[masks.astype(int)], "a"), masks)


@pytest.mark.parametrize("colours", [((0, 0, 0), (200, 0, 0)), ((0, 80, 0), (255, 255, 255))])
def test_masks_of_two_colours(tmp_path, colours):
    masks = [mostly_white(k) for k in range(2)]
    written = [np.array(colours, np.uint8)[mask.astype(int)] for mask in masks]
    np.testing.assert_array_equal(check_load(tmp_path, written), masks)


def test_masks_of_colours_that_do_not_say_which_is_white(tmp_path):
    written = [np.array([(255, 0, 0), (0, 255, 0)], np.uint8)[mostly_white().astype(int)]]
    with pytest.raises(ValueError, match="is in colour"):
        check_load(tmp_path, written)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.float32])
def test_white_of_255_in_a_signed_type(dtype):
    with pytest.raises(ValueError, match=r"\[-1.*, 0.*\] in a\[0\], and it is not known which of them is white"):
        binarize_labels((-1 * mostly_white()[None]).astype(dtype), "a")
    np.testing.assert_array_equal(binarize_labels(np.where(mostly_white(), 1, -1)[None], "a")[0], mostly_white())


def test_a_warning_about_inverted_masks_speaks_of_no_membranes():
    with pytest.warns(UserWarning, match=r"only 6% of a\[0\] is foreground \(white\)\. .*--foreground black") as warned:
        binarize_labels(~mostly_white()[None], "a")
    assert "membrane" not in str(warned[0].message) and "microscop" not in str(warned[0].message)


# ---- labels of objects


@pytest.mark.parametrize(
    ("dtype", "suffix"), [(np.uint8, "png"), (np.uint16, "png"), (np.int32, "tif"), (float, "tif")]
)
def test_labels_of_objects(tmp_path, dtype, suffix):
    labels, inside = cells()
    with pytest.warns(UserWarning, match=r"labels of 40 objects, .* in 0\.\w+ in .* to 1\.\w+ in "):
        found = check_load(tmp_path, [labels.astype(dtype)] * 2, suffix)
    np.testing.assert_array_equal(found, [inside] * 2)
    assert label(found[0], connectivity=2).max() == 20  # as many as there were


def test_labels_of_a_part_of_a_larger_picture():
    labels, inside = cells()
    with pytest.warns(UserWarning, match="labels of 20 objects"):
        np.testing.assert_array_equal(binarize_labels(np.where(labels, labels + 300, 0)[None], "a"), inside[None])
    with pytest.raises(ValueError, match="leave out foreground"):
        binarize_labels(labels[None], "a", foreground="black")


def test_a_mask_smeared_by_jpeg_is_no_objects(tmp_path):
    mask = np.where(cells()[1], 255, 0).astype(np.uint8)
    with pytest.raises(ValueError, match=r"exactly two values.*JPEG"):
        check_load(tmp_path, [mask], "jpg")


def boxes(values):
    """A picture of three values, one within the other."""
    picture = np.full((40, 52), values[0])
    picture[5:35, 5:45], picture[10:30, 10:40] = values[1], values[2]
    return picture


@pytest.mark.parametrize(
    "how", ["blurred", "enlarged", "classes", "three", "negative", "noise", "nucleus", "trimap", "from 1"]
)
def test_what_is_neither_a_mask_nor_objects(how):
    inside = cells()[1]
    picture = Image.fromarray(np.where(inside, 255, 0).astype(np.uint8))
    stack = {
        "blurred": lambda: np.asarray(picture.filter(ImageFilter.GaussianBlur(1))),
        "enlarged": lambda: np.asarray(picture.resize((117, 91), Image.Resampling.BILINEAR)),
        "classes": lambda: inside * (1 + (np.arange(52) > 25)),
        "three": lambda: np.where(inside, 255, 0) // (1 + (np.arange(52) > 25)),
        "negative": lambda: cells()[0] - 1,
        "nucleus": lambda: boxes((0, 1, 2)),
        "trimap": lambda: boxes((1, 2, 3)),
        "from 1": lambda: label(inside, connectivity=2) + 1,  # the background is 1
        "noise": lambda: np.random.default_rng(0).integers(0, 200, (40, 52)),
    }[how]()
    assert count_objects(stack[None]) is None
    with pytest.raises(ValueError, match=r"exactly two values, such as 0 and 255, or number its objects"):
        binarize_labels(stack[None], "a")


@pytest.mark.parametrize("values", [(0, 1, 2), (1, 2, 3), (0, 3, 1, 2)])
def test_layers_of_a_tissue_in_every_picture_are_classes_and_no_objects(tmp_path, values):
    masks = [np.repeat(np.array(values, np.uint8), 9 + k)[:24, None] * np.ones(20, np.uint8) for k in range(3)]
    with pytest.raises(ValueError, match="Or are these classes"):
        check_load(tmp_path, masks)


def test_a_few_objects_in_one_picture_may_be_classes():
    labels = np.zeros((1, 30, 20), np.uint8)
    labels[0, 3:9, 3:9], labels[0, 15:25, 3:9] = 1, 2
    with pytest.warns(UserWarning, match="labels of 2 objects.* If they are classes, name them"):
        np.testing.assert_array_equal(binarize_labels(labels, "a"), labels > 0)
    with pytest.warns(UserWarning, match="labels of 6 objects"):  # of 16 bits, as cellpose saves them
        binarize_labels(np.repeat(labels.astype(np.uint16), 3, axis=0), "a")


def test_masks_in_which_a_colour_is_a_class(tmp_path):
    colours = np.array([(128, 0, 0), (0, 128, 64), (64, 64, 0)], np.uint8)
    with pytest.raises(
        ValueError, match=r"0\.png in .* is in colour: .* If each colour is a class, save masks of numbers"
    ):
        check_load(tmp_path, [colours[np.arange(18) // 6][:, None] * np.ones((23, 1), np.uint8)])


# ---- predictions


def test_predictions_as_people_save_them():
    mask = np.stack([mostly_white(k) for k in range(3)])
    for masks in (mask, mask.astype(np.uint8), mask * np.uint8(255), mask * np.uint16(65535), mask * np.float32(255)):
        np.testing.assert_array_equal(as_probabilities(masks, "a"), mask)
        np.testing.assert_array_equal(as_probabilities(np.ones_like(masks), "a"), np.ones(mask.shape))
    for white in (2, 100, 127, 128):
        np.testing.assert_array_equal(as_probabilities(mask * np.uint8(white), "a"), mask)
    p = np.random.default_rng(0).random((3, 18, 23)).astype(np.float32)
    np.testing.assert_array_equal(as_probabilities(p, "a"), p)
    of_16_bits = as_probabilities(np.rint(p * 65535).astype(np.uint16), "a")
    assert of_16_bits.dtype == np.float32
    np.testing.assert_allclose(of_16_bits, p, atol=1e-5)
    with pytest.warns(UserWarning, match="a has 8 bits .* 255 for 1"):
        np.testing.assert_allclose(as_probabilities(np.rint(p * 255).astype(np.uint8), "a"), p, atol=2e-3)
    with pytest.warns(UserWarning, match="labels of objects"):
        np.testing.assert_array_equal(as_probabilities(cells()[0][None].astype(np.uint16), "a"), cells()[1][None])


def test_predictions_in_percent_and_of_one_low_value_are_no_objects_and_no_probabilities():
    percent = np.random.default_rng(0).integers(0, 101, (2, 18, 23)).astype(np.uint8)
    for stack in (percent, np.full((2, 18, 23), 2000, np.uint16)):
        with pytest.raises(ValueError, match="a must hold probabilities .* Divide by the largest value"):
            as_probabilities(stack, "a")


@pytest.mark.parametrize("values", [(-5.0, 5.0), (0, 4095), (0, 70000), (0.0, 1.5)])
def test_predictions_of_another_range(values):
    p = np.random.default_rng(0).random((3, 18, 23)) * (values[1] - values[0]) + values[0]
    stack = p.astype(np.float32 if isinstance(values[0], float) else np.uint16 if values[1] < 65536 else np.int32)
    with pytest.raises(ValueError, match="a must hold probabilities .* Divide by the largest value"):
        as_probabilities(stack, "a")
