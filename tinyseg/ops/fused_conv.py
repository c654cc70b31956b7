"""Standard convolution as one op, with the concatenation and upsampling before it and the ReLU after it.

With X = concat(x_0, x_1, …), upsampled (nearest) by a factor if that is above 1, in plain steps:

    y = conv2d(X, w) + b
    y = max(y, 0)               if the activation is "relu"

The backward pass takes the same steps in reverse order, with gy = 0 where the ReLU gave 0. The code below is these
steps. fast/cpu/fused_conv.py reads the x_k directly and never writes X; it adds the bias and applies the ReLU while the
sums are still in registers.

Shapes: x_k (N, C_k, H, W), C = sum of C_k, w (K, C, KH, KW), b (K,), y (N, K, OH, OW).
"""

from collections.abc import Sequence
from typing import Literal

from tinyseg.autograd import Array, Tensor
from tinyseg.backend import kernels, xp_of
from tinyseg.backend.half import HalfFunction
from tinyseg.ops.activation import relu_grad
from tinyseg.ops.conv2d import forward as convolve
from tinyseg.ops.conv2d import grad_w, grad_x
from tinyseg.ops.joined import as_list, check_joined, join, split
from tinyseg.ops.sums import sum_over
from tinyseg.ops.window import Padding, Pair, bias_or_zeros, check_shape, resolve


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def forward(xs, w, b, stride, pads, out, factor, relu):
    """Return y (N, K, OH, OW)."""
    y = convolve(join(xs, factor), w, stride, pads, out)
    y += b[:, None, None]
    if relu:
        xp_of(y).maximum(y, 0, out=y)
    return y


def backward(gy, xs, w, y, needs_x, stride, pads, factor, relu):
    """Return the gradients of w and b, and a tuple with those of the xs (None if `needs_x` is False)."""
    if relu:
        gy = relu_grad(gy, y)
    X = join(xs, factor)
    gxs = split(grad_x(gy, w, X.shape, stride, pads), xs, factor) if needs_x else (None,) * len(xs)
    return grad_w(X, gy, w.shape, stride, pads), sum_over(gy, (0, 2, 3)), gxs


# ----- the node of the graph -------------------------------------------------
class FusedConv2d(HalfFunction):
    activations = slice(2, None)  # the xs

    def __init__(self, stride=1, padding=0, upsample=1, activation=None):
        self.stride, self.padding, self.factor, self.activation = stride, padding, upsample, activation

    def forward(self, w, b, *xs):
        if w.ndim != 4:
            raise ValueError(f"fused_conv2d takes w of shape (K, C, KH, KW), but got {w.shape}.")
        check_shape("fused_conv2d", "b", b, (len(w),))
        shape = check_joined("fused_conv2d", xs, w.shape[1], self.factor, self.activation)
        stride, pads, out = resolve(shape, w.shape[2:], self.stride, self.padding)
        self.args = stride, pads, self.factor, self.activation == "relu"
        y = kernels(__name__, w, b, *xs).forward(xs, w, b, stride, pads, out, *self.args[2:])
        self.saved = xs, w, y if self.activation else None
        return y

    def backward(self, gy):
        xs, w, _ = self.saved
        gw, gb, gxs = kernels(__name__, w, gy, *xs).backward(gy, *self.saved, any(self.needs[2:]), *self.args)
        return gw, gb, *gxs


def fused_conv2d(
    x: Tensor | Array | Sequence[Tensor | Array],
    w: Tensor | Array,
    b: Tensor | Array | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    upsample: int = 1,
    activation: Literal["relu"] | None = None,
) -> Tensor:
    """Join and upsample `x`, convolve it with the K kernels `w`, apply an activation; see the module docstring.

    Parameters
    ----------
    x : Tensor or ndarray, shape (N, C, H, W), or a list of them
        The arrays in a list are joined along the channels, as by `concat`.
    w : Tensor or ndarray, shape (K, C, KH, KW)
    b : Tensor or ndarray, shape (K,), optional
    stride : int or pair of int
    padding : int, pair, ((top, bottom), (left, right)), "valid" or "same"
        See `tinyseg.ops.window.resolve`.
    upsample : int
        Repeat each pixel of x this many times along both axes before the convolution.
    activation : {None, "relu"}

    Returns
    -------
    Tensor, shape (N, K, OH, OW), x's dtype
    """
    return FusedConv2d(stride, padding, upsample, activation)(w, bias_or_zeros(b, w), *as_list(x))
