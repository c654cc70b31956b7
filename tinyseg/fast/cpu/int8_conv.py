"""Convolutions of integers with numba: arrays of uint8, (N, H, W, C).

Equations as in `tinyseg.export.int8`. A border of zero points lies around the image, where there is a border of zeros
there. The zero point itself is taken out of the sums beforehand:

    sum (q - z) p  =  sum q p  -  z sum p
"""

import numpy as np

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.channels_last import threads, whole_vectors
from tinyseg.fast.cpu.depthwise_conv import lay_out_taps
from tinyseg.fast.cpu.kernel_cache import SUBROUTINE, njit
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.fast.cpu.simd import LANES, WIDTH, clear, load, splat, store
from tinyseg.fast.cpu.simd_int8 import LARGEST, ROWS8, load_bytes, round_whole, store_bytes, tile8
from tinyseg.fast.cpu.windows import band_rows, windows

FEW = 4
NOTHING = np.zeros((1, 1, 1, 0), np.uint8)  # stands for the second input where there is only one
_tile_rows, _tile_few, _tile_one = tile8(ROWS8), tile8(FEW), tile8(1)


class Packed:
    """An `IntegerConvolution` as the kernels need it.

    Attributes
    ----------
    B : int8 ndarray
        The kernel in panels of WIDTH output channels, see `tinyseg.fast.cpu.simd_int8.tile8`.
    S : int32 ndarray
        The bias, without what the zero point of the input adds to the sums; zeros behind it, for whole tiles.
    F : float32 ndarray
        What a sum is multiplied by for the integer of the output; zeros behind it.
    """

    def __init__(self, convolution):
        p = convolution.kernel
        self.depthwise, self.size = convolution.depthwise, p.shape[-1]
        self.x, self.y = convolution.x, convolution.y
        factor = (convolution.scale * convolution.x.scale / convolution.y.scale).astype(np.float32)
        if self.depthwise:
            self.taps = lay_out_taps(p[:, 0])
            self.F = np.zeros(self.taps.shape[2], np.float32)
            self.F[: len(p)] = factor
        else:
            self.F, self.S = (np.zeros(len(p) + WIDTH, dtype) for dtype in (np.float32, np.int32))
            taken = convolution.x.zero_point * p.sum(axis=(1, 2, 3), dtype=np.int64)
            self.F[: len(p)], self.S[: len(p)] = factor, convolution.bias - taken
            self.B = _pack(p)


def fits(convolution):
    """Whether sums of two products stay in 16 bits, and all sums in 31, or the 24 of a float where they are floats."""
    most = 2**24 if convolution.depthwise else 2**30  # the bias has the other half
    p = convolution.kernel.astype(int)
    return bool(np.abs(p).max() <= LARGEST and 255 * LARGEST * p[0].size < most)


def _pack(p):
    """Lay a kernel (K, C, k, k) out as (panels, k, k · C4 / 4, WIDTH, 4), C4 being C in whole vectors."""
    K, C, k, _ = p.shape
    pitch = whole_vectors(C) if k == 1 else _fours(C)
    whole = np.zeros((-(-K // WIDTH) * WIDTH, k, k, pitch), np.int8)
    whole[:K, :, :, :C] = p.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(whole.reshape(-1, WIDTH, k, k * pitch // 4, 4).transpose(0, 2, 3, 1, 4)).reshape(-1)


def _fours(C):
    """Return the distance between pixels of a band of bytes: C in fours, and no multiple of 4096."""
    pitch = -(-C // 4) * 4
    return pitch + 64 if pitch % 4096 == 0 else pitch


# ----- convolutions ------------------------------------------------------------------------
def separable(xs, depthwise, pointwise, repeat):
    """Return the integers of a separable convolution of the arrays xs, joined, each pixel repeated `repeat` times."""
    x, x2 = xs if len(xs) > 1 else (xs[0], NOTHING)
    N, H, W, _ = x.shape
    y = empty((N, repeat * H, repeat * W, len(pointwise.F) - WIDTH), np.uint8)
    OH, OW, k, pitch = *y.shape[1:3], depthwise.size, depthwise.taps.shape[2]
    rows, width = band_rows(N, OH, OW * pitch, threads()), OW + k - 1
    T = threads()
    floats = empty((T, ((rows + k - 1) * width + 2 * OW) * pitch))
    D = empty((T, rows * OW * pitch), np.uint8)
    _separable(
        T, x, x2, depthwise.taps, depthwise.F, depthwise.x.zero_point, depthwise.y.zero_point, (k - 1) // 2, repeat,
        pointwise.B, pointwise.S, pointwise.F, pointwise.y.zero_point, whole_vectors(x.shape[3] + x2.shape[3]), rows,
        width, floats, D, y,
    )  # fmt: skip
    return y


@parallel
def _separable(
    t, x, x2, taps, Fd, x_zero, d_zero, before, repeat, B, S, F, y_zero, wide, rows, width, floats, scratch, y
):  # fmt: skip
    N, OH, OW, K = y.shape
    k, _, pitch = taps.shape
    C, bands, T = x.shape[3] + x2.shape[3], -(-OH // rows), len(floats)
    band, D, ys, ws = floats[t], scratch[t], y.reshape(-1), taps.reshape(-1)
    two = (rows + k - 1) * width * pitch  # where two rows of sums begin in the band
    zero = np.float32(d_zero)
    for task in range(N * bands * t // T, N * bands * (t + 1) // T):
        n, i0 = task // bands, task % bands * rows
        m = min(rows, OH - i0)
        _load_floats(x, x2, n, i0 - before, m + k - 1, before, width, repeat, np.float32(x_zero), band, pitch)
        for i in range(0, m, 2):
            r, row = min(2, m - i), width * pitch
            windows(band, i * row, row, width, pitch, ws, k, k, 1, r, OW, 0, C, band, two, OW * pitch, pitch)
            _to_bytes(band, two, pitch, r * OW, wide, Fd, zero, D, i * OW * wide)
        product8(m * OW, K, 1, wide // 4, D, 0, 0, wide, B, S, F, np.float32(y_zero), ys, (n * OH + i0) * OW * K, K)


def standard(xs, convolution, repeat):
    """Return the integers of a convolution of the arrays xs, joined, each pixel repeated `repeat` times."""
    x, x2 = xs if len(xs) > 1 else (xs[0], NOTHING)
    N, H, W, _ = x.shape
    y = empty((N, repeat * H, repeat * W, len(convolution.F) - WIDTH), np.uint8)
    OH, OW, k, C = *y.shape[1:3], convolution.size, x.shape[3] + x2.shape[3]
    pitch = whole_vectors(C) if k == 1 else _fours(C)
    rows, width = band_rows(N, OH, OW * pitch // 4, threads()), OW + k - 1
    scratch = empty((threads(), (rows + k - 1) * width * pitch), np.uint8)
    _standard(
        len(scratch), x, x2, convolution.B, convolution.S, convolution.F, convolution.x.zero_point,
        convolution.y.zero_point, (k - 1) // 2, k, repeat, pitch, rows, width, scratch, y,
    )  # fmt: skip
    return y


@parallel
def _standard(t, x, x2, B, S, F, x_zero, y_zero, before, k, repeat, pitch, rows, width, scratch, y):
    N, OH, OW, K = y.shape
    bands, T = -(-OH // rows), len(scratch)
    band, ys = scratch[t], y.reshape(-1)
    for task in range(N * bands * t // T, N * bands * (t + 1) // T):
        n, i0 = task // bands, task % bands * rows
        m = min(rows, OH - i0)
        _load_bytes(x, x2, n, i0 - before, m + k - 1, before, width, repeat, np.uint8(x_zero), band, pitch)
        for i in range(m):
            product8(
                OW, K, k, k * pitch // 4, band, i * width * pitch, width * pitch, pitch, B, S, F, np.float32(y_zero),
                ys, (n * OH + i0 + i) * OW * K, K,
            )  # fmt: skip


@njit(**SUBROUTINE)
def product8(m, N, taps, K, a, ai, a_t, a_i, b, s, f, zero, c, ci, c_i):
    """Compute all columns of a product of integers; arguments as for `tinyseg.fast.cpu.simd_int8.tile8`."""
    buffer, bi = np.empty(ROWS8 * WIDTH, np.uint8), 0  # where the last panel reaches beyond C
    for j in range(0, N, WIDTH):
        n = min(WIDTH, N - j)
        if n == WIDTH:
            _panel(m, taps, K, a, ai, a_t, a_i, b, bi, s, f, j, zero, c, ci + j, c_i)
        else:
            for i in range(0, m, ROWS8):
                rows = min(ROWS8, m - i)
                _panel(rows, taps, K, a, ai + i * a_i, a_t, a_i, b, bi, s, f, j, zero, buffer, 0, WIDTH)
                for r in range(rows):
                    for v in range(n):
                        c[ci + j + (i + r) * c_i + v] = buffer[r * WIDTH + v]
        bi += taps * K * WIDTH * 4


@njit(**SUBROUTINE)
def _panel(m, taps, K, a, ai, a_t, a_i, b, bi, s, f, si, zero, c, ci, c_i):
    i, large = 0, m // ROWS8
    if ROWS8 == FEW + 1 and FEW * (-m % ROWS8) <= m:  # 16 rows are four times 4, not three times 5 and one
        large = (m - FEW * (-m % ROWS8)) // ROWS8
    for _ in range(large):
        _tile_rows(taps, K, a, ai + i * a_i, a_t, a_i, b, bi, s, f, si, zero, c, ci + i * c_i, c_i)
        i += ROWS8
    while i + FEW <= m:
        _tile_few(taps, K, a, ai + i * a_i, a_t, a_i, b, bi, s, f, si, zero, c, ci + i * c_i, c_i)
        i += FEW
    while i < m:
        _tile_one(taps, K, a, ai + i * a_i, a_t, a_i, b, bi, s, f, si, zero, c, ci + i * c_i, c_i)
        i += 1


# ----- bands of rows ---------------------------------------------------------------------------
@njit(**SUBROUTINE)
def _load_floats(x, x2, n, first, rows, left, width, repeat, zero, band, pitch):
    """Write q - zero of rows of image n to the band, with zeros around the image; as `bands.load_band`."""
    H, W, C, C2 = x.shape[1], x.shape[2], x.shape[3], x2.shape[3]
    xs, x2s, zeros = x.reshape(-1), x2.reshape(-1), splat(zero)
    for row in range(rows):
        r, target = first + row, row * width * pitch
        if r < 0 or r >= H * repeat:
            clear(band, target, width * pitch)
            continue
        source = (n * H + r // repeat) * W
        begin, end = min(left, width), min(left + W * repeat, width)
        clear(band, target, begin * pitch)
        clear(band, target + end * pitch, (width - end) * pitch)
        for j in range(begin, end):
            p, s = target + j * pitch, source + (j - left) // repeat
            for c in range(0, C - C % LANES, LANES):
                store(band, p + c, load_bytes(xs, s * C + c) - zeros)
            for c in range(C - C % LANES, C):
                band[p + c] = np.float32(xs[s * C + c]) - zero
            for c in range(0, C2 - C2 % LANES, LANES):
                store(band, p + C + c, load_bytes(x2s, s * C2 + c) - zeros)
            for c in range(C2 - C2 % LANES, C2):
                band[p + C + c] = np.float32(x2s[s * C2 + c]) - zero
            for c in range(C + C2, pitch):
                band[p + c] = 0


@njit(**SUBROUTINE)
def _load_bytes(x, x2, n, first, rows, left, width, repeat, zero, band, pitch):
    """Write rows of image n to the band, with `zero` around the image; as `bands.load_band`."""
    H, W, C, C2 = x.shape[1], x.shape[2], x.shape[3], x2.shape[3]
    xs, x2s = x.reshape(-1), x2.reshape(-1)
    for row in range(rows):
        r, target = first + row, row * width * pitch
        outside = r < 0 or r >= H * repeat
        source = (n * H + r // repeat) * W
        for j in range(width):
            p, q = target + j * pitch, j - left
            if outside or q < 0 or q >= W * repeat:
                for c in range(pitch):
                    band[p + c] = zero
                continue
            s = source + q // repeat
            for c in range(C):
                band[p + c] = xs[s * C + c]
            for c in range(C2):
                band[p + C + c] = x2s[s * C2 + c]
            for c in range(C + C2, pitch):
                band[p + c] = 0


@njit(**SUBROUTINE)
def _to_bytes(sums, start, pitch, m, wide, factor, zero, out, target):
    """Write the integers of m pixels of sums, `wide` channels of each."""
    zeros = splat(zero)
    for j in range(m):
        p, q = start + j * pitch, target + j * wide
        for c in range(0, wide, LANES):
            store_bytes(out, q + c, round_whole(load(sums, p + c) * load(factor, c)) + zeros)
