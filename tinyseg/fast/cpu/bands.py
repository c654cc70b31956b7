"""Bands of rows: what a convolution kernel reads, laid out in cache as it wants it.

A band is a few rows of the input with the border of zeros in place, loaded into a thread's own scratch just before it
is used. On the way the row can be put together from two arrays (the halves of a concatenation) and repeated (nearest
upsampling) or spread out with zeros between (the transpose of a stride); none of these is written anywhere else.

The `pitch`, the distance from one pixel to the next, is a whole number of vectors, the channels beyond C being zero;
and never a multiple of 4096 bytes, since addresses that far apart share one set of the cache.
"""

import numpy as np
from numba import njit

from tinyseg.fast.cpu.channels_last import OPTIONS, whole_vectors
from tinyseg.fast.cpu.simd import LANES, clear, copy

NOTHING = np.zeros((1, 1, 1, 0), np.float32)  # the second half of an input that has only one


def pitch_of(C):
    """Distance, in floats, between neighbouring pixels of a band with C channels."""
    pitch = whole_vectors(C)
    return pitch + LANES if pitch % 1024 == 0 else pitch


def transposed_pads(pads, kernel, dilation=(1, 1)):
    """Padding of the convolution that is the gradient of one with padding `pads`: (k - 1)·d less what came before."""
    reach = ((k - 1) * d for k, d in zip(kernel, dilation, strict=True))
    return tuple((n - before, n - after) for n, (before, after) in zip(reach, pads, strict=True))


@njit(**OPTIONS)
def load_band(x, x2, n, first, rows, left, width, repeat, sh, sw, band, start, pitch):
    """Write rows `first` … `first + rows` of image n to band[start:], each `width` pixels.

    Coordinates are those of the repeated or spread image, whose rows outside of it are zero; the first pixel is
    `-left` (which may lie inside the image). `x` and `x2` (N, H, W, C) are joined along the channels. `repeat` ≥ 1 is
    the factor of upsampling, (sh, sw) the strides that are undone.
    """
    H, W, C, C2 = x.shape[1], x.shape[2], x.shape[3], x2.shape[3]
    xs, x2s = x.reshape(-1), x2.reshape(-1)
    height, span = (H - 1) * sh * repeat + repeat, (W - 1) * sw * repeat + repeat
    for row in range(rows):
        r, target = first + row, start + row * width * pitch
        if r < 0 or r >= height or r % sh:
            clear(band, target, width * pitch)
            continue
        source = (n * H + r // sh // repeat) * W
        begin, end = min(max(left, 0), width), min(max(left + span, 0), width)  # beyond: border
        clear(band, target, begin * pitch)
        clear(band, target + end * pitch, (width - end) * pitch)
        if pitch == C and repeat == 1 and sw == 1:
            copy(band, target + begin * pitch, xs, (source + begin - left) * C, (end - begin) * C)
            continue
        for j in range(begin, end):
            q, p = j - left, target + j * pitch
            if q % sw:
                clear(band, p, pitch)
                continue
            s = source + q // sw // repeat
            copy(band, p, xs, s * C, C)
            if C2:
                copy(band, p + C, x2s, s * C2, C2)
            if pitch > C + C2:
                clear(band, p + C + C2, pitch - C - C2)
