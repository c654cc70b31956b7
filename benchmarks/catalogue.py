"""The ops that are timed one by one, as both frameworks write them, and how much work each of them is."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

SCALES = [(64, 256), (128, 128), (256, 64), (512, 32), (1024, 16)]  # channels; height and width


@dataclasses.dataclass(frozen=True)
class Op:
    """What is timed, in both frameworks.

    Attributes
    ----------
    ours, theirs : function
        ``ours(ops, *xs, *weights, *constants)`` and ``theirs(torch, F, *xs, *weights, *constants)``, giving the output.
    name : str
        The function of `tinyseg.ops`: where it does not exist, the op is passed over.
    xs : int
        Number of activations (N, C, H, W).
    weights : function of C
        Shapes of the weights as PyTorch has them; tinyseg's lack the axes of length 1.
    constants : function of (rng, shape)
        Further arrays, such as targets.
    flops : function of C
        Operations forward for each element of *one* activation; backward takes twice as many.
    out : float
        Elements of the output for each element of one activation.
    rereads : bool
        Whether backward has to read the activations again.
    shapes : list of tuple
        (C, H, W), if these are not the five scales.
    """

    name: str
    ours: Callable
    theirs: Callable
    xs: int = 1
    weights: Callable = lambda C: ()
    constants: Callable = lambda rng, shape: ()
    flops: Callable = lambda C: 1
    out: float = 1
    rereads: bool = True
    shapes: tuple = tuple((C, size, size) for C, size in SCALES)


def _separable(F, x, wd, wp, b, **options):
    return F.conv2d(F.conv2d(x, wd, groups=len(wd), **options), wp, b)


def _same2(F, x):
    return F.pad(x, (0, 1, 0, 1))  # 'same' of a 2x2 kernel: one row and one column at the bottom and at the right


def _twice(F, x, mode="nearest"):
    return F.interpolate(x, scale_factor=2, mode=mode)


def _dice(torch, F, z, t):
    p = torch.sigmoid(z)
    overlap, total = (p * t).sum((2, 3)), p.sum((2, 3)) + t.sum((2, 3))
    return 1 - ((2 * overlap + 1) / (total + 1)).mean()


def _mask(rng, shape):
    return [(rng.random(shape) < 0.3).astype(np.float32)]


def _class_numbers(rng, shape):
    return [rng.integers(0, shape[1], (shape[0], *shape[2:]))]


def _running(rng, shape):
    return np.zeros(shape[1], np.float32), np.ones(shape[1], np.float32)


LOGITS = ((1, 256, 256), (4, 144, 144))
SOFTMAX = ((4, 256, 256), (4, 144, 144))
RELU = {"padding": "same", "activation": "relu"}
OPS = {
    "depthwise 3x3": Op(
        "depthwise_conv2d",
        lambda ops, x, w: ops.depthwise_conv2d(x, w, padding="same"),
        lambda torch, F, x, w: F.conv2d(x, w, padding=1, groups=len(w)),
        weights=lambda C: [(C, 1, 3, 3)],
        flops=lambda C: 18,
    ),
    "depthwise 2x2": Op(
        "depthwise_conv2d",
        lambda ops, x, w: ops.depthwise_conv2d(x, w, padding="same"),
        lambda torch, F, x, w: F.conv2d(_same2(F, x), w, groups=len(w)),
        weights=lambda C: [(C, 1, 2, 2)],
        flops=lambda C: 8,
    ),
    "dilated depthwise 3x3": Op(
        "depthwise_conv2d",
        lambda ops, x, w: ops.depthwise_conv2d(x, w, padding="same", dilation=2),
        lambda torch, F, x, w: F.conv2d(x, w, padding=2, dilation=2, groups=len(w)),
        weights=lambda C: [(C, 1, 3, 3)],
        flops=lambda C: 18,
    ),
    "pointwise": Op(
        "pointwise_conv2d",
        lambda ops, x, w, b: ops.pointwise_conv2d(x, w, b),
        lambda torch, F, x, w, b: F.conv2d(x, w, b),
        weights=lambda C: [(C, C, 1, 1), (C,)],
        flops=lambda C: 2 * C,
    ),
    "conv 3x3": Op(
        "conv2d",
        lambda ops, x, w, b: ops.conv2d(x, w, b, padding="same"),
        lambda torch, F, x, w, b: F.conv2d(x, w, b, padding=1),
        weights=lambda C: [(C, C, 3, 3), (C,)],
        flops=lambda C: 18 * C,
    ),
    "conv 2x2": Op(
        "conv2d",
        lambda ops, x, w, b: ops.conv2d(x, w, b, padding="same"),
        lambda torch, F, x, w, b: F.conv2d(_same2(F, x), w, b),
        weights=lambda C: [(C, C, 2, 2), (C,)],
        flops=lambda C: 8 * C,
    ),
    "group norm": Op(
        "group_norm",
        lambda ops, x, w, b: ops.group_norm(x, 32, w, b),
        lambda torch, F, x, w, b: F.group_norm(x, 32, w, b),
        weights=lambda C: [(C,), (C,)],
        flops=lambda C: 8,
    ),
    "batch norm": Op(
        "batch_norm",
        lambda ops, x, w, b, mean, var: ops.batch_norm(x, mean, var, w, b, training=True),
        lambda torch, F, x, w, b, mean, var: F.batch_norm(x, mean, var, w, b, training=True),
        weights=lambda C: [(C,), (C,)],
        constants=_running,
        flops=lambda C: 8,
    ),
    "max pool": Op(
        "max_pool2d", lambda ops, x: ops.max_pool2d(x, 2), lambda torch, F, x: F.max_pool2d(x, 2), out=1 / 4
    ),
    "average pool": Op(
        "avg_pool2d",
        lambda ops, x: ops.avg_pool2d(x, 2),
        lambda torch, F, x: F.avg_pool2d(x, 2),
        out=1 / 4,
        rereads=False,
    ),
    "upsample, nearest": Op(
        "upsample",
        lambda ops, x: ops.upsample(x, 2),
        lambda torch, F, x: _twice(F, x),
        flops=lambda C: 0,
        out=4,
        rereads=False,
    ),
    "upsample, bilinear": Op(
        "upsample",
        lambda ops, x: ops.upsample(x, 2, "bilinear"),
        lambda torch, F, x: _twice(F, x, "bilinear"),
        flops=lambda C: 28,
        out=4,
        rereads=False,
    ),
    "concat": Op(
        "concat",
        lambda ops, x, x2: ops.concat([x, x2]),
        lambda torch, F, x, x2: torch.cat([x, x2], 1),
        xs=2,
        flops=lambda C: 0,
        out=2,
        rereads=False,
    ),
    "relu": Op("relu", lambda ops, x: ops.relu(x), lambda torch, F, x: F.relu(x)),
    "BCE": Op(
        "binary_cross_entropy_with_logits",
        lambda ops, z, t: ops.binary_cross_entropy_with_logits(z, t),
        lambda torch, F, z, t: F.binary_cross_entropy_with_logits(z, t),
        constants=_mask,
        flops=lambda C: 10,
        out=0,
        shapes=LOGITS,
    ),
    "Dice": Op(
        "soft_dice_loss",
        lambda ops, z, t: ops.soft_dice_loss(z, t),
        _dice,
        constants=_mask,
        flops=lambda C: 10,
        out=0,
        shapes=LOGITS,
    ),
    "cross-entropy": Op(
        "cross_entropy",
        lambda ops, z, t: ops.cross_entropy(z, t),
        lambda torch, F, z, t: F.cross_entropy(z, t),
        constants=_class_numbers,
        flops=lambda C: 10,
        out=0,
        shapes=SOFTMAX,
    ),
    # As the networks have them: each in one op of tinyseg, and PyTorch's composition.
    "conv 3x3 + relu": Op(
        "fused_conv2d",
        lambda ops, x, w, b: ops.fused_conv2d(x, w, b, **RELU),
        lambda torch, F, x, w, b: F.relu(F.conv2d(x, w, b, padding=1), inplace=True),
        weights=lambda C: [(C, C, 3, 3), (C,)],
        flops=lambda C: 18 * C,
    ),
    "concat + conv 3x3 + relu": Op(
        "fused_conv2d",
        lambda ops, x, x2, w, b: ops.fused_conv2d([x, x2], w, b, **RELU),
        lambda torch, F, x, x2, w, b: F.relu(F.conv2d(torch.cat([x, x2], 1), w, b, padding=1), inplace=True),
        xs=2,
        weights=lambda C: [(C, 2 * C, 3, 3), (C,)],
        flops=lambda C: 36 * C,
    ),
    "upsample + conv 2x2 + relu": Op(
        "fused_conv2d",
        lambda ops, x, w, b: ops.fused_conv2d(x, w, b, upsample=2, **RELU),
        lambda torch, F, x, w, b: F.relu(F.conv2d(_same2(F, _twice(F, x)), w, b), inplace=True),
        weights=lambda C: [(C // 2, C, 2, 2), (C // 2,)],
        flops=lambda C: 16 * C,
        out=2,
    ),
    "separable 3x3": Op(
        "separable_conv2d",
        lambda ops, x, wd, wp, b: ops.separable_conv2d(x, wd, wp, b, padding="same"),
        lambda torch, F, x, wd, wp, b: _separable(F, x, wd, wp, b, padding=1),
        weights=lambda C: [(C, 1, 3, 3), (C, C, 1, 1), (C,)],
        flops=lambda C: 18 + 2 * C,
    ),
    "separable 3x3 + relu": Op(
        "separable_conv2d",
        lambda ops, x, wd, wp, b: ops.separable_conv2d(x, wd, wp, b, **RELU),
        lambda torch, F, x, wd, wp, b: F.relu(_separable(F, x, wd, wp, b, padding=1), inplace=True),
        weights=lambda C: [(C, 1, 3, 3), (C, C, 1, 1), (C,)],
        flops=lambda C: 18 + 2 * C,
    ),
    "concat + separable 3x3 + relu": Op(
        "separable_conv2d",
        lambda ops, x, x2, wd, wp, b: ops.separable_conv2d([x, x2], wd, wp, b, **RELU),
        lambda torch, F, x, x2, *w: F.relu(_separable(F, torch.cat([x, x2], 1), *w, padding=1), inplace=True),
        xs=2,
        weights=lambda C: [(2 * C, 1, 3, 3), (C, 2 * C, 1, 1), (C,)],
        flops=lambda C: 36 + 4 * C,
    ),
    "upsample + separable 2x2 + relu": Op(
        "separable_conv2d",
        lambda ops, x, wd, wp, b: ops.separable_conv2d(x, wd, wp, b, upsample=2, **RELU),
        lambda torch, F, x, *w: F.relu(_separable(F, _same2(F, _twice(F, x)), *w), inplace=True),
        weights=lambda C: [(C, 1, 2, 2), (C // 2, C, 1, 1), (C // 2,)],
        flops=lambda C: 32 + 4 * C,
        out=2,
    ),
}
ADAM = "Adam"  # one step on the weights of a 3x3 convolution; PyTorch's three implementations in the place of layouts


def work(name, shape):
    """Return {direction: (flops, bytes)}: what the op computes, reads and writes, each array moving once."""
    N, C, H, W = shape
    x = N * C * H * W
    if name == ADAM:
        weights = 9 * C * C
        return {"step": (12 * weights, 4 * 7 * weights)}  # reads w, g, m, v; writes w, m, v
    op = OPS[name]
    weights = sum(map(math.prod, op.weights(C)))
    constants = sum(a.nbytes for a in op.constants(np.random.default_rng(0), shape))
    flops, xs, out = op.flops(C) * x, op.xs * x, op.out * x
    forward = 4 * (xs + weights + out) + constants
    backward = 4 * (out + op.rereads * (xs + weights) + xs + weights) + constants * op.rereads
    return {"forward": (flops, forward), "forward + backward": (3 * flops, forward + backward)}
