"""Pointwise convolution on the GPU: products of two matrices each, whose transposes cuBLAS takes as they lie.

Equations and signatures as in `tinyseg.ops.pointwise_conv`. CuPy copies a transposed stack of matrices before it
multiplies, all of x in grad_w, but not a single matrix.
"""

from tinyseg.cuda import supports
from tinyseg.ops.pointwise_conv import forward, grad_x

__all__ = ["forward", "grad_w", "grad_x", "supports"]


def grad_w(x, gy):
    """Gradient of the weights, (K, C)."""
    (N, C, H, W), K = x.shape, gy.shape[1]
    X, GY = x.reshape(N, C, H * W), gy.reshape(N, K, H * W)
    gw = GY[0] @ X[0].T  # (K,HW) @ (HW,C) -> (K,C)
    for n in range(1, N):
        gw += GY[n] @ X[n].T
    return gw
