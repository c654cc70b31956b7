"""What stands between convolutions of integers, with numba: other scales, norms, pooling, and the logits.

Arrays are uint8, (N, H, W, C). Equations as in `tinyseg.export.int8`.
"""

import numpy as np

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.channels_last import threads, whole_vectors
from tinyseg.fast.cpu.kernel_cache import FAST, njit
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.fast.cpu.simd import LANES, load, maximum, multiply_add, splat
from tinyseg.fast.cpu.simd_int8 import divide, load_bytes, round_whole, store_bytes


def requantize(q, zero, factor, summand, quantizer, pool):
    """Return the integers, for `quantizer`, of (q - zero) · factor + summand, or of the maxima of 2 × 2 pixels of that.

    q is (N, H, W, C), factor and summand (N, C).
    """
    N, H, W, C = q.shape
    step = 2 if pool else 1
    y = empty((N, H // step, W // step, C), np.uint8)
    wide = whole_vectors(C)
    a, b = (np.zeros((N, wide), np.float32) for _ in range(2))
    a[:, :C], b[:, :C] = factor, summand
    rows = y.shape[1]
    _requantize(
        N * rows, q.reshape(-1), H, W, C, np.float32(zero), a, b, np.float32(quantizer.scale),
        np.float32(quantizer.zero_point), step, y,
    )  # fmt: skip
    return y


@parallel
def _requantize(row, q, H, W, C, zero, a, b, scale, y_zero, step, y):
    """Compute one row of y."""
    N, OH, OW, _ = y.shape
    n, i = row // OH, row % OH
    ys, factors, summands, first = y.reshape(-1), a.reshape(-1), b.reshape(-1), n * a.shape[1]
    zeros, scales, y_zeros = splat(zero), splat(scale), splat(y_zero)
    whole, last = C - C % LANES, np.zeros(5 * LANES, np.uint8)  # `last`: channels that fill no vector
    for j in range(OW):
        target, source = (row * OW + j) * C, ((n * H + step * i) * W + step * j) * C
        for c in range(0, whole, LANES):
            factor, summand = load(factors, first + c), load(summands, first + c)
            store_bytes(ys, target + c, _whole(q, source + c, W, C, step, zeros, factor, summand, scales) + y_zeros)
        if whole < C:
            for k in range(C - whole):
                for v in range(step * step):
                    last[v * LANES + k] = q[source + (v // 2 * W + v % 2) * C + whole + k]
            factor, summand = load(factors, first + whole), load(summands, first + whole)
            found = _whole(last, 0, 2, LANES, step, zeros, factor, summand, scales)
            store_bytes(last, 4 * LANES, found + y_zeros)
            for k in range(C - whole):
                ys[target + whole + k] = last[4 * LANES + k]


@njit(inline="always")
def _whole(q, p, W, C, step, zeros, factor, summand, scales):
    """Return the whole numbers of a vector of channels, the zero point aside."""
    x = multiply_add(load_bytes(q, p) - zeros, factor, summand)
    if step == 2:
        x1 = multiply_add(load_bytes(q, p + C) - zeros, factor, summand)
        x2 = multiply_add(load_bytes(q, p + W * C) - zeros, factor, summand)
        x3 = multiply_add(load_bytes(q, p + (W + 1) * C) - zeros, factor, summand)
        x = maximum(maximum(x, x1), maximum(x2, x3))
    return round_whole(divide(x, scales))


def sums_of(q):
    """Return the sums of q and of q² over the pixels of each channel, float64 (N, C): exact."""
    N, H, W, C = q.shape
    parts = np.zeros((threads(), N, 2, C), np.int64)
    _sums(len(parts), q.reshape(N, H * W, C), parts)
    return parts.sum(axis=0).astype(float).transpose(1, 0, 2)


@parallel
def _sums(t, q, parts):
    N, P, C = q.shape
    T = len(parts)
    first, second = np.empty(C, np.uint32), np.empty(C, np.uint32)
    for n in range(N):
        start, stop = P * t // T, P * (t + 1) // T
        for begin in range(start, stop, 1 << 15):  # 255² · 2¹⁵ < 2³²
            for c in range(C):
                first[c] = second[c] = 0
            for p in range(begin, min(begin + (1 << 15), stop)):
                pixel = q[n, p]
                for c in range(C):
                    v = np.uint32(pixel[c])
                    first[c] += v
                    second[c] += v * v
            for c in range(C):
                parts[t, n, 0, c] += first[c]
                parts[t, n, 1, c] += second[c]


def logits(q, zero, weight, bias):
    """Return sum_c weight[n, k, c] (q[n, i, j, c] - zero) + bias[n, k], float32 (N, K, H, W)."""
    N, H, W, C = q.shape
    y = empty((N, weight.shape[1], H, W))
    _logits(N * H, q, np.float32(zero), weight, bias, y)
    return y


@parallel(**FAST)
def _logits(row, q, zero, weight, bias, y):
    N, H, W, C = q.shape
    n, i = row // H, row % H
    for k in range(y.shape[1]):
        w = weight[n, k]
        for j in range(W):
            pixel, total = q[n, i, j], bias[n, k]
            for c in range(C):
                total += w[c] * (np.float32(pixel[c]) - zero)
            y[n, k, i, j] = total
