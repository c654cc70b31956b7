"""Launches epilogue.cu: bias and ReLU after the matrix product of a convolution, and their gradients before its own.

On the GPU the pixels of all images are the columns of one matrix, (K, N·P) for images of P pixels: one large product
instead of N small ones, and cuBLAS takes its transpose without a copy.
"""

import numpy as np

from tinyseg.backend import devices
from tinyseg.fast.gpu.launch import THREADS, blocks_for, contiguous, floats, launch, load, threads_for

PER_THREAD = 4  # columns of a thread, as in epilogue.cu
BLOCKS = 2048  # enough to fill a GPU
kernel = load(__file__)


def finish(z, b, y, relu, first=0):
    """Write z + b to y (N, K, OH, OW), through a ReLU if `relu`; z (K, count) has the columns from `first` on."""
    (K, count), P = z.shape, y.shape[2] * y.shape[3]
    threads = threads_for(count // PER_THREAD)
    blocks = K * blocks_for(count, PER_THREAD * threads)
    launch(kernel("finish", z.dtype), blocks, z, floats(b) if b is not None else None, y, K, P, first, count, relu,
           threads=threads)  # fmt: skip


def begin_backward(gy, y):
    """Return g (K, N·OH·OW), gy where y > 0 (everywhere if y is None), and its sums over the columns, gb (K,)."""
    gy, y, (N, K, OH, OW) = contiguous(gy), None if y is None else contiguous(y), gy.shape
    count = N * OH * OW
    parts = max(1, min(count // (8 * THREADS), blocks_for(BLOCKS, K)))
    unchanged = y is None and N == 1  # gy is g
    g = gy.reshape(K, count) if unchanged else devices.cp.empty((K, count), gy.dtype)
    gb = devices.cp.empty((parts, K), np.float32)
    launch(kernel("begin_backward", gy.dtype), parts * K, gy, y, None if unchanged else g, gb, parts, N, K, OH * OW,
           threads=threads_for(blocks_for(count, parts)))  # fmt: skip
    return g, gb.sum(axis=0) if parts > 1 else gb[0]


def columns_of(y):
    """Return y (N, K, OH, OW) as columns (K, N·OH·OW); without a copy if there is one image."""
    N, K, OH, OW = y.shape
    return contiguous(y.transpose(1, 0, 2, 3)).reshape(K, N * OH * OW)
