"""The functions of cuBLAS that `tinyseg.cublas` calls by themselves, on the CPU: checked, and noted in a capture."""

import ctypes

import fake_cuda
import fake_graphs
import numpy as np

stream = workspace = None


def cublasSetStream_v2(handle, to):
    global stream, workspace
    assert handle.value == 1
    stream, workspace = to.value or 0, None  # cuBLAS goes back to memory of its own
    return 0


def cublasSetWorkspace_v2(handle, address, size):
    global workspace
    assert handle.value == 1 and address.value and size.value == 32 << 20
    workspace = address.value
    return 0


def cublasGemmEx(
    handle, ta, tb, m, n, k, alpha, A, a_type, lda, B, b_type, ldb, beta, C, c_type, ldc, compute, algorithm
):
    """C = op(A) op(B), all of them counted along columns."""
    assert stream == fake_cuda.current_stream().ptr and workspace is not None
    assert (alpha._obj.value, beta._obj.value) == (1, 0) and (a_type, b_type, c_type) == (0, 0, 0)
    assert compute == 68 and algorithm == 99 and min(m, n, k) > 0
    assert lda == (k if ta else m) and ldb == (n if tb else k) and ldc == m
    a, b, c = (
        _rows(p, shape) for p, shape in ((A, (m, k) if ta else (k, m)), (B, (k, n) if tb else (n, k)), (C, (n, m)))
    )
    if fake_graphs.capture is not None:
        fake_graphs.capture.kept += a, b, c
    fake_graphs.change(_multiply, b.T if tb else b, a.T if ta else a, c)
    return 0


def _multiply(b, a, c):
    np.matmul(b, a, out=c)


def _rows(pointer, shape):
    """The matrix as NumPy sees it: along rows. Memory that is in no pool is taken to stay."""
    size = 4 * shape[0] * shape[1]
    return np.ndarray(shape, np.float32, buffer=(ctypes.c_char * size).from_address(pointer.value))
