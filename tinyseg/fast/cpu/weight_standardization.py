"""Weight standardization with numba: each set of weights is read twice and summed in float64, in one thread.

Equations and signatures as in `tinyseg.ops.weight_standardization`; `axes` are all axes, or all but the first.
"""

import math

import numpy as np

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.channels_last import float32
from tinyseg.fast.cpu.kernel_cache import FAST, OPTIONS, njit

supports = float32


def forward(v, axes, eps, a):
    """Standardize over `axes`: returns w and σ (σ with the reduced axes kept as 1)."""
    sets = np.ascontiguousarray(v).reshape(1 if len(axes) == v.ndim else len(v), -1)
    w, std = empty(sets.shape), np.empty(len(sets), np.float32)
    _forward(sets, eps, a, w, std)
    return w.reshape(v.shape), std.reshape((-1,) + (1,) * (v.ndim - 1))


def grad_v(gw, w, std, axes, eps, a):
    """Gradient of the trained weights, from the standardized ones and σ."""
    shape = std.size, w.size // std.size
    gv = empty(shape)
    gw, sets = np.ascontiguousarray(gw).reshape(shape), np.ascontiguousarray(w).reshape(shape)
    _gradient(gw, sets, std.reshape(-1), eps, a, gv)
    return gv.reshape(w.shape)


@njit(**OPTIONS, **FAST)
def _forward(v, eps, a, w, std):
    n = v.shape[1]
    for s in range(len(v)):
        sum_d = sum_d2 = 0.0
        first = np.float64(v[s, 0])
        for k in range(n):
            d = v[s, k] - first  # of equal weights, exactly 0
            sum_d += d
            sum_d2 += d * d
        mean_d, mean_d2 = sum_d / n, sum_d2 / n
        variance = mean_d2 - mean_d * mean_d
        deviation = 0.0 if variance < 0 else math.sqrt(variance)
        mean, scale = first + mean_d, a / (deviation + eps)
        for k in range(n):
            w[s, k] = (v[s, k] - mean) * scale
        std[s] = deviation


@njit(**OPTIONS, **FAST)
def _gradient(gw, w, std, eps, a, gv):
    n = w.shape[1]
    for s in range(len(w)):
        sum_g = sum_gw = 0.0
        for k in range(n):
            sum_g += gw[s, k]
            sum_gw += np.float64(gw[s, k]) * w[s, k]
        deviation = np.float64(std[s])
        mean, scale = sum_g / n, a / (deviation + eps)
        toward_scale = sum_gw / n / (a * deviation) if deviation > 0 else 0.0
        for k in range(n):
            gv[s, k] = (gw[s, k] - mean) * scale - w[s, k] * toward_scale
