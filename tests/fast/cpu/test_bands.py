"""load_band against NumPy: concatenated, repeated or spread, padded, and cut out."""

import itertools

import numpy as np
import pytest
from arrays import rand

pytest.importorskip("numba")

from tinyseg.fast.cpu.bands import NOTHING, load_band, pitch_of  # noqa: E402
from tinyseg.fast.cpu.simd import LANES  # noqa: E402

FAR = 60  # pixels of zeros around the picture that the tests cut out of
GUARD = np.float32(-77.25)


def picture(x, x2, repeat, spread):
    """The image that bands are cut from, in plain steps, with FAR zeros on every side."""
    X = np.concatenate([x, x2], axis=3) if x2.shape[3] else x
    X = X.repeat(repeat, axis=1).repeat(repeat, axis=2)
    (N, H, W, C), (sh, sw) = X.shape, spread
    apart = np.zeros((N, (H - 1) * sh + 1, (W - 1) * sw + 1, C), X.dtype)
    apart[:, ::sh, ::sw] = X
    return np.pad(apart, ((0, 0), (FAR, FAR), (FAR, FAR), (0, 0)))


def loaded(x, x2, n, first, rows, left, width, repeat, spread, pitch, start=11):
    """What load_band writes, as (rows, width, pitch); and nothing beside it."""
    band = np.full(start + rows * width * pitch + 64, GUARD)
    load_band(x, x2, n, first, rows, left, width, repeat, *spread, band, start, pitch, 1)
    end = start + rows * width * pitch
    assert (band[:start] == GUARD).all() and (band[end:] == GUARD).all()
    return band[start:end].reshape(rows, width, pitch)


def check(x, x2, n, first, rows, left, width, repeat, spread, pitch):
    C = x.shape[3] + x2.shape[3]
    X = picture(x, x2, repeat, spread)[n, FAR + first : FAR + first + rows, FAR - left : FAR - left + width]
    assert X.shape == (rows, width, C)  # or the test looks beyond its picture
    band = loaded(x, x2, n, first, rows, left, width, repeat, spread, pitch)
    case = f"{first=} {rows=} {left=} {width=}"
    np.testing.assert_array_equal(band[:, :, :C], X, err_msg=case)
    np.testing.assert_array_equal(band[:, :, C:], 0, err_msg=case)


def images(C, C2, N=2, H=4, W=5):
    """Two float32 images without any zero; the second one without channels if C2 = 0."""
    x, x2 = (np.float32(1) + abs(rand(N, H, W, c, seed=c)).astype(np.float32) for c in (C, C2))
    return x, x2 if C2 else NOTHING


WAYS = [(1, (1, 1)), (2, (1, 1)), (3, (1, 1)), (1, (2, 2)), (1, (1, 3)), (1, (3, 1)), (1, (2, 5))]  # repeat, spread
CHANNELS = [(LANES, 0), (2 * LANES, 0), (1, 0), (LANES - 1, 0), (LANES + 1, 0), (LANES, LANES), (3, 5), (LANES, 1)]
ways = pytest.mark.parametrize(("repeat", "spread"), WAYS)
channels = pytest.mark.parametrize(("C", "C2"), CHANNELS)


@ways
@channels
def test_every_place_of_the_band(repeat, spread, C, C2):
    """Inside, over each border, wider and taller than the picture, beside it and far beyond."""
    x, x2 = images(C, C2)
    places = itertools.product((-9, -1, 0, 2, 7, 25), (1, 3, 6), (0, 2, 8, -1, -3, -25), (1, 4, 29))
    for i, (first, rows, left, width) in enumerate(places):
        check(x, x2, i % 2, first, rows, left, width, repeat, spread, pitch_of(C + C2))


@ways
@pytest.mark.parametrize(("C", "C2"), [(5, 0), (LANES, 0), (3, 4)])
@pytest.mark.parametrize("more", [0, 1, LANES])
def test_any_pitch(repeat, spread, C, C2, more):
    """`fast/cpu/conv2d.py` keeps pixels without a gap; a pitch may also be wider than whole vectors."""
    x, x2 = images(C, C2)
    for first, rows, left, width in ((-1, 6, 1, 8), (0, 4, 0, 5), (1, 2, -2, 3), (0, 12, 1, 20)):
        check(x, x2, 1, first, rows, left, width, repeat, spread, C + C2 + more)


@pytest.mark.parametrize(("first", "left"), [(-8, 0), (40, 0), (0, 40), (0, -40)])
@ways
def test_wholly_outside_is_zero(first, left, repeat, spread):
    for C, C2 in CHANNELS:
        x, x2 = images(C, C2)
        band = loaded(x, x2, 0, first, 3, left, 7, repeat, spread, pitch_of(C + C2))
        assert not band.any()


def test_one_pixel_and_images_of_one_row_or_column():
    for H, W in ((1, 1), (1, 6), (6, 1)):
        for C, C2 in CHANNELS:
            x, x2 = images(C, C2, N=3, H=H, W=W)
            for (repeat, spread), n in itertools.product(WAYS, range(3)):
                check(x, x2, n, -2, 9, 2, 10, repeat, spread, pitch_of(C + C2))


def test_nan_is_carried_and_never_multiplied_into_the_border():
    x = np.full((1, 3, 4, 5), np.nan, np.float32)
    band = loaded(x, NOTHING, 0, -1, 5, 1, 6, 1, (1, 1), pitch_of(5))
    np.testing.assert_array_equal(np.isnan(band[1:4, 1:5, :5]), True)
    band[1:4, 1:5, :5] = 0
    assert not band.any()


@pytest.mark.parametrize("C", [1, 15, 16, 17, 64, 100, 1000, 1023, 1024, 1025, 2048, 4096, 5000])
def test_pitch_is_of_whole_vectors_and_no_multiple_of_4096_bytes(C):
    pitch = pitch_of(C)
    assert C <= pitch < C + 2 * LANES and pitch % LANES == 0 and 4 * pitch % 4096
