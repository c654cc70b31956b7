"""Depthwise separable convolution with numba: a few rows of D at a time, multiplied while they are in cache.

Equations and signatures as in `tinyseg.ops.separable_conv`.

    forward    for every band: load rows of X, D = depthwise(band), Y = max(floor, b + D wpᵀ)
    backward   for every band: G = gy where y > 0, gb += sum G, load rows of X, compute D again, gwp += Gᵀ D, gD = G wp,
               add to gwd what these rows of gD and X give; the transposed depthwise convolution of gD, as far as
               its rows are known. The rows that need gD from two threads come last.

Where the sums of gwp are divided among threads (`tinyseg.fast.cpu.shares`), G and D of all bands are kept for it.
"""

import numpy as np

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.bands import NOTHING, load_band
from tinyseg.fast.cpu.channels_last import channels_first, float32, pixels, threads, whole_vectors
from tinyseg.fast.cpu.depthwise_conv import add_row_gradient, correlate_between, lay_out_taps, plan_transposed, sum_taps
from tinyseg.fast.cpu.fused_conv import two_inputs
from tinyseg.fast.cpu.gemm import outer, pad, product
from tinyseg.fast.cpu.kernel_cache import OPTIONS, njit
from tinyseg.fast.cpu.packing import pack
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.fast.cpu.pointwise_conv import gradient
from tinyseg.fast.cpu.prepared import prepared
from tinyseg.fast.cpu.shares import BANDS_FOR, LONG, MOST_SHARES, divide_sums, flush, shares, sum_parts
from tinyseg.fast.cpu.simd import LANES, WIDTH, clear, copy, keep_where_positive, load, store
from tinyseg.fast.cpu.tile import NO_FLOOR
from tinyseg.fast.cpu.upsample import sum_blocks
from tinyseg.fast.cpu.windows import band_rows, windows

LONGEST = 256  # pixels in one sum of `outer`


def supports(wd, wp, b, *xs):
    """float32, and at most two inputs to join; in the backward pass gy stands in for b."""
    return float32(wd, wp, b, *xs) and len(xs) <= 2


def forward(xs, wd, wp, b, stride, pads, out, factor, relu):
    """Return y (N, K, OH, OW)."""
    x, x2 = two_inputs(xs)
    w = lay_out_taps(wd)
    y = empty((len(x), *out, len(wp)))
    rows, width, scratch = _scratch(y, w, stride, w.shape[2], threads())
    floor = np.float32(0) if relu else NO_FLOOR
    B = prepared(wp, "packed", lambda: pack(wp.T))
    _forward(len(scratch), x, x2, w, B, pad(b), stride, pads[0][0], pads[1][0], factor, rows, width, floor, scratch, y)
    return channels_first(y)


def backward(gy, xs, wd, wp, y, stride, pads, factor, relu):
    """Gradients of wd, wp, b, and a tuple of those of the xs."""
    (x, x2), gy, w = two_inputs(xs), pixels(gy), lay_out_taps(wd)
    (N, OH, OW, K), C, pitch, g_pitch = gy.shape, wp.shape[1], w.shape[2], whole_vectors(wp.shape[0])
    gxs = [empty(_upsampled(part, factor)) for part in (x, x2)]
    taps, plan, least = plan_transposed(wd, pads, _upsampled(x, factor)[:3] + (C,))
    rows, width, scratch = _scratch(gy, w, stride, pitch + g_pitch, BANDS_FOR, least)
    P, bands, reach = N * OH * OW, N * -(-OH // rows), len(w) - 1
    keep = divide_sums(K * C, P * (K + C))
    S = min(MOST_SHARES, bands) if keep else shares(bands, K * C, P * (K + C))
    T = min(S, len(scratch))
    near, edges = empty((T, rows + 2 * reach, OW, C)), empty((T, 2 * reach, OW, C))
    D, G = empty(P * pitch if keep else 0), empty(P * g_pitch if keep else 0)
    gw, gb = empty((S, 0, 0) if keep else (S, K, C)), np.zeros((S, g_pitch))
    long = LONG * S < P
    total = empty(gw.shape) if long else gw
    gwd = np.zeros((S, *w.shape))  # float64
    y = pixels(y) if relu else gy
    _backward(
        T, gy, x, x2, y, w, pack(wp), stride, pads[0][0], pads[1][0], factor, rows, width, relu, pad(np.zeros(C)),
        scratch, keep, D, G, long, gw, total, gb, empty((T, *w.shape)), gwd, near, edges, NOTHING, taps, plan, *gxs,
    )  # fmt: skip
    _between(T - 1, edges, NOTHING, N, OH, stride, pads[0][0], rows, S, taps, plan, scratch, *gxs)
    if factor > 1:
        gxs = [sum_blocks(gx, factor, factor) for gx in gxs]
    return (
        sum_taps(gwd, C),
        gradient(D, pitch, G, g_pitch, P, K, C) if keep else sum_parts(total),
        gb.sum(axis=0)[:K].astype(np.float32),
        tuple(channels_first(gx) for gx in gxs[: len(xs)]),
    )


def _upsampled(x, factor):
    """Return the shape of x (N, H, W, C) with each pixel repeated."""
    N, H, W, C = x.shape
    return N, factor * H, factor * W, C


def _scratch(y, w, stride, pixel, parts, least=0):
    """Return the rows of output of a band, the pixels in a row of it, and each thread's scratch.

    Bands are cut for `parts` equal parts, of at least as many rows as `_backward` keeps. The scratch holds one, `pixel`
    floats for each output, a panel for `outer`; it has at least `least` floats.
    """
    (N, OH, OW, _), (KH, KW, pitch) = y.shape, w.shape
    rows, width = max(KH - 1, band_rows(N, OH, OW * pitch, parts)), (OW - 1) * stride[1] + KW
    band = ((rows - 1) * stride[0] + KH) * width * pitch
    return rows, width, empty((threads(), max(least, band + rows * OW * pixel + LONGEST * WIDTH)))


@parallel
def _forward(t, x, x2, w, B, b, stride, top, left, factor, rows, width, floor, scratch, y):
    N, OH, OW, K = y.shape
    KH, _, pitch = w.shape
    sh, sw = stride
    C, bands, T = x.shape[3] + x2.shape[3], -(-OH // rows), scratch.shape[0]
    D = ((rows - 1) * sh + KH) * width * pitch  # where D begins in the scratch
    ys = y.reshape(-1)
    band = scratch[t]
    for task in range(N * bands * t // T, N * bands * (t + 1) // T):
        n, i0 = task // bands, task % bands * rows
        m = min(rows, OH - i0)
        _depthwise(x, x2, n, i0 * sh - top, left, factor, w, sh, sw, m, OW, width, band, band, D)
        product(m * OW, K, 1, C, band, D, 0, pitch, 1, B, 0, b, 0, 0, floor, ys, (n * OH + i0) * OW * K, K)


@parallel
def _backward(
    t, gy, x, x2, y, w, B, stride, top, left, factor, rows, width, relu, zeros, scratch, keep, all_D, all_G, long, gw,
    total, gb, of_band, gwd, near, edges, nothing, taps, plan, gx, gx2,
):  # fmt: skip
    N, OH, OW, K = gy.shape
    KH, KW, pitch = w.shape
    sh, sw = stride
    C, bands, (S, g_pitch), T = x.shape[3] + x2.shape[3], -(-OH // rows), gb.shape, len(near)
    of_D = ((rows - 1) * sh + KH) * width * pitch  # where D begins in the scratch
    of_G = of_D + rows * OW * pitch
    panel = of_G + rows * OW * g_pitch
    gys, ys, gDs, reach, row = gy.reshape(-1), y.reshape(-1), near[t].reshape(-1), (KH - 1) * OW * C, OW * C
    band, piece, of_rows = scratch[t], np.empty(g_pitch, np.float32), of_band[t].reshape(-1)
    clear(of_rows, 0, of_rows.size)
    first = -1  # the first row of gx that is still to be computed
    for share in range(S * t // T, S * (t + 1) // T):
        of_taps, gwt, totals, since = gwd[share].reshape(-1), gw[share].reshape(-1), total[share].reshape(-1), 0
        clear(gwt, 0, gwt.size)
        clear(totals, 0, gwt.size)
        for task in range(N * bands * share // S, N * bands * (share + 1) // S):
            n, i0 = task // bands, task % bands * rows
            m = min(rows, OH - i0)
            pixel = (n * OH + i0) * OW
            (Ds, D), (Gs, G) = (band, of_D), (band, of_G)
            if keep:
                (Ds, D), (Gs, G) = (all_D, pixel * pitch), (all_G, pixel * g_pitch)
            _mask_and_sum(m * OW, K, gys, ys, pixel * K, relu, Gs, G, g_pitch, piece, gb[share])
            _depthwise(x, x2, n, i0 * sh - top, left, factor, w, sh, sw, m, OW, width, band, Ds, D)
            for j in range(0, 0 if keep else m * OW, LONGEST):
                k = min(LONGEST, m * OW - j)
                outer(K, C, k, Gs, G + j * g_pitch, g_pitch, Ds, D + j * pitch, pitch, band[panel:], gwt, 0, C)
            product(m * OW, C, 1, K, Gs, G, 0, g_pitch, 1, B, 0, zeros, 0, 0, NO_FLOOR, gDs, reach, C)
            if C % LANES:  # whole vectors, in the place of D in the scratch
                for j in range(m * OW):
                    copy(band, of_D + j * pitch, gDs, reach + j * C, C)
                    clear(band, of_D + j * pitch + C, pitch - C)
            source, start, source_pitch = (band, of_D, pitch) if C % LANES else (gDs, reach, C)
            for i in range(m):
                add_row_gradient(
                    band, i * sh * width * pitch, width, pitch, source, start + i * OW * source_pitch, source_pitch,
                    KH, KW, sw, OW, C, of_rows,
                )  # fmt: skip
            flush(of_rows, 0, of_rows.size, of_taps)
            if i0 == 0:  # above the image and below it gD is zero
                clear(gDs, 0, reach)
            if i0 + m == OH:
                clear(gDs, reach + m * row, reach)
            if first < 0 and t > 0:
                copy(edges[t - 1].reshape(-1), reach, gDs, reach, reach)
            if first < 0 or i0 == 0:
                first = _first_row(i0, sh, top, KH)
            last = _end_of_rows(i0 + m, OH, gx.shape[1], sh, top)
            correlate_between(near, nothing, t, i0 - KH + 1, n, first, last, taps, stride, plan, band, gx, gx2)
            first = max(first, last)
            for i in range(KH - 1):
                copy(gDs, i * row, gDs, (m + i) * row, row)
            since += m * OW
            if long and since >= LONG:
                flush(gwt, 0, gwt.size, totals)
                since = 0
        if long:
            flush(gwt, 0, gwt.size, totals)
    copy(edges[t].reshape(-1), 0, gDs, 0, reach)


@parallel
def _between(t, edges, nothing, N, OH, stride, top, rows, S, taps, plan, scratch, gx, gx2):
    """Compute the rows of gx that need gD from thread t and from the one after it."""
    (KH, _, _), H, bands, T = taps.shape, gx.shape[1], -(-OH // rows), len(edges)
    start, end = N * bands * (S * t // T) // S, N * bands * (S * (t + 1) // T) // S
    n, i0 = end // bands, end % bands * rows
    since = start % bands * rows if start // bands == n else 0
    first = max(_first_row(since, stride[0], top, KH), _end_of_rows(i0, OH, H, stride[0], top))
    last = min(H, _first_row(i0, stride[0], top, KH))
    correlate_between(edges, nothing, t, i0 - KH + 1, n, first, last, taps, stride, plan, scratch[t], gx, gx2)


@njit(**OPTIONS)
def _first_row(i, sh, top, KH):
    """Return the first row of gx that needs row i of gD, and none before it."""
    return max(0, (i - 1) * sh + KH - top) if i else 0


@njit(**OPTIONS)
def _end_of_rows(i, OH, H, sh, top):
    """Return the end of the rows of gx that need no row of gD from i on."""
    return H if i == OH else min(H, max(0, i * sh - top))


@njit(**OPTIONS)
def _depthwise(x, x2, n, first, left, factor, w, sh, sw, m, OW, width, band, out, D):
    """Load the rows of image n from `first` on to band[0:] and compute m rows of D from them, to out[D:]."""
    KH, KW, pitch = w.shape
    C, ws = x.shape[3] + x2.shape[3], w.reshape(-1)
    load_band(x, x2, n, first, (m - 1) * sh + KH, left, width, factor, 1, 1, band, 0, pitch, 1)
    windows(band, 0, sh * width * pitch, width, pitch, ws, KH, KW, sw, m, OW, 0, C, out, D, OW * pitch, pitch)


@njit(**OPTIONS)
def _mask_and_sum(m, K, gy, y, start, relu, out, oi, pitch, piece, gb):
    """Copy m pixels of gy to out[oi:], with 0 where y is not positive if `relu`; add them to gb (float64).

    `piece` is scratch: the sum of 64 pixels in float32.
    """
    whole = K - K % LANES
    for first in range(0, m, 64):
        clear(piece, 0, pitch)
        for i in range(first, min(m, first + 64)):
            p, q = start + i * K, oi + i * pitch
            for c in range(0, whole, LANES):
                g = load(gy, p + c)
                if relu:
                    g = keep_where_positive(g, load(y, p + c))
                store(out, q + c, g)
                store(piece, c, load(piece, c) + g)
            for c in range(whole, K):
                g = gy[p + c] if not relu or y[p + c] > 0 else np.float32(0)
                out[q + c] = g
                piece[c] += g
            for c in range(K, pitch):
                out[q + c] = 0
        for c in range(K):
            gb[c] += piece[c]
