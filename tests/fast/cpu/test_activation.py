"""The numba kernels of relu and sigmoid in float32 against the maths in float64."""

import importlib

import numpy as np
import pytest
from arrays import EPS32, LAYOUTS, layouts, rand, spaced, within

pytest.importorskip("numba")
fast = importlib.import_module("tinyseg.fast.cpu.activation")
maths = importlib.import_module("tinyseg.ops.activation")

SHAPES = [
    (),
    (7,),
    (5, 33),
    (1, 1, 3, 5),
    (3, 5, 7, 9),
    (1, 16, 33, 31),
    (3, 33, 17, 5),
    (2, 64, 19, 21),
    (2, 3, 4, 5, 6),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
UNITS = 4  # roundings of an exponential, a sum and a quotient


def single(a, layout=np.asarray):
    return layout(np.asarray(a, np.float32))


def same(found, expected):
    assert found.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@shapes
@layouts
def test_relu(shape, layout):
    x, gy = single(spaced(*shape, gap=0.1), layout), single(rand(*shape), layout)
    y = fast.relu_forward(x)
    same(y, np.asarray(maths.relu_forward(x)))
    same(fast.relu_grad(gy, y), np.asarray(maths.relu_grad(gy, y)))


@shapes
@layouts
def test_sigmoid(shape, layout):
    x, gy = single(20 * rand(*shape), layout), single(rand(*shape, seed=1), layout)
    expected = maths.sigmoid_forward(x.astype(np.float64))
    y = fast.sigmoid_forward(x)
    within(y, expected, UNITS * EPS32 * expected)
    expected = maths.sigmoid_grad(gy.astype(np.float64), y.astype(np.float64))
    within(fast.sigmoid_grad(gy, y), expected, UNITS * EPS32 * abs(expected))


@pytest.mark.parametrize("name", ["relu_grad", "sigmoid_grad"])
def test_the_cotangent_may_lie_otherwise_than_the_output(name):
    y, gy = single(maths.sigmoid_forward(rand(2, 5, 7, 9)) - 0.5), single(rand(2, 5, 7, 9, seed=1))
    expected = getattr(fast, name)(gy, y)
    for a in LAYOUTS.values():
        for b in LAYOUTS.values():
            same(getattr(fast, name)(a(gy), b(y)), expected)


def test_the_layout_is_kept():
    x = single(rand(2, 5, 7, 9))
    for layout in (LAYOUTS["planes"], LAYOUTS["pixels"]):
        a = layout(x)
        for y in (fast.relu_forward(a), fast.sigmoid_forward(a), fast.relu_grad(x, a), fast.sigmoid_grad(x, a)):
            assert y.strides == a.strides


@layouts
def test_inputs_come_back_unchanged(layout):
    x, gy = single(rand(2, 5, 7, 9), layout), single(rand(2, 5, 7, 9, seed=1), layout)
    before = x.copy(), gy.copy()
    for f, args in (
        (fast.relu_forward, (x,)),
        (fast.sigmoid_forward, (x,)),
        (fast.relu_grad, (gy, x)),
        (fast.sigmoid_grad, (gy, x)),
    ):
        assert not np.shares_memory(f(*args), x)
    same(x, before[0])
    same(gy, before[1])


def test_zero_gets_no_gradient():
    y = fast.relu_forward(np.array([-1, 0, 2], np.float32))
    same(fast.relu_grad(np.ones(3, np.float32), y), np.array([0, 0, 1], np.float32))


@pytest.mark.parametrize("size", [3, 64])
def test_nan_is_seen_and_stays_where_it_is(size):
    x = single(rand(size))
    x[1] = np.nan
    on = np.ones_like(x)
    for y in (fast.relu_forward(x), fast.sigmoid_forward(x), fast.sigmoid_grad(x, on / 2), fast.relu_grad(x, on)):
        assert np.flatnonzero(np.isnan(y)).tolist() == [1]


def test_extreme_values():
    x = np.array([-np.inf, -1000, -104, -88, 88, 89, 1000, np.inf], np.float32)
    np.testing.assert_allclose(fast.sigmoid_forward(x), [0, 0, 0, 0, 1, 1, 1, 1], atol=1e-37)
    same(fast.relu_forward(x), np.maximum(x, 0))


def test_exp_and_log1p_are_accurate_to_their_last_digits():
    from numba import njit

    @njit
    def each(f, x, y):
        for i in range(len(x)):
            y[i] = f(x[i])

    for f, exact, x in (
        (fast.exp, np.exp, np.linspace(-87.3, 0, 100_001)),
        (fast.exp, np.exp, -np.logspace(-9, 0, 10_001)),
        (fast.log1p, np.log1p, np.linspace(0, 1, 100_001)),
        (fast.log1p, np.log1p, np.logspace(-30, 0, 10_001)),
    ):
        x = x.astype(np.float32)
        y = np.empty_like(x)
        each(f, x, y)
        np.testing.assert_allclose(y, exact(x.astype(np.float64)), rtol=2 * EPS32)


def test_supports_float32_only():
    assert fast.supports(np.zeros(3, np.float32)) and not fast.supports(np.zeros(3))
