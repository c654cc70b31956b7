"""A GPU for the tests of the CUDA kernels: a stand-in on any machine with g++, and a real one where there is one."""

import sys

import cuda_on_cpu
import fake_cublas
import fake_cupy
import numpy as np
import pytest
from arrays import EPS32, HALF_TINY, HALF_ULP

from tinyseg import backend
from tinyseg.backend import devices, dispatch
from tinyseg.fast.gpu import launch as cuda
from tinyseg.fast.gpu.graphs import products as cublas


@pytest.fixture(params=["stand-in", pytest.param("CuPy", marks=pytest.mark.gpu)])
def stand_in(request, monkeypatch):
    """The array module of the device, for whose arrays `backend.kernels` chooses the CUDA siblings."""
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
        monkeypatch.setattr(cublas, "library", lambda: fake_cublas)
    dispatch._module_of.cache_clear()
    yield devices.cp
    dispatch._module_of.cache_clear()


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
def doubles(*xs):
    """Arrays of the host, float32 and float16 ones as float64, for the maths file."""
    return [x.astype(np.float64) if getattr(x, "dtype", None) in (np.float32, np.float16) else x for x in xs]


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
    """Relative error of a sum over so many slices (tinyseg/cuda.py) of float32 terms with `units` roundings each.

    A thread adds up at most 16 terms of a slice, the block its threads' sums in 8 rounds of pairs; slices likewise.
    """
    return (16 + 8 + slices // 32 + 1 + 8 + units) * EPS32


def slices(P):
    """Number of slices of a plane of `P` elements."""
    return cuda.cut(P)[0]
