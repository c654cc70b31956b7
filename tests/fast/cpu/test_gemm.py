"""The matrix products of the numba kernels against NumPy in float64, around every remainder of rows and columns."""

import numpy as np
import pytest
from arrays import EPS32, rand, single

pytest.importorskip("numba")

from tinyseg.fast.cpu.gemm import FEW, outer, outer_panel, pad, product, rows_of_panel  # noqa: E402
from tinyseg.fast.cpu.packing import pack  # noqa: E402
from tinyseg.fast.cpu.simd import LANES, ROWS, WIDTH  # noqa: E402
from tinyseg.fast.cpu.tile import NO_FLOOR  # noqa: E402

GUARD = np.float32(-77.25)  # stands wherever nothing is to be written
EVERY_M = [*range(1, 2 * ROWS + 2 * FEW + 2)]
EVERY_N = [1, 2, LANES - 1, LANES, LANES + 1, WIDTH - 1, WIDTH, WIDTH + 1, 2 * WIDTH, 3 * WIDTH - 5]
DEPTHS = [(1, 1), (1, 2), (1, 37), (3, 5), (9, 16)]  # taps, K
depths = pytest.mark.parametrize(("taps", "K"), DEPTHS)
floors = pytest.mark.parametrize("floor", [NO_FLOOR, np.float32(0)], ids=["plain", "relu"])


def framed(rows, columns, row, before=5):
    """A flat array full of GUARD, the index of the first element, and the view (rows, columns) with that row stride."""
    flat = np.full(before + rows * row + WIDTH, GUARD)
    return flat, before, np.lib.stride_tricks.as_strided(flat[before:], (rows, columns), (4 * row, 4))


def untouched(flat, start, rows, columns, row):
    """Whether everything outside of the framed matrix is GUARD still."""
    inside = np.zeros(flat.shape, bool)
    for i in range(rows):
        inside[start + i * row : start + i * row + columns] = True
    return (flat[~inside] == GUARD).all()


def within(found, expected, sizes, terms):
    """A sum of n products is off by at most n roundings of the sum of their sizes."""
    return (abs(found - expected) <= (terms + 1) * EPS32 * sizes).all()


def with_taps(A, B, f=np.asarray):
    """sum_t A[t] B[t] in float64, of the numbers themselves or of ``f`` of them."""
    return np.einsum("tik,tkj->ij", f(A.astype(np.float64)), f(B.astype(np.float64)))


# ----- what stands around the products ----------------------------------------------------------
def test_pad_of_a_bias():
    b = rand(37)
    found = pad(b)
    assert found.dtype == np.float32 and len(found) == 37 + WIDTH
    np.testing.assert_array_equal(found[:37], b.astype(np.float32))
    assert not found[37:].any()


# ----- C = max(floor, S + A B) -----------------------------------------------------------------
@depths
@floors
def test_product_with_a_bias(taps, K, floor):
    for m in EVERY_M:
        for N in EVERY_N:
            A, B, bias = single(taps, m, K), single(taps, K, N, seed=1), single(N, seed=2)
            a, row = A.reshape(-1), N + 3
            b = np.concatenate([np.zeros(7, np.float32), pack(B.reshape(taps * K, N))])
            c, ci, C = framed(m, N, row)
            product(m, N, taps, K, a, 0, m * K, K, 1, b, 7, pad(bias), 0, 0, floor, c, ci, row)
            expected = np.maximum(floor, with_taps(A, B) + bias)
            assert within(C, expected, with_taps(A, B, abs) + abs(bias), taps * K), (m, N)
            assert untouched(c, ci, m, N, row), (m, N)


@depths
@floors
def test_product_that_starts_from_c(taps, K, floor):
    for m in EVERY_M:
        for N in EVERY_N:
            A, B, start, row = single(taps, m, K), single(taps, K, N, seed=1), single(m, N, seed=2), N + 1
            c, ci, C = framed(m, N, row)
            C[...] = start
            b = pack(B.reshape(taps * K, N))
            product(m, N, taps, K, A.reshape(-1), 0, m * K, K, 1, b, 0, c, ci, row, floor, c, ci, row)
            expected = np.maximum(floor, with_taps(A, B) + start)
            assert within(C, expected, with_taps(A, B, abs) + abs(start), taps * K), (m, N)
            assert untouched(c, ci, m, N, row), (m, N)


@pytest.mark.parametrize(("a_t", "a_i", "a_k"), [(40, 3, 1), (5, 2, 7), (2, 11, 3), (0, 1, 30)])
def test_rows_of_a_may_lie_anywhere_and_overlap(a_t, a_i, a_k):
    """The windows of a convolution (a_i < K), and a matrix read by columns (a_k > 1)."""
    taps, K, m, N = 3, 7, 2 * ROWS + FEW + 3, WIDTH + 5
    a, B = single(600), single(taps, K, N, seed=1)
    A = np.lib.stride_tricks.as_strided(a[13:], (taps, m, K), (4 * a_t, 4 * a_i, 4 * a_k))
    c, ci, C = framed(m, N, N)
    b = pack(B.reshape(taps * K, N))
    product(m, N, taps, K, a, 13, a_t, a_i, a_k, b, 0, np.zeros(2 * WIDTH, np.float32), 0, 0, NO_FLOOR, c, ci, N)
    assert within(C, with_taps(A, B), with_taps(A, B, abs), taps * K)
    assert untouched(c, ci, m, N, N)


@pytest.mark.parametrize("b_k", [WIDTH, WIDTH + 1, 3 * WIDTH])
def test_rows_of_panel_with_rows_of_b_apart(b_k):
    K = 13
    b = single(K, b_k)
    for m in EVERY_M:
        A = single(m, K, seed=1)
        c, ci, C = framed(m, WIDTH, WIDTH + 2)
        zeros = np.zeros(WIDTH, np.float32)
        rows_of_panel(
            m, 1, K, A.reshape(-1), 0, 0, K, 1, b.reshape(-1), 0, b_k, zeros, 0, 0, NO_FLOOR, c, ci, WIDTH + 2
        )
        B = b[None, :, :WIDTH]
        assert within(C, with_taps(A[None], B), with_taps(A[None], B, abs), K)
        assert untouched(c, ci, m, WIDTH, WIDTH + 2)


@pytest.mark.parametrize("N", [WIDTH, 5, WIDTH + LANES + 1])
@floors
def test_nan_passes_the_floor_and_stays_in_its_row_or_column(N, floor):
    m, K = ROWS + FEW + 2, 6
    for place in ("A", "B", "bias"):
        A, B, bias = single(m, K), single(K, N, seed=1), single(N, seed=2)
        expected = np.zeros((m, N), bool)
        if place == "A":
            A[m - 3, 2], expected[m - 3] = np.nan, True
        elif place == "B":
            B[3, N - 1], expected[:, N - 1] = np.nan, True
        else:
            bias[N // 2], expected[:, N // 2] = np.nan, True
        c, ci, C = framed(m, N, N)
        product(m, N, 1, K, A.reshape(-1), 0, 0, K, 1, pack(B), 0, pad(bias), 0, 0, floor, c, ci, N)
        np.testing.assert_array_equal(np.isnan(C), expected, err_msg=place)


# ----- C += Aᵀ B --------------------------------------------------------------------------------
@pytest.mark.parametrize("K", [1, 2, 37, 256])
def test_outer(K):
    for M in EVERY_M:
        for N in EVERY_N:
            A, B, start, row = single(K, M + 2), single(K, N + 3, seed=1), single(M, N, seed=2), N + 3
            c, ci, C = framed(M, N, row)
            C[...] = start
            panel = np.full(K * WIDTH, np.nan, np.float32)
            outer(M, N, K, A.reshape(-1), 1, M + 2, B.reshape(-1), 2, N + 3, panel, c, ci, row)
            a, b = A[:, 1 : M + 1].astype(np.float64), B[:, 2 : N + 2].astype(np.float64)
            assert within(C, start + a.T @ b, abs(start) + abs(a.T) @ abs(b), K), (M, N)
            assert untouched(c, ci, M, N, row), (M, N)


def test_outer_of_a_packed_panel():
    K, row = 41, WIDTH + 4
    for M in EVERY_M:
        for n in (1, LANES, WIDTH - 1, WIDTH):
            A, B, start = single(K, M), single(K, n, seed=1), single(M, n, seed=2)
            c, ci, C = framed(M, n, row)
            C[...] = start
            panel = np.concatenate([np.full(WIDTH, np.nan, np.float32), pack(B)])
            outer_panel(M, n, K, A.reshape(-1), 0, M, panel, WIDTH, c, ci, row)
            a, b = A.astype(np.float64), B.astype(np.float64)
            assert within(C, start + a.T @ b, abs(start) + abs(a.T) @ abs(b), K), (M, n)
            assert untouched(c, ci, M, n, row), (M, n)
