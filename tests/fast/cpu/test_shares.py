"""How images are cut for the threads: nothing is left out, and no thread has much more to do than another."""

import pytest

pytest.importorskip("numba")

from tinyseg.fast.cpu import windows  # noqa: E402
from tinyseg.fast.cpu.pointwise_conv import MOST, _cut  # noqa: E402
from tinyseg.fast.cpu.simd import ROWS  # noqa: E402

THREADS = [1, 2, 3, 8, 64]


def largest_share(tasks, threads):
    return max(tasks * (t + 1) // threads - tasks * t // threads for t in range(threads))


@pytest.mark.parametrize("threads", THREADS)
def test_pixels_are_cut_into_whole_tiles_and_equal_shares(threads):
    for P in [*range(1, 400), 1024, 4096, 4097, 65536]:
        size, pieces = _cut(P, threads)
        assert size % ROWS == 0 and size <= MOST and (pieces - 1) * size < P <= pieces * size
        longest = min(P, largest_share(pieces, threads) * size)
        assert longest <= P / threads * (1 + ROWS / MOST) + 2 * ROWS
    assert largest_share(_cut(256, 2)[1], 2) * _cut(256, 2)[0] <= 128 + ROWS  # the deepest level: it was 192 and 64


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("row", [64, 16384, 1 << 17])
def test_bands_are_few_and_shares_equal(threads, row, monkeypatch):
    monkeypatch.setattr(windows, "threads", lambda: threads)
    for N in range(1, 10):
        for OH in [*range(1, 40), 256]:
            rows = windows.band_rows(N, OH, row)
            assert 1 <= rows <= min(8, OH) and (rows == 1 or rows * row <= 1 << 16)
            share = largest_share(N * -(-OH // rows), threads) * (rows + 1)
            for other in range(1, rows):  # smaller bands would not make the longest share shorter
                assert share <= largest_share(N * -(-OH // other), threads) * (other + 1)


def test_two_threads_share_a_small_image_in_two_bands(monkeypatch):
    monkeypatch.setattr(windows, "threads", lambda: 2)
    assert windows.band_rows(1, 8, 8 * 512) == 4  # it was 1: eight passes over half a million weights
    assert windows.band_rows(2, 8, 8 * 512) == 8
    assert windows.band_rows(3, 8, 8 * 512) == 4
