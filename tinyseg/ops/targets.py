"""Check the targets and weights of the losses, and convert them to the type and shape of the logits z (N, C, H, W)."""

import numbers

import numpy as np

from tinyseg.autograd import as_array
from tinyseg.backend import device_of, kernels, xp_of
from tinyseg.backend.half import is_half
from tinyseg.ops.cast import cast
from tinyseg.ops.window import check_nchw

ROUNDING = 1e-6  # what float32 arithmetic, such as resizing a mask, may leave beyond 0 and 1


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def class_numbers(t, C, ignore_index):
    """Return class numbers as int64, with -1 for the ignored ones, and whether all others are 0 … C-1."""
    t = t.astype("int64")
    ignored = t == ignore_index if ignore_index is not None else xp_of(t).zeros_like(t, dtype=bool)
    return xp_of(t).where(ignored, -1, t), not (((t < 0) | (t >= C)) & ~ignored).any()


def constant(z, given):
    """Return `given` as an array of z's type, on its device. On a GPU it may be stored, and must not be changed."""
    return xp_of(z).asarray(given, dtype=z.dtype)


def in_unit_interval(t):
    """Whether all numbers are 0 … 1, to a rounding; NaN is not."""
    return t.size == 0 or bool(t.min() >= -ROUNDING and t.max() <= 1 + ROUNDING)


# ----- arguments ---------------------------------------------------------------
def at_least_float32(x):
    """Return `x`; in float32 if it is float16, in which the sums of a loss would not be accurate."""
    return cast(x, "float32") if is_half(as_array(x)) else x


def target_like(z, target, op):
    """Return a target as an array of the type of the logits `z`; ValueError if it has not their shape, or not 0 … 1."""
    t = on_one_device(z, target, op)
    if t.shape != z.shape:
        raise ValueError(f"{op}: target must have the shape of the logits, {z.shape}, but has {t.shape}.")
    if t.dtype.kind != "b" and not kernels(__name__, z).in_unit_interval(t):
        found = f"runs from {t.min()} to {t.max()} ({t.dtype}); divide a mask of 0 and 255 by 255"
        raise ValueError(f"{op}: target must hold numbers from 0 to 1, but {found}.")
    return t.astype(z.dtype, copy=False)


def class_targets(z, target, op, ignore_index=None):
    """Return class numbers (N, H, W) as int64, -1 for the ignored ones; ValueError if another is not a class."""
    check_nchw(op, z)
    t, shape = on_one_device(z, target, op), (z.shape[0], *z.shape[2:])
    if t.shape != shape or t.dtype.kind not in "iu":
        found = f"{t.dtype} of shape {t.shape}"
        raise ValueError(f"{op}: target must hold integer class numbers of shape {shape}, but is {found}.")
    if ignore_index is not None and not isinstance(ignore_index, numbers.Integral):
        raise ValueError(f"{op}: ignore_index must be a class number or None, but is {ignore_index!r}.")
    C = z.shape[1]
    if C == 0:
        raise ValueError(f"{op}: logits need at least one class along axis 1, but have shape {z.shape}.")
    classes, valid = kernels(__name__, z).class_numbers(t, C, ignore_index)
    if not valid:
        raise ValueError(f"{op}: class numbers must be 0 … {C - 1}, but range from {int(t.min())} to {int(t.max())}.")
    return classes


def one_hot(z, target, ignore_index=None):
    """Return a target as one mask for each class, in the shape and type of the logits `z`; ignored pixels have 0s."""
    t = as_array(target)
    if t.ndim == z.ndim:
        return target_like(z, t, "soft Dice")
    t = class_targets(z, t, "soft Dice", ignore_index)
    return (t[:, None] == xp_of(z).arange(z.shape[1]).reshape(-1, 1, 1)).astype(z.dtype)


def on_one_device(z, array, op, what="target"):
    """Return `array` as an array; TypeError if it is not on the device of the logits `z`."""
    t, device = as_array(array), device_of(z)
    t = t if hasattr(t, "dtype") else _from_lists(z, t)
    if t.dtype.kind not in "biuf":
        raise TypeError(f"{op}: the {what} must hold numbers, but is of type {t.dtype}.")
    if device_of(t) != device:
        mend = f"move it with backend.to_device({what}, {device!r})"
        raise TypeError(f"{op}: the logits are on the {device}, the {what} is not; {mend}.")
    return t


def _from_lists(z, lists):
    try:
        return xp_of(z).asarray(lists)
    except ValueError:  # rows of different lengths
        return np.asarray(lists, object)


def per_class(z, weight, name, ratios=False):
    """Return `weight` as an array that broadcasts against the logits `z`: C numbers become (C, 1, 1).

    If only the `ratios` of the weights matter, they are multiplied by a power of two, which changes no bit of a ratio:
    the largest becomes 1 … 2, and none is too small or too large for z's type. Weights on a GPU are taken as they are:
    to look at them, the host would have to wait.
    """
    if weight is None:
        weight = 1.0
    if isinstance(weight, list):
        weight = tuple(weight)
    if all(isinstance(n, numbers.Real) for n in (weight if isinstance(weight, tuple) else (weight,))):
        values = _finite(np.array(weight, float), z, name, ratios)
        w = kernels(__name__, z).constant(z, tuple(values.tolist()) if values.ndim else float(values))
    else:
        w = on_one_device(z, weight, name, "weight")
        w = xp_of(z).asarray(_finite(w, z, name, ratios) if device_of(w) == "cpu" else w, dtype=z.dtype)
    if w.ndim == 1:
        C = z.shape[1] if z.ndim > 1 else 0
        if z.ndim < 2 or len(w) != C:
            raise ValueError(f"{name}: expected one number for each of {C} classes, found {len(w)}.")
        w = w.reshape(C, *[1] * (z.ndim - 2))
    if w.ndim > z.ndim or any(n not in (1, m) for n, m in zip(w.shape[::-1], z.shape[::-1], strict=False)):
        raise ValueError(f"{name}: shape {w.shape} does not broadcast against logits of shape {z.shape}.")
    return w


def _finite(w, z, name, ratios):
    """Return weights, a NumPy array, scaled if `ratios`; ValueError if one is negative, NaN or too large."""
    largest = w.max() if w.size else 1.0
    if ratios and 0 < largest < np.inf:
        w = np.ldexp(w.astype(float, copy=False), int(1 - np.frexp(float(largest))[1]))
        largest = w.max()
    limit = np.finfo(z.dtype if z.dtype.kind == "f" else float).max  # other logits are refused later
    if w.size and not (w.min() >= 0 and largest <= limit):
        found = f"run from {w.min()} to {w.max()}"
        raise ValueError(f"{name}: weights must be finite numbers and not negative, but {found}.")
    return w
