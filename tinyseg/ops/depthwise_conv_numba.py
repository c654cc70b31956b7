"""depthwise_conv.py with explicit loops, compiled by numba. Same three functions.

Each prange iteration owns one channel plane (or all planes of one channel), so no two threads write to the same
element. Bounds are settled once a row, not once a pixel: `span` gives the outputs j whose input column
q = j·sw + v − left is inside the image, and the innermost loop runs over those without a branch.
"""

import numpy as np
from numba import njit, prange


@njit(inline="always")
def span(size, out, s, offset):
    """First and one past the last j with 0 <= j·s + offset < size and j < out."""
    first = 0 if offset >= 0 else (-offset + s - 1) // s
    return first, min(out, (size - 1 - offset) // s + 1 if size > offset else 0)


@njit(parallel=True, cache=True, error_model="numpy")
def forward(x, w, stride, pads, out):
    N, C, H, W = x.shape
    _, KH, KW = w.shape
    OH, OW = out
    sh, sw, top, left = stride[0], stride[1], pads[0][0], pads[1][0]
    y = np.zeros((N, C, OH, OW), x.dtype)
    for nc in prange(N * C):
        n, c = nc // C, nc % C
        for i in range(OH):
            for u in range(KH):
                r = i * sh + u - top
                if 0 <= r < H:
                    for v in range(KW):
                        a, b = span(W, OW, sw, v - left)
                        for j in range(a, b):
                            y[n, c, i, j] += x[n, c, r, j * sw + v - left] * w[c, u, v]
    return y


@njit(parallel=True, cache=True, error_model="numpy")
def grad_x(gy, w, x_shape, stride, pads):
    N, C, H, W = x_shape
    _, KH, KW = w.shape
    OH, OW = gy.shape[2], gy.shape[3]
    sh, sw, top, left = stride[0], stride[1], pads[0][0], pads[1][0]
    gx = np.zeros((N, C, H, W), gy.dtype)
    for nc in prange(N * C):
        n, c = nc // C, nc % C
        for i in range(OH):
            for u in range(KH):
                r = i * sh + u - top
                if 0 <= r < H:
                    for v in range(KW):
                        a, b = span(W, OW, sw, v - left)
                        for j in range(a, b):
                            gx[n, c, r, j * sw + v - left] += gy[n, c, i, j] * w[c, u, v]
    return gx


@njit(parallel=True, cache=True, error_model="numpy", fastmath={"reassoc"})  # reassoc: vector sums
def grad_w(x, gy, w_shape, stride, pads):
    N, C, H, W = x.shape
    _, KH, KW = w_shape
    OH, OW = gy.shape[2], gy.shape[3]
    sh, sw, top, left = stride[0], stride[1], pads[0][0], pads[1][0]
    gw = np.zeros((C, KH, KW), x.dtype)
    for c in prange(C):
        for n in range(N):
            for i in range(OH):
                for u in range(KH):
                    r = i * sh + u - top
                    if 0 <= r < H:
                        for v in range(KW):
                            a, b = span(W, OW, sw, v - left)
                            row = gw.dtype.type(0)  # one row at a time keeps float32 sums short
                            for j in range(a, b):
                                row += x[n, c, r, j * sw + v - left] * gy[n, c, i, j]
                            gw[c, u, v] += row
    return gw
