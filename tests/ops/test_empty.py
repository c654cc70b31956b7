"""Empty batches, images and channels: every op of the catalogue gives an empty result, or a sentence."""

import numpy as np
import pytest
from catalogue import ENTRIES

from tinyseg import Tensor, ops


def emptied(a, axis):
    return a.take([], axis=axis) if a.ndim == 4 else a


OTHERS = [e for e in ENTRIES if not e[0].startswith("batch_norm")]  # whose own tests ask this


@pytest.mark.parametrize("entry", OTHERS, ids=[e[0] for e in OTHERS])
@pytest.mark.parametrize("axis", [2, 3], ids=["height", "width"])
def test_an_empty_image_gives_a_result_without_nan_or_a_sentence(entry, axis, kernels):
    name, f, *arrays = entry
    xs = [Tensor(emptied(a.astype(np.float32), axis), requires_grad=True) for a in arrays]
    try:
        y = f(*xs)
        y.backward(np.ones(y.shape, y.dtype))
    except (ValueError, TypeError) as error:
        assert str(error).endswith("."), error
    else:
        assert not np.isnan(y.data).any() and all(x.grad.shape == x.shape for x in xs)


@pytest.mark.parametrize("shape", [(0, 4, 6, 5), (2, 0, 6, 5), (0, 0, 6, 5)], ids=str)
def test_convolutions_and_losses_of_no_image_or_no_channel(shape, kernels):
    N, C, H, W = shape
    x, one, mask = np.zeros(shape, np.float32), np.ones, np.zeros(shape, bool)
    calls = [
        (lambda x, w, b: ops.conv2d(x, w, b, 1, "same"), one((3, C, 3, 3)), one(3)),
        (lambda x, w, b: ops.conv_transpose2d(x, w, b, 2), one((C, 3, 2, 2)), one(3)),
        (lambda x, w, b: ops.depthwise_conv2d(x, w, b, 1, "same"), one((C, 3, 3)), one(C)),
        (ops.pointwise_conv2d, one((3, C)), one(3)),
        (lambda x, w, b: ops.fused_conv2d(x, w, b, 1, "same", 2, "relu"), one((3, C, 2, 2)), one(3)),
        (lambda x, d, w, b: ops.separable_conv2d(x, d, w, b, 1, "same"), one((C, 3, 3)), one((3, C)), one(3)),
        (lambda x, w, b: ops.group_norm(x, 2, w, b), one(C), one(C)),
        (lambda x: ops.binary_cross_entropy_with_logits(x, mask, [1.0] * C),),
        (lambda x: ops.soft_dice_loss(x, mask),),
        (lambda x: ops.dice_bce_with_logits(x, mask),),
    ]
    if C:
        calls += [(lambda x: ops.cross_entropy(x, np.zeros((N, H, W), int)),), (ops.softmax,), (ops.log_softmax,)]
    for f, *parameters in calls:
        xs = [Tensor(a.astype(np.float32), requires_grad=True) for a in (x, *parameters)]
        y = f(*xs)
        y.backward(np.ones(y.shape, np.float32))
        assert not np.isnan(y.data).any()
        for t in xs:
            assert t.grad.shape == t.shape and not np.isnan(t.grad).any()


def test_a_shape_of_minus_one_for_an_empty_array_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"reshape: 0 numbers of shape \(0, 4\) cannot take the shape \(0, -1\)"):
        ops.reshape(np.zeros((0, 4)), 0, -1)
