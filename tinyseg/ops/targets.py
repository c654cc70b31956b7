"""Targets and weights of the losses: checked, and brought to the type and shape of the logits z (N, C, H, W)."""

import numbers

from tinyseg.autograd import as_array
from tinyseg.backend import device_of, kernels, xp_of
from tinyseg.backend.half import is_half
from tinyseg.ops.cast import cast
from tinyseg.ops.window import check_nchw


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def class_numbers(t, C, ignore_index):
    """Class numbers as int64, with -1 where they are to be ignored, and whether all others are 0 … C-1."""
    t = t.astype("int64")
    ignored = t == ignore_index if ignore_index is not None else xp_of(t).zeros_like(t, dtype=bool)
    return xp_of(t).where(ignored, -1, t), not (((t < 0) | (t >= C)) & ~ignored).any()


def constant(z, given):
    """Return numbers that never change as an array of z's type, on its device."""
    return xp_of(z).asarray(given, dtype=z.dtype)


# ----- arguments ---------------------------------------------------------------
def at_least_float32(x):
    """Return `x`, in float32 if it is float16: for what adds up so much that float16 will not do."""
    return cast(x, "float32") if is_half(as_array(x)) else x


def target_like(z, target, op):
    """Return a target of the shape of the logits `z` as an array of their type."""
    t = on_one_device(z, target, op)
    if t.shape != z.shape:
        raise ValueError(f"{op}: target must have the shape of the logits, {z.shape}, but has {t.shape}.")
    return t.astype(z.dtype, copy=False)


def class_targets(z, target, op, ignore_index=None):
    """Return class numbers (N, H, W) as int64, -1 where they are to be ignored; ValueError if one is no class."""
    check_nchw(op, z)
    t, shape = on_one_device(z, target, op), (z.shape[0], *z.shape[2:])
    if t.shape != shape or t.dtype.kind not in "iu":
        found = f"{t.dtype} of shape {t.shape}"
        raise ValueError(f"{op}: target must hold integer class numbers of shape {shape}, but is {found}.")
    found, valid = kernels(__name__, z).class_numbers(t, z.shape[1], ignore_index)
    if not valid:
        raise ValueError(
            f"{op}: class numbers must be 0 … {z.shape[1] - 1}, but range from {int(t.min())} to {int(t.max())}."
        )
    return found


def one_hot(z, target):
    """Return a target as one mask a class, of the shape and type of the logits `z`."""
    t = as_array(target)
    if t.ndim == z.ndim:
        return target_like(z, t, "soft Dice")
    t = class_targets(z, t, "soft Dice")
    return (t[:, None] == xp_of(z).arange(z.shape[1]).reshape(-1, 1, 1)).astype(z.dtype)


def on_one_device(z, array, op, what="target"):
    """Return `array` as an array; TypeError if it is not on the device of the logits `z`."""
    t, device = as_array(array), device_of(z)
    t = t if hasattr(t, "dtype") else xp_of(z).asarray(t)
    if device_of(t) != device:
        raise TypeError(
            f"{op}: the logits are on the {device}, the {what} is not; move it with "
            f"backend.to_device({what}, {device!r})."
        )
    return t


def per_class(z, weight, name):
    """Return `weight` as an array that broadcasts against the logits `z`: C numbers become (C, 1, 1)."""
    given = 1.0 if weight is None else tuple(weight) if isinstance(weight, list) else weight
    if all(isinstance(n, numbers.Real) for n in (given if isinstance(given, tuple) else (given,))):
        w = kernels(__name__, z).constant(z, given)
    else:
        w = xp_of(z).asarray(on_one_device(z, weight, name, "weight"), dtype=z.dtype)
    if w.ndim == 1:
        C = z.shape[1] if z.ndim > 1 else 0
        if z.ndim < 2 or len(w) != C:
            raise ValueError(f"{name}: expected one number for each of {C} classes, found {len(w)}.")
        w = w.reshape(-1, *[1] * (z.ndim - 2))
    if w.ndim > z.ndim or any(n not in (1, m) for n, m in zip(w.shape[::-1], z.shape[::-1], strict=False)):
        raise ValueError(f"{name}: shape {w.shape} does not broadcast against logits of shape {z.shape}.")
    return w
