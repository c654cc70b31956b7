"""The numba kernels of group_norm in float32 against the maths in float64."""

import importlib

import numpy as np
import pytest
from arrays import EPS32, doubles, layouts, rand, same_with_any_number_of_threads, within

maths = importlib.import_module("tinyseg.ops.group_norm")

CASES = [
    ((1, 1, 1, 3), 1),
    ((3, 1, 131, 101), 1),
    ((1, 5, 7, 9), 5),
    ((3, 5, 7, 9), 1),
    ((3, 16, 33, 31), 4),
    ((1, 33, 20, 11), 3),
    ((3, 64, 37, 45), 16),
    ((2, 300, 9, 7), 2),
]
cases = pytest.mark.parametrize(("shape", "G"), CASES, ids=str)
EPS = 1e-5


@pytest.fixture
def fast():
    pytest.importorskip("numba")
    return importlib.import_module("tinyseg.fast.cpu.group_norm")


def arrays(shape, offset=0.0):
    """x, gy, γ, β in float32."""
    C = shape[1]
    xs = rand(*shape) + offset, rand(*shape, seed=1), rand(C, seed=2), rand(C, seed=3)
    return [a.astype(np.float32) for a in xs]


def terms(shape):
    """How many numbers are added in float32 at most (the rows of a chunk), and some roundings of other kinds."""
    from tinyseg.fast.cpu.batch_norm import plan_rows

    return plan_rows(np.empty((1, np.prod(shape[1:]))), shape[1])[1] + 8


def per_channel(a, shape):
    """Numbers (N, G, 1) of groups as (N, C, 1, 1)."""
    return np.repeat(a, shape[1] // a.shape[1], axis=1)[..., None]


@cases
@layouts
def test_forward(shape, G, layout, fast):
    x, _, gamma, beta = arrays(shape)
    x, n = layout(x), terms(shape) * EPS32
    y, mean, rstd = fast.forward(x, gamma, beta, G, EPS)
    exact_y, exact_mean, exact_rstd = maths.forward(*doubles(x, gamma, beta), G, EPS)
    within(mean, exact_mean, EPS32 * (abs(exact_mean) + 1 / exact_rstd))
    within(rstd, exact_rstd, n * exact_rstd)
    m, r = (per_channel(a, shape) for a in (exact_mean, exact_rstd))
    within(y, exact_y, n * (abs(x - m) + abs(m)) * r * abs(gamma[:, None, None]) + EPS32 * abs(beta[:, None, None]))


@cases
@layouts
def test_backward(shape, G, layout, fast):
    x, gy, gamma, beta = arrays(shape)
    _, mean, rstd = fast.forward(x, gamma, beta, G, EPS)
    found = fast.backward(layout(gy), layout(x), gamma, mean, rstd)
    gy, x, gamma, mean, rstd = doubles(gy, x, gamma, mean, rstd)
    expected = maths.backward(gy, x, gamma, mean, rstd)
    # The same sums of absolute values: each rounding is a fraction of these.
    n, r = terms(shape) * EPS32, per_channel(rstd, shape)
    xhat, gxhat = abs((x - per_channel(mean, shape)) * r), abs(gy * gamma[:, None, None])
    means = [a.reshape(len(x), G, -1).mean(axis=2, keepdims=True) for a in (gxhat, gxhat * xhat)]
    size = gxhat + per_channel(means[0], shape) + xhat * per_channel(means[1], shape)
    within(found[0], expected[0], n * size * r)
    within(found[1], expected[1], n * (abs(gy) * xhat).sum(axis=(0, 2, 3)))
    within(found[2], expected[2], n * abs(gy).sum(axis=(0, 2, 3)))


@cases
def test_a_large_offset_costs_its_own_rounding_only(shape, G, fast):
    x, gy, gamma, beta = arrays(shape, offset=1000)
    y, mean, rstd = fast.forward(x, gamma, beta, G, EPS)
    exact_y, exact_mean, exact_rstd = maths.forward(*doubles(x, gamma, beta), G, EPS)
    np.testing.assert_allclose(mean, exact_mean, rtol=EPS32)
    np.testing.assert_allclose(rstd, exact_rstd, rtol=terms(shape) * EPS32)
    # The mean, near 1000, is rounded: every x̂ is off by the same δ.
    delta = 1000 * EPS32 * exact_rstd.max() * abs(gamma).max()
    np.testing.assert_allclose(y, exact_y, rtol=1e-5, atol=delta + 1e-5)
    exact = maths.backward(*doubles(gy, x, gamma), exact_mean, exact_rstd)
    found = fast.backward(gy, x, gamma, mean, rstd)
    for a, b, sizes in zip(found, exact, (10 * exact_rstd.max(), abs(gy).sum(), 1), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=(delta + 1e-5) * sizes)


def test_an_outlier_does_not_spoil_the_variance(fast):
    """The first value of an image lies far from all others: what a shift by it, or none, would be worst at."""
    x = rand(1, 2, 64, 64).astype(np.float32)
    x[0, :, 0, 0] = 1e4
    _, mean, rstd = fast.forward(x, np.ones(2, np.float32), np.zeros(2, np.float32), 2, EPS)
    _, exact_mean, exact_rstd = maths.forward(x.astype(np.float64), np.ones(2), np.zeros(2), 2, EPS)
    np.testing.assert_allclose(mean, exact_mean, rtol=4 * EPS32)
    np.testing.assert_allclose(rstd, exact_rstd, rtol=terms(x.shape) * EPS32)


@layouts
def test_inputs_come_back_unchanged(layout, fast):
    given = x, gy, gamma, beta = [layout(a) if a.ndim == 4 else a for a in arrays((3, 6, 7, 9))]
    before = [a.copy() for a in given]
    _, mean, rstd = fast.forward(x, gamma, beta, 3, EPS)
    given, before = [*given, mean, rstd], [*before, mean.copy(), rstd.copy()]
    fast.backward(gy, x, gamma, mean, rstd)
    for a, b in zip(given, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_nan_is_seen_in_its_group(fast):
    x, gy, gamma, beta = arrays((2, 6, 33, 31))
    x[1, 2, 30, 7] = np.nan
    y, mean, rstd = fast.forward(x, gamma, beta, 3, EPS)
    gx, ggamma, _ = fast.backward(gy, x, gamma, mean, rstd)
    for a in (mean, rstd):
        np.testing.assert_array_equal(np.isnan(a[..., 0]), [[False] * 3, [False, True, False]])
    np.testing.assert_array_equal(np.isnan(ggamma), [False, False, True, True, False, False])
    for a in (y, gx):
        assert np.isnan(a[1, 2:4]).all() and np.isfinite(a[0]).all() and np.isfinite(np.delete(a[1], [2, 3], 0)).all()


@cases
def test_the_number_of_threads_does_not_matter(shape, G, fast):
    x, gy, gamma, beta = arrays(shape)

    def results():
        y, mean, rstd = fast.forward(x, gamma, beta, G, EPS)
        return [y, mean, rstd, *fast.backward(gy, x, gamma, mean, rstd)]

    same_with_any_number_of_threads(results)


def test_a_constant_group_becomes_beta(fast):
    x, beta = np.full((3, 6, 33, 31), 0.1, np.float32), rand(6).astype(np.float32)
    y, _, _ = fast.forward(x, np.ones(6, np.float32), beta, 2, EPS)
    np.testing.assert_array_equal(y, np.broadcast_to(beta[:, None, None], x.shape))


def test_supports_float32_images_only(fast):
    assert fast.supports(np.zeros((1, 2, 3, 4), np.float32))
    assert not fast.supports(np.zeros((1, 2, 3, 4)))
    assert not fast.supports(np.zeros((1, 2, 3), np.float32))
