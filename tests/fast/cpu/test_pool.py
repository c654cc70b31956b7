"""The numba pools against the maths: the same maxima and winners, and averages within the rounding of their sums."""

import numpy as np
import pytest
from arrays import EPS32, LAYOUTS, WINDOWS, namesake, rand, spaced

pytest.importorskip("numba")

from tinyseg import Tensor, ops
from tinyseg.fast.cpu import pool as fast
from tinyseg.ops.pool import avg_forward, avg_grad_x, max_forward, max_grad_x
from tinyseg.ops.window import resolve

ORDERS = list(LAYOUTS.values())
SIZES = [(1, 5), (3, 1), (1, 16), (3, 33), (2, 64)]  # N, C
CASES = [(7, 5, (2, 2), 2, 0), (6, 8, (2, 2), 2, 0), (2, 3, (2, 2), 2, 0), (9, 2, (2, 2), 2, 0), (8, 7, (2, 2), 1, 0)]
CASES += [case[:5] for case in WINDOWS if all(2 * max(p) <= k for p, k in zip(case[5], case[2], strict=True))]
windows = pytest.mark.parametrize(
    ("N", "C", "layout", "H", "W", "kernel", "stride", "padding"),
    [(*SIZES[i % 5], ORDERS[i % 3], *case) for i, case in enumerate(CASES)]
    + [(*SIZES[i % 5], ORDERS[(i + 1) % 3], *CASES[i % 2]) for i in range(5)],
)


def single(a, layout):
    return layout(a.astype(np.float32))


@windows
def test_maxima_and_winners_are_those_of_the_maths(N, C, layout, H, W, kernel, stride, padding):
    stride, pads, out = resolve((N, C, H, W), kernel, stride, padding)
    values = np.array([-np.inf, -1, 0, 1, np.nan])  # ties, borders and NaN everywhere
    for x in (spaced(N, C, H, W), np.random.default_rng(0).choice(values, (N, C, H, W))):
        x = single(x, layout)
        old = x.copy()
        found, expected = (f(x, kernel, stride, pads, out) for f in (fast.max_forward, max_forward))
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(x, old)


@windows
def test_gradients_go_to_the_winners(N, C, layout, H, W, kernel, stride, padding):
    stride, pads, out = resolve((N, C, H, W), kernel, stride, padding)
    gy, x = single(rand(N, C, *out), layout), spaced(N, C, H, W).astype(np.float32)
    old, args = gy.copy(), ((N, C, H, W), kernel, stride, pads)
    bound = kernel[0] * kernel[1] * EPS32 * max_grad_x(abs(gy), max_forward(x, *args[1:], out)[1], *args)
    for forward in (max_forward, fast.max_forward):  # each path's winners, read by both
        winner = forward(x, *args[1:], out)[1]
        found, expected = fast.max_grad_x(gy, winner, *args), max_grad_x(gy.astype(np.float64), winner, *args)
        assert found.dtype == np.float32 and found.shape == x.shape
        assert (abs(found - expected) <= bound).all()
    np.testing.assert_array_equal(gy, old)


@windows
def test_averages_are_within_the_rounding_of_their_sums(N, C, layout, H, W, kernel, stride, padding):
    stride, pads, out = resolve((N, C, H, W), kernel, stride, padding)
    x, gy = single(rand(N, C, H, W), layout), single(rand(N, C, *out), layout)
    old = x.copy(), gy.copy()
    for f, maths, args in (
        (fast.avg_forward, avg_forward, (x, kernel, stride, pads, out)),
        (fast.avg_grad_x, avg_grad_x, (gy, (N, C, H, W), kernel, stride, pads)),
    ):
        found, a, *rest = f(*args), *args
        assert found.dtype == np.float32
        # n terms carry n roundings, the share and its product one each
        bound = (kernel[0] * kernel[1] + 2) * EPS32 * maths(abs(a.astype(np.float64)), *rest)
        assert (abs(found - maths(a.astype(np.float64), *rest)) <= bound).all()
    np.testing.assert_array_equal(x, old[0])
    np.testing.assert_array_equal(gy, old[1])


def test_nan_in_a_gradient_is_seen():
    _, winner = fast.max_forward(np.zeros((1, 3, 4, 4), np.float32), (2, 2), (2, 2), ((0, 0), (0, 0)), (2, 2))
    gy = np.ones((1, 3, 2, 2), np.float32)
    gy[0, 1, 1, 0] = np.nan
    gx = fast.max_grad_x(gy, winner, (1, 3, 4, 4), (2, 2), (2, 2), ((0, 0), (0, 0)))
    assert np.argwhere(np.isnan(gx)).tolist() == [[0, 1, 2, 0]]


def test_results_lie_pixel_by_pixel():
    x = Tensor(rand(2, 5, 6, 4).astype(np.float32), requires_grad=True)
    y = ops.max_pool2d(x, 2)
    assert y.data.transpose(0, 2, 3, 1).flags.c_contiguous
    y.backward(np.ones(y.shape, np.float32))
    assert x.grad.sum() == y.size


def test_only_float32_is_taken():
    x = rand(1, 2, 4, 4)
    assert namesake("tinyseg.ops.pool", x.astype(np.float32)) is fast
    assert namesake("tinyseg.ops.pool", x) is None
