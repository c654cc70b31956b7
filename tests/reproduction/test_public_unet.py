"""reproduction/public_unet.py: MONAI's network on the batches of a run, scored as the run was."""

import json
import sys

import numpy as np
import pytest

from reproduction import public_unet
from tinyseg.commands import train_brats
from tinyseg.data import Loader
from tinyseg.data.synthetic_brain import write_brains


def call(monkeypatch, main, *arguments):
    monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
    main()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of three steps on four small brains, and the batches that it was trained on."""
    brains = write_brains(tmp_path / "brains", num_cases=4, shape=(40, 36, 16))
    seen, epoch = [], Loader.epoch

    def note(loader, e, start=0):
        for batch in epoch(loader, e, start):
            seen.append([part.copy() for part in batch])
            yield batch

    monkeypatch.setattr(Loader, "epoch", note)
    options = "--data", brains, "--cache", tmp_path / "slices", "--size", 32, "--crop", 32, "--width", 2, "--epochs", 1
    options += "--steps-per-epoch", 3, "--batch-size", 2, "--val-cases", "SYNTHETIC_001", "--out", tmp_path / "run"
    call(monkeypatch, train_brats.main, *options, "--warmup", 0, "--device", "cpu")
    return tmp_path / "run", seen


@pytest.mark.slow
def test_it_sees_the_batches_of_the_run_and_scores_its_patient(run, tmp_path, monkeypatch):
    pytest.importorskip("monai")
    folder, seen = run
    first = list(seen)
    assert len(first) == 3
    seen.clear()
    common = folder, "--cache", tmp_path / "slices", "--out", tmp_path / "public.json"
    call(monkeypatch, public_unet.main, *common, "--min-component", 0.3)
    assert len(seen) == 3
    for ours, theirs in zip(first, seen, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    found = json.loads((tmp_path / "public.json").read_text())
    assert found["parameters"] > 1_900_000 and found["seconds_per_step"] > 0
    assert [p["name"] for p in found["of_min_component"]["0.3"]["patients"]] == ["SYNTHETIC_001"]
    assert found["of_min_component"].keys() == {"0", "0.3"}


def test_a_folder_that_is_no_run_on_brains_is_named(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"data": "isbi2012", "width": 64}')
    with pytest.raises(SystemExit, match="is not a run of tinyseg train-brats with --data and all classes: give one"):
        call(monkeypatch, public_unet.main, tmp_path)
