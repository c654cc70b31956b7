"""Losses that networks of several classes, and of classes of very different sizes, are trained with.

Each function returns a ``loss(logits, y)``, as `tinyseg.training.Step` takes it.
"""

from collections.abc import Callable, Sequence

from tinyseg import ops
from tinyseg.autograd import Array, Tensor


def dice_and_cross_entropy(
    dice_weight: float = 1.0, ce_weight: float = 1.0, class_weights: Sequence[float] | None = None,
    ignore_index: int | None = None,
) -> Callable[[Tensor, Array], Tensor]:  # fmt: skip
    """Make the loss ``ce_weight · cross-entropy - dice_weight · soft Dice`` (Gadosey et al. 2020, Section 3.5).

    Parameters
    ----------
    dice_weight, ce_weight : float
        The paper does not give its weights.
    class_weights, ignore_index : optional
        One factor for each of several classes, used in both parts (without it, class 0, the background, is left out of
        Dice), and the class number of pixels that take no part: see `cross_entropy` and `soft_dice_loss`.

    Returns
    -------
    callable
        ``loss(logits, y)``: y holds class numbers (N, H, W) for several classes, and is (N, 1, H, W) for one.
    """

    def loss(logits, y):
        if logits.shape[1] == 1:
            return ops.dice_bce_with_logits(logits, y, dice_weight=dice_weight, bce_weight=ce_weight)
        shares = [0.0] + [1.0] * (logits.shape[1] - 1) if class_weights is None else class_weights
        ce = ops.cross_entropy(logits, y, weight=class_weights, ignore_index=ignore_index)
        dice_loss = ops.soft_dice_loss(logits, y, "softmax", weight=shares, pooled=True, ignore_index=ignore_index)
        return ce * ce_weight + (dice_loss - 1.0) * dice_weight

    return loss


def weighted_cross_entropy(background: float, foreground: float) -> Callable[[Tensor, Array], Tensor]:
    """Return the binary cross-entropy in which pixels of background and of foreground have these weights."""

    def loss(logits, y):
        weights = {"weight": background, "pos_weight": foreground / background}
        return ops.binary_cross_entropy_with_logits(logits, y, **weights)

    return loss
