"""pointwise_conv2d against a loop over the pixels and PyTorch's 1x1 convolution, and numba against the maths."""

import numpy as np
import pytest
from arrays import equal, equals_torch, layouts, rand, roundings

from tinyseg import check_grads
from tinyseg.ops import conv2d, depthwise_conv2d, pointwise_conv2d
from tinyseg.ops import pointwise_conv as maths

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


# ----- numba in float32 --------------------------------------------------------------------------
LARGER = [
    *[(2, 3, 4, 5, 7), (1, 1, 3, 2, 5), (3, 4, 1, 1, 6), (1, 1, 1, 1, 1), (3, 33, 17, 7, 11), (1, 16, 64, 13, 17)],
    *[(1, 64, 2, 61, 70), (2, 37, 3, 9, 11), (2, 5, 100, 3, 131), (1, 300, 40, 9, 21), (1, 1024, 31, 3, 3)],
]


@pytest.mark.parametrize(("N", "C", "K", "H", "W"), LARGER)
@layouts
def test_numba_in_float32_is_within_the_rounding_of_its_sums(N, C, K, H, W, layout):
    pytest.importorskip("numba")
    fast = pytest.importorskip("tinyseg.fast.cpu.pointwise_conv")

    x, gy = (layout(a.astype(np.float32)) for a in (rand(N, C, H, W), rand(N, K, H, W)))
    w = rand(K, C).astype(np.float32)
    for name, args, terms in (
        ("forward", (x, w), C),
        ("forward", (x, np.asfortranarray(w)), C),
        ("grad_x", (gy, w), K),
        ("grad_w", (x, gy), N * H * W),
    ):
        before = [a.copy() for a in args]
        doubles = [a.astype(np.float64) for a in args]
        expected, sizes = getattr(maths, name)(*doubles), getattr(maths, name)(*map(abs, doubles))
        found = getattr(fast, name)(*args)
        assert found.dtype == np.float32 and found.shape == expected.shape
        assert (abs(found - expected) <= roundings(terms) * sizes).all(), name
        for a, old in zip(args, before, strict=True):
            np.testing.assert_array_equal(a, old)


def test_nan_stays_in_its_pixel():
    pytest.importorskip("numba")
    x = rand(2, 17, 9, 11).astype(np.float32)
    x[1, 3, 4, 5] = np.nan
    seen = np.isnan(pointwise_conv2d(x, rand(40, 17).astype(np.float32)).data)
    assert seen[1, :, 4, 5].all() and seen.sum() == 40


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
