"""Pointwise convolution on the GPU: one matrix product for each image, by cuBLAS.

The functions of `tinyseg.ops.pointwise_conv`. The maths file multiplies a stack of matrices. Before that CuPy copies a
transposed stack (in grad_w all of x), but it does not copy a single transposed matrix. So grad_w multiplies image by
image. `forward` and grad_x leave stacks to the maths, but for two cases, which go image by image too: float16, where
each matrix of a stack would have to begin where cuBLAS's vectors do, and steps that are recorded for a CUDA graph,
because `tinyseg.fast.gpu.graphs.products` has no stacks.
"""

from tinyseg.backend import devices
from tinyseg.backend.half import is_half
from tinyseg.fast.gpu.depthwise_conv import supports  # noqa: F401
from tinyseg.fast.gpu.graphs.recording import recording
from tinyseg.fast.gpu.launch import contiguous
from tinyseg.fast.gpu.product import outer, product


def forward(x, w):
    if not is_half(x) and recording() is None:
        return NotImplemented
    x, (N, C, H, W) = contiguous(x), x.shape
    y = devices.cp.empty((N, len(w), H, W), x.dtype)
    for n in range(N):
        product(w, x[n].reshape(C, H * W), out=y[n].reshape(-1, H * W))
    return y


def grad_x(gy, w):
    return forward(gy, w.T)


def grad_w(x, gy):
    (N, C, H, W), K, gw = x.shape, gy.shape[1], None
    X, GY = x.reshape(N, C, H * W), gy.reshape(N, K, H * W)
    for n in range(N):
        gw = outer(GY[n], X[n], gw)  # (K,HW) @ (HW,C) -> (K,C)
    return gw
