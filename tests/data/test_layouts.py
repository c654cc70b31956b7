"""Folders of sections and masks as data sets and programs lay them out: understood, or refused with what to give."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from tinyseg.data import isbi
from tinyseg.data.sections import describe_copies


def grey(k):
    return np.random.default_rng(k).integers(0, 256, (18, 23)).astype(np.uint8)


def mask(k):
    inside = np.ones((18, 23), bool)
    inside[k] = False
    return inside


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def write_pairs(folder, image_name, mask_name, count=3, white=255):
    for k in range(count):
        write(folder / image_name.format(k), grey(k))
        write(folder / mask_name.format(k), mask(k) * white)


def check(folder, count=3):
    sections = isbi.load(folder, "required")
    np.testing.assert_array_equal(sections.images, [grey(k) for k in range(count)])
    np.testing.assert_array_equal(sections.labels, [mask(k) for k in range(count)])


def test_pictures_in_nnunets_folders(tmp_path):
    write_pairs(tmp_path, "imagesTr/case_{:04d}_0000.png", "labelsTr/case_{:04d}.png", white=1)
    (tmp_path / "dataset.json").write_text(json.dumps({"file_ending": ".png"}))
    check(tmp_path)
    write(tmp_path / "imagesTr" / "case_0000_0001.png", grey(9))
    with pytest.raises(ValueError, match="paired by their names"):
        isbi.load(tmp_path, "required")


def test_the_membrane_folder_of_a_u_net_in_keras(tmp_path):
    write_pairs(tmp_path / "train", "image/{}.png", "label/{}.png", count=12)
    (tmp_path / "train" / "aug").mkdir()
    write(tmp_path / "test" / "0.png", grey(0))
    check(tmp_path / "train", 12)
    with pytest.raises(FileNotFoundError, match=r"train holds images and labels: give that folder\."):
        isbi.load(tmp_path, "required")


def test_cellposes_train_and_test_hold_images_and_masks(tmp_path):
    for part in ("train", "test"):
        write_pairs(tmp_path / part, "{:03d}_img.png", "{:03d}_masks.png")
    with pytest.raises(FileNotFoundError, match=r"labels of their own \(test, train\): give one of them"):
        isbi.load(tmp_path, "required")
    check(tmp_path / "train")


def test_a_folder_for_each_image_with_a_mask_for_each_object(tmp_path):
    for name in ("0ab1", "7cd2"):
        write(tmp_path / name / "images" / f"{name}.png", grey(0))
        for k in range(3):
            write(tmp_path / name / "masks" / f"{k}ef.png", ~mask(k) * 255)
    with pytest.raises(FileNotFoundError, match=r"no images .*\(0ab1, 7cd2\): .* a mask for each object, join"):
        isbi.load(tmp_path, "required")


@pytest.mark.parametrize(("first", "second"), [("images", "img"), ("labels", "masks")])
def test_two_folders_that_may_be_the_images_or_the_labels(tmp_path, first, second):
    write_pairs(tmp_path, "images/{}.png", "labels/{}.png")
    (tmp_path / second).mkdir()
    (tmp_path / second / "notes.txt").write_text("empty but for this")
    check(tmp_path)
    write(tmp_path / second / "0.png", ~mask(0) * 255)
    with pytest.raises(ValueError, match=rf"has ({first} and {second}|{second} and {first}): expected one of them"):
        isbi.load(tmp_path, "required")


def test_pictures_that_were_augmented_before_the_split(tmp_path):
    write_pairs(tmp_path, "images/{}.png", "labels/{}.png", 5)
    assert describe_copies(*isbi.load(tmp_path).split("3:5")) == ""
    write(tmp_path / "images" / "4.png", 255 - grey(1)[:, ::-1])
    said = describe_copies(*isbi.load(tmp_path).split("3:5"))
    assert "1 of 2 validation sections are copies" in said and "(4.png of 1.png)" in said
    for name in ("0.png", "4.png"):  # of one grey value
        write(tmp_path / "images" / name, np.zeros((18, 23)))
    assert describe_copies(*isbi.load(tmp_path).split("3:5")) == ""


def test_one_folder_was_copied_for_the_other(tmp_path):
    for k in range(2):
        for part in ("images", "labels"):
            write(tmp_path / part / f"{k}.png", mask(k) * 255)
    with pytest.raises(ValueError, match="images and labels are the same pictures"):
        isbi.load(tmp_path)


def test_some_images_lie_in_a_folder_within(tmp_path):
    write_pairs(tmp_path, "images/{}.png", "labels/{}.png")
    write_pairs(tmp_path, "images/more/{}.png", "labels/.more/{}.png")
    with pytest.warns(UserWarning, match="images holds folders of pictures, which are left out: more"):
        check(tmp_path)


@pytest.mark.parametrize(("axes", "shape"), [("ZTYX", (3, 2)), ("TZYX", (3, 2))])
def test_pages_of_images_and_masks_are_counted_in_another_order(tmp_path, axes, shape):
    images, masks = np.stack([grey(k) for k in range(6)]), np.stack([mask(k) for k in range(6)]) * np.uint8(255)
    for name, stack, order, size in (
        ("train-volume.tif", images, "TZYX", (2, 3)), ("train-labels.tif", masks, axes, shape),
    ):  # fmt: skip
        stack = stack.reshape(*size, 18, 23)
        tifffile.imwrite(tmp_path / name, stack, ome=True, photometric="minisblack", metadata={"axes": order})
    found = ", ".join(f"{axis} {n}" for axis, n in zip(axes, shape, strict=False))
    with pytest.raises(ValueError, match=f"train-volume.tif are counted by T 2, Z 3, those of .*labels.tif by {found}"):
        isbi.load(tmp_path)
    tifffile.imwrite(tmp_path / "train-labels.tif", masks, photometric="minisblack")  # pages without axes
    check(tmp_path, 6)
