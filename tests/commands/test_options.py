"""--device, --gpu-memory, --tf32 and --cuda-graph, and memory that does not suffice: what the scripts make of them."""

import argparse

import fake_cupy
import pytest
from scripts import run_example

from tinyseg import backend, models
from tinyseg.backend import devices
from tinyseg.commands.options import add_device_options, choose_device, run_script, settle
from tinyseg.models import checkpoint


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
    assert vars(options()) == {
        "device": None,
        "gpu_memory": None,
        "tf32": None,
        "cuda_graph": None,
    }  # `settle` needs None
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


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train_isbi.py", "train_brats.py"])
def test_mixed_precision_works_on_the_cpu_and_is_said_to_be_slow(script, tmp_path, capsys):
    few = ["--width", 4, "--size", 32, "--epochs", 1, "--workers", 1, "--device", "cpu", "--out", tmp_path / "run"]
    if script == "train_brats.py":
        few += ["--steps-per-epoch", 3, "--batch-size", 2, "--cache", tmp_path / "brains"]
    out, _ = run_example(script, *few, "--amp", capsys=capsys)
    assert ", mixed precision (slower than float32 here: only useful on a GPU)" in out
    arrays, meta = checkpoint.read(tmp_path / "run" / "checkpoint.safetensors")
    assert meta["config"]["amp"] is True and meta["training"]["scaler"]["factor"] <= 2.0**16
    assert "loss_scale" in meta["training"]["state"]["history"][0]
    _, err = run_example(script, "--resume", tmp_path / "run", "--amp", "--lr", 1, capsys=capsys, code=2)
    assert "leave out lr" in err and "amp" not in err.split("leave out")[1]


def test_runs_of_before_mixed_precision_can_be_resumed(tmp_path, monkeypatch):
    model = models.build("sdunet", width=4, levels=2)
    config = {"data": None, "epochs": 3, "schedule": "cosine", "model": "sdunet", "lr": 0.1}
    checkpoint.save(tmp_path / "checkpoint.safetensors", model, training={}, config=config)
    parser = argparse.ArgumentParser()
    for name in ("data", "epochs", "resume", "out", "overwrite", "protocol", "download", "amp"):
        parser.add_argument(f"--{name}")
    monkeypatch.setattr("sys.argv", ["script", "--resume", str(tmp_path)])
    assert settle(parser, config | {"amp": False}, {}, {}).amp is False
    with pytest.raises(SystemExit):
        settle(parser, config | {"another": 1}, {}, {})


@pytest.mark.parametrize("script", ["train_isbi.py", "train_brats.py", "reproduce_tables.py"])
def test_the_training_scripts_refuse_them_too(script, tmp_path, capsys):
    _, err = run_example(script, "--device", "cpu", "--tf32", "--out", tmp_path / "run", capsys=capsys, code=1)
    assert "--tf32 is for a GPU, and this runs on the CPU" in err and not (tmp_path / "run").exists()
    _, err = run_example(script, "--device", "cpu", "--cuda-graph", "--out", tmp_path / "run", capsys=capsys, code=1)
    assert "--cuda-graph is for a GPU, and this runs on the CPU" in err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("script", ["predict.py", "evaluate.py"])
def test_and_those_that_predict(script, tmp_path, capsys):
    inputs = ["a.png"] if script == "predict.py" else ["--images", "a.png"]
    given = [*inputs, "--checkpoint", tmp_path / "none", "--device", "cpu", "--gpu-memory", "2"]
    _, err = run_example(script, *given, capsys=capsys, code=1)
    assert "--gpu-memory is for a GPU, and this runs on the CPU" in err


# ----- out of memory ---------------------------------------------------------------
def named(name, base, status=None):
    """An error as CuPy's libraries raise it."""
    error = type(name, (base,), {})(f"{name}: {status}")
    if status is not None:
        error.status = status
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError("could not allocate"), True),
        (named("OutOfMemoryError", MemoryError), True),
        (named("CUDARuntimeError", RuntimeError, 2), True),
        (named("CUDARuntimeError", RuntimeError, 700), False),  # an illegal address
        (named("CUDADriverError", RuntimeError, 2), True),
        (named("CUBLASError", RuntimeError, 3), True),
        (named("CUBLASError", RuntimeError, 2), False),
        (RuntimeError("something else"), False),
    ],
)
def test_what_is_out_of_memory(error, expected):
    assert backend.is_out_of_memory(error) is expected

    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        run_script(main, out_of_memory="try a smaller --batch-size")
    assert str(stop.value).endswith(": try a smaller --batch-size.") is expected
    assert str(stop.value).startswith("Out of memory (") is expected


def test_with_a_limit_the_limit_is_named():
    def main():  # CuPy's words
        raise MemoryError("Out of memory allocating 1,024 bytes (allocated so far: 5 bytes, limit set to: 9 bytes).")

    with pytest.raises(SystemExit) as stop:
        run_script(main, out_of_memory="try a smaller --batch-size")
    assert str(stop.value) == (
        "Out of memory (allocating 1,024 bytes (allocated so far: 5 bytes, limit set to: 9 bytes)): "
        "try a smaller --batch-size, or a larger --gpu-memory."
    )
