"""weight_standardization against the formula, filter by filter, and PyTorch's autograd."""

import math

import numpy as np
import pytest
from arrays import equal, equals_torch, rand, value_and_grads

from tinyseg import check_grads
from tinyseg.ops import depthwise_conv2d, weight_standardization

shapes = pytest.mark.parametrize("shape", [(4, 3, 2), (5, 3), (3, 2, 1, 4), (1, 3, 3), (3, 7, 5)])
readings = pytest.mark.parametrize("per", ["layer", "filter"])
gains = pytest.mark.parametrize("gain", [False, True])


@shapes
@readings
@gains
def test_values(shape, per, gain, kernels):
    v = 3 + rand(*shape)
    a = 1 / math.sqrt(math.prod(shape[1:])) if gain else 1.0
    sets = [v] if per == "layer" else v
    expected = [a * (s - s.mean()) / (np.std(s) + 1e-5) for s in sets]
    equal(weight_standardization(v, per, gain).data, expected[0] if per == "layer" else np.array(expected))


@shapes
@readings
@gains
@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_gradients(shape, per, gain, eps, kernels):
    check_grads(lambda v: weight_standardization(v, per, gain, eps), rand(*shape))


@shapes
@readings
@gains
def test_equals_torch(shape, per, gain, kernels):
    a = 1 / math.sqrt(math.prod(shape[1:])) if gain else 1.0

    def theirs(torch, v):
        axes = tuple(range(0 if per == "layer" else 1, len(shape)))
        mean = v.mean(axes, keepdim=True)
        return a * (v - mean) / (v.std(axes, keepdim=True, unbiased=False) + 1e-5)

    equals_torch(lambda v: weight_standardization(v, per, gain), theirs, rand(*shape))


def test_mean_0_deviation_1(kernels):
    w = weight_standardization(5 + 2 * rand(6, 3, 4), "filter", eps=0.0).data
    np.testing.assert_allclose(w.mean(axis=(1, 2)), 0, atol=1e-14)
    np.testing.assert_allclose(w.std(axis=(1, 2)), 1)
    w = weight_standardization(5 + 2 * rand(6, 3, 4), "layer", gain=True, eps=0.0).data
    assert abs(w.mean()) < 1e-14 and w.std() == pytest.approx(1 / math.sqrt(12))


def test_shift_and_scale_of_the_trained_weights_change_nothing(kernels):
    v = rand(4, 3, 2)
    equal(weight_standardization(7 + 3 * v, eps=0.0).data, weight_standardization(v, eps=0.0).data)
    _, gv = value_and_grads(lambda v: weight_standardization(v, "filter", eps=0.0), v)
    np.testing.assert_allclose(gv.sum(axis=(1, 2)), 0, atol=1e-14)  # nothing along a shift
    np.testing.assert_allclose((gv * v).sum(axis=(1, 2)), 0, atol=1e-13)  # nothing along a scale


@readings
@gains
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_constant_weights_become_zero_and_get_finite_gradients(per, gain, dtype, value, kernels):
    v = rand(3, 2, 3)
    v[1] = value
    v = np.full((3, 2, 3), value, dtype) if per == "layer" else v.astype(dtype)
    w, gv = value_and_grads(lambda v: weight_standardization(v, per, gain), v)
    assert abs(w[1]).max() < 0.02  # 0.1 is no binary fraction: its mean is a rounding away from it, and ε = 1e-5
    assert np.isfinite(gv).all() and abs(gv).max() <= 2 / 1e-5 * abs(rand(3, 2, 3, seed=99)).max()


def test_per_filter_a_depthwise_kernel_does_not_see_level():
    x = np.ones((1, 4, 5, 6))
    w = weight_standardization(rand(4, 3, 3), "filter")
    np.testing.assert_allclose(depthwise_conv2d(x, w).data, 0, atol=1e-13)
    assert abs(depthwise_conv2d(x, weight_standardization(rand(4, 3, 3), "layer")).data).max() > 0.1


def test_refuses():
    with pytest.raises(ValueError, match="is per 'layer' or per 'filter', not 'channel'"):
        weight_standardization(rand(4, 3, 2), per="channel")
    with pytest.raises(ValueError, match=r"weights with filters along axis 0, but got \(4,\)"):
        weight_standardization(rand(4))
