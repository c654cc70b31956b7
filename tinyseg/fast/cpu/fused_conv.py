"""Convolution with numba that also joins and upsamples its input, adds a bias and applies a ReLU.

Equations and signatures as in `tinyseg.ops.fused_conv`; the convolutions themselves are in `tinyseg.fast.cpu.conv2d`.
"""

import numpy as np

from tinyseg.fast.cpu import upsampled_conv
from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.bands import NOTHING
from tinyseg.fast.cpu.channels_last import channels_first, float32, pixels
from tinyseg.fast.cpu.conv2d import convolve, convolve_gradient, convolve_transposed
from tinyseg.fast.cpu.kernel_cache import FAST
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.fast.cpu.shares import MOST_SHARES
from tinyseg.fast.cpu.upsample import sum_blocks

PIECE = 64  # pixels in one float32 sum of the gradient of the bias
MIN_PIXELS = 2048  # pixels from which on `upsampled_conv` saves more than its arithmetic on the weights costs


def supports(w, b, *xs):
    """float32, and at most two inputs to join."""
    return float32(w, b, *xs) and len(xs) <= 2


def forward(xs, w, b, stride, pads, out, factor, relu):
    """Return y (N, K, OH, OW)."""
    x, x2 = two_inputs(xs)
    y = empty((len(x), *out, len(w)))
    if _is_for_upsampled_conv(xs, stride, factor):
        upsampled_conv.forward(x, w, b, relu, pads, factor, y)
    else:
        convolve(x, w, stride, pads, y, x2, b, relu, factor)
    return channels_first(y)


def backward(gy, xs, w, y, needs_x, stride, pads, factor, relu):
    """Gradients of w, b, and a tuple of those of the xs (None if `needs_x` is False)."""
    (x, x2), gy = two_inputs(xs), pixels(gy)
    parts = empty((min(MOST_SHARES, -(-gy.size // len(w) // PIECE)), len(w)))
    masked = empty(gy.shape) if relu else gy
    _mask_and_sum(len(parts), gy, pixels(y) if relu else gy, relu, masked, parts)
    gb = parts.sum(axis=0)
    if _is_for_upsampled_conv(xs, stride, factor):
        gx = empty(x.shape) if needs_x else None
        gw = upsampled_conv.backward(x, w, masked, pads, factor, gx)
        return gw, gb, (channels_first(gx) if needs_x else None,)
    gw = convolve_gradient(x, masked, w.shape, stride, pads, x2, factor)
    if not needs_x:
        return gw, gb, (None,) * len(xs)
    gxs, c = [], 0
    for part in (x, x2)[: len(xs)]:
        N, H, W, C = part.shape
        gx = empty((N, factor * H, factor * W, C))
        convolve_transposed(masked, w[:, c : c + C], stride, pads, gx)
        gxs.append(channels_first(sum_blocks(gx, factor, factor) if factor > 1 else gx))
        c += C
    return gw, gb, tuple(gxs)


def _is_for_upsampled_conv(xs, stride, factor):
    """Whether this is a case for `tinyseg.fast.cpu.upsampled_conv`, with enough pixels to be faster that way."""
    N, _, H, W = xs[0].shape
    return factor > 1 and len(xs) == 1 and stride == (1, 1) and N * H * W >= MIN_PIXELS


def two_inputs(xs):
    """Return the inputs as two arrays (N, H, W, C); the second has no channels if there is only one input."""
    return pixels(xs[0]), pixels(xs[1]) if len(xs) > 1 else NOTHING


@parallel(**FAST)
def _mask_and_sum(share, gy, y, relu, masked, parts):
    """If `relu`, masked = gy where y > 0, else 0. parts[share] = sums over the share's pixels, of masked or of gy."""
    K, S = gy.shape[3], parts.shape[0]
    g, m, on = gy.reshape(-1, K), masked.reshape(-1, K), y.reshape(-1, K)
    P = g.shape[0]
    total = np.zeros(K, np.float64)
    first, last = P * share // S, P * (share + 1) // S
    for start in range(first, last, PIECE):
        piece = np.zeros(K, np.float32)
        for i in range(start, min(start + PIECE, last)):
            of_g = g[i]
            if relu:
                of_m, of_y = m[i], on[i]
                for k in range(K):
                    v = of_g[k] if of_y[k] > 0 else np.float32(0)
                    of_m[k] = v
                    piece[k] += v
            else:
                for k in range(K):
                    piece[k] += of_g[k]
        for k in range(K):
            total[k] += piece[k]
    for k in range(K):
        parts[share, k] = total[k]
