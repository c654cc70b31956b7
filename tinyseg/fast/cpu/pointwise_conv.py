"""Pointwise convolution with numba: with channels last, the pixels are already the rows of a matrix.

Equations and signatures as in `tinyseg.ops.pointwise_conv`.
"""

import numpy as np

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.channels_last import channels_first, float32, pixels, threads
from tinyseg.fast.cpu.gemm import LONG, flush, outer, pad, product, sum_parts
from tinyseg.fast.cpu.packing import pack
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.fast.cpu.prepared import prepared
from tinyseg.fast.cpu.simd import WIDTH, clear
from tinyseg.fast.cpu.tile import NO_FLOOR

ROWS = 192  # pixels at a time: whole tiles, and few enough for some hundred channels of them to stay in cache

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
    gw, panels = empty((threads(), K, C)), empty((threads(), ROWS * WIDTH))
    long = gy.size // K > LONG * threads()
    total = empty(gw.shape) if long else gw
    _gradient(len(gw), x, gy, panels, long, gw, total)
    return sum_parts(total)


@parallel
def _map(t, x, B, b, T, y):
    C, K = x.shape[3], y.shape[3]
    xs, ys = x.reshape(-1), y.reshape(-1)
    P = xs.size // C
    pieces = -(-P // ROWS)
    for piece in range(pieces * t // T, pieces * (t + 1) // T):
        i = piece * ROWS
        product(min(ROWS, P - i), K, 1, C, xs, i * C, 0, C, 1, B, 0, b, 0, 0, NO_FLOOR, ys, i * K, K)


@parallel
def _gradient(t, x, gy, panels, long, gw, total):
    C, K, T = x.shape[3], gy.shape[3], gw.shape[0]
    xs, gys = x.reshape(-1), gy.reshape(-1)
    P = xs.size // C
    pieces = -(-P // ROWS)
    sums = gw[t].reshape(-1)
    totals = total[t].reshape(-1)
    clear(sums, 0, sums.size)
    clear(totals, 0, sums.size)
    since = 0
    for piece in range(pieces * t // T, pieces * (t + 1) // T):
        i = piece * ROWS
        outer(K, C, min(ROWS, P - i), gys, i * K, K, xs, i * C, C, panels[t], sums, 0, C)
        since += ROWS
        if long and since >= LONG:
            flush(sums, 0, sums.size, totals)
            since = 0
    if long:
        flush(sums, 0, sums.size, totals)
