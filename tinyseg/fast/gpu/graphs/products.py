"""Products of float32 matrices on the GPU: CuPy's, and while a step is captured cuBLAS's own.

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
    """Multiply two matrices of the GPU: ``cupy.matmul(a, b, out=out)``, which may be captured too.

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
    _gemm(b, b.flags.f_contiguous, a, not a.flags.c_contiguous, out)
    return out


def _gemm(b, b_transposed, a, a_transposed, out):
    """Write out = a b. cuBLAS counts along columns: our (n, m) is its (m, n), and the product is bᵀ aᵀ."""
    (n, m), k = out.shape, a.shape[1]
    ldb, lda = k if b_transposed else m, n if a_transposed else k
    device = devices.cp.cuda.Device()
    handle = ctypes.c_void_p(device.cublas_handle)
    _use_stream(handle)
    new = int(device.compute_capability) >= 80
    compute = COMPUTE_TF32 if new and int(os.environ.get("CUPY_TF32", "0")) > 0 else COMPUTE_FLOAT
    _check(
        library().cublasGemmEx(
            handle, int(b_transposed), int(a_transposed), m, n, k, ctypes.byref(ONE), _pointer(b), FLOAT, ldb,
            _pointer(a), FLOAT, lda, ctypes.byref(ZERO), _pointer(out), FLOAT, m, compute,
            DEFAULT_TENSOR_OP if new else DEFAULT,
        )
    )  # fmt: skip


def _use_stream(handle):
    """Let cuBLAS work on the current stream, in memory that the graph keeps. A new stream resets the workspace."""
    workspace = recording().workspace
    _check(library().cublasSetStream_v2(handle, ctypes.c_void_p(devices.cp.cuda.get_current_stream().ptr)))
    _check(library().cublasSetWorkspace_v2(handle, _pointer(workspace), ctypes.c_size_t(workspace.nbytes)))


@functools.cache
def library():
    """Return the cuBLAS that CuPy has loaded; there may be others, for another CUDA."""
    if sys.platform == "linux":  # a symbol is also looked for in the libraries that a library is linked with: dlsym(3)
        return ctypes.CDLL(devices.cp.cuda.cublas.__file__)
    from cuda import pathfinder  # CuPy finds it so

    return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)


def _pointer(a):
    return ctypes.c_void_p(a.data.ptr)


def _check(status):
    if status:
        raise RuntimeError(f"cuBLAS refused a product that is to be captured: its status is {status}.")
