"""A GPU for the tests: a stand-in on any machine with g++, and a real one if there is one. See README.md."""

import importlib
import sys

import cuda_on_cpu
import fake_cublas
import fake_cupy
import numpy as np
import pytest
from arrays import EPS32, HALF_TINY, HALF_ULP

from tinyseg import backend
from tinyseg.backend import devices, dispatch


@pytest.fixture(params=["stand-in", pytest.param("CuPy", marks=pytest.mark.gpu)])
def stand_in(request, monkeypatch):
    """Give the array module of the device. For its arrays `backend.kernels` chooses the CUDA kernels."""
    if request.param == "CuPy":
        try:
            backend.parse_device("gpu")
        except RuntimeError:
            pytest.skip("no GPU")
    elif cuda_on_cpu.compiler is None:
        pytest.skip("no g++ to compile the kernels for the CPU")
    else:
        monkeypatch.setattr(devices, "cp", fake_cupy)
        monkeypatch.setitem(sys.modules, "cupy", fake_cupy)  # where `dispatch._module_of` asks for it
        products = backend.fast("gpu.graphs.products")
        if products is not None:  # these tests also run without the folder tinyseg/fast
            monkeypatch.setattr(products, "library", lambda: fake_cublas)
    dispatch._module_of.cache_clear()
    yield devices.cp
    dispatch._module_of.cache_clear()


# ----- which kernels -----------------------------------------------------------------
def both(op):
    """Return the maths of an op, and its namesake for the GPU."""
    return tuple(importlib.import_module(f"tinyseg.{room}.{op}") for room in ("ops", "fast.gpu"))


def or_maths(op):
    """Return the namesake for the GPU, with the maths for what it declines: as `backend.kernels` gives it."""
    maths, namesake = both(op)
    return dispatch.OrMaths(namesake, maths.__name__)


def chosen(op, *arrays):
    """Return the module that `backend.kernels` chooses: a namesake or the maths."""
    found = backend.kernels(op, *arrays)
    return getattr(found, "namesake", found)


# ----- arrays of the device ----------------------------------------------------------
def planes(cp, a):
    """`a` on the device, in C order."""
    return cp.asarray(np.array(a, order="C"))


def pixels(cp, a):
    """The same numbers with the channels of a pixel side by side: contiguous, but not in C order."""
    return cp.moveaxis(cp.asarray(np.array(np.moveaxis(a, 1, -1), order="C")), -1, 1)


def strided(cp, a):
    """The same numbers in a view that is contiguous in no order, with NaN (or 9) in between."""
    big = np.full([2 * n for n in a.shape], np.nan if a.dtype.kind == "f" else 9, a.dtype)
    every_second = tuple(slice(None, None, 2) for _ in a.shape)
    big[every_second] = a
    return cp.asarray(big)[every_second]


reals = pytest.mark.parametrize("real", [np.float32, np.float16], ids=["float32", "float16"])  # types of activations
LAYOUTS = {"planes": planes, "pixels": pixels, "strided": strided}
layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


# ----- float32 against float64 -------------------------------------------------------
def within(cp, found, expected, bound, real=np.float32):
    """Assert that an array of the device has type and shape, and is nowhere off by more than `bound`.

    If `real` is float16, also by its rounding, once.
    """
    assert type(found) is cp.ndarray and found.dtype == real and found.shape == np.shape(expected)
    error = abs(cp.asnumpy(found) - np.asarray(expected, np.float64))
    if real == np.float16:
        bound = bound + HALF_ULP * (abs(np.asarray(expected, np.float64)) + bound) + HALF_TINY
    assert (error <= bound).all(), (error / np.maximum(bound, np.finfo(float).tiny)).max()


def rounding(slices=1, units=8):
    """Return the relative error of a sum over so many slices of float32 terms with `units` roundings each.

    A thread adds up at most 16 terms of a slice, the block its threads' sums in 8 rounds of pairs; slices likewise
    (tinyseg/fast/gpu/launch.py).
    """
    return (16 + 8 + slices // 32 + 1 + 8 + units) * EPS32


def slices(P):
    """Number of slices of a plane of `P` elements."""
    return backend.fast("gpu.launch").slices_of(P)
