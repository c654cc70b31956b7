"""What the engine asks of arrays: which kind they are, and who owns their memory."""

import sys
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
"""An array of NumPy, or of CuPy on a GPU. Type checkers see NumPy's, whose methods CuPy's arrays have too, and the
scalars that NumPy returns where a result has no axes."""

Number: TypeAlias = float | np.number
"""A number of Python's or NumPy's."""


def plain_array(a: Any) -> Array:
    """Return a CuPy array as it is, anything else as a plain NumPy array; copy only what has a foreign byte order."""
    if type(a) is np.ndarray and a.dtype.isnative:
        return a
    if isinstance(a, np.ma.MaskedArray):
        mend = "fill it first (a.filled(value)), and leave pixels out of a loss by ignore_index or weights"
        raise TypeError(f"A masked array cannot be computed with, because its mask would be lost: {mend}.")
    # Where a result has no axes, NumPy returns a scalar (np.generic), not an array. CuPy's types are NumPy's too.
    is_numpy = isinstance(a, (np.ndarray, np.generic)) or not isinstance(getattr(a, "dtype", None), np.dtype)
    return np.asarray(a, np.asarray(a).dtype.newbyteorder("=")) if is_numpy else a


def describe(a: Any) -> str:
    """Return dtype, library and shape of an array in words, for messages."""
    library = type(a).__module__.split(".")[0]
    return f"{a.dtype} {library} array of shape {a.shape}" if hasattr(a, "dtype") else type(a).__name__


def owners_of(a):
    """Return the ids of what owns the memory of an array, or of the arrays in a tuple or list; views share an owner."""
    if isinstance(a, (tuple, list)):
        return set().union(*map(owners_of, a))
    while (base := getattr(a, "base", None)) is not None:
        a = base
    return {id(a)}


def is_shared(gx):
    """Whether others hold the memory that this gradient is a view of, or it cannot be changed element by element."""
    viewed = gx.base is not None and sys.getrefcount(gx.base) > 2  # by others than gx and this call
    return viewed or (0 in gx.strides and gx.size > 1) or not getattr(gx.flags, "writeable", True)
