"""tinyseg warm, and the rehearsal by which a command learns which kernels it will need."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scripts import SMALL_ISBI, run_command

import tinyseg as ts
from tinyseg.commands import warm

pytest.importorskip("numba")


@pytest.fixture
def command(tmp_path):
    """Run a command in a process of its own, with kernels that are kept in a folder of this test."""

    def run(*words):
        env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
        # The kernels beside the package are read too: here they are not there.
        code = (
            "import pathlib, sys; from tinyseg.fast.cpu import kernel_cache\n"
            "kernel_cache.BESIDE = pathlib.Path('nowhere')\n"
            "from tinyseg.commands.main import main; main()"
        )
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, words)], cwd=tmp_path, env=env, capture_output=True, text=True,
            check=True,
        )  # fmt: skip

    run.files = lambda: sorted(path.name for path in (tmp_path / "kernels").rglob("*.nbc"))
    return run


@pytest.mark.slow
def test_after_warm_no_command_compiles(command):
    first = command("warm", "--model", "sdunet")
    assert re.match(r"\d+ kernels compiled in \d+ s\. They are kept in ", first.stdout)
    assert "compiling kernels, once" in first.stderr
    files = command.files()
    small = ["--width", 16, "--size", 256, "--device", "cpu", "--epochs", 1]
    command("demo", *small, "--out", "run")
    done = command("predict", "--checkpoint", "run/best.safetensors", "run/section.png", "--device", "cpu")
    assert "compiling" not in done.stderr and "wrote predictions/section_mask.png" in done.stdout
    command("train-brats", *small, "--size", 64, "--steps-per-epoch", 2, "--out", "brains")
    assert command.files() == files
    assert command("warm", "--model", "sdunet").stdout.startswith("All ")


@pytest.mark.slow
def test_a_first_prediction_shows_that_it_compiles_and_finds_the_same(command, tmp_path):
    model = ts.models.build("sdunet", width=4)
    ts.checkpoint.save(tmp_path / "a", model, preprocessing={"scale": [1, 1], "standardize": "section"})
    image = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "x.png")
    words = "predict", "--checkpoint", "a", "x.png", "--probabilities", "--device", "cpu", "--force"
    found = []
    for compiles in (True, False):
        assert ("compiling kernels, once" in command(*words).stderr) == compiles
        found.append((tmp_path / "predictions" / "x_probability.png").read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ts.models.MODELS)
def test_a_rehearsal_changes_nothing(name):
    model = ts.models.build(name, width=4)
    before = {key: array.copy() for key, array in model.state_dict().items()}
    model.train()
    training = warm.rehearse_training(model, ts.ops.binary_cross_entropy_with_logits, 2, 32)
    prediction = warm.rehearse_prediction(model)
    assert all(np.array_equal(before[key], array) for key, array in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(kernel.py_func.__module__.startswith("tinyseg.fast.cpu.") for kernel, _ in training + prediction)


def test_a_network_that_cannot_be_rehearsed_is_none_of_its_concerns():
    class Broken(ts.nn.Module):
        in_channels = num_classes = multiple = 1

        def forward(self, x):
            raise RuntimeError("a fault that the training will show")

    assert warm.rehearse_prediction(Broken()) == []


def test_nothing_is_compiled_ahead_for_a_gpu_or_numpy(monkeypatch):
    monkeypatch.setattr(warm, "compile_missing", lambda *_: pytest.fail("compiled"))
    warm.compile_for(lambda: pytest.fail("rehearsed"), "gpu")
    with ts.using(kernels="reference"):
        warm.compile_for(lambda: pytest.fail("rehearsed"), "cpu")
        assert run_command("warm")[0].startswith("Nothing to compile: ")


def test_training_and_prediction_ask_for_their_kernels(tmp_path, monkeypatch, no_pictures):
    asked = []
    monkeypatch.setattr("tinyseg.commands.options.compile_for", lambda calls, device: asked.append(device))
    run_command("train-isbi", *SMALL_ISBI, "--epochs", 1, "--out", tmp_path / "run")
    assert asked == ["cpu"]
    asked.clear()
    image = tmp_path / "x.png"
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(image)
    run_command("predict", "--checkpoint", tmp_path / "run" / "best.safetensors", image, "--out", tmp_path / "p")
    assert asked == ["cpu"]
