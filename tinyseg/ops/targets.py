"""Check the targets and weights of the losses, and convert them to the type and shape of the logits z (N, C, H, W)."""

import numbers

from tinyseg.autograd import as_array
from tinyseg.backend import device_of, kernels, xp_of
from tinyseg.backend.half import is_half
from tinyseg.ops.cast import cast
from tinyseg.ops.window import check_nchw


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def class_numbers(t, C, ignore_index):
    """Return class numbers as int64, with -1 for the ignored ones, and whether all others are 0 … C-1."""
    t = t.astype("int64")
    ignored = t == ignore_index if ignore_index is not None else xp_of(t).zeros_like(t, dtype=bool)
    return xp_of(t).where(ignored, -1, t), not (((t < 0) | (t >= C)) & ~ignored).any()


def constant(z, given):
    """Return `given` as an array of z's type, on its device. On a GPU it may be stored, and must not be changed."""
    return xp_of(z).asarray(given, dtype=z.dtype)


# ----- arguments ---------------------------------------------------------------
def at_least_float32(x):
    """Return `x`; in float32 if it is float16, in which the sums of a loss would not be accurate."""
    return cast(x, "float32") if is_half(as_array(x)) else x


def target_like(z, target, op):
    """Return a target as an array of the type of the logits `z`; ValueError if it has not their shape."""
    t = on_one_device(z, target, op)
    if t.shape != z.shape:
        raise ValueError(f"{op}: target must have the shape of the logits, {z.shape}, but has {t.shape}.")
    return t.astype(z.dtype, copy=False)


def class_targets(z, target, op, ignore_index=None):
    """Return class numbers (N, H, W) as int64, -1 for the ignored ones; ValueError if another is not a class."""
    check_nchw(op, z)
    t, shape = on_one_device(z, target, op), (z.shape[0], *z.shape[2:])
    if t.shape != shape or t.dtype.kind not in "iu":
        found = f"{t.dtype} of shape {t.shape}"
        raise ValueError(f"{op}: target must hold integer class numbers of shape {shape}, but is {found}.")
    C = z.shape[1]
    classes, valid = kernels(__name__, z).class_numbers(t, C, ignore_index)
    if not valid:
        raise ValueError(f"{op}: class numbers must be 0 … {C - 1}, but range from {int(t.min())} to {int(t.max())}.")
    return classes


def one_hot(z, target):
    """Return a target as one mask for each class, in the shape and type of the logits `z`."""
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
        mend = f"move it with backend.to_device({what}, {device!r})"
        raise TypeError(f"{op}: the logits are on the {device}, the {what} is not; {mend}.")
    return t


def per_class(z, weight, name):
    """Return `weight` as an array that broadcasts against the logits `z`: C numbers become (C, 1, 1)."""
    if weight is None:
        weight = 1.0
    if isinstance(weight, list):
        weight = tuple(weight)
    if all(isinstance(n, numbers.Real) for n in (weight if isinstance(weight, tuple) else (weight,))):
        w = kernels(__name__, z).constant(z, weight)
    else:
        w = xp_of(z).asarray(on_one_device(z, weight, name, "weight"), dtype=z.dtype)
    if w.ndim == 1:
        C = z.shape[1] if z.ndim > 1 else 0
        if z.ndim < 2 or len(w) != C:
            raise ValueError(f"{name}: expected one number for each of {C} classes, found {len(w)}.")
        w = w.reshape(C, *[1] * (z.ndim - 2))
    if w.ndim > z.ndim or any(n not in (1, m) for n, m in zip(w.shape[::-1], z.shape[::-1], strict=False)):
        raise ValueError(f"{name}: shape {w.shape} does not broadcast against logits of shape {z.shape}.")
    return w
