"""Sums and products of two large arrays with numba, in two threads. The maths file computes everything else.

Both arrays must have their axes in the same order in memory, whichever order it is: they are then read from end to end.
"""

import numpy as np

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.channels_last import float32
from tinyseg.fast.cpu.kernel_cache import OPTIONS, njit
from tinyseg.fast.cpu.parallel import parallel

LARGE = 1 << 16  # elements from which on a second thread is worth its start
BLOCK = 1 << 13  # elements to a task


def supports(a, b):
    """float32 arrays of one shape, large enough and both in the same order in memory without gaps."""
    if a.size < LARGE or a.shape != b.shape or not float32(a, b):
        return False
    order = _order(a)
    return all(x.transpose(order).flags.c_contiguous for x in (a, b))


def add_forward(a, b):
    return _combine(a, b, False)


def multiply_forward(a, b):
    return _combine(a, b, True)


def _order(a):
    """Return the axes of `a` from the slowest to the fastest in memory."""
    return sorted(range(a.ndim), key=lambda k: -a.strides[k])


def _combine(a, b, multiply):
    order = _order(a)
    a, b = a.transpose(order), b.transpose(order)
    y = empty(a.shape)
    _combine_in_blocks(-(-y.size // BLOCK), a.reshape(-1), b.reshape(-1), multiply, y.reshape(-1))
    return y.transpose(np.argsort(order))


@parallel
def _combine_in_blocks(block, a, b, multiply, y):
    i, j = block * BLOCK, min(y.size, (block + 1) * BLOCK)
    _combine_block(a[i:j], b[i:j], multiply, y[i:j])


@njit(**OPTIONS)
def _combine_block(a, b, multiply, y):
    if multiply:
        for k in range(y.size):
            y[k] = a[k] * b[k]
    else:
        for k in range(y.size):
            y[k] = a[k] + b[k]
