"""pointwise_conv2d against a loop over the pixels and PyTorch's 1x1 convolution."""

import numpy as np
import pytest
from arrays import equal, equals_torch, rand

from tinyseg import check_grads
from tinyseg.ops import conv2d, depthwise_conv2d, pointwise_conv2d

shapes = pytest.mark.parametrize(("N", "C", "K", "H", "W"), [(2, 3, 4, 5, 7), (1, 1, 3, 2, 5), (3, 4, 1, 1, 6)])


@shapes
def test_is_one_linear_map_at_every_pixel(N, C, K, H, W, kernels):
    x, w, b = rand(N, C, H, W), rand(K, C), rand(K)
    expected = np.empty((N, K, H, W))
    for n, i, j in np.ndindex(N, H, W):
        expected[n, :, i, j] = w @ x[n, :, i, j] + b
    equal(pointwise_conv2d(x, w, b).data, expected)


@shapes
def test_gradients(N, C, K, H, W, kernels):
    check_grads(pointwise_conv2d, rand(N, C, H, W), rand(K, C), rand(K))
    check_grads(pointwise_conv2d, rand(N, C, H, W), rand(K, C))


@shapes
def test_equals_torch(N, C, K, H, W, kernels):
    def theirs(torch, x, w, b):
        return torch.nn.functional.conv2d(x, w[:, :, None, None], b)

    equals_torch(pointwise_conv2d, theirs, rand(N, C, H, W), rand(K, C), rand(K))


def test_depthwise_then_pointwise_is_a_convolution_with_the_product_kernel(kernels):
    x, d, p = rand(2, 3, 6, 5), rand(3, 3, 2), rand(4, 3)
    y = pointwise_conv2d(depthwise_conv2d(x, d, stride=(1, 2), padding="same"), p)
    equal(y.data, conv2d(x, p[:, :, None, None] * d, stride=(1, 2), padding="same").data)


@pytest.mark.parametrize(
    ("x", "w", "b", "sentence"),
    [
        ((2, 3, 5, 4), (4, 3, 1, 1), None, r"takes w of shape \(K, C\)"),
        ((3, 5), (4, 3), None, r"takes x of shape \(N, C, H, W\)"),
        ((2, 3, 5, 4), (3, 4), None, "the weights are for 4 channels, but x has 3"),
        ((2, 3, 5, 4), (4, 3), (4, 1), r"pointwise_conv2d: b must have shape \(4,\), but has \(4, 1\)"),
    ],
)
def test_refuses(x, w, b, sentence):
    with pytest.raises(ValueError, match=sentence):
        pointwise_conv2d(rand(*x), rand(*w), None if b is None else rand(*b))
