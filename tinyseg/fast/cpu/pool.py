"""Max and average pooling with numba: all channels of a pixel at once, every array read and written once.

Equations and signatures as in `tinyseg.ops.pool`. The gradient of an input pixel is gathered from the windows that saw
the pixel: no two threads write to one place, and overlapping windows need no second pass.

One kernel serves both pools: `winner`, which tap was the largest, is None for average pooling. numba compiles a kernel
once for each of the two and leaves out what belongs to the other.
"""

import numpy as np

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.channels_last import channels_first, float32, pixels
from tinyseg.fast.cpu.kernel_cache import OPTIONS, njit
from tinyseg.fast.cpu.parallel import parallel

supports = float32

TWO = (2, 2), (2, 2), ((0, 0), (0, 0))  # kernel, stride, pads of the pools that networks use


def max_forward(x, kernel, stride, pads, out):
    """Largest value of each window, and which tap it was (uint8): two arrays (N, C, OH, OW)."""
    winner = empty((len(x), *out, x.shape[1]), np.uint8)
    return _forward(x, kernel, stride, pads, out, winner), channels_first(winner)


def max_grad_x(gy, winner, x_shape, kernel, stride, pads):
    """Gradient of the input: gy goes to the tap that won."""
    gy, winner, (N, C, H, W) = pixels(gy), np.ascontiguousarray(winner.transpose(0, 2, 3, 1)), x_shape
    gx = empty((N, H, W, C))
    if (kernel, stride, pads) == TWO:
        _max_of_four_gradient(N * -(-H // 2), gy, winner, gx)
    else:
        _gradient(N * H, gy, winner, *kernel, *stride, pads[0][0], pads[1][0], gx)
    return channels_first(gx)


def avg_forward(x, kernel, stride, pads, out):
    """Mean of each window, (N, C, OH, OW)."""
    return _forward(x, kernel, stride, pads, out, None)


def avg_grad_x(gy, x_shape, kernel, stride, pads):
    """Gradient of the input: every tap gets its share."""
    N, C, H, W = x_shape
    gx = empty((N, H, W, C))
    _gradient(N * H, pixels(gy), None, *kernel, *stride, pads[0][0], pads[1][0], gx)
    return channels_first(gx)


def _forward(x, kernel, stride, pads, out, winner):
    x = pixels(x)
    y = empty((len(x), *out, x.shape[3]))
    if (kernel, stride, pads) == TWO:
        _pool_four(len(y) * y.shape[1], x, y, winner)
    else:
        _pool(len(y) * y.shape[1], x, *kernel, *stride, pads[0][0], pads[1][0], y, winner)
    return channels_first(y)


# ----- windows of 2 x 2 side by side ---------------------------------------------
@parallel
def _pool_four(row, x, y, winner):
    N, OH, OW, C = y.shape
    n, i = row // OH, row % OH
    for j in range(OW):
        a, b, c, d = x[n, 2 * i, 2 * j], x[n, 2 * i, 2 * j + 1], x[n, 2 * i + 1, 2 * j], x[n, 2 * i + 1, 2 * j + 1]
        result = y[n, i, j]
        if winner is None:
            for k in range(C):
                result[k] = (a[k] + b[k] + c[k] + d[k]) * np.float32(0.25)
        else:
            tap = winner[n, i, j]
            for k in range(C):
                best, won = a[k], np.uint8(0)
                best, won = (b[k], np.uint8(1)) if b[k] > best or b[k] != b[k] else (best, won)
                best, won = (c[k], np.uint8(2)) if c[k] > best or c[k] != c[k] else (best, won)
                best, won = (d[k], np.uint8(3)) if d[k] > best or d[k] != d[k] else (best, won)
                result[k], tap[k] = best, won


@parallel
def _max_of_four_gradient(row, gy, winner, gx):
    N, OH, OW, C = gy.shape
    H, W = gx.shape[1:3]
    pairs = -(-H // 2)
    n, i = row // pairs, row % pairs
    seen = 2 * OW if i < OH else 0
    for j in range(seen // 2):
        g, tap = gy[n, i, j], winner[n, i, j]
        _write_where_won(g, tap, np.uint8(0), gx[n, 2 * i, 2 * j])
        _write_where_won(g, tap, np.uint8(1), gx[n, 2 * i, 2 * j + 1])
        _write_where_won(g, tap, np.uint8(2), gx[n, 2 * i + 1, 2 * j])
        _write_where_won(g, tap, np.uint8(3), gx[n, 2 * i + 1, 2 * j + 1])
    for r in range(2 * i, min(2 * i + 2, H)):
        for q in range(seen, W):
            for k in range(C):
                gx[n, r, q, k] = np.float32(0)


@njit(**OPTIONS)
def _write_where_won(gy, winner, tap, gx):
    for k in range(len(gx)):
        gx[k] = gy[k] if winner[k] == tap else np.float32(0)


# ----- windows of any kind ----------------------------------------------------------
@parallel
def _pool(row, x, KH, KW, sh, sw, top, left, y, winner):
    N, OH, OW, C = y.shape
    H, W = x.shape[1:3]
    n, i = row // OH, row % OH
    total = np.zeros(C)  # float64: a window may be as large as the image
    u0 = max(0, top - i * sh)
    for j in range(OW):
        result, v0 = y[n, i, j], max(0, left - j * sw)
        for k in range(C):
            if winner is None:
                total[k] = 0
            else:
                result[k], winner[n, i, j, k] = -np.inf, u0 * KW + v0  # the first tap inside, if all are -inf
        for u in range(u0, min(KH, H + top - i * sh)):
            for v in range(v0, min(KW, W + left - j * sw)):
                pixel = x[n, i * sh + u - top, j * sw + v - left]
                if winner is None:
                    _add(pixel, total)
                else:
                    _compare(pixel, np.uint8(u * KW + v), result, winner[n, i, j])
        if winner is None:
            for k in range(C):
                result[k] = total[k] / (KH * KW)


@njit(**OPTIONS)
def _compare(x, number, largest, tap):
    for k in range(len(x)):
        wins = x[k] > largest[k] or x[k] != x[k]
        largest[k] = x[k] if wins else largest[k]
        tap[k] = number if wins else tap[k]


@parallel
def _gradient(row, gy, winner, KH, KW, sh, sw, top, left, gx):
    N, OH, OW, C = gy.shape
    H, W = gx.shape[1:3]
    share = np.float32(1 / (KH * KW))
    n, r = row // H, row % H + top
    i0, i1 = _windows_that_see(r, KH, sh, OH)
    for q in range(left, W + left):
        j0, j1 = _windows_that_see(q, KW, sw, OW)
        target = gx[n, r - top, q - left]
        for k in range(C):
            target[k] = 0
        for i in range(i0, i1):
            for j in range(j0, j1):
                if winner is None:
                    _add(gy[n, i, j], target)
                else:
                    tap = np.uint8((r - i * sh) * KW + q - j * sw)
                    _add_where_won(gy[n, i, j], winner[n, i, j], tap, target)
        if winner is None:
            for k in range(C):
                target[k] *= share


@njit(**OPTIONS)
def _windows_that_see(r, k, s, n):
    """Return the first of n windows of k rows, `s` apart, that sees row r, and one more than the last."""
    return max(0, (r - k) // s + 1), min(n, r // s + 1)


@njit(**OPTIONS)
def _add_where_won(gy, winner, tap, gx):
    for k in range(len(gx)):
        gx[k] += gy[k] if winner[k] == tap else np.float32(0)


@njit(**OPTIONS)
def _add(x, y):
    for k in range(len(y)):
        y[k] += x[k]
