"""Weights of Winograd's convolution: U = G w Gᵀ, and the gradient gw = Gᵀ dU G.

They are four times as many as the weights. Where that is much, they are made a few panels of output channels at a time,
and used while they are in cache: reading them from memory would take longer than to compute them.
"""

import numpy as np

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.channels_last import threads
from tinyseg.fast.cpu.packing import as_read, pack_channels
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.fast.cpu.simd import LANES, WIDTH
from tinyseg.fast.cpu.winograd_tiles import weights_gradient_tile, weights_tile

CHANNELS = 48  # input channels whose weights are transformed at a time
MOST = 5 << 19  # floats of transformed weights that exist at a time, 10 MiB; all, if no more, are remembered


def count_panels(n):
    """Return how many panels of WIDTH channels n channels need."""
    return -(-n // WIDTH)


def panels_at_a_time(C):
    """Return of how many panels of output channels the transformed weights, or their gradient, should exist."""
    return max(2 * threads(), MOST // (36 * C * WIDTH))


def transform_weights(w):
    """Return U = G w Gᵀ for weights w (K, C, 3, 3), laid out for `tinyseg.fast.cpu.winograd`."""
    K, C, _, _ = w.shape
    U = make_room(count_panels(K), C)
    transform_panels(len(U) * -(-U.shape[2] // CHANNELS), *as_read(w), 0, U)
    return U


def make_room(panels, C):
    """Return an array for the transformed weights of C input channels and so many panels of output channels."""
    return empty((panels, 36, count_panels(C) * WIDTH + 1, WIDTH))


@parallel
def transform_panels(task, w, K, C, taps, turned, swapped, panel, U):
    """U[p - panel][k][c][WIDTH] = (G w Gᵀ)_k for p, a panel of K, from `panel` on; zero where there is no weight."""
    length, Us = U.shape[2], U.reshape(-1)
    pieces = -(-length // CHANNELS)
    p, c0 = task // pieces, task % pieces * CHANNELS
    c1 = min(length, c0 + CHANNELS)
    g = np.zeros(9 * CHANNELS * WIDTH, np.float32)
    pack_channels(w, K, C, taps, turned, swapped, panel + p, c0, min(c1, C), CHANNELS, g, -c0 * WIDTH)
    for c in range(c0, c1):
        for lane in range(0, WIDTH, LANES):
            target = (p * 36 * length + c) * WIDTH + lane
            weights_tile(g, (c - c0) * WIDTH + lane, CHANNELS * WIDTH, Us, target, length * WIDTH)


@parallel
def gradient_of_weights(o, k0, dU, gw):
    """gw = Gᵀ dU G, for one of the output channels from k0 on of which dU holds the gradient."""
    C = gw.shape[1]
    dUs, step, length = dU.reshape(-1), dU.shape[1], -(-C // WIDTH) * WIDTH
    full = np.zeros((9, length), np.float32)
    for c in range(0, length, LANES):
        weights_gradient_tile(dUs, o * length + c, step, full.reshape(-1), c, length)
    for c in range(C):
        for u in range(3):
            for v in range(3):
                gw[k0 + o, c, u, v] = full[3 * u + v, c]
