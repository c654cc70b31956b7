"""Weights of Winograd's convolution: U = G w Gᵀ, and the gradient gw = Gᵀ dU G.

U is four times as large as the weights. Weights of one panel of output channels and a few input channels are
transformed where they are used next, in a core's cache: to read all of U from memory would take longer.
"""

import numpy as np

from tinyseg.fast.cpu.kernel_cache import SUBROUTINE, njit
from tinyseg.fast.cpu.packing import pack_channels
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.fast.cpu.simd import LANES, WIDTH, clear
from tinyseg.fast.cpu.winograd_tiles import weights_gradient_tile, weights_tile

CHANNELS = 32  # input channels whose weights are transformed at a time: whole panels


def count_panels(n):
    """Return how many panels of WIDTH channels n channels need."""
    return -(-n // WIDTH)


@njit(**SUBROUTINE)
def transform_panel(w, layout, p, c, scratch, packed, U, target, step):
    """Write G w Gᵀ of panel p of K and panel c of C to U, `step` from one k to the next; zero where there is no weight.

    scratch[packed : packed + 9·WIDTH²] is for the weights as they are packed.
    """
    c0 = c * WIDTH
    n = min(WIDTH, layout[1] - c0)
    pack_channels(w, layout, p, c0, c0 + n, WIDTH, scratch, packed - c0 * WIDTH)
    for t in range(9):
        clear(scratch, packed + (t * WIDTH + n) * WIDTH, (WIDTH - n) * WIDTH)
    for i in range(WIDTH):
        for lane in range(0, WIDTH, LANES):
            weights_tile(scratch, packed + i * WIDTH + lane, U, target + i * WIDTH + lane, step)


@parallel
def gradient_of_weights(o, dU, gw):
    """gw = Gᵀ dU G, for output channel o."""
    length = -(-gw.shape[1] // WIDTH) * WIDTH
    put_gradient(dU.reshape(-1), o * length, dU.shape[1], 0, length, gw, o)


@njit(**SUBROUTINE)
def put_gradient(dU, source, step, c0, length, gw, o):
    """Write Gᵀ dU G of output channel o and `length` input channels from c0 on to gw; dU lies `step` from k to k."""
    full = np.empty((9, LANES), np.float32)
    for c in range(0, length, LANES):
        weights_gradient_tile(dU, source + c, step, full.reshape(-1), 0, LANES)
        for i in range(min(LANES, gw.shape[1] - c0 - c)):
            for u in range(3):
                for v in range(3):
                    gw[o, c0 + c + i, u, v] = full[3 * u + v, i]
