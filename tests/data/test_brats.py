"""Cases of brain tumours: found in any order, named with modalities and classes, and refused with a sentence."""

import gzip
import itertools
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tinyseg.data.brats import find_cases, read_case
from tinyseg.data.classes import DECATHLON
from tinyseg.data.split import patient_of, split

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
SHAPE = (9, 7, 5)
OLD_ENDINGS, NEW_ENDINGS = ("_flair", "_t1", "_t1ce", "_t2", "_seg"), ("-t2f", "-t1n", "-t1c", "-t2w", "-seg")


def voxels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 900, shape).astype(np.int16)


def nifti(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)


def label(seed=0):
    return np.random.default_rng(seed).choice(np.arange(4, dtype=np.uint8), SHAPE)


def brats_case(folder, name, endings, truth, seed=0, shapes=4 * (SHAPE,)):
    """A folder of a BraTS case: four modalities of these shapes, and labels."""
    for m, (ending, shape) in enumerate(zip(endings[:4], shapes, strict=True)):
        nifti(folder / name / f"{name}{ending}.nii.gz", voxels(*shape, seed=seed + m))
    nifti(folder / name / f"{name}{endings[4]}.nii.gz", truth)


@pytest.fixture
def decathlon(tmp_path):
    names = ["B_10", "B_2", "B_1"]
    for k, name in enumerate(names):
        nifti(tmp_path / "imagesTr" / f"{name}.nii.gz", voxels(*SHAPE, 2, seed=k))
        nifti(tmp_path / "labelsTr" / f"{name}.nii.gz", label(k))
        (tmp_path / "imagesTr" / f"._{name}.nii.gz").write_bytes(b"a Mac was here")
    listed = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names]
    listed.insert(1, {"image": "./imagesTr/._B_2.nii.gz", "label": "./labelsTr/._B_2.nii.gz"})
    about = {"modality": {"1": "T1gd", "0": "FLAIR"}, "training": listed}
    about["labels"] = {"0": "background", "2": "b", "1": "a", "3": "c"}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    return tmp_path


def change(folder, **fields):
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_the_decathlons_layout(decathlon):
    cases = find_cases(decathlon)
    assert [case.name for case in cases] == ["B_1", "B_2", "B_10"] and len(cases) == 3
    assert cases.modalities == ("FLAIR", "T1gd") and cases.classes == ("background", "a", "b", "c")
    volume, classes = read_case(cases.cases[1])
    np.testing.assert_array_equal(volume, np.moveaxis(voxels(*SHAPE, 2, seed=1), 3, 0))
    np.testing.assert_array_equal(classes, label(1))
    assert volume.dtype == np.int16 and classes.dtype == np.uint8


def test_newer_descriptions_name_channels_and_turn_labels_round(decathlon):
    change(
        decathlon, modality=None, channel_names={"0": "x", "1": "y"}, labels={"background": 0, "t": 1, "u": 2, "v": 3}
    )
    cases = find_cases(decathlon)
    assert cases.modalities == ("x", "y") and cases.classes == ("background", "t", "u", "v")


@pytest.mark.parametrize(("endings", "codes"), [(OLD_ENDINGS, (0, 2, 1, 4)), (NEW_ENDINGS, (0, 2, 1, 3))])
def test_brats_folders_get_the_decathlons_labels(tmp_path, endings, codes):
    for k, name in enumerate(("BraTS_2", "BraTS_10")):
        brats_case(tmp_path, name, endings, np.take(np.array(codes, np.uint8), label(k)), seed=10 * k)
    cases = find_cases(tmp_path)
    assert [case.name for case in cases] == ["BraTS_2", "BraTS_10"] and cases.classes == DECATHLON
    volume, classes = read_case(cases.cases[1])
    np.testing.assert_array_equal(volume[3], voxels(*SHAPE, seed=13))
    np.testing.assert_array_equal(classes, label(1))


def test_two_scans_of_one_patient_are_both_taken_and_stay_together(tmp_path):
    names = [f"BraTS-GLI-{patient:05}-{scan:03}" for patient in range(5) for scan in range(2)]
    for name in names:
        brats_case(tmp_path, name, NEW_ENDINGS, label())
    cases = find_cases(tmp_path)
    assert [case.name for case in cases] == names
    for seed in range(5):
        parts = split(names, (3, 1, 1), seed)
        assert [len(part) for part in parts] == [6, 2, 2] and sorted(sum(parts, [])) == names
        assert not any(a & b for a, b in itertools.combinations([set(map(patient_of, part)) for part in parts], 2))


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("sub-01_ses-2_T1w", "sub-01"), ("sub-01", "sub-01"), ("BraTS-MET-00012-001", "BraTS-MET-00012"),
        ("BRATS_001", "BRATS_001"), ("BraTS2021_00000", "BraTS2021_00000"),
    ],
)  # fmt: skip
def test_names_say_which_patient_it_is(name, patient):
    assert patient_of(name) == patient


def test_what_is_missing_is_named(tmp_path, decathlon):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        find_cases(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"dataset\.json.*There is: nothing"):
        find_cases(tmp_path / "empty")
    brats_case(tmp_path / "brats", "A", OLD_ENDINGS, label())
    (tmp_path / "brats" / "A" / "A_t1ce.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match="has no A_t1ce"):
        find_cases(tmp_path / "brats")
    (decathlon / "labelsTr" / "B_2.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"B_2\.nii\.gz, which is not there. There is: B_1\.nii\.gz"):
        find_cases(decathlon)


@pytest.mark.parametrize(
    "fields", [{"labels": {"0": "a", "2": "b"}}, {"modality": ["x"]}, {"training": "all"}, {"labels": None}]
)
def test_a_description_that_is_none(decathlon, fields):
    change(decathlon, **fields)
    with pytest.raises(ValueError, match=r"dataset\.json"):
        find_cases(decathlon)


def bad(folder, image=None, truth=None):
    """The first case with another image or label file."""
    if image is not None:
        nifti(folder / "imagesTr" / "B_1.nii.gz", image)
    if truth is not None:
        nifti(folder / "labelsTr" / "B_1.nii.gz", truth)
    return find_cases(folder).cases[0]


def test_what_cannot_be_used_is_named(decathlon):
    constant = voxels(*SHAPE, 2)
    constant[..., 1] = 7
    nan = voxels(*SHAPE, 2).astype(np.float32)
    nan[1, 2, 3, 0] = np.nan
    strange = label()
    strange[2, 3, 1] = 7
    for image, truth, words in (
        (constant, None, "modality 1 is 7 everywhere"), (nan, None, "modality 0 holds NaN"),
        (voxels(*SHAPE, 2), strange, r"labels \[7\]: expected only \[0, 1, 2, 3\]"),
        (voxels(9, 7, 6, 2), label(), "do not lie on one grid"), (voxels(9, 7), label(), "expected .X, Y, Z."),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"B_1.*{words}"):
            read_case(bad(decathlon, image, truth))


def test_modalities_on_different_grids(tmp_path):
    brats_case(tmp_path, "A", OLD_ENDINGS, label(), shapes=(SHAPE, SHAPE, (9, 7, 6), SHAPE))
    with pytest.raises(ValueError, match=r"A_t1ce\.nii\.gz and .*A_flair.*shape is \(9, 7, 6\)"):
        read_case(find_cases(tmp_path).cases[0])


def test_damaged_files_are_named(decathlon):
    path = decathlon / "imagesTr" / "B_1.nii.gz"
    content = path.read_bytes()
    for damage, words in (
        (content[: len(content) // 2], "cut short"), (b"<!DOCTYPE html><html>Not found</html>", "a web page"),
        (gzip.compress(b"hello"), "damaged"), (b"", "damaged"),
    ):  # fmt: skip
        path.write_bytes(damage)
        with pytest.raises(ValueError, match=rf"B_1\.nii\.gz cannot be read.*{words}"):
            read_case(find_cases(decathlon).cases[0])


def test_the_papers_split_and_every_patient_once():
    parts = split(range(484))
    assert [len(part) for part in parts] == [406, 32, 46]
    assert sorted(sum(parts, [])) == list(range(484))
    assert split(range(484)) == parts and split(range(484), seed=1) != parts
    assert [len(part) for part in split(range(6), (5, 0, 1))] == [5, 0, 1]
    assert [len(part) for part in split(range(6))] == [4, 1, 1]
    assert [len(part) for part in split(range(3))] == [1, 1, 1]
    for cases, shares in ((2, (1, 1, 1)), (5, (0, 0, 0)), (5, (1, -1, 1)), (5, (1, 1))):
        with pytest.raises(ValueError, match="cannot be split"):
            split(range(cases), shares)


@pytest.mark.skipif(not REAL.exists(), reason="the real data are not here")
@pytest.mark.parametrize(("folder", "cases", "modalities"), [("msd_brain_4ch", 2, 4), ("brats2015_2ch", 6, 2)])
def test_the_real_cases(folder, cases, modalities):
    found = find_cases(REAL / folder)
    assert len(found) == cases and len(found.modalities) == modalities and len(found.classes) == 4
    volume, classes = read_case(found.cases[0])
    assert volume.shape == (modalities, *classes.shape) and classes.shape[:2] == (240, 240)
    assert volume.dtype == np.int16 and set(np.unique(classes)) == {0, 1, 2, 3}
