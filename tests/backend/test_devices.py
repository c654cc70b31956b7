"""Devices: what users are told about a GPU that is not there, and arrays that stay where they are."""

import io
import types

import numpy as np
import pytest
from arrays import rand

from tinyseg import backend
from tinyseg.backend import devices


def cupy(count):
    """A CuPy that finds `count` devices, or raises what it is given."""

    def device_count():
        if isinstance(count, Exception):
            raise count
        return count

    runtime = types.SimpleNamespace(getDeviceCount=device_count)
    return types.SimpleNamespace(
        __version__="14.0.0", cuda=types.SimpleNamespace(runtime=runtime), get_array_module=lambda *arrays: np
    )


def test_without_cupy(monkeypatch):
    monkeypatch.setattr(devices, "cp", None)
    assert backend.parse_device("auto") == backend.parse_device("cpu") == "cpu"
    for ask in (lambda: backend.parse_device("gpu"), lambda: backend.to_device(rand(2), "gpu")):
        with pytest.raises(
            RuntimeError, match=r"'gpu' was asked for, but CuPy is not installed.*pip install .*--device cpu"
        ):
            ask()
    assert backend.xp_of(rand(2)) is np and backend.device_of(rand(2)) == "cpu"


def test_cupy_that_is_there_but_does_not_load_is_told_apart(monkeypatch):
    monkeypatch.setattr(devices, "cp", None)
    monkeypatch.setattr(devices, "_cupy_error", ImportError("libnvrtc.so.12 is missing"))
    with pytest.raises(RuntimeError, match=r"CuPy is installed but cannot be loaded \(libnvrtc.so.12 is missing\)"):
        backend.parse_device("gpu")


@pytest.mark.parametrize(
    ("count", "found"), [(0, "no CUDA device. Check"), (RuntimeError("no driver"), r"no CUDA device \(no driver\)")]
)
def test_with_cupy_but_no_gpu(count, found, monkeypatch):
    monkeypatch.setattr(devices, "cp", cupy(count))
    assert backend.parse_device("auto") == backend.parse_device("cpu") == "cpu"
    for name in ("gpu", "cuda"):
        with pytest.raises(RuntimeError, match=f"'gpu' was asked for, but CuPy 14.0.0 finds {found}.*nvidia-smi"):
            backend.parse_device(name)


def test_with_a_gpu(monkeypatch):
    monkeypatch.setattr(devices, "cp", cupy(1))
    assert backend.parse_device("auto") == backend.parse_device("gpu") == backend.parse_device("cuda") == "gpu"
    assert backend.parse_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["tpu", "", None, "GPU", "cuda:0"])
def test_unknown_devices(name):
    with pytest.raises(ValueError, match="Unknown device .*: choose 'auto', 'cpu' or 'gpu'"):
        backend.parse_device(name)
    with pytest.raises(ValueError, match="Unknown device .*: choose 'cpu' or 'gpu'"):
        backend.to_device(rand(2), name)


def test_arrays_stay_where_they_are():
    x = rand(2)
    assert backend.to_device(x, "cpu") is x and backend.to_numpy(x) is x


def test_device_name_of_the_cpu():
    assert backend.device_name("cpu").startswith("cpu: ") and "cores" in backend.device_name("cpu")


def test_synchronize_waits_for_the_gpu_alone(monkeypatch):
    waits = []
    device = types.SimpleNamespace(synchronize=lambda: waits.append("gpu"))
    monkeypatch.setattr(devices, "cp", types.SimpleNamespace(cuda=types.SimpleNamespace(Device=lambda: device)))
    backend.synchronize("cpu")
    assert waits == []
    backend.synchronize("gpu")
    assert waits == ["gpu"]


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n", "AMD EPYC"),
        ("processor\t: 0\nCPU part\t: 0xd08\n\nModel\t\t: Raspberry Pi 4 Model B\n", "Raspberry Pi 4 Model B"),
        ("processor\t: 0\nCPU part\t: 0xd0c\n", "aarch64"),
    ],
)  # fmt: skip
def test_the_name_of_the_processor_or_of_the_board(cpuinfo, expected, monkeypatch):
    monkeypatch.setattr(devices, "open", lambda *args, **options: io.StringIO(cpuinfo), raising=False)
    monkeypatch.setattr(devices.platform, "processor", lambda: "")
    monkeypatch.setattr(devices.platform, "machine", lambda: "aarch64")
    assert devices.processor() == expected
