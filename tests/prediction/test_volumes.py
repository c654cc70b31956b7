"""Which patients are scored, and which slices of them are drawn."""

import nibabel as nib
import numpy as np
import pytest

from tinyseg.data.brats import Case, Cases
from tinyseg.prediction.volumes import draw_slices, held_out, most_tumour, select_cases
from tinyseg.report import plots

CASES = Cases((), (), tuple(Case(name, (), None, ()) for name in "ABCDE"))


@pytest.mark.parametrize(
    ("train", "val", "test", "names", "words"),
    [
        ("AB", "C", "DE", "DE", "of the test, not trained on"), ("ABC", "DE", "", "DE", "of the validation"),
        ("ABC", "D", "XEY", "E", "2 more of them are not here"), ("AB", "X", "Y", "CDE", "those not trained on"),
        ("ABCDE", "X", "", "ABCDE", "no others than those trained on"),
    ],
)  # fmt: skip
def test_patients_that_were_not_trained_on(train, val, test, names, words):
    found, what = held_out(CASES, {"train": list(train), "val": list(val), "test": list(test)})
    assert found == list(names) and words in what


def test_without_knowing_the_training_all_are_taken():
    found, what = held_out(CASES, {})
    assert found == list("ABCDE") and "does not say" in what


def test_cases_by_name():
    assert [case.name for case in select_cases(CASES, ["D", "A"], "folder")] == ["D", "A"]
    assert len(select_cases(CASES, None, "folder")) == 5
    with pytest.raises(ValueError, match="folder has no case X, Y. There is: A, B, C, D, E"):
        select_cases(CASES, ["A", "X", "Y"], "folder")


def test_names_of_cases_with_blanks_doubles_and_patients():
    assert [case.name for case in select_cases(CASES, [" D", "A ", "D"], "folder")] == ["D", "A"]
    with pytest.raises(ValueError, match="no name of one is given. There is: A, B"):
        select_cases(CASES, ["", " "], "folder")
    scans = [Case(f"BraTS-GLI-0000{p}-00{k}", (), None, ()) for p in (1, 2) for k in (0, 1)]
    assert select_cases(Cases((), (), tuple(scans)), ["BraTS-GLI-00002"], "folder") == scans[2:]


def test_a_later_scan_of_a_patient_of_the_training_is_not_held_out():
    scans = [Case(f"BraTS-GLI-0000{p}-00{k}", (), None, ()) for p in (1, 2) for k in (0, 1)]
    patients = {"train": [scans[0].name], "val": [], "test": []}
    names, _ = held_out(Cases((), (), tuple(scans)), patients)
    assert names == [case.name for case in scans[2:]]


def test_the_slice_with_most_tumour():
    truth, predicted = np.zeros((2, 4, 3, 5), np.uint8)
    predicted[:3, :, 1] = 2
    assert most_tumour(predicted, truth)[0] == 1  # there is none, but it was found
    truth[0, 0, 3] = truth[0, 1, 3] = truth[2, 2, 4] = 1
    z, p, t = most_tumour(predicted, truth)
    assert z == 3
    np.testing.assert_array_equal(p, predicted[:, :, 3])
    np.testing.assert_array_equal(t, truth[:, :, 3])


def test_slices_of_all_sizes_are_drawn_on_one_sheet(tmp_path, monkeypatch):
    volume = np.random.default_rng(0).integers(1, 900, (5, 7, 4, 2)).astype(np.int16)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii.gz")
    truth, drawn = np.ones((5, 7), np.uint8), {}
    shown = [
        (Case("A", (tmp_path / "a.nii.gz",), None, ()), (2, 3 * truth, 2 * truth), 0.25),
        (Case("B", (tmp_path / "a.nii.gz",), None, ()), (0, np.ones((5, 7), np.uint8), truth), 0.5),
    ]

    def note(images, labels, predictions, captions, path, modalities, classes):
        drawn.update(locals())

    monkeypatch.setattr(plots, "tumours", note)
    shown[1][1][1][0] = 0
    draw_slices(shown, "p.png", ("a", "b"), ["0", "1", "2", "3"])
    np.testing.assert_array_equal(drawn["images"], np.moveaxis(volume, (2, 3), (0, 1))[[2, 0]])
    assert drawn["labels"][0, 0, 0] == 2 and drawn["predictions"][0, 0, 0] == 3 and drawn["predictions"][1, 0, 0] == 0
    assert drawn["captions"] == ["A\nDice 0.250, slice 2", "B\nDice 0.500, slice 0"]
    bare = [
        (Case("A", (), None, ()), (2, 3 * truth, 2 * truth), 0.5),
        (Case("B", (), None, ()), (0, np.ones((6, 3), np.uint8), np.ones((6, 3), np.uint8)), 0.5),
    ]
    draw_slices(bare, "p.png", (), ["whole tumour"])  # tumour or not, without images
    assert drawn["images"].shape == (2, 1, 6, 7) and not drawn["images"].any()
    assert drawn["labels"].sum() == 35 + 18 and drawn["predictions"].max() == 1


def test_the_picture_itself(tmp_path):
    truth = np.zeros((20, 24), np.uint8)
    truth[5:9, 6:12] = 1
    draw_slices([(Case("A", (), None, ()), (2, truth, truth), 1.0)], tmp_path / "p.png", (), ["whole tumour"])
    assert (tmp_path / "p.png").stat().st_size > 3000
