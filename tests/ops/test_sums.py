"""Long sums over arrays whose channels lie side by side in memory, as the CPU kernels leave them, against float64."""

import numpy as np
import pytest
from arrays import pixels

from tinyseg import Tensor, ops
from tinyseg.backend import config, fast
from tinyseg.ops.sums import mean_over, sum_over

N, C, S = 2, 3, 600  # 720,000 pixels: float32 additions one by one would be off by 1e-4 to 1e-2
ERROR = 4e-6  # of the sum of magnitudes: the kernels add some thousand products in float32 before float64
BLAS = 2e-5  # of matrix products in the maths, where BLAS adds up 720,000 products in float32

w3, wp, b = np.full((C, 3, 3), 0.3), np.full((C, C), 0.3), np.zeros(C)
OPS = {
    "pointwise": (ops.pointwise_conv2d, wp, b),
    "depthwise": (lambda x, w, b: ops.depthwise_conv2d(x, w, b, 1, "same"), w3, b),
    "conv2d": (lambda x, w, b: ops.conv2d(x, w, b), np.full((C, C, 1, 1), 0.3), b),
    "transposed": (lambda x, w, b: ops.conv_transpose2d(x, w, b), np.full((C, C, 1, 1), 0.3), b),
    "fused": (lambda x, w, b: ops.fused_conv2d(x, w, b, activation="relu"), np.full((C, C, 1, 1), 0.3), b),
    "separable": (lambda x, d, w, b: ops.separable_conv2d(x, d, w, b, 1, "same", activation="relu"), w3, wp, b),
    "sum": (lambda x: ops.sum(x, (0, 2, 3)),),
    "mean": (lambda x: ops.mean(x, (0, 2, 3)),),
    "add": (lambda x, b: x + b, np.zeros((C, 1, 1))),
    "average pool": (lambda x: ops.avg_pool2d(x, S),),
    "binary cross-entropy": (lambda x: ops.binary_cross_entropy_with_logits(x, np.zeros(x.shape)),),
    "cross-entropy": (lambda x: ops.cross_entropy(x, np.zeros((N, S, S), int)),),
    "soft Dice": (lambda x: ops.soft_dice_loss(x, np.ones(x.shape)),),
}


def results(f, x, parameters, dtype):
    """y where it is a sum, and the gradients of the parameters; x and the cotangent are 0.1 everywhere."""
    xs = [Tensor(a.astype(dtype), requires_grad=True) for a in parameters]
    y = f(Tensor(pixels(x.astype(dtype))), *xs)
    if xs:
        y.backward(pixels(np.full(y.shape, 0.1, dtype)))
    return [y.data, *(t.grad for t in xs)]


@pytest.mark.parametrize("op", OPS)
def test_sums_over_many_pixels_are_near_float64(op, kernels):
    (f, *parameters), x = OPS[op], np.full((N, C, S, S), 0.1)
    for found, expected in zip(
        results(f, x, parameters, np.float32), results(f, x.astype(np.float32), parameters, float), strict=True
    ):
        assert found.dtype == np.float32
        in_maths = config.kernels == "reference" or fast("cpu.gemm") is None
        product = in_maths and found.ndim > 1  # a gradient of weights
        np.testing.assert_allclose(found, expected, rtol=BLAS if product else ERROR, atol=1e-7)


@pytest.mark.parametrize("norm", [lambda x, w, b: ops.group_norm(x, 1, w, b),
                                  lambda x, w, b: ops.batch_norm(x, None, None, w, b, training=True)],
                         ids=["group", "batch"])  # fmt: skip
def test_norms_of_many_pixels_are_near_float64(norm, kernels):
    x = np.random.default_rng(0).random((N, C, S, S))
    for found, expected in zip(
        results(norm, x, (b + 1, b), np.float32), results(norm, x, (b + 1, b), float), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=ERROR, atol=2e-2 if found.shape == (C,) else 2e-6)


@pytest.mark.parametrize("axis", [None, 0, (0, 2), -1])
def test_sum_over_and_mean_over(axis):
    a = np.random.default_rng(0).standard_normal((40, 5, 60)).astype(np.float32)
    for keepdims in (False, True):
        expected = a.sum(axis, dtype=float, keepdims=keepdims)
        found, mean = sum_over(a, axis, keepdims), mean_over(a, axis, keepdims)
        assert found.dtype == mean.dtype == np.float32 and found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=2e-7, atol=1e-5 if axis == 1 else 1e-9)
        np.testing.assert_allclose(mean, expected * expected.size / a.size, rtol=2e-7, atol=1e-8)


def test_a_mean_of_nothing_and_an_axis_that_is_not_there_are_refused():
    with pytest.raises(ValueError, match=r"nothing to average over axis 0 of an array of shape \(0, 3\)\."):
        ops.mean(np.zeros((0, 3)), axis=0)
    for op in (ops.sum, ops.mean, ops.softmax, ops.log_softmax):
        with pytest.raises(ValueError, match=r"axis must name axes of an array of shape \(2, 3\)"):
            op(np.zeros((2, 3)), axis=2)
