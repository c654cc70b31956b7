"""Numbers that a user passes, checked against the range in which they make sense."""

import numbers
from typing import Any


def check_number(name: str, value: Any, interval: str, integer: bool = False) -> Any:
    """Raise a ValueError unless `value` is a number in an interval. NaN is in none.

    Parameters
    ----------
    name : str
        What the number is, for the message.
    value : object
    interval : str
        As in mathematics: "[0, 1)" contains 0 but not 1. An end may be "inf", and "inf]" allows infinity itself.
    integer : bool
        Whether it must be an integer.

    Returns
    -------
    int or float
        The number, as Python's.
    """
    low, high = map(float, interval[1:-1].split(","))
    kind = numbers.Integral if integer else numbers.Real
    inside = isinstance(value, kind) and not isinstance(value, bool) and value == value  # not NaN
    inside = inside and (low <= value if interval[0] == "[" else low < value)
    inside = inside and (value <= high if interval[-1] == "]" else value < high)
    if inside and not integer:
        try:
            value = float(value)
        except OverflowError:  # an integer with hundreds of digits
            inside = False
    if not inside:
        what = "an integer" if integer else "a number"
        raise ValueError(f"{name} must be {what} in the interval {interval}, but is {value!r}.")
    return int(value) if integer else value
