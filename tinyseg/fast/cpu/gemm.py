"""Matrix products for numba kernels: `product` (C = A B, where B is packed) and `outer` (C += Aᵀ B).

They run inside a parallel loop, on the thread that calls them, where what they read and write is still in that thread's
cache. Their arguments are flat float32 arrays and indices, as in `tinyseg.fast.cpu.simd`.
"""

import numpy as np

from tinyseg.fast.cpu.kernel_cache import SUBROUTINE, njit
from tinyseg.fast.cpu.simd import ROWS, WIDTH, clear, copy
from tinyseg.fast.cpu.tile import NO_FLOOR, tile

FEW = 4  # rows of the smaller tile, for what is left where the large one no longer fits
_tile_rows, _tile_few, _tile_one = tile(ROWS), tile(FEW), tile(1)


def pad(b):
    """Return a bias with zeros behind it, so that whole tiles can start from it."""
    out = np.zeros(len(b) + WIDTH, np.float32)
    out[: len(b)] = b
    return out


@njit(**SUBROUTINE)
def rows_of_panel(m, taps, K, a, ai, a_t, a_i, a_k, b, bi, b_k, s, si, s_i, floor, c, ci, c_i):
    """Compute `product` for WIDTH columns; b_k is the distance between the rows of B: WIDTH where B is packed."""
    i = 0
    while i + ROWS <= m:
        _tile_rows(
            taps, K, a, ai + i * a_i, a_t, a_i, a_k, b, bi, b_k, s, si + i * s_i, s_i, floor, c, ci + i * c_i, c_i
        )
        i += ROWS
    while i + FEW <= m:
        _tile_few(
            taps, K, a, ai + i * a_i, a_t, a_i, a_k, b, bi, b_k, s, si + i * s_i, s_i, floor, c, ci + i * c_i, c_i
        )
        i += FEW
    while i < m:
        _tile_one(
            taps, K, a, ai + i * a_i, a_t, a_i, a_k, b, bi, b_k, s, si + i * s_i, s_i, floor, c, ci + i * c_i, c_i
        )
        i += 1


@njit(**SUBROUTINE)
def product(m, N, taps, K, a, ai, a_t, a_i, a_k, b, bi, s, si, s_i, floor, c, ci, c_i):
    """C[i, j] = max(floor, S[i, j] + sum_{t,k} A[t, i, k] B[t, k, j]) for i < m and j < N.

    B is packed panel by panel, each of them taps·K rows. Arguments as for `tinyseg.fast.cpu.tile.tile`.
    """
    for j in range(0, N, WIDTH):
        _panel(m, min(WIDTH, N - j), taps, K, a, ai, a_t, a_i, a_k, b, bi, s, si + j, s_i, floor, c, ci + j, c_i)
        bi += taps * K * WIDTH


@njit(**SUBROUTINE)
def _panel(m, n, taps, K, a, ai, a_t, a_i, a_k, b, bi, s, si, s_i, floor, c, ci, c_i):
    if n == WIDTH:
        rows_of_panel(m, taps, K, a, ai, a_t, a_i, a_k, b, bi, WIDTH, s, si, s_i, floor, c, ci, c_i)
        return
    buffer = np.empty(ROWS * WIDTH, np.float32)  # where the panel reaches beyond C
    for i in range(0, m, ROWS):
        rows = min(ROWS, m - i)
        for r in range(rows):
            copy(buffer, r * WIDTH, s, si + (i + r) * s_i, n)
            clear(buffer, r * WIDTH + n, WIDTH - n)
        rows_of_panel(
            rows, taps, K, a, ai + i * a_i, a_t, a_i, a_k, b, bi, WIDTH, buffer, 0, WIDTH, floor, buffer, 0, WIDTH
        )
        for r in range(rows):
            copy(c, ci + (i + r) * c_i, buffer, r * WIDTH, n)


@njit(**SUBROUTINE)
def outer(M, N, K, a, ai, a_k, b, bi, b_k, panel, c, ci, c_i):
    """C[i, j] += sum_k A[k, i] B[k, j] for i < M and j < N, with a_k and b_k the row strides of A and B.

    `panel` is scratch of K·WIDTH floats. The caller cuts long sums: K should be a few hundred at most.
    """
    for j in range(0, N, WIDTH):
        n = min(WIDTH, N - j)
        if n == WIDTH:
            rows_of_panel(M, 1, K, a, ai, 0, 1, a_k, b, bi + j, b_k, c, ci + j, c_i, NO_FLOOR, c, ci + j, c_i)
        else:
            for k in range(K):
                copy(panel, k * WIDTH, b, bi + k * b_k + j, n)
                clear(panel, k * WIDTH + n, WIDTH - n)
            outer_panel(M, n, K, a, ai, a_k, panel, 0, c, ci + j, c_i)


@njit(**SUBROUTINE)
def outer_panel(M, n, K, a, ai, a_k, panel, start, c, ci, c_i):
    """Compute `outer` for one packed panel of n <= WIDTH columns."""
    _panel(M, n, 1, K, a, ai, 0, 1, a_k, panel, start, c, ci, c_i, NO_FLOOR, c, ci, c_i)
