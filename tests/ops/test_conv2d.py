"""conv2d against SciPy's correlate2d and PyTorch."""

import numpy as np
import pytest
from arrays import WINDOW_CASES, WINDOW_NAMES, both_axes, equal, equals_torch, rand
from scipy.signal import correlate2d

from tinyseg import Tensor, check_grads
from tinyseg.ops import conv2d

windows = pytest.mark.parametrize(WINDOW_NAMES, WINDOW_CASES)


def correlation(x, w, b, stride, pads):
    """Output channel k sums over c the valid correlation of plane c with w[k, c]; every stride-th is kept."""
    sh, sw = both_axes(stride)
    X = np.pad(x, ((0, 0), (0, 0), *pads))
    return np.array(
        [
            [sum(correlate2d(p, f, "valid") for p, f in zip(image, wk, strict=True))[::sh, ::sw] for wk in w]
            for image in X
        ]
    ) + b.reshape(-1, 1, 1)


@windows
def test_is_a_correlation(H, W, kernel, stride, padding, pads, N, C, K, kernels):
    x, w, b = rand(N, C, H, W), rand(K, C, *kernel), rand(K)
    equal(conv2d(x, w, b, stride, padding).data, correlation(x, w, b, stride, pads))
    equal(conv2d(x, w, None, stride, padding).data, correlation(x, w, 0 * b, stride, pads))


@windows
def test_gradients(H, W, kernel, stride, padding, pads, N, C, K, kernels):
    check_grads(lambda *t: conv2d(*t, stride, padding), rand(N, C, H, W), rand(K, C, *kernel), rand(K))


@windows
def test_equals_torch(H, W, kernel, stride, padding, pads, N, C, K, kernels):
    def theirs(torch, x, w, b):
        (top, bottom), (left, right) = pads
        return torch.nn.functional.conv2d(torch.nn.functional.pad(x, (left, right, top, bottom)), w, b, stride)

    equals_torch(lambda *t: conv2d(*t, stride, padding), theirs, rand(N, C, H, W), rand(K, C, *kernel), rand(K))


def test_without_bias_the_gradients_are_the_same():
    x, w = rand(2, 3, 5, 4), rand(4, 3, 2, 3)
    check_grads(lambda x, w: conv2d(x, w, padding="same"), x, w)


@pytest.mark.parametrize(
    ("x", "w", "b", "sentence"),
    [
        ((2, 3, 5, 4), (4, 3, 2), None, r"takes w of shape \(K, C, KH, KW\)"),
        ((3, 5, 4), (4, 3, 2, 2), None, r"takes x of shape \(N, C, H, W\), but got \(3, 5, 4\)"),
        ((2, 3, 5, 4), (4, 2, 2, 2), None, "the weights are for 2 channels, but x has 3"),
        ((2, 3, 5, 4), (4, 3, 2, 2), (3,), r"conv2d: b must have shape \(4,\), but has \(3,\)"),
        ((2, 3, 5, 4), (4, 3, 6, 2), None, "does not fit"),
    ],
)
def test_refuses(x, w, b, sentence):
    with pytest.raises(ValueError, match=sentence):
        conv2d(rand(*x), rand(*w), None if b is None else rand(*b))


def test_the_gradient_of_a_bias_keeps_its_digits_over_many_pixels():
    x, w, b = (rand(*shape).astype(np.float32) for shape in ((1, 2, 256, 256), (3, 2, 1, 1), (3,)))
    gy = np.moveaxis(np.random.default_rng(0).random((1, 256, 256, 3), np.float32), 3, 1)  # channels last, positive
    b = Tensor(b, requires_grad=True)
    conv2d(x, w, b).backward(gy)
    np.testing.assert_allclose(b.grad, gy.sum(axis=(0, 2, 3), dtype=np.float64), rtol=1e-6)
