"""Batch normalization with numba: one pass over the pixels for the sums, one that uses them.

Equations and signatures as in `tinyseg.ops.batch_norm`. The passes also serve `tinyseg.fast.cpu.group_norm`. They see
an array (I, M): the M = pixels · C floats of each of I images, in the order in which they lie in memory. Here I = 1:
the whole batch counts as one image. Each image is cut into

    rows     of `width` = k · C floats, that is k pixels: whole vectors, and enough of them also where C is small
    chunks   of many rows, the work of one thread at a time

Within a chunk, each column of its rows is summed in float32. The sums of the chunks are added in float64 in a fixed
order: the result does not depend on the number of threads.
"""

from math import gcd

import numpy as np

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.channels_last import channels_first, float32, pixels
from tinyseg.fast.cpu.kernel_cache import OPTIONS, njit
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.fast.cpu.simd import LANES, clear, copy, is_large, load, multiply_add, store, store_past

WIDE = 256  # a row has at least so many floats
CHUNK = 1 << 15  # floats in a chunk, which stays in the second-level cache; more where a row is very wide


def supports(*arrays):
    """float32 arrays with the four axes of images."""
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
    """Return mean (float32) and biased variance (float64) of each of the G groups of channels of each image, (I, G)."""
    width, rows, K = plan_rows(x, C)
    sums = empty((len(x), K, 3, width))
    mean, var = np.empty((len(x), G), np.float32), np.empty((len(x), G))
    _moments(len(x) * K, x, rows, sums)
    _moments_of_groups(sums, x.shape[1], rows, C, mean, var)
    return mean, var


def normalize(x, mean, scale, beta):
    """Return (x - mean) · scale + β, with coefficients (I, C) or (C,)."""
    y = empty(x.shape)
    _apply(count_chunks(x, mean), None, x, *repeat_over_row(x, mean, scale, beta), y)
    return y


def gradient_sums(gy, x, mean):
    """Return the sums over the pixels of gy and of gy · (x - mean), float64 (2, I, C)."""
    C = mean.shape[1]
    width, _, K = plan_rows(x, C)
    sums = empty((len(x), K, 2, width))
    _gradient_sums(len(x) * K, gy, x, *repeat_over_row(x, mean), sums)
    return sum_columns(sums, C)


def gradient(gy, x, mean, scale, centre, slope):
    """Return gy · scale + centre + slope · (x - mean), with coefficients (I, C)."""
    gx = empty(x.shape)
    _apply(count_chunks(x, mean), gy, x, *repeat_over_row(x, mean, scale, centre, slope), gx)
    return gx


# ----- rows and chunks ---------------------------------------------------------------
def plan_rows(x, C):
    """Return how x (I, M) is cut: the width of a row, the rows in a chunk, and the chunks in an image."""
    step = LANES // gcd(C, LANES)
    width = C * step * -(-WIDE // (C * step))
    rows = max(16, CHUNK // width)
    return width, rows, -(-x.shape[1] // (rows * width))


def count_chunks(x, mean):
    """Return into how many chunks all images are cut; `mean` or other coefficients have shape (I, C)."""
    return len(x) * plan_rows(x, mean.shape[1])[2]


def repeat_over_row(x, mean, *others):
    """Repeat coefficients (I, C), (C,) or numbers for all pixels of a row.

    Returns an array (I, number of coefficients, width), and the rows in a chunk.
    """
    (I, C), (width, rows, _) = mean.shape, plan_rows(x, mean.shape[1])
    out = np.empty((I, 1 + len(others), width // C, C), np.float32)
    for k, coefficient in enumerate((mean, *others)):
        out[:, k] = coefficient[:, None] if np.ndim(coefficient) == 2 else coefficient
    return out.reshape(I, -1, width), rows


def sum_columns(sums, C):
    """Add up S kinds of sums of columns, (I, chunks, S, width), for each channel: (S, I, C), float64."""
    out = np.zeros((sums.shape[2], len(sums), C))
    _sum_columns(sums, out)
    return out


@njit(**OPTIONS)
def _sum_columns(sums, out):
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
@parallel
def _moments(task, x, rows, sums):
    """Write, of each column of each chunk, a number m near its mean, and the sums of x - m and of (x - m)²."""
    I, K, _, width = sums.shape
    n, k = task // K, task % K
    chunk = x[n, k * rows * width : (k + 1) * rows * width]
    eighth = -(-len(chunk) // (8 * width)) * width  # enough rows to find a number near the mean
    _column_means(chunk[:eighth], sums[n, k, 0])
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
def _moments_of_groups(sums, M, rows, C, mean, var):
    """Compute the moments of groups from m, s = sum (x - m) and q = sum (x - m)² of columns.

    With e = m - μ, sum x = count m + s and sum (x - μ)² = q + 2 e s + count e².
    """
    I, K, _, width = sums.shape
    G = mean.shape[1]
    size = C // G
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
            for first in range(0, width, size):
                g = first % C // size
                for c in range(first, first + size):
                    total[g] += columns[c]
            for first in range(0, width, size):
                mean_of_group = total[first % C // size] / (M // G)
                for c in range(first, first + size):
                    centre[c] = mean_of_group
            for g in range(G):  # one by one: numba compiles for a second what it would say if arrays did not fit
                if moment == 0:
                    mean[n, g] = total[g] / (M // G)
                else:
                    var[n, g] = total[g] / (M // G)


@njit(**OPTIONS)
def fill_up(x, p, width):
    """Return x[p:] as a whole row, with zeros behind it."""
    row = np.zeros(width, np.float32)
    copy(row, 0, x, p, len(x) - p)
    return row


@parallel
def _gradient_sums(task, gy, x, coefficients, rows, sums):
    I, K, _, width = sums.shape
    M = x.shape[1]
    n, k = task // K, task % K
    gs, xs, co, s = gy[n], x[n], coefficients[n].reshape(-1), sums[n, k].reshape(-1)
    clear(s, 0, 2 * width)
    for p in range(k * rows * width, min((k + 1) * rows * width, M), width):
        if p + width <= M:
            _gradient_sums_row(gs, xs, p, co, width, s)
        else:
            _gradient_sums_row(fill_up(gs, p, width), fill_up(xs, p, width), 0, co, width, s)


@njit(**OPTIONS)
def _gradient_sums_row(gy, x, p, co, width, s):
    for c in range(0, width, LANES):
        g = load(gy, p + c)
        store(s, c, g + load(s, c))
        store(s, width + c, multiply_add(g, load(x, p + c) - load(co, c), load(s, width + c)))


@parallel
def _apply(task, gy, x, coefficients, rows, out):
    """Write x, normalized, to `out`; or, unless gy is None, the gradient of x."""
    I, M = x.shape
    width = coefficients.shape[2]
    K = -(-M // (rows * width))
    n, k = task // K, task % K
    xs, co, outs = x[n], coefficients[n].reshape(-1), out[n]
    gs = xs if gy is None else gy[n]
    past = is_large(outs)  # rows are whole vectors
    for p in range(k * rows * width, min((k + 1) * rows * width, M), width):
        if p + width <= M:
            if gy is None:
                _normalize_row(xs, p, co, width, outs, past)
            else:
                _gradient_row(gs, xs, p, co, width, outs, past)
        else:  # the end of the image is shorter than a row
            end = fill_up(xs, p, width)
            if gy is None:
                _normalize_row(end, 0, co, width, end, False)
            else:
                _gradient_row(fill_up(gs, p, width), end, 0, co, width, end, False)
            copy(outs, p, end, 0, M - p)


@njit(**OPTIONS)
def _normalize_row(x, p, co, width, y, past):
    for c in range(0, width, LANES):
        v = multiply_add(load(x, p + c) - load(co, c), load(co, width + c), load(co, 2 * width + c))
        store_past(y, p + c, v, past)


@njit(**OPTIONS)
def _gradient_row(gy, x, p, co, width, gx, past):
    for c in range(0, width, LANES):
        mean_part = multiply_add(load(x, p + c) - load(co, c), load(co, 3 * width + c), load(co, 2 * width + c))
        v = multiply_add(load(gy, p + c), load(co, width + c), mean_part)
        store_past(gx, p + c, v, past)
