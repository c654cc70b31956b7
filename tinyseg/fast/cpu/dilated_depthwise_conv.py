"""Dilated depthwise convolution with numba: rows and columns of one phase are an ordinary depthwise convolution.

Equations and signatures as in `tinyseg.ops.dilated_depthwise_conv`. At stride 1, output rows a, a + dh, a + 2dh … read
input rows a, a + dh, a + 2dh … and no others: among themselves they are not dilated. With stride sh this holds for
every mh-th output row, mh = dh / gcd(sh, dh), and their stride in units of dh is sh / gcd(sh, dh). Columns likewise.
So a band holds rows of one phase, and a phase of its columns is what `windows` and `window_gradient` of the
undilated kernel see when the pitch, the distance from one pixel to the next, is given to them dw times as large.
"""

import math

import numpy as np
from numba import njit, prange

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.bands import NOTHING, load_band, pitch_of
from tinyseg.fast.cpu.channels_last import OPTIONS, PARALLEL, channels_first, float32, pixels, threads
from tinyseg.fast.cpu.depthwise_conv import band_rows, window_gradient, windows
from tinyseg.fast.cpu.simd import LANES, clear, copy

supports = float32


def forward(x, w, stride, pads, out, dilation):
    """Convolve each channel: (N, C, H, W) -> (N, C, OH, OW)."""
    return correlate(pixels(x), w, stride, pads, out, dilation)


def grad_x(gy, w, x_shape, stride, pads, dilation):
    """Gradient of the input, (N, C, H, W): gy, its stride undone by zeros between, with the kernel turned round."""
    kernel = zip(w.shape[1:], dilation, pads, strict=True)
    pads = tuple(((k - 1) * d - before, (k - 1) * d - after) for k, d, (before, after) in kernel)
    return correlate(pixels(gy), w[:, ::-1, ::-1], (1, 1), pads, x_shape[2:], dilation, spread=stride)


def grad_w(x, gy, w_shape, stride, pads, dilation):
    """Gradient of the kernels, (C, KH, KW)."""
    (C, KH, KW), x, gy = w_shape, pixels(x), pixels(gy)
    options, wide, scratch = plan(w_shape, stride, pads, gy.shape, dilation)
    gw = empty((threads(), KH, KW, wide))
    _correlate_gradient(x, gy, *options, scratch, gw)
    return np.ascontiguousarray(gw.sum(axis=0)[:, :, :C].transpose(2, 0, 1))


# ----- on (N, H, W, C) ---------------------------------------------------------------
def correlate(x, w, stride, pads, out, dilation, spread=(1, 1)):
    """The dilated correlation of x (N, H, W, C), spread out by zeros, with w (C, KH, KW): (N, C, OH, OW)."""
    C, KH, KW = w.shape
    y = empty((len(x), *out, C))
    options, wide, scratch = plan(w.shape, stride, pads, y.shape, dilation)
    taps = np.zeros((KH, KW, wide), np.float32)
    taps[:, :, :C] = w.transpose(1, 2, 0)
    _correlate(x, taps, *spread, *options, scratch, y)
    return channels_first(y)


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
