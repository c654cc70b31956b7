"""The losses with numba: one pass over logits and targets for the value, one for the gradient.

Equations and signatures as in `tinyseg.ops.loss`. Binary cross-entropy and Dice are summed by the rows and chunks of
`tinyseg.fast.cpu.batch_norm`: each column of a chunk in float32, the rest in float64, the same for any number of
threads. The cross-entropy works on BLOCK pixels at a time, laid out class by class: long vectors even with two classes.
"""

import numpy as np

from tinyseg.fast.cpu.activation import exp, log1p, sigmoid
from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.batch_norm import count_chunks, plan_rows, repeat_over_row, sum_columns
from tinyseg.fast.cpu.channels_last import channels_first, float32, pixels
from tinyseg.fast.cpu.kernel_cache import OPTIONS, njit
from tinyseg.fast.cpu.parallel import parallel

BLOCK = 256  # pixels that the cross-entropy works on together
BLOCKS = 16  # blocks that one thread works on at a time

TINY = np.finfo(np.float32).tiny

supports = float32


# ----- binary cross-entropy ------------------------------------------------------------
def bce_forward(z, t, weight, pos_weight):
    """Sum of the weighted binary cross-entropy over all elements."""
    arrays, (width, rows, chunks) = _bce_arguments(z, t, weight, pos_weight)
    sums = empty((chunks, width))
    _bce(chunks, *arrays, width, rows, sums, None)
    return sums.sum(dtype=np.float64).astype(np.float32)


def bce_grad(z, t, weight, pos_weight):
    """Gradient of that sum with respect to z."""
    arrays, (width, rows, chunks) = _bce_arguments(z, t, weight, pos_weight)
    gz = empty(arrays[0].shape)
    _bce(chunks, *arrays, width, rows, None, gz)
    if z.ndim != 4:
        return gz.reshape(z.shape)
    N, C, H, W = z.shape
    return channels_first(gz.reshape(N, H, W, C))


def _bce_arguments(z, t, *weights):
    """Return flat z, t and weights, in one order, and how `plan_rows` cuts them.

    A weight that is the same for all pixels comes as a single row, any other is as long as z.
    """
    C, flat = (z.shape[1], pixels) if z.ndim == 4 else (1, np.ascontiguousarray)
    arrays = [flat(np.asarray(a, np.float32)).reshape(-1) for a in (z, t)]
    width, rows, chunks = plan_rows(arrays[0][None], C)
    for w in weights:
        w = np.asarray(w, np.float32)
        if w.size == 1 or (z.ndim == 4 and w.shape == (C, 1, 1)):
            arrays.append(np.tile(w.reshape(-1), width // w.size))
        else:
            arrays.append(flat(np.broadcast_to(w, z.shape)).reshape(-1))
    return arrays, (width, rows, chunks)


@parallel
def _bce(chunk, z, t, weight, pos_weight, width, rows, sums, gz):
    """Write the losses, summed by columns of chunks, to `sums`; or the gradient to gz. The other one is None."""
    weight_moves, pos_weight_moves = len(weight) == len(z), len(pos_weight) == len(z)
    if sums is not None:
        sums[chunk] = 0
    for p in range(chunk * rows * width, min((chunk + 1) * rows * width, len(z)), width):
        a, b, q = p * weight_moves, p * pos_weight_moves, p + width
        ws, pos_ws = weight[a : a + width], pos_weight[b : b + width]
        if sums is not None:
            _add_bce_row(z[p:q], t[p:q], ws, pos_ws, sums[chunk])
        if gz is not None:
            _bce_grad_row(z[p:q], t[p:q], ws, pos_ws, gz[p:q])


@njit(**OPTIONS)
def _add_bce_row(z, t, weight, pos_weight, s):
    one = np.float32(1)
    for c in range(len(z)):
        softplus = log1p(exp(-abs(z[c]))) + max(-z[c], np.float32(0))
        loss = weight[c] * ((one - t[c]) * z[c] + (one + (pos_weight[c] - one) * t[c]) * softplus)
        s[c] += loss if weight[c] != 0 else np.float32(0)  # 0 · NaN would be NaN


@njit(**OPTIONS)
def _bce_grad_row(z, t, weight, pos_weight, gz):
    one = np.float32(1)
    for c in range(len(z)):
        g = weight[c] * ((one - t[c]) - (one + (pos_weight[c] - one) * t[c]) * sigmoid(-z[c]))
        gz[c] = g if weight[c] != 0 else np.float32(0)


# ----- cross-entropy -------------------------------------------------------------------
def ce_forward(z, t, weight):
    """Sum over pixels of weight[t] · (-log softmax(z)[t]), and of weight[t]; t (N, H, W), -1 where ignored."""
    N, H, W = t.shape
    sums = np.empty((N, _chunks(H * W), 2))
    _ce(sums[..., 0].size, *_ce_arguments(z, t, weight)[0], sums, None)
    total, count = sums.sum(axis=(0, 1)).astype(np.float32)
    return total, count


def ce_grad(z, t, weight):
    """Gradient of the first of those sums with respect to z."""
    N, H, W = t.shape
    arguments, shape_like_z = _ce_arguments(z, t, weight)
    gz = empty(arguments[0].shape)
    _ce(N * _chunks(H * W), *arguments, None, gz)
    return shape_like_z(gz)


def _chunks(P):
    """Return into how many chunks P pixels are cut."""
    return -(-P // (BLOCK * BLOCKS))


def _ce_arguments(z, t, weight):
    """Return what `_ce` takes, with z as (N, C·H·W) in memory order, and a function back to the shape of z."""
    N, C, H, W = z.shape
    t, weight = np.ascontiguousarray(t, np.int64).reshape(N, -1), np.asarray(weight, np.float32)
    if z.flags.c_contiguous:
        return (z.reshape(N, -1), H * W, 1, t, weight), lambda a: a.reshape(N, C, H, W)
    return (pixels(z).reshape(N, -1), 1, C, t, weight), lambda a: channels_first(a.reshape(N, H, W, C))


@parallel
def _ce(task, z, of_class, of_pixel, t, weight, sums, gz):
    """Write the two sums of each chunk to `sums`; or the gradient to gz. The other one is None."""
    P, C = t.shape[1], len(weight)
    chunks = -(-P // (BLOCK * BLOCKS))
    n, chunk = task // chunks, task % chunks
    e, block, k = np.empty((C, BLOCK), np.float32), np.empty((4, BLOCK), np.float32), np.empty(BLOCK, np.int32)
    top, total, picked, weights = block[0], block[1], block[2], block[3]
    losses, counts = np.zeros(BLOCK), np.zeros(BLOCK)
    for p in range(chunk * BLOCK * BLOCKS, min((chunk + 1) * BLOCK * BLOCKS, P), BLOCK):
        _gather(z[n], of_class, of_pixel, p, t[n, p : p + BLOCK], e, k)
        _pick(e, k, weight, top, picked, weights)
        _exponentials(e, top, total)
        if sums is not None:
            _add_losses(top, total, picked, weights, losses, counts)
        if gz is not None:
            _scatter_grad(e, k, total, weights, of_class, of_pixel, p, min(BLOCK, P - p), gz[n])
    if sums is not None:
        sums[n, chunk, 0], sums[n, chunk, 1] = losses.sum(), counts.sum()


@njit(**OPTIONS)
def _gather(z, of_class, of_pixel, p, t, e, k):
    """Copy the logits of the pixels from p on to e, class by class, and their classes to k; zeros and -1 fill up."""
    m = len(t)
    for j in range(m):
        k[j] = np.int32(t[j])
    k[m:] = -1
    e[:, m:] = 0
    for c in range(len(e)):
        first, es = c * of_class + p * of_pixel, e[c]
        if of_pixel == 1:  # a loop of its own, which the compiler can turn into one over vectors
            _copy(z[first : first + m], es)
        else:
            _copy(z[first : first + m * of_pixel : of_pixel], es)


@njit(**OPTIONS)
def _copy(a, b):
    for j in range(len(a)):
        b[j] = a[j]


@njit(**OPTIONS)
def _pick(e, k, weight, top, picked, weights):
    """Write each pixel's largest logit, the logit of its class, and the weight of its class; 0 without a class."""
    for j in range(BLOCK):
        top[j] = e[0, j]
        picked[j] = weights[j] = np.float32(0)
    for c in range(len(e)):
        es, w, label = e[c], weight[c], np.int32(c)
        for j in range(BLOCK):
            z, before = es[j], picked[j]  # both are loaded in any case: otherwise the compiler makes a branch
            picked[j] = z if k[j] == label else before
            top[j] = max(top[j], z)
        for j in range(BLOCK):
            before = weights[j]
            weights[j] = w if k[j] == label else before


@njit(**OPTIONS)
def _exponentials(e, top, total):
    """Replace z by exp(z - top), and sum that over the classes."""
    for j in range(BLOCK):
        total[j] = 0
    for c in range(len(e)):
        es = e[c]
        for j in range(BLOCK):
            es[j] = exp(es[j] - top[j])
            total[j] += es[j]


@njit(**OPTIONS)
def _add_losses(top, total, picked, weights, losses, counts):
    for j in range(BLOCK):
        loss = weights[j] * (_log(total[j]) - (picked[j] - top[j]))
        picked[j] = loss if weights[j] != 0 else np.float32(0)
    for j in range(BLOCK):
        losses[j] += picked[j]
        counts[j] += weights[j]


@njit(**OPTIONS)
def _log(x):
    """log x for normal x >= 1: with x = 2ⁿ y and 1 <= y < 2, it is n log 2 + log y."""
    n = np.int32((np.float32(x).view(np.int32) >> 23) - 127)
    y = x * np.int32((127 - n) << 23).view(np.float32)  # NaN stays NaN
    return np.float32(n) * np.float32(0.6931471805599453) + log1p(y - np.float32(1))


@njit(**OPTIONS)
def _scatter_grad(e, k, total, weights, of_class, of_pixel, p, m, gz):
    for j in range(BLOCK):
        total[j] = np.float32(1) / total[j]
    for c in range(len(e)):
        es, first, label = e[c], c * of_class + p * of_pixel, np.int32(c)
        for j in range(BLOCK):
            g = weights[j] * (es[j] * total[j] - (np.float32(1) if k[j] == label else np.float32(0)))
            es[j] = g if weights[j] != 0 else np.float32(0)
        if of_pixel == 1:
            _copy(es[:m], gz[first:])
        else:
            _copy(es[:m], gz[first : first + m * of_pixel : of_pixel])


# ----- soft Dice -----------------------------------------------------------------------
def dice_forward(p, t, smooth, axes):
    """Soft Dice over `axes`, D, and its denominator."""
    if axes not in ((2, 3), (0, 2, 3)):
        return NotImplemented
    N, C = p.shape[:2]
    I = N if axes == (2, 3) else 1
    p, t = (pixels(np.asarray(a, np.float32)).reshape(I, -1) for a in (p, t))
    width, rows, chunks = plan_rows(p, C)
    sums = empty((I, chunks, 2, width))
    _dice_sums(I * chunks, p, t, rows, sums)
    both, product = sum_columns(sums, C).astype(np.float32).reshape(2, *((N, C) if axes == (2, 3) else (C,)))
    denominator = np.maximum(both + smooth, TINY)
    return (2 * product + smooth) / denominator, denominator


def dice_grad(gD, p, t, D, denominator):
    """Gradient of D with respect to p; gD, D and denominator (N, C, 1, 1) or (1, C, 1, 1)."""
    N, C, H, W = p.shape
    gD, D = (a.reshape(-1, C) for a in (gD / denominator, D))
    t = pixels(np.asarray(t, np.float32)).reshape(len(D), -1)
    gp = empty(t.shape)
    _dice_grad(count_chunks(t, gD), t, *repeat_over_row(t, gD, D), gp)
    return channels_first(gp.reshape(N, H, W, C))


@parallel
def _dice_sums(task, p, t, rows, sums):
    I, chunks, _, width = sums.shape
    n, chunk = task // chunks, task % chunks
    both, product = sums[n, chunk, 0], sums[n, chunk, 1]
    for c in range(width):
        both[c] = product[c] = 0
    for q in range(chunk * rows * width, min((chunk + 1) * rows * width, p.shape[1]), width):
        ps, ts = p[n, q : q + width], t[n, q : q + width]
        for c in range(len(ps)):
            both[c] += ps[c] + ts[c]
            product[c] += ps[c] * ts[c]


@parallel
def _dice_grad(task, t, coefficients, rows, gp):
    I, M = t.shape
    width = coefficients.shape[2]
    chunks = -(-M // (rows * width))
    n, chunk = task // chunks, task % chunks
    scale, D = coefficients[n, 0], coefficients[n, 1]
    for q in range(chunk * rows * width, min((chunk + 1) * rows * width, M), width):
        ts, out = t[n, q : q + width], gp[n, q : q + width]
        for c in range(len(ts)):
            out[c] = scale[c] * (np.float32(2) * ts[c] - D[c])
