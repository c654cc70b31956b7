r"""Depthwise separable convolution as one op, with what stands around it in a network.

With X = concat(x_0, x_1, …), upsampled (nearest) by a factor if asked to, in plain steps:

    D = depthwise(X, wd)        d[c] = X[c] * wd[c]                     one kernel a channel
    Y = pointwise(D, wp) + b    y[k] = sum_c wp[k,c] d[c] + b[k]        one linear map a pixel
    Y = max(Y, 0)               if the activation is "relu"

and backward the same steps in the other order, with gy = 0 where the ReLU gave 0. The maths below *is* this
composition. The fast sibling (separable_conv_numba.py) computes D a few rows at a time, multiplies them while they are
in cache, writes neither X nor D to memory and computes D again in the backward pass; separable_conv_cuda.py writes D,
but not X, and computes it again too.

Shapes: x_k (N, C_k, H, W), C = sum of C_k, wd (C, KH, KW), wp (K, C), b (K,), y (N, K, OH, OW).
"""

from tinyseg.autograd import Function
from tinyseg.backend import kernels, xp_of
from tinyseg.ops.activation import relu_grad
from tinyseg.ops.depthwise_conv import forward as depthwise
from tinyseg.ops.depthwise_conv import grad_w as depthwise_grad_w
from tinyseg.ops.depthwise_conv import grad_x as depthwise_grad_x
from tinyseg.ops.joined import as_list, bias_or_zeros, check, join, split
from tinyseg.ops.pointwise_conv import forward as pointwise
from tinyseg.ops.pointwise_conv import grad_w as pointwise_grad_w
from tinyseg.ops.pointwise_conv import grad_x as pointwise_grad_x
from tinyseg.ops.window import check_shape, resolve


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def forward(xs, wd, wp, b, stride, pads, out, factor, relu):
    """Return y (N, K, OH, OW), and d (N, C, OH, OW) for the backward pass."""
    d = depthwise(join(xs, factor), wd, stride, pads, out)
    y = pointwise(d, wp)
    y += b[:, None, None]
    if relu:
        xp_of(y).maximum(y, 0, out=y)
    return y, d


def backward(gy, xs, wd, wp, y, d, stride, pads, factor, relu):
    """Gradients of wd, wp, b, and a tuple of those of the xs."""
    if relu:
        gy = relu_grad(gy, y)
    if d is None:  # the forward pass ran on a fast sibling, which does not keep it
        d = depthwise(join(xs, factor), wd, stride, pads, gy.shape[2:])
    gd, X = pointwise_grad_x(gy, wp), join(xs, factor)
    gX = depthwise_grad_x(gd, wd, X.shape, stride, pads)
    gwd = depthwise_grad_w(X, gd, wd.shape, stride, pads)
    return gwd, pointwise_grad_w(d, gy), gy.sum(axis=(0, 2, 3)), split(gX, xs, factor)


# ----- the node of the graph -------------------------------------------------
class SeparableConv2d(Function):
    mixes = slice(3, None)  # the xs

    def __init__(self, stride=1, padding=0, upsample=1, activation=None):
        self.stride, self.padding, self.factor, self.activation = stride, padding, upsample, activation

    def forward(self, wd, wp, b, *xs):
        if wd.ndim != 3 or wp.ndim != 2 or len(wd) != wp.shape[1]:
            raise ValueError(
                f"separable_conv2d takes wd of shape (C, KH, KW) and wp of shape (K, C), but got {wd.shape} and "
                f"{wp.shape}."
            )
        check_shape("separable_conv2d", "b", b, (len(wp),))
        shape = check("separable_conv2d", xs, len(wd), self.factor, self.activation)
        stride, pads, out = resolve(shape, wd.shape[1:], self.stride, self.padding)
        self.args = stride, pads, self.factor, self.activation == "relu"
        k = kernels(__name__, wd, wp, b, *xs)
        y, d = k.forward(xs, wd, wp, b, stride, pads, out, *self.args[2:])
        self.saved = xs, wd, wp, y if self.activation else None, d
        return y

    def backward(self, gy):
        xs, wd, wp, _, _ = self.saved
        gwd, gwp, gb, gxs = kernels(__name__, wd, wp, gy, *xs).backward(gy, *self.saved, *self.args)
        return gwd, gwp, gb, *gxs


def separable_conv2d(x, w_depthwise, w_pointwise, b=None, stride=1, padding=0, upsample=1, activation=None):
    """Depthwise, then pointwise convolution; equations in the module docstring.

    Parameters
    ----------
    x : Tensor or ndarray, shape (N, C, H, W), or a list of them
        A list is joined along the channels, as by `concat`.
    w_depthwise : Tensor or ndarray, shape (C, KH, KW)
    w_pointwise : Tensor or ndarray, shape (K, C)
    b : Tensor or ndarray, shape (K,), optional
    stride : int or pair of int
    padding : int, pair, ((top, bottom), (left, right)), "valid" or "same"
        See `tinyseg.ops.window.resolve`.
    upsample : int
        Repeat every pixel of x that many times along both axes before the convolution.
    activation : {None, "relu"}

    Returns
    -------
    Tensor, shape (N, K, OH, OW), x's dtype
    """
    xs = as_list(x)
    b = bias_or_zeros(b, w_pointwise)
    return SeparableConv2d(stride, padding, upsample, activation)(w_depthwise, w_pointwise, b, *xs)
