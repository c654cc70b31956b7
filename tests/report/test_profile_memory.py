"""Memory: the parts that are arithmetic, and what a process measures of networks whose need is known."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import tinyseg as ts
from tinyseg import nn, ops
from tinyseg.report import profile
from tinyseg.report.profile import footprint


@pytest.fixture
def answers(monkeypatch):
    """A list of what processes print in turn, without starting any."""
    printed = []

    def run(command, **options):
        return subprocess.CompletedProcess(command, 0, printed.pop(0), b"")

    monkeypatch.setattr(subprocess, "run", run)
    return printed


def answer(size, compiled=0):
    return json.dumps({"bytes": size, "compiled": compiled}).encode()


def chain():
    return nn.Sequential(nn.PointwiseConv2d(1, 2), nn.PointwiseConv2d(2, 5), nn.PointwiseConv2d(5, 3), nn.ReLU())


@pytest.mark.parametrize("training", [False, True])
def test_weights_gradients_moments_and_input_are_counted(answers, training):
    answers.append(answer(10**6))
    found = profile.memory(chain(), (1, 1, 12, 16), training=training, loss=ops.sum)
    weights = 4 * (2 + 2 + 10 + 5 + 15 + 3)
    assert (found.weights, found.input) == (weights, 4 * 12 * 16)
    assert (found.gradients, found.moments) == ((weights, 2 * weights) if training else (0, 0))


def test_frozen_parameters_have_no_gradients(answers):
    answers.append(answer(1))
    model = chain()
    for p in model.layers[0].parameters():
        p.requires_grad = False
    found = profile.memory(model, (1, 1, 12, 16), training=True)
    assert found.weights - found.gradients == 4 * (2 + 2) and found.moments == 2 * found.gradients


def test_buffers_are_weights(answers):
    answers.append(answer(1))
    assert profile.memory(nn.BatchNorm2d(8), (2, 8, 3, 4)).weights == 4 * 4 * 8


def test_the_report_says_what_was_measured(answers):
    answers.append(answer(12_345_678))
    found = profile.memory(nn.PointwiseConv2d(500, 1000), (1, 500, 1, 2), training=True)
    assert str(found).splitlines() == [
        "Memory of a training step, input 1 x 500 x 1 x 2, cpu, in MB",
        "  weights                    2.0",
        "  gradients                  2.0",
        "  moments                    4.0",
        "  input                      0.0",
        "measured peak, in all       12.3",
    ]
    again = json.loads(json.dumps(found.as_dict()))
    assert again["measured"] == 12_345_678 and again["moments"] == found.moments and again["note"] == ""


def test_a_wrong_shape_or_loss_gets_a_sentence_before_anything_is_measured(answers):
    model = ts.models.build("unet", width=2)
    with pytest.raises(ValueError, match="multiples of 16"):
        profile.memory(model, (1, 1, 30, 32))

    class Two(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(TypeError, match="returns a tuple .* pass loss="):
        profile.memory(Two(), (1, 1, 4, 4), training=True)


# ----- measured ----------------------------------------------------------------------------
def test_a_model_that_another_process_cannot_know_is_not_measured(answers):
    class Local(nn.Module):
        def forward(self, x):
            return ops.relu(x)

    found = profile.memory(Local(), (1, 1, 4, 4))
    assert found.measured is None and found.note.startswith("not measured: the model cannot be sent")
    assert str(found).endswith(found.note)


def test_a_process_that_fails_is_reported_and_not_an_error(monkeypatch):
    monkeypatch.setattr(footprint, "COMMAND", [sys.executable, "-c", "raise MemoryError('all gone')"])
    found = profile.memory(nn.ReLU(), (1, 1, 4, 4))
    assert (
        found.measured is None and found.note == "not measured: the process ended with status 1 (MemoryError: all gone)"
    )
    monkeypatch.setattr(footprint, "COMMAND", [sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(footprint, "TIMEOUT", 0.2)
    assert profile.memory(nn.ReLU(), (1, 1, 4, 4)).note == "not measured: the process took more than 0.2 seconds"


def test_on_windows_where_python_cannot_ask_for_the_memory_of_a_process(answers, monkeypatch):
    def read_text(path, **how):
        raise FileNotFoundError(path)

    monkeypatch.setitem(sys.modules, "resource", None)  # an import of it fails
    monkeypatch.setattr(pathlib.Path, "read_text", read_text)
    assert footprint._bytes_held("cpu") is None and footprint._bytes_held("cpu", peak=True) is None
    answers.append(answer(None))
    found = profile.memory(nn.ReLU(), (1, 1, 4, 4))
    assert found.measured is None and found.note.startswith("not measured: on this system Python cannot ask")


def test_a_process_that_had_to_compile_is_asked_again(answers):
    answers += [answer(900, compiled=3), b"noise\n" + answer(500), answer(7)]
    assert profile.memory(nn.ReLU(), (1, 1, 4, 4)).measured == 500
    assert profile.memory(nn.ReLU(), (1, 1, 4, 4)).measured == 7 and not answers


on_posix = pytest.mark.skipif(sys.platform == "win32", reason="resident memory is read from /proc or getrusage")


@pytest.mark.slow
@on_posix
def test_inference_of_a_relu_is_measured_as_its_input_and_its_output():
    found = profile.memory(nn.ReLU(), (1, 16, 512, 1024))
    assert found.note == "" and found.measured == pytest.approx(2 * found.input, rel=0.1)


@pytest.mark.slow
@on_posix
def test_a_training_step_is_measured_with_gradients_and_moments_and_leaves_the_model_alone():
    """A layer whose weights are nearly all: 67 MB with gradients and moments, and some for the kernels to work on."""
    model = nn.PointwiseConv2d(2048, 2048)
    before = {name: a.copy() for name, a in model.state_dict().items()}
    found = profile.memory(model, (1, 2048, 2, 3), training=True, loss=ops.sum)
    known = found.weights + found.gradients + found.moments
    assert found.note == "" and 0.97 * known < found.measured < 1.75 * known
    assert all(np.array_equal(a, before[name]) for name, a in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
