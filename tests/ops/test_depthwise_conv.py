"""depthwise_conv2d against SciPy's correlate2d, PyTorch's grouped convolution, and numba against the maths."""

import numpy as np
import pytest
from arrays import EPS32, SIZES, WINDOWS, both_axes, equal, equals_torch, rand
from scipy.signal import correlate2d

from tinyseg import check_grads
from tinyseg.ops import depthwise_conv as maths
from tinyseg.ops import depthwise_conv2d
from tinyseg.ops.window import resolve

# N, C, H, W, kernel, dilation, stride, padding; then what that padding means, worked out by hand.
DILATED = [
    (2, 3, 9, 8, (3, 3), 2, 1, 2, ((2, 2), (2, 2))),
    (1, 2, 7, 10, (3, 2), (2, 3), 1, "same", ((2, 2), (1, 2))),  # covers 5 x 4: the odd column to the right
    (2, 4, 11, 9, (2, 3), (3, 2), (2, 1), "valid", ((0, 0), (0, 0))),
    (1, 32, 10, 13, (3, 3), (4, 6), (2, 4), "same", ((3, 4), (6, 6))),  # stride and dilation share a factor
    (3, 1, 9, 11, (2, 2), (3, 1), (3, 4), 0, ((0, 0), (0, 0))),  # … are equal; steps over pixels that no window sees
    (2, 3, 5, 3, (3, 3), (2, 1), 1, 0, ((0, 0), (0, 0))),  # one window
    (1, 4, 4, 5, (3, 3), 7, 1, "same", ((7, 7), (7, 7))),  # the middle tap alone meets the image
    (2, 2, 6, 7, (1, 3), (5, 2), 1, (0, 1), ((0, 0), (1, 1))),
    (1, 3, 5, 4, (3, 2), (1, 2), (1, 2), ((2, 0), (1, 3)), ((2, 0), (1, 3))),
    (2, 1, 2, 3, (4, 2), (1, 3), 1, ((1, 2), (3, 0)), ((1, 2), (3, 0))),  # covers more than the image
    (1, 64, 8, 7, (2, 2), (3, 2), 1, ((5, 6), (4, 5)), ((5, 6), (4, 5))),  # more border than it covers
    (2, 17, 19, 5, (3, 3), (3, 2), (5, 3), "same", ((1, 2), (1, 2))),
]
UNDILATED = [
    (*SIZES[i % len(SIZES)][:2], H, W, kernel, 1, *options) for i, (H, W, kernel, *options) in enumerate(WINDOWS)
]
windows = pytest.mark.parametrize("N, C, H, W, kernel, dilation, stride, padding, pads", UNDILATED + DILATED, ids=str)


@windows
def test_is_a_correlation_with_zeros_between_the_taps(N, C, H, W, kernel, dilation, stride, padding, pads, kernels):
    x, w, b, (dh, dw), (sh, sw) = rand(N, C, H, W), rand(C, *kernel), rand(C), both_axes(dilation), both_axes(stride)
    stretched = np.zeros((C, (kernel[0] - 1) * dh + 1, (kernel[1] - 1) * dw + 1))
    stretched[:, ::dh, ::dw] = w
    expected = [
        [correlate2d(plane, f, "valid")[::sh, ::sw] + bias for plane, f, bias in zip(image, stretched, b, strict=True)]
        for image in np.pad(x, ((0, 0), (0, 0), *pads))
    ]
    equal(depthwise_conv2d(x, w, b, stride, padding, dilation).data, np.array(expected))


@windows
def test_gradients(N, C, H, W, kernel, dilation, stride, padding, pads, kernels):
    arrays = rand(N, C, H, W), rand(C, *kernel), rand(C)
    check_grads(lambda *t: depthwise_conv2d(*t, stride, padding, dilation), *arrays)


@windows
def test_equals_torch(N, C, H, W, kernel, dilation, stride, padding, pads, kernels):
    def theirs(torch, x, w, b):
        (top, bottom), (left, right) = pads
        X = torch.nn.functional.pad(x, (left, right, top, bottom))
        return torch.nn.functional.conv2d(X, w[:, None], b, stride, dilation=dilation, groups=C)

    arrays = rand(N, C, H, W), rand(C, *kernel), rand(C)
    equals_torch(lambda *t: depthwise_conv2d(*t, stride, padding, dilation), theirs, *arrays)


@windows
def test_numba_in_float32_is_within_the_rounding_of_its_sums(N, C, H, W, kernel, dilation, stride, padding, pads):
    pytest.importorskip("numba")
    fast = pytest.importorskip("tinyseg.fast.cpu.depthwise_conv")

    dilation = both_axes(dilation)
    stride, pads, out = resolve((N, C, H, W), kernel, stride, padding, dilation)
    x, w, gy = (a.astype(np.float32) for a in (rand(N, C, H, W), rand(C, *kernel), rand(N, C, *out)))
    taps, outputs = kernel[0] * kernel[1], N * out[0] * out[1]
    for name, args, terms in (
        ("forward", (x, w, stride, pads, out, dilation), taps),
        ("grad_x", (gy, w, x.shape, stride, pads, dilation), taps),
        ("grad_w", (x, gy, w.shape, stride, pads, dilation), outputs),
    ):
        doubles = [a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in args]
        sizes = [abs(a) if isinstance(a, np.ndarray) else a for a in doubles]
        found = getattr(fast, name)(*args)
        assert found.dtype == np.float32
        # A sum of n products is off by at most n roundings (a product and an addition each) of the sum of their sizes.
        bound = (terms + 1) * EPS32 * getattr(maths, name)(*sizes)
        assert (abs(found - getattr(maths, name)(*doubles)) <= bound).all(), name


def test_rows_and_columns_of_one_phase_are_an_undilated_convolution(kernels):
    """The dilated kernels rest on this: every 2nd row and 3rd column see nothing of the others."""
    x, w = rand(1, 2, 11, 14), rand(2, 3, 2)
    y = depthwise_conv2d(x, w, dilation=(2, 3)).data
    for a in range(2):
        for b in range(3):
            equal(y[:, :, a::2, b::3], depthwise_conv2d(x[:, :, a::2, b::3], w).data)


@pytest.mark.parametrize(
    ("x", "w", "b", "dilation", "sentence"),
    [
        ((2, 3, 5, 4), (3, 1, 2, 2), None, 1, r"takes w of shape \(C, KH, KW\)"),
        ((3, 5, 4), (3, 2, 2), None, 1, r"takes x of shape \(N, C, H, W\)"),
        ((2, 3, 5, 4), (2, 2, 2), None, 1, "the weights are for 2 channels, but x has 3"),
        ((2, 3, 5, 4), (3, 2, 2), (2,), 1, r"depthwise_conv2d: b must have shape \(3,\), but has \(2,\)"),
        ((2, 3, 5, 4), (3, 2, 6), None, 1, r"kernel of \(2, 6\) does not fit"),
        ((2, 3, 5, 4), (3, 2, 2), None, 0, r"dilation must be at least 1, but are .* and \(0, 0\)"),
        ((2, 3, 5, 4), (3, 2, 2), None, 1.5, "dilation must be an integer or a pair"),
        ((2, 3, 5, 4), (3, 3, 2), None, (3, 1), r"with dilation \(3, 1\), which covers \(7, 2\), does not fit"),
    ],
)
def test_refuses(x, w, b, dilation, sentence):
    with pytest.raises(ValueError, match=sentence):
        depthwise_conv2d(rand(*x), rand(*w), None if b is None else rand(*b), dilation=dilation)
