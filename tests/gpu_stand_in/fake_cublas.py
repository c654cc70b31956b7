"""As much of cuBLAS as tinyseg calls by itself, on the memory of the stand-in: checked, and noted in a capture.

It knows addresses, types and distances only, as the real one does, and reads matrices column by column. The functions
named cublas… are the library's own, which `tinyseg.fast.gpu.graphs.products` calls; `gemmEx` is CuPy's, in
`cupy.cuda.cublas`.
"""

import ctypes

import fake_cuda
import fake_graphs
import numpy as np

# From CUDA's headers cublas_api.h and library_types.h; CuPy 14.2 has the same under these names.
CUBLAS_OP_N, CUBLAS_OP_T, CUBLAS_GEMM_DEFAULT, CUBLAS_COMPUTE_32F = 0, 1, -1, 68
TYPES = {0: np.float32, 2: np.float16}  # CUDA_R_32F, CUDA_R_16F
HANDLE = 4711
stream = workspace = None


def cublasSetStream_v2(handle, to):
    global stream, workspace
    assert handle.value == HANDLE
    stream, workspace = to.value or 0, None  # cuBLAS goes back to memory of its own
    return 0


def cublasSetWorkspace_v2(handle, address, size):
    global workspace
    assert handle.value == HANDLE and address.value and size.value == 32 << 20
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


def gemmEx(handle, transa, transb, m, n, k, alpha, A, Atype, lda, B, Btype, ldb, beta, C, Ctype, ldc, compute, algo):  # noqa: N802
    """C (m, n) = alpha op(A) op(B) + beta C, op(A) (m, k) and op(B) (k, n), in float32."""
    assert fake_graphs.capture is None, "CuPy refuses cuBLAS during a capture"
    assert handle == HANDLE and compute == CUBLAS_COMPUTE_32F and algo == CUBLAS_GEMM_DEFAULT
    assert Atype == Btype, "cuBLAS multiplies matrices of one type"
    alpha, beta = (_matrix(address, 0, 1, 1, 1)[0, 0] for address in (alpha, beta))
    a = _matrix(A, Atype, *((k, m) if transa == CUBLAS_OP_T else (m, k)), lda).astype(np.float32)
    b = _matrix(B, Btype, *((n, k) if transb == CUBLAS_OP_T else (k, n)), ldb).astype(np.float32)
    product = alpha * ((a.T if transa == CUBLAS_OP_T else a) @ (b.T if transb == CUBLAS_OP_T else b))
    c = _matrix(C, Ctype, m, n, ldc)
    c[...] = product + beta * c if beta else product  # beta = 0: what lies there is not read


def _matrix(address, kind, rows, columns, distance):
    """The matrix (rows, columns) at an address, whose columns begin `distance` elements apart."""
    assert distance >= rows > 0 and columns > 0, f"a matrix of {rows} rows with {distance} from column to column"
    dtype = np.dtype(TYPES[kind])
    memory = (ctypes.c_char * ((distance * (columns - 1) + rows) * dtype.itemsize)).from_address(address)
    return np.lib.stride_tricks.as_strided(
        np.frombuffer(memory, dtype), (rows, columns), (dtype.itemsize, distance * dtype.itemsize), writeable=True
    )
