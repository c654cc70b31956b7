"""Which module computes an op: options, the choice of kernels, and what a kernel leaves to the maths."""

import importlib
import sys
import types

import numpy as np
import pytest
from arrays import HALF_ULP, rand

import tinyseg
from tinyseg import backend, ops
from tinyseg.backend import dispatch, half
from tinyseg.ops import depthwise_conv as maths

OP = "tinyseg.ops.depthwise_conv"


@pytest.fixture(autouse=True)
def forget_modules():
    """The dispatcher remembers what it found. No test may see what another one pretended."""
    caches = dispatch._module_of, dispatch.fast
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def module(found):
    """Return the module behind what `backend.kernels` returns."""
    return getattr(found, "namesake", getattr(found, "maths", found))


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


# ----- the choice --------------------------------------------------------------------
def test_the_fast_namesake_is_used_where_there_is_one():
    fast = pytest.importorskip("tinyseg.fast.cpu.depthwise_conv")
    x = rand(2).astype(np.float32)
    assert module(backend.kernels(OP, x)) is fast
    assert module(backend.kernels(OP, rand(2))) is maths  # the kernels are written for float32
    with tinyseg.using(kernels="reference"):
        assert backend.kernels(OP, x) is maths
    assert backend.kernels_in_use() == "NumPy + numba"


def test_an_op_without_namesake_uses_its_maths():
    name = "tinyseg.ops.conv_transpose"
    assert backend.kernels(name, rand(2)) is sys.modules[name]


def test_without_numba_the_maths_file_computes(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "numba" else find(name, *a))
    assert module(backend.kernels(OP, rand(2).astype(np.float32))) is maths
    assert backend.kernels_in_use() == "NumPy (pip install numba for faster kernels)"
    assert ops.depthwise_conv2d(rand(1, 2, 3, 4), rand(2, 2, 2)).shape == (1, 2, 2, 3)


def test_with_a_numba_that_compiles_nothing_the_maths_file_computes(monkeypatch):
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)  # NUMBA_DISABLE_JIT=1, for a debugger
    assert module(backend.kernels(OP, rand(2).astype(np.float32))) is maths
    assert backend.kernels_in_use() == "NumPy (NUMBA_DISABLE_JIT is set)"


def test_kernels_in_use_names_the_path():
    with tinyseg.using(kernels="reference"):
        assert backend.kernels_in_use() == backend.kernels_in_use("gpu") == "reference (maths files)"
    assert "CuPy" in backend.kernels_in_use("gpu")


def test_a_namesake_that_cannot_be_imported_is_an_error(monkeypatch):
    pytest.importorskip("tinyseg.fast.cpu.depthwise_conv")

    def fails(name):
        raise ImportError(f"{name} is broken")

    monkeypatch.setattr(importlib, "import_module", fails)
    with pytest.raises(ImportError, match="fast.cpu.depthwise_conv is broken"):
        backend.kernels(OP, rand(2).astype(np.float32))


# ----- without the folder tinyseg/fast -------------------------------------------------
@pytest.fixture
def without_the_folder(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[:2] == ["tinyseg", "fast"]] + ["tinyseg.fast"]:
        monkeypatch.setitem(sys.modules, name, None)  # importing it raises ModuleNotFoundError


def test_fast_names_a_module_or_none():
    assert dispatch.fast("cpu.nothing_of_this_name") is None
    if importlib.util.find_spec("tinyseg.fast"):
        assert dispatch.fast("cpu.by_channels") is sys.modules["tinyseg.fast.cpu.by_channels"]


def test_without_the_folder_fast_is_none_and_the_maths_computes(without_the_folder):
    assert dispatch.fast("cpu.arena") is dispatch.fast("gpu.graphs") is None
    x, w = rand(1, 2, 3, 4).astype(np.float32), rand(2, 2, 2).astype(np.float32)
    assert backend.kernels(OP, x, w) is maths
    with tinyseg.using(kernels="reference"):
        expected = ops.depthwise_conv2d(x, w).data
    np.testing.assert_array_equal(ops.depthwise_conv2d(x, w).data, expected)


# ----- a namesake with the maths behind it -----------------------------------------------
def pretend(monkeypatch, supports=lambda *arrays: True, **functions):
    """Let the dispatcher find a namesake of every op, with these functions."""
    namesake = types.ModuleType("namesake")
    vars(namesake).update(functions, supports=supports)
    monkeypatch.setattr(dispatch, "_module_of", lambda op, device, tool: namesake)
    dispatch._module_of.cache_clear = lambda: None  # for the fixture above
    return namesake


def count_calls(monkeypatch, name):
    """Count the calls of a function of the maths."""
    calls, function = [], getattr(maths, name)
    monkeypatch.setattr(maths, name, lambda *args: (calls.append(args), function(*args))[1])
    return calls


def test_a_namesake_says_what_it_supports(monkeypatch):
    asked = []

    def supports(*arrays):
        asked.append([a.shape for a in arrays])
        return arrays[0].dtype == np.float32

    def broken(*args):
        raise AssertionError("must not be called")

    namesake = pretend(monkeypatch, supports, forward=broken)
    x, w = rand(1, 2, 3, 4), rand(2, 2, 2)
    assert module(backend.kernels(OP, x, w)) is maths
    assert module(backend.kernels(OP, x.astype(np.float32), w)) is namesake
    assert asked == [[x.shape, w.shape]] * 2
    assert ops.depthwise_conv2d(x, w).shape == (1, 2, 2, 3)


def test_what_a_namesake_computes_is_passed_on_as_it_is(monkeypatch):
    result = object()
    calls = count_calls(monkeypatch, "forward")
    pretend(monkeypatch, forward=lambda *args: (result, args))
    found, args = backend.kernels(OP, rand(2)).forward(1, "two")
    assert found is result and args == (1, "two") and calls == []


@pytest.mark.parametrize("has_it", [True, False], ids=["declines", "lacks the function"])
def test_what_a_namesake_declines_the_maths_computes_once(has_it, monkeypatch):
    x, w = rand(1, 2, 3, 4).astype(np.float32), rand(2, 2, 2).astype(np.float32)
    expected = maths.forward(x, w, (2, 2), ((0, 0), (0, 0)), (1, 2))
    declined, calls = [], count_calls(monkeypatch, "forward")

    def forward(*args):
        declined.append(args)
        return NotImplemented

    namesake = pretend(monkeypatch, **({"forward": forward} if has_it else {}))
    assert backend.kernels(OP, x, w).namesake is namesake
    np.testing.assert_array_equal(ops.depthwise_conv2d(x, w, stride=2).data, expected)
    assert len(declined) == has_it and len(calls) == 1


def test_declined_float16_is_computed_in_float32_and_rounded_once(monkeypatch):
    x, w = rand(1, 2, 9, 8).astype(np.float16), rand(2, 2, 2).astype(np.float32)
    calls = count_calls(monkeypatch, "forward")
    pretend(monkeypatch, forward=lambda *args: NotImplemented, grad_w=lambda *args: NotImplemented)
    y = ops.depthwise_conv2d(x, w, stride=2).data
    assert [a.dtype for a in calls[0][:2]] == [np.float32, np.float32] and y.dtype == np.float16
    exact = maths.forward(x.astype(float), w.astype(float), (2, 2), ((0, 0), (0, 0)), y.shape[2:])
    np.testing.assert_allclose(y.astype(float), exact, rtol=2 * HALF_ULP, atol=1e-3)
    gw = backend.kernels(OP, x, w).grad_w(x, y, w.shape, (2, 2), ((0, 0), (0, 0)))
    assert gw.dtype == np.float32  # sums stay float32


@pytest.mark.parametrize("error", [ValueError, ImportError, NotImplementedError, TypeError, AttributeError])
def test_an_exception_in_a_kernel_is_never_swallowed(error, monkeypatch):
    def fails(*args):
        raise error("from the kernel")

    calls = count_calls(monkeypatch, "forward")
    pretend(monkeypatch, forward=fails)
    with pytest.raises(error, match="from the kernel"):
        ops.depthwise_conv2d(rand(1, 2, 3, 4), rand(2, 2, 2))
    assert calls == []


def test_an_exception_while_a_namesake_is_asked_is_never_swallowed(monkeypatch):
    def fails(*arrays):
        raise ValueError("from supports")

    pretend(monkeypatch, fails)
    with pytest.raises(ValueError, match="from supports"):
        ops.depthwise_conv2d(rand(1, 2, 3, 4), rand(2, 2, 2))


def test_float16_that_no_namesake_takes_gets_the_kernels_of_float32(monkeypatch):
    seen = []

    def forward(x, w, *args):
        seen.append((x.dtype, w.dtype))
        return maths.forward(x, w, *args)

    namesake = pretend(monkeypatch, lambda *arrays: all(a.dtype == np.float32 for a in arrays), forward=forward)
    x, w = rand(1, 2, 3, 4).astype(np.float16), rand(2, 2, 2).astype(np.float16)
    found = backend.kernels(OP, x, w)
    assert isinstance(found, half.InFloat32) and found.module.namesake is namesake
    assert ops.depthwise_conv2d(x, w).dtype == np.float16
    assert seen == [(np.float32, np.float32)]


# ----- a few channels at a time ----------------------------------------------------------
def test_on_the_cpu_the_maths_of_channels_goes_block_by_block(monkeypatch):
    blocks = pytest.importorskip("tinyseg.fast.cpu.by_channels")
    x, w = rand(2, 5, 7, 6), rand(5, 3, 2)  # float64: no kernels
    found = backend.kernels(OP, x, w)
    assert isinstance(found, blocks.InBlocks) and found.maths is maths
    with tinyseg.using(kernels="reference"):
        assert backend.kernels(OP, x, w) is maths
        expected = ops.depthwise_conv2d(x, w, stride=2).data
    assert backend.kernels("tinyseg.ops.conv2d", x) is sys.modules["tinyseg.ops.conv2d"]  # declares nothing
    monkeypatch.setattr(blocks, "BLOCK", 2 * 7 * 6 * 2)  # two channels
    calls = count_calls(monkeypatch, "forward")
    np.testing.assert_array_equal(ops.depthwise_conv2d(x, w, stride=2).data, expected)
    assert sorted(len(args[1]) for args in calls) == [1, 2, 2]


def test_on_a_gpu_the_maths_takes_all_channels_at_once(stand_in):
    assert backend.kernels(OP, stand_in.asarray(rand(2, 5, 7, 6))) is maths


def test_a_users_module_named_like_a_kernel_gets_its_own_functions(monkeypatch):
    mine = types.ModuleType("mine.pool")
    mine.max_forward = lambda x: "mine"
    monkeypatch.setitem(sys.modules, "mine.pool", mine)
    assert backend.kernels("mine.pool", np.ones((1, 1, 2, 2), np.float32)).max_forward(None) == "mine"
