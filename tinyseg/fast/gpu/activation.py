"""Launches activation.cu: the functions of `tinyseg.ops.activation` on float32 and float16 arrays of the GPU.

A softmax over more than CLASSES classes is left to the maths: one thread would have to add up too many numbers.
"""

import math

from tinyseg.backend import devices
from tinyseg.fast.gpu.launch import blocks_for, contiguous, float32_or_16, launch, load

CLASSES = 64
supports = float32_or_16
kernel = load(__file__)


def relu_forward(x):
    return _each(kernel("relu_forward", x.dtype), x)


def relu_grad(gy, y):
    return _each(kernel("relu_grad", gy.dtype), gy, y)


def sigmoid_forward(x):
    return _each(kernel("sigmoid_forward", x.dtype), x)


def sigmoid_grad(gy, y):
    return _each(kernel("sigmoid_grad", gy.dtype), gy, y)


def softmax_forward(x, axis):
    return _along(kernel("softmax_forward", x.dtype), axis, x)


def softmax_grad(gy, y, axis):
    return _along(kernel("softmax_grad", gy.dtype), axis, gy, y)


def log_softmax_forward(x, axis):
    return _along(kernel("log_softmax_forward", x.dtype), axis, x)


def log_softmax_grad(gy, y, axis):
    return _along(kernel("log_softmax_grad", gy.dtype), axis, gy, y)


def _each(function, *arrays):
    out = devices.cp.empty(arrays[0].shape, arrays[0].dtype)
    launch(function, blocks_for(out.size), *(contiguous(a) for a in arrays), out, out.size)
    return out


def _along(function, axis, *arrays):
    shape = arrays[0].shape
    if shape[axis] > CLASSES:
        return NotImplemented
    out, A, inner = devices.cp.empty(shape, arrays[0].dtype), shape[axis], math.prod(shape[axis:][1:])
    pixels = out.size // A
    launch(function, blocks_for(pixels), *(contiguous(a) for a in arrays), out, pixels, A, inner)
    return out
