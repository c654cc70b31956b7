"""Cast: types there and back, rounding, overflow, and the sentences of misuse."""

import numpy as np
import pytest
from arrays import rand

from tinyseg import Tensor, ops


@pytest.mark.parametrize("given", ["float16", "float32", "float64"])
@pytest.mark.parametrize("wanted", ["float16", "float32", "float64"])
def test_types_go_there_and_back(given, wanted):
    x = Tensor(rand(2, 3, 4).astype(given), requires_grad=True)
    old = x.data.copy()
    y = ops.cast(x, wanted)
    np.testing.assert_array_equal(y.data, old.astype(wanted))
    gy = rand(2, 3, 4, seed=1).astype(wanted)
    y.backward(gy)
    assert y.dtype == wanted and x.grad.dtype == given
    np.testing.assert_array_equal(x.grad, gy.astype(given))
    np.testing.assert_array_equal(x.data, old)
    assert y.data is not x.data


def test_a_network_in_float16_between_float32():
    x = Tensor(rand(1, 2, 5, 3).astype(np.float32), requires_grad=True)
    w = Tensor(rand(4, 2).astype(np.float32), requires_grad=True)
    y = ops.cast(ops.pointwise_conv2d(ops.cast(x, "float16"), w), np.float32)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == w.grad.dtype == np.float32


def test_what_overflows():
    with np.errstate(over="raise"):  # it is asked for
        y = ops.cast(np.array([65504, 65519, 65520, -1e9], np.float32), "float16").data
    np.testing.assert_array_equal(y, np.array([65504, 65504, np.inf, -np.inf], np.float16))


@pytest.mark.parametrize("dtype", ["int32", "bool", "half a float", None, "complex64"])
def test_only_floating_point_types(dtype):
    with pytest.raises(ValueError, match="cast: dtype must be 'float16', 'float32' or 'float64', but is"):
        ops.cast(rand(3), dtype)
