"""depthwise_conv2d against SciPy's correlate2d, PyTorch's grouped convolution, and numba against the maths."""

import numpy as np
import pytest
from arrays import EPS32, WINDOW_CASES, WINDOW_NAMES, equal, equals_torch, rand
from scipy.signal import correlate2d

from tinyseg import check_grads
from tinyseg.ops import depthwise_conv as maths
from tinyseg.ops import depthwise_conv2d
from tinyseg.ops.window import resolve

windows = pytest.mark.parametrize(WINDOW_NAMES, WINDOW_CASES)


@windows
def test_is_a_correlation(H, W, kernel, stride, padding, pads, N, C, K, kernels):
    x, w, b = rand(N, C, H, W), rand(C, *kernel), rand(C)
    sh, sw = (stride, stride) if isinstance(stride, int) else stride
    X = np.pad(x, ((0, 0), (0, 0), *pads))
    expected = [
        [correlate2d(plane, f, "valid")[::sh, ::sw] + bias for plane, f, bias in zip(image, w, b, strict=True)]
        for image in X
    ]
    equal(depthwise_conv2d(x, w, b, stride, padding).data, np.array(expected))


@windows
def test_gradients(H, W, kernel, stride, padding, pads, N, C, K, kernels):
    check_grads(lambda *t: depthwise_conv2d(*t, stride, padding), rand(N, C, H, W), rand(C, *kernel), rand(C))


@windows
def test_equals_torch(H, W, kernel, stride, padding, pads, N, C, K, kernels):
    def theirs(torch, x, w, b):
        (top, bottom), (left, right) = pads
        X = torch.nn.functional.pad(x, (left, right, top, bottom))
        return torch.nn.functional.conv2d(X, w[:, None], b, stride, groups=C)

    equals_torch(lambda *t: depthwise_conv2d(*t, stride, padding), theirs, rand(N, C, H, W), rand(C, *kernel), rand(C))


@windows
def test_numba_in_float32_is_within_the_rounding_of_its_sums(H, W, kernel, stride, padding, pads, N, C, K):
    pytest.importorskip("numba")
    from tinyseg.fast.cpu import depthwise_conv as fast

    stride, pads, out = resolve((N, C, H, W), kernel, stride, padding)
    x, w, gy = (a.astype(np.float32) for a in (rand(N, C, H, W), rand(C, *kernel), rand(N, C, *out)))
    taps, outputs = kernel[0] * kernel[1], N * out[0] * out[1]
    for name, args, terms in (
        ("forward", (x, w, stride, pads, out), taps),
        ("grad_x", (gy, w, x.shape, stride, pads), taps),
        ("grad_w", (x, gy, w.shape, stride, pads), outputs),
    ):
        doubles = [a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in args]
        sizes = [abs(a) if isinstance(a, np.ndarray) else a for a in doubles]
        found = getattr(fast, name)(*args)
        assert found.dtype == np.float32
        # A sum of n products is off by at most n roundings (a product and an addition each) of the sum of their sizes.
        bound = (terms + 1) * EPS32 * getattr(maths, name)(*sizes)
        assert (abs(found - getattr(maths, name)(*doubles)) <= bound).all(), name


@pytest.mark.parametrize(
    ("x", "w", "b", "sentence"),
    [
        ((2, 3, 5, 4), (3, 1, 2, 2), None, r"takes w of shape \(C, KH, KW\)"),
        ((3, 5, 4), (3, 2, 2), None, r"takes x of shape \(N, C, H, W\)"),
        ((2, 3, 5, 4), (2, 2, 2), None, "the weights are for 2 channels, but x has 3"),
        ((2, 3, 5, 4), (3, 2, 2), (2,), r"depthwise_conv2d: b must have shape \(3,\), but has \(2,\)"),
        ((2, 3, 5, 4), (3, 2, 6), None, "does not fit"),
    ],
)
def test_refuses(x, w, b, sentence):
    with pytest.raises(ValueError, match=sentence):
        depthwise_conv2d(rand(*x), rand(*w), None if b is None else rand(*b))
