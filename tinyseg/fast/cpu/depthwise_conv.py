"""Depthwise convolution with numba: vectors of channels, four output pixels at a time, bands of rows in cache.

Equations and signatures as in `tinyseg.ops.depthwise_conv`. The inner loops are in `tinyseg.fast.cpu.windows`; what is
particular to a dilation above 1 is in `tinyseg.fast.cpu.dilation`.
"""

import numpy as np
from numba import njit, prange

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.bands import NOTHING, load_band, pitch_of, transposed_pads
from tinyseg.fast.cpu.channels_last import PARALLEL, channels_first, float32, pixels, threads
from tinyseg.fast.cpu.dilation import correlate_dilated, correlate_dilated_gradient
from tinyseg.fast.cpu.simd import LANES, clear, copy
from tinyseg.fast.cpu.windows import band_rows, window_gradient, windows

supports = float32


def forward(x, w, stride, pads, out, dilation=(1, 1)):
    """Filter each channel with its kernel: (N, C, H, W) -> (N, C, OH, OW)."""
    x = pixels(x)
    y = empty((len(x), *out, x.shape[3]))
    if dilation == (1, 1):
        correlate(x, NOTHING, taps_of(w), stride, pads, y)
    else:
        correlate_dilated(x, w, stride, pads, dilation, y)
    return channels_first(y)


def grad_x(gy, w, x_shape, stride, pads, dilation=(1, 1)):
    """Gradient of the input, (N, C, H, W)."""
    gy, (N, C, H, W) = pixels(gy), x_shape
    gx = empty((N, H, W, C))
    if dilation == (1, 1):
        correlate_transposed(gy, w, stride, pads, gx)
    else:  # gy, its stride undone by zeros in between, with the kernel turned round
        pads = transposed_pads(pads, w.shape[1:], dilation)
        correlate_dilated(gy, w[:, ::-1, ::-1], (1, 1), pads, dilation, gx, spread=stride)
    return channels_first(gx)


def grad_w(x, gy, w_shape, stride, pads, dilation=(1, 1)):
    """Gradient of the kernels, (C, KH, KW)."""
    x, gy = pixels(x), pixels(gy)
    if dilation == (1, 1):
        return correlate_gradient(x, NOTHING, gy, w_shape, stride, pads)
    return correlate_dilated_gradient(x, gy, w_shape, stride, pads, dilation)


# ----- on (N, H, W, C) ---------------------------------------------------------------
def taps_of(w):
    """Lay weights (C, KH, KW) out as (KH, KW, pitch): for one tap, all channels."""
    C, KH, KW = w.shape
    taps = np.zeros((KH, KW, pitch_of(C)), np.float32)
    taps[:, :, :C] = w.transpose(1, 2, 0)
    return taps


def correlate(x, x2, w, stride, pads, y, y2=NOTHING, repeat=1, spread=(1, 1)):
    """y, y2 = the halves of the correlation of (x, x2), loaded by `load_band`, with taps w (KH, KW, pitch)."""
    (sh, sw), KH, pitch, (N, OH, OW, _) = stride, len(w), w.shape[2], y.shape
    rows, width = band_rows(N, OH, OW * pitch), (OW - 1) * sw + w.shape[1]
    scratch = empty((threads(), ((rows - 1) * sh + KH) * width + OW, pitch))
    _correlate(x, x2, w, sh, sw, pads[0][0], pads[1][0], repeat, *spread, rows, width, scratch, y, y2)


def correlate_transposed(gy, w, stride, pads, gx, gx2=NOTHING):
    """gx, gx2 = the halves of the gradient of the input of a correlation with weights w (C, KH, KW)."""
    pads = transposed_pads(pads, w.shape[1:])
    correlate(gy, NOTHING, taps_of(w[:, ::-1, ::-1]), (1, 1), pads, gx, gx2, spread=stride)


def correlate_gradient(x, x2, gy, w_shape, stride, pads, repeat=1):
    """Gradient (C, KH, KW) of the taps of `correlate`, with gy (N, OH, OW, C)."""
    (C, KH, KW), (sh, sw), (N, OH, OW, _) = w_shape, stride, gy.shape
    pitch = pitch_of(C)
    rows, width = band_rows(N, OH, OW * pitch), (OW - 1) * sw + KW
    scratch = empty((threads(), ((rows - 1) * sh + KH) * width + OW, pitch))
    gw = empty((threads(), KH, KW, pitch))
    _correlate_gradient(x, x2, gy, sh, sw, pads[0][0], pads[1][0], repeat, rows, width, scratch, gw)
    return np.ascontiguousarray(gw.sum(axis=0)[:, :, :C].transpose(2, 0, 1))


@njit(**PARALLEL)
def _correlate(x, x2, w, sh, sw, top, left, repeat, dh, dw, rows, width, scratch, y, y2):
    N, OH, OW, C = y.shape
    C2 = y2.shape[3]
    KH, KW, pitch = w.shape
    bands = -(-OH // rows)
    T = scratch.shape[0]
    ys, y2s, ws = y.reshape(-1), y2.reshape(-1), w.reshape(-1)
    whole = C % LANES == 0 and C2 % LANES == 0
    halves = 2 if whole and C2 else 1
    for t in prange(T):
        band = scratch[t].reshape(-1)
        line = band.size - OW * pitch  # a row of output, where its channels are no whole vectors
        for task in range(N * bands * t // T, N * bands * (t + 1) // T):
            n, i0 = task // bands, task % bands * rows
            m = min(rows, OH - i0)
            load_band(x, x2, n, i0 * sh - top, (m - 1) * sh + KH, left, width, repeat, dh, dw, band, 0, pitch)
            for i in range(m):
                start, pixel = i * sh * width * pitch, (n * OH + i0 + i) * OW
                for half in range(halves):  # one call, not three: `windows` is what takes long to compile
                    c0, count, out, target, out_pitch = 0, C + C2, band, line, pitch
                    if whole:
                        c0, count = (C, C2) if half else (0, C)
                        out, target, out_pitch = y2s if half else ys, pixel * count, count
                    windows(band, start, width, pitch, ws, KH, KW, sw, OW, c0, count, out, target, out_pitch)
                if not whole:
                    for j in range(OW):
                        copy(ys, (pixel + j) * C, band, line + j * pitch, C)
                        copy(y2s, (pixel + j) * C2, band, line + j * pitch + C, C2)


@njit(**PARALLEL)
def _correlate_gradient(x, x2, gy, sh, sw, top, left, repeat, rows, width, scratch, gw):
    N, OH, OW, C = gy.shape
    T, KH, KW, pitch = gw.shape
    bands = -(-OH // rows)
    gys = gy.reshape(-1)
    for t in prange(T):
        band, sums = scratch[t].reshape(-1), gw[t].reshape(-1)
        clear(sums, 0, sums.size)
        line = band.size - OW * pitch
        for task in range(N * bands * t // T, N * bands * (t + 1) // T):
            n, i0 = task // bands, task % bands * rows
            m = min(rows, OH - i0)
            load_band(x, x2, n, i0 * sh - top, (m - 1) * sh + KH, left, width, repeat, 1, 1, band, 0, pitch)
            for i in range(m):
                source = (n * OH + i0 + i) * OW * C
                if C % LANES == 0:
                    window_gradient(band, i * sh * width * pitch, width, pitch, gys, source, C, KH, KW, sw, OW, C, sums)
                else:
                    for j in range(OW):
                        copy(band, line + j * pitch, gys, source + j * C, C)
                        clear(band, line + j * pitch + C, pitch - C)
                    window_gradient(
                        band, i * sh * width * pitch, width, pitch, band, line, pitch, KH, KW, sw, OW, C, sums
                    )
