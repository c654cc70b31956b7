"""Launches loss.cu: the functions of `tinyseg.ops.loss` on float32 arrays of the GPU."""

import math

from tinyseg.backend import devices
from tinyseg.fast.gpu.launch import SLICE, blocks_for, contiguous, cut, launch, load, supports, threads_for

__all__ = ["bce_forward", "bce_grad", "ce_forward", "ce_grad", "dice_forward", "dice_grad", "supports"]

kernel = load(__file__)


# ----- binary cross-entropy ------------------------------------------------------------
def bce_forward(z, t, weight, pos_weight):
    (z, t), (weight, *where), (pos_weight, *pos_where) = contiguous(z, t), _flat(weight, z), _flat(pos_weight, z)
    slices, threads = cut(z.size)
    sums = devices.cp.empty(slices, z.dtype)
    launch(kernel("bce"), slices, z, t, weight, pos_weight, sums, z.size, SLICE, *where, *pos_where, threads=threads)
    return sums.sum()


def bce_grad(z, t, weight, pos_weight):
    gz = devices.cp.empty(z.shape, z.dtype)
    (z, t), (weight, *where), (pos_weight, *pos_where) = contiguous(z, t), _flat(weight, z), _flat(pos_weight, z)
    args = z, t, weight, pos_weight, gz, z.size, *where, *pos_where
    launch(kernel("bce_grad"), blocks_for(z.size), *args)
    return gz


def _flat(w, z):
    """Return weights w that broadcast against z, inner, length: element k of z has weight number k // inner % length.

    That is possible if all axes of w that are not 1 stand side by side and are as long as z's. If not, w is copied to
    z's shape.
    """
    shape = (1,) * (z.ndim - w.ndim) + w.shape
    long = [k for k, n in enumerate(shape) if n != 1] or [0]
    part = slice(long[0], long[-1] + 1)
    if w.size > 1 and shape[part] != z.shape[part]:
        return contiguous(devices.cp.broadcast_to(w, z.shape)), 1, z.size
    return contiguous(w), math.prod(z.shape[long[-1] + 1 :]), w.size


# ----- cross-entropy -------------------------------------------------------------------
def ce_forward(z, t, weight):
    z, t, weight, sizes = _pixels(z, t, weight)
    slices, threads = cut(t.size)
    sums = devices.cp.empty((2, slices), z.dtype)
    M, *others = sizes
    launch(kernel("ce"), slices, z, t, weight, sums[0], sums[1], M, SLICE, *others, threads=threads)
    total, count = sums.sum(axis=1)
    return total, count


def ce_grad(z, t, weight):
    z, t, weight, sizes = _pixels(z, t, weight)
    gz = devices.cp.empty(z.shape, z.dtype)
    launch(kernel("ce_grad"), blocks_for(t.size), z, t, weight, gz, *sizes)
    return gz


def _pixels(z, t, weight):
    """Return the arrays as the kernels take them, and the numbers of pixels, of classes and of pixels in an image."""
    return *contiguous(z, t.astype("int64", copy=False), weight), (t.size, z.shape[1], z.shape[2] * z.shape[3])


# ----- soft Dice -----------------------------------------------------------------------
def dice_forward(p, t, smooth, axes):
    if axes not in ((2, 3), (0, 2, 3)):
        return NotImplemented
    p, t = contiguous(p, t)
    (N, C), P = p.shape[:2], p.shape[2] * p.shape[3]
    slices, threads = cut(P)
    sums = devices.cp.empty((2, N * C * slices), p.dtype)
    launch(kernel("dice_sums"), N * C * slices, p, t, sums[0], sums[1], P, SLICE, threads=threads)
    outer, shape = (1, (N, C)) if axes == (2, 3) else (N, (C,))
    D, denominator = devices.cp.empty(shape, p.dtype), devices.cp.empty(shape, p.dtype)
    args = sums[0], sums[1], D, denominator, float(smooth), outer, slices
    launch(kernel("dice"), D.size, *args, threads=threads_for(outer * slices))
    return D, denominator


def dice_grad(gD, p, t, D, denominator):
    gD, t, D, denominator = contiguous(gD, t, D, denominator)
    P, gp = p.shape[2] * p.shape[3], devices.cp.empty(p.shape, p.dtype)
    slices, threads = cut(P)
    args = gD, t, D, denominator, gp, P, SLICE, gD.size, D.size
    launch(kernel("dice_grad"), p.shape[0] * p.shape[1] * slices, *args, threads=threads)
    return gp
