"""The losses with numba: one pass over logits and targets for the value, one for the gradient.

Equations and signatures as in `tinyseg.ops.loss`. Sums go by the rows and chunks of `tinyseg.ops.batch_norm_numba`:
float32 in the columns of a chunk, float64 beyond, the same for any number of threads. The cross-entropy works on BLOCK
pixels at a time, laid out class by class, so that also two classes make long vectors.
"""

import numpy as np
from numba import njit, prange

from tinyseg.arena import empty
from tinyseg.ops import loss as maths
from tinyseg.ops.activation_numba import exp, log1p, sigmoid
from tinyseg.ops.batch_norm_numba import cut, fold, in_rows
from tinyseg.ops.channels_last import OPTIONS, PARALLEL, channels_first, float32, pixels

BLOCK = 64
BLOCKS = 64  # blocks that one thread works on at a time

supports = float32


# ----- binary cross-entropy ------------------------------------------------------------
def bce_forward(z, t, weight, pos_weight):
    """Sum of the weighted binary cross-entropy over all elements."""
    *arrays, width, rows, chunks = _side_by_side(z, t, weight, pos_weight)
    sums = empty((chunks, width))
    _bce(*arrays, rows, sums)
    return sums.sum(dtype=np.float64).astype(np.float32)


def bce_grad(z, t, weight, pos_weight):
    """Gradient of that sum with respect to z."""
    *arrays, width, rows, chunks = _side_by_side(z, t, weight, pos_weight)
    gz = empty(arrays[0].shape)
    _bce_grad(*arrays, width, rows, chunks, gz)
    if z.ndim != 4:
        return gz.reshape(z.shape)
    N, C, H, W = z.shape
    return channels_first(gz.reshape(N, H, W, C))


def _side_by_side(z, t, *weights):
    """Return flat z and t, and each of the weights as long as z, or a row if it is one and the same in all of them."""
    C, flat = (z.shape[1], pixels) if z.ndim == 4 else (1, np.ascontiguousarray)
    arrays = [flat(np.asarray(a, np.float32)).reshape(-1) for a in (z, t)]
    width, rows, chunks = cut(arrays[0][None], C)
    for w in weights:
        w = np.asarray(w, np.float32)
        if w.size == 1 or (z.ndim == 4 and w.shape == (C, 1, 1)):
            arrays.append(np.tile(w.reshape(-1), width // w.size))
        else:
            arrays.append(flat(np.broadcast_to(w, z.shape)).reshape(-1))
    return *arrays, width, rows, chunks


@njit(**PARALLEL)
def _bce(z, t, weight, pos_weight, rows, sums):
    chunks, width = sums.shape
    weight_moves, pos_weight_moves = len(weight) == len(z), len(pos_weight) == len(z)
    for chunk in prange(chunks):
        s = sums[chunk]
        for c in range(width):
            s[c] = 0
        for p in range(chunk * rows * width, min((chunk + 1) * rows * width, len(z)), width):
            a, b = p * weight_moves, p * pos_weight_moves
            _bce_row(z[p : p + width], t[p : p + width], weight[a : a + width], pos_weight[b : b + width], s)


@njit(**OPTIONS)
def _bce_row(z, t, weight, pos_weight, s):
    one = np.float32(1)
    for c in range(len(z)):
        softplus = log1p(exp(-abs(z[c]))) + max(-z[c], np.float32(0))
        s[c] += weight[c] * ((one - t[c]) * z[c] + (one + (pos_weight[c] - one) * t[c]) * softplus)


@njit(**PARALLEL)
def _bce_grad(z, t, weight, pos_weight, width, rows, chunks, gz):
    weight_moves, pos_weight_moves = len(weight) == len(z), len(pos_weight) == len(z)
    for chunk in prange(chunks):
        for p in range(chunk * rows * width, min((chunk + 1) * rows * width, len(z)), width):
            a, b, q = p * weight_moves, p * pos_weight_moves, p + width
            _bce_grad_row(z[p:q], t[p:q], weight[a : a + width], pos_weight[b : b + width], gz[p:q])


@njit(**OPTIONS)
def _bce_grad_row(z, t, weight, pos_weight, gz):
    one = np.float32(1)
    for c in range(len(z)):
        gz[c] = weight[c] * ((one - t[c]) - (one + (pos_weight[c] - one) * t[c]) * sigmoid(-z[c]))


# ----- cross-entropy -------------------------------------------------------------------
def ce_forward(z, t, weight):
    """Sum over pixels of weight[t] · (-log softmax(z)[t]), and of weight[t]; t (N, H, W), -1 where ignored."""
    z, strides, _ = _any_layout(z)
    t = np.ascontiguousarray(t, np.int64).reshape(len(z), -1)
    sums = np.zeros((len(z), -(-t.shape[1] // (BLOCK * BLOCKS)), 2))
    _ce(z, *strides, t, np.asarray(weight, np.float32), sums)
    total, count = sums.sum(axis=(0, 1)).astype(np.float32)
    return total, count


def ce_grad(z, t, weight):
    """Gradient of the first of those sums with respect to z."""
    z, strides, public = _any_layout(z)
    t = np.ascontiguousarray(t, np.int64).reshape(len(z), -1)
    gz = empty(z.shape)
    _ce_grad(z, *strides, t, np.asarray(weight, np.float32), gz)
    return public(gz)


def _any_layout(z):
    """Return z as (N, C·H·W) floats as they lie, the strides of classes and pixels, and the way back to z's shape."""
    N, C, H, W = z.shape
    if z.flags.c_contiguous:
        return z.reshape(N, -1), (H * W, 1), lambda a: a.reshape(N, C, H, W)
    return pixels(z).reshape(N, -1), (1, C), lambda a: channels_first(a.reshape(N, H, W, C))


@njit(**PARALLEL)
def _ce(z, of_class, of_pixel, t, weight, sums):
    N, chunks, _ = sums.shape
    P = t.shape[1]
    for task in prange(N * chunks):
        n, chunk = task // chunks, task % chunks
        logits, block = np.empty((len(weight), BLOCK), np.float32), np.empty((2, BLOCK), np.float32)
        loss = count = 0.0
        for p in range(chunk * BLOCK * BLOCKS, min((chunk + 1) * BLOCK * BLOCKS, P), BLOCK):
            m = min(BLOCK, P - p)
            _exponentials(z[n], of_class, of_pixel, p, m, logits, block[0], block[1])
            for j in range(m):
                k = t[n, p + j]
                if k >= 0:
                    loss += weight[k] * (np.log(block[1, j]) - (z[n, k * of_class + (p + j) * of_pixel] - block[0, j]))
                    count += weight[k]
        sums[n, chunk, 0], sums[n, chunk, 1] = loss, count


@njit(**PARALLEL)
def _ce_grad(z, of_class, of_pixel, t, weight, gz):
    N, P = t.shape
    C = len(weight)
    chunks = -(-P // (BLOCK * BLOCKS))
    for task in prange(N * chunks):
        n, chunk = task // chunks, task % chunks
        e, block = np.empty((C, BLOCK), np.float32), np.empty((2, BLOCK), np.float32)
        for p in range(chunk * BLOCK * BLOCKS, min((chunk + 1) * BLOCK * BLOCKS, P), BLOCK):
            m = min(BLOCK, P - p)
            _exponentials(z[n], of_class, of_pixel, p, m, e, block[0], block[1])
            for j in range(m):
                k = t[n, p + j]
                if k >= 0:
                    e[k, j] -= block[1, j]
                block[1, j] = weight[k] / block[1, j] if k >= 0 else np.float32(0)
            for c in range(C):
                out = gz[n, c * of_class + p * of_pixel :]
                for j in range(m):
                    out[j * of_pixel] = e[c, j] * block[1, j]


@njit(**OPTIONS)
def _exponentials(z, of_class, of_pixel, p, m, e, top, total):
    """Of m pixels from p on: exp(z - top) class by class, with the largest logit `top`, and the sums over classes."""
    for c in range(len(e)):
        zs = z[c * of_class + p * of_pixel :]
        for j in range(m):
            e[c, j] = zs[j * of_pixel]
    for j in range(m):
        top[j], total[j] = e[0, j], 0
    for c in range(1, len(e)):
        for j in range(m):
            top[j] = max(top[j], e[c, j])
    for c in range(len(e)):
        for j in range(m):
            e[c, j] = exp(e[c, j] - top[j])
            total[j] += e[c, j]


# ----- soft Dice -----------------------------------------------------------------------
def dice_forward(p, t, smooth, axes):
    """Soft Dice over `axes`: D, and its denominator."""
    if axes not in ((2, 3), (0, 2, 3)):
        return maths.dice_forward(p, t, smooth, axes)
    N, C = p.shape[:2]
    I = N if axes == (2, 3) else 1
    p, t = (pixels(np.asarray(a, np.float32)).reshape(I, -1) for a in (p, t))
    width, rows, chunks = cut(p, C)
    sums = empty((I, chunks, 2, width))
    _dice_sums(p, t, rows, sums)
    both, product = fold(sums, C).astype(np.float32).reshape(2, *((N, C) if axes == (2, 3) else (C,)))
    denominator = np.maximum(both + smooth, np.finfo(np.float32).tiny)
    return (2 * product + smooth) / denominator, denominator


def dice_grad(gD, p, t, D, denominator):
    """Gradient of D with respect to p; gD, D and denominator (N, C, 1, 1) or (1, C, 1, 1)."""
    N, C, H, W = p.shape
    gD, D = (a.reshape(-1, C) for a in (gD / denominator, D))
    t = pixels(np.asarray(t, np.float32)).reshape(len(D), -1)
    gp = empty(t.shape)
    _dice_grad(t, *in_rows(t, gD, D), gp)
    return channels_first(gp.reshape(N, H, W, C))


@njit(**PARALLEL)
def _dice_sums(p, t, rows, sums):
    I, chunks, _, width = sums.shape
    for task in prange(I * chunks):
        n, chunk = task // chunks, task % chunks
        both, product = sums[n, chunk, 0], sums[n, chunk, 1]
        for c in range(width):
            both[c] = product[c] = 0
        for q in range(chunk * rows * width, min((chunk + 1) * rows * width, p.shape[1]), width):
            ps, ts = p[n, q : q + width], t[n, q : q + width]
            for c in range(len(ps)):
                both[c] += ps[c] + ts[c]
                product[c] += ps[c] * ts[c]


@njit(**PARALLEL)
def _dice_grad(t, coefficients, rows, gp):
    I, M = t.shape
    width = coefficients.shape[2]
    chunks = -(-M // (rows * width))
    for task in prange(I * chunks):
        n, chunk = task // chunks, task % chunks
        scale, D = coefficients[n, 0], coefficients[n, 1]
        for q in range(chunk * rows * width, min((chunk + 1) * rows * width, M), width):
            ts, out = t[n, q : q + width], gp[n, q : q + width]
            for c in range(len(ts)):
                out[c] = scale[c] * (np.float32(2) * ts[c] - D[c])
