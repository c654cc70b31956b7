r"""Standard 2-D convolution as a matrix product. (Deep learning says convolution for what is a cross-correlation.)

With stride (sh, sw), and X the zero-padded input:

    y[n,k,i,j] = sum_{c,u,v} w[k,c,u,v] * X[n,c,i·sh+u,j·sw+v] + b[k]

Write the window of output (i, j) as one column of a matrix, cols(X)[cuv, ij] = X[c,i·sh+u,j·sw+v]. Then, per image,

    forward   Y      = W cols(X) + b         (K, OH·OW) = (K, C·KH·KW) (C·KH·KW, OH·OW)
    grad_w    gW     = sum_n GY[n] cols(X[n])ᵀ
    grad_x    gcols  = Wᵀ GY,  gX = colsᵀ(gcols): add each column back to where it was read
    grad_b    gb[k]  = sum_{n,i,j} gy[n,k,i,j]

The columns take KH·KW times the memory of X, so they are made for a few rows of one image at a time.

Shapes: x (N, C, H, W), w (K, C, KH, KW), b (K,), y (N, K, OH, OW), OH = (H + top + bottom - KH) // sh + 1.
"""

import math

from tinyseg.autograd import Array, Tensor
from tinyseg.backend import kernels, xp_of
from tinyseg.backend.half import HalfFunction
from tinyseg.ops.window import Padding, Pair, add_bias, check_nchw, crop2d, grad_bias, pad2d, resolve, taps

STRIP = 1 << 22  # numbers in the columns of one strip: 16 MiB in float32, about the last cache of a processor


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def forward(x, w, stride, pads, out):
    """Convolve: (N, C, H, W) -> (N, K, OH, OW)."""
    xp, X, Wm = xp_of(x), pad2d(x, pads), rows_of(w)  # Wm (K, C·KH·KW)
    y = xp.empty((len(x), len(w), *out), x.dtype)
    for Xs, ys in strips(X, y, w.shape[2:], stride):
        ys[...] = (Wm @ im2col(Xs, w.shape[2:], ys.shape[1:], stride)).reshape(ys.shape)
    return y


def grad_w(x, gy, w_shape, stride, pads):
    """Gradient of the weights, (K, C, KH, KW)."""
    K, C, KH, KW = w_shape
    gW = xp_of(x).zeros((K, C * KH * KW), x.dtype)
    for Xs, gys in strips(pad2d(x, pads), gy, (KH, KW), stride):
        gW += rows_of(gys) @ im2col(Xs, (KH, KW), gys.shape[1:], stride).T
    return gW.reshape(w_shape)


def grad_x(gy, w, x_shape, stride, pads):
    """Gradient of the input, (N, C, H, W)."""
    (N, C, H, W), ((top, bottom), (left, right)) = x_shape, pads
    KH, KW = w.shape[2:]
    gX = xp_of(gy).zeros((N, C, top + H + bottom, left + W + right), gy.dtype)
    for gXs, gys in strips(gX, gy, (KH, KW), stride):
        gcols = (rows_of(w).T @ rows_of(gys)).reshape(C, KH, KW, *gys.shape[1:])
        for u, v, window in taps(gXs, (KH, KW), gys.shape[1:], stride):
            window += gcols[:, u, v]  # a view: writes into gX
    return crop2d(gX, pads)


def strips(X, y, kernel, stride):
    """Yield pairs of views: the rows of X that a few rows of y[n] come from, (1, C, ·, W), and these, (K, rows, OW)."""
    (N, _, OH, OW), (KH, KW), sh = y.shape, kernel, stride[0]
    rows = max(1, STRIP // max(X.shape[1] * KH * KW * OW, 1))
    for n in range(N):
        for i in range(0, OH, rows):
            ys = y[n, :, i : i + rows]
            yield X[n : n + 1, :, i * sh : (i + ys.shape[1] - 1) * sh + KH], ys


def im2col(X, kernel, out, stride):
    """Return the columns of some rows of one padded image X (1, C, ·, W): (C·KH·KW, OH·OW)."""
    C = X.shape[1]
    cols = xp_of(X).empty((C, *kernel, *out), X.dtype)
    for u, v, window in taps(X, kernel, out, stride):
        cols[:, u, v] = window[0]
    return cols.reshape(C * kernel[0] * kernel[1], out[0] * out[1])


def rows_of(a):
    """Return an array as a matrix with one row for each entry of the first axis."""
    return a.reshape(len(a), math.prod(a.shape[1:]))  # -1 would not do for an empty array


# ----- the node of the graph -------------------------------------------------
class Conv2d(HalfFunction):
    activations = slice(1)  # x

    def __init__(self, stride=1, padding=0):
        self.stride, self.padding = stride, padding

    def forward(self, x, w, *b):
        if w.ndim != 4:
            raise ValueError(f"conv2d takes w of shape (K, C, KH, KW), but got {w.shape}.")
        check_nchw("conv2d", x, channels=w.shape[1])
        self.stride, self.pads, out = resolve(x.shape, w.shape[2:], self.stride, self.padding)
        self.saved = x, w
        y = kernels(__name__, x, w).forward(x, w, self.stride, self.pads, out)
        return add_bias("conv2d", y, *b)

    def backward(self, gy):
        x, w = self.saved
        k = kernels(__name__, x, w)
        gx = k.grad_x(gy, w, x.shape, self.stride, self.pads) if self.needs[0] else None
        gw = k.grad_w(x, gy, w.shape, self.stride, self.pads) if self.needs[1] else None
        return gx, gw, *grad_bias(gy, *self.needs[2:])


def conv2d(
    x: Tensor | Array,
    w: Tensor | Array,
    b: Tensor | Array | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
) -> Tensor:
    """Convolve `x` with the K kernels `w`; equations in the module docstring.

    Parameters
    ----------
    x : Tensor or ndarray, shape (N, C, H, W)
    w : Tensor or ndarray, shape (K, C, KH, KW)
    b : Tensor or ndarray, shape (K,), optional
    stride : int or pair of int
    padding : int, pair, ((top, bottom), (left, right)), "valid" or "same"
        See `tinyseg.ops.window.resolve`.

    Returns
    -------
    Tensor, shape (N, K, OH, OW), x's dtype
    """
    inputs = (x, w) if b is None else (x, w, b)
    return Conv2d(stride, padding)(*inputs)
