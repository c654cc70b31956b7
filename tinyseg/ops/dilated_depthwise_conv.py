r"""Dilated (atrous) depthwise 2-D convolution: a depthwise convolution whose taps stand (dh, dw) pixels apart.

With stride (sh, sw), dilation (dh, dw), and X the zero-padded input:

    forward   y[n,c,i,j] = sum_{u,v}   X[n,c,i·sh+u·dh,j·sw+v·dw] * w[c,u,v]
    grad_w    gw[c,u,v]  = sum_{n,i,j} X[n,c,i·sh+u·dh,j·sw+v·dw] * gy[n,c,i,j]
    grad_x    gX[n,c,i·sh+u·dh,j·sw+v·dw]   +=   w[c,u,v]         * gy[n,c,i,j]

They are the lines of depthwise_conv.py, which is the case dh = dw = 1, with u and v stretched. The kernel covers
(KH - 1)·dh + 1 rows with KH rows of weights: a wide view for the price of a small kernel.

Shapes: x (N, C, H, W), w (C, KH, KW), y (N, C, OH, OW), OH = (H + top + bottom - (KH - 1)·dh - 1) // sh + 1.
Source: Yu and Koltun 2016, "Multi-Scale Context Aggregation by Dilated Convolutions", Equation 2 (there as a true
convolution, the kernel turned round). A fast version of the same three functions: dilated_depthwise_conv_numba.py.
"""

from tinyseg.autograd import Function
from tinyseg.backend import kernels, xp_of
from tinyseg.ops.by_channels import by_channels
from tinyseg.ops.window import add_bias, check_nchw, crop2d, grad_bias, pad2d, pair, resolve, taps


# ----- the maths (NumPy or CuPy) ---------------------------------------------
@by_channels
def forward(x, w, stride, pads, out, dilation):
    """Filter each channel with its stretched kernel: (N, C, H, W) -> (N, C, OH, OW)."""
    X = pad2d(x, pads)
    y = xp_of(x).zeros((*x.shape[:2], *out), x.dtype)
    for u, v, window in taps(X, w.shape[1:], out, stride, dilation):
        y += window * w[:, u, v, None, None]  # (N,C,OH,OW) * (C,1,1)
    return y


@by_channels
def grad_w(x, gy, w_shape, stride, pads, dilation):
    """Gradient of the kernels, (C, KH, KW)."""
    X = pad2d(x, pads)
    gw = xp_of(x).zeros((x.shape[1], *w_shape[1:]), x.dtype)
    for u, v, window in taps(X, w_shape[1:], gy.shape[2:], stride, dilation):
        gw[:, u, v] = (window * gy).sum(axis=(0, 2, 3))  # (N,C,OH,OW) -> (C,)
    return gw


@by_channels
def grad_x(gy, w, x_shape, stride, pads, dilation):
    """Gradient of the input, (N, C, H, W)."""
    (N, C), (H, W), ((top, bottom), (left, right)) = gy.shape[:2], x_shape[2:], pads
    gX = xp_of(gy).zeros((N, C, top + H + bottom, left + W + right), gy.dtype)
    for u, v, window in taps(gX, w.shape[1:], gy.shape[2:], stride, dilation):
        window += gy * w[:, u, v, None, None]  # a view: writes into gX
    return crop2d(gX, pads)


# ----- the node of the graph -------------------------------------------------
class DilatedDepthwiseConv2d(Function):
    mixes = slice(1)  # x

    def __init__(self, dilation, stride=1, padding=0):
        self.dilation, self.stride, self.padding = pair(dilation, "dilation"), stride, padding

    def forward(self, x, w, *b):
        if w.ndim != 3:
            raise ValueError(f"dilated_depthwise_conv2d takes w of shape (C, KH, KW), but got {w.shape}.")
        check_nchw("dilated_depthwise_conv2d", x, channels=w.shape[0])
        self.stride, self.pads, out = resolve(x.shape, w.shape[1:], self.stride, self.padding, self.dilation)
        self.saved = x, w
        y = kernels(__name__, x, w).forward(x, w, self.stride, self.pads, out, self.dilation)
        return add_bias("dilated_depthwise_conv2d", y, *b)

    def backward(self, gy):
        x, w = self.saved
        k, options = kernels(__name__, x, w), (self.stride, self.pads, self.dilation)
        gx = k.grad_x(gy, w, x.shape, *options) if self.needs[0] else None
        gw = k.grad_w(x, gy, w.shape, *options) if self.needs[1] else None
        return gx, gw, *grad_bias(gy, *self.needs[2:])


def dilated_depthwise_conv2d(x, w, b=None, dilation=2, stride=1, padding=0):
    """Filter channel c of `x` with its own kernel `w[c]`, taps `dilation` apart; equations in the module docstring.

    Parameters
    ----------
    x : Tensor or ndarray, shape (N, C, H, W)
    w : Tensor or ndarray, shape (C, KH, KW)
    b : Tensor or ndarray, shape (C,), optional
    dilation : int or pair of int
        Pixels from one tap to the next; 1 is `depthwise_conv2d`, which is faster.
    stride : int or pair of int
    padding : int, pair, ((top, bottom), (left, right)), "valid" or "same"
        See `tinyseg.ops.window.resolve`. "same" is that of a kernel of (KH - 1)·dh + 1 rows.

    Returns
    -------
    Tensor, shape (N, C, OH, OW), x's dtype

    Raises
    ------
    ValueError
        If shapes or options do not fit together, or the stretched kernel does not fit into the padded input.
    """
    return DilatedDepthwiseConv2d(dilation, stride, padding)(x, w, *([] if b is None else [b]))
