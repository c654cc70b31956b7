"""One typical call of every public op, for the tests that ask the same of all of them.

Each entry is (name, function of Tensors, float64 arrays). Inputs of kinked functions are spaced; what is
constant (running statistics, targets) is moved beside the input, so that an entry runs on any device and in
any precision.
"""

import numpy as np
from arrays import rand, spaced

from tinyseg import ops
from tinyseg.autograd import as_array
from tinyseg.backend import device_of, to_device


def beside(x, constant):
    """`constant` with the device of `x`, and its dtype if it is a float array."""
    x = as_array(x)
    return to_device(constant.astype(x.dtype) if constant.dtype.kind == "f" else constant, device_of(x))


rng = np.random.default_rng(0)
X, MASK = rand(2, 4, 5, 3), rng.random((2, 4, 5, 3)) < 0.4
CLASSES, MEAN, VAR = rng.integers(0, 4, (2, 5, 3)), rand(4, seed=1), rng.uniform(0.5, 2, 4)
POSITIVE, WEIGHTS = rng.uniform(0.5, 2, (2, 4, 5, 3)), [1.0, 0.5, 2.0, 3.0]


def batch_norm(training):
    """The op with running statistics of its own, made anew for every call."""
    return lambda x, w, b: ops.batch_norm(x, beside(x, MEAN), beside(x, VAR), w, b, training=training)


ENTRIES = [
    ("add", ops.add, X, rand(4, 1, 3)),
    ("subtract", ops.subtract, rand(5, 1), X),
    ("multiply", ops.multiply, X, rand(2, 1, 1, 3)),
    ("divide", ops.divide, X, POSITIVE[:1]),
    ("power", lambda x: ops.power(x, 3), X),
    ("exp", ops.exp, X),
    ("log", ops.log, POSITIVE),
    ("sum", lambda x: ops.sum(x, axis=(0, 2)), X),
    ("mean", lambda x: ops.mean(x, axis=1, keepdims=True), X),
    ("relu", ops.relu, spaced(2, 4, 5, 3)),
    ("sigmoid", ops.sigmoid, X),
    ("softmax", ops.softmax, X),
    ("log_softmax", ops.log_softmax, X),
    ("batch_norm", batch_norm(training=True), X, rand(4), rand(4, seed=1)),
    ("batch_norm-eval", batch_norm(training=False), X, rand(4), rand(4, seed=1)),
    ("group_norm", lambda x, w, b: ops.group_norm(x, 2, w, b), X, rand(4), rand(4, seed=1)),
    ("weight_standardization", lambda v: ops.weight_standardization(v, "layer", True), rand(4, 3, 2)),
    ("weight_standardization-filter", lambda v: ops.weight_standardization(v, "filter"), rand(4, 3, 2)),
    ("conv2d", lambda x, w, b: ops.conv2d(x, w, b, (1, 2), "same"), X, rand(3, 4, 2, 3), rand(3)),
    ("conv_transpose2d", lambda x, w, b: ops.conv_transpose2d(x, w, b, 2, 1), X, rand(4, 2, 3, 4), rand(2)),
    ("depthwise_conv2d", lambda x, w, b: ops.depthwise_conv2d(x, w, b, 1, "same"), X, rand(4, 3, 2), rand(4)),
    (
        "depthwise_conv2d-dilated",
        lambda x, w, b: ops.depthwise_conv2d(x, w, b, (1, 2), "same", (2, 3)),
        X,
        rand(4, 3, 2),
        rand(4),
    ),
    ("pointwise_conv2d", ops.pointwise_conv2d, X, rand(6, 4), rand(6)),
    (
        "separable_conv2d",
        lambda x, x2, wd, wp, b: ops.separable_conv2d([x, x2], wd, wp, b, (2, 1), "same", 2),
        X,
        rand(2, 3, 5, 3),
        rand(7, 3, 2),
        rand(6, 7),
        rand(6),
    ),
    (
        "separable_conv2d-relu",
        lambda x, wd, wp, b: ops.separable_conv2d(x, wd, wp, b, 1, "same", activation="relu"),
        X,
        rand(4, 3, 2),
        rand(3, 4, seed=2),
        3 * spaced(3),
    ),
    (
        "fused_conv2d",
        lambda x, x2, w, b: ops.fused_conv2d([x, x2], w, b, (2, 1), "same", 2),
        X,
        rand(2, 3, 5, 3),
        rand(6, 7, 3, 2),
        rand(6),
    ),
    (
        "fused_conv2d-relu",
        lambda x, w, b: ops.fused_conv2d(x, w, b, 1, "same", activation="relu"),
        X,
        rand(3, 4, 2, 3),
        3 * spaced(3),
    ),
    ("max_pool2d", lambda x: ops.max_pool2d(x, (3, 2), 1, (1, 0)), spaced(2, 4, 5, 3)),
    ("avg_pool2d", lambda x: ops.avg_pool2d(x, (3, 2), 1, (1, 0)), X),
    ("upsample", lambda x: ops.upsample(x, (2, 3)), X),
    ("upsample-bilinear", lambda x: ops.upsample(x, (2, 3), "bilinear"), X),
    ("dropout", lambda x: ops.dropout(x, 0.3, seed=5), X),
    ("dropout2d", lambda x: ops.dropout2d(x, 0.3, seed=5), X),
    ("concat", lambda *xs: ops.concat(xs), X, rand(2, 3, 5, 3)),
    ("pad", lambda x: ops.pad(x, ((1, 2), (0, 3))), X),
    ("center_crop", lambda x: ops.center_crop(x, (2, 2)), X),
    ("cast", lambda x: ops.cast(x, beside(x, X).dtype if as_array(x).dtype.kind == "f" else "float32"), X),
    ("reshape", lambda x: ops.reshape(x, 6, -1), X),
    ("transpose", lambda x: ops.transpose(x, 2, 0, 3, 1), X),
    (
        "binary_cross_entropy_with_logits",
        lambda x: ops.binary_cross_entropy_with_logits(x, beside(x, MASK), WEIGHTS, pos_weight=2.0),
        X,
    ),
    ("cross_entropy", lambda x: ops.cross_entropy(x, beside(x, CLASSES), WEIGHTS, ignore_index=2), X),
    ("soft_dice_loss", lambda x: ops.soft_dice_loss(x, beside(x, MASK), weight=WEIGHTS, empty="ignore"), X),
    ("soft_dice_loss-softmax", lambda x: ops.soft_dice_loss(x, beside(x, CLASSES), "softmax", pooled=True), X),
    ("dice_bce_with_logits", lambda x: ops.dice_bce_with_logits(x, beside(x, MASK), 0.7, 1.3), X),
]
