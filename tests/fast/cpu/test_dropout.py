"""The numba mask of dropout: bit for bit that of the maths, in any layout."""

import importlib

import numpy as np
import pytest
from arrays import LAYOUTS, layouts, rand

from tinyseg import Tensor, ops, using

pytest.importorskip("numba")
fast = importlib.import_module("tinyseg.fast.cpu.dropout")
maths = importlib.import_module("tinyseg.ops.dropout")

SHAPES = [(), (7,), (5000,), (3, 33), (1, 1, 3, 5), (3, 5, 7, 9), (1, 16, 33, 31), (2, 64, 17, 5)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@layouts
@pytest.mark.parametrize(("p", "seed"), [(0.5, 0), (0.3, [7, 1]), (0.05, 2**32 - 1), (1 - 1e-12, 3)], ids=str)
def test_the_same_mask(shape, layout, p, seed):
    x = layout(rand(*shape).astype(np.float32) if shape else np.array(1, np.float32))
    for of in (shape, (*shape[:2], 1, 1)) if len(shape) == 4 else (shape,):
        found = fast.mask(x, of, p, seed)
        assert found.dtype == np.float32 and found.shape == of
        np.testing.assert_array_equal(found, maths.mask(x, of, p, seed))


@layouts
@pytest.mark.parametrize("op", [ops.dropout, ops.dropout2d])
def test_the_op_is_the_same_on_both_paths(op, layout):
    x = layout(rand(3, 5, 7, 9).astype(np.float32))
    before, results = x.copy(), []
    for path in ("fast", "reference"):
        with using(kernels=path):
            t = Tensor(x, requires_grad=True)
            y = op(t, 0.4, seed=8)
            y.backward(np.ones(x.shape, np.float32))
            results.append((y.data, t.grad))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(x, before)


@layouts
def test_nan_is_seen(layout):
    x = layout(np.full((3, 5, 7, 9), np.nan, np.float32))
    y = ops.dropout(x, 0.4, seed=8).data
    assert np.isnan(y).all()  # as in the maths: 0 · NaN is NaN


def test_the_layout_is_kept():
    x = LAYOUTS["pixels"](rand(2, 5, 7, 9).astype(np.float32))
    assert fast.mask(x, x.shape, 0.5, 1).strides == x.strides


def test_supports_float32_only():
    assert fast.supports(np.zeros(3, np.float32)) and not fast.supports(np.zeros(3))
