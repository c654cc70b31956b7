"""Adam on the GPU: optim.cu steps all parameters in one launch; equations in `tinyseg.optim`."""

import functools

import numpy as np

from tinyseg import backend
from tinyseg.cuda import THREADS, blocks_for, contiguous, launch, load
from tinyseg.cuda import supports as fits

kernel = load(__file__)


def supports(*arrays):
    """Parameters and state, (w, g, m, v) one after the other, as they are made; gradients in any layout."""
    return fits(*arrays) and all(a.flags.c_contiguous for k, a in enumerate(arrays) if k % 4 != 1)


def adam(w, g, m, v, b1, b2, eps, rate, shrink):
    """One step of one parameter, in place."""
    adam_all([(w, g, m, v)], b1, b2, eps, rate, shrink)


def adam_all(parameters, *numbers):
    """One step of all parameters, (w, g, m, v) each, in place."""
    b1, b2, eps, rate, shrink = numbers
    parameters = [(w, contiguous(g), m, v) for w, g, m, v in parameters]
    addresses = tuple(tuple(a.data.ptr for a in arrays) for arrays in zip(*parameters, strict=True))
    table, blocks = _table(backend.cp, addresses, tuple(w.size for w, *_ in parameters))
    gains = 1 - b1, 1 - b2
    launch(kernel("adam"), blocks, table, len(parameters), *(float(a) for a in (*gains, eps, rate, shrink)))


@functools.lru_cache(maxsize=4)  # gradients are made anew every step, but mostly where the last ones were
def _table(cp, addresses, sizes):
    """What the kernel reads, on the device, and the number of blocks."""
    blocks = [blocks_for(size, 4 * THREADS) for size in sizes]
    first = np.cumsum([0, *blocks[:-1]])
    return cp.asarray(np.array([*addresses, sizes, first], np.uint64)), sum(blocks)
