"""Run an op that treats every channel by itself a few channels at a time.

The maths of such an op (depthwise convolution, pooling) passes over its arrays once a tap. Over whole arrays every
pass is a trip to memory; over a few channels, which fit into a core's cache, it is not, and the cores can share the
channels. The functions are written for whole arrays all the same: a slice of the channels is an array like any other.
"""

import functools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tinyseg.backend import xp_of

BLOCK = 1 << 17  # values of the largest array in a block, 512 KiB: what is computed from them stays in cache


def by_channels(function):
    """Decorate a function of arrays whose channel c depends on channel c of the arguments alone.

    Arrays of shape (N, C, H, W), arguments or results, are cut along their second axis, all others (weights) along
    their first. Shapes among the arguments are those of the whole arrays, so `function` must not take C from them.
    CuPy arrays go through `function` as they are: a GPU wants large arrays.
    """

    @functools.wraps(function)
    def in_blocks(*args):
        arrays = [a for a in args if hasattr(a, "ndim")]
        largest = max(arrays, key=lambda a: a.size)
        C = largest.shape[_axis(largest)]
        width = max(1, BLOCK * C // max(largest.size, 1))
        if xp_of(*arrays) is not np or width >= C:
            return function(*args)

        def block(start):
            part = slice(start, start + width)
            return function(*(_cut(a, part) if hasattr(a, "ndim") else a for a in args))

        def rest(start):
            for whole, piece in zip(wholes, _as_tuple(block(start)), strict=True):
                _cut(whole, slice(start, start + width))[...] = piece

        first = block(0)  # says what the results are
        wholes = [_whole(piece, C) for piece in _as_tuple(first)]
        for whole, piece in zip(wholes, _as_tuple(first), strict=True):
            _cut(whole, slice(0, width))[...] = piece
        list(_pool().map(rest, range(width, C, width)))
        return tuple(wholes) if isinstance(first, tuple) else wholes[0]

    return in_blocks


@functools.cache
def _pool():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ThreadPoolExecutor(cores, thread_name_prefix="tinyseg-channels")


def _axis(array):
    return 1 if array.ndim == 4 else 0


def _cut(array, part):
    return array[:, part] if array.ndim == 4 else array[part]


def _whole(piece, C):
    shape = list(piece.shape)
    shape[_axis(piece)] = C
    return np.empty(shape, piece.dtype)


def _as_tuple(result):
    return result if isinstance(result, tuple) else (result,)
