"""--device, --gpu-memory, --tf32, --cuda-graph, --amp and --resume: what the commands make of them."""

import argparse

import fake_cupy
import pytest
from scripts import run_example

from tinyseg import backend, models, ops, optim
from tinyseg.backend import devices, dispatch
from tinyseg.commands.options import add_device_options, choose_device, make_step, settle
from tinyseg.fast.gpu.mixed_precision import MixedPrecisionStep
from tinyseg.models import checkpoint
from tinyseg.training import Step


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(devices, "cp", fake_cupy)
    monkeypatch.setenv("CUPY_TF32", "0")
    yield
    fake_cupy.get_default_memory_pool().set_limit(size=0)


def options(*given):
    parser = argparse.ArgumentParser()
    add_device_options(parser)
    return parser.parse_args(given)


def test_defaults_leave_the_gpu_as_it_is(gpu):
    assert vars(options()) == dict.fromkeys(["device", "gpu_memory", "tf32", "cuda_graph"])  # `settle` needs None
    assert choose_device(options()) == "gpu"
    assert fake_cupy.get_default_memory_pool().get_limit() == 0
    assert backend.kernels_in_use("gpu") == "CuPy + CUDA"


def test_a_limit_and_tf32(gpu):
    assert choose_device(options("--device", "gpu", "--gpu-memory", "1.5", "--tf32")) == "gpu"
    assert fake_cupy.get_default_memory_pool().get_limit() == 3 * 2**29
    assert backend.kernels_in_use("gpu") == "CuPy + CUDA, TF32"


@pytest.mark.parametrize("limit", ["0", "-1", "nan"])
def test_a_limit_is_positive(limit, gpu):
    with pytest.raises(ValueError, match="memory limit is in GiB and must be positive, but is "):
        choose_device(options("--gpu-memory", limit))


@pytest.mark.parametrize("given", [["--tf32"], ["--gpu-memory", "4"], ["--cuda-graph"]])
def test_options_of_the_gpu_are_refused_on_the_cpu(given, monkeypatch):
    monkeypatch.setattr(devices, "cp", None)
    for device in ("cpu", "auto"):
        with pytest.raises(ValueError, match=f"{given[0]} is for a GPU, and this runs on the CPU"):
            choose_device(options("--device", device, *given))
    with pytest.raises(RuntimeError, match="CuPy is not installed"):
        choose_device(options("--device", "gpu", *given))


# ----- the training step -----------------------------------------------------------
def training_options(**given):
    return argparse.Namespace(**({"clip": 1.0, "amp": False, "cuda_graph": False} | given))


def test_the_step_is_the_one_that_is_asked_for():
    model = models.build("sdunet", width=4, levels=2)
    optimizer = optim.Adam(model.parameters())
    for given, kind in (({}, Step), ({"amp": True}, MixedPrecisionStep)):
        step = make_step(training_options(**given), model, optimizer, ops.soft_dice_loss)
        assert type(step) is kind and step.model is model and step.optimizer is optimizer and step.clip == 1
        assert step.loss is ops.soft_dice_loss
    assert make_step(training_options(clip=0), model, optimizer, ops.soft_dice_loss).clip == float("inf")


def test_a_graph_and_mixed_precision_are_not_had_together():
    with pytest.raises(ValueError, match="A CUDA graph and mixed precision cannot be had together, since which steps"):
        make_step(training_options(amp=True, cuda_graph=True), None, None, None)


@pytest.mark.parametrize("option", ["amp", "cuda_graph"])
def test_without_the_fast_folder_what_needs_it_is_refused(option, monkeypatch):
    monkeypatch.setattr(dispatch, "fast", lambda name: None)
    with pytest.raises(ValueError, match=f"--{option.replace('_', '-')} needs the folder tinyseg/fast"):
        make_step(training_options(**{option: True}), None, None, None)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train_isbi.py", "train_brats.py"])
def test_mixed_precision_works_on_the_cpu_and_is_said_to_be_slow(script, brains, tmp_path, no_pictures):
    few = ["--width", 4, "--size", 32, "--epochs", 1, "--workers", 1, "--device", "cpu", "--out", tmp_path / "run"]
    if script == "train_brats.py":
        few += ["--steps-per-epoch", 2, "--batch-size", 2, "--shares", "2:1:1"]
        few += ["--data", brains, "--cache", tmp_path / "slices"]
    out, _ = run_example(script, *few, "--amp")
    assert ", mixed precision (slower than float32 here: only useful on a GPU)" in out
    arrays, meta = checkpoint.read(tmp_path / "run" / "checkpoint.safetensors")
    assert meta["config"]["amp"] is True and meta["training"]["scaler"]["factor"] <= 2.0**16
    assert "loss_scale" in meta["training"]["state"]["history"][0]
    _, err = run_example(script, "--resume", tmp_path / "run", "--amp", "--lr", 1, code=2)
    assert "leave out lr" in err and "amp" not in err.split("leave out")[1]


# ----- resuming --------------------------------------------------------------------
def test_a_run_with_other_options_is_not_taken_up(tmp_path, monkeypatch, capsys):
    model = models.build("sdunet", width=4, levels=2)
    config = {"data": None, "epochs": 3, "schedule": "cosine", "model": "sdunet", "lr": 0.1}
    checkpoint.save(tmp_path / "checkpoint.safetensors", model, training={}, config=config)
    parser = argparse.ArgumentParser()
    for name in ("data", "epochs", "resume", "out", "overwrite", "protocol", "download"):
        parser.add_argument(f"--{name}")
    monkeypatch.setattr("sys.argv", ["script", "--resume", str(tmp_path)])
    assert settle(parser, config | {"lr": 0.3}, {}, {}).lr == 0.1  # the run's, not the default
    with pytest.raises(SystemExit):
        settle(parser, config | {"another": 1}, {}, {})
    assert "was not written by this script" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["train_isbi.py", "train_brats.py", "reproduce_tables.py"])
def test_the_training_scripts_refuse_them_too(script, tmp_path):
    _, err = run_example(script, "--device", "cpu", "--tf32", "--out", tmp_path / "run", code=1)
    assert "--tf32 is for a GPU, and this runs on the CPU" in err and not (tmp_path / "run").exists()
    _, err = run_example(script, "--device", "cpu", "--cuda-graph", "--out", tmp_path / "run", code=1)
    assert "--cuda-graph is for a GPU, and this runs on the CPU" in err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("script", ["predict.py", "evaluate.py"])
def test_and_those_that_predict(script, tmp_path):
    inputs = ["a.png"] if script == "predict.py" else ["--images", "a.png"]
    given = [*inputs, "--checkpoint", tmp_path / "none", "--device", "cpu", "--gpu-memory", "2"]
    _, err = run_example(script, *given, code=1)
    assert "--gpu-memory is for a GPU, and this runs on the CPU" in err
