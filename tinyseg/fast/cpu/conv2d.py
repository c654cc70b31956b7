"""Standard convolution with numba: a matrix product whose left side is read straight from a band of rows.

Equations and signatures as in `tinyseg.ops.conv2d`. With channels last, row u of the window of output (i, j) is one
contiguous piece of a padded row of the input: the KW·C values from pixel j·sw of row i·sh + u. These pieces, which
overlap, are the rows of the matrix that im2col would write out. 3x3 convolutions with stride 1 go to
`tinyseg.fast.cpu.winograd` where that needs less time.
"""

import numpy as np

from tinyseg.fast.cpu import winograd
from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.bands import NOTHING, load_band, transposed_pads
from tinyseg.fast.cpu.channels_last import channels_first, float32, pixels, threads
from tinyseg.fast.cpu.gemm import outer_panel, pad, rows_of_panel
from tinyseg.fast.cpu.kernel_cache import OPTIONS, njit
from tinyseg.fast.cpu.packing import pack_weights
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.fast.cpu.prepared import prepared
from tinyseg.fast.cpu.shares import LONG, divide_sums, flush, shares
from tinyseg.fast.cpu.simd import LANES, WIDTH, clear, copy, load, store
from tinyseg.fast.cpu.tile import NO_FLOOR

LONGEST = 256  # pixels in one sum of the gradient of the weights
BLOCK = 1024  # rows of a panel of weights that are used at a time: 128 KiB where a panel is 32 wide

supports = float32


def forward(x, w, stride, pads, out):
    """Convolve: (N, C, H, W) -> (N, K, OH, OW)."""
    x = pixels(x)
    y = empty((len(x), *out, len(w)))
    convolve(x, w, stride, pads, y)
    return channels_first(y)


def grad_x(gy, w, x_shape, stride, pads):
    """Gradient of the input, (N, C, H, W)."""
    N, C, H, W = x_shape
    gx = empty((N, H, W, C))
    convolve_transposed(pixels(gy), w, stride, pads, gx)
    return channels_first(gx)


def grad_w(x, gy, w_shape, stride, pads):
    """Gradient of the weights, (K, C, KH, KW)."""
    return convolve_gradient(pixels(x), pixels(gy), w_shape, stride, pads)


# ----- on (N, H, W, C) ---------------------------------------------------------------
def convolve(
    x, w, stride, pads, y, x2=NOTHING, b=None, relu=False, repeat=1, spread=(1, 1), every=1, at=(0, 0),
    may_be_uneven=True,
):  # fmt: skip
    """Write the correlation of (x, x2), as `load_band` reads them, with w (K, C, KH, KW), plus b, to y; then the ReLU.

    With `every` > 1 only the pixels (every·i + at[0], every·j + at[1]) of y are written: those are the output. Unless
    `may_be_uneven` is False, images whose values are too uneven for Winograd's method are computed without it.
    """
    b, floor = pad(np.zeros(len(w)) if b is None else b), np.float32(0) if relu else NO_FLOOR
    if every > 1 or not winograd.is_faster(w.shape, stride, y, spread):
        _directly(x, x2, w, b, floor, stride, pads, y, repeat, spread, every, at)
        return
    peaks = winograd.convolve(x, x2, w, b, floor, pads, y, repeat)
    for n in winograd.uneven_images(peaks, x, x2) if may_be_uneven else ():
        x2_n = x2[n : n + 1] if x2.shape[3] else x2
        _directly(x[n : n + 1], x2_n, w, b, floor, stride, pads, y[n : n + 1], repeat, spread, every, at)


def _directly(x, x2, w, b, floor, stride, pads, y, repeat, spread, every, at):
    """Compute `convolve` without Winograd's method."""
    (N, OH, OW, K), (_, C, KH, KW), (sh, sw) = y.shape, w.shape, stride
    OH, OW = (-(-(size - a) // every) for size, a in zip((OH, OW), at, strict=True))
    pitch = dense_pitch(C)
    rows = _rows(OH, OW)
    groups = 1 if N * -(-OH // rows) >= 2 * threads() or K < 2 * WIDTH else threads()
    width = (OW - 1) * sw + KW
    scratch = empty((threads(), ((rows - 1) * sh + KH) * width * pitch + rows * OW * WIDTH))
    B = prepared(w, "packed", lambda: pack_weights(w, pitch))
    _convolve(
        len(scratch), x, x2, B, b, floor, KH, KW, sh, sw, pads[0][0], pads[1][0], repeat, *spread, rows, groups, width,
        pitch, scratch, y, OH, OW, every, *at,
    )  # fmt: skip


def convolve_transposed(gy, w, stride, pads, gx):
    """Write the gradient of the input of a convolution with weights w (K, C, KH, KW) to gx."""
    turned = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    pads = transposed_pads(pads, w.shape[2:])
    convolve(gy, turned, (1, 1), pads, gx, spread=stride, may_be_uneven=False)  # gradients often are, and it is no harm


def convolve_gradient(x, gy, w_shape, stride, pads, x2=NOTHING, repeat=1):
    """Return the gradient (K, C, KH, KW) of the weights of `convolve`, with gy (N, OH, OW, K)."""
    if winograd.is_faster(w_shape, stride, gy, (1, 1)):
        return winograd.gradient(x, x2, gy, w_shape, pads, repeat)
    (N, OH, OW, K), (_, C, KH, KW), (sh, sw) = gy.shape, w_shape, stride
    pitch = dense_pitch(C)
    rows = _rows(OH, OW)
    width = (OW - 1) * sw + KW
    scratch = empty((threads(), ((rows - 1) * sh + KH) * width * pitch + LONGEST * WIDTH + LANES))
    P, sums = N * OH * OW, K * KH * KW * pitch
    read = P * (K + KH * pitch)
    divided = K >= 2 * WIDTH and divide_sums(sums, read)
    gw = empty((1 if divided else shares(N * -(-OH // rows), sums, read), K, KH, KW * pitch))
    long = LONG * len(gw) < P
    total = empty(gw.shape) if long else gw
    _gradient(
        len(scratch), x, x2, gy, sh, sw, pads[0][0], pads[1][0], repeat, rows, divided, width, pitch, scratch, long, gw,
        total, KW,
    )  # fmt: skip
    out = empty(w_shape)
    _unpack_gradient(K, total.reshape(-1, K, KH, KW, pitch), out)
    return out


def dense_pitch(C):
    """Return the distance between neighbouring pixels of a band: C, unless that is a multiple of 4096 bytes."""
    return C + LANES if C % 1024 == 0 else C


def _rows(OH, OW):
    """Return how many rows of output belong to a band: at least LONGEST pixels, so that weights are used often."""
    return min(OH, max(1, -(-LONGEST // OW)))


@parallel
def _unpack_gradient(k, parts, gw):
    """gw (K, C, KH, KW) = the sum of parts (T, K, KH, KW, pitch)."""
    _, C, KH, KW = gw.shape
    of_k = gw[k]
    for u in range(KH):
        for v in range(KW):
            for t in range(len(parts)):
                part = parts[t, k, u, v]
                if t == 0:
                    for c in range(C):
                        of_k[c, u, v] = part[c]
                else:
                    for c in range(C):
                        of_k[c, u, v] += part[c]


@parallel
def _convolve(
    t, x, x2, B, b, floor, KH, KW, sh, sw, top, left, repeat, dh, dw, rows, groups, width, pitch, scratch, y,
    OH, OW, every, row, column,
):  # fmt: skip
    N, _, _, K = y.shape
    bands, panels, T = -(-OH // rows), -(-K // WIDTH), scratch.shape[0]
    length = KW * pitch
    ys = y.reshape(-1)
    band = scratch[t]
    out = band.size - rows * OW * WIDTH  # sums of one panel
    first, last = (0, N * bands) if groups > 1 else (N * bands * t // T, N * bands * (t + 1) // T)
    p0, p1 = (panels * t // T, panels * (t + 1) // T) if groups > 1 else (0, panels)
    for task in range(first, last):
        n, i0 = task // bands, task % bands * rows
        m = min(rows, OH - i0)
        load_band(x, x2, n, i0 * sh - top, (m - 1) * sh + KH, left, width, repeat, dh, dw, band, 0, pitch, 1)
        for p in range(p0, p1):
            start, source, step = b, p * WIDTH, 0
            whole = KH * length <= BLOCK
            most = length if whole else BLOCK
            for u in range(1 if whole else KH):
                for k in range(0, length, most):
                    n_k = min(length - k, most)
                    end = whole or (u == KH - 1 and k + n_k == length)
                    for i in range(m):
                        rows_of_panel(
                            OW, KH if whole else 1, n_k, band, (i * sh + u) * width * pitch + k, width * pitch,
                            sw * pitch, 1, B, (p * KH * length + u * length + k) * WIDTH, WIDTH,
                            start, source + i * OW * step, step, floor if end else NO_FLOOR,
                            band, out + i * OW * WIDTH, WIDTH,
                        )  # fmt: skip
                    start, source, step = band, out, WIDTH
            N_p = min(WIDTH, K - p * WIDTH)
            for i in range(m):
                line = (n * y.shape[1] + (i0 + i) * every + row) * y.shape[2] + column
                for j in range(OW):
                    copy(ys, (line + j * every) * K + p * WIDTH, band, out + (i * OW + j) * WIDTH, N_p)


@njit(**OPTIONS)
def _gather(band, p, row, rows, n, target):
    """Write a row of a panel: n floats of each of `rows` rows of the band, from p on, and more of it up to a vector."""
    for v in range(rows):
        for c in range(0, n, LANES):
            store(band, target + v * n + c, load(band, p + v * row + c))


@parallel
def _gradient(t, x, x2, gy, sh, sw, top, left, repeat, rows, divided, width, pitch, scratch, long, gw, total, KW):
    """Compute the shares of gw that fall to thread t or, if `divided`, its output channels of the only one."""
    N, OH, OW, K = gy.shape
    S, _, KH, length = gw.shape
    tasks, bands, T = N * -(-OH // rows), -(-OH // rows), len(scratch)
    gys, band = gy.reshape(-1), scratch[t]
    panel = band.size - LONGEST * WIDTH - LANES
    k0, k1 = (K * t // T, K * (t + 1) // T) if divided else (0, K)
    start, size = k0 * KH * length, (k1 - k0) * KH * length
    first, last = (0, 1) if divided else (S * t // T, S * (t + 1) // T)
    at_once = KH if KH * length <= WIDTH else 1  # rows of the kernel that share a panel: all, if there is one channel
    for share in range(first, last):
        sums, totals, since = gw[share].reshape(-1), total[share].reshape(-1), 0
        clear(sums, start, size)
        clear(totals, start, size)
        for task in range(tasks * share // S, tasks * (share + 1) // S):
            n, i0 = task // bands, task % bands * rows
            m = min(rows, OH - i0) * OW
            load_band(x, x2, n, i0 * sh - top, (m // OW - 1) * sh + KH, left, width, repeat, 1, 1, band, 0, pitch, 1)
            for u in range(0, KH, at_once):
                for j in range(0, length, WIDTH):
                    n_j = min(WIDTH, at_once * length - j)
                    for pixel in range(0, m, LONGEST):
                        count = min(LONGEST, m - pixel)
                        i, col = pixel // OW, pixel % OW
                        for q in range(count):
                            _gather(
                                band, ((i * sh + u) * width + col * sw) * pitch + j, width * pitch, at_once,
                                min(n_j, length), panel + q * WIDTH,
                            )  # fmt: skip
                            i, col = (i, col + 1) if col + 1 < OW else (i + 1, 0)
                        source = ((n * OH + i0) * OW + pixel) * K + k0
                        target = (k0 * KH + u) * length + j
                        outer_panel(k1 - k0, n_j, count, gys, source, K, band, panel, sums, target, KH * length)
            since += m
            if long and since >= LONG:
                flush(sums, start, size, totals)
                since = 0
        if long:
            flush(sums, start, size, totals)
