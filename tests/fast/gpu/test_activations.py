"""The CUDA kernels of activations, float32 and float16, against the maths in float64; dropout's mask bit for bit."""

import numpy as np
import pytest
from arrays import EPS32, doubles, rand, spaced
from stand_in import LAYOUTS, both, layouts, or_maths, planes, reals, within

maths, fast = both("activation")

SHAPES = [(), (7,), (5, 61), (1, 1, 3, 5), (3, 5, 7, 9), (1, 16, 9, 5), (2, 3, 4, 5, 6)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
UNITS = 8  # roundings of an exponential, a sum and a quotient


def single(a):
    return np.asarray(a, np.float32)


def lay(layout, cp, a):
    """Pixels need an axis of channels, and a number has no layout at all."""
    return (planes if a.ndim < 2 else layout)(cp, a)


@shapes
@layouts
@reals
def test_relu(shape, layout, real, stand_in):
    x, gy = np.asarray(spaced(*shape, gap=0.1), real), np.asarray(rand(*shape), real)
    x_there, gy_there = lay(layout, stand_in, x), lay(layout, stand_in, gy)
    y = fast.relu_forward(x_there)
    for found, expected in (
        (y, np.maximum(x, 0)),
        (fast.relu_grad(gy_there, y), gy * (x > 0)),
        (fast.relu_grad(gy_there, x_there), gy * (x > 0)),
    ):
        assert found.dtype == real and found.shape == shape
        np.testing.assert_array_equal(stand_in.asnumpy(found), expected)


@shapes
@layouts
@reals
def test_sigmoid(shape, layout, real, stand_in):
    x, gy = np.asarray(20 * rand(*shape), real), np.asarray(rand(*shape, seed=1), real)
    y = maths.sigmoid_forward(np.asarray(x, np.float64))
    within(stand_in, fast.sigmoid_forward(lay(layout, stand_in, x)), y, UNITS * EPS32 * y, real)
    y = np.asarray(y, real)
    expected = maths.sigmoid_grad(np.asarray(gy, np.float64), np.asarray(y, np.float64))
    found = fast.sigmoid_grad(lay(layout, stand_in, gy), lay(layout, stand_in, y))
    within(stand_in, found, expected, UNITS * EPS32 * abs(expected), real)


AXES = [((3, 5, 7, 9), 1), ((1, 1, 5, 3), 1), ((2, 64, 3, 5), 1), ((2, 65, 3, 5), 1), ((3, 4, 300), 1)]
AXES += [((5, 4), -1), ((2, 3, 4, 5), -2), ((2, 3, 4, 5), 0), ((7,), 0)]


@pytest.mark.parametrize(("shape", "axis"), AXES, ids=str)
@layouts
@reals
def test_softmax(shape, axis, layout, real, stand_in):
    x, gy, cp = (4 * rand(*shape)).astype(real), rand(*shape, seed=1).astype(real), stand_in
    x_there, gy_there = lay(layout, cp, x), lay(layout, cp, gy)
    exact_x, exact_gy = doubles(x, gy)
    k = or_maths("activation") if shape[axis] > fast.CLASSES else fast
    C, top = shape[axis], exact_x.max(axis=axis, keepdims=True)
    # The difference of two logits is rounded before its exponential is taken, and C of those are added.
    n = (UNITS + C + abs(exact_x - top)) * EPS32
    y = maths.softmax_forward(exact_x, axis)
    within(cp, k.softmax_forward(x_there, axis), y, n.max(axis=axis, keepdims=True) * y, real)
    log_y = maths.log_softmax_forward(exact_x, axis)
    bound = (UNITS + C + abs(exact_x) + abs(top) + abs(log_y)) * EPS32
    within(cp, k.log_softmax_forward(x_there, axis), log_y, bound, real)

    y, log_y = y.astype(real), log_y.astype(real)
    exact_y, exact_log_y = doubles(y, log_y)
    size = exact_y * (abs(exact_gy) + (abs(exact_gy) * exact_y).sum(axis=axis, keepdims=True))
    log_size = abs(exact_gy) + np.exp(exact_log_y) * abs(exact_gy).sum(axis=axis, keepdims=True)
    for name, given, exact, bound in (
        ("softmax_grad", y, exact_y, size),
        ("log_softmax_grad", log_y, exact_log_y, log_size),
    ):
        found = getattr(k, name)(gy_there, lay(layout, cp, given), axis)
        of = real if C <= fast.CLASSES else np.float32  # the maths' gradients are rounded by the engine
        within(cp, found, getattr(maths, name)(exact_gy, exact, axis), (UNITS + C) * EPS32 * bound, of)


def test_the_cotangent_may_lie_otherwise_than_the_output(stand_in):
    y, gy = single(rand(2, 5, 7, 9)), single(rand(2, 5, 7, 9, seed=1))
    for name in ("relu_grad", "sigmoid_grad"):
        function = getattr(fast, name)
        expected = stand_in.asnumpy(function(planes(stand_in, gy), planes(stand_in, y)))
        for a in LAYOUTS.values():
            for b in LAYOUTS.values():
                within(stand_in, function(a(stand_in, gy), b(stand_in, y)), expected, 0)


def test_nan_is_seen_and_stays_where_it_is(stand_in):
    x, on = single(rand(1, 3, 1, 40)), np.ones((1, 3, 1, 40), np.float32)
    x[0, 1, 0, 7] = np.nan
    x, on = planes(stand_in, x), planes(stand_in, on)
    for y in (fast.relu_forward(x), fast.sigmoid_forward(x), fast.sigmoid_grad(x, on / 2), fast.relu_grad(x, on)):
        assert np.argwhere(np.isnan(stand_in.asnumpy(y))).tolist() == [[0, 1, 0, 7]]
    for y in (fast.softmax_forward(x, 1), fast.log_softmax_forward(x, 1), fast.softmax_grad(x, on, 1)):
        assert np.argwhere(np.isnan(stand_in.asnumpy(y))).tolist() == [[0, c, 0, 7] for c in range(3)]


def test_extreme_values(stand_in):
    x = np.array([-np.inf, -1000, -104, -88, 0, 88, 89, 1000, np.inf], np.float32)
    y = stand_in.asnumpy(fast.sigmoid_forward(planes(stand_in, x)))
    np.testing.assert_allclose(y, [0, 0, 0, 0, 0.5, 1, 1, 1, 1], atol=1e-37)
    within(stand_in, fast.relu_forward(planes(stand_in, x[1:-1])), np.maximum(x, 0)[1:-1], 0)
    z = planes(stand_in, np.array([[-1000, 1000, 999], [0, -3e38, 3e38]], np.float32))
    y = stand_in.asnumpy(fast.softmax_forward(z, 1))
    np.testing.assert_allclose(y, [[0, 1 / (1 + np.exp(-1)), 1 / (1 + np.e)], [0, 0, 1]], rtol=1e-6)
    assert np.isfinite(stand_in.asnumpy(fast.log_softmax_forward(z[:1], 1))).all()


def test_zero_gets_no_gradient(stand_in):
    y = fast.relu_forward(planes(stand_in, np.array([-1, 0, 2], np.float32)))
    within(stand_in, fast.relu_grad(planes(stand_in, np.ones(3, np.float32)), y), np.array([0, 0, 1.0]), 0)


# ----- dropout -----------------------------------------------------------------------
@pytest.mark.parametrize("shape", [*SHAPES, (2, 64, 17, 5)], ids=str)
@pytest.mark.parametrize(("p", "seed"), [(0.5, 0), (0.3, [7, 1]), (0.05, 2**32 - 1), (1 - 1e-12, 3)], ids=str)
def test_the_same_mask_as_on_the_cpu(shape, p, seed, stand_in):
    dropout, dropout_gpu = both("dropout")
    x = np.zeros(shape, np.float32)
    for of in (shape, (*shape[:2], 1, 1)) if len(shape) == 4 else (shape,):
        found = dropout_gpu.mask(planes(stand_in, x), of, p, seed)
        within(stand_in, found, dropout.mask(x, of, p, seed), 0)
