"""The inner loops of depthwise convolution: rows of output, from rows of a band that lie in cache.

They compute vectors of channels, four output pixels at a time and, at stride 1, two rows of them: what is loaded into
registers is then used by up to nine windows. They serve `tinyseg.fast.cpu.depthwise_conv`, and the depthwise half of
`tinyseg.fast.cpu.separable_conv` and of `tinyseg.fast.cpu.int8_conv`.
"""

import functools

import numpy as np

from tinyseg.fast.cpu.kernel_cache import SUBROUTINE, njit
from tinyseg.fast.cpu.simd import LANES, align_stack, is_large, load, multiply_add, splat, store, store_past


@functools.cache
def band_rows(N, OH, row, parts):
    """Return how many rows of output, of `row` floats each, belong to a band.

    At most 8 rows, and about 2¹⁶ floats (256 KiB, a share of the second-level cache). Fewer where `parts` of the bands
    of N images would otherwise be unequal, unless so many more bands cost more than that: each is a pass over
    all weights, and the rows at its edge are loaded for both neighbours, which is reckoned as one row more.
    """
    least = min(OH, max(-(-OH // 8), -(-OH * row // (1 << 16))))
    bands = min(range(least, OH + 1), key=lambda bands: -(-N * bands // parts) * (-(-OH // bands) + 1))
    return -(-OH // bands)


@njit(**SUBROUTINE)
def windows(band, start, row, width, pitch, w, KH, KW, sw, m, OW, c0, C, y, target, y_row, y_pitch):
    """Compute C channels from c0 on of m rows of output, from rows of the band, `width` pixels each.

    The first row of output reads the KH rows of the band from `start` on, the next one those from `start + row` on.
    Their pixels are written to `target`, y_pitch apart, and to `target + y_row` and so on.
    """
    align_stack()
    if KH == 3 and KW == 3 and sw == 1 and row == width * pitch:  # constants let the compiler unroll the taps
        _pairs(band, start, width, pitch, w, 3, 3, m, OW, c0, C, y, target, y_row, y_pitch)
    elif KH == 2 and KW == 2 and sw == 1 and row == width * pitch:
        _pairs(band, start, width, pitch, w, 2, 2, m, OW, c0, C, y, target, y_row, y_pitch)
    else:
        for i in range(m):
            _windows(band, start + i * row, width, pitch, w, KH, KW, sw, 0, OW, c0, C, y, target + i * y_row, y_pitch)


@njit(inline="always")
def _pairs(band, start, width, pitch, w, KH, KW, m, OW, c0, C, y, target, y_row, y_pitch):
    """Compute `windows` at stride 1, two rows at a time: they share KH - 1 of their KH + 1 rows of the band."""
    zero = splat(np.float32(0))
    row = width * pitch
    past = is_large(y) and target % LANES == 0 and y_pitch % LANES == 0
    for j in range(0, OW - 3, 4):
        for i in range(0, m - 1, 2):
            for c in range(0, C, LANES):
                y0, y1, y2, y3 = zero, zero, zero, zero
                z0, z1, z2, z3 = zero, zero, zero, zero
                for u in range(KH + 1):
                    for v in range(KW):
                        p, k = start + (i + u) * row + (j + v) * pitch + c0 + c, (u * KW + v) * pitch + c0 + c
                        x0, x1, x2, x3 = (
                            load(band, p), load(band, p + pitch), load(band, p + 2 * pitch), load(band, p + 3 * pitch)
                        )  # fmt: skip
                        if u < KH:
                            tap = load(w, k)
                            y0, y1, y2, y3 = _add_four(x0, x1, x2, x3, tap, y0, y1, y2, y3)
                        if u > 0:
                            tap = load(w, k - KW * pitch)
                            z0, z1, z2, z3 = _add_four(x0, x1, x2, x3, tap, z0, z1, z2, z3)
                p = target + i * y_row + j * y_pitch + c
                _store_four(y, p, y_pitch, past, y0, y1, y2, y3)
                _store_four(y, p + y_row, y_pitch, past, z0, z1, z2, z3)
    for i in range(m):  # columns that are left, and all columns of a row that is left
        j = 0 if i == m - 1 and m % 2 else OW - OW % 4
        _windows(band, start + i * row, width, pitch, w, KH, KW, 1, j, OW, c0, C, y, target + i * y_row, y_pitch)


@njit(inline="always")
def _windows(band, start, width, pitch, w, KH, KW, sw, j0, OW, c0, C, y, target, y_pitch):
    """Compute one row of output from column j0 on, four pixels at a time."""
    zero = splat(np.float32(0))
    step = sw * pitch
    past = is_large(y) and target % LANES == 0 and y_pitch % LANES == 0
    for j in range(j0, OW - 3, 4):
        for c in range(0, C, LANES):
            y0, y1, y2, y3 = zero, zero, zero, zero
            for u in range(KH):
                for v in range(KW):
                    tap = load(w, (u * KW + v) * pitch + c0 + c)
                    p = start + (u * width + j * sw + v) * pitch + c0 + c
                    x0, x1, x2, x3 = (
                        load(band, p), load(band, p + step), load(band, p + 2 * step), load(band, p + 3 * step)
                    )  # fmt: skip
                    y0, y1, y2, y3 = _add_four(x0, x1, x2, x3, tap, y0, y1, y2, y3)
            _store_four(y, target + j * y_pitch + c, y_pitch, past, y0, y1, y2, y3)
    for j in range(OW - OW % 4, OW):
        for c in range(0, C, LANES):
            y0 = zero
            for u in range(KH):
                for v in range(KW):
                    p = start + (u * width + j * sw + v) * pitch + c0 + c
                    y0 = multiply_add(load(band, p), load(w, (u * KW + v) * pitch + c0 + c), y0)
            store(y, target + j * y_pitch + c, y0)


@njit(inline="always")
def _add_four(x0, x1, x2, x3, tap, y0, y1, y2, y3):
    """Add a tap to four sums; in this order whatever the loop around it, so that every pixel is rounded alike."""
    return multiply_add(x0, tap, y0), multiply_add(x1, tap, y1), multiply_add(x2, tap, y2), multiply_add(x3, tap, y3)


@njit(inline="always")
def _store_four(y, p, pitch, past, y0, y1, y2, y3):
    store_past(y, p, y0, past)
    store_past(y, p + pitch, y1, past)
    store_past(y, p + 2 * pitch, y2, past)
    store_past(y, p + 3 * pitch, y3, past)


@njit(**SUBROUTINE)
def window_gradient(band, start, width, pitch, gy, source, gy_pitch, KH, KW, sw, OW, C, gw):
    """Add to gw (KH, KW, pitch) the part of the gradient that comes from one row of output."""
    align_stack()
    if KH == 3 and KW == 3 and sw == 1:
        for u in range(3):
            _three_taps(band, start + u * width * pitch, pitch, gy, source, gy_pitch, OW, C, gw, u * 3 * pitch)
    else:
        for u in range(KH):
            for v in range(KW):
                p, k = start + (u * width + v) * pitch, (u * KW + v) * pitch
                for c in range(0, C, LANES):
                    s = splat(np.float32(0))  # row by row keeps float32 sums short
                    for j in range(OW):
                        s = s + load(gy, source + j * gy_pitch + c) * load(band, p + j * sw * pitch + c)
                    store(gw, k + c, load(gw, k + c) + s)


@njit(inline="always")
def _three_taps(band, p, pitch, gy, source, gy_pitch, OW, C, gw, k):
    for c in range(0, C, LANES):
        zero = splat(np.float32(0))
        s0, s1, s2 = zero, zero, zero  # row by row keeps float32 sums short
        x0, x1 = load(band, p + c), load(band, p + pitch + c)
        for j in range(OW):
            g = load(gy, source + j * gy_pitch + c)
            x2 = load(band, p + (j + 2) * pitch + c)
            s0, s1, s2 = s0 + g * x0, s1 + g * x1, s2 + g * x2
            x0, x1 = x1, x2
        store(gw, k + c, load(gw, k + c) + s0)
        store(gw, k + pitch + c, load(gw, k + pitch + c) + s1)
        store(gw, k + 2 * pitch + c, load(gw, k + 2 * pitch + c) + s2)
