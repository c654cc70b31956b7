"""Losses of logits z (the numbers before sigmoid or softmax) and a target t. Each returns one number.

    binary cross-entropy   l = (1 - t) z + (1 + (a - 1) t) log(1 + exp(-z))      a = pos_weight
                           gz = (1 - t) - (1 + (a - 1) t) σ(-z)                  for a = 1 this is σ(z) - t
    cross-entropy          l = -log softmax(z)[t]
                           gz = softmax(z) - onehot(t)
    soft Dice              D = (2 Σ p t + s) / (Σ p + Σ t + s)                   p = σ(z) or softmax(z)
                           dD/dp = (2 t - D) / (Σ p + Σ t + s)

The cross-entropies are averaged over all pixels, binary cross-entropy over the classes too. For D, Σ runs over the
pixels of one class, of one image or of the whole batch; the mean of D is taken over images and classes.

What is ignored or has weight 0 takes no part, in the loss or in the gradient, even if its logits are NaN or infinite.
If nothing is left, or the batch is empty, the loss is 0 and so is its gradient: a mean over nothing must not become NaN
in the weights of a network.

Shapes: z (N, C, H, W); t like z, or class numbers (N, H, W) if the classes exclude each other. float16 logits are
converted to float32, so the loss is float32.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Literal

from tinyseg.autograd import Array, Tensor, as_array
from tinyseg.backend import kernels, xp_of
from tinyseg.backend.half import HalfFunction
from tinyseg.ops.activation import sigmoid, sigmoid_forward, softmax, softmax_forward
from tinyseg.ops.batch_parts import over_batch, ratio_over_batch, share_of_batch
from tinyseg.ops.sums import sum_over
from tinyseg.ops.targets import at_least_float32, class_targets, one_hot, per_class, target_like
from tinyseg.ops.window import check_nchw


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def bce_forward(z, t, weight, pos_weight):
    """Return the sum of the weighted binary cross-entropy over all elements."""
    xp = xp_of(z)
    z = xp.where(weight != 0, z, z.dtype.type(0))  # 0 · NaN would be NaN
    softplus = xp.log1p(xp.exp(-abs(z)))  # log(1 + exp(-|z|)), which cannot overflow
    softplus += xp.maximum(-z, 0)  # now log(1 + exp(-z))
    loss = (1 - t) * z + (1 + (pos_weight - 1) * t) * softplus
    return sum_over(loss * weight)


def bce_grad(z, t, weight, pos_weight):
    """Gradient of this sum with respect to z."""
    z = xp_of(z).where(weight != 0, z, z.dtype.type(0))
    return weight * ((1 - t) - (1 + (pos_weight - 1) * t) * sigmoid_forward(-z))


def ce_forward(z, t, weight):
    """Return two sums over the pixels: weight[t] · (-log softmax(z)[t]), and weight[t]. t (N, H, W), -1 if ignored."""
    xp, (z, of_pixel) = xp_of(z), counted(z, t, weight)
    z = z - z.max(axis=1, keepdims=True)
    log_sum = xp.log(sum_over(xp.exp(z), 1))  # (N,H,W)
    picked = xp.take_along_axis(z, xp.maximum(t, 0)[:, None], axis=1)[:, 0]
    return sum_over(of_pixel * (log_sum - picked)), sum_over(of_pixel)


def ce_grad(z, t, weight):
    """Gradient of the first of these sums with respect to z."""
    classes = xp_of(z).arange(z.shape[1]).reshape(-1, 1, 1)
    onehot = t[:, None] == classes  # (N,C,H,W); all False at ignored pixels
    z, of_pixel = counted(z, t, weight)
    return (softmax_forward(z, 1) - onehot) * of_pixel[:, None]


def counted(z, t, weight):
    """Return z with zeros at the pixels that do not count, and the weight of each pixel, (N, H, W)."""
    xp, zero = xp_of(z), z.dtype.type(0)
    of_pixel = xp.where(t >= 0, weight[t], zero)
    return xp.where((of_pixel != 0)[:, None], z, zero), of_pixel


def dice_forward(p, t, smooth, axes):
    """Return the soft Dice over `axes`, D, and its denominator."""
    xp = xp_of(p)
    denominator = sum_over(p, axes) + sum_over(t, axes) + smooth
    denominator = xp.maximum(denominator, xp.finfo(p.dtype).tiny)  # if all is 0: D = 0, not 0/0
    return (2 * sum_over(p * t, axes) + smooth) / denominator, denominator


def dice_grad(gD, p, t, D, denominator):
    """Gradient of D with respect to p; gD, D and denominator broadcast against p."""
    return (gD / denominator) * (2 * t - D)


# ----- the nodes of the graph ------------------------------------------------
class BinaryCrossEntropy(HalfFunction):
    # In all losses targets and weights are constants: arguments of the constructor, which get no gradient.
    def __init__(self, t, weight, pos_weight, scale):
        self.args, self.scale = (t, weight, pos_weight), scale

    def forward(self, z):
        self.saved = z
        return kernels(__name__, z).bce_forward(z, *self.args) * z.dtype.type(self.scale)

    def backward(self, gy):
        return kernels(__name__, self.saved).bce_grad(self.saved, *self.args) * (gy * gy.dtype.type(self.scale))


class CrossEntropy(HalfFunction):
    def __init__(self, t, weight):
        self.t, self.weight = t, weight

    def forward(self, z):
        total, count = kernels(__name__, z).ce_forward(z, self.t, self.weight)
        count = over_batch(count)
        count = xp_of(z).where(count > 0, count, z.dtype.type(1))  # if no pixel counts: loss 0, not 0/0
        self.saved = z, count
        return total / count

    def backward(self, gy):
        z, count = self.saved
        return kernels(__name__, z).ce_grad(z, self.t, self.weight * (gy / count))


class SoftDice(HalfFunction):
    """Map p (N, C, H, W) to constant + Σ share · D; D and share are (N, C), or (1, C) if pooled over the batch."""

    def __init__(self, t, smooth, pooled, share, constant):
        self.t, self.smooth, self.axes = t, smooth, (0, 2, 3) if pooled else (2, 3)
        self.share, self.constant = share, constant

    def forward(self, p):
        D, denominator = kernels(__name__, p).dice_forward(p, self.t, self.smooth, self.axes)
        if len(self.axes) == 3:  # pooled
            D, denominator = ratio_over_batch(D, denominator, self.smooth)
        xp, counts, one = xp_of(p), self.share != 0, p.dtype.type(1)
        # Where an image and class do not count, 1 takes the place of what may be NaN.
        D, denominator = (xp.where(counts, a.reshape(self.share.shape), one) for a in (D, denominator))
        self.saved = p, D, denominator
        return self.constant + (D * self.share).sum()

    def backward(self, gy):
        p, D, denominator = self.saved
        gD, D, denominator = (a[:, :, None, None] for a in (gy * self.share, D, denominator))
        return kernels(__name__, p).dice_grad(gD, p, self.t, D, denominator)


def binary_cross_entropy_with_logits(
    logits: Tensor | Array, target: Tensor | Array, weight: float | Array | Sequence[float] | None = None,
    reduction: Literal["mean", "sum"] = "mean", pos_weight: float | Array | Sequence[float] | None = None,
) -> Tensor:  # fmt: skip
    """Binary cross-entropy between sigmoid(logits) and `target`, without overflow for any logit.

    Parameters
    ----------
    logits : Tensor or ndarray, any shape, usually (N, C, H, W)
    target : ndarray, shape of logits
        Probabilities of the positive class in [0, 1]; bool and integer masks are converted. NaN and what lies outside,
        such as a mask of 0 and 255, is refused.
    weight : ndarray or sequence, optional
        Factor of each element: an array that broadcasts against logits (pixel weights), or one number for each class.
        Finite, and not negative; where it is 0, logits take no part.
    reduction : {"mean", "sum"}
        "mean" divides by the number of elements (not by the sum of the weights), as PyTorch does. Without any element
        the loss is 0, not PyTorch's NaN.
    pos_weight : float or sequence of C floats, optional
        Factor of the loss where the target is positive, one number or one for each class. Above 1, it raises recall
        and lowers precision.

    Returns
    -------
    Tensor, scalar
    """
    logits = at_least_float32(logits)
    z = as_array(logits)
    t = target_like(z, target, "binary_cross_entropy_with_logits")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', but is {reduction!r}.")
    scale = 1 / (max(z.size, 1) if reduction == "mean" else share_of_batch())
    weight, pos_weight = per_class(z, weight, "weight"), per_class(z, pos_weight, "pos_weight")
    return BinaryCrossEntropy(t, weight, pos_weight, scale)(logits)


def cross_entropy(
    logits: Tensor | Array, target: Tensor | Array, weight: Array | Sequence[float] | None = None,
    ignore_index: int | None = None,
) -> Tensor:  # fmt: skip
    """Cross-entropy between softmax(logits) and class numbers.

    Parameters
    ----------
    logits : Tensor or ndarray, shape (N, C, H, W)
    target : integer ndarray, shape (N, H, W)
        Class of each pixel, 0 … C-1.
    weight : sequence of C floats, optional
        Factor of each class, finite and not negative; the mean is weighted: Σ weight[t] l / Σ weight[t], as in PyTorch.
        Only the ratios of the weights matter. Pixels of a class with weight 0 are left out.
    ignore_index : int, optional
        Pixels of this class are left out of the mean. If no other pixels are there, the loss is 0, not PyTorch's NaN.

    Returns
    -------
    Tensor, scalar
    """
    logits = at_least_float32(logits)
    z = as_array(logits)
    t = class_targets(z, target, "cross_entropy", ignore_index)
    w = per_class(z, [1.0] * z.shape[1] if weight is None else weight, "weight", ratios=True)
    if w.shape != (z.shape[1], 1, 1):
        raise ValueError(f"cross_entropy: weight must be one number for each of {z.shape[1]} classes, not {w.shape}.")
    return CrossEntropy(t, w.reshape(-1))(logits)


def soft_dice_loss(
    logits: Tensor | Array, target: Tensor | Array, activation: Literal["sigmoid", "softmax"] = "sigmoid",
    weight: Array | Sequence[float] | None = None, pooled: bool = False, smooth: float = 1.0,
    empty: Literal["smooth", "ignore"] = "smooth", ignore_index: int | None = None,
) -> Tensor:  # fmt: skip
    """1 - D, the soft Dice loss (Milletari et al. 2016, without squares), averaged over images and classes.

    Parameters
    ----------
    logits : Tensor or ndarray, shape (N, C, H, W)
    target : ndarray
        Shape of logits (bool or 0/1), or class numbers (N, H, W) with activation="softmax".
    activation : {"sigmoid", "softmax"}
        How logits become probabilities: "sigmoid" for independent classes, "softmax" if classes exclude each other.
    weight : sequence of C floats, optional
        Relative weight of each class in the mean, finite and not negative. A class of weight 0 takes no part.
    pooled : bool
        Compute D over the pixels of the whole batch, not of each image by itself.
    smooth : float
        s in the equation: positive, or 0 with empty="ignore". It keeps the gradient finite where both masks are small.
    empty : {"smooth", "ignore"}
        What to do if an image has no pixel of a class. "smooth": use the equation, D = s / (Σ p + s), which punishes
        false positives. "ignore": leave this image and class out of the mean; if nothing is left, the loss is 0.
    ignore_index : int, optional
        Pixels of this class number take no part. Their logits must be finite, unlike those of `cross_entropy`.

    Returns
    -------
    Tensor, scalar
    """
    return 1 - _mean_dice(logits, target, activation, weight, pooled, smooth, empty, ignore_index)


def dice_bce_with_logits(
    logits: Tensor | Array, target: Tensor | Array, dice_weight: float = 1.0, bce_weight: float = 1.0,
    weight: Array | Sequence[float] | None = None, pooled: bool = False, smooth: float = 1.0,
    empty: Literal["smooth", "ignore"] = "smooth",
) -> Tensor:  # fmt: skip
    """Return bce_weight · BCE - dice_weight · D, with binary cross-entropy and soft Dice.

    The loss of Gadosey et al. (2020, Section 3.5) for brain tumours. It can be negative: its lowest value is
    -dice_weight. Parameters as in `soft_dice_loss` (activation "sigmoid") and `binary_cross_entropy_with_logits`;
    `weight` holds one factor for each class and is used in both parts.

    Returns
    -------
    Tensor, scalar
    """
    logits = at_least_float32(logits)
    dice = _mean_dice(logits, target, "sigmoid", weight, pooled, smooth, empty)
    bce = binary_cross_entropy_with_logits(logits, target, weight=weight)
    return bce * bce_weight - dice * dice_weight


def _mean_dice(logits, target, activation, weight, pooled, smooth, empty, ignore_index=None):
    """Return the mean of D over images and classes."""
    logits = at_least_float32(logits)
    z = as_array(logits)
    check_nchw("soft Dice", z)
    if empty not in ("smooth", "ignore"):
        raise ValueError(f"empty must be 'smooth' or 'ignore', but is {empty!r}.")
    if not isinstance(smooth, numbers.Real) or not 0 <= smooth < math.inf:
        raise ValueError(f"soft Dice: smooth must be a finite number of at least 0, but is {smooth!r}.")
    if smooth == 0 and empty == "smooth":
        raise ValueError("soft Dice of an empty mask is 0/0 without smoothing: use smooth > 0 or empty='ignore'.")
    if activation == "sigmoid":
        p, t = sigmoid(logits), target_like(z, target, "soft Dice")
    elif activation == "softmax":
        p, t = softmax(logits, axis=1), one_hot(z, target, ignore_index)
        p = p if ignore_index is None else p * t.max(axis=1, keepdims=True)  # 1 where a pixel counts, else 0
    else:
        raise ValueError(f"activation must be 'sigmoid' or 'softmax', but is {activation!r}.")
    w = per_class(z, weight, "weight", ratios=True)
    if w.shape not in ((), (z.shape[1], 1, 1)):
        raise ValueError(f"soft Dice: weight must be one number for each of {z.shape[1]} classes, not {w.shape}.")
    share = xp_of(z).broadcast_to(w.reshape(1, -1), (1 if pooled else z.shape[0], z.shape[1]))
    if empty == "ignore":
        pixels = over_batch(sum_over(t, (0, 2, 3))) if pooled else sum_over(t, (2, 3))
        share = share * (pixels > 0).reshape(share.shape)
    total, xp = share.sum() if pooled or empty == "smooth" else over_batch(share.sum()), xp_of(z)
    # If nothing is left to average, every share is 0, and the mean of D counts as 1, a constant. `where`, not `if`:
    # `if` would have to wait for the GPU.
    some = total > 0
    share = xp.where(some, share / xp.where(some, total, 1).astype(z.dtype), share)
    constant = (~some).astype(z.dtype)
    return SoftDice(t, z.dtype.type(smooth), pooled, share, constant)(p)
