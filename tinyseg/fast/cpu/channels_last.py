"""The layout of the numba kernels: all channels of a pixel side by side in memory, as (N, H, W, C).

Arrays keep their shape (N, C, H, W) for everyone; only their strides differ, as in PyTorch's channels_last. Kernels
return arrays in this layout, and the next kernel need not move anything; an array that a user brings in another layout
is copied once. Every kernel can work on a vector of channels, and no border of an image ever cuts one, however small
the image is.
"""

import numba
import numpy as np

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.fast.cpu.simd import LANES


def pixels(x):
    """Return `x` (N, C, H, W) as a contiguous array (N, H, W, C): a view if memory has that order, else a copy."""
    y = x.transpose(0, 2, 3, 1)
    if y.flags.c_contiguous:
        return y
    if x.flags.c_contiguous:
        y = empty(y.shape)
        _move_channels(len(x) * x.shape[2], x, y)
        return y
    return np.ascontiguousarray(y)


def channels_first(y):
    """Return an array (N, H, W, C) under its public shape, (N, C, H, W): a view."""
    return y.transpose(0, 3, 1, 2)


def float32(*arrays):
    """Whether all arrays are float32, the type that the kernels are written for, and not empty."""
    return all(a.dtype == np.float32 and a.size for a in arrays)


def threads():
    """Return the number of threads that a parallel loop is cut for."""
    return numba.get_num_threads()


def whole_vectors(n):
    """Return `n` rounded up to a multiple of LANES."""
    return -(-n // LANES) * LANES


@parallel
def _move_channels(row, x, y):
    N, C, H, W = x.shape
    n, i = row // H, row % H
    for c0 in range(0, C, LANES):
        c1 = min(c0 + LANES, C)
        for j0 in range(0, W, LANES):
            for j in range(j0, min(j0 + LANES, W)):
                for c in range(c0, c1):
                    y[n, i, j, c] = x[n, c, i, j]
