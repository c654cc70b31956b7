"""separable_conv2d: what it refuses, and the layers of SD-UNet. The rest is in test_joined.py."""

import numpy as np
import pytest
from arrays import rand
from joined_convs import LEVELS, SEPARABLE, compare

from tinyseg.ops import separable_conv2d

FITTING = {"shapes": [(2, 3, 5, 4)], "wd": (3, 2, 2), "wp": (4, 3), "b": None}


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        ({"wd": (3, 1, 2, 2)}, {}, r"takes wd of shape \(C, KH, KW\) and wp of shape \(K, C\), but got \(3, 1, 2, 2\)"),
        ({"wp": (4, 3, 1, 1)}, {}, r"takes wd of shape .* and \(4, 3, 1, 1\)"),
        ({"wp": (4, 2)}, {}, r"takes wd of shape .* but got \(3, 2, 2\) and \(4, 2\)"),
        ({"wd": (2, 2, 2), "wp": (4, 2)}, {}, "separable_conv2d: the weights are for 2 channels, but the input has 3"),
        ({"shapes": [(2, 3, 5, 4)] * 2}, {}, "the weights are for 3 channels, but the input has 6"),
        ({"shapes": [(2, 1, 5, 4), (2, 2, 5, 5)]}, {}, "inputs that are joined may differ only in their channels"),
        ({"shapes": [(2, 1, 5, 4), (1, 2, 5, 4)]}, {}, "inputs that are joined may differ only in their channels"),
        ({"shapes": [(3, 5, 4)]}, {}, r"takes x of shape \(N, C, H, W\), but got \(3, 5, 4\)"),
        ({"b": (3,)}, {}, r"separable_conv2d: b must have shape \(4,\), but has \(3,\)"),
        ({"wd": (3, 6, 2)}, {}, "does not fit"),
        ({}, {"activation": "tanh"}, "separable_conv2d: activation must be None or 'relu', but is 'tanh'"),
        ({}, {"upsample": 0}, "whole number of at least 1, but is 0"),
        ({}, {"upsample": 1.5}, "whole number of at least 1, but is 1.5"),
    ],
)
def test_refuses(change, options, sentence):
    given = FITTING | change
    for dtype in (np.float64, np.float32):
        xs, wd, wp = [rand(*s).astype(dtype) for s in given["shapes"]], rand(*given["wd"]), rand(*given["wp"])
        b = None if given["b"] is None else rand(*given["b"]).astype(dtype)
        with pytest.raises(ValueError, match=sentence):
            separable_conv2d(xs, wd.astype(dtype), wp.astype(dtype), b, **options)


SDUNET = [  # channels of the inputs, K, level of the input, kernel, factor
    *[((64,), 128, 1, 3, 1), ((128,), 128, 1, 3, 1), ((128,), 256, 2, 3, 1), ((256,), 256, 2, 3, 1)],
    *[((256,), 512, 3, 3, 1), ((512,), 512, 3, 3, 1), ((512,), 1024, 4, 3, 1), ((1024,), 1024, 4, 3, 1)],
    *[((1024,), 512, 4, 2, 2), ((512, 512), 512, 3, 3, 1), ((512,), 256, 3, 2, 2), ((256, 256), 256, 2, 3, 1)],
    *[((256,), 128, 2, 2, 2), ((128, 128), 128, 1, 3, 1), ((128,), 64, 1, 2, 2), ((64, 64), 64, 0, 3, 1)],
    *[((64,), 64, 0, 3, 1), ((64,), 2, 0, 3, 1)],
]


@pytest.mark.parametrize("layer", SDUNET, ids=str)
@pytest.mark.parametrize("N", [1, 3])
def test_every_layer_of_sdunet(layer, N):
    channels, K, level, kernel, factor = layer
    compare(SEPARABLE, (channels, K, N, *LEVELS[level], (kernel, kernel), 1, "same", factor), relu=True)
