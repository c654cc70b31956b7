"""Depthwise convolution with numba: vectors of channels, four output pixels at a time, bands of rows in cache.

Equations and signatures as in `tinyseg.ops.depthwise_conv`. The inner loops are in `tinyseg.fast.cpu.windows`.

A dilated convolution is split into *phases* that are not dilated. At stride 1, output rows a, a + dh, a + 2dh … read
input rows a, a + dh, a + 2dh … and no others. With stride sh this holds for every mh-th output row,
mh = dh / gcd(sh, dh); in units of dh, the stride between them is sh / gcd(sh, dh). The same holds for columns. A band
therefore holds rows of one phase, and `windows` gets one phase of its columns when it is told that neighbouring pixels
are dw · pitch apart. With dilation 1 there is one phase: everything.
"""

import math

import numpy as np

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.bands import NOTHING, load_band, pitch_of, transposed_pads
from tinyseg.fast.cpu.channels_last import channels_first, float32, pixels, threads
from tinyseg.fast.cpu.kernel_cache import OPTIONS, SUBROUTINE, njit
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.fast.cpu.shares import BANDS_FOR, MOST_SHARES, flush
from tinyseg.fast.cpu.simd import LANES, clear, copy
from tinyseg.fast.cpu.windows import band_rows, window_gradient, windows

LONGEST = 128  # pixels in one float32 sum of the gradient of the kernels

supports = float32


def forward(x, w, stride, pads, out, dilation=(1, 1)):
    """Filter each channel with its kernel: (N, C, H, W) -> (N, C, OH, OW)."""
    x = pixels(x)
    y = empty((len(x), *out, x.shape[3]))
    correlate(x, w, stride, pads, dilation, y)
    return channels_first(y)


def grad_x(gy, w, x_shape, stride, pads, dilation=(1, 1)):
    """Gradient of the input, (N, C, H, W)."""
    N, C, H, W = x_shape
    gx = empty((N, H, W, C))
    correlate_transposed(pixels(gy), w, stride, pads, dilation, gx)
    return channels_first(gx)


def grad_w(x, gy, w_shape, stride, pads, dilation=(1, 1)):
    """Gradient of the kernels, (C, KH, KW)."""
    return correlate_gradient(pixels(x), pixels(gy), w_shape, stride, pads, dilation)


# ----- on (N, H, W, C) ---------------------------------------------------------------
def correlate(x, w, stride, pads, dilation, y, spread=(1, 1)):
    """Write the correlation of x with w (C, KH, KW) to y.

    Before that, x is spread out by zeros: `spread` is the distance between its rows and between its columns.
    """
    plan, _, size = _plan(w.shape, stride, pads, dilation, y.shape, threads())
    scratch = empty((threads(), size))
    _correlate(len(scratch), x, NOTHING, lay_out_taps(w, dilation[1]), spread, plan, scratch, y)


def correlate_transposed(gy, w, stride, pads, dilation, gx):
    """Write the gradient of the input of a correlation with w (C, KH, KW) to gx.

    It is the correlation of gy, its stride undone by zeros in between, with the kernel turned round.
    """
    pads = transposed_pads(pads, w.shape[1:], dilation)
    correlate(gy, w[:, ::-1, ::-1], (1, 1), pads, dilation, gx, spread=stride)


def plan_transposed(w, pads, shape):
    """Return what `correlate_between` needs for the gradient of an input of this shape (N, H, W, C).

    It is the taps, the plan, and the size of a thread's scratch.
    """
    pads = transposed_pads(pads, w.shape[1:])
    plan, _, size = _plan(w.shape, (1, 1), pads, (1, 1), shape, threads())
    return lay_out_taps(w[:, ::-1, ::-1]), plan, size


def correlate_gradient(x, gy, w_shape, stride, pads, dilation):
    """Return the gradient (C, KH, KW) of the kernels, with gy (N, OH, OW, C)."""
    C, KH, KW = w_shape
    plan, tasks, size = _plan(w_shape, stride, pads, dilation, gy.shape, BANDS_FOR)
    scratch = empty((threads(), size))
    gw = np.zeros((min(MOST_SHARES, tasks), KH, KW, dilation[1] * _pitch(C, dilation[1])))  # float64
    _correlate_gradient(len(scratch), x, NOTHING, gy, plan, scratch, empty((len(scratch), *gw.shape[1:])), gw)
    return sum_taps(gw, C)


def sum_taps(gw, C):
    """Return the gradient (C, KH, KW), float32, from the sums (S, KH, KW, …) of shares."""
    return np.ascontiguousarray(gw.sum(axis=0)[:, :, :C].transpose(2, 0, 1), np.float32)


def lay_out_taps(w, dw=1):
    """Lay weights (C, KH, KW) out as (KH, KW, dw · pitch): for one tap, all channels, then zeros."""
    C, KH, KW = w.shape
    taps = np.zeros((KH, KW, dw * _pitch(C, dw)), np.float32)
    taps[:, :, :C] = w.transpose(1, 2, 0)
    return taps


def _pitch(C, dw):
    """Distance between neighbouring pixels of a band, so that columns of one phase are not 4096 bytes apart either."""
    pitch = pitch_of(C)
    return pitch + LANES if pitch * dw % 1024 == 0 else pitch


def _plan(w_shape, stride, pads, dilation, y_shape, parts):
    """Return numbers that all kernels need, how many bands there are, and the size of a thread's scratch.

    Bands are cut for `parts` equal parts. The scratch holds one, and a row of output.
    """
    (C, KH, KW), (sh, sw), (dh, dw), (N, OH, OW, _) = w_shape, stride, dilation, y_shape
    gh, gw = math.gcd(sh, dh), math.gcd(sw, dw)
    mh, mw = dh // gh, dw // gw
    pitch, phases = _pitch(C, dw), min(mh, OH)
    rows = band_rows(N * phases, -(-OH // phases), OW * pitch, parts)
    bands = -(-OH // (phases * rows))
    width = (OW - 1) * sw + (KW - 1) * dw + 1
    width += -width % dw
    size = (((rows - 1) * sh // gh + KH) * width + OW) * pitch
    top, left = pads[0][0], pads[1][0]
    numbers = (sh, sw, dh, dw, mh, mw, sh // gh, sw // gw, top, left, phases, rows, bands, width, pitch)
    return numbers, N * phases * bands, size


@parallel
def _correlate(t, x, nothing, w, spread, plan, scratch, y):
    mh, phases, rows, bands = plan[4], plan[10], plan[11], plan[12]
    tasks, T = len(y) * phases * bands, len(scratch)
    for task in range(tasks * t // T, tasks * (t + 1) // T):
        n, a, i0 = task // bands // phases, task // bands % phases, task % bands * rows
        m = min(rows, -(-(y.shape[1] - a) // mh) - i0)
        _correlate_rows(x, nothing, n, 0, n, a, i0, m, w, spread, plan, scratch[t], y, nothing)


@njit(**SUBROUTINE)
def correlate_between(x, nothing, k, above, n, first, last, w, spread, plan, band, y, y2):
    """Compute the rows `first` to `last` - 1 of image n of a correlation without dilation, as `correlate` does.

    The first channels go to y, the others to y2. The rows of the input that this needs, from row `above` on, are image
    k of x.
    """
    for i0 in range(first, last, plan[11]):
        _correlate_rows(x, nothing, k, above, n, 0, i0, min(plan[11], last - i0), w, spread, plan, band, y, y2)


@njit(**SUBROUTINE)
def _correlate_rows(x, nothing, k, above, n, a, i0, m, w, spread, plan, band, y, y2):
    """Compute m rows from i0 on of phase a; (sh1, sw1) are its strides, (uh, uw) those that zeros undo."""
    sh, sw, dh, dw, mh, mw, sh1, sw1, top, left, phases, rows, bands, width, pitch = plan
    uh, uw = spread
    _, OH, OW, C = y.shape
    C2 = y2.shape[3]
    KH, KW, wide = w.shape
    ys, y2s, ws = y.reshape(-1), y2.reshape(-1), w.reshape(-1)
    whole = C % LANES == 0 and C2 % LANES == 0
    parts, at_once = (2 if C2 else 1, m) if whole else (1, 1)
    line = band.size - OW * pitch  # a row of output, where its channels are no whole vectors
    first = a * sh + i0 * sh1 * dh - top - above * uh
    load_band(x, nothing, k, first, (m - 1) * sh1 + KH, left, width, 1, uh, uw, band, 0, pitch, dh)
    row = sh1 * width * pitch
    for i in range(0, m, at_once):
        pixel = (n * OH + a + (i0 + i) * mh) * OW
        for part in range(parts):  # one call, not three: `windows` is what takes long to compile
            c0, count, out, target, out_pitch = 0, C + C2, band, line, pitch
            if whole:
                c0, count = (C, C2) if part else (0, C)
                out, target, out_pitch = y2s if part else ys, pixel * count, count
            for b in range(min(mw, OW)):
                windows(
                    band, i * row + b * sw * pitch, row, width // dw, wide, ws, KH, KW, sw1, at_once,
                    -(-(OW - b) // mw), c0, count, out, target + b * out_pitch, mh * OW * out_pitch, mw * out_pitch,
                )  # fmt: skip
        if not whole:
            for j in range(OW):
                copy(ys, (pixel + j) * C, band, line + j * pitch, C)
                copy(y2s, (pixel + j) * C2, band, line + j * pitch + C, C2)


@parallel
def _correlate_gradient(t, x, nothing, gy, plan, scratch, of_band, gw):
    sh, sw, dh, dw, mh, mw, sh1, sw1, top, left, phases, rows, bands, width, pitch = plan
    N, OH, OW, C = gy.shape
    S, KH, KW, wide = gw.shape
    T, tasks, gys = len(scratch), N * phases * bands, gy.reshape(-1)
    whole = C % LANES == 0
    band, sums = scratch[t], of_band[t].reshape(-1)
    line = band.size - OW * pitch
    source, start_of_row, source_pitch = (gys, 0, C) if whole else (band, line, pitch)
    clear(sums, 0, sums.size)
    for share in range(S * t // T, S * (t + 1) // T):
        total = gw[share].reshape(-1)
        for task in range(tasks * share // S, tasks * (share + 1) // S):
            n, a, i0 = task // bands // phases, task // bands % phases, task % bands * rows
            m = min(rows, -(-(OH - a) // mh) - i0)
            first = a * sh + i0 * sh1 * dh - top
            load_band(x, nothing, n, first, (m - 1) * sh1 + KH, left, width, 1, 1, 1, band, 0, pitch, dh)
            for i in range(m):
                start, pixel = i * sh1 * width * pitch, (n * OH + a + (i0 + i) * mh) * OW
                if whole:
                    start_of_row = pixel * C
                else:
                    for j in range(OW):
                        copy(band, line + j * pitch, gys, (pixel + j) * C, C)
                        clear(band, line + j * pitch + C, pitch - C)
                for b in range(min(mw, OW)):
                    count = -(-(OW - b) // mw)
                    add_row_gradient(
                        band, start + b * sw * pitch, width // dw, wide, source, start_of_row + b * source_pitch,
                        mw * source_pitch, KH, KW, sw1, count, C, sums,
                    )  # fmt: skip
            flush(sums, 0, sums.size, total)


@njit(**OPTIONS)
def add_row_gradient(band, start, width, pitch, gy, source, gy_pitch, KH, KW, sw, OW, C, gw):
    """Compute `window_gradient` of a row of any length: at most LONGEST pixels are in one float32 sum."""
    for j in range(0, OW, LONGEST):
        window_gradient(
            band, start + j * sw * pitch, width, pitch, gy, source + j * gy_pitch, gy_pitch,
            KH, KW, sw, min(LONGEST, OW - j), C, gw,
        )  # fmt: skip
