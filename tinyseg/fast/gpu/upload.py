"""Batches are copied to the GPU one ahead: the next one while the network works on this one."""

import numpy as np

from tinyseg.backend import devices


def uploaded(batches, device):
    """Go through batches, each moved to a device.

    On the GPU every batch is copied while the step before it is computed: from page-locked ("pinned") memory, which the
    GPU reads by itself, on a stream of its own. A batch is therefore taken from `batches` one step before it is needed.

    Parameters
    ----------
    batches : iterable of tuples of ndarray
        Such as ``loader.epoch(e)``.
    device : {"cpu", "gpu"}
        On the CPU, batches pass through as they are.

    Yields
    ------
    tuple of ndarray
        The same batches in the same order.
    """
    if device == "cpu":
        yield from batches
        return
    stream, under_way = devices.cp.cuda.Stream(non_blocking=True), None
    try:
        for batch in batches:
            following = _start(batch, stream)
            if under_way is not None:
                yield _arrived(*under_way)
            under_way = following
        if under_way is not None:
            yield _arrived(*under_way)
    finally:  # also when the caller leaves early: no copy may write to memory that has been freed
        stream.synchronize()


def _start(batch, stream):
    """Begin to copy a batch. Return its arrays, what they are copied from, and an event for the end of the copies."""
    cp = devices.cp
    sources = [pinned(a) for a in batch]
    arrays = [cp.empty(a.shape, a.dtype) for a in sources]
    stream.wait_event(cp.cuda.get_current_stream().record())  # the memory may be in use by earlier kernels
    for array, source in zip(arrays, sources, strict=True):
        array.set(source, stream=stream)
    return arrays, sources, stream.record()


def _arrived(arrays, sources, event):
    """Wait for the copies, and return the arrays. Until then the memory of `sources` must not be freed."""
    event.synchronize()
    return tuple(arrays)


def pinned(a):
    """Copy an array to memory that the operating system does not move."""
    copy = np.ndarray(a.shape, a.dtype, buffer=devices.cp.cuda.alloc_pinned_memory(a.nbytes))
    copy[...] = a
    return copy
