"""The numba kernels of batch_norm in float32 against the maths in float64."""

import importlib

import numpy as np
import pytest
from arrays import EPS32, doubles, layouts, rand, same_with_any_number_of_threads, within

maths = importlib.import_module("tinyseg.ops.batch_norm")

SHAPES = [
    (1, 1, 1, 3),
    (3, 1, 131, 101),
    (1, 5, 7, 9),
    (3, 16, 33, 31),
    (1, 33, 20, 11),
    (3, 64, 37, 45),
    (2, 300, 9, 7),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


@pytest.fixture
def fast():
    pytest.importorskip("numba")
    return importlib.import_module("tinyseg.fast.cpu.batch_norm")


def arrays(shape, offset=0.0):
    """x, gy, γ, β in float32."""
    C = shape[1]
    xs = rand(*shape) + offset, rand(*shape, seed=1), rand(C, seed=2), rand(C, seed=3)
    return [a.astype(np.float32) for a in xs]


def terms(shape, fast):
    """How many numbers are added in float32 at most (the rows of a chunk), and some roundings of other kinds."""
    return fast.plan_rows(np.empty((1, np.prod(shape))), shape[1])[1] + 8


def rstd_of(var):
    return 1 / np.sqrt(var + 1e-5)


@shapes
@layouts
def test_statistics(shape, layout, fast):
    x = layout(arrays(shape)[0])
    mean, var = maths.statistics(x.astype(np.float64))
    found = fast.statistics(x)
    within(found[0], mean, EPS32 * (abs(mean) + 2 * np.sqrt(var)))  # of the sums on the way, which grow to several σ
    within(found[1], var, EPS32 * terms(shape, fast) * var)


@shapes
@layouts
def test_forward(shape, layout, fast):
    x, _, gamma, beta = arrays(shape)
    mean, var = fast.statistics(x)
    rstd, x = rstd_of(var), layout(x)
    expected = maths.forward(*doubles(x, gamma, beta, mean, rstd))
    found = fast.forward(x, gamma, beta, mean, rstd)
    size = abs(x - mean) * abs(rstd * gamma[:, None, None]) + abs(beta[:, None, None])
    within(found, expected, 4 * EPS32 * size)


@shapes
@layouts
@pytest.mark.parametrize("training", [True, False])
def test_backward(shape, layout, training, fast):
    x, gy, gamma, _ = arrays(shape)
    mean, var = fast.statistics(x)
    rstd, n = rstd_of(var), terms(shape, fast) * EPS32
    x, gy = layout(x), layout(gy)
    found = fast.backward(gy, x, gamma, mean, rstd, training)
    gy, x, gamma, mean, rstd = doubles(gy, x, gamma, mean, rstd)
    expected = maths.backward(gy, x, gamma, mean, rstd, training)
    # The same sums of absolute values: each rounding is a fraction of these.
    xhat, axes = abs((x - mean) * rstd), (0, 2, 3)
    means = abs(gy).mean(axis=axes), (abs(gy) * xhat).mean(axis=axes)
    size = abs(gy) + training * (means[0][:, None, None] + xhat * means[1][:, None, None])
    within(found[0], expected[0], n * size * rstd * abs(gamma[:, None, None]))
    within(found[1], expected[1], n * (abs(gy) * xhat).sum(axis=axes))
    within(found[2], expected[2], n * abs(gy).sum(axis=axes))


@shapes
def test_a_large_offset_costs_its_own_rounding_only(shape, fast):
    x, gy, gamma, beta = arrays(shape, offset=1000)
    mean, var = fast.statistics(x)
    exact_mean, exact_var = maths.statistics(x.astype(np.float64))
    np.testing.assert_allclose(mean, exact_mean, rtol=EPS32)
    np.testing.assert_allclose(var, exact_var, rtol=terms(shape, fast) * EPS32)
    rstd, exact_rstd = rstd_of(var), rstd_of(exact_var)
    # The mean, near 1000, is rounded: every x̂ is off by the same δ.
    delta = 1000 * EPS32 * exact_rstd.max() * abs(gamma).max()
    exact = maths.forward(*doubles(x, gamma, beta), exact_mean, exact_rstd)
    np.testing.assert_allclose(fast.forward(x, gamma, beta, mean, rstd), exact, rtol=1e-5, atol=delta + 1e-5)
    exact = maths.backward(*doubles(gy, x, gamma), exact_mean, exact_rstd, True)
    found = fast.backward(gy, x, gamma, mean, rstd, True)
    for a, b, sizes in zip(found, exact, (10 * exact_rstd.max(), abs(gy).sum(), 1), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=(delta + 1e-5) * sizes)


@layouts
def test_inputs_come_back_unchanged(layout, fast):
    x, gy, gamma, beta = (layout(a) if a.ndim == 4 else a for a in arrays((3, 5, 7, 9)))
    mean, var = fast.statistics(x)
    given = gy, x, gamma, beta, mean, var
    before = [a.copy() for a in given]
    fast.forward(x, gamma, beta, mean, var)
    fast.backward(gy, x, gamma, mean, var, True)
    for a, b in zip(given, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_nan_is_seen_in_its_channel(fast):
    x, gy, gamma, beta = arrays((2, 5, 33, 31))
    x[1, 2, 30, 7] = np.nan
    mean, var = fast.statistics(x)
    y = fast.forward(x, gamma, beta, mean, rstd_of(var))
    gx, ggamma, _ = fast.backward(gy, x, gamma, mean, rstd_of(var), True)
    for a in (mean.reshape(5), var.reshape(5), ggamma):
        np.testing.assert_array_equal(np.isnan(a), [False, False, True, False, False])
    for a in (y, gx):
        assert np.isnan(a[:, 2]).all() and np.isfinite(np.delete(a, 2, axis=1)).all()


@shapes
def test_the_number_of_threads_does_not_matter(shape, fast):
    x, gy, gamma, _ = arrays(shape)

    def results():
        mean, var = fast.statistics(x)
        return [mean, var, *fast.backward(gy, x, gamma, mean, rstd_of(var), True)]

    same_with_any_number_of_threads(results)


def test_a_constant_channel_becomes_beta(fast):
    x, beta = np.full((3, 5, 33, 31), 0.1, np.float32), rand(5).astype(np.float32)
    mean, var = fast.statistics(x)
    y = fast.forward(x, np.ones(5, np.float32), beta, mean, rstd_of(var))
    np.testing.assert_array_equal(y, np.broadcast_to(beta[:, None, None], x.shape))


def test_supports_float32_images_only(fast):
    assert fast.supports(np.zeros((1, 2, 3, 4), np.float32))
    assert not fast.supports(np.zeros((1, 2, 3, 4)))
    assert not fast.supports(np.zeros((1, 2, 3), np.float32))
