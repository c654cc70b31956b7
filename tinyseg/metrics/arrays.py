"""What users hand over to a score, as arrays of numbers."""

from typing import Any

import numpy as np


def as_numbers(array: Any, name: str) -> np.ndarray:
    """Return an array of bool, integers or floats.

    Parameters
    ----------
    array : array_like
    name : str
        What it is, for messages.

    Returns
    -------
    ndarray
        Of the dtype that it has, without a copy where it is one already.

    Raises
    ------
    ValueError
        It holds anything else, such as text, None or complex numbers; its rows differ in length; or it is a masked
        array in which something is masked.
    TypeError
        It is a `tinyseg.Tensor`, or lies on a GPU.
    """
    masked = np.ma.count_masked(array) if isinstance(array, np.ma.MaskedArray) else 0
    if masked:
        raise ValueError(
            f"{name} is a masked array, and {masked} of its {array.size} values are masked: a score would count them. "
            "Take out the same pixels of both arrays, as in prediction[~mask], target[~mask]."
        )
    try:
        found = np.asarray(array)
        if found.dtype == object:  # Python's own numbers, as pandas keeps them
            found = np.asarray(found.tolist())
    except ValueError as error:
        raise ValueError(f"{name} must be an array, but cannot be made one: {error}.") from None
    if found.dtype.kind not in "biuf":
        what = f"is a {type(array).__name__}" if found.ndim == 0 else f"has shape {found.shape}"
        raise ValueError(f"{name} must be an array of numbers, or of True and False, but {what}, dtype {found.dtype}.")
    return found


def number_within(value: Any, low: float, high: float, name: str) -> float:
    """Return a number as float; ValueError, whose message calls it `name`, unless it is from `low` to `high`."""
    number = np.asarray(value)
    if number.ndim or number.dtype.kind not in "biuf" or not low <= number <= high:  # NaN fails both comparisons
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, but is {value!r}.")
    return float(number)
