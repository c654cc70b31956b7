"""Bands of rows: the part of the input that a convolution kernel reads next, copied into cache in the layout it needs.

A band is a few rows of the input with their border of zeros, loaded into a thread's own scratch just before they are
used. While a row is loaded it can be joined from two arrays (a concatenation), repeated (nearest upsampling), or spread
out by zeros (the transpose of a stride). The joined, repeated or spread image exists nowhere else.

`pitch` is the distance from one pixel to the next: a whole number of vectors, where the channels beyond C are zero. It
is never a multiple of 4096 bytes, because addresses that far apart share one set of the cache.
"""

import numpy as np

from tinyseg.fast.cpu.channels_last import whole_vectors
from tinyseg.fast.cpu.kernel_cache import SUBROUTINE, njit
from tinyseg.fast.cpu.simd import LANES, clear, copy

NOTHING = np.zeros((1, 1, 1, 0), np.float32)  # stands for the second input where there is only one


def pitch_of(C):
    """Return the distance, in floats, between neighbouring pixels of a band with C channels."""
    pitch = whole_vectors(C)
    return pitch + LANES if pitch % 1024 == 0 else pitch


def transposed_pads(pads, kernel, dilation=(1, 1)):
    """Return the padding of the convolution that computes the gradient of the input of one with padding `pads`.

    Before and after, it is (k - 1) · d less the old padding before and after.
    """
    reach = ((k - 1) * d for k, d in zip(kernel, dilation, strict=True))
    return tuple((n - before, n - after) for n, (before, after) in zip(reach, pads, strict=True))


@njit(**SUBROUTINE)
def load_band(x, x2, n, first, rows, left, width, repeat, sh, sw, band, start, pitch, step):
    """Write `rows` rows of image n, `first`, `first + step` …, to band[start:], each `width` pixels.

    Rows and columns are counted in the repeated or spread image; outside of it everything is zero. The first column is
    `-left`, which may lie inside the image. `x` and `x2` (N, H, W, C) are joined along the channels. `repeat` is the
    factor of upsampling, and (sh, sw) is the stride that zeros undo.
    """
    H, W, C, C2 = x.shape[1], x.shape[2], x.shape[3], x2.shape[3]
    xs, x2s = x.reshape(-1), x2.reshape(-1)
    height, span = (H - 1) * sh * repeat + repeat, (W - 1) * sw * repeat + repeat
    for row in range(rows):
        r, target = first + row * step, start + row * width * pitch
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
