"""Convolution with numba that joins, upsamples, adds a bias and applies a ReLU on the way.

Equations and signatures as in `tinyseg.ops.fused_conv`; the convolutions themselves are in `tinyseg.fast.cpu.conv2d`.
"""

import numpy as np
from numba import njit, prange

from tinyseg.fast.cpu import upsampled_conv
from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.bands import NOTHING
from tinyseg.fast.cpu.channels_last import FAST, channels_first, pixels, threads
from tinyseg.fast.cpu.channels_last import float32 as all_float32
from tinyseg.fast.cpu.conv2d import convolve, convolve_gradient, convolve_transposed
from tinyseg.fast.cpu.gemm import padded
from tinyseg.fast.cpu.simd import NO_FLOOR
from tinyseg.fast.cpu.upsample import sum_blocks

MANY = 2048  # pixels from which on `upsampled_conv` pays for its arithmetic on the weights


def supports(w, b, *xs):
    """float32, and at most two inputs to join."""
    return all_float32(w, b, *xs) and len(xs) <= 2


def forward(xs, w, b, stride, pads, out, factor, relu):
    """Return y (N, K, OH, OW)."""
    x, x2 = halves(xs)
    y = empty((len(x), *out, len(w)))
    floor = np.float32(0) if relu else NO_FLOOR
    if _simply_upsampled(xs, stride, factor):
        upsampled_conv.forward(x, w, padded(b), floor, pads, factor, y)
    else:
        convolve(x, x2, w, padded(b), floor, stride, pads, y, factor)
    return channels_first(y)


def backward(gy, xs, w, y, needs_x, stride, pads, factor, relu):
    """Gradients of w, b, and a tuple of those of the xs (None if `needs_x` is False)."""
    (x, x2), gy, K = halves(xs), pixels(gy), len(w)
    parts = empty((threads(), K))
    masked = empty(gy.shape) if relu else gy
    _mask_and_sum(gy, pixels(y) if relu else gy, relu, masked, parts)
    if _simply_upsampled(xs, stride, factor):
        gx = empty(x.shape) if needs_x else None
        gw = upsampled_conv.backward(x, w, masked, pads, factor, gx)
        return gw, parts.sum(axis=0), (channels_first(gx) if needs_x else None,)
    gw = convolve_gradient(x, x2, masked, w.shape, stride, pads, factor)
    if not needs_x:
        return gw, parts.sum(axis=0), (None,) * len(xs)
    gxs, c = [], 0
    for half in (x, x2)[: len(xs)]:
        N, H, W, C = half.shape
        gx = empty((N, factor * H, factor * W, C))
        convolve_transposed(masked, w[:, c : c + C], stride, pads, gx)
        gxs.append(channels_first(sum_blocks(gx, factor) if factor > 1 else gx))
        c += C
    return gw, parts.sum(axis=0), tuple(gxs)


def _simply_upsampled(xs, stride, factor):
    """Whether this is a case for `tinyseg.fast.cpu.upsampled_conv`, with enough pixels for it to pay."""
    N, _, H, W = xs[0].shape
    return factor > 1 and len(xs) == 1 and stride == (1, 1) and N * H * W >= MANY


def halves(xs):
    """Return the one or two inputs as (N, H, W, C) arrays, the second perhaps without channels."""
    return pixels(xs[0]), pixels(xs[1]) if len(xs) > 1 else NOTHING


@njit(**FAST)
def _mask_and_sum(gy, y, relu, masked, parts):
    """masked = gy where y > 0, else 0, if `relu`; parts[t] = its sums over pixels."""
    K, T = gy.shape[3], parts.shape[0]
    g, m, on = gy.reshape(-1, K), masked.reshape(-1, K), y.reshape(-1, K)
    P = g.shape[0]
    for t in prange(T):
        total = np.zeros(K, np.float64)
        first, last = P * t // T, P * (t + 1) // T
        for start in range(first, last, 256):
            piece = np.zeros(K, np.float32)
            for i in range(start, min(start + 256, last)):
                if relu:
                    for k in range(K):
                        v = g[i, k] if on[i, k] > 0 else np.float32(0)
                        m[i, k] = v
                        piece[k] += v
                else:
                    for k in range(K):
                        piece[k] += g[i, k]
            for k in range(K):
                total[k] += piece[k]
        for k in range(K):
            parts[t, k] = total[k]
