"""The device story: options, choice of kernels, and what users are told about a GPU that is not there."""

import importlib
import sys
import types

import numpy as np
import pytest
from arrays import rand

import tinyseg
from tinyseg import backend, ops
from tinyseg.backend import devices, dispatch
from tinyseg.ops import depthwise_conv as maths

OP = "tinyseg.ops.depthwise_conv"


@pytest.fixture(autouse=True)
def forget_siblings():
    """`_sibling` remembers what it found; let no test see what another one pretended."""
    dispatch._module_of.cache_clear()
    yield
    dispatch._module_of.cache_clear()


# ----- using -----------------------------------------------------------------------
def test_using_sets_and_restores():
    assert backend.config.kernels == "fast"
    with tinyseg.using(kernels="reference"):
        assert backend.config.kernels == "reference"
        with tinyseg.using(kernels="fast"):
            assert backend.config.kernels == "fast"
        assert backend.config.kernels == "reference"
    assert backend.config.kernels == "fast"


def test_using_restores_after_an_exception():
    with pytest.raises(KeyError), tinyseg.using(kernels="reference"):
        raise KeyError
    assert backend.config.kernels == "fast"


@pytest.mark.parametrize(
    "options", [{"kernels": "slow"}, {"kernel": "fast"}, {"kernels": "reference", "device": "gpu"}]
)
def test_using_refuses_what_it_does_not_know(options):
    with pytest.raises(ValueError, match=r"using\(.*known options are .*kernels"), tinyseg.using(**options):
        pass
    assert backend.config.kernels == "fast"


# ----- kernels -----------------------------------------------------------------------
def test_the_fast_sibling_is_used_where_there_is_one():
    fast = pytest.importorskip("tinyseg.fast.cpu.depthwise_conv")
    x = rand(2).astype(np.float32)
    assert backend.kernels(OP, x) is fast
    assert backend.kernels(OP, rand(2)) is maths  # the kernels are written for float32
    with tinyseg.using(kernels="reference"):
        assert backend.kernels(OP, x) is maths
    assert backend.kernels_in_use() == "NumPy + numba"


def test_an_op_without_sibling_uses_its_maths():
    name = "tinyseg.ops.conv_transpose"
    assert backend.kernels(name, rand(2)) is sys.modules[name]


def test_without_numba_the_maths_file_computes(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "numba" else find(name, *a))
    assert backend.kernels(OP, rand(2)) is maths
    assert backend.kernels_in_use() == "NumPy (install tinyseg[fast] for numba kernels)"
    assert ops.depthwise_conv2d(rand(1, 2, 3, 4), rand(2, 2, 2)).shape == (1, 2, 2, 3)


def test_kernels_in_use_names_the_path():
    with tinyseg.using(kernels="reference"):
        assert backend.kernels_in_use() == backend.kernels_in_use("gpu") == "reference (maths files)"
    assert "CuPy" in backend.kernels_in_use("gpu")


def sibling(**names):
    """A module to stand in for depthwise_conv_numba."""
    module = types.ModuleType("sibling")
    vars(module).update(names)
    return lambda op, kind: module


def test_a_sibling_says_what_it_supports(monkeypatch):
    asked = []

    def supports(*arrays):
        asked.append([a.shape for a in arrays])
        return arrays[0].dtype == np.float32

    def broken(*args):
        raise AssertionError("must not be called")

    monkeypatch.setattr(dispatch, "_module_of", sibling(supports=supports, forward=broken))
    dispatch._module_of.cache_clear = lambda: None  # the fixture's, on the stand-in
    x, w = rand(1, 2, 3, 4), rand(2, 2, 2)
    assert backend.kernels(OP, x, w) is maths
    assert backend.kernels(OP, x.astype(np.float32), w) is not maths
    assert asked == [[x.shape, w.shape]] * 2
    assert ops.depthwise_conv2d(x, w).shape == (1, 2, 2, 3)


@pytest.mark.parametrize("error", [ValueError, ImportError, NotImplementedError, TypeError])
def test_an_exception_in_a_kernel_is_never_swallowed(error, monkeypatch):
    def fails(*args):
        raise error("from the kernel")

    monkeypatch.setattr(dispatch, "_module_of", sibling(forward=fails))
    dispatch._module_of.cache_clear = lambda: None
    with pytest.raises(error, match="from the kernel"):
        ops.depthwise_conv2d(rand(1, 2, 3, 4), rand(2, 2, 2))


def test_a_sibling_that_cannot_be_imported_is_an_error(monkeypatch):
    pytest.importorskip("numba")

    def fails(name):
        raise ImportError(f"{name} is broken")

    monkeypatch.setattr(importlib, "import_module", fails)
    with pytest.raises(ImportError, match="depthwise_conv_numba is broken"):
        backend.kernels(OP, rand(2))


# ----- devices -----------------------------------------------------------------------
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
