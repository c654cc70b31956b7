"""Run the maths of an op that treats every channel by itself a few channels at a time.

The maths of such an op (depthwise convolution, pooling) passes over its arrays once for each tap. Every pass over whole
arrays reads them from memory again. A few channels fit into a core's cache, and the cores can share the channels. A
maths file declares which of its functions may be run in this way: ``BY_CHANNEL = ("forward", …)``. These functions are
written for whole arrays: a slice of the channels is an array like any other. Where a module of `LINES` has a quicker
function of that name, it computes the block.
"""

import contextvars
import functools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tinyseg.backend.devices import cores
from tinyseg.fast.cpu import depthwise_lines

BLOCK = 1 << 18  # values of the largest array in a block: 1 MiB in float32, which stay in cache
LINES = {"tinyseg.ops.depthwise_conv": depthwise_lines}


class InBlocks:
    """The functions of a maths module; those that it declares in BY_CHANNEL run a few channels at a time."""

    def __init__(self, maths):
        self.maths, self.lines = maths, LINES.get(maths.__name__)

    def __getattr__(self, name):
        function = getattr(self.maths, name)
        if name not in self.maths.BY_CHANNEL:
            return function
        return by_channels(_first_of(getattr(self.lines, name), function) if self.lines else function)


in_blocks = functools.cache(InBlocks)


def by_channels(function):
    """Return `function`, whose channel c depends on channel c of the arguments alone, computed in blocks of channels.

    Arrays and shapes of four axes, (N, C, H, W), are cut along their second axis, those of fewer (weights) along their
    first; other arguments are passed on as they are.
    """

    @functools.wraps(function)
    def in_parts(*args):
        largest = max((a for a in args if hasattr(a, "ndim")), key=lambda a: a.size)
        C = largest.shape[_axis(largest.shape)]
        width = max(1, BLOCK * C // max(largest.size, 1))
        if width >= C:
            return function(*args)

        def compute(start):
            pieces = function(*(_cut(a, slice(start, start + width)) for a in args))
            return pieces if isinstance(pieces, tuple) else (pieces,)

        def write(start, pieces):
            for whole, piece in zip(wholes, pieces, strict=True):
                _cut(whole, slice(start, start + width))[...] = piece

        first = compute(0)  # shows how many results there are, and their shapes and types
        wholes = tuple(_with_channels(piece, C) for piece in first)
        write(0, first)
        starts = range(width, C, width)
        contexts = [contextvars.copy_context() for _ in starts]  # the threads see what the caller has set by `using`
        pool = _pool(os.getpid())
        list(pool.map(lambda start, context: context.run(lambda: write(start, compute(start))), starts, contexts))
        return wholes if len(wholes) > 1 else wholes[0]

    return in_parts


def _first_of(quick, function):
    """Return a function that gives what `quick` gives, or what `function` gives where that returns NotImplemented."""

    def compute(*args):
        found = quick(*args)
        return function(*args) if found is NotImplemented else found

    return compute


@functools.cache
def _pool(process):
    """Return the threads of this process; a forked child has none of its parent's."""
    return ThreadPoolExecutor(cores(), thread_name_prefix="tinyseg-channels")


def _axis(shape):
    return 1 if len(shape) == 4 else 0


def _cut(a, part):
    """Return some channels of an array, or the shape of these channels if `a` is a shape; anything else as it is."""
    if hasattr(a, "ndim"):
        return a[:, part] if a.ndim == 4 else a[part]
    if isinstance(a, tuple) and len(a) > 2 and all(isinstance(n, int) for n in a):
        axis = _axis(a)
        return (*a[:axis], len(range(a[axis])[part]), *a[axis + 1 :])
    return a


def _with_channels(piece, C):
    """Return a new array like `piece`, but with C channels."""
    shape = list(piece.shape)
    shape[_axis(piece.shape)] = C
    return np.empty(shape, piece.dtype)
