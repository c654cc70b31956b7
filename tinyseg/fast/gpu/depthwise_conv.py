"""Launches depthwise_conv.cu: the functions of `tinyseg.ops.depthwise_conv` on float32 and float16 arrays of the GPU.

A dilation above 1 is left to the maths. `correlate` and its two gradients do the work, for the separable convolution
too: there the input is one array or two that are joined, upsampled by a factor, and with `by_channel` d and gd are
(C, N, OH, OW) instead of (N, C, OH, OW).
"""

import numpy as np

from tinyseg.backend import devices
from tinyseg.fast.gpu import launch as cuda
from tinyseg.fast.gpu.launch import THREADS, blocks_for, contiguous, fits, floats, launch, load, threads_for

ROWS = 8  # outputs of a thread, as in depthwise_conv.cu
BLOCKS = 1024  # enough to fill a GPU
kernel = load(__file__)


def supports(x, *w):
    """Whether the weights are float32, and x is float32 or float16."""
    return cuda.float32_or_16(x) and cuda.float32(*w)


def forward(x, w, stride, pads, out, dilation=(1, 1)):
    if dilation != (1, 1) or not fits(x.shape, (*x.shape[:2], *out)):
        return NotImplemented
    return correlate((x,), w, stride, pads, out)


def grad_x(gy, w, x_shape, stride, pads, dilation=(1, 1)):
    if dilation != (1, 1) or not fits(x_shape, gy.shape):
        return NotImplemented
    return correlate_transposed(gy, w, [x_shape], stride, pads)[0]


def grad_w(x, gy, w_shape, stride, pads, dilation=(1, 1)):
    if dilation != (1, 1) or not fits(x.shape, gy.shape):
        return NotImplemented
    return correlate_gradient((x,), gy, w_shape, stride, pads)


# ----- on one or two inputs ----------------------------------------------------------
def correlate(xs, w, stride, pads, out, factor=1, by_channel=False):
    """Return d (N, C, OH, OW), or (C, N, OH, OW)."""
    (x, x2), w = pair_of(xs), floats(w)
    N, C, strips = len(x), len(w), in_strips(w.shape, stride, factor)
    d = devices.cp.empty((C, N, *out) if by_channel else (N, C, *out), x.dtype)
    size = N * C * blocks_for(out[0], ROWS if strips else 1) * out[1]
    sizes = (size, N, C, *x.shape[1:], factor, *w.shape[1:], *out, *stride, *(p[0] for p in pads))
    run = kernel("forward_strips" if strips else "forward", x.dtype)
    launch(run, blocks_for(size), x, x2, w, d, *sizes, by_channel)
    return d


def correlate_transposed(gd, w, x_shapes, stride, pads, factor=1, by_channel=False):
    """Return the gradients of the inputs of `correlate`, a tuple."""
    gd, w, strips = contiguous(gd), floats(w), in_strips(w.shape, stride, factor)
    gxs = tuple(devices.cp.empty(shape, gd.dtype) for shape in x_shapes)
    (N, C1, H, W), C, gx2 = x_shapes[0], len(w), gxs[1] if len(gxs) > 1 else None
    size = N * C * blocks_for(H, ROWS if strips else 1) * W
    sizes = (size, N, C, C1, H, W, factor, *w.shape[1:], *gd.shape[2:], *stride, *(p[0] for p in pads))
    run = kernel("grad_x_strips" if strips else "grad_x", gd.dtype)
    launch(run, blocks_for(size), gd, w, gxs[0], gx2, *sizes, by_channel)
    return gxs


def correlate_gradient(xs, gd, w_shape, stride, pads, factor=1, by_channel=False):
    """Return the gradient of w, (C, KH, KW). If there are few channels, several blocks share the sum of one."""
    (x, x2), gd = pair_of(xs), contiguous(gd)
    N, (C, KH, KW), (OH, OW), strips = len(x), w_shape, gd.shape[2:], in_strips(w_shape, stride, factor)
    if strips:
        sums, tasks = C, N * blocks_for(OH, ROWS) * OW
        parts, threads = max(1, min(tasks // (4 * THREADS), blocks_for(BLOCKS, sums))), threads_for(tasks)
    else:
        sums, threads = C * KH * KW, THREADS
        parts = max(1, min(N * OH * OW // (16 * THREADS), N * OH, blocks_for(BLOCKS, sums)))
    gw = devices.cp.empty((parts, *w_shape), np.float32)
    sizes = (parts, N, C, *x.shape[1:], factor, KH, KW, OH, OW, *stride, *(p[0] for p in pads))
    run = kernel("grad_w_strips" if strips else "grad_w", x.dtype)
    launch(run, parts * sums, x, x2, gd, gw, *sizes, by_channel, threads=threads)
    return gw.sum(axis=0) if parts > 1 else gw[0]


def pair_of(xs):
    """Return the one or two inputs in C order, as a pair: (x, None) if there is one."""
    return contiguous(xs[0]), contiguous(xs[1]) if len(xs) > 1 else None


def in_strips(w_shape, stride, factor):
    """Whether depthwise_conv.cu has kernels in strips for this case."""
    return stride == (1, 1) and w_shape[1:] in ((2, 2), (3, 3)) and factor in (1, 2)
