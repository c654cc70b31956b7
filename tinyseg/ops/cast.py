r"""Cast: the same numbers in another floating-point type.

    forward   y  = x, rounded to y's type
    grad_x    gx = gy, rounded to x's type

For the gradient, rounding counts as y = x: its true derivative is 0 almost everywhere, which would stop training.
float16 has 11 bits of mantissa and reaches from 6e-8 to 65504; larger numbers become infinite. x may have any shape.

Between two casts a network runs in float16; its parameters stay float32 (`tinyseg.backend.half`):

    logits = cast(model(cast(x, "float16")), "float32")
"""

import numpy as np

from tinyseg.autograd import Array, Function, Tensor
from tinyseg.backend import kernels

FLOATS = tuple(np.dtype(name) for name in ("float16", "float32", "float64"))


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def convert(x, dtype):
    """Return a copy of `x` in the type `dtype`."""
    with np.errstate(over="ignore"):  # numbers too large for float16 become infinite
        return x.astype(dtype)


# ----- the node of the graph -------------------------------------------------
class Cast(Function):
    def __init__(self, dtype):
        self.dtype = dtype

    def forward(self, x):
        return kernels(__name__, x).convert(x, self.dtype)

    def backward(self, gy):
        return kernels(__name__, gy).convert(gy, self.input_dtypes[0])


def cast(x: Tensor | Array, dtype: str | type | np.dtype) -> Tensor:
    """Convert `x` to another floating-point type; its gradient is converted back.

    Parameters
    ----------
    x : Tensor or ndarray, any shape
    dtype : {"float16", "float32", "float64"}

    Returns
    -------
    Tensor, shape of x
    """
    known = [a for a in FLOATS if dtype is not None and dtype in (a.name, a.type, a)]  # NumPy takes None for float64
    if not known:
        raise ValueError(f"cast: dtype must be 'float16', 'float32' or 'float64', but is {dtype!r}.")
    return Cast(known[0])(x)
