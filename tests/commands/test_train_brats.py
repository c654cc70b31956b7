"""examples/train_brats.py as a user meets it, and what predict.py makes of its checkpoints."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from brains import as_brats, change_dataset
from PIL import Image
from scripts import SMALL_BRATS, run_example

import tinyseg as ts
from tinyseg.commands import train_brats
from tinyseg.data.synthetic_brain import write_brains

pytestmark = pytest.mark.slow
SMALL = [*SMALL_BRATS, "--epochs", 1]


def train(*arguments, code=0):
    arguments = list(arguments)
    if "--val-cases" in arguments and "--shares" in arguments:  # one or the other
        k = arguments.index("--shares")
        del arguments[k : k + 2]
    return run_example("train_brats.py", *arguments, code=code)


@pytest.fixture
def common(brains, brats_run):
    """Options of further runs on the same brains: their slices are prepared already."""
    return [*SMALL, "--data", brains, "--cache", brats_run[0].parent / "slices"]


def test_a_run_says_what_it_does_and_leaves_its_files(brats_run):
    run, out = brats_run
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
    assert meta["postprocessing"] == {"min_component": 0.1} and config["min_component"] == 0.1
    with Image.open(run / "predictions.png") as picture:
        assert min(picture.size) > 200


def test_slices_of_a_size_that_the_network_does_not_take_are_trained_in_windows(common, tmp_path, no_pictures):
    """Slices of 36 x 40, of which SD-UNet, which takes multiples of 16, is given windows of 32 x 32."""
    run = tmp_path / "run"
    train(*common, "--size", 38, "--out", run, "--overwrite")
    assert json.loads((run / "config.json").read_text())["crop"] == 144
    assert ts.checkpoint.load(run / "best.safetensors").meta["preprocessing"]["size"] == 38
    _, err = train(*common, "--crop", 40, "--out", tmp_path / "other", code=1)
    assert "--crop 40 does not fit: sdunet takes multiples of 16, so give --crop 32 or 48." in err


def test_cases_held_out_by_name(common, tmp_path, no_pictures):
    held_out, run = "SYNTHETIC_001,SYNTHETIC_003", tmp_path / "run"
    _, err = train(*common, "--out", run, "--val-cases", "SYNTHETIC_001,PATIENT_7", code=1)
    assert "must name some of the cases" in err and "SYNTHETIC_000, SYNTHETIC_001" in err and not run.exists()
    for nobody in ("", " , "):
        _, err = train(*common, "--out", run, "--val-cases", nobody, code=1)
        assert "no name of one is given" in err and not run.exists()
    _, err = train(*common, "--out", run, "--val-cases", ",".join(f"SYNTHETIC_{k:03}" for k in range(4)), code=1)
    assert "none is left to train on" in err and not run.exists()
    out, _ = train(*common, "--out", run, "--val-cases", "SYNTHETIC_001, SYNTHETIC_003 ,SYNTHETIC_001")
    patients = json.loads((run / "config.json").read_text())["patients"]
    assert patients == {"train": ["SYNTHETIC_000", "SYNTHETIC_002"], "val": held_out.split(","), "test": []}
    assert "2 patients of the validation" in out and "small tumours" in out and " ± " in out


def test_an_interrupted_run_goes_on_to_the_same_weights(common, brats_run, tmp_path, no_pictures):
    """The run of two epochs, and one that was stopped after the first."""
    train(*common, "--schedule", "constant", "--out", tmp_path / "parts")
    cache = brats_run[0].parent / "slices"
    train("--resume", tmp_path / "parts", "--epochs", 2, "--cache", cache, "--workers", 1, "--device", "cpu")
    whole, parts = (ts.checkpoint.read(run / "checkpoint.safetensors")[0] for run in (brats_run[0], tmp_path / "parts"))
    assert whole.keys() == parts.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=name)


def test_a_run_does_not_go_on_with_other_data(common, brains, tmp_path, no_pictures):
    run, data = tmp_path / "run", shutil.copytree(brains, tmp_path / "data")
    cache = "--cache", tmp_path / "cache", "--workers", 0
    train(*SMALL, *cache, "--data", data, "--val-cases", "SYNTHETIC_003", "--out", run)
    images, labels = ([data / part / f"SYNTHETIC_{k:03}.nii.gz" for k in (0, 3)] for part in ("imagesTr", "labelsTr"))

    def refused(words, **fields):
        if fields:
            change_dataset(data, **fields)
        _, err = train("--resume", run, "--epochs", 2, *cache, code=1)
        assert "this is not the data" in err and words in err and "Traceback" not in err

    kept = labels[1].read_bytes()
    labels[1].write_bytes(labels[0].read_bytes())
    refused("begun with: labels for validation differ")
    labels[1].write_bytes(kept)
    image = nib.load(images[0])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1].copy(), image.affine), images[0])
    refused("begun with: images for training differ")
    shutil.copy(brains / "imagesTr" / images[0].name, images[0])
    refused("modalities differ", modality={"0": "T2w", "1": "T1gd", "2": "T1w", "3": "FLAIR"})
    shutil.copy(brains / "dataset.json", data / "dataset.json")
    (data / "tinyseg-slices").mkdir()  # of an earlier version: left alone
    train("--resume", run, "--epochs", 2, *cache)


def test_prepared_slices_go_to_the_users_cache_and_not_to_the_data(brains, tmp_path, monkeypatch, no_pictures):
    monkeypatch.setattr(train_brats, "default_folder", lambda: tmp_path / "cache" / "slices")
    before = sorted(brains.rglob("*"))
    train(*SMALL, "--data", brains, "--out", tmp_path / "run")
    assert sorted(brains.rglob("*")) == before and len(list((tmp_path / "cache/slices").glob("*.images.npy"))) == 4


def test_scans_of_one_patient_are_held_out_together(brains, tmp_path, no_pictures):
    folder = tmp_path / "brats"
    as_brats(brains, folder, naming=1)
    names = ["BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000", "BraTS-GLI-00003-000"]
    for old, new in zip(sorted(folder.iterdir()), names, strict=True):
        for path in old.iterdir():
            path.rename(old / path.name.replace(old.name, new))
        old.rename(folder / new)
    for given in ("BraTS-GLI-00001-001", "BraTS-GLI-00001"):
        run = tmp_path / given
        train(*SMALL, "--data", folder, "--cache", tmp_path / "cache", "--val-cases", given, "--out", run)
        patients = json.loads((run / "config.json").read_text())["patients"]
        assert patients == {"train": names[2:], "val": names[:2], "test": []}


def test_shares_without_validation_are_refused_at_the_start(common, tmp_path):
    _, err = train(*common, "--shares", "3:0:1", "--out", tmp_path / "run", code=1)
    assert "--shares 3:0:1 leaves no patient to train on, or none for validation" in err


def test_a_validation_case_that_lacks_a_file_is_named_with_the_reason(brains, tmp_path):
    folder = shutil.copytree(brains, tmp_path / "data")
    (folder / "labelsTr" / "SYNTHETIC_001.nii.gz").unlink()
    given = [*SMALL, "--data", folder, "--cache", tmp_path / "cache", "--out", tmp_path / "run"]
    _, err = train(*given, "--val-cases", "SYNTHETIC_001", code=1)
    assert "--val-cases names SYNTHETIC_001, which cannot be used" in err and "labelsTr" in err


def test_a_weight_too_few_is_refused_at_the_start(common, tmp_path):
    _, err = train(*common, "--class-weights", "1,1,1", "--out", tmp_path / "run", code=1)
    assert "--class-weights 1,1,1 do not fit" in err and "give 4 numbers" in err


def test_whole_tumour_mode_and_a_prediction_of_a_case(common, brains, tmp_path, no_pictures):
    run = tmp_path / "run"
    train(*common, "--out", run, "--mode", "whole", "--balanced")
    assert json.loads((run / "summary.json").read_text())["test"]["regions"].keys() == {"whole tumour"}
    case = brains / "imagesTr" / "SYNTHETIC_000.nii.gz"
    run_example("predict.py", "--checkpoint", run / "best.safetensors", case, "--out", tmp_path / "out")
    image, mask = nib.load(case), nib.load(tmp_path / "out" / "SYNTHETIC_000_mask.nii.gz")
    np.testing.assert_array_equal(mask.affine, image.affine)
    found = np.asarray(mask.dataobj)
    assert found.shape == image.shape[:3] and found.dtype == np.uint8 and set(np.unique(found)) <= {0, 1}
    assert not found[:4].any() and not found[-4:].any()  # cut off by the crop from 40 to 32


def test_without_data_it_says_that_the_brains_are_synthetic(tmp_path, monkeypatch, no_pictures):
    monkeypatch.setattr(train_brats, "write_brains", lambda path, **options: write_brains(path, 3, (40, 36, 16)))
    few = "--shares", "1:1:1", "--steps-per-epoch", 2, "--cache", tmp_path / "cache"
    out, _ = train(*SMALL, *few, "--out", tmp_path / "run")
    assert "SYNTHETIC" in out.splitlines()[0]


def test_bad_cases_stop_the_run_or_are_listed(tmp_path, no_pictures):
    data = write_brains(tmp_path / "data", num_cases=4, shape=(40, 36, 16))
    (data / "labelsTr" / "SYNTHETIC_002.nii.gz").write_bytes(b"")
    given = [*SMALL, "--steps-per-epoch", 2, "--shares", "1:1:1", "--data", data, "--cache", tmp_path / "cache"]
    _, err = train(*given, "--out", tmp_path / "run", code=1)
    assert "SYNTHETIC_002.nii.gz cannot be read" in err
    out, _ = train(*given, "--out", tmp_path / "run", "--skip-bad", "--overwrite")
    assert "left out SYNTHETIC_002" in out


def test_another_run_is_not_taken_up(isbi_run):
    _, err = train("--resume", isbi_run, code=2)
    assert "was not written by this script" in err


def test_other_classes_than_those_of_brain_tumours_are_scored_by_their_names(brains, tmp_path, no_pictures):
    folder = shutil.copytree(brains, tmp_path / "heart")
    change_dataset(folder, labels={"0": "background", "1": "atrium", "2": "ventricle", "3": "valve"})
    out, _ = train(*SMALL, "--data", folder, "--cache", tmp_path / "cache", "--out", tmp_path / "run")
    report = json.loads((tmp_path / "run" / "summary.json").read_text())["test"]
    assert list(report["regions"]) == ["whole tumour"] and list(report["classes"]) == ["atrium", "ventricle", "valve"]
    assert "tumour core" not in out
    meta = ts.checkpoint.load(tmp_path / "run" / "best.safetensors").meta
    assert meta["postprocessing"] == {"min_component": 0}  # what is small may be a lesion that is looked for
