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
        return t, _are_classes(np.ascontiguousarray(t).reshape(-1), C, None)
    numbers = t.astype(np.int64, order="C")
    if ignore_index is not None and not -(2**63) <= ignore_index < 2**63:
        ignore_index = None  # no int64 is equal to it
    return numbers, _are_classes(numbers.reshape(-1), C, ignore_index)


def _are_classes(t, C, ignored):
    """Whether all numbers but `ignored` are 0 … C-1; writes -1 where they are `ignored`, unless that is None."""
    outside = np.zeros(1, bool)
    _check(t, C, ignored, outside)
    return not outside[0]


@njit(**OPTIONS)
def _check(t, C, ignored, outside):
    """Write to outside[0] whether a number but `ignored` is none of 0 … C-1; and -1 where they are `ignored`."""
    for i in range(len(t)):
        if ignored is None:
            outside[0] |= (t[i] < 0) | (t[i] >= C)
        else:
            outside[0] |= ((t[i] < 0) | (t[i] >= C)) & (t[i] != ignored)
            t[i] = -1 if t[i] == ignored else t[i]
