"""Pointwise convolution with numba: with channels last, the pixels are already the rows of a matrix.

Equations and signatures as in `tinyseg.ops.pointwise_conv`.
"""

import numpy as np

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.channels_last import channels_first, float32, pixels, threads
from tinyseg.fast.cpu.gemm import LONG, flush, outer, pad, product, sum_parts
from tinyseg.fast.cpu.kernel_cache import OPTIONS, njit
from tinyseg.fast.cpu.packing import pack
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.fast.cpu.prepared import prepared
from tinyseg.fast.cpu.simd import ROWS, WIDTH, clear
from tinyseg.fast.cpu.tile import NO_FLOOR

MOST = 192  # pixels at a time: few enough for some hundred channels of them to stay in cache

supports = float32


def forward(x, w):
    """Map the channels of every pixel: (N, C, H, W) -> (N, K, H, W)."""
    x = pixels(x)
    y = empty((*x.shape[:3], len(w)))
    B = prepared(w, "packed", lambda: pack(w.T))
    _map(threads(), x, B, pad(np.zeros(len(w))), threads(), y)
    return channels_first(y)


def grad_x(gy, w):
    """Gradient of the input: the transposed map."""
    return forward(gy, w.T)


def grad_w(x, gy):
    """Gradient of the weights, (K, C)."""
    x, gy = pixels(x), pixels(gy)
    K, C = gy.shape[3], x.shape[3]
    gw, panels = empty((threads(), K, C)), empty((threads(), MOST * WIDTH))
    long = gy.size // K > LONG * threads()
    total = empty(gw.shape) if long else gw
    _gradient(len(gw), x, gy, panels, long, gw, total)
    return sum_parts(total)


@njit(**OPTIONS)
def _cut(P, T):
    """Return the pixels of a piece, whole tiles, and how many pieces there are: equal shares for T threads."""
    size = -(-P // (T * -(-P // (T * MOST))))
    size = -(-size // ROWS) * ROWS
    return size, -(-P // size)


@parallel
def _map(t, x, B, b, T, y):
    C, K = x.shape[3], y.shape[3]
    xs, ys = x.reshape(-1), y.reshape(-1)
    P = xs.size // C
    size, pieces = _cut(P, T)
    for piece in range(pieces * t // T, pieces * (t + 1) // T):
        i = piece * size
        product(min(size, P - i), K, 1, C, xs, i * C, 0, C, 1, B, 0, b, 0, 0, NO_FLOOR, ys, i * K, K)


@parallel
def _gradient(t, x, gy, panels, long, gw, total):
    C, K, T = x.shape[3], gy.shape[3], gw.shape[0]
    xs, gys = x.reshape(-1), gy.reshape(-1)
    P = xs.size // C
    size, pieces = _cut(P, T)
    sums = gw[t].reshape(-1)
    totals = total[t].reshape(-1)
    clear(sums, 0, sums.size)
    clear(totals, 0, sums.size)
    since = 0
    for piece in range(pieces * t // T, pieces * (t + 1) // T):
        i = piece * size
        outer(K, C, min(size, P - i), gys, i * K, K, xs, i * C, C, panels[t], sums, 0, C)
        since += size
        if long and since >= LONG:
            flush(sums, 0, sums.size, totals)
            since = 0
    if long:
        flush(sums, 0, sums.size, totals)
