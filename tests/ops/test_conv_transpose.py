"""conv_transpose2d against stamping kernels one by one, PyTorch, and conv2d, whose transpose it is."""

import numpy as np
import pytest
from arrays import both_axes, equal, equals_torch, rand

from tinyseg import check_grads
from tinyseg.ops import conv2d, conv_transpose2d

CASES = [  # N, C, K, H, W, kernel, stride, padding, output_padding
    (2, 3, 4, 5, 4, (2, 3), 1, 0, 0),
    (1, 2, 1, 3, 5, (2, 2), 2, 0, 0),
    (2, 1, 3, 4, 3, (3, 4), (2, 3), (1, 2), (1, 0)),
    (1, 3, 2, 2, 3, (1, 2), (3, 4), 0, (2, 3)),  # stride > kernel: pixels that nothing stamps
    (3, 2, 2, 1, 4, (5, 3), (1, 2), (2, 1), (0, 1)),
]
cases = pytest.mark.parametrize(("N", "C", "K", "H", "W", "kernel", "stride", "padding", "extra"), CASES)


@cases
def test_stamps_kernels(N, C, K, H, W, kernel, stride, padding, extra, kernels):
    x, w, b = rand(N, C, H, W), rand(C, K, *kernel), rand(K)
    (KH, KW), (sh, sw), (ph, pw), (eh, ew) = kernel, both_axes(stride), both_axes(padding), both_axes(extra)
    Y = np.zeros((N, K, (H - 1) * sh + KH + eh, (W - 1) * sw + KW + ew))
    for n, c, i, j in np.ndindex(N, C, H, W):
        Y[n, :, i * sh : i * sh + KH, j * sw : j * sw + KW] += x[n, c, i, j] * w[c]
    expected = Y[:, :, ph : Y.shape[2] - ph, pw : Y.shape[3] - pw] + b.reshape(-1, 1, 1)
    equal(conv_transpose2d(x, w, b, stride, padding, extra).data, expected)


@cases
def test_gradients(N, C, K, H, W, kernel, stride, padding, extra, kernels):
    x, w, b = rand(N, C, H, W), rand(C, K, *kernel), rand(K)
    check_grads(lambda *t: conv_transpose2d(*t, stride, padding, extra), x, w, b)
    check_grads(lambda x, w: conv_transpose2d(x, w, None, stride, padding, extra), x, w)


@cases
def test_equals_torch(N, C, K, H, W, kernel, stride, padding, extra, kernels):
    equals_torch(
        lambda *t: conv_transpose2d(*t, stride, padding, extra),
        lambda torch, *t: torch.nn.functional.conv_transpose2d(*t, stride, padding, extra),
        *(rand(N, C, H, W), rand(C, K, *kernel), rand(K)),
    )


def test_is_the_transpose_of_conv2d():
    x, w = rand(2, 3, 7, 9), rand(4, 3, 3, 2)
    y = conv2d(x, w, stride=(2, 3), padding=(1, 0)).data
    u = rand(*y.shape)
    back = conv_transpose2d(u, w, stride=(2, 3), padding=(1, 0), output_padding=(0, 1)).data
    assert back.shape == x.shape
    assert (u * y).sum() == pytest.approx((back * x).sum(), rel=1e-12)


@pytest.mark.parametrize(
    ("x", "w", "b", "arguments", "sentence"),
    [
        ((1, 3, 5, 4), (3, 2, 2), None, (), r"takes w of shape \(C, K, KH, KW\)"),
        ((3, 5, 4), (3, 2, 2, 2), None, (), r"takes x of shape \(N, C, H, W\)"),
        ((1, 3, 5, 4), (2, 3, 2, 2), None, (), "the weights are for 2 channels, but x has 3"),
        ((1, 3, 5, 4), (3, 2, 2, 2), (3,), (), r"conv_transpose2d: b must have shape \(2,\), but has \(3,\)"),
        ((1, 3, 5, 4), (3, 2, 2, 2), None, (2, 0, 2), "output_padding must be below the stride"),
        ((1, 3, 5, 4), (3, 2, 2, 2), None, (2, 0, -1), "output_padding must be below the stride"),
        ((1, 3, 1, 1), (3, 2, 2, 2), None, (1, 1), "do not fit"),
        ((1, 3, 5, 4), (3, 2, 2, 2), None, (0,), "stride must be at least 1"),
        ((1, 3, 5, 4), (3, 2, 2, 2), None, (1, -1), "padding must not be negative"),
        ((1, 3, 5, 4), (3, 2, 2, 2), None, (1, "same"), "padding must be an integer or a pair"),
    ],
)
def test_refuses(x, w, b, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        conv_transpose2d(rand(*x), rand(*w), None if b is None else rand(*b), *arguments)
