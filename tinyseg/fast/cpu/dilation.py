"""Dilated depthwise convolution: rows and columns of one phase are an ordinary depthwise convolution.

At stride 1, output rows a, a + dh, a + 2dh … read input rows a, a + dh, a + 2dh … and no others: among themselves they
are not dilated. With stride sh this holds for every mh-th output row, mh = dh / gcd(sh, dh), and their stride in units
of dh is sh / gcd(sh, dh). Columns likewise. So a band holds rows of one phase, and the loops of
`tinyseg.fast.cpu.windows` see one phase of its columns when they are given dw times the pitch, which is the distance
from one pixel to the next. Arrays here are (N, H, W, C).
"""

import math

import numpy as np
from numba import njit, prange

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.bands import NOTHING, load_band, pitch_of
from tinyseg.fast.cpu.channels_last import OPTIONS, PARALLEL, threads
from tinyseg.fast.cpu.simd import LANES, clear, copy
from tinyseg.fast.cpu.windows import band_rows, window_gradient, windows


def correlate_dilated(x, w, stride, pads, dilation, y, spread=(1, 1)):
    """y = the dilated correlation of x, spread out by zeros in between, with w (C, KH, KW)."""
    C, KH, KW = w.shape
    options, wide, scratch = plan(w.shape, stride, pads, y.shape, dilation)
    taps = np.zeros((KH, KW, wide), np.float32)
    taps[:, :, :C] = w.transpose(1, 2, 0)
    _correlate(x, taps, *spread, *options, scratch, y)


def correlate_dilated_gradient(x, gy, w_shape, stride, pads, dilation):
    """Gradient (C, KH, KW) of the taps of `correlate_dilated`, with gy (N, OH, OW, C)."""
    C, KH, KW = w_shape
    options, wide, scratch = plan(w_shape, stride, pads, gy.shape, dilation)
    gw = empty((threads(), KH, KW, wide))
    _correlate_gradient(x, gy, *options, scratch, gw)
    return np.ascontiguousarray(gw.sum(axis=0)[:, :, :C].transpose(2, 0, 1))


def plan(w_shape, stride, pads, y_shape, dilation):
    """What both kernels need to know, the length of a row of taps, and scratch for the bands."""
    (C, KH, KW), (sh, sw), (dh, dw), (N, OH, OW, _) = w_shape, stride, dilation, y_shape
    gh, gw = math.gcd(sh, dh), math.gcd(sw, dw)
    pitch = pitch_of(C)
    pitch += LANES * (pitch * dw % 1024 == 0)  # no multiple of 4096 bytes between the columns of a phase
    phases = min(dh // gh, OH)
    rows = band_rows(N * phases, -(-OH // phases), OW * pitch)
    width = (OW - 1) * sw + (KW - 1) * dw + 1
    width += -width % dw
    scratch = empty((threads(), ((rows - 1) * sh // gh + KH) * width + OW, pitch))
    return (sh, sw, dh, dw, gh, gw, pads[0][0], pads[1][0], rows, width), pitch * dw, scratch


@njit(**OPTIONS)
def load_phase(x, n, first, step, rows, left, width, dh, dw, band, pitch):
    """Write rows `first`, `first + step` … of image n to the band; (dh, dw) is the stride that is undone."""
    for row in range(rows):
        load_band(x, NOTHING, n, first + row * step, 1, left, width, 1, dh, dw, band, row * width * pitch, pitch)


@njit(**PARALLEL)
def _correlate(x, w, uh, uw, sh, sw, dh, dw, gh, gw, top, left, rows, width, scratch, y):
    N, OH, OW, C = y.shape
    KH, KW, wide = w.shape
    mh, mw, sh1, sw1, pitch = dh // gh, dw // gw, sh // gh, sw // gw, wide // dw
    phases, most, T = min(mh, OH), -(-OH // mh), scratch.shape[0]
    bands = -(-most // rows)
    tasks = N * phases * bands
    ys, ws = y.reshape(-1), w.reshape(-1)
    for t in prange(T):
        band = scratch[t].reshape(-1)
        line = band.size - OW * pitch  # a row of output, where its channels are no whole vectors
        out, target, out_pitch = (ys, 0, C) if C % LANES == 0 else (band, line, pitch)
        for task in range(tasks * t // T, tasks * (t + 1) // T):
            n, a, i0 = task // bands // phases, task // bands % phases, task % bands * rows
            m = min(rows, -(-(OH - a) // mh) - i0)
            load_phase(x, n, a * sh + i0 * sh1 * dh - top, dh, (m - 1) * sh1 + KH, left, width, uh, uw, band, pitch)
            for i in range(m):
                start, pixel = i * sh1 * width * pitch, (n * OH + a + (i0 + i) * mh) * OW
                if C % LANES == 0:
                    target = pixel * C
                for b in range(min(mw, OW)):
                    windows(
                        band, start + b * sw * pitch, width // dw, wide, ws, KH, KW, sw1, -(-(OW - b) // mw), 0, C,
                        out, target + b * out_pitch, mw * out_pitch,
                    )  # fmt: skip
                if C % LANES != 0:
                    for j in range(OW):
                        copy(ys, (pixel + j) * C, band, line + j * pitch, C)


@njit(**PARALLEL)
def _correlate_gradient(x, gy, sh, sw, dh, dw, gh, gw, top, left, rows, width, scratch, sums):
    N, OH, OW, C = gy.shape
    T, KH, KW, wide = sums.shape
    mh, mw, sh1, sw1, pitch = dh // gh, dw // gw, sh // gh, sw // gw, wide // dw
    phases, most = min(mh, OH), -(-OH // mh)
    bands = -(-most // rows)
    tasks = N * phases * bands
    gys = gy.reshape(-1)
    for t in prange(T):
        band, mine = scratch[t].reshape(-1), sums[t].reshape(-1)
        clear(mine, 0, mine.size)
        line = band.size - OW * pitch
        source, of, of_pitch = (gys, 0, C) if C % LANES == 0 else (band, line, pitch)
        for task in range(tasks * t // T, tasks * (t + 1) // T):
            n, a, i0 = task // bands // phases, task // bands % phases, task % bands * rows
            m = min(rows, -(-(OH - a) // mh) - i0)
            load_phase(x, n, a * sh + i0 * sh1 * dh - top, dh, (m - 1) * sh1 + KH, left, width, 1, 1, band, pitch)
            for i in range(m):
                start, pixel = i * sh1 * width * pitch, (n * OH + a + (i0 + i) * mh) * OW
                if C % LANES == 0:
                    of = pixel * C
                else:
                    for j in range(OW):
                        copy(band, line + j * pitch, gys, (pixel + j) * C, C)
                        clear(band, line + j * pitch + C, pitch - C)
                for b in range(min(mw, OW)):
                    window_gradient(
                        band, start + b * sw * pitch, width // dw, wide, source, of + b * of_pitch, mw * of_pitch,
                        KH, KW, sw1, -(-(OW - b) // mw), C, mine,
                    )  # fmt: skip
