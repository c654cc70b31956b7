"""Pointwise convolution on the GPU: products of two matrices each, whose transposes cuBLAS takes as they lie.

Equations and signatures as in `tinyseg.ops.pointwise_conv`. CuPy copies a transposed stack of matrices before it
multiplies, all of x in grad_w, but not a single matrix. Single matrices throughout, forward and back, are float16
images, because of a stack in float16 each must begin where cuBLAS's vectors do, and what is recorded for a CUDA graph,
because `tinyseg.fast.gpu.graphs.products` has no stacks.
"""

from tinyseg.backend import devices
from tinyseg.backend.half import is_half
from tinyseg.fast.gpu.depthwise_conv import supports
from tinyseg.fast.gpu.graphs.recording import recording
from tinyseg.fast.gpu.launch import contiguous
from tinyseg.fast.gpu.product import outer, product

__all__ = ["forward", "grad_w", "grad_x", "supports"]


def forward(x, w):
    """Map the channels of every pixel: (N, C, H, W) -> (N, K, H, W)."""
    if not is_half(x) and recording() is None:
        return NotImplemented
    x, (N, C, H, W) = contiguous(x), x.shape
    y = devices.cp.empty((N, len(w), H, W), x.dtype)
    for n in range(N):
        product(w, x[n].reshape(C, H * W), out=y[n].reshape(-1, H * W))
    return y


def grad_x(gy, w):
    """Gradient of the input: the transposed map."""
    return forward(gy, w.T)


def grad_w(x, gy):
    """Gradient of the weights, (K, C)."""
    (N, C, H, W), K, gw = x.shape, gy.shape[1], None
    X, GY = x.reshape(N, C, H * W), gy.reshape(N, K, H * W)
    for n in range(N):
        gw = outer(GY[n], X[n], gw)  # (K,HW) @ (HW,C) -> (K,C)
    return gw
