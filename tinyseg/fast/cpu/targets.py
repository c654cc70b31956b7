"""Targets of the losses with numba: class numbers are checked, and those to be ignored marked, in one pass.

Signature as in `tinyseg.ops.targets`; `supports` is asked about the logits.
"""

import numpy as np
from numba import njit

from tinyseg.fast.cpu.channels_last import OPTIONS, float32

supports = float32


def class_numbers(t, C, ignore_index):
    """Class numbers as int64, with -1 where they are to be ignored, and whether all others are 0 … C-1."""
    if not isinstance(ignore_index, (int, np.integer, type(None))):
        return NotImplemented
    if ignore_index is None and t.dtype == np.int64:
        return t, _all_below(np.ascontiguousarray(t).reshape(-1), C)
    numbers = t.astype(np.int64, order="C")
    if ignore_index is None or not -(2**63) <= ignore_index < 2**63:
        return numbers, _all_below(numbers.reshape(-1), C)
    return numbers, _all_below_but(numbers.reshape(-1), C, ignore_index)


@njit(**OPTIONS)
def _all_below(t, C):
    """Whether all numbers are 0 … C-1."""
    outside = False
    for i in range(len(t)):
        outside |= (t[i] < 0) | (t[i] >= C)
    return not outside


@njit(**OPTIONS)
def _all_below_but(t, C, ignored):
    """The same, leaving out `ignored`, for which -1 is put in."""
    outside = False
    for i in range(len(t)):
        outside |= ((t[i] < 0) | (t[i] >= C)) & (t[i] != ignored)
        t[i] = -1 if t[i] == ignored else t[i]
    return not outside
