"""Launches batch_norm.cu: the functions of `tinyseg.ops.batch_norm` on float32 and float16 arrays of the GPU.

Group normalization shares the passes over the planes. `D` and `sets` say which planes have a mean in common: see
batch_norm.cu.
"""

import numpy as np

from tinyseg.backend import devices
from tinyseg.fast.gpu.launch import SLICE, contiguous, cut, floats, launch, load, supports_real
from tinyseg.fast.gpu.slices import fold, moments

kernel = load(__file__)


def supports(*arrays):
    """All float32 or all float16, and the four axes of images."""
    return supports_real(*arrays) and all(a.ndim == 4 for a in arrays)


def statistics(x):
    N, C = x.shape[:2]
    mean, var = moments(contiguous(x), N, C)
    return mean.reshape(C, 1, 1), var.reshape(C, 1, 1)


def forward(x, gamma, beta, mean, rstd):
    return normalize(contiguous(x), *floats(gamma, beta, mean, rstd), 1, x.shape[1])


def backward(gy, x, gamma, mean, rstd, training):
    N, C, m = *x.shape[:2], x.size // x.shape[1]
    (gy, x), (gamma, mean, rstd) = contiguous(gy, x), floats(gamma, mean, rstd)
    partial, slices = gradient_sums(gy, x, mean, rstd, 1, C)
    sums = fold(partial, slices, C, N, C)
    gx = gradient(gy, x, gamma, mean, rstd, sums if training else None, 1 / m, True, 1, C)
    return gx, sums[1], sums[0]


# ----- passes over the planes ----------------------------------------------------------
def normalize(x, gamma, beta, mean, rstd, D, sets):
    """Return (x - mean) · rstd · γ + β."""
    y = devices.cp.empty(x.shape, x.dtype)
    blocks, sizes, threads = _planes(x, D, sets)
    launch(kernel("normalize", x.dtype), blocks, x, gamma, beta, mean, rstd, y, *sizes, threads=threads)
    return y


def gradient_sums(gy, x, mean, rstd, D, sets):
    """Return the sums of gy and of gy x̂ over each slice, (2, planes · slices), and the number of slices of a plane."""
    blocks, sizes, threads = _planes(x, D, sets)
    sums = devices.cp.empty((2, blocks), np.float32)
    args = gy, x, mean, rstd, sums[0], sums[1], *sizes
    launch(kernel("gradient_sums", x.dtype), blocks, *args, threads=threads)
    return sums, blocks // (x.shape[0] * x.shape[1])


def gradient(gy, x, gamma, mean, rstd, sums, share, gamma_missing, D, sets):
    """Return the gradient of x, from the sums over sets, (2, sets) or None."""
    gx = devices.cp.empty(x.shape, x.dtype)
    blocks, sizes, threads = _planes(x, D, sets)
    one, two = (None, None) if sums is None else (sums[0], sums[1])
    args = gy, x, gamma, mean, rstd, one, two, share, gamma_missing, gx, *sizes
    launch(kernel("gradient", x.dtype), blocks, *args, threads=threads)
    return gx


def _planes(x, D, sets):
    N, C, H, W = x.shape
    slices, threads = cut(H * W)
    return N * C * slices, (H * W, SLICE, C, D, sets), threads
