"""How work is cut for threads: nothing is left out, none has much more to do, and their number changes no bit."""

import os
import subprocess
import sys

import numpy as np
import pytest
from arrays import same_with_any_number_of_threads, single, within

pytest.importorskip("numba")

from tinyseg.fast.cpu import (  # noqa: E402
    conv2d,
    depthwise_conv,
    fused_conv,
    group_norm,
    pointwise_conv,
    separable_conv,
)
from tinyseg.fast.cpu.pointwise_conv import MOST, _cut  # noqa: E402
from tinyseg.fast.cpu.shares import LONG, MOST_SHARES, divide_sums, shares, sum_parts  # noqa: E402
from tinyseg.fast.cpu.simd import LARGE, ROWS  # noqa: E402
from tinyseg.fast.cpu.windows import band_rows  # noqa: E402
from tinyseg.ops import separable_conv as maths  # noqa: E402
from tinyseg.ops.window import resolve  # noqa: E402

THREADS = [1, 2, 3, 8, 64]


def largest_share(tasks, threads):
    return max(tasks * (t + 1) // threads - tasks * t // threads for t in range(threads))


@pytest.mark.parametrize("threads", THREADS)
def test_pixels_are_cut_into_whole_tiles_and_equal_shares(threads):
    for P in [*range(1, 400), 1024, 4096, 4097, 65536]:
        size, pieces = _cut(P, threads)
        assert size % ROWS == 0 and size <= MOST and (pieces - 1) * size < P <= pieces * size
        longest = min(P, largest_share(pieces, threads) * size)
        assert longest <= P / threads * (1 + ROWS / MOST) + 2 * ROWS
    assert largest_share(_cut(256, 2)[1], 2) * _cut(256, 2)[0] <= 128 + ROWS  # the deepest level: it was 192 and 64


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("row", [64, 16384, 1 << 17])
def test_bands_are_few_and_shares_equal(threads, row):
    for N in range(1, 10):
        for OH in [*range(1, 40), 256]:
            rows = band_rows(N, OH, row, threads)
            assert 1 <= rows <= min(8, OH) and (rows == 1 or rows * row <= 1 << 16)
            share = largest_share(N * -(-OH // rows), threads) * (rows + 1)
            for other in range(1, rows):  # smaller bands would not make the longest share shorter
                assert share <= largest_share(N * -(-OH // other), threads) * (other + 1)


def test_two_threads_share_a_small_image_in_two_bands():
    assert band_rows(1, 8, 8 * 512, 2) == 4  # it was 1: eight passes over half a million weights
    assert band_rows(2, 8, 8 * 512, 2) == 8
    assert band_rows(3, 8, 8 * 512, 2) == 4


# ----- sums over pixels --------------------------------------------------------------------------
def test_shares_are_many_where_the_sums_are_small_and_large_sums_are_divided():
    def of(pixels, channels, tasks):
        sums, read = channels**2, 2 * pixels * channels
        return "divided" if divide_sums(sums, read) else shares(tasks, sums, read)

    assert of(256**2, 64, 64) == 64 and of(128**2, 128, 32) == 32 and of(64**2, 256, 16) == 4
    assert of(32**2, 512, 8) == of(16**2, 1024, 4) == "divided"
    assert of(10**7, 64, 10**4) == MOST_SHARES and of(100, 1, 1) == 1


@pytest.mark.parametrize("shape", [(1, 3, 5), (4, 64, 65), (3, 4096), (2, 4095), (5, 4097), (7, 2, 3, 1400)])
def test_sum_parts(shape):
    parts = single(*shape)
    found, doubles = sum_parts(parts), parts.astype(np.float64)
    within(found, doubles.sum(axis=0), 1e-6 * abs(doubles).sum(axis=0))


def flat(found):
    """Return the arrays in nested tuples, as a list."""
    return [a for part in found for a in (flat(part) if isinstance(part, tuple) else [part])]


SAME, ONE = ((1, 1), (1, 1)), (1, 1)
SHARED, DIVIDED = (2, 32, 24, 40), (1, 96, 8, 8)  # N, C, H, W whose gradients of C x C weights are cut in either way


@pytest.mark.parametrize("shape", [SHARED, DIVIDED, (1, 37, 9, 11), (1, 16, 9, 2 * LONG)])
def test_the_number_of_threads_changes_no_bit_of_a_pointwise_convolution(shape):
    x, gy, w = single(*shape), single(*shape, seed=1), single(shape[1], shape[1], seed=2)
    same_with_any_number_of_threads(
        lambda: [pointwise_conv.forward(x, w), pointwise_conv.grad_x(gy, w), pointwise_conv.grad_w(x, gy)]
    )


@pytest.mark.parametrize("stride, dilation", [((1, 1), (1, 1)), ((2, 1), (1, 1)), ((1, 1), (2, 3))])
@pytest.mark.parametrize("shape", [SHARED, DIVIDED, (1, 37, 9, 11)])
def test_the_number_of_threads_changes_no_bit_of_a_depthwise_convolution(shape, stride, dilation):
    (N, C, H, W), pads = shape, tuple((d, d) for d in dilation)
    out = -(-H // stride[0]), -(-W // stride[1])
    x, w, gy = single(*shape), single(C, 3, 3, seed=1), single(N, C, *out, seed=2)
    args = stride, pads
    same_with_any_number_of_threads(
        lambda: [
            depthwise_conv.forward(x, w, *args, out, dilation),
            depthwise_conv.grad_x(gy, w, x.shape, *args, dilation),
            depthwise_conv.grad_w(x, gy, w.shape, *args, dilation),
        ]
    )


@pytest.mark.parametrize("kernel, stride", [((3, 3), (1, 1)), ((3, 3), (2, 2)), ((1, 2), (1, 1))])
@pytest.mark.parametrize("shape", [(2, 1, 40, 56), SHARED, DIVIDED])
def test_the_number_of_threads_changes_no_bit_of_a_standard_convolution(shape, kernel, stride):
    N, C, H, W = shape
    pads = tuple(((k - 1) // 2, k // 2) for k in kernel)
    out = -(-H // stride[0]), -(-W // stride[1])
    x, w, gy = single(*shape), single(64, C, *kernel, seed=1), single(N, 64, *out, seed=2)
    same_with_any_number_of_threads(
        lambda: [
            conv2d.forward(x, w, stride, pads, out),
            conv2d.grad_x(gy, w, shape, stride, pads),
            conv2d.grad_w(x, gy, w.shape, stride, pads),
        ]
    )


@pytest.mark.parametrize("shape", [SHARED, DIVIDED, (1, 37, 9, 11)])
@pytest.mark.parametrize("factor", [1, 2])
def test_the_number_of_threads_changes_no_bit_of_fused_convolutions(shape, factor):
    N, C, H, W = shape
    xs, out = (single(*shape), single(N, 5, H, W, seed=1)), (factor * H, factor * W)
    wd, wp, b = single(C + 5, 3, 3, seed=2), single(C, C + 5, seed=3), single(C, seed=4)
    w, gy = single(C, C + 5, 3, 3, seed=5), single(N, C, *out, seed=6)

    def results():
        y = separable_conv.forward(xs, wd, wp, b, ONE, SAME, out, factor, True)
        dense = fused_conv.forward(xs, w, b, ONE, SAME, out, factor, True)
        return flat((
            y, separable_conv.backward(gy, xs, wd, wp, y, ONE, SAME, factor, True),
            dense, fused_conv.backward(gy, xs, w, dense, True, ONE, SAME, factor, True),
        ))  # fmt: skip

    same_with_any_number_of_threads(results)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "pads", "factor"),
    [
        ((2, 16, 9, 2100), (3, 3), (1, 1), SAME, 1),  # bands of as few rows as the kernel reaches
        ((1, 16, 15, 700), (7, 1), (1, 1), ((3, 3), (0, 0)), 1),
        ((3, 16, 11, 60), (5, 3), (2, 1), ((2, 1), (0, 3)), 1),
        ((2, 5, 7, 40), (2, 2), (1, 1), ((0, 1), (0, 1)), 2),
        ((2, 16, 21, 33), (3, 3), (3, 2), ((0, 0), (0, 0)), 1),  # some rows of X in no window
        ((1, 16, 6, 9), (3, 3), (1, 1), ((5, 4), (4, 5)), 1),  # more border than kernel
        ((2, 3, 12, 8), (1, 1), (2, 2), ((0, 0), (0, 0)), 1),
    ],
)
def test_the_number_of_threads_changes_no_bit_of_a_separable_convolution(shape, kernel, stride, pads, factor):
    N, C, H, W = shape
    x, wd, wp = single(*shape), single(C, *kernel, seed=1), single(24, C, seed=2)
    stride, pads, out = resolve((N, C, factor * H, factor * W), kernel, stride, pads)
    gy = single(N, 24, *out, seed=3)
    backward = separable_conv.backward
    same_with_any_number_of_threads(lambda: flat(backward(gy, (x,), wd, wp, gy, stride, pads, factor, True)))
    gwd, gwp, gb, (gx,) = backward(gy, (x,), wd, wp, gy, stride, pads, factor, True)
    doubles = (a.astype(np.float64) for a in (gy, x, wd, wp, gy))
    y, x, wd, wp, gy = doubles
    expected = maths.backward(gy, (x,), wd, wp, y, stride, pads, factor, True)
    for found, e in zip((gwd, gwp, gb, gx), (*expected[:3], *expected[3]), strict=True):
        np.testing.assert_allclose(found, e, atol=2e-5 * abs(e).max())


def test_two_large_images_are_computed_as_each_of_them_alone():
    shape = N, C, H, W = 2, 64, 256, 128  # together they have as many numbers as are written past the caches
    assert np.prod(shape) >= LARGE > np.prod(shape) // 2
    xs, gys = single(*shape), single(*shape, seed=1)
    wd, wp, b, ones = single(C, 3, 3, seed=2), single(C, C, seed=3), single(C, seed=4), np.ones(C, np.float32)

    def results(x, gy):
        normalized, mean, rstd = group_norm.forward(x, ones, b, 32, 1e-5)
        return [
            pointwise_conv.forward(x, wp),
            depthwise_conv.forward(x, wd, ONE, SAME, (H, W)),
            separable_conv.forward((x,), wd, wp, b, ONE, SAME, (H, W), 1, True),
            *separable_conv.backward(gy, (x,), wd, wp, gy, ONE, SAME, 1, True)[3],
            normalized,
            group_norm.backward(gy, x, ones, mean, rstd)[0],
        ]

    together = results(xs, gys)
    for n in range(N):
        for found, alone in zip(together, results(xs[n : n + 1], gys[n : n + 1]), strict=True):
            assert np.array_equal(found[n : n + 1], alone)


STEPS = """
import hashlib, numpy as np, tinyseg as ts
digest = hashlib.sha256()
for name in ("sdunet", "unet_dw_bn"):
    model = ts.models.build(name, 1, 1, width=8)
    optimizer, rng = ts.optim.Adam(model.parameters(), lr=1e-3), np.random.default_rng(0)
    for _ in range(2):
        optimizer.zero_grad()
        x = rng.standard_normal((2, 1, 64, 48), np.float32)
        ts.ops.binary_cross_entropy_with_logits(model(x), (x > 0).astype(np.float32)).backward()
        optimizer.step()
    for p in model.parameters():
        digest.update(p.data.tobytes())
print(digest.hexdigest())
"""


def test_steps_of_a_training_have_the_same_bits_on_one_thread_and_on_five():
    found = {
        subprocess.run(
            [sys.executable, "-c", STEPS],
            env=os.environ | {"NUMBA_NUM_THREADS": threads},
            check=True,
            capture_output=True,
        ).stdout
        for threads in ("1", "5")
    }
    assert len(found) == 1 and len(found.pop()) > 60
