"""Launches loss.cu: the functions of `tinyseg.ops.loss` on float32 arrays of the GPU."""

import math

from tinyseg.backend import devices
from tinyseg.fast.gpu.launch import blocks_for, contiguous, float32, launch, launch_slices, load, slices_of, threads_for

supports = float32
kernel = load(__file__)


# ----- binary cross-entropy ------------------------------------------------------------
def bce_forward(z, t, weight, pos_weight):
    (z, t), (weight, *where), (pos_weight, *pos_where) = contiguous(z, t), _flat(weight, z), _flat(pos_weight, z)
    sums = devices.cp.empty(slices_of(z.size), z.dtype)
    launch_slices(kernel("bce"), 1, z.size, z, t, weight, pos_weight, sums, *where, *pos_where)
    return sums.sum()


def bce_grad(z, t, weight, pos_weight):
    gz = devices.cp.empty(z.shape, z.dtype)
    (z, t), (weight, *where), (pos_weight, *pos_where) = contiguous(z, t), _flat(weight, z), _flat(pos_weight, z)
    launch(kernel("bce_grad"), blocks_for(z.size), z, t, weight, pos_weight, gz, z.size, *where, *pos_where)
    return gz


def _flat(w, z):
    """Return weights that broadcast against z as (w, inner, length): element k of z has w[k // inner % length].

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
    sums = devices.cp.empty((2, slices_of(t.size)), z.dtype)
    launch_slices(kernel("ce"), 1, t.size, z, t, weight, sums[0], sums[1], *sizes)
    total, count = sums.sum(axis=1)
    return total, count


def ce_grad(z, t, weight):
    z, t, weight, sizes = _pixels(z, t, weight)
    gz = devices.cp.empty(z.shape, z.dtype)
    launch(kernel("ce_grad"), blocks_for(t.size), z, t, weight, gz, *sizes, t.size)
    return gz


def _pixels(z, t, weight):
    """Return the arrays as the kernels take them, and the numbers of classes and of pixels in an image."""
    return *contiguous(z, t.astype("int64", copy=False), weight), (z.shape[1], z.shape[2] * z.shape[3])


# ----- soft Dice -----------------------------------------------------------------------
def dice_forward(p, t, smooth, axes):
    if axes not in ((2, 3), (0, 2, 3)):
        return NotImplemented
    p, t = contiguous(p, t)
    (N, C), P = p.shape[:2], p.shape[2] * p.shape[3]
    slices = slices_of(P)
    sums = devices.cp.empty((2, N * C * slices), p.dtype)
    launch_slices(kernel("dice_sums"), N * C, P, p, t, sums[0], sums[1])
    outer, shape = (1, (N, C)) if axes == (2, 3) else (N, (C,))
    D, denominator = devices.cp.empty(shape, p.dtype), devices.cp.empty(shape, p.dtype)
    args = sums[0], sums[1], D, denominator, float(smooth), outer, slices
    launch(kernel("dice"), D.size, *args, threads=threads_for(outer * slices))
    return D, denominator


def dice_grad(gD, p, t, D, denominator):
    gD, t, D, denominator = contiguous(gD, t, D, denominator)
    (N, C, H, W), gp = p.shape, devices.cp.empty(p.shape, p.dtype)
    launch_slices(kernel("dice_grad"), N * C, H * W, gD, t, D, denominator, gp, gD.size, D.size)
    return gp
