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
from tinyseg.fast.cpu.packing import as_read
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.fast.cpu.simd import LANES, WIDTH, clear, copy
from tinyseg.fast.cpu.tile import NO_FLOOR
from tinyseg.fast.cpu.winograd_tiles import gradient_tile, input_tile, output_tile
from tinyseg.fast.cpu.winograd_weights import CHANNELS, count_panels, gradient_of_weights, put_gradient, transform_panel

STRIP = 16  # tiles that are transformed at a time, at most
CHUNK = 256  # tiles whose V exists at a time, at most
BLOCK = 64  # tiles whose M, for one panel of output channels, exists at a time, at most
MIN_TILES = 4  # tiles below which the transformed weights, four times as many, cost more than they save
UNEVEN = 1000.0  # largest value over quiet pixels up to which rounding is at most a hundredth of what pixels see
SAMPLES = 64  # pixels of an image that are looked at to find the quiet ones
ZEROS = np.zeros(WIDTH, np.float32)
FEW_TILES = 32  # up to which, below CHUNK, the gradient of the weights is computed panel by panel …
FEW_PANELS = 4  # … if there are so many, to be shared by threads
# Where in a thread's scratch, after M, these are: 16 pixels of output, transformed weights, packed weights.
OUTPUT = 36 * (BLOCK + 1) * WIDTH
WEIGHTS = OUTPUT + 16 * WIDTH
PACKED = WEIGHTS + 36 * (CHANNELS + 1) * WIDTH
FOR_PRODUCTS = PACKED + 9 * WIDTH * WIDTH
FOR_GRADIENT = 36 * WIDTH * (WIDTH + 1)


def is_faster(w_shape, stride, y, spread):
    """Whether the convolution with output y (N, OH, OW, K) may be computed in this way and is faster then."""
    K, C, KH, KW = w_shape
    if not config.winograd or (KH, KW) != (3, 3) or stride != (1, 1) or spread != (1, 1) or min(K, C) < LANES:
        return False
    N, OH, OW, _ = y.shape
    tiles = N * -(-OH // 4) * -(-OW // 4)
    most_is_outside = 16 * tiles > 2 * N * OH * OW  # most of each tile, where images are very small
    return tiles >= MIN_TILES and not most_is_outside


def convolve(x, x2, w, b, floor, pads, y, repeat=1):
    """Write max(floor, b + the correlation of (x, x2), as `load_band` reads them, with w (K, C, 3, 3)) to y.

    Returns the bits of the largest magnitude in each row of a strip, int32 (N, rows of all strips of an image).
    """
    (N, OH, OW, _), C = y.shape, w.shape[1]
    tiles, plan = _plan_strips(N, OH, OW)
    V = empty((count_panels(C), 36, tiles | 1, WIDTH))
    scratch = empty((threads(), max(6 * (4 * STRIP + 2) * pitch_of(C), FOR_PRODUCTS)))
    peaks = np.zeros((N, -(-OH // 4) * plan[0]), np.int32)
    top, left = pads[0][0], pads[1][0]
    _convolve(x, x2, *as_read(w), b, floor, top, left, repeat, plan, scratch, V, peaks.reshape(-1), ZEROS, y)
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


def gradient(x, x2, gy, w_shape, pads, repeat=1):
    """Return the gradient (K, C, 3, 3) of the weights, with gy (N, OH, OW, K)."""
    (K, C, _, _), (N, OH, OW, _) = w_shape, gy.shape
    tiles, plan = _plan_strips(N, OH, OW)
    V, Z = empty((count_panels(C), 36, tiles | 1, WIDTH)), empty((count_panels(K), 36, tiles | 1, WIDTH))
    few = tiles <= FEW_TILES and count_panels(K) * count_panels(C) >= FEW_PANELS
    dU, gw = empty((36, 0 if few else K * count_panels(C) * WIDTH + WIDTH)), empty(w_shape)
    scratch = empty((threads(), max(6 * (4 * STRIP + 2) * max(pitch_of(C), pitch_of(K)), FOR_GRADIENT)))
    _gradient(x, x2, gy, NOTHING, pads[0][0], pads[1][0], repeat, plan, scratch, V, Z, few, dU, gw)
    return gw


def _plan_strips(N, OH, OW):
    """Return the tiles of a chunk; and (across, wide, high), the strips in a row of tiles, and the size of a strip.

    A strip is `wide` tiles wide and, where images are narrow, several rows of tiles high: these rows follow one another
    through all images, and only the last strip may have fewer.
    """
    in_row = -(-OW // 4)
    across = -(-in_row // STRIP)
    wide = -(-in_row // across)
    high = STRIP // wide
    tiles = N * -(-OH // 4) * across * wide
    return min(tiles, CHUNK), (across, wide, high)


# ----- loops over tiles -------------------------------------------------------------------
@njit(**SUBROUTINE)
def _load_strip(x, x2, strip, plan, rows, down, top, left, repeat, size, band, V, slot, peaks):
    """Transform the tiles of one strip into V[:, :, slot : slot + wide·high]; there are `rows` rows of tiles in all.

    A tile is `size` pixels wide and high: 6 for inputs of the convolution, 4 for gradients of its output. The bits of
    the largest value in each row of the strip go to `peaks`, unless that is empty.
    """
    (across, wide, high), panels, slots = plan, V.shape[0], V.shape[2]
    width, pitch = 4 * wide + size - 4, (x.shape[3] + x2.shape[3] + LANES - 1) // LANES * LANES
    Vs, step, tx = V.reshape(-1), slots * WIDTH, strip % across * wide
    for row in range(strip // across * high, min(rows, (strip // across + 1) * high)):
        ty = row % down
        load_band(x, x2, row // down, 4 * ty - top, size, left - 4 * tx, width, repeat, 1, 1, band, 0, pitch, 1)
        if len(peaks):  # the two last rows of pixels are the first of the tiles below
            peaks[row * across + strip % across] = _largest_bits(band, (4 if ty < down - 1 else 6) * width * pitch)
        for c in range(0, panels * WIDTH, LANES):
            v = (c // WIDTH * 36 * slots + slot) * WIDTH + c % WIDTH
            if c >= pitch:  # the second half of a panel that is not full
                for k in range(36):
                    for i in range(wide):
                        clear(Vs, v + k * step + i * WIDTH, LANES)
                continue
            for i in range(wide):
                if size == 6:
                    input_tile(band, 4 * i * pitch + c, width * pitch, pitch, Vs, v + i * WIDTH, step)
                else:
                    gradient_tile(band, 4 * i * pitch + c, width * pitch, pitch, Vs, v + i * WIDTH, step)
        slot += wide


@njit(**OPTIONS)
def _largest_bits(band, n):
    """Return the bits of the largest of n magnitudes. As whole numbers they are in order, NaN above infinity."""
    bits, largest = band[:n].view(np.int32), np.int32(0)
    for i in range(n):
        magnitude = np.int32(bits[i] & np.int32(0x7FFFFFFF))
        largest = magnitude if magnitude > largest else largest
    return largest


@njit(**OPTIONS)
def _convolve(x, x2, w, layout, b, floor, top, left, repeat, plan, scratch, V, peaks, zeros, y):
    (N, OH, _, _), (across, wide, high) = y.shape, plan
    down, T, per_chunk = -(-OH // 4), scratch.shape[0], CHUNK // (wide * high)
    number = -(-N * down // high) * across
    for first in range(0, number, per_chunk):
        count = min(per_chunk, number - first)
        _transform_inputs(T, x, x2, first, count, plan, down, top, left, repeat, scratch, V, peaks)
        _multiply_and_transform_back(T, w, layout, b, floor, first, count, plan, down, scratch, V, zeros, y)


@parallel
def _transform_inputs(t, x, x2, first, count, plan, down, top, left, repeat, scratch, V, peaks):
    """Compute V of the `count` strips from `first` on, and their peaks."""
    (_, wide, high), T, rows = plan, scratch.shape[0], len(x) * down
    for s in range(count * t // T, count * (t + 1) // T):
        slot = s * wide * high
        _load_strip(x, x2, first + s, plan, rows, down, top, left, repeat, 6, scratch[t], V, slot, peaks)


@parallel
def _multiply_and_transform_back(t, w, layout, b, floor, first, count, plan, down, scratch, V, zeros, y):
    """Compute U, M and y of the `count` strips from `first` on."""
    (N, OH, OW, K), (across, wide, high) = y.shape, plan
    C_panels, panels, slots = V.shape[0], -(-K // WIDTH), V.shape[2]
    at_once, length = CHANNELS // WIDTH, CHANNELS + 1
    T, size = scratch.shape[0], wide * high
    per_block = max(1, min(BLOCK // size, count * panels // T))  # smaller blocks where there are many threads
    tiles, blocks = N * down * across * wide - first * size, -(-count // per_block)
    ys, Vs, M = y.reshape(-1), V.reshape(-1), scratch[t]
    # As far as possible, a thread takes the tiles that it has transformed: they are in its own cache.
    for task in range(panels * blocks * t // T, panels * blocks * (t + 1) // T):
        s0, p = task // panels * per_block, task % panels
        m = min(min(count - s0, per_block) * size, tiles - s0 * size)
        step = (m | 1) * WIDTH
        for c in range(0, C_panels, at_once):
            n_c = min(at_once, C_panels - c)
            for q in range(n_c):
                target = WEIGHTS + q * WIDTH * WIDTH
                transform_panel(w, layout, p, c + q, M, PACKED, M, target, length * WIDTH)
            for k in range(36):
                start, s, s_i = (M, k * step, WIDTH) if c else (zeros, 0, 0)
                rows_of_panel(
                    m, n_c, WIDTH, Vs, ((c * 36 + k) * slots + s0 * size) * WIDTH, 36 * slots * WIDTH, WIDTH, 1,
                    M, WEIGHTS + k * length * WIDTH, WIDTH, start, s, s_i, NO_FLOOR, M, k * step, WIDTH,
                )  # fmt: skip
        N_p = min(WIDTH, K - p * WIDTH)
        for i in range(m):
            strip, slot = first + s0 + i // size, i % size
            row, tx = strip // across * high + slot // wide, strip % across * wide + slot % wide
            n, ty = row // down, row % down
            for lane in range(0, WIDTH, LANES):
                output_tile(M, i * WIDTH + lane, step, b, p * WIDTH + lane, floor, M, OUTPUT + lane)
            for r in range(min(4, OH - 4 * ty)):
                for q in range(min(4, OW - 4 * tx)):
                    target = ((n * OH + 4 * ty + r) * OW + 4 * tx + q) * K + p * WIDTH
                    copy(ys, target, M, OUTPUT + (r * 4 + q) * WIDTH, N_p)


@njit(**OPTIONS)
def _gradient(x, x2, gy, nothing, top, left, repeat, plan, scratch, V, Z, few, dU, gw):
    (N, OH, _, K), (across, wide, high) = gy.shape, plan
    down, T, size = -(-OH // 4), scratch.shape[0], wide * high
    number, per_chunk, no_peaks = -(-N * down // high) * across, CHUNK // size, np.empty(0, np.int32)
    for first in range(0, number, per_chunk):
        count = min(per_chunk, number - first)
        _transform_both(T, x, x2, gy, nothing, first, count, plan, down, top, left, repeat, scratch, V, Z, no_peaks)
        tiles = min(count * size, N * down * across * wide - first * size)
        if few:
            _multiply_and_transform_gradient(T, tiles, scratch, V, Z, gw)
        else:
            _multiply_gradient(36, K, first, tiles, V, Z, dU)
    if not few:
        gradient_of_weights(K, dU, gw)


@parallel
def _transform_both(t, x, x2, gy, nothing, first, count, plan, down, top, left, repeat, scratch, V, Z, peaks):
    """Compute V and Z of the `count` strips from `first` on."""
    (_, wide, high), T, rows, band = plan, scratch.shape[0], len(gy) * down, scratch[t]
    for s in range(count * t // T, count * (t + 1) // T):
        slot = s * wide * high
        _load_strip(x, x2, first + s, plan, rows, down, top, left, repeat, 6, band, V, slot, peaks)
        _load_strip(gy, nothing, first + s, plan, rows, down, 0, 0, 1, 4, band, Z, slot, peaks)


@parallel
def _multiply_gradient(k, K, first, tiles, V, Z, dU):
    """Add what `tiles` tiles give to dU_k; `first` is the number of the first strip."""
    C_panels, K_panels, slots = V.shape[0], Z.shape[0], V.shape[2]
    length = C_panels * WIDTH
    Vs, Zs, dUs = V.reshape(-1), Z.reshape(-1), dU.reshape(-1)
    start = k * dU.shape[1]
    if first == 0:
        clear(dUs, start, dU.shape[1])
    for c in range(C_panels):
        for p in range(K_panels):
            outer_panel(
                min(WIDTH, K - p * WIDTH), WIDTH, tiles,
                Zs, (p * 36 + k) * slots * WIDTH, WIDTH, Vs, (c * 36 + k) * slots * WIDTH,
                dUs, start + p * WIDTH * length + c * WIDTH, length,
            )  # fmt: skip


@parallel
def _multiply_and_transform_gradient(t, tiles, scratch, V, Z, gw):
    """Compute gw from all tiles, of one panel of K and one of C after the other: dU stays in a core's cache.

    With few tiles it takes longer to write and read the whole of dU than to compute it.
    """
    C_panels, K_panels, slots, T = V.shape[0], Z.shape[0], V.shape[2], scratch.shape[0]
    Vs, Zs, dU, step = V.reshape(-1), Z.reshape(-1), scratch[t], WIDTH * (WIDTH + 1)
    for task in range(K_panels * C_panels * t // T, K_panels * C_panels * (t + 1) // T):
        p, c = task // C_panels, task % C_panels
        n = min(WIDTH, len(gw) - p * WIDTH)
        clear(dU, 0, 36 * step)
        for k in range(36):
            source = (p * 36 + k) * slots * WIDTH
            outer_panel(n, WIDTH, tiles, Zs, source, WIDTH, Vs, (c * 36 + k) * slots * WIDTH, dU, k * step, WIDTH)
        for o in range(n):
            put_gradient(dU, o * WIDTH, step, c * WIDTH, WIDTH, gw, p * WIDTH + o)
