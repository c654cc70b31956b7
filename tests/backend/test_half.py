"""float16 activations: every op near the float64 maths, float32 beside them where it should be, and nothing silent."""

import importlib
import itertools
import sys

import cuda_on_cpu
import numpy as np
import pytest
from arrays import EPS32, HALF_TINY, HALF_ULP, rand, value_and_grads
from catalogue import ENTRIES
from stand_in import planes

from tinyseg import Function, Tensor, backend, ops, using
from tinyseg.backend import half

every_op = pytest.mark.parametrize("entry", ENTRIES, ids=[entry[0] for entry in ENTRIES])
# How many inputs of an op are activations, where the others are parameters; float32 is the loss's type.
ACTIVATIONS = {"batch_norm": 1, "group_norm": 1, "conv2d": 1, "conv_transpose2d": 1, "depthwise_conv2d": 1}
ACTIVATIONS |= {"pointwise_conv2d": 1, "separable_conv2d": 2, "separable_conv2d-relu": 1, "fused_conv2d": 2}
ACTIVATIONS |= {"fused_conv2d-relu": 1, "batch_norm-eval": 1}
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

    class Careless(Function):
        mixes = slice(1)

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


def test_stand_ins_for_kernels():
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


# ----- the stand-in's own float16 ------------------------------------------------------------
KERNELS = """
extern "C" __global__ void widen(const half* x, float* y, int size) {
  int t = thread_index();
  if (t < size) y[t] = x[t];
}
extern "C" __global__ void narrow(const float* x, half* y, int size) {
  int t = thread_index();
  if (t < size) y[t] = x[t];
}
"""


def test_float16_in_a_kernel_is_that_of_numpy(stand_in):
    """Every float16 there is; floats of every size, and halfway between two float16."""
    from tinyseg.fast.gpu import launch as cuda

    module = stand_in.RawModule(code=cuda.COMMON.read_text() + KERNELS, options=(*cuda.OPTIONS, "-DREAL=half"))
    x = np.arange(65536, dtype=np.uint16).view(np.float16)
    rng = np.random.default_rng(0)
    numbers = (rng.standard_normal(100_000) * 2.0 ** rng.integers(-30, 20, 100_000)).astype(np.float32)
    ordered = np.sort(x[np.isfinite(x)].astype(np.float32))
    middles = ((ordered[1:].astype(float) + ordered[:-1]) / 2).astype(np.float32)
    edges = np.array(
        [0, -0.0, np.inf, -np.inf, np.nan, 65504, 65519.99, 65520, 1e30, 2**-24, 2**-25, 1e-40], np.float32
    )
    for name, given, kind in (
        ("widen", x, np.float32),
        ("narrow", np.concatenate([numbers, middles, edges]), np.float16),
    ):
        found = stand_in.empty(given.shape, kind)
        cuda.launch(module.get_function(name), cuda.blocks_for(given.size), stand_in.asarray(given), found, given.size)
        found = stand_in.asnumpy(found)
        with np.errstate(over="ignore"):
            expected = given.astype(kind)
        np.testing.assert_array_equal(found, expected)
        number = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(found[number]), np.signbit(expected[number]))


@pytest.mark.skipif(cuda_on_cpu.compiler is None, reason="no g++ to compile the kernels for the CPU")
def test_the_stand_in_sees_an_array_of_the_wrong_type(stand_in):
    if stand_in.__name__ != "fake_cupy":
        pytest.skip("CuPy passes addresses on as they are")
    from tinyseg.fast.gpu import activation as activation_cuda
    from tinyseg.fast.gpu import launch as cuda

    x, y = (stand_in.asarray(np.ones(4, dtype)) for dtype in (np.float16, np.float32))
    for dtype, (a, b) in {"float16": (x, y), "float32": (y, x)}.items():
        with pytest.raises(AssertionError, match="argument 1 is float.., expected"):
            cuda.launch(activation_cuda.kernel("relu_forward", dtype), 1, a, b, 4)
