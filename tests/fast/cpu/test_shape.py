"""Concatenation on the numba path: the very same numbers, laid out pixel by pixel."""

import numpy as np
import pytest
from arrays import LAYOUTS, namesake, rand

pytest.importorskip("numba")

from tinyseg import Tensor, ops
from tinyseg.fast.cpu import shape as fast

ORDERS = list(LAYOUTS.values())
joins = pytest.mark.parametrize(
    ("N", "channels", "H", "W"),
    [(1, (64, 64), 5, 3), (3, (33, 1), 4, 7), (2, (5, 16, 3), 1, 9), (1, (2,), 3, 3), (3, (1, 2, 3, 64, 5), 2, 1)],
)
layouts = pytest.mark.parametrize("shift", range(3), ids=["planes first", "pixels first", "strided first"])


@joins
@layouts
def test_forward(N, channels, H, W, shift):
    xs = [ORDERS[(k + shift) % 3](rand(N, c, H, W, seed=k).astype(np.float32)) for k, c in enumerate(channels)]
    old = [x.copy() for x in xs]
    y = fast.concat_forward(xs, 1)
    assert y.dtype == np.float32 and y.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_array_equal(y, np.concatenate(xs, 1))
    for x, before in zip(xs, old, strict=True):
        np.testing.assert_array_equal(x, before)
        assert not np.shares_memory(x, y)


@joins
@layouts
def test_backward(N, channels, H, W, shift):
    gy = ORDERS[shift](rand(N, sum(channels), H, W).astype(np.float32))
    old, cuts = gy.copy(), np.cumsum(channels)[:-1].tolist()
    gxs = fast.concat_backward(gy, cuts, 1)
    for gx, expected in zip(gxs, np.split(old, cuts, axis=1), strict=True):
        assert gx.dtype == np.float32 and gx.transpose(0, 2, 3, 1).flags.c_contiguous
        np.testing.assert_array_equal(gx, expected)
        assert not np.shares_memory(gx, gy)
    np.testing.assert_array_equal(gy, old)


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -3])
def test_every_axis(axis):
    xs = [Tensor(rand(2, 3, 4, 5, seed=k).astype(np.float32), requires_grad=True) for k in range(3)]
    y = ops.concat(xs, axis)
    np.testing.assert_array_equal(y.data, np.concatenate([x.data for x in xs], axis))
    gy = rand(*y.shape).astype(np.float32)
    y.backward(gy)
    for x, expected in zip(xs, np.split(gy, 3, axis), strict=True):
        np.testing.assert_array_equal(x.grad, expected)


def test_what_is_taken():
    x = rand(1, 2, 3, 4).astype(np.float32)
    name = "tinyseg.ops.shape"
    assert namesake(name, x, x) is fast
    for arrays in ((x, x.astype(np.float64)), (x[0], x[0])):
        assert namesake(name, *arrays) is None
