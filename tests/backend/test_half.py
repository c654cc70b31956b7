"""float16 activations: every op near the float64 maths, float32 beside them where it should be, and nothing silent."""

import importlib
import itertools
import sys

import numpy as np
import pytest
from arrays import EPS32, HALF_TINY, HALF_ULP, rand, value_and_grads
from catalogue import ENTRIES
from stand_in import planes

from tinyseg import Function, Tensor, backend, ops, using
from tinyseg.backend import half
from tinyseg.backend.half import HalfFunction

every_op = pytest.mark.parametrize("entry", ENTRIES, ids=[entry[0] for entry in ENTRIES])
# How many inputs of an op are activations, where the others are parameters; float32 is the loss's type.
ACTIVATIONS = {"batch_norm": 1, "group_norm": 1, "conv2d": 1, "conv_transpose2d": 1, "depthwise_conv2d": 1}
ACTIVATIONS |= {"pointwise_conv2d": 1, "separable_conv2d": 2, "separable_conv2d-relu": 1, "fused_conv2d": 2}
ACTIVATIONS |= {"fused_conv2d-relu": 1, "batch_norm-eval": 1, "depthwise_conv2d-dilated": 1}
LOSSES = {"binary_cross_entropy_with_logits", "cross_entropy", "soft_dice_loss", "soft_dice_loss-softmax"}
LOSSES |= {"dice_bce_with_logits"}


def mixed(name, arrays):
    """The arrays of an entry: activations in float16, parameters in float32."""
    count = ACTIVATIONS.get(name, len(arrays))
    return [a.astype(np.float16 if k < count else np.float32) for k, a in enumerate(arrays)]


def check(name, given, found, expected, passes):
    """Types, and float16's roundings, `passes` of them, of numbers as large as the largest of an array.

    Sums of n float32 terms carry n roundings more, as in test_every_op.py.
    """
    types = ["float32" if name in LOSSES else "float16", *(str(a.dtype) for a in given)]
    assert [str(a.dtype) for a in found] == types
    n = sum(a.size for a in given)
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.shape == b.shape
        bound = (passes * HALF_ULP + n * EPS32) * max(abs(b).max(), 1) + HALF_TINY
        assert (abs(a - b) <= bound).all(), (k, (abs(a - b) / bound).max())


@every_op
def test_every_op(entry, kernels):
    """Rounded are y, gradients on their way in and out, and once in between (z before its bias, a product, a scale)."""
    name, f, *arrays = entry
    given = mixed(name, arrays)
    check(name, given, value_and_grads(f, *given), value_and_grads(f, *(a.astype(float) for a in given)), passes=4)


@every_op
def test_every_op_on_the_device(entry, stand_in):
    """There also weights before a product, and what stands between a depthwise and a pointwise convolution."""
    name, f, *arrays = entry
    given = mixed(name, arrays)
    on_device = [planes(stand_in, a) for a in given]
    found, again = ([stand_in.asnumpy(a) for a in value_and_grads(f, *on_device)] for _ in range(2))
    check(name, given, found, value_and_grads(f, *(a.astype(float) for a in given)), passes=8)
    for a, b in zip(found, again, strict=True):
        np.testing.assert_array_equal(a, b)


@every_op
def test_float16_throughout_will_do_too(entry, kernels):
    name, f, *arrays = entry
    given = [a.astype(np.float16) for a in arrays]
    check(name, given, value_and_grads(f, *given), value_and_grads(f, *(a.astype(float) for a in given)), passes=4)


def test_float16_parameters_on_the_device(stand_in):
    """No kernel takes them as they are."""
    for name, f, *arrays in ENTRIES:
        given = [a.astype(np.float16) for a in arrays]
        found = [stand_in.asnumpy(a) for a in value_and_grads(f, *(planes(stand_in, a) for a in given))]
        check(name, given, found, value_and_grads(f, *(a.astype(float) for a in given)), passes=8)


@pytest.mark.parametrize("name", ["relu", "max_pool2d", "group_norm", "separable_conv2d-relu", "fused_conv2d-relu"])
def test_the_kernels_may_change_between_forward_and_backward(name, stand_in):
    f, *arrays = next(entry[1:] for entry in ENTRIES if entry[0] == name)
    given = mixed(name, arrays)
    expected = value_and_grads(f, *(a.astype(float) for a in given))
    for first, then in itertools.permutations(["fast", "reference"]):
        xs = [Tensor(planes(stand_in, a), requires_grad=True) for a in given]
        with using(kernels=first):
            y = f(*xs)
        gy = rand(*y.shape, seed=99).astype(np.float16)
        with using(kernels=then):
            y.backward(planes(stand_in, gy))
        found = [stand_in.asnumpy(a) for a in (y.data, *(x.grad for x in xs))]
        check(name, given, found, expected, passes=8)


# ----- the rule --------------------------------------------------------------------------
class Scale(HalfFunction):
    """y = x w in float32, whatever x is: the node rounds."""

    activations = slice(1)

    def forward(self, x, w):
        self.saved = x.astype(np.float32), w
        return x.astype(np.float32) * w

    def backward(self, gy):
        x, w = self.saved
        return gy.astype(np.float32) * w, gy.astype(np.float32) * x


def test_a_half_function_rounds_y_and_the_gradients_of_float16_inputs():
    x, w = (Tensor(rand(5, seed=k).astype(dtype), requires_grad=True) for k, dtype in enumerate(("float16", "float32")))
    gy = rand(5, seed=2).astype(np.float16)
    y = Scale()(x, w)
    y.backward(gy)
    assert [a.dtype for a in (y, x.grad, w.grad)] == [np.float16, np.float16, np.float32]
    exact = [x.data.astype(np.float32), w.data, gy.astype(np.float32)]
    np.testing.assert_array_equal(y.data, (exact[0] * exact[1]).astype(np.float16))
    np.testing.assert_array_equal(x.grad, (exact[2] * exact[1]).astype(np.float16))
    np.testing.assert_array_equal(w.grad, exact[2] * exact[0])  # not rounded


def test_a_half_function_of_other_types_is_a_function():
    for dtype in (np.float32, np.float64):
        x, w = (Tensor(rand(5, seed=k).astype(dtype), requires_grad=True) for k in range(2))
        y = ops.multiply(x, w)
        y.backward(np.ones(5, dtype))
        assert y.dtype == x.grad.dtype == w.grad.dtype == dtype


@pytest.mark.parametrize(
    ("x", "w"), [("float32", "float64"), ("float64", "float32"), ("float32", "float16"), ("float16", "float64")]
)
def test_a_half_function_refuses_other_mixed_types(x, w):
    with pytest.raises(TypeError, match=f"Scale got mixed precision: {x} .* and {w}"):
        Scale()(np.ones(3, x), np.ones(3, w))


def test_a_half_function_that_adds_up_computes_on_float32_copies():
    seen = []

    class Total(HalfFunction):
        adds_up = True

        def forward(self, x):
            seen.append(x.dtype)
            self.saved = x.shape
            return x.sum()

        def backward(self, gy):
            seen.append(gy.dtype)
            return np.full(self.saved, gy)

    x = Tensor(np.ones(3, np.float16), requires_grad=True)
    y = Total()(x)
    y.backward()
    assert seen == [np.float32] * 2 and y.dtype == x.grad.dtype == np.float16


def test_a_plain_function_rounds_nothing():
    class Plain(Function):
        def forward(self, x):
            return x.astype(np.float32)

        def backward(self, gy):
            return gy

    x = Tensor(np.ones(3, np.float16), requires_grad=True)
    y = Plain()(x)
    assert y.dtype == np.float32
    with pytest.raises(RuntimeError, match="Plain.backward: expected a float16 gradient .*, found float32"):
        y.backward(np.ones(3, np.float32))


def test_only_ops_with_parameters_mix_types():
    x, y = np.ones((2, 3), np.float16), np.ones((2, 3), np.float32)
    for f in (ops.add, ops.multiply, lambda a, b: ops.concat([a, b])):
        with pytest.raises(TypeError, match="mixed precision: float16 numpy array .* and float32"):
            f(x, y)
    with pytest.raises(TypeError, match="mixed precision: float16 .* and float64"):
        ops.pointwise_conv2d(np.ones((1, 2, 3, 3), np.float16), np.ones((4, 2)))


def test_sums_are_kept_in_float32():
    x = np.full((1, 2, 64, 64), 0.1, np.float16)  # in float16 a sum of these stands still long before the end
    assert abs(ops.sum(x).item() - x.astype(float).sum()) < 1
    assert ops.mean(x).item() == x[0, 0, 0, 0]
    b = Tensor(np.zeros(3, np.float32), requires_grad=True)
    y = ops.conv2d(x, np.zeros((3, 2, 1, 1), np.float32), b)
    y.backward(np.full(y.shape, 0.1, np.float16))
    np.testing.assert_allclose(b.grad, 4096 * float(np.float16(0.1)), rtol=1e-6)
    many = Tensor(np.ones(100_000, np.float16), requires_grad=True)
    ops.mean(many).backward(np.array(1000, np.float16))
    assert many.grad[0] == np.float16(0.01)  # 100 000 itself is beyond float16


def test_a_gradient_of_weights_does_not_overflow(stand_in):
    x, w = planes(stand_in, np.full((2, 1, 64, 64), 20, np.float16)), np.ones((1, 1), np.float32)
    shapes = {"pointwise_conv2d": (1, 1), "conv2d": (1, 1, 1, 1), "depthwise_conv2d": (1, 1, 1)}
    for name, shape in shapes.items():
        w = Tensor(planes(stand_in, np.zeros(shape, np.float32)), requires_grad=True)
        y = getattr(ops, name)(x, w)
        y.backward(planes(stand_in, np.full(y.shape, 10, np.float16)))
        assert w.grad.item() == 2 * 64 * 64 * 200  # 1.6 million; float16 ends at 65504


def test_running_statistics_stay_float32():
    x, mean, var = (300 * rand(2, 3, 8, 8)).astype(np.float16), np.zeros(3, np.float32), np.ones(3, np.float32)
    ops.batch_norm(x, mean, var, training=True, momentum=1.0)
    np.testing.assert_allclose(var, x.astype(float).var(axis=(0, 2, 3), ddof=1), rtol=1e-5)  # 9e4: beyond float16
    y = ops.batch_norm(x, mean, var).data
    expected = (x - mean[:, None, None]) / np.sqrt(var[:, None, None] + 1e-5)
    np.testing.assert_allclose(y.astype(float), expected, atol=4 * HALF_ULP)


def test_a_float16_gradient_of_float32_parameters_is_an_error():
    """It would hide a sum that was kept in float16."""

    class Careless(HalfFunction):
        activations = slice(1)

        def forward(self, x, w):
            return x * w.astype(np.float16)

        def backward(self, gy):
            return gy, gy

    x, w = (Tensor(np.ones(3, dtype), requires_grad=True) for dtype in (np.float16, np.float32))
    with pytest.raises(
        RuntimeError, match="Careless.backward: expected a float32 gradient of shape .3,., found float16"
    ):
        Careless()(x, w).backward(np.ones(3, np.float16))


def test_float16_parameters_beside_float32_activations_are_an_error():
    """y would take after them."""
    x, pixel = rand(1, 4, 3, 3).astype(np.float32), np.ones((4, 4), np.float16)
    calls = {
        "pointwise_conv2d": lambda: ops.pointwise_conv2d(x, pixel),
        "fused_conv2d": lambda: ops.fused_conv2d([x], pixel[:, :, None, None]),
        "separable_conv2d": lambda: ops.separable_conv2d(x, np.ones((4, 1, 1), np.float32), pixel),
        "group_norm": lambda: ops.group_norm(x, 2, pixel[0], pixel[0]),
    }
    for call in calls.values():
        with pytest.raises(TypeError, match="got mixed precision"):
            call()


def test_what_is_too_large_becomes_infinite_without_a_warning():
    x = Tensor(np.full((1, 1, 2, 2), 60000, np.float16), requires_grad=True)
    y = ops.upsample(ops.pointwise_conv2d(x, np.full((1, 1), 2, np.float32)), 2)
    assert np.isposinf(y.data).all() and np.isposinf(ops.cast(np.array([1e6]), "float16").data).all()


def test_what_computes_where_there_are_no_kernels():
    maths, x = importlib.import_module("tinyseg.ops.conv2d"), np.ones((1, 1, 3, 3), np.float16)
    w = np.ones((1, 1, 1, 1), np.float32)
    with using(kernels="reference"):
        k = backend.kernels("tinyseg.ops.conv2d", x, w)
    assert k is half.in_float32(maths) and k.STRIP == maths.STRIP and k.forward.__doc__ == maths.forward.__doc__
    args = (1, 1), ((0, 0), (0, 0))
    assert k.forward(x, w, *args, (3, 3)).dtype == np.float16
    assert k.grad_w(x, x, w.shape, *args).dtype == np.float32
    assert k.forward(x.astype(np.float32), w, *args, (3, 3)).dtype == np.float32
    assert backend.kernels("tinyseg.ops.shape", x) is sys.modules["tinyseg.ops.shape"]
