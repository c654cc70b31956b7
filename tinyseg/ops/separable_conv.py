"""Depthwise separable convolution as one op, with the concatenation and upsampling before it and the ReLU after it.

With X = concat(x_0, x_1, …), upsampled (nearest) by a factor if that is above 1, in plain steps:

    d = depthwise(X, wd)        d[n,c,i,j] = sum_{u,v} X[n,c,i·sh+u,j·sw+v] * wd[c,u,v]
    y = pointwise(d, wp) + b    y[n,k,i,j] = sum_c wp[k,c] * d[n,c,i,j] + b[k]
    y = max(y, 0)               if the activation is "relu"

The backward pass takes the same steps in reverse order, with gy = 0 where the ReLU gave 0. The code below is these
steps. The backward pass does not keep d but computes it again. fast/cpu/separable_conv.py computes a few rows of d at a
time, multiplies them while they are in cache, and writes neither X nor d to memory; fast/gpu/separable_conv.py writes
d, but not X.

Shapes: x_k (N, C_k, H, W), C = sum of C_k, wd (C, KH, KW), wp (K, C), b (K,), y (N, K, OH, OW).
"""

from collections.abc import Sequence
from typing import Literal

from tinyseg.autograd import Array, Tensor
from tinyseg.backend import kernels, xp_of
from tinyseg.backend.half import HalfFunction
from tinyseg.ops.activation import relu_grad
from tinyseg.ops.depthwise_conv import DepthwiseConv2d
from tinyseg.ops.joined import as_list, check_joined, join, split
from tinyseg.ops.pointwise_conv import PointwiseConv2d
from tinyseg.ops.sums import sum_over
from tinyseg.ops.window import Padding, Pair, bias_or_zeros, check_shape, resolve


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def forward(xs, wd, wp, b, stride, pads, out, factor, relu):
    """Return y (N, K, OH, OW)."""
    X = join(xs, factor)
    depthwise, pointwise = halves(X, wd, wp)
    d = depthwise.forward(X, wd, stride, pads, out)
    y = pointwise.forward(d, wp)
    y += b[:, None, None]
    if relu:
        xp_of(y).maximum(y, 0, out=y)
    return y


def backward(gy, xs, wd, wp, y, stride, pads, factor, relu):
    """Return the gradients of wd, wp and b, and a tuple with those of the xs."""
    if relu:
        gy = relu_grad(gy, y)
    X = join(xs, factor)
    depthwise, pointwise = halves(X, wd, wp)
    d = depthwise.forward(X, wd, stride, pads, gy.shape[2:])
    gd = pointwise.grad_x(gy, wp)
    gX = depthwise.grad_x(gd, wd, X.shape, stride, pads)
    gwd = depthwise.grad_w(X, gd, wd.shape, stride, pads)
    return gwd, pointwise.grad_w(d, gy), sum_over(gy, (0, 2, 3)), split(gX, xs, factor)


def halves(X, wd, wp):
    """Return the modules that compute the depthwise and the pointwise convolution of arrays like X."""
    return kernels(DepthwiseConv2d.__module__, X, wd), kernels(PointwiseConv2d.__module__, X, wp)


# ----- the node of the graph -------------------------------------------------
class SeparableConv2d(HalfFunction):
    activations = slice(3, None)  # the xs

    def __init__(self, stride=1, padding=0, upsample=1, activation=None):
        self.stride, self.padding, self.factor, self.activation = stride, padding, upsample, activation

    def forward(self, wd, wp, b, *xs):
        if wd.ndim != 3 or wp.ndim != 2 or len(wd) != wp.shape[1]:
            found = f"{wd.shape} and {wp.shape}"
            raise ValueError(f"separable_conv2d takes wd of shape (C, KH, KW) and wp of shape (K, C), but got {found}.")
        check_shape("separable_conv2d", "b", b, (len(wp),))
        shape = check_joined("separable_conv2d", xs, len(wd), self.factor, self.activation)
        stride, pads, out = resolve(shape, wd.shape[1:], self.stride, self.padding)
        self.args = stride, pads, self.factor, self.activation == "relu"
        k = kernels(__name__, wd, wp, b, *xs)
        y = k.forward(xs, wd, wp, b, stride, pads, out, *self.args[2:])
        self.saved = xs, wd, wp, y if self.activation else None
        return y

    def backward(self, gy):
        xs, wd, wp, _ = self.saved
        gwd, gwp, gb, gxs = kernels(__name__, wd, wp, gy, *xs).backward(gy, *self.saved, *self.args)
        return gwd, gwp, gb, *gxs


def separable_conv2d(
    x: Tensor | Array | Sequence[Tensor | Array],
    w_depthwise: Tensor | Array,
    w_pointwise: Tensor | Array,
    b: Tensor | Array | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    upsample: int = 1,
    activation: Literal["relu"] | None = None,
) -> Tensor:
    """Depthwise, then pointwise convolution; equations in the module docstring.

    Parameters
    ----------
    x : Tensor or ndarray, shape (N, C, H, W), or a list of them
        The arrays in a list are joined along the channels, as by `concat`.
    w_depthwise : Tensor or ndarray, shape (C, KH, KW)
    w_pointwise : Tensor or ndarray, shape (K, C)
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
    b = bias_or_zeros(b, w_pointwise)
    return SeparableConv2d(stride, padding, upsample, activation)(w_depthwise, w_pointwise, b, *as_list(x))
