"""dropout: statistics of the mask, its dependence on the seed, and the gradient through it."""

import math

import numpy as np
import pytest
from arrays import rand, value_and_grads

from tinyseg import Tensor, check_grads, ops

SIZE = 200_000
SEEDS = [0, 1, 2, 12345, 2**32 - 1, [7, 0], [7, 1], [2**31, 12]]


def kept(seed, p=0.3, size=SIZE):
    return ops.dropout(np.ones(size, np.float32), p, seed=seed).data > 0


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("seed", SEEDS, ids=str)
def test_rate_and_scale(p, seed):
    y = ops.dropout(np.ones(SIZE, np.float32), p, seed=seed).data
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / (1 - p))}
    # The number kept is binomial; 5 deviations happen once in two million draws.
    assert abs((y > 0).mean() - (1 - p)) < 5 * math.sqrt(p * (1 - p) / SIZE)
    assert abs(y.mean() - 1) < 5 * math.sqrt(p / (1 - p) / SIZE)


def test_mean_is_preserved():
    x = 3 + rand(SIZE)
    deviation = math.sqrt((x**2).sum() * 0.25) / 0.5 / SIZE  # of the mean of x m / (1 - p), p = ½
    assert abs(ops.dropout(x, 0.5, seed=4).data.mean() - x.mean()) < 5 * deviation


def test_the_same_seed_gives_the_same_mask_and_another_seed_another():
    for seed in SEEDS:
        np.testing.assert_array_equal(kept(seed), kept(seed))
    masks = {kept(seed).tobytes() for seed in SEEDS}
    assert len(masks) == len(SEEDS)


def test_the_mask_depends_on_the_number_of_elements_not_on_the_shape():
    a = ops.dropout(np.ones((4, 50)), seed=3).data
    b = ops.dropout(np.ones((2, 2, 5, 10)), seed=3).data
    np.testing.assert_array_equal(a.ravel(), b.ravel())


def test_neighbouring_seeds_and_elements_are_uncorrelated_at_every_distance():
    masks = [kept(seed, p=0.5) - 0.5 for seed in (0, 1, 2, 3, [0, 1], [0, 2], [1, 1])]
    spectra = [np.fft.rfft(mask) for mask in masks]
    for i, a in enumerate(spectra):
        for k, b in enumerate(spectra[i:]):
            correlation = np.fft.irfft(a.conj() * b, SIZE) / (0.25 * SIZE)  # at all circular distances at once
            assert abs(correlation[int(k == 0) :]).max() < 7 / math.sqrt(SIZE)  # 7 deviations: 6 million samples


def test_bits_are_spread_over_the_whole_mask():
    """Counts in blocks of 1000 scatter as binomial counts do (chi-squared, 5 deviations)."""
    counts = kept(11, p=0.5).reshape(-1, 1000).sum(axis=1)
    chi2, n = ((counts - 500) ** 2 / 250).sum(), len(counts)
    assert abs(chi2 - n) < 5 * math.sqrt(2 * n)


def test_channelwise_drops_whole_planes():
    y = ops.dropout2d(np.ones((50, 40, 3, 5)), 0.3, seed=9).data
    planes = y[:, :, 0, 0]
    np.testing.assert_array_equal(y, np.broadcast_to(planes[:, :, None, None], y.shape))
    assert set(np.unique(planes)) == {0, 1 / 0.7}
    assert abs((planes > 0).mean() - 0.7) < 5 * math.sqrt(0.21 / planes.size)
    assert len({row.tobytes() for row in planes}) == 50  # every image its own


@pytest.mark.parametrize("op", [ops.dropout, ops.dropout2d])
def test_gradient_goes_where_the_value_went(op, kernels):
    x = rand(3, 4, 5, 2)
    check_grads(lambda x: op(x, 0.4, seed=8), x)
    t = Tensor(x, requires_grad=True)
    y = op(t, 0.4, seed=8)
    y.backward(np.ones(x.shape))
    np.testing.assert_allclose(t.grad * x, y.data)


@pytest.mark.parametrize("op", [ops.dropout, ops.dropout2d])
def test_does_nothing_outside_training_or_at_rate_0(op):
    t = Tensor(rand(2, 3, 4, 5), requires_grad=True)
    assert op(t, 0.5, training=False) is t
    assert op(t, 0.0) is t
    y = op(t.data, 0.5, training=False)
    assert isinstance(y, Tensor) and y.data is t.data


def test_a_scalar_and_a_rate_near_1():
    assert ops.dropout(np.array(2.0), 0.5, seed=1).shape == ()
    p = 1 - 1e-12
    y, gx = value_and_grads(lambda x: ops.dropout(x, p, seed=1), np.ones(1000))
    assert np.isfinite(y).all() and np.isfinite(gx).all()


@pytest.mark.parametrize("op", [ops.dropout, ops.dropout2d])
def test_refuses(op):
    for p in (1.0, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=rf"{op.__name__}: p must be a number in the interval \[0, 1\), but is"):
            op(rand(2, 3, 4, 5), p)
    with pytest.raises(ValueError, match=r"dropout2d takes x of shape \(N, C, H, W\)"):
        ops.dropout2d(rand(3, 4))


@pytest.mark.parametrize("op", [ops.dropout, ops.dropout2d])
def test_training_without_a_seed_is_refused(op):
    x = np.ones((1, 2, 3, 4))
    with pytest.raises(ValueError, match="needs a seed, a new one every step"):
        op(x)
    np.testing.assert_array_equal(op(x, training=False).data, x)
    np.testing.assert_array_equal(op(x, p=0.0).data, x)
