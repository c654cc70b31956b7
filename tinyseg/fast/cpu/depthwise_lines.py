"""Depthwise convolution of stride 1 in NumPy alone, each channel as one line of memory.

A zero-padded channel X of P x Q values lies in memory as one line, with (i, j) at place i·Q + j. What tap (u, v) reads
for output (i, j) is u·dh·Q + v·dw places further on, for all outputs alike. So a tap is the product of a number and one
piece of the line, where the maths file (ops/depthwise_conv.py) has a product for each row of the image:

    forward   y[p]   = sum_{u,v} X[p + u·dh·Q + v·dw] * w[u,v]
    grad_w    gw[u,v] = sum_p    X[p + u·dh·Q + v·dw] * gy[p]
    grad_x    gX[p + u·dh·Q + v·dw] += w[u,v] * gy[p]

for the OH·Q places p of the first OH rows. The last Q - OW of each row belong to no output: their windows reach over
the edge into the next row. y is cut there, and gy is 0. (So a gradient is NaN where an infinite value meets these.)

`by_channels` runs these functions where numba is not installed. The arguments and shapes are those of the maths file; a
function returns NotImplemented for other strides.
"""

import numpy as np

from tinyseg.ops.sums import sum_over
from tinyseg.ops.window import crop2d, pad2d

RUN = 1024  # values that are added up in their own type at most; runs are added in float64


def forward(x, w, stride, pads, out, dilation=(1, 1)):
    """Filter each channel with its kernel: (N, C, H, W) -> (N, C, OH, OW)."""
    if stride != (1, 1):
        return NotImplemented
    X = pad2d(x, _one_row_more(pads))
    N, C, _, Q = X.shape
    y, product = np.empty((2, N, C, out[0] * Q), x.dtype)
    for u, v, window in _taps(_lines(X), w.shape[1:], y.shape[2], Q, dilation):
        first = u == v == 0
        np.multiply(window, w[:, u, v, None], out=y if first else product)
        if not first:
            y += product
    return y.reshape(N, C, out[0], Q)[..., : out[1]]


def grad_w(x, gy, w_shape, stride, pads, dilation=(1, 1)):
    """Gradient of the kernels, (C, KH, KW)."""
    if stride != (1, 1):
        return NotImplemented
    X = pad2d(x, _one_row_more(pads))
    (N, C, OH, OW), Q = gy.shape, X.shape[3]
    line, gw = _lines(pad2d(gy, ((0, 0), (0, Q - OW)))), np.empty(w_shape, x.dtype)
    rows = max((n for n in range(1, OH + 1) if OH % n == 0 and n * Q <= RUN), default=1)
    runs = N, C, OH // rows, rows * Q
    for u, v, window in _taps(_lines(X), w_shape[1:], line.shape[2], Q, dilation):
        gw[:, u, v] = sum_over(window.reshape(*runs)[..., None, :] @ line.reshape(*runs)[..., None], (0, 2, 3, 4))
    return gw


def grad_x(gy, w, x_shape, stride, pads, dilation=(1, 1)):
    """Gradient of the input, (N, C, H, W)."""
    if stride != (1, 1):
        return NotImplemented
    (N, C, H, W), pads = x_shape, _one_row_more(pads)
    Q = W + sum(pads[1])
    gX = np.zeros((N, C, H + sum(pads[0]), Q), gy.dtype)
    line = _lines(pad2d(gy, ((0, 0), (0, Q - gy.shape[3]))))
    product = np.empty_like(line)
    for u, v, window in _taps(_lines(gX), w.shape[1:], line.shape[2], Q, dilation):
        window += np.multiply(line, w[:, u, v, None], out=product)  # a view: writes into gX
    return crop2d(gX, pads)


def _one_row_more(pads):
    """Return `pads` with one row more below: the windows of the last places end in it."""
    (top, bottom), sides = pads
    return (top, bottom + 1), sides


def _lines(X):
    """Return the channels of X, (N, C, P, Q), as lines: (N, C, P·Q)."""
    N, C, P, Q = X.shape
    return X.reshape(N, C, P * Q)


def _taps(line, kernel, places, Q, dilation):
    """Yield (u, v, view) for each tap: the piece of the line that it reads for all places."""
    for u, v in np.ndindex(*kernel):
        start = u * dilation[0] * Q + v * dilation[1]
        yield u, v, line[..., start : start + places]
