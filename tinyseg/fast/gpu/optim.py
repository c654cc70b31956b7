"""Adam on the GPU: optim.cu steps all parameters in one launch; equations in `tinyseg.optim`.

Steps that are captured as a CUDA graph (`tinyseg.fast.gpu.graphs`) clip gradients here too: the device decides whether
a step may be made, and by what its gradients are scaled.
"""

import functools
import math

import numpy as np

from tinyseg.backend import devices
from tinyseg.fast.gpu.graphs.recording import recording
from tinyseg.fast.gpu.launch import THREADS, blocks_for, contiguous, fits, launch, load

kernel = load(__file__)


def supports(*arrays):
    """Whether all (w, g, m, v), one after the other, are float32, and all but the gradients g in C order."""
    single = all(a.dtype == np.float32 for a in arrays) and fits(*(a.shape for a in arrays))  # empty ones too
    return single and all(a.flags.c_contiguous for k, a in enumerate(arrays) if k % 4 != 1)


def adam(w, g, m, v, b1, b2, eps, rate, shrink):
    """Make one step of one parameter, in place."""
    adam_all([(w, g, m, v)], lambda: (b1, b2, eps, rate, shrink))


def adam_all(parameters, numbers):
    """Make one step of all parameters, (w, g, m, v) each, in place."""
    b1, b2, *others = numbers()
    parameters = [(w, contiguous(g), m, v) for w, g, m, v in parameters]
    addresses = tuple(tuple(a.data.ptr for a in arrays) for arrays in zip(*parameters, strict=True))
    sizes, record, changing, go = tuple(w.size for w, *_ in parameters), recording(), None, None
    if record is None:
        table, blocks = _table(devices.cp, addresses, sizes)
    else:
        rows, blocks = _rows(addresses, sizes)
        table, go = record.put_constant(rows), record.go
        changing = record.put_changing(lambda: numbers()[2:], np.float32)
    scalars = (float(a) for a in (1 - b1, 1 - b2, *others))
    launch(kernel("adam"), blocks, table, len(parameters), *scalars, changing, go)


@functools.lru_cache(maxsize=4)  # gradients are made anew every step, but mostly where the last ones were
def _table(cp, addresses, sizes):
    """Return the table that the kernel reads, on the device, and the number of blocks."""
    rows, blocks = _rows(addresses, sizes)
    return cp.asarray(rows), blocks


def _rows(addresses, sizes):
    blocks = [blocks_for(size, 4 * THREADS) for size in sizes]
    first = np.cumsum([0, *blocks[:-1]])
    return np.array([*addresses, sizes, first], np.uint64), sum(blocks)


def clip_and_judge(gradients, max_norm, loss, figures):
    """Scale gradients as `tinyseg.optim.clip_grad_norm` does, and decide if Adam may use them, without the host.

    Only while a step is recorded. Adam then changes nothing if the loss or the norm (from sums of squares in float32)
    is not finite, or if class numbers were wrong.

    Parameters
    ----------
    gradients : list of float32 CuPy arrays
    max_norm : float
    loss : float32 CuPy array, shape ()
    figures : float64 CuPy array
        Becomes (loss, norm, whether class numbers were wrong, …).
    """
    record, sums = recording(), [(g * g).sum() for g in gradients]
    table = record.put_constant(np.array([s.data.ptr for s in sums], np.uint64))
    limit = record.put_constant(np.array([max_norm], np.float64))
    outputs = figures, record.factor, record.go
    launch(kernel("judge"), 1, table, len(sums), limit, loss, record.wrong, *outputs, threads=32)
    if max_norm < math.inf:
        for g in gradients:
            g *= record.factor
