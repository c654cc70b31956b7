"""The ops: one idea a file. Each file has the equations, the maths for NumPy and CuPy, and the node of the graph.

Every public function takes Tensors or plain arrays and returns a Tensor.
"""

from tinyseg.ops.activation import log_softmax, relu, sigmoid, softmax
from tinyseg.ops.arithmetic import add, divide, exp, log, mean, multiply, power, subtract, sum
from tinyseg.ops.batch_norm import batch_norm
from tinyseg.ops.cast import cast
from tinyseg.ops.conv2d import conv2d
from tinyseg.ops.conv_transpose import conv_transpose2d
from tinyseg.ops.depthwise_conv import depthwise_conv2d
from tinyseg.ops.dropout import dropout, dropout2d
from tinyseg.ops.fused_conv import fused_conv2d
from tinyseg.ops.group_norm import group_norm
from tinyseg.ops.loss import binary_cross_entropy_with_logits, cross_entropy, dice_bce_with_logits, soft_dice_loss
from tinyseg.ops.pointwise_conv import pointwise_conv2d
from tinyseg.ops.pool import avg_pool2d, max_pool2d
from tinyseg.ops.separable_conv import separable_conv2d
from tinyseg.ops.shape import center_crop, concat, pad, reshape, transpose
from tinyseg.ops.upsample import upsample
from tinyseg.ops.weight_standardization import weight_standardization

__all__ = [
    "add", "avg_pool2d", "batch_norm", "binary_cross_entropy_with_logits", "cast", "center_crop", "concat", "conv2d",
    "conv_transpose2d", "cross_entropy", "depthwise_conv2d", "dice_bce_with_logits", "divide", "dropout", "dropout2d",
    "exp", "fused_conv2d", "group_norm", "log", "log_softmax", "max_pool2d", "mean", "multiply", "pad",
    "pointwise_conv2d", "power", "relu", "reshape", "separable_conv2d", "sigmoid", "soft_dice_loss", "softmax",
    "subtract", "sum", "transpose", "upsample", "weight_standardization",
]  # fmt: skip
