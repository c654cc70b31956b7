"""depthwise_conv.py with explicit loops, compiled by numba. Same three functions.

Each prange iteration owns one plane (or all planes of one channel), so no two threads write to the same element.
Inside, everything is one row against one row: for output row i and tap (u, v), `span` settles once which outputs j
read a column inside the image, and the innermost loop runs over those without a branch, in cache, as vector
instructions.
"""

import numpy as np
from numba import njit, prange

# error_model: no test for division by zero; fastmath: sums may be reordered, which is what vectorizes them.
OPTIONS = {"cache": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}


@njit(inline="always", **OPTIONS)
def span(size, out, s, offset):
    """First and one past the last j < out with 0 <= j·s + offset < size."""
    first = 0 if offset >= 0 else (s - 1 - offset) // s
    return first, max(first, min(out, (size - 1 - offset) // s + 1 if size > offset else 0))


@njit(parallel=True, **OPTIONS)
def forward(x, w, stride, pads, out):
    N, C, H, W = x.shape
    _, KH, KW = w.shape
    OH, OW = out
    sh, sw, top, left = stride[0], stride[1], pads[0][0], pads[1][0]
    y = np.empty((N, C, OH, OW), x.dtype)
    for nc in prange(N * C):
        n, c = nc // C, nc % C
        for i in range(OH):
            row = y[n, c, i]
            row[:] = 0
            for u in range(KH):
                r = i * sh + u - top
                if 0 <= r < H:
                    for v in range(KW):
                        a, b = span(W, OW, sw, v - left)
                        target, tap = row[a:b], w[c, u, v]
                        source = x[n, c, r, a * sw + v - left :]
                        if sw == 1:
                            for j in range(b - a):
                                target[j] += source[j] * tap
                        else:
                            for j in range(b - a):
                                target[j] += source[j * sw] * tap
    return y


@njit(parallel=True, **OPTIONS)
def grad_x(gy, w, x_shape, stride, pads):
    N, C, H, W = x_shape
    _, KH, KW = w.shape
    OH, OW = gy.shape[2], gy.shape[3]
    sh, sw, top, left = stride[0], stride[1], pads[0][0], pads[1][0]
    gx = np.empty((N, C, H, W), gy.dtype)
    for nc in prange(N * C):
        n, c = nc // C, nc % C
        gx[n, c] = 0
        for i in range(OH):
            for u in range(KH):
                r = i * sh + u - top
                if 0 <= r < H:
                    for v in range(KW):
                        a, b = span(W, OW, sw, v - left)
                        source, tap = gy[n, c, i, a:b], w[c, u, v]
                        target = gx[n, c, r, a * sw + v - left :]
                        if sw == 1:
                            for j in range(b - a):
                                target[j] += source[j] * tap
                        else:
                            for j in range(b - a):
                                target[j * sw] += source[j] * tap
    return gx


@njit(parallel=True, **OPTIONS)
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
                            g, source = gy[n, c, i, a:b], x[n, c, r, a * sw + v - left :]
                            row = gw.dtype.type(0)  # row by row keeps float32 sums short
                            if sw == 1:
                                for j in range(b - a):
                                    row += source[j] * g[j]
                            else:
                                for j in range(b - a):
                                    row += source[j * sw] * g[j]
                            gw[c, u, v] += row
    return gw
