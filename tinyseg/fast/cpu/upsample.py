"""Upsampling with numba: whole pixels, all their channels, are copied and summed.

Equations and signatures as in `tinyseg.ops.upsample`. Of the interpolation matrices A and B, and of their transposes,
only what is not 0 is kept: the number of the *first* such column of each row, and a few weights. One kernel therefore
computes both A X Bᵀ and Aᵀ GY B: it gathers each pixel of the result from the pixels that it depends on. With fewer
channels than a vector has lanes the maths file computes, since its matrix products are faster then.
"""

import functools

import numpy as np

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.channels_last import channels_first, float32, pixels
from tinyseg.fast.cpu.kernel_cache import FAST
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.fast.cpu.simd import LANES, load, multiply_add, splat, store

supports = float32


def nearest_forward(x, factor):
    """Repeat every pixel fh x fw times."""
    x, (fh, fw) = pixels(x), factor
    N, H, W, C = x.shape
    y = empty((N, H * fh, W * fw, C))
    _repeat(len(y) * y.shape[1], x, y, fh, fw)
    return channels_first(y)


def nearest_grad_x(gy, factor):
    """Sum the gradient over every fh x fw block."""
    return channels_first(sum_blocks(pixels(gy), *factor))


def bilinear_forward(x, factor):
    """Interpolate both axes: A X Bᵀ."""
    (H, W), (fh, fw) = x.shape[2:], factor
    return _interpolate(x, (H * fh, W * fw), _rows(H, fh), _rows(W, fw))


def bilinear_grad_x(gy, factor):
    """The transposed maps: Aᵀ GY B."""
    (OH, OW), (fh, fw) = gy.shape[2:], factor
    H, W = OH // fh, OW // fw
    return _interpolate(gy, (H, W), _transposed_rows(H, fh), _transposed_rows(W, fw))


def _interpolate(x, out, rows, columns):
    if x.shape[1] < LANES:
        return NotImplemented
    x = pixels(x)
    y = empty((len(x), *out, x.shape[3]))
    _gather(len(y) * y.shape[1], x, *rows, *columns, y)
    return channels_first(y)


def sum_blocks(gy, fh, fw):
    """Sum an array (N, fh·H, fw·W, C) over its blocks of fh x fw pixels: (N, H, W, C)."""
    N, H, W, C = gy.shape
    gx = empty((N, H // fh, W // fw, C))
    _sum_blocks(len(gx) * gx.shape[1], gy, gx, fh, fw)
    return gx


# ----- interpolation matrices (f·n, n): A[i, r] = max(0, 1 - |position(i) - r|) --------
@functools.lru_cache(maxsize=64)
def _rows(n, f):
    """Return, for each row i, its first column r and the weights of K columns from there on: (f·n,) and (f·n, K)."""
    position, K = _positions(n, f), min(2, n)
    first = np.minimum(position.astype(np.int64), n - K)
    return first, _weights(position[:, None] - (first[:, None] + np.arange(K)))


@functools.lru_cache(maxsize=64)
def _transposed_rows(n, f):
    """Return, for each column r, its first row i and the weights of K rows from there on: (n,) and (n, K)."""
    r, K = np.arange(n), min(2, n) * f
    first = np.clip((2 * r - 1) * f // 2, 0, n * f - K)
    return first, _weights(_positions(n, f)[first[:, None] + np.arange(K)] - r[:, None])


def _positions(n, f):
    return np.clip((np.arange(n * f) + 0.5) / f - 0.5, 0, n - 1)


def _weights(distance):
    return np.maximum(0, 1 - abs(distance)).astype(np.float32)


# ----- the kernels -----------------------------------------------------------------------
@parallel
def _gather(row, x, top, a, left, b, y):
    """y[n, i, j] = sum_{u,v} a[i, u] b[j, v] x[n, top[i] + u, left[j] + v]."""
    N, OH, OW, C = y.shape
    H, W = x.shape[1:3]
    x, y = x.reshape(-1), y.reshape(-1)
    n, i = row // OH, row % OH
    for j in range(OW):
        source, target = ((n * H + top[i]) * W + left[j]) * C, (row * OW + j) * C
        for first in range(0, C, LANES):
            c = min(first, C - LANES)  # the last vector may overlap the one before
            total = splat(np.float32(0))
            for u in range(a.shape[1]):
                for v in range(b.shape[1]):
                    total = multiply_add(splat(a[i, u] * b[j, v]), load(x, source + (u * W + v) * C + c), total)
            store(y, target + c, total)


@parallel(**FAST)
def _repeat(row, x, y, fh, fw):
    N, H, W, C = x.shape
    n, i = row // (H * fh), row % (H * fh)
    source, target = x[n, i // fh], y[n, i]
    for q in range(W):
        for v in range(fw):
            for c in range(C):
                target[q * fw + v, c] = source[q, c]


@parallel(**FAST)
def _sum_blocks(row, gy, gx, fh, fw):
    N, H, W, C = gx.shape
    n, r = row // H, row % H
    target = gx[n, r]
    for u in range(fh):
        source = gy[n, r * fh + u]
        for q in range(W):
            for v in range(fw):
                if u == 0 and v == 0:
                    for c in range(C):
                        target[q, c] = source[q * fw, c]
                else:
                    for c in range(C):
                        target[q, c] += source[q * fw + v, c]
