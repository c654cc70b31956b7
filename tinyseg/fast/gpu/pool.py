"""Launches pool.cu: the functions of `tinyseg.ops.pool` on float32 and float16 arrays of the GPU."""

import numpy as np

from tinyseg.backend import devices
from tinyseg.fast.gpu.launch import blocks_for, contiguous, fits, float32_or_16, launch, load

TWO = (2, 2), (2, 2), ((0, 0), (0, 0))  # kernel, stride, pads of the pools that networks use
supports = float32_or_16
kernel = load(__file__)


def max_forward(x, kernel_size, stride, pads, out):
    if not fits((*x.shape[:2], *out)):
        return NotImplemented
    x, y = contiguous(x), devices.cp.empty((*x.shape[:2], *out), x.dtype)
    winner = devices.cp.empty(y.shape, np.uint8)
    end = sizes(x.shape, kernel_size, stride, pads, out)
    launch(kernel("max_forward", x.dtype), blocks_for(y.size), x, y, winner, y.size, *end)
    return y, winner


def max_grad_x(gy, winner, x_shape, kernel_size, stride, pads):
    if not fits(x_shape):
        return NotImplemented
    gy, winner = contiguous(gy, winner)
    gx = devices.cp.empty(x_shape, gy.dtype)
    if (kernel_size, stride, pads) == TWO:
        N, C, H, W = x_shape
        size = N * C * blocks_for(H, 2) * W
        launch(kernel("max_of_four_gradient", gy.dtype), blocks_for(size), gy, winner, gx, size, H, W, *gy.shape[2:])
    else:
        end = sizes(x_shape, kernel_size, stride, pads, gy.shape[2:])
        launch(kernel("max_grad_x", gy.dtype), blocks_for(gx.size), gy, winner, gx, gx.size, *end)
    return gx


def avg_forward(x, kernel_size, stride, pads, out):
    if not fits((*x.shape[:2], *out)):
        return NotImplemented
    x, y = contiguous(x), devices.cp.empty((*x.shape[:2], *out), x.dtype)
    end = sizes(x.shape, kernel_size, stride, pads, out)
    launch(kernel("avg_forward", x.dtype), blocks_for(y.size), x, y, y.size, *end)
    return y


def avg_grad_x(gy, x_shape, kernel_size, stride, pads):
    if not fits(x_shape):
        return NotImplemented
    gy, gx = contiguous(gy), devices.cp.empty(x_shape, gy.dtype)
    end = sizes(x_shape, kernel_size, stride, pads, gy.shape[2:])
    launch(kernel("avg_grad_x", gy.dtype), blocks_for(gx.size), gy, gx, gx.size, *end)
    return gx


def sizes(x_shape, kernel_size, stride, pads, out):
    """Return what the kernels are told: H, W, KH, KW, OH, OW, sh, sw, top, left."""
    return (*x_shape[2:], *kernel_size, *out, *stride, *(before for before, _ in pads))
