"""Masks are paired with images by their names, and a sentence names what has no partner."""

import re

import numpy as np
import pytest
import tifffile
from PIL import Image

from tinyseg.data import isbi
from tinyseg.data.pairs import match_names, page_order, prefer_probabilities, split_masks


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["a.png", "a_2.png", "b.png"], ["a_mask.png", "a_2_mask.png", "b_mask.png"]),
        (["a.tif", "b.tif"], ["a_cp_masks.png", "b_cp_masks.png"]),
        (["a.png", "b.png"], ["a_instances.tif", "b_instances.tif"]),
        (["a.jpg", "B.JPG"], ["A-seg.tif", "b-seg.tif"]),
        (["a_img.png", "a_img2.png"], ["a_gt.png", "a_gt2.png"]),
        (["train_001.png", "train_002.png"], ["train-labels_001.png", "train-labels_002.png"]),
        (["img_1.png", "img_2.png", "img_10.png"], ["mask_01.png", "mask_02.png", "mask_10.png"]),
        (["case_001_0000.png", "case_002_0000.png"], ["case_001.png", "case_002.png"]),
        (["a_1.png", "a_01.png"], ["a_1_mask.png", "a_01_mask.png"]),
        (["train_1.png", "test_1.png"], ["train_1_label.png", "test_1_label.png"]),
        (["mouse 3 slice 001.png", "mouse 3 slice 002.png"], ["1.png", "2.png"]),
        (["section_0.png", "section_1.png"], ["mask0.png", "mask1.png"]),
        (["train-volume.tif"], ["train-labels.tif"]),
        (["a.ome.tif", "b.ome.tif"], ["a.png", "b.png"]),
        (["BRATS_001.nii.gz", "BRATS_010.nii.gz"], ["BRATS_001_mask.nii.gz", "BRATS_010_mask.nii"]),
        (["cellImage01.png", "cellImage02.png"], ["cellMask01.png", "cellMask02.png"]),
        (["a_mask.png", "mask.png"], ["a_mask.png", "mask.png"]),
        (["nu\u00e9e.png", "\u00e9.png"], ["nue\u0301e_mask.png", "e\u0301_mask.png"]),
        (["A.png", "a.png"], ["A.tif", "a.tif"]),
        (["training_1.png", "test_1.png"], ["train_1_mask.png", "testing_1_mask.png"]),
        (["21_training.tif", "22_training.tif"], ["21_manual1.tif", "22_manual1.tif"]),
        (["section_1.png", "section_2.png"], ["membrane_slice_1.png", "membrane_slice_2.png"]),
        (
            ["train-volume-slice-1.png", "train-volume-slice-2.png"],
            ["train-labels-slice-1.png", "train-labels-slice-2.png"],
        ),
        (["-1.png", "1.png"], ["-1_mask.png", "1_mask.png"]),
        (["細胞1.png", "細胞2.png"], ["細胞1_mask.png", "細胞2_mask.png"]),
    ],
)
def test_partners_in_any_order(images, masks):
    assert match_names(images, masks) == masks
    assert match_names(images[::-1], masks) == masks[::-1]
    assert match_names(masks, images[::-1]) == images


@pytest.mark.parametrize(
    ("images", "masks", "found"),
    [
        (["i1.png", "i2.png", "i3.png"], ["i1.png", "i2.png", "i4.png"], "no labels for i3.png; no images for i4.png"),
        (["a.png", "b.png"], ["a_mask.png"], "no labels for b.png."),
        (["a.png"], ["a_mask.png", "b_mask.png"], "no images for b_mask.png."),
        (["a_1.png", "a_01.png"], ["a_1.png", "a_001.png"], "a_1.png and a_01.png could belong to the same file"),
        (["a.png"], ["a_mask.png", "a_seg.png"], "a_mask.png and a_seg.png could belong to the same file"),
        (["a.png", "b.png"], ["c.png", "d.png"], "no labels for a.png, b.png; no images for c.png, d.png"),
        (["wildtype_1.png", "wildtype_2.png"], ["knockout_1.png", "knockout_2.png"], "no labels for wildtype_1.png"),
        (["mouse1_01.png", "mouse1_02.png"], ["mouse2_01.png", "mouse2_02.png"], "no labels for mouse1_01.png"),
        (["day 1 cell 1.png", "day 2 cell 2.png"], ["1.png", "2.png"], "no labels for day 1 cell 1.png"),
        (["a_0000.png", "a_0001.png"], ["a.png"], "no labels for"),
        (["train_1.png"], ["test_1_mask.png"], "no labels for train_1.png; no images for test_1_mask.png"),
        (
            ["train_1.png", "val_1.png"],
            ["train_1.png", "test_1.png"],
            "no labels for val_1.png; no images for test_1.png",
        ),
        (["slice_1_volume_2.png"], ["volume_1_slice_2.png"], "no labels for slice_1_volume_2.png"),
        (["membrane_1.png", "membrane_2.png"], ["nucleus_1.png", "nucleus_2.png"], "no labels for membrane_1.png"),
    ],
)
def test_what_has_no_partner_or_two_is_named(images, masks, found):
    with pytest.raises(ValueError, match=rf"images and labels are paired by their names.*{re.escape(found)}"):
        match_names(images, masks)


def test_others_may_be_left_over_where_that_is_wanted():
    assert match_names(["b.nii.gz"], ["a_mask.nii.gz", "b_mask.nii.gz"], spare=True) == ["b_mask.nii.gz"]
    with pytest.raises(ValueError, match=r"cases and predictions .*: no predictions for c\.nii\. Name"):
        match_names(["b.nii", "c.nii"], ["a.nii", "b.nii"], ("cases", "predictions"), spare=True)


def test_numbers_that_count_pages():
    assert page_order(["a_10.png", *(f"a_{k}.png" for k in range(1, 10))]) == [*range(1, 10), 0]
    assert page_order(["z2_1.png", "z2_0.png"]) == [1, 0]
    assert page_order(["x0.png"]) == [0]
    for names in (
        ["1.png", "3.png"],
        ["2.png", "3.png"],
        ["a.png", "b.png"],
        ["a1.png", "b2.png"],
        ["1.png", "01.png"],
    ):
        assert page_order(names) is None


def test_masks_beside_images():
    names = ["a.png", "a_cp_masks.png", "b.png", "b_cp_masks.png"]
    assert split_masks(names) == (["a.png", "b.png"], ["a_cp_masks.png", "b_cp_masks.png"])
    assert split_masks(["a_mask.png", "b_mask.png"]) == (["a_mask.png", "b_mask.png"], [])
    assert split_masks(["membrane_1.png", "membrane_1_mask.png"]) == (["membrane_1.png"], ["membrane_1_mask.png"])
    assert split_masks(["a.png", "b_mask.png"]) == (["a.png", "b_mask.png"], [])
    assert split_masks(["0.png", "0_predict.png"]) == (["0.png", "0_predict.png"], [])


def test_predictions_of_another_program_beside_images():
    assert split_masks(["0.png", "0_predict.png"], predictions=True) == (["0.png"], ["0_predict.png"])
    assert split_masks(["0_predict.png", "1_predict.png"], predictions=True)[1] == []


def test_frames_of_the_cell_tracking_challenge():
    masks = ["man_seg001.tif", "man_seg000.tif"]
    assert match_names(["t000.tif", "t001.tif"], masks) == masks[::-1]
    assert match_names(["train-input.tif"], ["train-labels.tif"]) == ["train-labels.tif"]  # SNEMI3D


# ---- as isbi.load meets them


def section(k, shape=(18, 23)):
    """A section whose grey values tell k, and a mask that tells it too."""
    mask = np.full(shape, 255, np.uint8)
    mask[k] = 0
    return np.full(shape, 10 + k, np.uint8), mask


def write(folder, names, part, order=None):
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in zip(order or range(len(names)), names, strict=True):
        Image.fromarray(section(k)[part]).save(folder / name)


def write_stack(path, order, part):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.stack([section(k)[part] for k in order]), photometric="minisblack")


def check(sections, count):
    """Each image has its own mask."""
    assert len(sections) == count
    for image, label in zip(sections.images, sections.labels, strict=True):
        np.testing.assert_array_equal(label, section(image[0, 0] - 10)[1] > 0)


def test_masks_named_with_a_suffix_that_sorts_otherwise(tmp_path):
    names = ["a.png", "a_2.png", "b.png", "b_2.png"]
    write(tmp_path / "images", names, 0)
    write(tmp_path / "labels", [name.replace(".png", "_mask.png") for name in names], 1)
    check(isbi.load(tmp_path, "required"), 4)


def test_an_image_without_mask_and_a_mask_without_image(tmp_path):
    write(tmp_path / "images", ["i1.png", "i2.png", "i3.png"], 0)
    write(tmp_path / "labels", ["i1.png", "i2.png", "i4.png"], 1)
    with pytest.raises(ValueError, match=r"no labels for i3\.png; no images for i4\.png"):
        isbi.load(tmp_path)


def test_images_and_masks_in_one_folder(tmp_path):
    write(tmp_path, ["b.png", "a.png"], 0)
    write(tmp_path, ["b_masks.png", "a_masks.png"], 1)
    check(isbi.load(tmp_path, "required"), 2)
    with pytest.raises(ValueError, match=r"holds images and labels.*a\.png, or move the labels \(a_masks\.png, b_m"):
        isbi.load(tmp_path, labels=None)
    write(tmp_path, ["c.png"], 0)
    with pytest.raises(ValueError, match=r"no labels for c\.png"):
        isbi.load(tmp_path)


def test_two_folders_of_stacks(tmp_path):
    for part, name in enumerate(("images", "labels")):
        write_stack(tmp_path / name / ("a.tif" if part == 0 else "2_a_mask.tif"), [0, 1, 2], part)
        write_stack(tmp_path / name / ("2_a.tif" if part == 0 else "a_mask.tif"), [3, 4], part)
    with pytest.raises(ValueError, match=r"2_a\.tif has 2 and .*2_a_mask\.tif has 3"):
        isbi.load(tmp_path)
    write_stack(tmp_path / "labels" / "a_mask.tif", [0, 1, 2], 1)
    write_stack(tmp_path / "labels" / "2_a_mask.tif", [3, 4], 1)
    check(isbi.load(tmp_path), 5)


@pytest.mark.parametrize("stack", [0, 1])
def test_a_folder_and_a_stack(tmp_path, stack):
    names = [f"x_{k}.png" for k in (2, 1, 3)]
    paths = [tmp_path / "images", tmp_path / "labels"]
    write(paths[1 - stack], names, 1 - stack, [1, 0, 2])
    paths[stack] = tmp_path / "stack.tif"
    write_stack(paths[stack], [0, 1, 2], stack)
    check(isbi.load(paths[0], paths[1]), 3)
    (paths[1 - stack] / "x_3.png").rename(paths[1 - stack] / "x_5.png")
    with pytest.raises(ValueError, match=r"numbered from 0 or 1 .* which has 3\. There is: x_1\.png, x_2\.png, x_5"):
        isbi.load(paths[0], paths[1])


def test_a_folder_of_files_and_a_folder_of_one_stack(tmp_path):
    write_stack(tmp_path / "images" / "cells.tif", [0, 1, 2], 0)
    write(tmp_path / "labels", [f"{k:02}.png" for k in (2, 0, 1)], 1, [2, 0, 1])
    check(isbi.load(tmp_path), 3)
    (tmp_path / "labels" / "00.png").unlink()
    with pytest.raises(ValueError, match=r"numbered from 0 or 1 .*cells\.tif, which has 3\. There is: 01\.png, 02"):
        isbi.load(tmp_path)


def test_two_files_are_partners_whatever_their_names(tmp_path):
    write_stack(tmp_path / "cells.tif", [0, 1], 0)
    write_stack(tmp_path / "drawn by Anna.tif", [0, 1], 1)
    check(isbi.load(tmp_path / "cells.tif", tmp_path / "drawn by Anna.tif"), 2)


def test_links_to_nowhere_are_named(tmp_path):
    for part, name in enumerate(("images", "labels")):
        write(tmp_path / name, ["0.png", "1.png", "2.png"], part)
        gone = tmp_path / name / f"{1 + part}.png"
        gone.unlink()
        gone.symlink_to("gone.png")
    with pytest.raises(
        ValueError, match=r"images has 1\.png \(a link to gone\.png, which is not there\).*git annex get"
    ):
        isbi.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"1\.png is a link to gone\.png, which is not there"):
        isbi.load(tmp_path / "images" / "1.png")


def test_a_folder_named_like_an_image_and_an_empty_file(tmp_path):
    write(tmp_path / "images", ["0.png", "1.png"], 0)
    (tmp_path / "images" / "2.png").mkdir()
    with pytest.raises(ValueError, match=r"has 2\.png \(a folder\) among its sections"):
        isbi.load(tmp_path)
    (tmp_path / "images" / "2.png").rmdir()
    (tmp_path / "images" / "2.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2\.png cannot be read.*empty, 0 bytes"):
        isbi.load(tmp_path)


def test_cellpose_files_of_numpy_are_not_read(tmp_path):
    write(tmp_path / "images", ["0.png"], 0)
    (tmp_path / "labels").mkdir()
    np.save(tmp_path / "labels" / "0_seg.npy", {"masks": 1})
    with pytest.raises(FileNotFoundError, match=r"There is: 0_seg\.npy\. Files of NumPy are not read.*PNG or TIFF"):
        isbi.load(tmp_path)
    with pytest.raises(ValueError, match=r"0_seg\.npy is of a kind that is not read.*Files of NumPy"):
        isbi.load(tmp_path / "images", tmp_path / "labels" / "0_seg.npy")


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        ("a_mask.tif a_probability.tif", "a_probability.tif"),
        ("a_mask.tif a_submission.tif", "a_submission.tif"),
        ("a.tif a_mask.tif", "a_mask.tif"),
        ("a.tif a_mask.tif a_instances.tif", "a_instances.tif"),
        ("a_probability.tif a_instances.tif", "a_probability.tif"),
        ("a.tif a_pred.tif b.tif b_pred.tif", "a_pred.tif b_pred.tif"),
        ("a_prob.png a_mask.png b_mask.png", "a_mask.png b_mask.png"),  # probabilities of some only
        ("a_prob.png b_mask.png", "a_prob.png b_mask.png"),
        ("a.tif b.tif a_2.tif", "a.tif b.tif a_2.tif"),
        ("a.png a.tif", "a.png a.tif"),  # nothing says which is meant
    ],
)
def test_which_of_several_predictions_of_an_image_is_scored(names, kept):
    assert prefer_probabilities(names.split()) == kept.split()
