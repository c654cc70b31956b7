"""Sums and products of two large arrays with numba, in two threads. The maths file computes everything else.

The arrays must lie alike in memory, in whatever order of axes: they are then read and written from end to end.
"""

import numpy as np
from numba import njit, prange

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.channels_last import OPTIONS, PARALLEL, float32

LARGE = 1 << 16  # elements from which on a second thread is worth its start
BLOCK = 1 << 13  # elements to a task


def supports(a, b):
    if a.size < LARGE or a.shape != b.shape or not float32(a, b):
        return False
    order = _order(a)
    return all(x.transpose(order).flags.c_contiguous for x in (a, b))


def add_forward(a, b):
    return _apply(_add, a, b)


def multiply_forward(a, b):
    return _apply(_multiply, a, b)


def _order(a):
    """Return the axes of `a` from the slowest to the fastest in memory."""
    return sorted(range(a.ndim), key=lambda k: -a.strides[k])


def _apply(kernel, a, b):
    order = _order(a)
    a, b = a.transpose(order), b.transpose(order)
    y = empty(a.shape)
    kernel(a.reshape(-1), b.reshape(-1), y.reshape(-1))
    return y.transpose(np.argsort(order))


@njit(**PARALLEL)
def _add(a, b, y):
    for block in prange(-(-y.size // BLOCK)):
        i, j = block * BLOCK, min(y.size, (block + 1) * BLOCK)
        _add_block(a[i:j], b[i:j], y[i:j])


@njit(**PARALLEL)
def _multiply(a, b, y):
    for block in prange(-(-y.size // BLOCK)):
        i, j = block * BLOCK, min(y.size, (block + 1) * BLOCK)
        _multiply_block(a[i:j], b[i:j], y[i:j])


@njit(**OPTIONS)
def _add_block(a, b, y):
    for k in range(y.size):
        y[k] = a[k] + b[k]


@njit(**OPTIONS)
def _multiply_block(a, b, y):
    for k in range(y.size):
        y[k] = a[k] * b[k]
