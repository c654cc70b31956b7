"""Elementwise arithmetic, sums and means, and the operators of Tensor, against NumPy's own and PyTorch."""

import numpy as np
import pytest
from arrays import equal, equals_torch, rand, value_and_grads

from tinyseg import Tensor, check_grads, ops
from tinyseg.ops.arithmetic import unbroadcast

BINARY = [(ops.add, np.add), (ops.subtract, np.subtract), (ops.multiply, np.multiply), (ops.divide, np.divide)]
binary = pytest.mark.parametrize(("op", "oracle"), BINARY, ids=[op.__name__ for op, _ in BINARY])
broadcasts = pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2, 3), (2, 3)),
        ((2, 3, 4), (3, 1)),
        ((1,), (5, 2)),
        ((2, 1, 4), (1, 3, 1)),
        ((3, 2), ()),
        ((), ()),
        ((1, 1), ()),
    ],
)
AXES = [None, 0, -1, (0, 2), (1, -1), (0, 1, 2)]


def positive(*shape):
    return np.asarray(abs(rand(*shape)) + 0.5)


@binary
@broadcasts
def test_values_and_gradients_with_broadcasting(op, oracle, a, b):
    a, b = np.asarray(rand(*a)), positive(*b)
    equal(op(a, b).data, np.asarray(oracle(a, b)))
    check_grads(op, a, b)
    check_grads(lambda b, a: op(a, b), b, a)


@binary
@broadcasts
def test_equals_torch(op, oracle, a, b):
    equals_torch(op, lambda torch, a, b: getattr(torch, op.__name__)(a, b), np.asarray(rand(*a)), positive(*b))


def test_unbroadcast_is_the_transpose_of_broadcasting():
    g = rand(2, 3, 4)
    for shape in ((), (1,), (4,), (3, 1), (1, 3, 4), (2, 1, 1), (2, 3, 4)):
        x = np.asarray(rand(*shape))
        found = unbroadcast(g, shape)
        assert found.shape == shape
        assert (np.broadcast_to(x, g.shape) * g).sum() == pytest.approx((x * found).sum(), rel=1e-12)


@binary
def test_shapes_that_do_not_broadcast(op, oracle):
    with pytest.raises(ValueError, match=rf"{op.__name__}: shapes \(2, 3\) and \(2, 4\) do not broadcast together"):
        op(rand(2, 3), Tensor(rand(2, 4)))


@pytest.mark.parametrize("exponent", [3, 2, 1, -1, 0.5, -1.5, np.float64(2), np.int64(3)])
def test_power(exponent):
    x = positive(2, 3)
    equal(ops.power(x, exponent).data, x**exponent)
    check_grads(lambda x: ops.power(x, exponent), x)
    y, gx = value_and_grads(lambda x: x**exponent, x.astype(np.float32))
    assert y.dtype == gx.dtype == np.float32


def test_power_takes_numbers_only():
    with pytest.raises(TypeError, match="the exponent must be a number, but is ndarray"):
        ops.power(rand(2), rand(2))
    with pytest.raises(TypeError, match="the exponent must be a number, but is Tensor"):
        Tensor(rand(2)) ** Tensor(rand(2))


def test_power_zero_is_constant_at_zero_too():
    y, gx = value_and_grads(lambda x: x**0, np.array([0.0, 2.0]))
    np.testing.assert_array_equal([y, gx], [[1, 1], [0, 0]])


def test_exp_and_log():
    x = positive(2, 3)
    equal(ops.exp(x).data, np.exp(x))
    equal(ops.log(x).data, np.log(x))
    check_grads(ops.exp, x)
    check_grads(ops.log, x)
    equal(ops.log(ops.exp(x)).data, x)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(("op", "oracle"), [(ops.sum, np.sum), (ops.mean, np.mean)])
def test_sum_and_mean(op, oracle, axis, keepdims):
    x = rand(2, 3, 4)
    equal(op(x, axis, keepdims).data, np.asarray(oracle(x, axis=axis, keepdims=keepdims)))
    check_grads(lambda x: op(x, axis, keepdims), x)
    equal(getattr(Tensor(x), op.__name__)(axis, keepdims).data, op(x, axis, keepdims).data)


def test_sum_of_a_scalar():
    check_grads(ops.sum, np.array(1.5))
    check_grads(ops.mean, np.array(1.5))


def test_operators_are_the_ops():
    a, b = positive(2, 3), positive(3)
    for f in (
        lambda x, y: x + y,
        lambda x, y: x - y,
        lambda x, y: x * y,
        lambda x, y: x / y,
        lambda x, y: -x * y**2,
        lambda x, y: 2.0 - x / 3 + 1 / y - 5 * (x - 1) + (1 + y) * x,
    ):
        equal(f(Tensor(a), Tensor(b)).data, f(a, b))  # both Tensors
        equal(f(Tensor(a), b).data, f(a, b))  # an array on the right
        equal(f(a, Tensor(b)).data, f(a, b))  # an array on the left
        check_grads(f, a, b)


@pytest.mark.parametrize(
    "number", [2, 2.5, np.float64(2.5), np.float32(2.5), np.int64(2)], ids=lambda n: type(n).__name__
)
@pytest.mark.parametrize("shape", [(2, 3), ()])
def test_numbers_take_the_precision_of_the_tensor(number, shape):
    x = Tensor(np.asarray(positive(*shape), np.float32), requires_grad=True)
    for y in (x + number, number + x, x - number, number - x, x * number, number * x, x / number, number / x):
        assert y.dtype == np.float32 and y.shape == shape
        y.backward(np.ones(shape, np.float32))
        assert x.grad.dtype == np.float32 and x.grad.shape == shape
    np.testing.assert_allclose((number - x).data, float(number) - x.data, rtol=1e-6)
    np.testing.assert_allclose((number / x).data, float(number) / x.data, rtol=1e-6)
