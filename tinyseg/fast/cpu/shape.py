"""Concatenation of channels with numba: pixel by pixel, the channels of two arrays at a time are copied.

Equations and signatures as in `tinyseg.ops.shape`. The maths file joins along other axes.
"""

from itertools import pairwise, zip_longest

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.channels_last import channels_first, float32, pixels
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.fast.cpu.simd import copy


def supports(*arrays):
    """float32 arrays with the four axes of images."""
    return all(a.ndim == 4 for a in arrays) and float32(*arrays)


def concat_forward(xs, axis):
    """Join arrays along `axis`."""
    if axis != 1:
        return NotImplemented
    xs = [pixels(x) for x in xs]
    y = empty((*xs[0].shape[:3], sum(x.shape[3] for x in xs)))
    for start, a, b in _pairs(xs):
        _copy_pair(len(y) * y.shape[1], a, b, y, start, True)
    return channels_first(y)


def concat_backward(gy, cuts, axis):
    """Cut gy at the indices `cuts` of `axis`: one array for each input."""
    if axis != 1:
        return NotImplemented
    gy, ends = pixels(gy), (0, *cuts, gy.shape[1])
    gxs = [empty((*gy.shape[:3], end - start)) for start, end in pairwise(ends)]
    for start, a, b in _pairs(gxs):
        _copy_pair(len(gy) * gy.shape[1], a, b, gy, start, False)
    return tuple(channels_first(gx) for gx in gxs)


def _pairs(xs):
    """Yield the number of channels before them and two arrays, two by two; an empty one may follow the last."""
    start, nothing = 0, xs[0][..., :0].copy()
    for a, b in zip_longest(xs[::2], xs[1::2], fillvalue=nothing):
        yield start, a, b
        start += a.shape[3] + b.shape[3]


@parallel
def _copy_pair(row, a, b, y, start, join):
    """Copy a and b to the channels of y from `start` on or, unless `join`, those channels to a and b."""
    N, H, W, C = y.shape
    A, B = a.shape[3], b.shape[3]
    a, b, y = a.reshape(-1), b.reshape(-1), y.reshape(-1)
    for pixel in range(row * W, (row + 1) * W):
        if join:
            copy(y, pixel * C + start, a, pixel * A, A)
            copy(y, pixel * C + start + A, b, pixel * B, B)
        else:
            copy(a, pixel * A, y, pixel * C + start, A)
            copy(b, pixel * B, y, pixel * C + start + A, B)
