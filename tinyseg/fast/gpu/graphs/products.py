"""Products of two matrices on the GPU: by CuPy, or, while a step is recorded for a CUDA graph, by cuBLAS without CuPy.

CuPy refuses to call cuBLAS on a stream that is captured ("calling cuBLAS API during stream capture is currently
unsupported"), though cuBLAS itself allows it (its documentation, "CUDA Graphs Support"). A step that is recorded
therefore calls, through ctypes, the library that CuPy has loaded: the same function, with CuPy's handle and the
arguments that CuPy's `matmul` passes for two matrices, and with a workspace that stays (recording.py).
"""

import ctypes
import functools
import os
import sys

import numpy as np

from tinyseg.backend import devices
from tinyseg.fast.gpu.graphs.recording import recording

FLOAT = 0  # CUDA_R_32F
COMPUTE_FLOAT, COMPUTE_TF32 = 68, 77  # CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32
DEFAULT, DEFAULT_TENSOR_OP = -1, 99  # CUBLAS_GEMM_DEFAULT, CUBLAS_GEMM_DEFAULT_TENSOR_OP
ONE, ZERO = ctypes.c_float(1), ctypes.c_float(0)


def product(a, b, out=None):
    """Multiply two matrices of the GPU, as ``cupy.matmul(a, b, out=out)`` does, also during a capture.

    Parameters
    ----------
    a : CuPy array, shape (n, k)
    b : CuPy array, shape (k, m)
    out : CuPy array, shape (n, m), optional
        In C order.

    Returns
    -------
    CuPy array, shape (n, m)

    Raises
    ------
    TypeError
        If a product of other numbers than float32 is to be captured.
    RuntimeError
        If cuBLAS refuses.
    """
    (n, k), m = a.shape, b.shape[1]
    if recording() is None or 0 in (n, m, k) or n == m == 1:  # CuPy computes these without cuBLAS
        return devices.cp.matmul(a, b, out=out)
    if not a.dtype == b.dtype == np.float32:
        raise TypeError(f"Only products of float32 matrices can be captured, not {a.dtype} times {b.dtype}.")
    out = devices.cp.empty((n, m), a.dtype) if out is None else out
    a, b = (x if x.flags.c_contiguous or x.flags.f_contiguous else devices.cp.ascontiguousarray(x) for x in (a, b))
    b_transposed, a_transposed = b.flags.f_contiguous, not a.flags.c_contiguous
    ldb, lda = k if b_transposed else m, n if a_transposed else k
    device, workspace = devices.cp.cuda.Device(), recording().workspace
    handle, stream = ctypes.c_void_p(device.cublas_handle), devices.cp.cuda.get_current_stream()
    new = int(device.compute_capability) >= 80
    compute = COMPUTE_TF32 if new and int(os.environ.get("CUPY_TF32", "0")) > 0 else COMPUTE_FLOAT
    algorithm = DEFAULT_TENSOR_OP if new else DEFAULT
    _check(library().cublasSetStream_v2(handle, ctypes.c_void_p(stream.ptr)))  # this resets the workspace
    _check(library().cublasSetWorkspace_v2(handle, _pointer(workspace), ctypes.c_size_t(workspace.nbytes)))
    # cuBLAS counts along columns: our (n, m) is its (m, n), and the product is bᵀ aᵀ.
    _check(library().cublasGemmEx(
        handle, int(b_transposed), int(a_transposed), m, n, k, ctypes.byref(ONE), _pointer(b), FLOAT, ldb,
        _pointer(a), FLOAT, lda, ctypes.byref(ZERO), _pointer(out), FLOAT, m, compute, algorithm,
    ))  # fmt: skip
    return out


@functools.cache
def library():
    """Return the cuBLAS that CuPy has loaded; there may be others on the machine, for another CUDA."""
    if sys.platform == "linux":  # dlsym(3) also looks for a name in the libraries that a library is linked with
        return ctypes.CDLL(devices.cp.cuda.cublas.__file__)
    from cuda import pathfinder  # as CuPy does

    return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)


def _pointer(a):
    return ctypes.c_void_p(a.data.ptr)


def _check(status):
    if status:
        raise RuntimeError(f"cuBLAS refused a product that is to be captured, with status {status}.")
