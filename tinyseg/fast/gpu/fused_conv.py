"""Convolution on the GPU that joins, upsamples, adds a bias and applies a ReLU on the way.

The functions of `tinyseg.ops.fused_conv`; the convolution itself is in conv2d.py beside this file.
"""

from tinyseg.fast.gpu import launch as cuda
from tinyseg.fast.gpu.conv2d import convolve, gradients
from tinyseg.fast.gpu.epilogue import unfinish


def supports(w, b, *xs):
    """All float32, or float16 with float32 weights; at most two inputs to join. In backward b is gy."""
    of_one_type = cuda.supports(w, b) and cuda.supports_real(*xs) or cuda.supports(w) and cuda.supports_real(b, *xs)
    return of_one_type and len(xs) <= 2


def forward(xs, w, b, stride, pads, out, factor, relu):
    """Return y (N, K, OH, OW)."""
    if not cuda.fits((len(xs[0]), len(w), *out)):
        return NotImplemented
    return convolve(xs, w, b, stride, pads, out, factor, relu)


def backward(gy, xs, w, y, needs_x, stride, pads, factor, relu):
    """Gradients of w, b, and a tuple of those of the xs (None if `needs_x` is False)."""
    if not cuda.fits((len(gy), w.shape[1], *xs[0].shape[2:])):
        return NotImplemented
    g, gb = unfinish(gy, y if relu else None)
    gw, gxs = gradients(g, gy.shape[2:], xs, w, w.shape, stride, pads, factor, needs_x)
    return gw, gb, gxs
