"""Nearest upsampling with numba: whole pixels, all their channels, are copied and summed.

Equations and signatures as in `tinyseg.ops.upsample`; bilinear interpolation takes the maths path's matrix products.
"""

from numba import njit, prange

from tinyseg.arena import empty
from tinyseg.ops.channels_last import FAST, channels_first, float32, pixels
from tinyseg.ops.upsample import bilinear_forward, bilinear_grad_x  # noqa: F401

supports = float32


def nearest_forward(x, factor):
    """Repeat every pixel fh x fw times."""
    x, (fh, fw) = pixels(x), factor
    N, H, W, C = x.shape
    y = empty((N, H * fh, W * fw, C))
    _repeat(x, y, fh, fw)
    return channels_first(y)


def nearest_grad_x(gy, factor):
    """Sum the gradient over every fh x fw block."""
    return channels_first(sum_blocks(pixels(gy), *factor))


def sum_blocks(gy, fh, fw=None):
    """Sum an array (N, fh·H, fw·W, C) over its blocks: (N, H, W, C)."""
    fw = fh if fw is None else fw
    N, H, W, C = gy.shape
    gx = empty((N, H // fh, W // fw, C))
    _sum_blocks(gy, gx, fh, fw)
    return gx


@njit(**FAST)
def _repeat(x, y, fh, fw):
    N, H, W, C = x.shape
    for row in prange(N * H * fh):
        n, i = row // (H * fh), row % (H * fh)
        source, target = x[n, i // fh], y[n, i]
        for q in range(W):
            for v in range(fw):
                for c in range(C):
                    target[q * fw + v, c] = source[q, c]


@njit(**FAST)
def _sum_blocks(gy, gx, fh, fw):
    N, H, W, C = gx.shape
    for row in prange(N * H):
        n, r = row // H, row % H
        target = gx[n, r]
        for u in range(fh):
            source = gy[n, r * fh + u]
            for q in range(W):
                for v in range(fw):
                    if u == 0 and v == 0:
                        for c in range(C):
                            target[q, c] = source[q * fw, c]
                    else:
                        for c in range(C):
                            target[q, c] += source[q * fw + v, c]
