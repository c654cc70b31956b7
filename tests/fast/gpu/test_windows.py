"""The CUDA kernels of pooling and upsampling against the maths files, on a stand-in for the GPU or a real one."""

import numpy as np
import pytest
from arrays import EPS32, WINDOWS, doubles, rand, spaced, value_and_grads
from stand_in import LAYOUTS, both, chosen, reals, within

from tinyseg import ops, using
from tinyseg.fast.gpu import launch as cuda
from tinyseg.ops.window import resolve

(pool, pool_gpu), (upsample, upsample_gpu) = both("pool"), both("upsample")
SIZES = [(1, 5), (3, 1), (2, 4)]  # N, C
POOLS = [(7, 5, (2, 2), 2, 0), (6, 8, (2, 2), 2, 0), (2, 3, (2, 2), 2, 0), (9, 2, (2, 2), 2, 0), (8, 7, (2, 2), 1, 0)]
POOLS += [case[:5] for case in WINDOWS if all(2 * max(p) <= k for p, k in zip(case[5], case[2], strict=True))]
pools = pytest.mark.parametrize(
    ("N", "C", "layout", "H", "W", "kernel", "stride", "padding"),
    [(*SIZES[i % 3], list(LAYOUTS.values())[i % 3], *case) for i, case in enumerate(POOLS)],
)
FACTORS = [(1, 1), (2, 2), (3, 2), (1, 4), (5, 3)]
upsamplings = pytest.mark.parametrize(
    ("N", "C", "layout", "H", "W", "factor"),
    [
        (*SIZES[(i + k) % 3], list(LAYOUTS.values())[i % 3], *size, factor)
        for i, size in enumerate([(1, 1), (1, 6), (7, 5), (4, 19)])
        for k, factor in enumerate(FACTORS)
    ],
)


def single(a):
    return a.astype(np.float32)


# ----- pools ---------------------------------------------------------------------------
@pools
@reals
def test_maxima_and_winners_are_those_of_the_maths(N, C, layout, H, W, kernel, stride, padding, real, stand_in):
    stride, pads, out = resolve((N, C, H, W), kernel, stride, padding)
    values = np.array([-np.inf, -1, 0, 1, np.nan])  # ties, borders and NaN everywhere
    for x in (spaced(N, C, H, W), np.random.default_rng(0).choice(values, (N, C, H, W))):
        x = x.astype(real)
        given = layout(stand_in, x)
        found = pool_gpu.max_forward(given, kernel, stride, pads, out)
        for a, b in zip(found, pool.max_forward(x, kernel, stride, pads, out), strict=True):
            assert type(a) is stand_in.ndarray and a.dtype == b.dtype and a.shape == b.shape
            np.testing.assert_array_equal(stand_in.asnumpy(a), b)
        np.testing.assert_array_equal(stand_in.asnumpy(given), x)


@pools
@reals
def test_gradients_go_to_the_winners(N, C, layout, H, W, kernel, stride, padding, real, stand_in):
    stride, pads, out = resolve((N, C, H, W), kernel, stride, padding)
    gy, args = rand(N, C, *out).astype(real), ((N, C, H, W), kernel, stride, pads)
    _, winner = pool.max_forward(spaced(N, C, H, W), *args[1:], out)
    given = layout(stand_in, gy), layout(stand_in, winner)
    bound = kernel[0] * kernel[1] * EPS32 * pool.max_grad_x(abs(*doubles(gy)), winner, *args)
    within(stand_in, pool_gpu.max_grad_x(*given, *args), pool.max_grad_x(*doubles(gy), winner, *args), bound, real)
    for a, b in zip(given, (gy, winner), strict=True):
        np.testing.assert_array_equal(stand_in.asnumpy(a), b)


@pools
@reals
def test_averages(N, C, layout, H, W, kernel, stride, padding, real, stand_in):
    stride, pads, out = resolve((N, C, H, W), kernel, stride, padding)
    x, gy = rand(N, C, H, W).astype(real), rand(N, C, *out).astype(real)
    for name, a, rest in (
        ("avg_forward", x, (kernel, stride, pads, out)),
        ("avg_grad_x", gy, (x.shape, kernel, stride, pads)),
    ):
        given = layout(stand_in, a)
        found, maths = getattr(pool_gpu, name)(given, *rest), getattr(pool, name)
        bound = (kernel[0] * kernel[1] + 2) * EPS32 * maths(abs(*doubles(a)), *rest)
        within(stand_in, found, maths(*doubles(a), *rest), bound, real)
        np.testing.assert_array_equal(stand_in.asnumpy(given), a)


# ----- upsampling ----------------------------------------------------------------------
@upsamplings
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@reals
def test_upsampling(N, C, layout, H, W, factor, mode, real, stand_in):
    x, gy = (rand(N, C, *size, seed=size[0]).astype(real) for size in ((H, W), (H * factor[0], W * factor[1])))
    taps = 9 * factor[0] * factor[1] if mode == "bilinear" else factor[0] * factor[1]
    for name, a in ((f"{mode}_forward", x), (f"{mode}_grad_x", gy)):
        given = layout(stand_in, a)
        found, maths = getattr(upsample_gpu, name)(given, factor), getattr(upsample, name)
        bound = (taps + 4) * EPS32 * maths(abs(*doubles(a)), factor)  # and roundings of the weights
        within(stand_in, found, maths(*doubles(a), factor), bound if mode == "bilinear" or a is gy else 0, real)
        np.testing.assert_array_equal(stand_in.asnumpy(given), a)


# ----- through the ops -----------------------------------------------------------------
CALLS = {
    "max_pool2d": (pool, pool_gpu, lambda x: ops.max_pool2d(x, 2)),
    "max_pool2d-overlapping": (pool, pool_gpu, lambda x: ops.max_pool2d(x, (3, 2), 1, (1, 0))),
    "avg_pool2d": (pool, pool_gpu, lambda x: ops.avg_pool2d(x, (3, 2), 1, (1, 0))),
    "nearest": (upsample, upsample_gpu, lambda x: ops.upsample(x, (2, 3))),
    "bilinear": (upsample, upsample_gpu, lambda x: ops.upsample(x, (2, 3), "bilinear")),
}


@pytest.mark.parametrize("limit", [2**31, 200, 100])
@pytest.mark.parametrize(("maths", "fast", "f"), CALLS.values(), ids=CALLS)
def test_through_the_op(maths, fast, f, limit, stand_in, monkeypatch):
    """With room for all arrays, for an input of 140 elements but not every output, or only for small outputs."""
    monkeypatch.setattr(cuda, "LIMIT", limit)
    x = stand_in.asarray(single(spaced(2, 2, 7, 5)))
    assert chosen(maths.__name__, x) is (fast if limit > x.size else maths)
    assert chosen(maths.__name__, x.astype(np.float64)) is maths
    found = value_and_grads(f, x)
    with using(kernels="reference"):
        expected = value_and_grads(f, x)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(stand_in.asnumpy(a), stand_in.asnumpy(b), rtol=0, atol=1e-5)
