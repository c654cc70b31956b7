"""Pointwise convolution on the GPU: products of two matrices each, whose transposes cuBLAS takes as they lie.

Equations and signatures as in `tinyseg.ops.pointwise_conv`. CuPy copies a transposed stack of matrices before it
multiplies, all of x in grad_w, but not a single matrix. What is recorded for a CUDA graph is single matrices
throughout: `tinyseg.cublas` has no stacks.
"""

from tinyseg import backend
from tinyseg.cublas import product
from tinyseg.cuda import contiguous, supports
from tinyseg.ops import pointwise_conv as maths
from tinyseg.recording import recording

__all__ = ["forward", "grad_w", "grad_x", "supports"]


def forward(x, w):
    """Map the channels of every pixel."""
    if recording() is None:
        return maths.forward(x, w)
    x, (N, C, H, W) = contiguous(x), x.shape
    y = backend.cp.empty((N, len(w), H, W), x.dtype)
    for n in range(N):
        product(w, x[n].reshape(C, H * W), out=y[n].reshape(-1, H * W))
    return y


def grad_x(gy, w):
    """Gradient of the input."""
    return forward(gy, w.T)


def grad_w(x, gy):
    """Gradient of the weights, (K, C)."""
    (N, C, H, W), K = x.shape, gy.shape[1]
    X, GY = x.reshape(N, C, H * W), gy.reshape(N, K, H * W)
    gw = product(GY[0], X[0].T)  # (K,HW) @ (HW,C) -> (K,C)
    for n in range(1, N):
        gw += product(GY[n], X[n].T)
    return gw
