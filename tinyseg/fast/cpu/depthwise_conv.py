"""Depthwise convolution with numba: vectors of channels, four output pixels at a time, bands of rows in cache.

Equations and signatures as in `tinyseg.ops.depthwise_conv`. `windows` also serves the depthwise half of
`tinyseg.fast.cpu.separable_conv`.
"""

import numpy as np
from numba import njit, prange

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.bands import NOTHING, load_band, pitch_of, transposed
from tinyseg.fast.cpu.channels_last import OPTIONS, PARALLEL, channels_first, float32, pixels, threads
from tinyseg.fast.cpu.simd import LANES, align_stack, clear, copy, load, splat, store

supports = float32


def forward(x, w, stride, pads, out):
    """Convolve each channel: (N, C, H, W) -> (N, C, OH, OW)."""
    x = pixels(x)
    y = empty((len(x), *out, x.shape[3]))
    correlate(x, NOTHING, taps_of(w), stride, pads, y)
    return channels_first(y)


def grad_x(gy, w, x_shape, stride, pads):
    """Gradient of the input, (N, C, H, W)."""
    gy, (N, C, H, W) = pixels(gy), x_shape
    gx = empty((N, H, W, C))
    correlate_transposed(gy, w, stride, pads, gx)
    return channels_first(gx)


def grad_w(x, gy, w_shape, stride, pads):
    """Gradient of the weights, (C, KH, KW)."""
    return correlate_gradient(pixels(x), NOTHING, pixels(gy), w_shape, stride, pads)


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
    pads = transposed(pads, w.shape[1:])
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


def band_rows(N, OH, row, budget=1 << 16):
    """Output rows to a band: about `budget` floats (256 KiB, a share of the second-level cache), equal work for all."""
    bands = max(-(-OH // 8), -(-OH * row // budget))
    while N * bands < 4 * threads() and bands < OH:
        bands += 1
    return -(-OH // bands)


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


@njit(**OPTIONS)
def windows(band, start, width, pitch, w, KH, KW, sw, OW, c0, C, y, target, y_pitch):
    """Channels c0 … c0 + C of one row of output from the KH rows of the band that begin at `start`."""
    align_stack()
    if KH == 3 and KW == 3 and sw == 1:  # constants let the compiler unroll the taps
        _windows(band, start, width, pitch, w, 3, 3, 1, OW, c0, C, y, target, y_pitch)
    elif KH == 2 and KW == 2 and sw == 1:
        _windows(band, start, width, pitch, w, 2, 2, 1, OW, c0, C, y, target, y_pitch)
    else:
        _windows(band, start, width, pitch, w, KH, KW, sw, OW, c0, C, y, target, y_pitch)


@njit(inline="always")
def _windows(band, start, width, pitch, w, KH, KW, sw, OW, c0, C, y, target, y_pitch):
    zero = splat(np.float32(0))
    step = sw * pitch
    for j in range(0, OW - 3, 4):
        for c in range(0, C, LANES):
            y0, y1, y2, y3 = zero, zero, zero, zero
            for u in range(KH):
                for v in range(KW):
                    tap = load(w, (u * KW + v) * pitch + c0 + c)
                    p = start + (u * width + j * sw + v) * pitch + c0 + c
                    y0 = y0 + load(band, p) * tap
                    y1 = y1 + load(band, p + step) * tap
                    y2 = y2 + load(band, p + 2 * step) * tap
                    y3 = y3 + load(band, p + 3 * step) * tap
            p = target + j * y_pitch + c
            store(y, p, y0)
            store(y, p + y_pitch, y1)
            store(y, p + 2 * y_pitch, y2)
            store(y, p + 3 * y_pitch, y3)
    for j in range(OW - OW % 4, OW):
        for c in range(0, C, LANES):
            y0 = zero
            for u in range(KH):
                for v in range(KW):
                    p = start + (u * width + j * sw + v) * pitch + c0 + c
                    y0 = y0 + load(band, p) * load(w, (u * KW + v) * pitch + c0 + c)
            store(y, target + j * y_pitch + c, y0)


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


@njit(**OPTIONS)
def window_gradient(band, start, width, pitch, gy, source, gy_pitch, KH, KW, sw, OW, C, gw):
    """Add to gw (KH, KW, pitch) what one row of output gives."""
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
