"""Pointwise convolution with numba: with channels last, the pixels are already the rows of a matrix.

Equations and signatures as in `tinyseg.ops.pointwise_conv`.
"""

import numpy as np

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.channels_last import channels_first, float32, pixels, threads
from tinyseg.fast.cpu.gemm import outer, pad, product
from tinyseg.fast.cpu.kernel_cache import OPTIONS, njit
from tinyseg.fast.cpu.packing import pack
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.fast.cpu.prepared import prepared
from tinyseg.fast.cpu.shares import LONG, divide_sums, flush, shares, sum_parts
from tinyseg.fast.cpu.simd import LANES, ROWS, WIDTH, clear, load, multiply_add, splat, sum_lanes
from tinyseg.fast.cpu.tile import NO_FLOOR

MOST_DOTS = 4  # output channels that are computed one by one: a panel of `product` would be empty but for them
MOST = 192  # pixels at a time: few enough for some hundred channels of them to stay in cache

supports = float32


def forward(x, w):
    """Map the channels of every pixel: (N, C, H, W) -> (N, K, H, W)."""
    x = pixels(x)
    y = empty((*x.shape[:3], len(w)))
    if len(w) <= MOST_DOTS:
        _dots(threads(), x, np.ascontiguousarray(w), threads(), y)
        return channels_first(y)
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
    return gradient(x.reshape(-1), C, gy.reshape(-1), K, x.size // C, K, C)


def gradient(x, x_pitch, gy, gy_pitch, P, K, C):
    """Return the gradient (K, C) of the weights from P pixels of flat arrays, `x_pitch` and `gy_pitch` floats apart."""
    panels, pieces, read = empty((threads(), MOST * WIDTH)), -(-P // MOST), P * (K + C)
    divided = divide_sums(K * C, read)
    gw = empty((1 if divided else shares(pieces, K * C, read), K, C))
    long = LONG * len(gw) < P
    total = empty(gw.shape) if long else gw
    _gradient(len(panels), x, x_pitch, gy, gy_pitch, P, pieces, divided, panels, long, gw, total)
    return total[0] if divided else sum_parts(total)


@njit(**OPTIONS)
def _cut(P, T):
    """Return the pixels of a piece, whole tiles, and how many pieces there are: equal shares for T threads."""
    size = -(-P // (T * -(-P // (T * MOST))))
    size = -(-size // ROWS) * ROWS
    return size, -(-P // size)


@parallel
def _dots(t, x, w, T, y):
    (K, C), xs, ws, ys = w.shape, x.reshape(-1), w.reshape(-1), y.reshape(-1)
    P, whole = xs.size // C, C - C % LANES
    for i in range(P * t // T, P * (t + 1) // T):
        for k in range(K):
            products = splat(np.float32(0))
            for c in range(0, whole, LANES):
                products = multiply_add(load(xs, i * C + c), load(ws, k * C + c), products)
            dot = sum_lanes(products)
            for c in range(whole, C):
                dot += xs[i * C + c] * ws[k * C + c]
            ys[i * K + k] = dot


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
def _gradient(t, x, x_pitch, gy, gy_pitch, P, pieces, divided, panels, long, gw, total):
    """Compute the shares of gw that fall to thread t or, if `divided`, its rows of the only one."""
    (S, K, C), T = gw.shape, len(panels)
    k0, k1 = (K * t // T, K * (t + 1) // T) if divided else (0, K)
    start, size = k0 * C, (k1 - k0) * C
    first, last = (0, 1) if divided else (S * t // T, S * (t + 1) // T)
    for share in range(first, last):
        sums, totals, since = gw[share].reshape(-1), total[share].reshape(-1), 0
        clear(sums, start, size)
        clear(totals, start, size)
        for piece in range(pieces * share // S, pieces * (share + 1) // S):
            i = piece * MOST
            n = min(MOST, P - i)
            outer(k1 - k0, C, n, gy, i * gy_pitch + k0, gy_pitch, x, i * x_pitch, x_pitch, panels[t], sums, start, C)
            since += n
            if long and since >= LONG:
                flush(sums, start, size, totals)
                since = 0
        if long:
            flush(sums, start, size, totals)
