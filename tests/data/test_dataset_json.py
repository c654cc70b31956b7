"""dataset.json as other programs and other people write it: read, or refused with a sentence that names the file."""

import json

import nibabel as nib
import numpy as np
import pytest

from tinyseg.data.brats import find_cases, read_case
from tinyseg.data.dataset_json import describe, describe_test
from tinyseg.data.scans import find_scans

SHAPE = (9, 7, 5)
GOOD = {
    "modality": {"0": "FLAIR", "1": "T1gd"}, "labels": {"0": "background", "1": "a", "2": "b"},
    "training": [{"image": f"./imagesTr/C_{k}.nii.gz", "label": f"./labelsTr/C_{k}.nii.gz"} for k in range(2)],
}  # fmt: skip


def write(folder, encoding="utf-8", **fields):
    about = {key: value for key, value in (GOOD | fields).items() if value is not ...}
    (folder / "dataset.json").write_text(json.dumps(about), encoding=encoding)
    return folder


def nifti(path, *shape, high=900):
    path.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(abs(hash(path.name)) % 1000)
    nib.save(nib.Nifti1Image(rng.integers(0, high, shape).astype(np.int16), np.eye(4)), path)


@pytest.fixture
def folder(tmp_path):
    for k in range(2):
        nifti(tmp_path / "imagesTr" / f"C_{k}.nii.gz", *SHAPE, 2)
        nifti(tmp_path / "labelsTr" / f"C_{k}.nii.gz", *SHAPE, high=3)
    return tmp_path


def test_monais_lists_with_a_file_a_modality(folder):
    listed = []
    for k in range(2):
        for m in range(2):
            nifti(folder / "imagesTr" / f"C_{k}_{m}.nii.gz", *SHAPE)
        files = [f"imagesTr/C_{k}_{m}.nii.gz" for m in range(2)]
        listed.append({"image": files, "label": [f"labelsTr/C_{k}.nii.gz"]})
    cases = find_cases(write(folder, training=listed))
    assert [case.name for case in cases] == ["C_0", "C_1"]
    assert read_case(cases.cases[1])[0].shape == (2, *SHAPE)


def test_lists_of_brats_files_in_a_folder_a_case(folder):
    """The scans of a patient stay together, and predict.py takes each case as one volume."""
    names, listed = ["BraTS-GLI-00001-000", "BraTS-GLI-00001-001"], []
    for name in names:
        files = [f"{name}/{name}-{ending}.nii.gz" for ending in ("t2f", "t1n", "seg")]
        for file in files:
            nifti(folder / file, *SHAPE, high=3)
        listed.append({"image": files[:2], "label": files[2]})
    cases = find_cases(write(folder, training=listed))
    assert [(case.name, case.patient) for case in cases] == [(name, "BraTS-GLI-00001") for name in names]
    scans = find_scans(folder, cases.modalities[::-1])
    assert [(scan.name, scan.files[0].name) for scan in scans] == [(f"{n}.nii.gz", f"{n}-t1n.nii.gz") for n in names]


def test_files_of_one_name_in_a_folder_a_case_are_named_by_the_folder(folder):
    listed = []
    for name in ("A", "B"):
        nifti(folder / name / "image.nii.gz", *SHAPE, 2)
        nifti(folder / name / "label.nii.gz", *SHAPE, high=3)
        listed.append({"image": f"{name}/image.nii.gz", "label": f"{name}/label.nii.gz"})
    assert [case.name for case in find_cases(write(folder, training=listed))] == ["A", "B"]


def test_a_label_described_twice_is_refused(folder):
    text = json.dumps(GOOD).replace('"labels": {', '"labels": {"1": "other", ')
    (folder / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match='dataset.json has "1" twice in one place'):
        describe(folder)


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "a": 1, "b": 2}, {"background": "0", "b": "2", "a": "1"},
        {"2": "b", "0": "background", "1": "a"},
    ],
)  # fmt: skip
def test_labels_by_number_or_by_name(folder, labels):
    write(folder, encoding="utf-8-sig", labels=labels, modality=..., channel_names={"1": "y", "0": "x"})
    assert describe(folder)[:2] == (("x", "y"), ("background", "a", "b"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"labels": {"background": 0, "whole": [1, 2], "core": [2]}}, "regions are not read"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "several classes the number 1"),
        ({"labels": {"0": "background", "2": "a"}}, "expected 0, 1, 2"),
        ({"labels": {"0": "background", "1": None}}, "found null"),
        ({"labels": {"background": 0, "a": 1.5}}, "expected"),
        ({"labels": {"background": 0, "a": -1}}, "expected 0, 1"),
        ({"labels": {"0": "background", "1" * 5000: "a"}}, "numbers its labels"),
        ({"labels": ["background", "a"]}, "expected object"), ({"labels": ...}, "labels"),
        ({"labels": {}}, "0 classes"), ({"labels": {"0": "background", "1": "tumour", "2": "Tumor"}}, "one name"),
        ({"labels": {"0": "background", "1": " "}}, "printable"), ({"labels": {"0": "bg", "1": "a\nb"}}, "printable"),
        ({"labels": {"0": "bg", "1": "accuracy"}}, "something else of this name"),
        ({"labels": {"0": "bg", "1": "a b", "2": "a-b"}}, "one name"),
        ({"labels": {"0": "bg", "1": "Whole Tumor", "2": "b"}}, "something else of this name"),
        ({"modality": {"0": "T1", "2": "T2"}}, "numbers its modalities"), ({"modality": {}}, "no modalities"),
        ({"modality": {"0": "T1", "1": "t1"}}, "a name of its own"), ({"modality": {"0": None}}, "found null"),
        ({"modality": {"a": "T1"}}, "numbers its modalities"), ({"training": {"a": 1}}, "expected array"),
        ({"training": [{"image": None, "label": "x"}]}, "found null"), ({"training": [{"image": "x"}]}, "label"),
        ({"training": [{"image": ["x", "y", "z"], "label": "l"}]}, "expected one image, or one for each"),
        ({"training": [{"image": [], "label": "l"}]}, "expected one image"),
        ({"training": [{"image": "x", "label": ["l", "m"]}]}, "one label file"),
        ({"training": 2 * GOOD["training"][:1]}, "two cases named C_0"),
        ({"training": [GOOD["training"][0], GOOD["training"][1] | {"label": "labelsTr/../labelsTr/C_0.nii.gz"}]},
         "twice"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_the_name_of_the_file(folder, fields, words):
    with pytest.raises(ValueError, match=words) as error:
        find_cases(write(folder, **fields))
    assert str(folder) in str(error.value)


def test_the_same_case_under_two_endings_or_in_two_spellings(folder):
    first = GOOD["training"][0]
    for name, words in (("C_0.nii", "two cases named C_0"), ("c_0.nii.gz", "two cases named c_0")):
        nifti(folder / "imagesTr" / name, *SHAPE, 2)
        with pytest.raises(ValueError, match=words):
            find_cases(write(folder, training=[first, {"image": f"imagesTr/{name}", "label": "labelsTr/C_1.nii.gz"}]))


def test_paths_are_absolute_or_come_from_windows(folder):
    listed = [
        {"image": str(folder / "imagesTr" / "C_0.nii.gz"), "label": r".\labelsTr\C_0.nii.gz"},
        {"image": "imagesTr/../imagesTr/C_1.nii.gz", "label": "labelsTr/C_1.nii.gz"},
    ]
    assert [case.name for case in find_cases(write(folder, training=listed))] == ["C_0", "C_1"]


def test_cases_that_lack_a_file_are_left_out_if_asked_for(folder):
    (folder / "labelsTr" / "C_0.nii.gz").unlink()
    cases = find_cases(write(folder), skip_bad=True)
    assert [case.name for case in cases] == ["C_1"] and "C_0.nii.gz, which is not there" in cases.skipped["C_0"]
    (folder / "labelsTr" / "C_1.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match="no case in"):
        find_cases(write(folder), skip_bad=True)


def test_test_images_as_paths_or_as_dicts(folder):
    write(folder, test=["imagesTs/a.nii.gz", {"image": "imagesTs/b.nii.gz"}, {"image": ["imagesTs/c.nii.gz"]}])
    assert [path.name for path in describe_test(folder)] == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    with pytest.raises(ValueError, match="found null"):
        describe_test(write(folder, test=[None]))


def test_a_class_that_is_the_whole_tumour_may_be_called_so(folder):
    cases = find_cases(write(folder, labels={"0": "background", "1": "whole tumour"}))
    assert cases.classes == ("background", "whole tumour")


@pytest.mark.parametrize(
    "name", ["../other/a.nii.gz", "/etc/passwd", "imagesTr/../../a.nii.gz", "..\\a.nii.gz", "a\0b"]
)
def test_a_list_does_not_lead_out_of_its_folder(folder, name):
    for part in ("image", "label"):
        with pytest.raises(ValueError, match=r"dataset\.json lists .*, which is not in its folder"):
            find_cases(write(folder, training=[GOOD["training"][0] | {part: name}]))
    with pytest.raises(ValueError, match="not in its folder"):
        describe_test(write(folder, test=[name]))
    (folder / "imagesTr" / "C_0.nii.gz").rename(folder.parent / "elsewhere.nii.gz")
    (folder / "imagesTr" / "C_0.nii.gz").symlink_to(folder.parent / "elsewhere.nii.gz")
    assert len(find_cases(write(folder))) == 2  # a link was made on this computer


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"labels": {f"c{k}": k for k in range(60_000)}}, "60000 classes"),
        ({"modality": {str(k): f"m{k}" for k in range(60_000)}}, "expected one image, or one for each of 60000"),
    ],
)
def test_tens_of_thousands_of_names_are_refused_soon(folder, fields, words):
    listed = [{"image": ["imagesTr/C_0.nii.gz"] * 2, "label": "labelsTr/C_0.nii.gz"}]
    with pytest.raises(ValueError, match=words):
        find_cases(write(folder, training=listed if "modality" in fields else GOOD["training"], **fields))
