"""The mask of dropout with numba: one pass, written in the layout of the array that it is for.

Equations and signature as in `tinyseg.ops.dropout`: t counts the elements in the order (N, C, H, W) in any layout.
"""

import numpy as np

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.channels_last import channels_first, float32, pixels
from tinyseg.fast.cpu.kernel_cache import OPTIONS, njit
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.ops.dropout import keys_of

CHUNK = 1 << 12  # numbers that one thread draws at a time

supports = float32


def grad_x(gy, m):
    """Return gy m, and 0 where m is 0; the maths computes it where m is one number for a channel."""
    if gy.shape != m.shape:
        return NotImplemented
    if gy.ndim == 4 and not m.flags.c_contiguous:
        gx = empty((gy.shape[0], *gy.shape[2:], gy.shape[1]))
        _keep(-(-gx.size // CHUNK), pixels(gy).reshape(-1), pixels(m).reshape(-1), gx.reshape(-1))
        return channels_first(gx)
    gx = empty(gy.shape)
    gy, m = (np.ascontiguousarray(array).reshape(-1) for array in (gy, m))
    _keep(-(-gx.size // CHUNK), gy, m, gx.reshape(-1))
    return gx


def mask(x, shape, p, seed):
    """Draw 0 or 1/(1-p) for each element of `shape`."""
    key1, key2 = keys_of(seed)
    args = key1, key2, np.uint32(min(round(p * 2**32), 2**32 - 1)), np.float32(1 / (1 - p))
    if x.ndim == 4 and x.shape == shape and not x.flags.c_contiguous:
        N, C, H, W = shape
        m = empty((N, H, W, C))
        _mask_channels_last(N * H * W, *args, m.reshape(N, H * W, C))
        return channels_first(m)
    m = empty(shape)
    _mask(-(-m.size // CHUNK), *args, m.reshape(-1))
    return m


@parallel
def _keep(chunk, gy, m, gx):
    first = chunk * CHUNK
    gys, ms, gxs = gy[first : first + CHUNK], m[first : first + CHUNK], gx[first : first + CHUNK]
    for i in range(len(gxs)):
        gxs[i] = gys[i] * ms[i] if ms[i] != 0 else np.float32(0)


@parallel
def _mask(chunk, key1, key2, threshold, scale, m):
    first = chunk * CHUNK
    part = m[first : first + CHUNK]
    for i in range(len(part)):
        part[i] = scale if _random(first + i, key1, key2) >= threshold else np.float32(0)


@parallel
def _mask_channels_last(pixel, key1, key2, threshold, scale, m):
    N, P, C = m.shape
    n, q = pixel // P, pixel % P
    for c in range(C):
        m[n, q, c] = scale if _random((n * C + c) * P + q, key1, key2) >= threshold else np.float32(0)


@njit(**OPTIONS)
def _random(t, key1, key2):
    return _scramble(np.uint32(_scramble(np.uint32(t) ^ key1) + key2))


@njit(**OPTIONS)
def _scramble(h):
    h = np.uint32(h ^ (h >> np.uint32(16)))
    h = np.uint32(h * np.uint32(0x85EBCA6B))
    h = np.uint32(h ^ (h >> np.uint32(13)))
    h = np.uint32(h * np.uint32(0xC2B2AE35))
    return np.uint32(h ^ (h >> np.uint32(16)))
