r"""Depthwise 2-D convolution: each channel has its own KH x KW kernel.

With stride (sh, sw), dilation (dh, dw), and X the zero-padded input:

    forward   y[n,c,i,j] = sum_{u,v}   X[n,c,i·sh+u·dh,j·sw+v·dw] * w[c,u,v]
    grad_w    gw[c,u,v]  = sum_{n,i,j} X[n,c,i·sh+u·dh,j·sw+v·dw] * gy[n,c,i,j]
    grad_x    gX[n,c,i·sh+u·dh,j·sw+v·dw]   +=   w[c,u,v]         * gy[n,c,i,j]

All three are a loop over the taps (u, v) and differ only in the line inside it. grad_x is the transpose of forward:
where forward *reads* a strided window, grad_x *adds into* the same window.

With dilation (dh, dw) the taps are dh rows and dw columns apart: KH rows of weights cover (KH - 1)·dh + 1 rows of X
(Yu and Koltun 2016, Equation 2, there with the kernel turned round).

Shapes: x (N, C, H, W), w (C, KH, KW), y (N, C, OH, OW), OH = (H + top + bottom - (KH - 1)·dh - 1) // sh + 1.
Fast versions of the same three functions: fast/cpu/depthwise_conv.py, fast/gpu/depthwise_conv.py.
"""

from tinyseg.autograd import Array, Tensor
from tinyseg.backend import kernels, xp_of
from tinyseg.backend.half import HalfFunction
from tinyseg.ops.sums import sum_over
from tinyseg.ops.window import Padding, Pair, add_bias, check_nchw, crop2d, grad_bias, pad2d, pair, resolve, taps

# In these functions channel c of the result depends only on channel c of the arguments.
BY_CHANNEL = ("forward", "grad_w", "grad_x")


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def forward(x, w, stride, pads, out, dilation=(1, 1)):
    """Filter each channel with its kernel: (N, C, H, W) -> (N, C, OH, OW)."""
    X = pad2d(x, pads)
    y = xp_of(x).zeros((*x.shape[:2], *out), x.dtype)
    for u, v, window in taps(X, w.shape[1:], out, stride, dilation):
        y += window * w[:, u, v, None, None]  # (N,C,OH,OW) * (C,1,1)
    return y


def grad_w(x, gy, w_shape, stride, pads, dilation=(1, 1)):
    """Gradient of the kernels, (C, KH, KW)."""
    X = pad2d(x, pads)
    gw = xp_of(x).zeros(w_shape, x.dtype)
    for u, v, window in taps(X, w_shape[1:], gy.shape[2:], stride, dilation):
        gw[:, u, v] = sum_over(window * gy, (0, 2, 3))  # (N,C,OH,OW) -> (C,)
    return gw


def grad_x(gy, w, x_shape, stride, pads, dilation=(1, 1)):
    """Gradient of the input, (N, C, H, W)."""
    (N, C, H, W), ((top, bottom), (left, right)) = x_shape, pads
    gX = xp_of(gy).zeros((N, C, top + H + bottom, left + W + right), gy.dtype)
    for u, v, window in taps(gX, w.shape[1:], gy.shape[2:], stride, dilation):
        window += gy * w[:, u, v, None, None]  # a view: writes into gX
    return crop2d(gX, pads)


# ----- the node of the graph -------------------------------------------------
class DepthwiseConv2d(HalfFunction):
    activations = slice(1)  # x

    def __init__(self, stride=1, padding=0, dilation=1):
        self.stride, self.padding, self.dilation = stride, padding, pair(dilation, "dilation")

    def forward(self, x, w, *b):
        if w.ndim != 3:
            raise ValueError(f"depthwise_conv2d takes w of shape (C, KH, KW), but got {w.shape}.")
        check_nchw("depthwise_conv2d", x, channels=w.shape[0])
        self.stride, self.pads, out = resolve(x.shape, w.shape[1:], self.stride, self.padding, self.dilation)
        self.saved = x, w
        y = kernels(__name__, x, w).forward(x, w, self.stride, self.pads, out, self.dilation)
        return add_bias("depthwise_conv2d", y, *b)

    def backward(self, gy):
        x, w = self.saved
        k, options = kernels(__name__, x, w), (self.stride, self.pads, self.dilation)
        gx = k.grad_x(gy, w, x.shape, *options) if self.needs[0] else None
        gw = k.grad_w(x, gy, w.shape, *options) if self.needs[1] else None
        return gx, gw, *grad_bias(gy, *self.needs[2:])


def depthwise_conv2d(
    x: Tensor | Array,
    w: Tensor | Array,
    b: Tensor | Array | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
) -> Tensor:
    """Filter channel c of `x` with its own kernel `w[c]`; equations in the module docstring.

    Parameters
    ----------
    x : Tensor or ndarray, shape (N, C, H, W)
    w : Tensor or ndarray, shape (C, KH, KW)
    b : Tensor or ndarray, shape (C,), optional
    stride : int or pair of int
    padding : int, pair, ((top, bottom), (left, right)), "valid" or "same"
        See `tinyseg.ops.window.resolve`. "same" counts the (KH - 1)·dh + 1 rows that the kernel covers.
    dilation : int or pair of int
        Pixels from one tap to the next.

    Returns
    -------
    Tensor, shape (N, C, OH, OW), x's dtype

    Raises
    ------
    ValueError
        If shapes or options do not fit together, or the kernel does not fit into the padded input.
    """
    inputs = (x, w) if b is None else (x, w, b)
    return DepthwiseConv2d(stride, padding, dilation)(*inputs)
