"""Batch normalization with numba: one pass over the pixels for the sums, one that uses them.

Equations and signatures as in `tinyseg.ops.batch_norm`. The passes also serve `tinyseg.fast.cpu.group_norm`. They see
an array (I, M), the M = pixels · C floats of each image (here: of the whole batch) as they lie in memory, cut into

    rows     of `width` = k · C floats, that is k pixels: whole vectors, and enough of them also where C is small
    chunks   of some hundred rows, the work of one thread at a time

A chunk is summed in float32, column by column of its rows; the chunks are put together in float64 and in their own
order, so that the result does not depend on the number of threads.
"""

from math import gcd

import numpy as np
from numba import njit, prange

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.channels_last import OPTIONS, PARALLEL, channels_first, float32, pixels
from tinyseg.fast.cpu.simd import LANES, clear, copy, fma, load, store

WIDE = 256  # floats that a row has at least
CHUNK = 1 << 15  # floats of a chunk: it stays in the second-level cache


def supports(*arrays):
    """float32, and the four axes of images."""
    return float32(*arrays) and all(a.ndim == 4 for a in arrays)


def statistics(x):
    """Mean and biased variance of each channel, (C, 1, 1)."""
    C = x.shape[1]
    mean, var = moments(pixels(x).reshape(1, -1), C, C)
    return mean.reshape(C, 1, 1), var.astype(np.float32).reshape(C, 1, 1)


def forward(x, gamma, beta, mean, rstd):
    """Normalize with the statistics given: (N, C, H, W)."""
    x, C = pixels(x), x.shape[1]
    y = normalize(x.reshape(1, -1), mean.reshape(1, C), rstd.reshape(1, C) * gamma, beta)
    return channels_first(y.reshape(x.shape))


def backward(gy, x, gamma, mean, rstd, training):
    """Gradients of x, γ and β."""
    gy, x, C, m = pixels(gy), pixels(x), x.shape[1], x.size // x.shape[1]
    mean, rstd = mean.reshape(1, C), rstd.reshape(1, C)
    scale = rstd * gamma
    flat = gy.reshape(1, -1), x.reshape(1, -1)
    gbeta, ggamma = gradient_sums(*flat, mean)  # the second still without the factor rstd
    centre, slope = (-scale / m * gbeta, -scale / m * rstd**2 * ggamma) if training else (0, 0)
    gx = gradient(*flat, mean, scale, centre, slope)
    return channels_first(gx.reshape(x.shape)), (ggamma * rstd)[0].astype(np.float32), gbeta[0].astype(np.float32)


# ----- on (I, M) ---------------------------------------------------------------------
def moments(x, C, G):
    """Mean, as float32, and biased variance, as float64, of each of the G groups of channels of each image, (I, G)."""
    width, rows, K = cut(x, C)
    sums = empty((len(x), K, 3, width))
    mean, var = np.empty((len(x), G), np.float32), np.empty((len(x), G))
    _moments(x, rows, sums)
    _fold_moments(sums, x.shape[1], rows, C, mean, var)
    return mean, var


def normalize(x, mean, scale, beta):
    """Return (x - mean) · scale + β, with coefficients (I, C) or (C,)."""
    y = empty(x.shape)
    _normalize(x, *in_rows(x, mean, scale, beta), y)
    return y


def gradient_sums(gy, x, mean):
    """Sums over the pixels of gy and gy · (x - mean), float64 (2, I, C)."""
    C = mean.shape[1]
    width, _, K = cut(x, C)
    sums = empty((len(x), K, 2, width))
    _gradient_sums(gy, x, *in_rows(x, mean), sums)
    return fold(sums, C)


def gradient(gy, x, mean, scale, centre, slope):
    """Return gy · scale + centre + slope · (x - mean), with coefficients (I, C)."""
    gx = empty(x.shape)
    _gradient(gy, x, *in_rows(x, mean, scale, centre, slope), gx)
    return gx


# ----- rows and chunks ---------------------------------------------------------------
def cut(x, C):
    """Width of a row of x (I, M), rows to a chunk, and chunks to an image."""
    step = LANES // gcd(C, LANES)
    width = C * step * -(-WIDE // (C * step))
    rows = max(16, CHUNK // width)
    return width, rows, -(-x.shape[1] // (rows * width))


def in_rows(x, mean, *others):
    """Coefficients (I, C), (C,) or numbers, repeated for all pixels of a row, (I, how many, width); rows to a chunk."""
    (I, C), (width, rows, _) = mean.shape, cut(x, mean.shape[1])
    out = np.empty((I, 1 + len(others), width // C, C), np.float32)
    for k, coefficient in enumerate((mean, *others)):
        out[:, k] = coefficient[:, None] if np.ndim(coefficient) == 2 else coefficient
    return out.reshape(I, -1, width), rows


def fold(sums, C):
    """Add up sums (I, chunks, S, width) of the columns of rows: (S, I, C), float64."""
    out = np.zeros((sums.shape[2], len(sums), C))
    _fold(sums, out)
    return out


@njit(**OPTIONS)
def _fold(sums, out):
    I, K, S, width = sums.shape
    C = out.shape[2]
    for n in range(I):
        for s in range(S):
            columns = np.zeros(width)
            for k in range(K):
                for c in range(width):
                    columns[c] += sums[n, k, s, c]
            for first in range(0, width, C):
                for c in range(C):
                    out[s, n, c] += columns[first + c]


# ----- the passes --------------------------------------------------------------------
@njit(**PARALLEL)
def _moments(x, rows, sums):
    """Of each column of each chunk: about its mean, and the sums of the values less that, and of their squares."""
    I, K, _, width = sums.shape
    for task in prange(I * K):
        n, k = task // K, task % K
        chunk = x[n, k * rows * width : (k + 1) * rows * width]
        few = -(-len(chunk) // (8 * width)) * width
        _column_means(chunk[:few], sums[n, k, 0])
        _column_sums(chunk, sums[n, k, 0], sums[n, k, 1], sums[n, k, 2])


@njit(**OPTIONS)
def _column_means(x, mean):
    width = len(mean)
    for c in range(width):
        mean[c] = 0
    for p in range(0, len(x), width):
        row = x[p : p + width]
        for c in range(len(row)):
            mean[c] += row[c]
    for c in range(width):
        mean[c] /= np.float32(max(1, len(x) // width + (c < len(x) % width)))


@njit(**OPTIONS)
def _column_sums(x, centre, s, q):
    width = len(centre)
    for c in range(width):
        s[c] = q[c] = 0
    for p in range(0, len(x), width):
        row = x[p : p + width]
        for c in range(len(row)):
            d = row[c] - centre[c]
            s[c] += d
            q[c] += d * d


@njit(**OPTIONS)
def _fold_moments(sums, M, rows, C, mean, var):
    """Moments of groups from sums of columns about m: with e = m - μ, sum (x - μ)² = q + 2 e s + count e²."""
    I, K, _, width = sums.shape
    G = mean.shape[1]
    group = np.array([c % C // (C // G) for c in range(width)])
    for n in range(I):
        centre = np.zeros(width)
        for moment in range(2):
            columns, total = np.zeros(width), np.zeros(G)
            for k in range(K):
                left = min(rows * width, M - k * rows * width)
                whole, rest = left // width, left % width
                for c in range(width):
                    count, m, s, q = whole + (c < rest), sums[n, k, 0, c], sums[n, k, 1, c], sums[n, k, 2, c]
                    e = m - centre[c]
                    columns[c] += count * e + s if moment == 0 else q + e * (2 * s + count * e)
            for c in range(width):
                total[group[c]] += columns[c]
            total /= M // G
            if moment == 0:
                centre = total[group]
                mean[n] = total
            else:
                var[n] = total


@njit(**OPTIONS)
def filled_up(x, p, width):
    """x[p:] as a whole row, with zeros behind it."""
    row = np.zeros(width, np.float32)
    copy(row, 0, x, p, len(x) - p)
    return row


@njit(**PARALLEL)
def _normalize(x, coefficients, rows, y):
    I, M = x.shape
    width = coefficients.shape[2]
    K = -(-M // (rows * width))
    for task in prange(I * K):
        n, k = task // K, task % K
        xs, ys, co = x[n], y[n], coefficients[n].reshape(-1)
        for p in range(k * rows * width, min((k + 1) * rows * width, M), width):
            if p + width <= M:
                _normalize_row(xs, p, co, width, ys, p)
            else:  # the end of the image is shorter than a row
                end = filled_up(xs, p, width)
                _normalize_row(end, 0, co, width, end, 0)
                copy(ys, p, end, 0, M - p)


@njit(**OPTIONS)
def _normalize_row(x, p, co, width, y, target):
    for c in range(0, width, LANES):
        store(y, target + c, fma(load(x, p + c) - load(co, c), load(co, width + c), load(co, 2 * width + c)))


@njit(**PARALLEL)
def _gradient_sums(gy, x, coefficients, rows, sums):
    I, K, _, width = sums.shape
    M = x.shape[1]
    for task in prange(I * K):
        n, k = task // K, task % K
        gs, xs, co, s = gy[n], x[n], coefficients[n].reshape(-1), sums[n, k].reshape(-1)
        clear(s, 0, 2 * width)
        for p in range(k * rows * width, min((k + 1) * rows * width, M), width):
            if p + width <= M:
                _gradient_sums_row(gs, xs, p, co, width, s)
            else:
                _gradient_sums_row(filled_up(gs, p, width), filled_up(xs, p, width), 0, co, width, s)


@njit(**OPTIONS)
def _gradient_sums_row(gy, x, p, co, width, s):
    for c in range(0, width, LANES):
        g = load(gy, p + c)
        store(s, c, g + load(s, c))
        store(s, width + c, fma(g, load(x, p + c) - load(co, c), load(s, width + c)))


@njit(**PARALLEL)
def _gradient(gy, x, coefficients, rows, gx):
    I, M = x.shape
    width = coefficients.shape[2]
    K = -(-M // (rows * width))
    for task in prange(I * K):
        n, k = task // K, task % K
        gs, xs, co, out = gy[n], x[n], coefficients[n].reshape(-1), gx[n]
        for p in range(k * rows * width, min((k + 1) * rows * width, M), width):
            if p + width <= M:
                _gradient_row(gs, xs, p, co, width, out)
            else:
                end = filled_up(gs, p, width)
                _gradient_row(end, filled_up(xs, p, width), 0, co, width, end)
                copy(out, p, end, 0, M - p)


@njit(**OPTIONS)
def _gradient_row(gy, x, p, co, width, gx):
    for c in range(0, width, LANES):
        mean_part = fma(load(x, p + c) - load(co, c), load(co, 3 * width + c), load(co, 2 * width + c))
        store(gx, p + c, fma(load(gy, p + c), load(co, width + c), mean_part))
