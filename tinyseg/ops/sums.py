"""Sums and means over many values, which no order in memory makes inaccurate.

NumPy adds along the last axis in memory in pairs of pairs, and along all others one value after the other. The channels
of a pixel lie side by side in what the CPU kernels return, so a sum over (N, H, W) there is one of millions of float32
additions, each of which rounds: a relative error of 1e-2 and more where the values have one sign. `sum_over` adds in
float64 and rounds once.
"""

import math

import numpy as np

from tinyseg.backend.half import wide

SHORT = 32  # values that may be added in their own type, as over the classes of a pixel


def sum_over(a, axis=None, keepdims=False):
    """Sum an array over `axis`: an int, a tuple, or None for all axes.

    The error is at most 2e-7 of the sum of the magnitudes, whatever the order of the axes in memory; up to 2e-6 for
    sums of at most SHORT values, which are added in float32.

    Returns
    -------
    ndarray, of a's dtype; float32 for float16
    """
    dtype = wide(a.dtype)
    total = a.sum(axis=axis, keepdims=keepdims, dtype=dtype if count_over(a, axis) <= SHORT else np.float64)
    return total.astype(dtype, copy=False)


def mean_over(a, axis=None, keepdims=False):
    """Return the mean of an array over `axis`, as accurate as `sum_over`; 0 where there is nothing to add up."""
    total = sum_over(a, axis, keepdims)
    return total / total.dtype.type(max(1, count_over(a, axis)))


def count_over(a, axis):
    """Return how many values of an array are added up over `axis`."""
    axes = range(a.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return math.prod(a.shape[k] for k in axes)
