"""The flood of the ISBI-2012 score, compiled: the same pixels as `tinyseg.metrics.isbi.flood`, which explains it."""

import numpy as np

from tinyseg.fast.cpu.kernel_cache import njit

UNSEEN, QUEUED = -1, -2  # as in tinyseg.metrics.isbi


@njit(cache=True, nogil=True)
def flood(cells, pitch):
    """Grow the basins over the pixels that are UNSEEN, in place; see `tinyseg.metrics.isbi.flood`."""
    steps = (-pitch, -1, pitch, 1)
    queue = np.empty(cells.size, np.intp)
    end = 0
    for p in range(cells.size):
        if cells[p] == UNSEEN and (
            cells[p - pitch] > 0 or cells[p - 1] > 0 or cells[p + pitch] > 0 or cells[p + 1] > 0
        ):
            cells[p] = QUEUED
            queue[end] = p
            end += 1
    k = 0
    while k < end:
        p = queue[k]
        k += 1
        found, several = 0, False
        for step in steps:
            c = cells[p + step]
            if c > 0:
                several |= found > 0 and found != c
                found = c
            elif c == UNSEEN:
                cells[p + step] = QUEUED
                queue[end] = p + step
                end += 1
        cells[p] = 0 if several else found
