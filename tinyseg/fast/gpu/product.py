"""The matrix products of the convolutions on the GPU, by cuBLAS: of float32, or of float16 with sums in float32.

CuPy gives both to cublasGemmEx with CUBLAS_COMPUTE_32F: float16 matrices are multiplied on the tensor cores, summed in
float32, and the result is rounded to float16. y and the gradients of activations are computed in this way. A gradient
of weights is a sum over all pixels, multiplied by the factor of the loss scaler: in float16 it would overflow above
65504. Here cuBLAS leaves it in float32.
"""

import numpy as np

from tinyseg.backend import devices
from tinyseg.backend.half import is_half
from tinyseg.fast.gpu.graphs import products as cublas
from tinyseg.fast.gpu.launch import contiguous


def product(w, x, out=None):
    """Return w @ x in x's type, to which the weights w are rounded; w is (K, C) or a transposed matrix."""
    return cublas.product(w.astype(x.dtype, copy=False), x, out)


def outer(g, x, before=None):
    """Return g (K, P) @ x (C, P)ᵀ in float32, added to `before` (K, C) if that is given, which may be changed."""
    if not is_half(x):
        found = cublas.product(g, x.T)
        return found if before is None else before + found
    (g, x), cp, (K, P), C = contiguous(g, x), devices.cp, g.shape, len(x)
    api, HALF, SINGLE = cp.cuda.cublas, cp.cuda.runtime.CUDA_R_16F, cp.cuda.runtime.CUDA_R_32F
    out = cp.empty((K, C), np.float32) if before is None else before
    one, old = np.ones(1, np.float32), np.full(1, before is not None, np.float32)
    # cuBLAS reads matrices column by column: our rows are its columns. It finds gᵀ and xᵀ, and computes the transpose
    # of the result, (C, K): (g xᵀ)ᵀ = xᵀᵀ gᵀ. Each address is followed by the type of its elements and the distance of
    # two columns.
    api.gemmEx(
        cp.cuda.get_cublas_handle(), api.CUBLAS_OP_T, api.CUBLAS_OP_N, C, K, P,
        one.ctypes.data, x.data.ptr, HALF, P, g.data.ptr, HALF, P,
        old.ctypes.data, out.data.ptr, SINGLE, C, api.CUBLAS_COMPUTE_32F, api.CUBLAS_GEMM_DEFAULT,
    )  # fmt: skip
    return out
