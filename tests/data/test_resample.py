"""Images, labels and predictions stay in register when they change size."""

import numpy as np
import pytest
from scipy.ndimage import zoom

from tinyseg.data.resample import nearest, positions, resample, restore

SIZES = [
    ((12, 20), (6, 10)),
    ((13, 17), (5, 7)),
    ((12, 20), (12, 9)),
    ((9, 10), (1, 3)),
    ((6, 7), (12, 21)),
    ((1, 9), (3, 4)),
]


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_a_plane_comes_back_between_the_pixels_that_were_read(source, target):
    r, q = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in source), indexing="ij")
    plane = 3 * r - 2 * q + 1
    small = plane[np.ix_(*(positions(n, m).astype(int) for n, m in zip(source, target, strict=True)))]
    if any(m > n for n, m in zip(source, target, strict=True)):
        rows, columns = (positions(n, m) for n, m in zip(source, target, strict=True))
        small = (3 * rows[:, None] - 2 * columns + 1).astype(np.float32)
    back = restore(small, source)
    assert back.shape == source and back.dtype == np.float32
    inside = tuple(
        slice(int(np.ceil(positions(n, m)[0])), int(positions(n, m)[-1]) + 1)
        for n, m in zip(source, target, strict=True)
    )
    np.testing.assert_allclose(back[inside], plane[inside], atol=1e-4)
    assert back.min() >= small.min() and back.max() <= small.max()  # beyond the outermost pixels it stays as they are


def test_half_the_size_reads_every_second_pixel_and_goes_back_to_it():
    labels = np.arange(8 * 6).reshape(8, 6)
    np.testing.assert_array_equal(nearest(labels, (4, 3)), labels[1::2, 1::2])
    small = np.random.default_rng(0).random((2, 4, 3)).astype(np.float32)
    back = restore(small, (8, 6))
    np.testing.assert_array_equal(back[:, 1::2, 1::2], small)
    np.testing.assert_allclose(back[:, 2::2, 1::2], (small[:, :-1] + small[:, 1:]) / 2, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_an_image_keeps_its_type_and_its_mean(dtype):
    image = (np.random.default_rng(1).random((40, 31)) * 200).astype(dtype)
    small = resample(image, (20, 16))
    assert small.dtype == dtype and small.shape == (20, 16)
    assert small.mean() == pytest.approx(image.mean(), rel=0.02)
    assert resample(image, (40, 31)) is image


def test_a_wave_that_the_small_image_cannot_hold_is_gone():
    wave = np.tile([0.0, 100.0], (32, 32)).astype(np.float32)
    assert np.ptp(resample(wave, (16, 16))[4:-4, 4:-4]) < 25  # plain sampling would give 0 or 100 everywhere


def test_enlarging_is_linear_interpolation():
    image = np.random.default_rng(2).random((7, 5)).astype(np.float32)
    expected = zoom(image.astype(float), (2, 3), order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(resample(image, (14, 15)), expected, atol=1e-6)


def test_a_smooth_image_survives_the_round_trip():
    r, q = np.mgrid[:64, :96]
    image = (np.sin(r / 9) * np.cos(q / 11)).astype(np.float32)
    inside = slice(4, -4), slice(4, -4)  # the outermost rows and columns cannot be interpolated
    back = restore(resample(image, (32, 48)), (64, 96))
    assert np.abs(back - image)[inside].max() < 0.03
    assert np.abs(np.roll(image, 1, axis=0) - image)[inside].max() > 0.08  # a pixel out of register would be seen


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.uint64])
def test_saturated_pixels_stay_the_brightest(dtype):
    limits = np.iinfo(dtype)
    for value in (limits.min, limits.max):
        small = resample(np.full((9, 8), value, dtype), (4, 5))
        np.testing.assert_allclose(small.astype(np.float64), np.float64(value), rtol=1e-12)


def test_8_bits_and_floats_differ_by_half_a_grey_level_at_most():
    image = np.random.default_rng(3).integers(0, 256, (33, 40), dtype=np.uint8)
    of_floats = resample(image.astype(np.float64), (20, 17))
    assert np.abs(resample(image, (20, 17)) - of_floats).max() <= 0.5
