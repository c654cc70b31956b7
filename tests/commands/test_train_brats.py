"""examples/train_brats.py as a user meets it, and what predict.py makes of its checkpoints."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from brains import change_dataset
from PIL import Image
from scripts import run_example

import tinyseg as ts
from tinyseg.data.synthetic_brain import write_brains

pytestmark = pytest.mark.slow
SMALL = [
    "--width", "4", "--size", "32", "--epochs", "2", "--steps-per-epoch", "6", "--batch-size", "2", "--workers", "1",
    "--device", "cpu", "--shares", "2:1:1",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_brains(tmp_path_factory.mktemp("data"), num_cases=4, shape=(40, 36, 16))


def train(capsys, *arguments, code=0):
    return run_example("train_brats.py", *arguments, capsys=capsys, code=code)


def test_a_run_says_what_it_does_and_leaves_its_files(data, tmp_path, capsys):
    run = tmp_path / "run"
    out, _ = train(capsys, *SMALL, "--data", data, "--cache", tmp_path / "cache", "--out", run)
    assert "2 patients to train on, 1 for validation, 1 for the test; FLAIR, T1w, T1gd, T2w" in out
    assert "whole tumour: " in out and "small tumours" not in out  # there is one patient
    assert {p.name for p in run.iterdir()} == {
        "config.json", "log.csv", "checkpoint.safetensors", "best.safetensors", "summary.json", "curves.png",
        "predictions.png",
    }  # fmt: skip
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 12 and set(summary["test"]["regions"]) == {"whole tumour", "tumour core", "enhancing"}
    assert summary["test"]["patients"][0]["name"] in {f"SYNTHETIC_{k:03}" for k in range(4)}
    config = json.loads((run / "config.json").read_text())
    everyone = sum(config["patients"].values(), [])
    assert sorted(everyone) == [f"SYNTHETIC_{k:03}" for k in range(4)]  # no patient on two sides
    columns = (run / "log.csv").read_text().splitlines()[0].split(",")
    assert {"val_dice", "val_whole_tumour", "val_edema", "val_enhancing", "val_small", "val_large"} <= set(columns)
    meta = ts.checkpoint.load(run / "best.safetensors").meta
    assert meta["classes"] == ["background", "edema", "non-enhancing tumour", "enhancing tumour"]
    assert meta["preprocessing"]["kind"] == "brain" and meta["preprocessing"]["size"] == 32
    with Image.open(run / "predictions.png") as picture:
        assert min(picture.size) > 200


def test_cases_held_out_by_name(data, tmp_path, capsys):
    held_out, run = "SYNTHETIC_001,SYNTHETIC_003", tmp_path / "run"
    common = [*SMALL, "--data", data, "--cache", tmp_path / "cache", "--out", run, "--epochs", "1"]
    _, err = train(capsys, *common, "--val-cases", "SYNTHETIC_001,PATIENT_7", code=1)
    assert "must name some of the cases" in err and "SYNTHETIC_000, SYNTHETIC_001" in err and not run.exists()
    out, _ = train(capsys, *common, "--val-cases", held_out)
    patients = json.loads((run / "config.json").read_text())["patients"]
    assert patients == {"train": ["SYNTHETIC_000", "SYNTHETIC_002"], "val": held_out.split(","), "test": []}
    assert "2 patients of the validation" in out and "small tumours" in out and " ± " in out


def test_an_interrupted_run_goes_on_to_the_same_weights(data, tmp_path, capsys):
    common = [*SMALL, "--data", data, "--cache", tmp_path / "cache", "--schedule", "constant"]
    train(capsys, *common, "--out", tmp_path / "whole")
    train(capsys, *common, "--out", tmp_path / "parts", "--epochs", "1")
    train(
        capsys, "--resume", tmp_path / "parts", "--epochs", "2", "--cache", tmp_path / "cache", "--workers", "1",
        "--device", "cpu",
    )  # fmt: skip
    whole, parts = (ts.checkpoint.read(tmp_path / run / "checkpoint.safetensors")[0] for run in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=name)


def test_whole_tumour_mode_and_a_prediction_of_a_case(data, tmp_path, capsys):
    run = tmp_path / "run"
    train(
        capsys, *SMALL, "--data", data, "--cache", tmp_path / "cache", "--out", run, "--mode", "whole", "--balanced",
        "--epochs", "1",
    )  # fmt: skip
    assert json.loads((run / "summary.json").read_text())["test"]["regions"].keys() == {"whole tumour"}
    case = data / "imagesTr" / "SYNTHETIC_000.nii.gz"
    run_example("predict.py", "--checkpoint", run / "best.safetensors", case, "--out", tmp_path / "out", capsys=capsys)
    image, mask = nib.load(case), nib.load(tmp_path / "out" / "SYNTHETIC_000_mask.nii.gz")
    np.testing.assert_array_equal(mask.affine, image.affine)
    found = np.asarray(mask.dataobj)
    assert found.shape == image.shape[:3] and found.dtype == np.uint8 and set(np.unique(found)) <= {0, 1}
    assert not found[:4].any() and not found[-4:].any()  # cut off by the crop from 40 to 32


def test_without_data_it_says_that_the_brains_are_synthetic(tmp_path, capsys, monkeypatch):
    from tinyseg.data import synthetic_brain

    monkeypatch.setattr(synthetic_brain.write_brains, "__defaults__", (4, (40, 36, 16), 0))
    out, _ = train(capsys, *SMALL, "--epochs", "1", "--cache", tmp_path / "cache", "--out", tmp_path / "run")
    assert "SYNTHETIC" in out.splitlines()[0]


def test_bad_cases_stop_the_run_or_are_listed(tmp_path, capsys):
    data = write_brains(tmp_path / "data", num_cases=4, shape=(40, 36, 16))
    (data / "labelsTr" / "SYNTHETIC_002.nii.gz").write_bytes(b"")
    common = [
        *SMALL,
        "--epochs",
        "1",
        "--shares",
        "1:1:1",
        "--data",
        data,
        "--cache",
        tmp_path / "cache",
        "--out",
        tmp_path / "run",
    ]
    _, err = train(capsys, *common, code=1)
    assert "SYNTHETIC_002.nii.gz cannot be read" in err
    out, _ = train(capsys, *common, "--skip-bad", "--overwrite")
    assert "left out SYNTHETIC_002" in out


def test_another_run_is_not_taken_up(data, tmp_path, capsys):
    run_example(
        "train_isbi.py", "--width", "4", "--size", "32", "--epochs", "1", "--workers", "1", "--out", tmp_path / "isbi",
        capsys=capsys,
    )  # fmt: skip
    _, err = train(capsys, "--resume", tmp_path / "isbi", code=2)
    assert "was not written by this script" in err


def test_other_classes_than_those_of_brain_tumours_are_scored_by_their_names(data, tmp_path, capsys):
    folder = tmp_path / "heart"
    shutil.copytree(data, folder)
    change_dataset(folder, labels={"0": "background", "1": "atrium", "2": "ventricle", "3": "valve"})
    out, _ = train(
        capsys, *SMALL, "--data", folder, "--cache", tmp_path / "cache", "--out", tmp_path / "run", "--epochs", "1"
    )
    report = json.loads((tmp_path / "run" / "summary.json").read_text())["test"]
    assert list(report["regions"]) == ["whole tumour"] and list(report["classes"]) == ["atrium", "ventricle", "valve"]
    assert "tumour core" not in out
