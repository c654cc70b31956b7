"""The commands in a process that looks like Windows, one after the other: what they write, they also replace."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
from PIL import Image
from scripts import ROOT, SMALL_BRATS, SMALL_ISBI

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="Linux is made to look like it")]
PROGRAM = [sys.executable, ROOT / "tests" / "like_windows.py"]


@pytest.fixture
def tinyseg(tmp_path):
    """Run a command in an empty folder; what it prints, errors included."""

    def run(*words, code=0, **environment):
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
        done = subprocess.run([*PROGRAM, *map(str, words)], capture_output=True, cwd=tmp_path, env=environment)
        said = (done.stdout + done.stderr).decode("cp1252")
        assert done.returncode == code and "Traceback" not in said, said
        return said

    return run


def temporary(folder):
    return [path.name for path in pathlib.Path(folder).rglob(".*")]


def test_train_resume_overwrite_predict_and_score(tinyseg, tmp_path):
    run, isbi = tmp_path / "run", ["train-isbi", *SMALL_ISBI, "--out", "run"]
    tinyseg(*isbi, "--epochs", 2)
    before = (run / "log.csv").read_text()
    assert "Continue it with --resume run" in tinyseg(*isbi, code=1)
    tinyseg("train-isbi", "--resume", "run")
    tinyseg(*isbi, "--epochs", 1, "--overwrite")
    assert len(before.splitlines()) == 3 and len((run / "log.csv").read_text().splitlines()) == 2
    sections = (np.random.default_rng(0).random((2, 40, 50)) * 250).astype(np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", sections, photometric="minisblack")
    Image.fromarray(sections[0]).save(tmp_path / "one.png")
    predict = ["predict", "--checkpoint", "run/best.safetensors", "stack.tif", "*.png", "--out", "masks"]
    tinyseg(*predict)
    written = sorted(path.name for path in (tmp_path / "masks").iterdir())
    assert written == ["one_mask.png", "predictions.json", "stack_mask.tif"]
    assert "wrote masks/stack_mask.tif" in tinyseg(*predict, "--force")
    tifffile.imwrite(tmp_path / "labels.tif", np.where(sections > 100, 255, 0).astype(np.uint8))
    for _ in range(2):
        tinyseg("evaluate", "--predictions", "masks/stack_mask.tif", "--labels", "labels.tif", "--out", "scores.json")
    assert not temporary(tmp_path)


def test_slices_are_prepared_mapped_and_taken_again(tinyseg, tmp_path):
    brats = ["train-brats", *SMALL_BRATS, "--epochs", 1, "--cache", "cache", "--out", "run"]
    tinyseg(*brats)
    next((tmp_path / "cache").glob("*.images.npy")).write_bytes(b"damaged")
    tinyseg(*brats, "--overwrite")
    assert not temporary(tmp_path)


def test_ctrl_c_stops_at_a_step_and_the_training_goes_on(tinyseg, tmp_path):
    words = "train-isbi", *SMALL_ISBI, "--epochs", 200, "--out", "run"
    environment, latest = os.environ | {"PYTHONPATH": str(ROOT)}, tmp_path / "run" / "checkpoint.safetensors"
    with subprocess.Popen(
        [*PROGRAM, *map(str, words)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as process:
        while not latest.is_file() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.stdout.read().decode("cp1252")
    assert process.returncode == 130 and "Go on with: tinyseg train-isbi --resume run" in said, said
    assert not temporary(tmp_path)


def test_what_windows_does_not_tell_is_no_error(tinyseg):
    assert "kernels" in tinyseg("info")


def test_the_imitation_notices_a_file_that_is_renamed_while_it_is_open(tinyseg):
    said = tinyseg("train-isbi", *SMALL_ISBI, "--epochs", 1, "--out", "run", code=1, TINYSEG_TEST_WINDOWS="0")
    assert "config.json could not be written: it is being used by another process" in said
