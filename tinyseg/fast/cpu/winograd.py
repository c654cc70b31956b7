"""Winograd's convolution F(4x4, 3x3) with numba: 36 multiplications for 16 outputs of a 3x3 window, instead of 144.

Derivation and matrices: docs/ops/winograd.md. A tile is 4 x 4 outputs, which depend on 6 x 6 inputs d. With
k = 1 … 36 for the elements of the transformed tile,

    forward    V = Bᵀ d B      U = G w Gᵀ      M_k = V_k U_k (a matrix product over channels)      y = Aᵀ M A
    gradient   Z = A gy Aᵀ     dU_k = Z_kᵀ V_k (a matrix product over tiles)                       gw = Gᵀ dU G

The gradient of the input is the forward pass with w turned round. V is stored as [channel panel][k][tile][WIDTH]: this
array is the left side of one product and the packed right side of the other. The distance from one k to the next is an
odd number of rows. If it were a power of two, all 36 elements of a tile would share one set of the cache.

Float32 rounding grows from about 1e-6 of the largest output to about 1e-5, which is why `using(winograd=False)` exists.
"""

import numpy as np

from tinyseg.backend import config
from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.bands import NOTHING, load_band, pitch_of
from tinyseg.fast.cpu.channels_last import threads
from tinyseg.fast.cpu.gemm import outer_panel, rows_of_panel
from tinyseg.fast.cpu.kernel_cache import OPTIONS, SUBROUTINE, njit
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.fast.cpu.prepared import prepared
from tinyseg.fast.cpu.simd import LANES, WIDTH, clear, copy
from tinyseg.fast.cpu.tile import NO_FLOOR
from tinyseg.fast.cpu.winograd_tiles import gradient_tile, input_tile, output_tile, weights_gradient_tile, weights_tile

STRIP = 16  # tiles that are transformed at a time
CHUNK = 256  # tiles whose V exists at a time
BLOCK = 64  # tiles whose M, for one panel of output channels, exists at a time
CHANNELS = 48  # input channels whose weights are transformed at a time
MIN_TILES = 48  # tiles below which the transformed weights, four times as many, cost more than they save
LARGE = 1 << 24  # floats of transformed weights, 64 MiB, that no cache holds: then 2 · MIN_TILES tiles are needed
UNEVEN = 1000.0  # largest value over quiet pixels up to which rounding is at most a hundredth of what pixels see
SAMPLES = 64  # pixels of an image that are looked at to find the quiet ones
ZEROS = np.zeros(WIDTH, np.float32)


def is_faster(w_shape, stride, y, spread):
    """Whether the convolution with output y (N, OH, OW, K) may be computed in this way and is faster then."""
    K, C, KH, KW = w_shape
    if not config.winograd or (KH, KW) != (3, 3) or stride != (1, 1) or spread != (1, 1) or min(K, C) < LANES:
        return False
    N, OH, OW, _ = y.shape
    tiles = N * -(-OH // 4) * -(-OW // 4)
    enough = MIN_TILES if 36 * K * C < LARGE else 2 * MIN_TILES
    return tiles >= enough and 16 * tiles <= 2 * N * OH * OW  # not where most of a tile lies outside of a small image


def convolve(x, x2, w, b, floor, pads, y, repeat=1):
    """Write max(floor, b + the correlation of (x, x2), as `load_band` reads them, with w (K, C, 3, 3)) to y.

    Returns the bits of the largest magnitude in each strip of input, int32 (N, strips of an image).
    """
    (N, OH, OW, _), C = y.shape, w.shape[1]
    chunk, across = _plan_chunks(N, OH, OW)
    V, U = empty((_count_panels(C), 36, chunk + 1, WIDTH)), prepared(w, "winograd", lambda: transform_weights(w))
    scratch = empty((threads(), max(6 * (4 * STRIP + 2) * pitch_of(C), (36 * (BLOCK + 1) + 16) * WIDTH)))
    peaks = np.zeros((N, -(-OH // 4) * across), np.int32)
    _convolve(x, x2, U, b, floor, pads[0][0], pads[1][0], repeat, across, scratch, V, peaks.reshape(-1), ZEROS, y)
    return peaks


def uneven_images(peaks, x, x2):
    """Return the numbers of the images in which some value is more than UNEVEN times the magnitude of quiet pixels.

    Rounding spreads such a value's error over its tiles, where it may be larger than what other pixels see; NaN and
    infinity spread too. `peaks` come from `convolve`. The magnitude of a pixel is that of its largest channel; a tenth
    of the pixels that are not all 0, in a sample of about SAMPLES, are quiet.
    """
    N = len(x)
    step = x.shape[1] * x.shape[2] // SAMPLES | 1  # odd: not always in the same column
    size = abs(x.reshape(N, -1, x.shape[3])[:, ::step]).max(axis=2)
    if x2.shape[3]:
        size = np.maximum(size, abs(x2.reshape(N, -1, x2.shape[3])[:, ::step]).max(axis=2))
    size[size == 0] = np.inf
    size.sort(axis=1)
    seen = np.isfinite(size).sum(axis=1)
    quiet = np.where(seen > 0, size[np.arange(N), seen // 10], 0)
    even = peaks.max(axis=1).view(np.float32) <= UNEVEN * quiet  # NaN is not
    return np.flatnonzero(~even)


def transform_weights(w):
    """Return U = G w Gᵀ for weights w (K, C, 3, 3), laid out for `_convolve`."""
    K, C, _, _ = w.shape
    U = empty((_count_panels(K), 36, _count_panels(C) * WIDTH + 1, WIDTH))
    _transform_weights(_count_panels(K) * -(-U.shape[2] // CHANNELS), w, U)
    return U


def gradient(x, x2, gy, w_shape, pads, repeat=1):
    """Return the gradient (K, C, 3, 3) of the weights, with gy (N, OH, OW, K)."""
    (K, C, _, _), (N, OH, OW, _) = w_shape, gy.shape
    chunk, across = _plan_chunks(N, OH, OW)
    V, Z = empty((_count_panels(C), 36, chunk + 1, WIDTH)), empty((_count_panels(K), 36, chunk + 1, WIDTH))
    dU = empty((36, K * _count_panels(C) * WIDTH + WIDTH))
    scratch = empty((threads(), 6 * (4 * STRIP + 2) * max(pitch_of(C), pitch_of(K))))
    _gradient(x, x2, gy, NOTHING, pads[0][0], pads[1][0], repeat, across, scratch, V, Z, dU)
    gw = empty(w_shape)
    _gradient_of_weights(K, dU, gw)
    return gw


def _count_panels(n):
    return -(-n // WIDTH)


def _plan_chunks(N, OH, OW):
    """Return the number of tiles in a chunk, always whole strips, and of strips side by side in an image."""
    across = -(-OW // (4 * STRIP))
    strips = N * -(-OH // 4) * across
    return min(strips * STRIP, CHUNK), across


# ----- loops over tiles -------------------------------------------------------------------
@njit(**SUBROUTINE)
def _load_strip(x, x2, strip, across, down, top, left, repeat, size, band, V, slot):
    """Transform the STRIP tiles of one strip into V[:, :, slot : slot + STRIP].

    A tile is `size` pixels wide and high: 6 for inputs of the convolution, 4 for gradients of its output.
    """
    panels, slots = V.shape[0], V.shape[2]
    n, ty, tx = strip // (down * across), strip // across % down, strip % across * STRIP
    width, pitch = 4 * STRIP + size - 4, (x.shape[3] + x2.shape[3] + LANES - 1) // LANES * LANES
    load_band(x, x2, n, 4 * ty - top, size, left - 4 * tx, width, repeat, 1, 1, band, 0, pitch, 1)
    Vs, step = V.reshape(-1), slots * WIDTH
    for c in range(0, panels * WIDTH, LANES):
        v = (c // WIDTH * 36 * slots + slot) * WIDTH + c % WIDTH
        if c >= pitch:  # the second half of a panel that is not full
            for k in range(36):
                for i in range(STRIP):
                    clear(Vs, v + k * step + i * WIDTH, LANES)
            continue
        for i in range(STRIP):
            if size == 6:
                input_tile(band, 4 * i * pitch + c, width * pitch, pitch, Vs, v + i * WIDTH, step)
            else:
                gradient_tile(band, 4 * i * pitch + c, width * pitch, pitch, Vs, v + i * WIDTH, step)


@njit(**OPTIONS)
def _largest_bits(band, n):
    """Return the bits of the largest of n magnitudes. As whole numbers they are in order, NaN above infinity."""
    bits, largest = band[:n].view(np.int32), np.int32(0)
    for i in range(n):
        magnitude = np.int32(bits[i] & np.int32(0x7FFFFFFF))
        largest = magnitude if magnitude > largest else largest
    return largest


@njit(**OPTIONS)
def _convolve(x, x2, U, b, floor, top, left, repeat, across, scratch, V, peaks, zeros, y):
    down, T, per_chunk = -(-y.shape[1] // 4), scratch.shape[0], (V.shape[2] - 1) // STRIP
    strips = y.shape[0] * down * across
    for first in range(0, strips, per_chunk):
        count = min(per_chunk, strips - first)
        _transform_inputs(T, x, x2, first, count, across, down, top, left, repeat, scratch, V, peaks)
        _multiply_and_transform_back(T, U, b, floor, first, count, across, down, scratch, V, zeros, y)


@parallel
def _transform_inputs(t, x, x2, first, count, across, down, top, left, repeat, scratch, V, peaks):
    """Compute V of the `count` strips from `first` on, and their peaks."""
    T, pitch = scratch.shape[0], (x.shape[3] + x2.shape[3] + LANES - 1) // LANES * LANES
    for s in range(count * t // T, count * (t + 1) // T):
        _load_strip(x, x2, first + s, across, down, top, left, repeat, 6, scratch[t], V, s * STRIP)
        # The two last rows of a strip are the first of the strip below.
        rows = 4 if (first + s) // across % down < down - 1 else 6
        peaks[first + s] = _largest_bits(scratch[t], rows * (4 * STRIP + 2) * pitch)


@parallel
def _multiply_and_transform_back(t, U, b, floor, first, count, across, down, scratch, V, zeros, y):
    """Compute M and y of the `count` strips from `first` on."""
    _, OH, OW, K = y.shape
    C_panels, slots, K_panels, length = V.shape[0], V.shape[2], U.shape[0], U.shape[2]
    T, per_block = scratch.shape[0], BLOCK // STRIP
    blocks = -(-count // per_block)
    ys, Vs, Us = y.reshape(-1), V.reshape(-1), U.reshape(-1)
    M = scratch[t]
    out = M.size - 16 * WIDTH
    # As far as possible, a thread takes the tiles that it has transformed: they are in its own cache.
    for task in range(K_panels * blocks * t // T, K_panels * blocks * (t + 1) // T):
        s0, p = task // K_panels * per_block, task % K_panels
        m = min(count - s0, per_block) * STRIP
        step = (m + 1) * WIDTH
        for k in range(36):
            rows_of_panel(
                m, C_panels, WIDTH, Vs, (k * slots + s0 * STRIP) * WIDTH, 36 * slots * WIDTH, WIDTH, 1,
                Us, (p * 36 + k) * length * WIDTH, WIDTH, zeros, 0, 0, NO_FLOOR, M, k * step, WIDTH,
            )  # fmt: skip
        N_p = min(WIDTH, K - p * WIDTH)
        for i in range(m):
            strip = first + s0 + i // STRIP
            n, ty, tx = strip // (down * across), strip // across % down, strip % across * STRIP + i % STRIP
            for lane in range(0, WIDTH, LANES):
                output_tile(M, i * WIDTH + lane, step, b, p * WIDTH + lane, floor, M, out + lane)
            for r in range(min(4, OH - 4 * ty)):
                for q in range(min(4, OW - 4 * tx)):
                    target = ((n * OH + 4 * ty + r) * OW + 4 * tx + q) * K + p * WIDTH
                    copy(ys, target, M, out + (r * 4 + q) * WIDTH, N_p)


@njit(**OPTIONS)
def _gradient(x, x2, gy, nothing, top, left, repeat, across, scratch, V, Z, dU):
    down, T, per_chunk = -(-gy.shape[1] // 4), scratch.shape[0], (V.shape[2] - 1) // STRIP
    strips = gy.shape[0] * down * across
    for first in range(0, strips, per_chunk):
        count = min(per_chunk, strips - first)
        _transform_both(T, x, x2, gy, nothing, first, count, across, down, top, left, repeat, scratch, V, Z)
        _multiply_gradient(36, gy.shape[3], first, count, V, Z, dU)


@parallel
def _transform_both(t, x, x2, gy, nothing, first, count, across, down, top, left, repeat, scratch, V, Z):
    """Compute V and Z of the `count` strips from `first` on."""
    T = scratch.shape[0]
    for s in range(count * t // T, count * (t + 1) // T):
        _load_strip(x, x2, first + s, across, down, top, left, repeat, 6, scratch[t], V, s * STRIP)
        _load_strip(gy, nothing, first + s, across, down, 0, 0, 1, 4, scratch[t], Z, s * STRIP)


@parallel
def _multiply_gradient(k, K, first, count, V, Z, dU):
    """Add what the `count` strips from `first` on give to dU_k."""
    C_panels, K_panels, slots = V.shape[0], Z.shape[0], V.shape[2]
    length = C_panels * WIDTH
    Vs, Zs, dUs = V.reshape(-1), Z.reshape(-1), dU.reshape(-1)
    start = k * dU.shape[1]
    if first == 0:
        clear(dUs, start, dU.shape[1])
    for c in range(C_panels):
        for p in range(K_panels):
            outer_panel(
                min(WIDTH, K - p * WIDTH), WIDTH, count * STRIP,
                Zs, (p * 36 + k) * slots * WIDTH, WIDTH, Vs, (c * 36 + k) * slots * WIDTH,
                dUs, start + p * WIDTH * length + c * WIDTH, length,
            )  # fmt: skip


# ----- weights ----------------------------------------------------------------------------
@parallel
def _transform_weights(task, w, U):
    """U[panel of K][k][c][WIDTH] = (G w Gᵀ)_k, and zero where there is no such filter or channel."""
    K, C = w.shape[0], w.shape[1]
    K_panels, _, length, _ = U.shape
    Us, step, pieces = U.reshape(-1), length * WIDTH, -(-length // CHANNELS)
    p, c0 = task // pieces, task % pieces * CHANNELS
    n, c1 = min(WIDTH, K - p * WIDTH), min(length, c0 + CHANNELS)
    g = np.zeros((CHANNELS, 9, WIDTH), np.float32)
    rows, columns = (n, min(c1, C) - c0) if w.strides[0] > w.strides[1] else (min(c1, C) - c0, n)
    for i in range(rows):  # reads what lies side by side one after the other
        for q in range(columns):
            j, c = (i, q) if w.strides[0] > w.strides[1] else (q, i)
            for u in range(3):
                for v in range(3):
                    g[c, 3 * u + v, j] = w[p * WIDTH + j, c0 + c, u, v]
    gs = g.reshape(-1)
    for c in range(c0, c1):
        for lane in range(0, WIDTH, LANES):
            weights_tile(gs, (c - c0) * 9 * WIDTH + lane, Us, (p * 36 * length + c) * WIDTH + lane, step)


@parallel
def _gradient_of_weights(o, dU, gw):
    """gw = Gᵀ dU G."""
    C = gw.shape[1]
    dUs, step, length = dU.reshape(-1), dU.shape[1], -(-C // WIDTH) * WIDTH
    full = np.zeros((9, length), np.float32)
    for c in range(0, length, LANES):
        weights_gradient_tile(dUs, o * length + c, step, full.reshape(-1), c, length)
    for c in range(C):
        for u in range(3):
            for v in range(3):
                gw[o, c, u, v] = full[3 * u + v, c]
