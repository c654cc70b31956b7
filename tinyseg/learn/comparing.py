"""Compare what a student's function returns with what it should return, and say how the two differ.

The checks of the course and of the notebooks' exercises (`tinyseg.learn.answers`) use it. They know the right numbers
from elsewhere: SciPy, loops over all indices, or difference quotients (`slopes`).
"""

import contextlib

import numpy as np

TOLERANCE = 1e-6  # relative to the largest of the expected numbers; the checks compute in float64


class Different(AssertionError):
    """A student's result differs; the text says where and how."""


@contextlib.contextmanager
def case(words):
    """Begin what goes wrong in this block with words that name the case."""
    try:
        yield
    except NotImplementedError:
        raise
    except Different as different:
        raise Different(f"{words}: {different}") from None
    except Exception as error:
        error.add_note(words)
        raise


def same(found, expected, name, tolerance=TOLERANCE):
    """Raise `Different` unless an array, or a number, is as expected.

    Parameters
    ----------
    found, expected : array_like
    name : str
        What it is called in the lesson: "gw".
    tolerance : float
        Largest error, as a multiple of the largest of the expected numbers, or of 1e-3 if that is larger.
    """
    if found is None:
        raise Different(f"{name} is None: does the function return it?")
    expected = np.asarray(expected)
    if not isinstance(found, (np.ndarray, np.generic, float, int, bool)):
        raise Different(f"{name} is a {type(found).__name__}, and should be an array.")
    found = np.asarray(found)
    if found.shape != expected.shape:
        turned = " (it is turned round: is there a transpose too much, or too few?)"
        hint = turned if found.shape == expected.shape[::-1] and found.ndim > 1 else ""
        raise Different(f"{name} has the shape {found.shape}, and should have {expected.shape}{hint}.")
    if found.dtype.kind != expected.dtype.kind or (found.ndim and found.dtype != expected.dtype):
        raise Different(f"{name} holds {found.dtype} numbers, and should hold {expected.dtype}.")
    limit = tolerance * max(np.abs(expected).max(initial=0), 1e-3)
    with np.errstate(all="ignore"):
        off = ~(np.abs(found.astype(float) - expected) <= limit)
    if off.any():
        raise Different(_first_difference(found, expected, off, limit, name))


def _first_difference(found, expected, off, limit, name):
    """Return a sentence with the first number that differs, and what all differences have in common."""
    index = tuple(int(k) for k in np.argwhere(off)[0])
    place = f"{name}[{', '.join(map(str, index))}]" if index else name
    sentence = f"{place} is {_short(found[index])}, and should be {_short(expected[index])}"
    if off.size > 1:
        sentence += f"; {off.sum()} of {off.size} numbers differ" if off.sum() > 1 else "; all others are right"
    return f"{sentence}.{_in_common(found, expected, limit)}"


def _in_common(found, expected, limit):
    """Return what turns the numbers found into the right ones, if that is simple; otherwise nothing."""
    if found.size < 2 or not np.isfinite(found).all():
        return ""
    for axis in range(found.ndim):
        if found.shape[axis] > 1 and np.allclose(np.flip(found, axis), expected, 0, limit):
            return f" They are right, but in reverse order along axis {axis}."
    square = found.ndim > 1 and found.shape[-1] == found.shape[-2]
    if square and np.allclose(np.swapaxes(found, -1, -2), expected, 0, limit):
        return " They are right, but with the last two axes exchanged: look for a transpose."
    largest = np.unravel_index(np.abs(expected).argmax(), expected.shape)
    factor = found[largest] / expected[largest] if expected[largest] else 0
    whole = [n for n in (factor, 1 / factor if factor else 0) if n and np.isclose(n, round(n), 1e-6)]
    if whole and np.allclose(found, factor * expected, 0, abs(factor) * limit):
        times = f"All are {_short(factor)} times what they should be"
        return " They have the wrong sign." if np.isclose(factor, -1) else f" {times}."
    off = (found - expected).flat[0]
    if np.allclose(found - expected, off, 0, limit):
        return f" All are {_short(abs(off))} too {'large' if off > 0 else 'small'}."
    return ""


def _short(number):
    """Return a number with six digits, as a text."""
    return f"{number:.6g}"


@contextlib.contextmanager
def keeping(**arrays):
    """Raise `Different` if the arrays, given by their names, are changed in this block."""
    before = {name: a.copy() for name, a in arrays.items()}
    yield
    for name, a in arrays.items():
        if not np.array_equal(a, before[name], equal_nan=True):
            raise Different(f"{name}, which was handed over, was changed: work on a copy.")


def keeps_float32(f, *arguments):
    """Raise `Different` unless a function returns float32 arrays when its arrays are float32."""
    single = [a.astype(np.float32) if getattr(a, "dtype", None) == np.float64 else a for a in arguments]
    found = f(*single)
    for a in found if isinstance(found, tuple) else (found,):
        if getattr(a, "dtype", None) not in (np.float32, np.uint8):
            raise Different(f"float32 arrays go in, and {getattr(a, 'dtype', type(a).__name__)} comes out.")


def slopes(f, x, step=1e-5):
    """Return the gradient of a function with respect to an array, by central differences.

    Parameters
    ----------
    f : callable
        ``f(x) -> float``; it must not keep or change x.
    x : ndarray, float64
    step : float
    """
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        moved = x.copy()
        moved[index] += step
        above = f(moved.copy())
        moved[index] -= 2 * step
        gradient[index] = (above - f(moved.copy())) / (2 * step)
    return gradient


def numbers(*shape, seed=0):
    """Return an array of random numbers, float64: standard normal, none nearer to 0 than 0.01."""
    drawn = np.random.default_rng(seed).standard_normal(shape)
    return drawn + 0.01 * np.sign(drawn)
