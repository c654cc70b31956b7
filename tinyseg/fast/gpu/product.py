"""The matrix products of the convolutions on the GPU, by cuBLAS: of float32, or of float16 with sums in float32.

CuPy gives both to cublasGemmEx with CUBLAS_COMPUTE_32F: float16 matrices are multiplied on the tensor cores, summed in
float32, and the result is rounded to float16. y and the gradients of activations are computed in this way. A gradient
of weights is a sum over all pixels, and scaled by the loss scaler: rounded to float16 it would overflow above 65504.
Here cuBLAS leaves it in float32.
"""

import numpy as np

from tinyseg.backend import devices
from tinyseg.backend.half import is_half
from tinyseg.fast.gpu.graphs import products as cublas
from tinyseg.fast.gpu.launch import contiguous


def product(w, x, out=None):
    """Return W @ x in x's type, to which the weights w, (K, C) or a transpose, are rounded."""
    return cublas.product(w.astype(x.dtype, copy=False), x, out)


def outer(g, x, before=None):
    """Return g (K, P) @ x (C, P)ᵀ in float32, added to `before` (K, C), which may be changed, if that is given."""
    if is_half(x):
        return _outer_of_half(*contiguous(g, x), before)
    found = cublas.product(g, x.T)
    return found if before is None else before + found


def _outer_of_half(g, x, before):
    cp, (K, P), C = devices.cp, g.shape, len(x)
    api, HALF, SINGLE = cp.cuda.cublas, cp.cuda.runtime.CUDA_R_16F, cp.cuda.runtime.CUDA_R_32F
    out = cp.empty((K, C), np.float32) if before is None else before
    one, old = np.ones(1, np.float32), np.full(1, before is not None, np.float32)
    # cuBLAS reads matrices column by column, so that a row of ours is a column of its own: it finds gᵀ and xᵀ, and
    # makes (g xᵀ)ᵀ (C, K) = xᵀᵀ gᵀ. After each address: the type, and the distance of two columns.
    api.gemmEx(
        cp.cuda.get_cublas_handle(), api.CUBLAS_OP_T, api.CUBLAS_OP_N, C, K, P,
        one.ctypes.data, x.data.ptr, HALF, P, g.data.ptr, HALF, P,
        old.ctypes.data, out.data.ptr, SINGLE, C, api.CUBLAS_COMPUTE_32F, api.CUBLAS_GEMM_DEFAULT,
    )  # fmt: skip
    return out
