"""Products while a step is recorded: cuBLAS itself, called as CuPy calls it."""

import sys
import types

import numpy as np
import pytest
from arrays import rand

from tinyseg.backend import devices
from tinyseg.fast.gpu.graphs import products as cublas
from tinyseg.fast.gpu.graphs import recording


@pytest.mark.parametrize(("n", "k", "m"), [(3, 5, 7), (1, 4, 6), (4, 1, 2), (5, 3, 1), (1, 9, 1), (2, 0, 3)])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True)])
def test_products_of_cublas(n, k, m, turned, stand_in):
    a, b = (
        stand_in.asarray(rand(*(s[::-1] if t else s)).astype(np.float32))
        for s, t in zip(((n, k), (k, m)), turned, strict=True)
    )
    a, b = (x.T if t else x for x, t in zip((a, b), turned, strict=True))
    expected = stand_in.asnumpy(cublas.product(a, b))
    with recording.Recording().record(capturing=False):
        found, out = cublas.product(a, b), stand_in.empty((n, m), np.float32)
        assert cublas.product(a, b, out=out) is out
    for a in (found, out):
        if stand_in.__name__ == "cupy":
            np.testing.assert_allclose(stand_in.asnumpy(a), expected, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(stand_in.asnumpy(a), expected)


def test_other_products_are_not_captured(stand_in):
    a = stand_in.asarray(rand(3, 4))
    with recording.Recording().record(capturing=False), pytest.raises(TypeError, match="float32 .*, not float64 times"):
        cublas.product(a, a.T)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pathfinder is asked")
def test_cublas_is_the_one_that_cupy_is_linked_with(monkeypatch):
    extension = np._core._multiarray_umath.__file__  # linked with libm, as CuPy's is with cuBLAS
    cuda = types.SimpleNamespace(cublas=types.SimpleNamespace(__file__=extension))
    monkeypatch.setattr(devices, "cp", types.SimpleNamespace(cuda=cuda))
    library = cublas.library.__wrapped__()
    assert library._name == extension and library.lgamma_r is not None
    with pytest.raises(AttributeError, match="cublasGemmEx"):
        library.cublasGemmEx  # noqa: B018
