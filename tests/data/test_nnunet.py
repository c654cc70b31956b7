"""Data sets of nnU-Net: read as its versions write them, trained on and predicted by the names of their cases."""

import json

import nibabel as nib
import numpy as np
import pytest

from tinyseg.data.brats import find_cases, read_case
from tinyseg.data.classes import DECATHLON
from tinyseg.data.label_volumes import find_labels
from tinyseg.data.scans import find_scans, open_scan

SHAPE = (9, 7, 5)
NEW = {"channel_names": {"0": "T2", "1": "ADC"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii.gz"}
OLD = {"modality": {"0": "T2", "1": "ADC"}, "labels": {"0": "background", "1": "a", "2": "b"}, "test": []}


def write(path, values):
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([-1, -1, 1, 1])), path)


def voxels(case, channel):
    return (10 * case + channel + 40 * np.random.default_rng(0).integers(0, 9, SHAPE)).astype(np.int16)


def write_task(folder, about, channels=2, parts=("imagesTr",), ending=".nii.gz"):
    """Write prostate_0000 to prostate_0002 with a file for each channel, labels, and dataset.json."""
    for k in range(3):
        name = f"prostate_{k:04d}"
        for part in parts:
            for m in range(channels):
                write(folder / part / f"{name}_{m:04d}{ending}", voxels(k, m))
        write(folder / "labelsTr" / f"{name}{ending}", (voxels(k, 0) % 3).astype(np.uint8))
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder


def check_cases(folder, count=2):
    cases = find_cases(folder)
    assert [case.name for case in cases] == [f"prostate_{k:04d}" for k in range(3)]
    for k, case in enumerate(cases):
        volume, label = read_case(case)
        np.testing.assert_array_equal(volume, [voxels(k, m) for m in range(count)])
        np.testing.assert_array_equal(label, voxels(k, 0) % 3)


def listed(channels):
    """Cases as version 1 lists them: without the numbers of the channels."""
    names = [f"prostate_{k:04d}.nii.gz" for k in range(3)]
    return {"training": [{"image": f"./imagesTr/{n}", "label": f"./labelsTr/{n}"} for n in names]}


@pytest.mark.parametrize("count", [1, 2])
def test_dataset_json_lists_no_cases_or_lists_them_without_channels(tmp_path, count):
    names = {str(m): NEW["channel_names"][str(m)] for m in range(count)}
    for k, about in enumerate((NEW | {"channel_names": names}, OLD | {"modality": names} | listed(count))):
        (tmp_path / str(k)).mkdir()
        check_cases(write_task(tmp_path / str(k), about, count), count)


def test_dataset_json_gives_the_files_under_dataset(tmp_path):
    files = {
        f"prostate_{k:04d}": {
            "images": [f"imagesTr/prostate_{k:04d}_{m:04d}.nii" for m in range(2)],
            "label": f"labelsTr/prostate_{k:04d}.nii",
        }
        for k in range(3)
    }
    check_cases(write_task(tmp_path, NEW | {"dataset": files, "file_ending": ".nii"}, ending=".nii"))


@pytest.mark.parametrize("part", ["imagesTr", "imagesTs"])
def test_predict_takes_a_case_with_all_its_channels(tmp_path, part):
    write_task(tmp_path, NEW, parts=("imagesTr", part) if part == "imagesTs" else (part,))
    for modalities, channels in ((["ADC", "T2"], [1, 0]), (["ADC"], [1]), (None, [0, 1])):
        scans = find_scans(tmp_path, modalities)
        assert [scan.name for scan in scans] == [f"prostate_{k:04d}.nii.gz" for k in range(3)]
        with open_scan(scans[2]) as image:
            np.testing.assert_array_equal(image.section(3), [voxels(2, m)[:, :, 3] for m in channels])
        assert {file.parent.name for scan in scans for file in scan.files} == {part}
        assert find_scans(tmp_path / part, modalities) == scans


def test_labels_are_named_by_the_dataset_json_beside_their_folder(tmp_path):
    write_task(tmp_path, NEW)
    for path in (tmp_path / "labelsTr", tmp_path / "labelsTr" / "prostate_0001.nii.gz"):
        assert find_labels(path).classes == ("background", "a", "b")
    (tmp_path / "dataset.json").unlink()
    assert find_labels(tmp_path / "labelsTr").classes == DECATHLON


def test_predictions_in_a_folder_of_labels_are_not_labels(tmp_path):
    write_task(tmp_path, NEW)
    content = {"classes": ["a"], "files": {"prostate_0001.nii.gz": "x"}, "settings": {}}
    (tmp_path / "labelsTr" / "predictions.json").write_text(json.dumps(content))
    for read, place in ((find_labels, tmp_path / "labelsTr"), (find_cases, tmp_path)):
        with pytest.raises(ValueError, match=r"prostate_0001\.nii\.gz is a prediction of predict\.py"):
            read(place)


def test_names_of_the_decathlon_that_end_in_four_digits_are_no_channels(tmp_path):
    for k in range(3):
        for part in ("imagesTr", "labelsTr", "imagesTs"):
            write(tmp_path / part / f"prostate_{k:04d}.nii.gz", voxels(k, 0) % (3 if part == "labelsTr" else 900))
    (tmp_path / "dataset.json").write_text(json.dumps(OLD | {"modality": {"0": "T2"}} | listed(1)))
    check_cases(tmp_path, 1)
    assert [scan.name for scan in find_scans(tmp_path, ["T2"])] == [f"prostate_{k:04d}.nii.gz" for k in range(3)]


def test_a_case_lacks_a_channel_or_its_labels_or_has_one_too_many(tmp_path):
    write_task(tmp_path, NEW)
    (tmp_path / "imagesTr" / "prostate_0001_0001.nii.gz").unlink()
    (tmp_path / "labelsTr" / "prostate_0002.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"prostate_0001_0001\.nii\.gz, which is not there"):
        find_cases(tmp_path)
    assert sorted(find_cases(tmp_path, skip_bad=True).skipped) == ["prostate_0001", "prostate_0002"]
    write(tmp_path / "imagesTr" / "prostate_0000_0002.nii.gz", voxels(0, 2))
    with pytest.raises(ValueError, match=r"prostate_0000_0002\.nii\.gz is a channel that dataset\.json .* names 2"):
        find_cases(tmp_path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"labels": {"background": 0, "a": 1, "ignore": 2}}, '"ignore"'),
        ({"labels": {"background": 0, "all": [1, 2], "core": 2}}, "regions"),
        ({"file_ending": ".png"}, r"\.png.*train_isbi\.py takes pictures"),
    ],
)
def test_what_is_not_read(tmp_path, fields, words):
    with pytest.raises(ValueError, match=words):
        find_cases(write_task(tmp_path, NEW | fields))


def test_a_description_without_cases(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps(NEW))
    with pytest.raises(ValueError, match="lists no cases, and there is nothing in imagesTr"):
        find_cases(tmp_path)
