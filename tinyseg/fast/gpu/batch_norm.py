"""Launches batch_norm.cu: the functions of `tinyseg.ops.batch_norm` on float32 and float16 arrays of the GPU.

Group normalization uses the same passes over the planes. `D` and `sets` say which planes have a mean in common: see
batch_norm.cu.
"""

import numpy as np

from tinyseg.backend import devices
from tinyseg.fast.gpu.launch import contiguous, float32_or_16, floats, launch_slices, load, slices_of
from tinyseg.fast.gpu.slices import fold, moments

kernel = load(__file__)


def supports(*arrays):
    """Whether all arrays are float32 or all float16, and have the four axes of images."""
    return float32_or_16(*arrays) and all(a.ndim == 4 for a in arrays)


def statistics(x):
    N, C = x.shape[:2]
    mean, var = moments(contiguous(x), N, C)
    return mean.reshape(C, 1, 1), var.reshape(C, 1, 1)


def forward(x, gamma, beta, mean, rstd):
    return normalize(contiguous(x), *floats(gamma, beta, mean, rstd), 1, x.shape[1])


def backward(gy, x, gamma, mean, rstd, training):
    N, C, m = *x.shape[:2], x.size // max(1, x.shape[1])
    (gy, x), (gamma, mean, rstd) = contiguous(gy, x), floats(gamma, mean, rstd)
    partial, slices = gradient_sums(gy, x, mean, rstd, 1, C)
    sums = fold(partial, slices, C, N, C)
    gx = gradient(gy, x, gamma, mean, rstd, sums if training else None, 1 / m, True, 1, C)
    return gx, sums[1], sums[0]


# ----- passes over the planes ----------------------------------------------------------
def normalize(x, gamma, beta, mean, rstd, D, sets):
    """Return (x - mean) · rstd · γ + β."""
    (N, C, H, W), y = x.shape, devices.cp.empty(x.shape, x.dtype)
    launch_slices(kernel("normalize", x.dtype), N * C, H * W, x, gamma, beta, mean, rstd, y, C, D, sets)
    return y


def gradient_sums(gy, x, mean, rstd, D, sets):
    """Return the sums of gy and of gy x̂ over each slice, (2, planes · slices), and the number of slices of a plane."""
    (N, C, H, W), slices = x.shape, slices_of(x.shape[2] * x.shape[3])
    sums = devices.cp.empty((2, N * C * slices), np.float32)
    args = gy, x, mean, rstd, sums[0], sums[1], C, D, sets
    launch_slices(kernel("gradient_sums", x.dtype), N * C, H * W, *args)
    return sums, slices


def gradient(gy, x, gamma, mean, rstd, sums, share, gamma_missing, D, sets):
    """Return the gradient of x, from the sums over sets, (2, sets), or None where mean and rstd are constants."""
    (N, C, H, W), gx = x.shape, devices.cp.empty(x.shape, x.dtype)
    args = gy, x, gamma, mean, rstd, *((None, None) if sums is None else sums), share, gamma_missing, gx, C, D, sets
    launch_slices(kernel("gradient", x.dtype), N * C, H * W, *args)
    return gx
