"""float16: the rule that ops keep, and what computes float16 arrays that no kernel takes.

    y has the dtype of x. If x is float16, parameters may be float32; statistics, sums and the gradients of float32
    parameters are float32. float16 is for activations and their gradients, which fill the memory, not for sums.

An op keeps the rule by deriving its node from `HalfFunction`. On the GPU there are kernels for float16
(`tinyseg.fast.gpu`). Where there are none, `in_float32` makes float32 copies, and the kernels or the maths for float32
compute. The result is rounded to float16 once: y by `in_float32`, a gradient by `HalfFunction` if its tensor is
float16. This is why the op files have no branch for float16.
"""

import functools

import numpy as np

from tinyseg.autograd import Function, describe
from tinyseg.backend.devices import xp_of

HALF, SINGLE = np.dtype("float16"), np.dtype("float32")
# Ops that only move numbers, or round one sum or product: their maths computes float16 arrays directly.
ROUNDED_ONCE = ("tinyseg.ops.arithmetic", "tinyseg.ops.cast", "tinyseg.ops.shape")


class HalfFunction(Function):
    """A node that keeps the rule for float16, and checks that its inputs have one type and lie on one device.

    Attributes
    ----------
    activations : slice
        The inputs that are activations. If they are float16, the other inputs may be float32.
    adds_up : bool
        Whether the node adds up many values. If so, it computes on float32 copies.
    """

    activations = slice(None)
    adds_up = False

    def apply(self, *xs):
        half = HALF in self.input_dtypes
        mixed = half and all(dtype == HALF for dtype in self.input_dtypes[self.activations])
        check_together(type(self).__name__, xs, (HALF, SINGLE) if mixed else (xs[0].dtype,))
        if not half:
            return self.forward(*xs)
        y = self.forward(*(widened(xs) if self.adds_up else xs))
        return rounded(y) if y.dtype == SINGLE else y

    def gradients(self, gy):
        if HALF not in self.input_dtypes:
            return super().gradients(gy)
        gxs = super().gradients(widened(gy) if self.adds_up else gy)
        return tuple(
            rounded(gx) if dtype == HALF and getattr(gx, "dtype", None) == SINGLE else gx
            for gx, dtype in zip(gxs, self.input_dtypes, strict=True)
        )


def check_together(op, arrays, dtypes):
    """Raise a TypeError unless the arrays are on one device and of the dtypes that are allowed."""
    first = arrays[0]
    for a in arrays:
        if type(a) is not type(first):
            raise TypeError(
                f"{op} got arrays on different devices: {describe(first)} and {describe(a)}; "
                "move them to one with backend.to_device(array, 'cpu' or 'gpu') or model.to(device)."
            )
        if a.dtype not in dtypes:
            found = f"{describe(first)} and {describe(a)}"
            raise TypeError(f"{op} got mixed precision: {found}; convert one of them with .astype.")


def is_half(a):
    """Whether `a` is a float16 array."""
    return getattr(a, "dtype", None) == HALF


def wide(dtype):
    """Return the type for sums over arrays of `dtype`: float32 for float16, else `dtype` itself."""
    return SINGLE if dtype == HALF else np.dtype(dtype)


def rounded(a):
    """Return `a` as float16. Numbers that are too large become infinite; the loss scaler looks for them."""
    with np.errstate(over="ignore"):
        return a.astype(HALF, copy=False)


def widened(a):
    """Return a float16 array as float32, a tuple with its float16 arrays as float32, and anything else unchanged."""
    if isinstance(a, tuple):
        return tuple(map(widened, a))
    return a.astype(SINGLE) if is_half(a) else a


def like_float32(a):
    """Return a float32 array of the shape of `a`, only to choose kernels: a single 0 in memory, repeated."""
    xp = xp_of(a)
    return xp.broadcast_to(xp.zeros((), SINGLE), a.shape)


class InFloat32:
    """The functions of a module, called with float32 copies of float16 arrays.

    If there was a float16 array, y, the first result of a function named *forward*, is rounded to float16.
    """

    def __init__(self, module):
        self.module = module

    def __getattr__(self, name):
        function = getattr(self.module, name)
        if not callable(function):
            return function

        @functools.wraps(function)
        def on_copies(*args):
            if not any(map(is_half, _flat(args))):
                return function(*args)
            found = function(*widened(args))
            if "forward" not in name:
                return found
            return (rounded(found[0]), *found[1:]) if isinstance(found, tuple) else rounded(found)

        return on_copies


in_float32 = functools.cache(InFloat32)  # one object for each module


def _flat(args):
    return [item for a in args for item in (a if isinstance(a, tuple) else (a,))]
