"""Launches upsample.cu: the functions of `tinyseg.ops.upsample` on float32 and float16 arrays of the GPU.

The maths multiplies with interpolation matrices, which are made on the host and nearly all zeros. Here each output adds
up the few values that it depends on.
"""

from tinyseg.backend import devices
from tinyseg.fast.gpu.launch import blocks_for, contiguous, fits, float32_or_16, launch, load

supports = float32_or_16
kernel = load(__file__)


def nearest_forward(x, factor):
    if not fits(enlarged(x, factor)):
        return NotImplemented
    x, y = contiguous(x), devices.cp.empty(enlarged(x, factor), x.dtype)
    size = y.size // factor[0]
    launch(kernel("nearest_forward", x.dtype), blocks_for(size), x, y, size, y.shape[3], *factor)
    return y


def nearest_grad_x(gy, factor):
    gy, gx = contiguous(gy), devices.cp.empty(reduced(gy, factor), gy.dtype)
    launch(kernel("nearest_grad_x", gy.dtype), blocks_for(gx.size), gy, gx, gx.size, gx.shape[3], *factor)
    return gx


def bilinear_forward(x, factor):
    if not fits(enlarged(x, factor)):
        return NotImplemented
    x, y = contiguous(x), devices.cp.empty(enlarged(x, factor), x.dtype)
    launch(kernel("bilinear_forward", x.dtype), blocks_for(y.size), x, y, y.size, *x.shape[2:], *factor)
    return y


def bilinear_grad_x(gy, factor):
    gy, gx = contiguous(gy), devices.cp.empty(reduced(gy, factor), gy.dtype)
    launch(kernel("bilinear_grad_x", gy.dtype), blocks_for(gx.size), gy, gx, gx.size, *gx.shape[2:], *factor)
    return gx


def enlarged(x, factor):
    """Return the shape of y."""
    return *x.shape[:2], x.shape[2] * factor[0], x.shape[3] * factor[1]


def reduced(gy, factor):
    """Return the shape of gx."""
    return *gy.shape[:2], gy.shape[2] // factor[0], gy.shape[3] // factor[1]
