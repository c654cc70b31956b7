"""ReLU, sigmoid, softmax and log-softmax against SciPy and PyTorch."""

import numpy as np
import pytest
import scipy.special
from arrays import equal, equals_torch, rand, spaced, value_and_grads

from tinyseg import Tensor, check_grads
from tinyseg.ops import log_softmax, relu, sigmoid, softmax

shapes = pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 1, 1, 7), (5, 2), (6, 1, 3)])
along = pytest.mark.parametrize("op", [softmax, log_softmax])
EXTREMES = np.array([[-1000.0, 1000.0, 0.0], [1000.0, 1000.0, -1000.0], [-1000.0, -1000.0, -999.0]])


@shapes
def test_values(shape, kernels):
    x = 3 * rand(*shape)
    equal(relu(x).data, np.where(x > 0, x, 0))
    equal(sigmoid(x).data, scipy.special.expit(x))
    for axis in range(-1, len(shape)):
        equal(softmax(x, axis).data, scipy.special.softmax(x, axis))
        equal(log_softmax(x, axis).data, scipy.special.log_softmax(x, axis))


@shapes
def test_gradients(shape, kernels):
    check_grads(relu, spaced(*shape))
    check_grads(sigmoid, 3 * rand(*shape))
    for axis in range(-1, len(shape)):
        check_grads(lambda x, axis=axis: softmax(x, axis), rand(*shape))
        check_grads(lambda x, axis=axis: log_softmax(x, axis), rand(*shape))


@shapes
def test_equals_torch(shape, kernels):
    x = spaced(*shape, gap=0.1)
    equals_torch(relu, lambda torch, x: torch.relu(x), x)
    equals_torch(sigmoid, lambda torch, x: torch.sigmoid(x), x)
    equals_torch(softmax, lambda torch, x: torch.softmax(x, 1), x)
    equals_torch(log_softmax, lambda torch, x: torch.log_softmax(x, 1), x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_values_stay_finite_without_warnings(dtype, kernels):
    x = EXTREMES.astype(dtype)
    for op, expected in (
        (sigmoid, scipy.special.expit(x)),
        (softmax, scipy.special.softmax(x, 1)),
        (log_softmax, scipy.special.log_softmax(x, 1)),
    ):
        y, gx = value_and_grads(op, x)
        np.testing.assert_allclose(y, expected, rtol=1e-6)
        assert np.isfinite(gx).all()


def test_probabilities_add_up_to_one(kernels):
    x = 10 * rand(2, 5, 3, 4)
    np.testing.assert_allclose(softmax(x).data.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(np.exp(log_softmax(x).data).sum(axis=1), 1, rtol=1e-14)
    equal(sigmoid(x).data + sigmoid(-x).data, np.ones_like(x))


def test_log_softmax_is_accurate_where_the_probability_underflows(kernels):
    np.testing.assert_allclose(log_softmax(np.array([[0.0, -2000.0]])).data, [[0, -2000]])


def test_relu_has_gradient_zero_at_zero(kernels):
    x = Tensor(np.array([-1.0, 0.0, 2.0]), requires_grad=True)
    relu(x).backward(np.ones(3))
    np.testing.assert_array_equal(x.grad, [0, 0, 1])


@pytest.mark.parametrize("op", [relu, sigmoid, softmax, log_softmax])
def test_nan_is_seen(op, kernels):
    x = rand(2, 3)
    x[0, 1] = np.nan
    y = op(x).data
    assert np.isnan(y[0, 1]) and np.isfinite(y[1]).all()


@along
def test_an_axis_that_is_not_there_is_refused(op):
    with pytest.raises(ValueError, match=r"axis must name axes of an array of shape \(3,\)"):
        op(rand(3))
