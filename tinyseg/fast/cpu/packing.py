"""Weights laid out for matrix products: panels of WIDTH columns, in which each row is one piece of memory.

As an array, weights (N, K) have the elements of a *row* of the packed matrix far apart. Blocks of LANES x LANES are
turned over in registers: read along one axis, written along the other, whole vectors both times.
"""

import numpy as np

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.kernel_cache import SUBROUTINE, njit
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.fast.cpu.simd import LANES, LINE, WIDTH, clear, copy, load, store, transpose

PIECE = 256  # input channels that one part of the parallel loop packs


def pack(b):
    """Return a float32 matrix B (K, N) of any strides in panels of WIDTH columns, one after another; zeros beyond N."""
    return pack_weights(b.T[:, :, None, None], len(b))


def pack_weights(w, pitch):
    """Pack weights w (K, C, KH, KW) as the matrix ((u, v, c), k), with `pitch` rows for the C channels of a tap."""
    K, C, KH, KW = w.shape
    B = empty(KH * KW * pitch * -(-K // WIDTH) * WIDTH)
    _pack(-(-K // WIDTH) * -(-C // PIECE), *as_read(w), pitch, B)
    return B


def as_read(w):
    """Return weights (K, C, KH, KW) as they lie in memory, and the layout by which `pack_channels` finds them there.

    The weights of one output channel, or of one input channel, form a row in memory. A layout is K, C, the number of
    taps, whether the taps are in reverse order, whether a row belongs to an input channel, and how far it is from one
    row to the next. Arrays that are not a layer's own weights, or some channels of them, are copied.
    """
    K, C, KH, KW = w.shape
    turned = w.strides[2] < 0 and w.strides[3] < 0
    w = w[:, :, ::-1, ::-1] if turned else w
    swapped = w.strides[0] < w.strides[1]
    w = w.transpose(1, 0, 2, 3) if swapped else w
    row = w.strides[0] // w.itemsize if len(w) > 1 else w[0].size
    if row < w[0].size or w.strides[0] % w.itemsize or not w[0].flags.c_contiguous:
        w, row = np.ascontiguousarray(w), w[0].size
    flat = np.lib.stride_tricks.as_strided(w, ((len(w) - 1) * row + w[0].size,), (w.itemsize,))
    return flat, (K, C, KH * KW, turned, swapped, row)


@parallel
def _pack(piece, w, layout, pitch, B):
    C, taps = layout[1], layout[2]
    pieces = -(-C // PIECE)
    panel, c0 = piece // pieces, piece % pieces * PIECE
    start, c1 = panel * taps * pitch * WIDTH, min(C, c0 + PIECE)
    pack_channels(w, layout, panel, c0, c1, pitch, B, start)
    if c1 == C:
        for t in range(taps):
            clear(B, start + (t * pitch + C) * WIDTH, (pitch - C) * WIDTH)


@njit(**SUBROUTINE)
def pack_channels(w, layout, panel, c0, c1, pitch, B, start):
    """Pack input channels c0 to c1 of one panel: those of channel c and tap t to row t·pitch + c after `start`."""
    K, _, taps, turned, swapped, row = layout
    k0 = panel * WIDTH
    n = min(WIDTH, K - k0)
    if swapped and taps == 1:  # the rows of the matrix as they are
        for c in range(c0, c1):
            copy(B, start + c * WIDTH, w, c * row + k0, n)
            clear(B, start + c * WIDTH + n, WIDTH - n)
    elif swapped:
        for c in range(c0, c1):
            _turn_over(w, c * row + k0 * taps, taps, n, c, c + 1, taps, pitch, turned, B, start)
    else:
        _turn_over(w, k0 * row + c0 * taps, row, n, c0, c1, taps, pitch, turned, B, start)


@njit(**SUBROUTINE)
def _turn_over(w, source, step, n, c0, c1, taps, pitch, turned, B, start):
    """Pack n columns whose weights, channel by channel and tap by tap, begin at `source`, `source + step` …"""
    block = np.empty(LANES * LANES, np.float32)
    length = (c1 - c0) * taps
    c_line, t_line = c0, 0
    for line in range(0, length, LINE):
        for k in range(0, WIDTH, LANES):
            c, t = c_line, t_line
            for q in range(line, min(line + LINE, length), LANES):
                first, columns = source + k * step + q, min(LANES, length - q)
                if k + LANES <= n and first + (LANES - 1) * step + LANES <= w.size:
                    transpose(block, w, first, step)
                else:
                    for i in range(columns):
                        for j in range(LANES):
                            block[i * LANES + j] = w[first + j * step + i] if k + j < n else np.float32(0)
                for i in range(columns):
                    row = (taps - 1 - t if turned else t) * pitch + c
                    store(B, start + row * WIDTH + k, load(block, i * LANES))
                    t += 1
                    if t == taps:
                        c, t = c + 1, 0
        c_line, t_line = c, t
