"""Targets of the losses with numba: one pass checks the class numbers and marks those to be ignored.

Signature as in `tinyseg.ops.targets`; `supports` is asked about the logits.
"""

import numpy as np

from tinyseg.fast.cpu.channels_last import float32
from tinyseg.fast.cpu.kernel_cache import OPTIONS, njit

supports = float32


def class_numbers(t, C, ignore_index):
    """Class numbers as int64, with -1 where they are to be ignored, and whether all others are 0 … C-1."""
    if not isinstance(ignore_index, (int, np.integer, type(None))):
        return NotImplemented
    if ignore_index is None and t.dtype == np.int64:
        return t, _check(np.ascontiguousarray(t).reshape(-1), C, None)
    numbers = t.astype(np.int64, order="C")
    if ignore_index is not None and not -(2**63) <= ignore_index < 2**63:
        ignore_index = None  # no int64 is equal to it
    return numbers, _check(numbers.reshape(-1), C, ignore_index)


@njit(**OPTIONS)
def _check(t, C, ignored):
    """Whether all numbers but `ignored` are 0 … C-1; writes -1 where they are `ignored`, unless that is None."""
    outside = False
    for i in range(len(t)):
        if ignored is None:
            outside |= (t[i] < 0) | (t[i] >= C)
        else:
            outside |= ((t[i] < 0) | (t[i] >= C)) & (t[i] != ignored)
            t[i] = -1 if t[i] == ignored else t[i]
    return not outside
