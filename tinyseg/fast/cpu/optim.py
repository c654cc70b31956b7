"""Adam with numba: one pass over the four arrays of a parameter, to the same bits as `tinyseg.optim.adam`."""

import numpy as np

from tinyseg.fast.cpu.channels_last import float32
from tinyseg.fast.cpu.kernel_cache import OPTIONS, njit
from tinyseg.fast.cpu.parallel import parallel

LARGE = 1 << 15  # elements from which on a second thread is worth its start
BLOCK = 1 << 12  # elements to a task


def supports(w, g, *state):
    """Contiguous float32 parameters and state, of up to four axes; gradients in any layout."""
    return float32(w, g, *state) and w.ndim <= 4 and all(a.flags.c_contiguous for a in (w, *state))


def adam(w, g, m, v, b1, b2, eps, rate, shrink):
    """One step, in place; equations in `tinyseg.optim`."""
    numbers = tuple(np.float32(a) for a in (1 - b1, 1 - b2, eps, rate, shrink))
    if w.size < LARGE:
        _adam(w.reshape(-1), g.reshape(-1), m.reshape(-1), v.reshape(-1), *numbers)
    elif g.flags.c_contiguous:
        _adam_in_blocks(-(-w.size // BLOCK), w.reshape(-1), g.reshape(-1), m.reshape(-1), v.reshape(-1), *numbers)
    else:
        w, m, v = (a.reshape(len(a), -1) for a in (w, m, v))
        _adam_in_rows(len(w), w, g.reshape(g.shape + (1,) * (4 - g.ndim)), m, v, *numbers)


@njit(**OPTIONS)
def _adam(w, g, m, v, gain1, gain2, eps, rate, shrink):
    for k in range(w.size):
        mean = m[k] + gain1 * (g[k] - m[k])
        square = v[k] + gain2 * (g[k] * g[k] - v[k])
        m[k], v[k] = mean, square
        w[k] = shrink * w[k] - mean / (np.sqrt(square) + eps) * rate


@parallel
def _adam_in_blocks(block, w, g, m, v, gain1, gain2, eps, rate, shrink):
    i, j = block * BLOCK, min(w.size, (block + 1) * BLOCK)
    _adam(w[i:j], g[i:j], m[i:j], v[i:j], gain1, gain2, eps, rate, shrink)


@parallel
def _adam_in_rows(k, w, g, m, v, gain1, gain2, eps, rate, shrink):
    K, A, B, C = g.shape
    row = np.empty(A * B * C, np.float32)
    for a in range(A):
        for b in range(B):
            for c in range(C):
                row[(a * B + b) * C + c] = g[k, a, b, c]
    _adam(w[k], row, m[k], v[k], gain1, gain2, eps, rate, shrink)
