"""Convolution on the GPU that joins and upsamples what it reads, adds a bias and applies a ReLU.

The functions of `tinyseg.ops.fused_conv`; the convolution itself is in conv2d.py beside this file.
"""

from tinyseg.fast.gpu.conv2d import convolve, gradients
from tinyseg.fast.gpu.epilogue import begin_backward
from tinyseg.fast.gpu.launch import fits, float32, float32_or_16


def supports(w, b, *xs):
    """Whether there are one or two inputs of float32 or float16, and float32 parameters. In backward b is gy."""
    return len(xs) <= 2 and float32(w) and (float32(b) and float32_or_16(*xs) or float32_or_16(b, *xs))


def forward(xs, w, b, stride, pads, out, factor, relu):
    if not fits((len(xs[0]), len(w), *out)):
        return NotImplemented
    return convolve(xs, w, b, stride, pads, out, factor, relu)


def backward(gy, xs, w, y, needs_x, stride, pads, factor, relu):
    if not fits((len(gy), w.shape[1], *xs[0].shape[2:])):
        return NotImplemented
    g, gb = begin_backward(gy, y if relu else None)
    gw, gxs = gradients(g, gy.shape[2:], xs, w, w.shape, stride, pads, factor, needs_x)
    return gw, gb, gxs
