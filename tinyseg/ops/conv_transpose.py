"""Transposed 2-D convolution: conv2d's grad_x used as a forward pass.

Each input pixel adds its kernel, times its value, to the output. With stride (sh, sw), and Y the output before its
border of `padding` is cut off:

    forward   Y[n,k,i·sh+u,j·sw+v] += x[n,c,i,j] * w[c,k,u,v]
    grad_x    gx[n,c,i,j] = sum_{k,u,v} GY[n,k,i·sh+u,j·sw+v] * w[c,k,u,v]         (a convolution)
    grad_w    gw[c,k,u,v] = sum_{n,i,j} x[n,c,i,j] * GY[n,k,i·sh+u,j·sw+v]

With c and k exchanged, these are grad_x, forward and grad_w of conv2d.py, and its functions compute them: y is the
input of that convolution and x its output.

Shapes: x (N, C, H, W), w (C, K, KH, KW), y (N, K, OH, OW), OH = (H - 1)·sh - 2·ph + KH + output_padding.
"""

from tinyseg.autograd import Array, Tensor
from tinyseg.backend import kernels
from tinyseg.backend.half import HalfFunction
from tinyseg.ops.conv2d import Conv2d
from tinyseg.ops.window import Padding, Pair, add_bias, check_nchw, grad_bias, pair


class ConvTranspose2d(HalfFunction):
    activations = slice(1)  # x

    def __init__(self, stride=1, padding=0, output_padding=0):
        self.stride, self.padding = pair(stride, "stride"), pair(padding, "padding")
        self.extra = pair(output_padding, "output_padding")

    def forward(self, x, w, *b):
        if w.ndim != 4:
            raise ValueError(f"conv_transpose2d takes w of shape (C, K, KH, KW), but got {w.shape}.")
        check_nchw("conv_transpose2d", x, channels=w.shape[0])
        if min(self.stride) < 1 or min(self.padding) < 0:
            raise ValueError(
                f"conv_transpose2d: stride must be at least 1 and padding must not be negative, but are {self.stride} "
                f"and {self.padding}."
            )
        sizes = zip(x.shape[2:], self.stride, self.padding, w.shape[2:], self.extra, strict=True)
        out = tuple((n - 1) * s - 2 * p + k + e for n, s, p, k, e in sizes)
        self.pads = tuple((p, p) for p in self.padding)
        # conv2d brings sh (sw) different sizes back to the same H (W); output_padding chooses one of them.
        if min(out) < 1 or not all(0 <= e < s for e, s in zip(self.extra, self.stride, strict=True)):
            raise ValueError(
                f"conv_transpose2d: input {x.shape[2:]}, kernel {w.shape[2:]}, stride {self.stride}, padding "
                f"{self.padding} and output_padding {self.extra} do not fit; output_padding must be below the stride."
            )
        self.saved = x, w
        y = kernels(Conv2d.__module__, x, w).grad_x(x, w, (len(x), w.shape[1], *out), self.stride, self.pads)
        return add_bias("conv_transpose2d", y, *b)

    def backward(self, gy):
        x, w = self.saved
        k = kernels(Conv2d.__module__, x, w)
        gx = k.forward(gy, w, self.stride, self.pads, x.shape[2:]) if self.needs[0] else None
        gw = k.grad_w(gy, x, w.shape, self.stride, self.pads) if self.needs[1] else None
        return gx, gw, *grad_bias(gy, *self.needs[2:])


def conv_transpose2d(
    x: Tensor | Array,
    w: Tensor | Array,
    b: Tensor | Array | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    output_padding: Pair = 0,
) -> Tensor:
    """Transposed convolution ("deconvolution"); equations in the module docstring.

    Parameters
    ----------
    x : Tensor or ndarray, shape (N, C, H, W)
    w : Tensor or ndarray, shape (C, K, KH, KW)
    b : Tensor or ndarray, shape (K,), optional
    stride, padding, output_padding : int or pair of int
        As in PyTorch: `padding` is cut from each side of the output, `output_padding` (smaller than the stride)
        adds rows and columns at the bottom and right.

    Returns
    -------
    Tensor, shape (N, K, OH, OW), x's dtype
    """
    inputs = (x, w) if b is None else (x, w, b)
    return ConvTranspose2d(stride, padding, output_padding)(*inputs)
