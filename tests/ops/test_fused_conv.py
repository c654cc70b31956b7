"""fused_conv2d: what it refuses, the layers of U-Net, gradients that nobody asks for. The rest is in test_joined.py."""

import numpy as np
import pytest
from arrays import rand
from joined_convs import FUSED, LEVELS, compare, fast, maths, numbers, parts, some

from tinyseg import using
from tinyseg.ops import fused_conv2d


@pytest.mark.parametrize(
    ("shapes", "w", "b", "options", "sentence"),
    [
        ([(2, 3, 5, 4)], (4, 3, 2), None, {}, r"fused_conv2d takes w of shape \(K, C, KH, KW\), but got \(4, 3, 2\)"),
        ([(2, 3, 5, 4)], (4, 2, 2, 2), None, {}, "fused_conv2d: the weights are for 2 channels, but the input has 3"),
        ([(2, 3, 5, 4)] * 2, (4, 3, 2, 2), None, {}, "the weights are for 3 channels, but the input has 6"),
        ([(2, 3, 5, 4), (2, 3, 5, 5)], (4, 6, 2, 2), None, {}, "that are joined may differ only in their channels"),
        ([(2, 3, 5, 4), (1, 3, 5, 4)], (4, 6, 2, 2), None, {}, "that are joined may differ only in their channels"),
        ([(3, 5, 4)], (4, 3, 2, 2), None, {}, r"takes x of shape \(N, C, H, W\), but got \(3, 5, 4\)"),
        ([(2, 3, 5, 4)], (4, 3, 2, 2), (3,), {}, r"fused_conv2d: b must have shape \(4,\), but has \(3,\)"),
        ([(2, 3, 5, 4)], (4, 3, 6, 2), None, {}, "does not fit"),
        ([(2, 3, 5, 4)], (4, 3, 2, 2), None, {"activation": "tanh"}, "must be None or 'relu', but is 'tanh'"),
        ([(2, 3, 5, 4)], (4, 3, 2, 2), None, {"upsample": 0}, "whole number of at least 1, but is 0"),
        ([(2, 3, 5, 4)], (4, 3, 2, 2), None, {"upsample": 1.5}, "whole number of at least 1, but is 1.5"),
        ([(2, 3, 5, 4)], (4, 3, 2, 2), None, {"upsample": (2, 2)}, r"whole number of at least 1, but is \(2, 2\)"),
    ],
)
def test_refuses(shapes, w, b, options, sentence):
    for dtype in (np.float64, np.float32):
        xs, *others = [rand(*s).astype(dtype) for s in shapes], rand(*w).astype(dtype)
        with pytest.raises(ValueError, match=sentence):
            fused_conv2d(xs, *others, None if b is None else rand(*b).astype(dtype), **options)


UNET = [  # channels of the inputs, K, level of the input, kernel, factor
    *[((64,), 64, 0, 3, 1), ((64,), 128, 1, 3, 1), ((128,), 128, 1, 3, 1), ((128,), 256, 2, 3, 1)],
    *[((256,), 256, 2, 3, 1), ((256,), 512, 3, 3, 1), ((512,), 512, 3, 3, 1), ((512,), 1024, 4, 3, 1)],
    *[((1024,), 1024, 4, 3, 1), ((1024,), 512, 4, 2, 2), ((512, 512), 512, 3, 3, 1), ((512,), 256, 3, 2, 2)],
    *[((256, 256), 256, 2, 3, 1), ((256,), 128, 2, 2, 2), ((128, 128), 128, 1, 3, 1), ((128,), 64, 1, 2, 2)],
    *[((64, 64), 64, 0, 3, 1), ((1,), 64, 0, 3, 1), ((64,), 2, 0, 3, 1)],
]
unet = pytest.mark.parametrize(
    "layer",
    [
        pytest.param(layer, marks=pytest.mark.slow if sum(layer[0]) * layer[1] >= 1 << 18 else (), id=str(layer))
        for layer in UNET
    ],
)
# Upsampled convolutions as a convolution for each phase, and with the pixels repeated.
ways = pytest.mark.parametrize("many", [0, 1 << 60], ids=["phases", "direct"])


def layer_case(channels, K, level, kernel, factor):
    return channels, K, 1, *LEVELS[level], (kernel, kernel), 1, "same", factor


@unet
@ways
def test_every_layer_of_unet(layer, many, monkeypatch):
    monkeypatch.setattr(fast(FUSED), "MIN_PIXELS", many)
    with using(winograd=False):
        compare(FUSED, layer_case(*layer), relu=True)


@unet
def test_every_layer_of_unet_by_winograds_method(layer, monkeypatch):
    """The tolerance is measured, see test_winograd.py."""
    winograd = pytest.importorskip("tinyseg.fast.cpu.winograd")

    def anywhere(w_shape, stride, y, spread):
        return w_shape[2:] == (3, 3) and stride == spread == (1, 1)

    monkeypatch.setattr(winograd, "is_faster", anywhere)
    compare(FUSED, layer_case(*layer), relu=True, tolerance=5e-5)


@some
@ways
def test_gradients_of_the_inputs_are_left_out_if_nobody_asks(case, many, monkeypatch):
    monkeypatch.setattr(fast(FUSED), "MIN_PIXELS", many)
    *_, factor = case
    stride, pads, out = numbers(case)
    w, b, *xs, gy = parts(FUSED, case, np.float32)
    for k in (fast(FUSED), maths(FUSED)):
        y = k.forward(xs, w, b, stride, pads, out, factor, True)
        gw, gb, gxs = k.backward(gy, xs, w, y, False, stride, pads, factor, True)
        expected = k.backward(gy, xs, w, y, True, stride, pads, factor, True)
        np.testing.assert_array_equal(gw, expected[0])
        np.testing.assert_array_equal(gb, expected[1])
        assert gxs == (None,) * len(xs)
