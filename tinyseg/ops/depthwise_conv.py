r"""Depthwise 2-D convolution: every channel is filtered by its own KH x KW kernel.

With stride (sh, sw), and X the zero-padded input:

    forward   y[n,c,i,j] = sum_{u,v}   X[n,c,i·sh+u,j·sw+v] * w[c,u,v]
    grad_w    gw[c,u,v]  = sum_{n,i,j} X[n,c,i·sh+u,j·sw+v] * gy[n,c,i,j]
    grad_x    gX[n,c,i·sh+u,j·sw+v]   +=   w[c,u,v]         * gy[n,c,i,j]

The three lines are one loop over the taps (u, v); only the line in the middle changes. grad_x is
the transpose of forward: where forward *reads* a strided window, grad_x *adds into* the same window.

Shapes: x (N, C, H, W), w (C, KH, KW), y (N, C, OH, OW), OH = (H + top + bottom - KH) // sh + 1.
Fast versions of the same three functions: depthwise_conv_numba.py (CPU), depthwise_conv_cuda.py (GPU).
"""

from tinyseg.autograd import Function
from tinyseg.backend import kernels, xp_of
from tinyseg.ops.by_channels import by_channels
from tinyseg.ops.window import add_bias, check_nchw, crop2d, grad_bias, pad2d, resolve, taps


# ----- the maths (NumPy or CuPy) ---------------------------------------------
@by_channels
def forward(x, w, stride, pads, out):
    """Filter each channel with its kernel: (N, C, H, W) -> (N, C, OH, OW)."""
    X = pad2d(x, pads)
    y = xp_of(x).zeros((*x.shape[:2], *out), x.dtype)
    for u, v, window in taps(X, w.shape[1:], out, stride):
        y += window * w[:, u, v, None, None]  # (N,C,OH,OW) * (C,1,1)
    return y


@by_channels
def grad_w(x, gy, w_shape, stride, pads):
    """Gradient of the kernels, (C, KH, KW)."""
    X = pad2d(x, pads)
    gw = xp_of(x).zeros((x.shape[1], *w_shape[1:]), x.dtype)
    for u, v, window in taps(X, w_shape[1:], gy.shape[2:], stride):
        gw[:, u, v] = (window * gy).sum(axis=(0, 2, 3))  # (N,C,OH,OW) -> (C,)
    return gw


@by_channels
def grad_x(gy, w, x_shape, stride, pads):
    """Gradient of the input, (N, C, H, W)."""
    (N, C), (H, W), ((top, bottom), (left, right)) = gy.shape[:2], x_shape[2:], pads
    gX = xp_of(gy).zeros((N, C, top + H + bottom, left + W + right), gy.dtype)
    for u, v, window in taps(gX, w.shape[1:], gy.shape[2:], stride):
        window += gy * w[:, u, v, None, None]  # a view: writes into gX
    return crop2d(gX, pads)


# ----- the node of the graph -------------------------------------------------
class DepthwiseConv2d(Function):
    mixes = slice(1)  # x

    def __init__(self, stride=1, padding=0):
        self.stride, self.padding = stride, padding

    def forward(self, x, w, *b):
        if w.ndim != 3:
            raise ValueError(f"depthwise_conv2d takes w of shape (C, KH, KW), but got {w.shape}.")
        check_nchw("depthwise_conv2d", x, channels=w.shape[0])
        self.stride, self.pads, out = resolve(x.shape, w.shape[1:], self.stride, self.padding)
        self.saved = x, w
        y = kernels(__name__, x, w).forward(x, w, self.stride, self.pads, out)
        return add_bias("depthwise_conv2d", y, *b)

    def backward(self, gy):
        x, w = self.saved
        k = kernels(__name__, x, w)
        gx = k.grad_x(gy, w, x.shape, self.stride, self.pads) if self.needs[0] else None
        gw = k.grad_w(x, gy, w.shape, self.stride, self.pads) if self.needs[1] else None
        return gx, gw, *grad_bias(gy, *self.needs[2:])


def depthwise_conv2d(x, w, b=None, stride=1, padding=0):
    """Filter channel c of `x` with its own kernel `w[c]`; equations in the module docstring.

    Parameters
    ----------
    x : Tensor or ndarray, shape (N, C, H, W)
    w : Tensor or ndarray, shape (C, KH, KW)
    b : Tensor or ndarray, shape (C,), optional
    stride : int or pair of int
    padding : int, pair, ((top, bottom), (left, right)), "valid" or "same"
        See `tinyseg.ops.window.resolve`.

    Returns
    -------
    Tensor, shape (N, C, OH, OW), x's dtype
    """
    return DepthwiseConv2d(stride, padding)(x, w, *([] if b is None else [b]))
