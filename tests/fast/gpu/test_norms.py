"""The CUDA kernels of the norms and of weight standardization in float32 and float16 against the maths in float64."""

import math

import numpy as np
import pytest
from arrays import EPS32, doubles, rand
from stand_in import LAYOUTS, both, layouts, planes, reals, rounding, slices, within

CASES = [  # shape, groups
    ((1, 1, 1, 3), 1),
    ((3, 1, 67, 65), 1),  # two slices
    ((1, 5, 7, 9), 5),
    ((3, 5, 7, 9), 1),
    ((1, 6, 73, 59), 2),  # two slices a plane, four a group
    ((1, 33, 5, 11), 3),
    ((2, 300, 3, 2), 1),  # more planes in a group than threads in a block
    ((300, 2, 1, 3), 2),
    ((1, 2, 64, 64), 2),  # a slice to the last element
]
in_layouts = [((3, 5, 7, 9), 1, layout) for layout in LAYOUTS]
cases = pytest.mark.parametrize(
    ("shape", "G", "layout"), [(*case, "planes") for case in CASES] + in_layouts[1:], ids=str
)
EPS = 1e-5


def arrays(shape, offset=0.0, real=np.float32):
    """x, gy as `real`; γ, β in float32."""
    C = shape[1]
    images, parameters = (rand(*shape) + offset, rand(*shape, seed=1)), (rand(C, seed=2), rand(C, seed=3))
    return [a.astype(real) for a in images] + [a.astype(np.float32) for a in parameters]


def terms(shape):
    """Rounding of a sum over a set: at most all slices of all planes."""
    return rounding(shape[0] * shape[1] * slices(shape[2] * shape[3]))


def statistics(op, x, G):
    """Mean and 1/σ of the sets, float64, as the op has them and as (N or 1, C, 1, 1)."""
    if op == "batch_norm":
        mean, var = both(op)[0].statistics(x)
        rstd = 1 / np.sqrt(var + EPS)
        return mean, rstd, mean[None], rstd[None]
    N, C = x.shape[:2]
    _, mean, rstd = both(op)[0].forward(x, np.ones(C), np.zeros(C), G, EPS)
    return mean, rstd, *(np.repeat(a, C // G, axis=1)[..., None] for a in (mean, rstd))


# ----- forward -----------------------------------------------------------------------
@cases
@reals
def test_group_norm(shape, G, layout, real, stand_in):
    maths, fast = both("group_norm")
    x, _, gamma, beta = arrays(shape, real=real)
    y, mean, rstd = fast.forward(LAYOUTS[layout](stand_in, x), *(planes(stand_in, a) for a in (gamma, beta)), G, EPS)
    exact = maths.forward(*doubles(x, gamma, beta), G, EPS)
    n, (m, r) = terms(shape), statistics("group_norm", x.astype(float), G)[2:]
    within(stand_in, mean, exact[1], EPS32 * (abs(exact[1]) + 1 / exact[2]))
    within(stand_in, rstd, exact[2], n * exact[2])
    spread = n * (abs(x - m) + abs(m)) * r * abs(gamma[:, None, None])
    within(stand_in, y, exact[0], spread + EPS32 * abs(beta[:, None, None]), real)


@cases
@reals
def test_statistics_of_channels(shape, G, layout, real, stand_in):
    maths, fast = both("batch_norm")
    x, *_ = arrays(shape, real=real)
    mean, var = fast.statistics(LAYOUTS[layout](stand_in, x))
    exact_mean, exact_var = maths.statistics(x.astype(float))
    within(stand_in, mean, exact_mean, EPS32 * (abs(exact_mean) + np.sqrt(exact_var)))
    within(stand_in, var, exact_var, terms(shape) * exact_var)


@cases
@reals
def test_batch_norm(shape, G, layout, real, stand_in):
    maths, fast = both("batch_norm")
    x, _, gamma, beta = arrays(shape, real=real)
    mean, rstd = (a.astype(np.float32) for a in statistics("batch_norm", x.astype(float), G)[:2])
    y = fast.forward(LAYOUTS[layout](stand_in, x), *(planes(stand_in, a) for a in (gamma, beta, mean, rstd)))
    size = (abs(x) + abs(mean)) * rstd * abs(gamma[:, None, None]) + abs(beta[:, None, None])
    within(stand_in, y, maths.forward(*doubles(x, gamma, beta, mean, rstd)), 4 * EPS32 * size, real)


# ----- backward ----------------------------------------------------------------------
def backward(op, shape, G, training, layout, real, cp):
    """Check all three gradients; bounds: the same sums of absolute values."""
    maths, fast = both(op)
    x, gy, gamma, _ = arrays(shape, real=real)
    mean, rstd, m, r = (a.astype(np.float32) for a in statistics(op, x.astype(float), G))
    options = (training,) if op == "batch_norm" else ()
    args = LAYOUTS[layout](cp, gy), LAYOUTS[layout](cp, x), *(planes(cp, a) for a in (gamma, mean, rstd))
    found = fast.backward(*args, *options)
    expected = maths.backward(*doubles(gy, x, gamma, mean, rstd), *options)
    gy = gy.astype(float)
    xhat, gxhat, axes = abs((x - m) * r), abs(gy * gamma[:, None, None]), (0, 2, 3)
    first, second = gxhat, gxhat * xhat
    if not training:
        first = second = np.zeros_like(x)
    elif op == "batch_norm":
        first, second = (a.mean(axis=axes, keepdims=True) for a in (first, second))
    else:
        grouped = (a.reshape(len(x), G, -1).mean(axis=2) for a in (first, second))
        first, second = (np.repeat(a, shape[1] // G, axis=1)[..., None, None] for a in grouped)
    n = terms(shape)
    within(cp, found[0], expected[0], n * r * (gxhat + first + xhat * second), real)
    within(cp, found[1], expected[1], n * (abs(gy) * xhat).sum(axis=axes))
    within(cp, found[2], expected[2], n * abs(gy).sum(axis=axes))


@cases
@reals
def test_group_norm_backward(shape, G, layout, real, stand_in):
    backward("group_norm", shape, G, True, layout, real, stand_in)


@cases
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@reals
def test_batch_norm_backward(shape, G, layout, training, real, stand_in):
    backward("batch_norm", shape, G, training, layout, real, stand_in)


# ----- hard numbers ------------------------------------------------------------------
@pytest.mark.parametrize(("shape", "G"), [((2, 4, 67, 65), 2), ((3, 6, 5, 7), 3)], ids=str)
@pytest.mark.parametrize("offset", [1e3, 1e5])
def test_a_large_offset_costs_its_own_rounding_only(shape, G, offset, stand_in):
    maths, fast = both("group_norm")
    x, _, gamma, beta = arrays(shape, offset)
    _, mean, rstd = fast.forward(*(planes(stand_in, a) for a in (x, gamma, beta)), G, EPS)
    _, exact_mean, exact_rstd = maths.forward(*doubles(x, gamma, beta), G, EPS)
    within(stand_in, mean, exact_mean, 2 * EPS32 * exact_mean)
    mean_rounded = (EPS32 * offset * exact_rstd) ** 2 / 2  # of slices, then of the whole: each by half a unit
    within(stand_in, rstd, exact_rstd, (terms(shape) + mean_rounded) * exact_rstd)


def test_an_outlier_does_not_spoil_the_variance(stand_in):
    maths, fast = both("batch_norm")
    x, *_ = arrays((1, 2, 67, 65))
    x[0, :, 0, 0] = 1e4
    for found, exact in zip(fast.statistics(planes(stand_in, x)), maths.statistics(x.astype(float)), strict=True):
        within(stand_in, found, exact, rounding(2) * abs(exact))


@pytest.mark.parametrize("value", [0.1, 0.7, 1.1, 1e4 / 3])
def test_a_constant_group_becomes_beta(value, stand_in):
    _, fast = both("group_norm")
    x, beta = np.full((1, 3, 67, 95), value, np.float32), rand(3).astype(np.float32)
    y, _, _ = fast.forward(*(planes(stand_in, a) for a in (x, np.ones(3, np.float32), beta)), 1, EPS)
    np.testing.assert_array_equal(stand_in.asnumpy(y), np.broadcast_to(beta[:, None, None], x.shape))


@pytest.mark.parametrize("value", [0.1, 0.7, 1.1, 1e4 / 3])
def test_a_constant_channel_has_no_variance(value, stand_in):
    _, fast = both("batch_norm")
    mean, var = fast.statistics(planes(stand_in, np.full((37, 1, 3, 7), value, np.float32)))
    assert mean.item() == np.float32(value) and 0 <= var.item() <= (8 * EPS32 * value) ** 2


def test_nan_is_seen_in_its_group(stand_in):
    _, fast = both("group_norm")
    x, gy, gamma, beta = arrays((2, 6, 13, 11))
    x[1, 2, 3, 7] = np.nan
    x, gy, gamma, beta = (planes(stand_in, a) for a in (x, gy, gamma, beta))
    y, mean, rstd = fast.forward(x, gamma, beta, 3, EPS)
    gx, ggamma, _ = fast.backward(gy, x, gamma, mean, rstd)
    y, mean, gx, ggamma = (stand_in.asnumpy(a) for a in (y, mean, gx, ggamma))
    np.testing.assert_array_equal(np.isnan(mean[..., 0]), [[False] * 3, [False, True, False]])
    np.testing.assert_array_equal(np.isnan(ggamma), [False, False, True, True, False, False])
    for a in (y, gx):
        assert np.isnan(a[1, 2:4]).all() and np.isfinite(a[0]).all() and np.isfinite(np.delete(a[1], [2, 3], 0)).all()


# ----- weight standardization ----------------------------------------------------------
@pytest.mark.parametrize("shape", [(1, 1, 2), (5, 3, 2), (70, 61), (7, 5, 3, 3), (2, 4097), (129, 2)], ids=str)
@pytest.mark.parametrize("per", ["layer", "filter"])
@layouts
def test_weight_standardization(shape, per, layout, stand_in):
    maths, fast = both("weight_standardization")
    v, gw = rand(*shape).astype(np.float32) + np.float32(0.3), rand(*shape, seed=1).astype(np.float32)
    axes, a = tuple(range(0 if per == "layer" else 1, len(shape))), 1 / math.sqrt(v[0].size)
    w, std = fast.forward(layout(stand_in, v), axes, EPS, a)
    exact_w, exact_std = maths.forward(v.astype(float), axes, EPS, a)
    n = rounding(slices(v.size))
    within(stand_in, std, exact_std, n * exact_std)
    mean = abs(v).mean(axis=axes, keepdims=True)
    within(stand_in, w, exact_w, n * (abs(v) + mean) * a / (exact_std + EPS))
    w, std = (exact_w.astype(np.float32), exact_std.astype(np.float32))
    gv = fast.grad_v(layout(stand_in, gw), layout(stand_in, w), planes(stand_in, std), axes, EPS, a)
    exact = maths.grad_v(*doubles(gw, w, std), axes, EPS, a)
    size = a * (abs(gw) + abs(gw).mean(axis=axes, keepdims=True)) / std
    within(stand_in, gv, exact, n * (size + abs(w) * abs(gw * w).mean(axis=axes, keepdims=True) / (a * std)))


@pytest.mark.parametrize("per", ["layer", "filter"])
def test_equal_weights_stay_finite(per, stand_in):
    _, fast = both("weight_standardization")
    axes, v = (0, 1, 2) if per == "layer" else (1, 2), planes(stand_in, np.full((5, 3, 2), 0.1, np.float32))
    w, std = fast.forward(v, axes, EPS, 1)
    assert (w == 0).all() and (std == 0).all()
    gv = stand_in.asnumpy(fast.grad_v(planes(stand_in, arrays((5, 1, 3, 2))[0][:, 0]), w, std, axes, EPS, 1))
    assert np.isfinite(gv).all() and abs(gv).max() > 1000  # 1/ε
