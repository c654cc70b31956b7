"""Kernel, stride and padding arguments, and the loop over the taps."""

import math

import numpy as np
import pytest
from arrays import WINDOWS, rand

from tinyseg.ops.window import check_nchw, crop2d, pad2d, pair, resolve, taps


def test_pair():
    assert pair(3, "kernel") == (3, 3)
    assert pair((2, 3), "kernel") == pair([2, 3], "kernel") == (2, 3)
    assert pair(np.int64(3), "kernel") == (3, 3)
    assert all(type(n) is int for n in pair((np.int64(3), np.int32(2)), "kernel"))


@pytest.mark.parametrize("value", [2.0, "3", "same", (1, 2, 3), (1,), (1, 2.5), None, (1, "2")])
def test_pair_refuses(value):
    with pytest.raises(ValueError, match="stride must be an integer or a pair"):
        pair(value, "stride")


@pytest.mark.parametrize(("H", "W", "kernel", "stride", "padding", "pads"), WINDOWS)
def test_resolve(H, W, kernel, stride, padding, pads):
    (sh, sw), found, (OH, OW) = resolve((2, 3, H, W), kernel, stride, padding)
    assert found == pads
    # The first and the last window lie inside the padded input, and one more would not.
    for n, k, s, sides, out in ((H, kernel[0], sh, pads[0], OH), (W, kernel[1], sw, pads[1], OW)):
        assert (out - 1) * s + k <= n + sum(sides) < out * s + k
    if padding == "same":
        assert (math.ceil(H / sh), math.ceil(W / sw)) == (OH, OW)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "sentence"),
    [
        ((3, 3), 0, 0, "must be at least 1"),
        ((3, 3), (1, -2), 0, "must be at least 1"),
        ((0, 3), 1, 0, "must be at least 1"),
        ((3, 3), 1, "full", "must be 'same', 'valid' or numbers, but is 'full'"),
        ((3, 3), 1, -1, "must not be negative"),
        ((3, 3), 1, ((0, 1), (-1, 0)), "must not be negative"),
        ((3, 3), 1, ((0, 1), (1, 0), (1, 1)), r"by sides must be \(\(top, bottom\), \(left, right\)\)"),
        ((3, 3), 1, (1, 2, 3), "padding must be an integer or a pair"),
        ((3, 3), 1, ((1, 2, 3), (1, 1)), "each side of padding must be an integer or a pair"),
        ((3, 3), 1.5, 0, "stride must be an integer or a pair"),
        ((7, 3), 1, 0, r"A kernel of \(7, 3\) does not fit into an input of \(6, 5\)"),
    ],
)
def test_resolve_refuses(kernel, stride, padding, sentence):
    with pytest.raises(ValueError, match=sentence):
        resolve((1, 1, 6, 5), kernel, stride, padding)


def test_pad_and_crop_undo_each_other():
    x, pads = rand(2, 3, 4, 5), ((1, 2), (0, 3))
    X = pad2d(x, pads, value=-7)
    np.testing.assert_array_equal(X, np.pad(x, ((0, 0), (0, 0), *pads), constant_values=-7))
    np.testing.assert_array_equal(crop2d(X, pads), x)
    assert pad2d(x, ((0, 0), (0, 0))) is x


def test_taps_are_writable_views_of_what_each_window_sees():
    X = rand(1, 2, 6, 8)
    for u, v, view in taps(X, (3, 2), (2, 3), (2, 3)):
        assert view.base is X and view.shape == (1, 2, 2, 3)
        for i in range(2):
            for j in range(3):
                np.testing.assert_array_equal(view[..., i, j], X[..., i * 2 + u, j * 3 + v])


def test_check_nchw():
    check_nchw("relu", rand(1, 2, 3, 4), channels=2)
    with pytest.raises(ValueError, match=r"takes x of shape \(N, C, H, W\), but got \(3, 4\)"):
        check_nchw("relu", rand(3, 4))
    with pytest.raises(ValueError, match="the weights are for 5 channels, but x has 2"):
        check_nchw("relu", rand(1, 2, 3, 4), channels=5)
