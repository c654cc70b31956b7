"""Depthwise convolution with each channel as one line of memory gives what the maths gives."""

import importlib

import numpy as np
import pytest
from arrays import rand

from tinyseg import ops
from tinyseg.fast.cpu import by_channels, depthwise_lines
from tinyseg.ops.window import resolve

maths = importlib.import_module("tinyseg.ops.depthwise_conv")

# shape of x, kernel, pads, dilation
CASES = {
    "as in the networks": ((1, 4, 8, 8), (3, 3), ((1, 1), (1, 1)), (1, 1)),
    "uneven": ((2, 3, 9, 6), (3, 2), ((1, 2), (0, 1)), (1, 1)),
    "no padding": ((2, 3, 7, 5), (2, 3), ((0, 0), (0, 0)), (1, 1)),
    "dilated": ((2, 3, 9, 11), (3, 3), ((2, 2), (3, 3)), (2, 3)),
    "wide padding": ((1, 2, 3, 3), (3, 3), ((4, 5), (6, 3)), (1, 1)),
    "one tap": ((2, 3, 4, 5), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "a kernel as large as the image": ((1, 2, 4, 3), (4, 3), ((0, 0), (0, 0)), (1, 1)),
    "long rows": ((1, 2, 3, 1500), (3, 3), ((1, 1), (1, 1)), (1, 1)),
    "no images": ((0, 2, 4, 4), (3, 3), ((1, 1), (1, 1)), (1, 1)),
}


def arguments(case):
    shape, kernel, pads, dilation = CASES[case]
    _, _, out = resolve(shape, kernel, 1, pads, dilation)
    x, w, gy = rand(*shape), rand(shape[1], *kernel), rand(*shape[:2], *out)
    return {
        "forward": (x, w, (1, 1), pads, out, dilation),
        "grad_w": (x, gy, w.shape, (1, 1), pads, dilation),
        "grad_x": (gy, w, x.shape, (1, 1), pads, dilation),
    }


@pytest.mark.parametrize("name", maths.BY_CHANNEL)
@pytest.mark.parametrize("case", CASES)
def test_lines_give_what_the_maths_gives(case, name):
    args = arguments(case)[name]
    found, expected = (getattr(module, name)(*args) for module in (depthwise_lines, maths))
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-12)


def test_a_long_sum_of_float32_loses_no_digits():
    x, gy = (np.full((1, 2, 512, 512), value, np.float32) for value in (0.1, 0.7))
    found = depthwise_lines.grad_w(x, gy, (2, 3, 3), (1, 1), ((1, 1), (1, 1)))
    exact = 512**2 * np.float64(np.float32(0.1)) * np.float32(0.7)
    np.testing.assert_allclose(found[:, 1, 1], exact, rtol=5e-7)


def test_other_strides_are_left_to_the_maths(monkeypatch):
    monkeypatch.setattr(by_channels, "BLOCK", 1)
    x, w = rand(1, 3, 8, 8), rand(3, 3, 3)
    assert depthwise_lines.forward(x, w, (2, 2), ((1, 1), (1, 1)), (4, 4)) is NotImplemented
    found = ops.depthwise_conv2d(x, w, stride=2, padding=1).data  # float64, for which there is no numba kernel
    np.testing.assert_allclose(found, maths.forward(x, w, (2, 2), ((1, 1), (1, 1)), (4, 4)), atol=1e-12)


def test_the_dispatcher_takes_lines_where_numba_computes_nothing(monkeypatch):
    seen = []
    function = depthwise_lines.forward
    monkeypatch.setattr(depthwise_lines, "forward", lambda *args: (seen.append(args), function(*args))[1])
    by_channels.in_blocks.cache_clear()
    ops.depthwise_conv2d(rand(1, 3, 8, 8), rand(3, 3, 3), padding=1)
    assert len(seen) == 1
