r"""Elementwise arithmetic with broadcasting, sums and means; and the operators of Tensor (+, -, *, /, **).

    add       y = a + b      ga = gy            gb = gy
    subtract  y = a - b      ga = gy            gb = -gy
    multiply  y = a b        ga = gy b          gb = gy a
    divide    y = a / b      ga = gy / b        gb = -gy y / b
    power     y = x^k        gx = gy k x^(k-1)
    exp, log  y = exp(x)     gx = gy y          y = log(x)   gx = gy / x
    sum       y = Σ x        gx = gy, repeated along the summed axes
    mean      y = Σ x / m    gx = gy / m, repeated along the summed axes, over which m values are averaged

Broadcasting repeats an input along an axis, so its gradient is the sum along that axis (`unbroadcast`): summing is the
transpose of repeating.
"""

import numbers

import numpy as np

from tinyseg.autograd import Array, Number, Tensor, as_array, define_operators
from tinyseg.backend import kernels, xp_of
from tinyseg.backend.half import HalfFunction
from tinyseg.ops.shape import reshape, transpose
from tinyseg.ops.sums import count_over, sum_over
from tinyseg.ops.window import check_axes


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def add_forward(a, b):
    """Return a + b, with broadcasting."""
    return a + b


def multiply_forward(a, b):
    """Return a · b, with broadcasting."""
    return a * b


def unbroadcast(g, shape):
    """Sum `g` over the axes along which an array of `shape` was repeated."""
    if g.shape == shape:
        return g
    extra = tuple(range(g.ndim - len(shape)))  # axes that broadcasting put in front
    kept = tuple(len(extra) + k for k, n in enumerate(shape) if n == 1)
    return sum_over(g, extra + kept, keepdims=True).reshape(shape)


def numbers_as_arrays(*inputs):
    """Turn Python and NumPy scalars into arrays like the other input: ``x * 2.0`` stays float32, on x's device."""
    if all(isinstance(t, Tensor) for t in inputs):
        return inputs
    arrays = [np.asarray(t) if isinstance(t, (list, tuple)) else as_array(t) for t in inputs]
    # Arrays with axes decide before arrays without, and arrays before NumPy's scalars.
    typed = [a for a in arrays if hasattr(a, "dtype")] or [np.zeros(())]
    first = min(typed, key=lambda a: (isinstance(a, np.generic), a.ndim == 0))

    def like_first(t, a):
        if isinstance(t, Tensor) or isinstance(a, bool) or not isinstance(a, (int, float, np.number)):
            return t
        return np.full_like(first, a, shape=(1,), dtype=first.dtype).reshape(())  # CuPy would take shape=() for None

    return [like_first(t, a) for t, a in zip(inputs, arrays, strict=True)]


def _sum(a, b):
    return kernels(__name__, a, b).add_forward(a, b)


def _product(a, b):
    return kernels(__name__, a, b).multiply_forward(a, b)


# ----- the nodes of the graph ------------------------------------------------
class Binary(HalfFunction):
    def __call__(self, a, b):
        a, b = numbers_as_arrays(a, b)
        try:
            return super().__call__(a, b)
        except ValueError as error:
            if "broadcast" not in str(error):
                raise
            shapes = " and ".join(str(np.shape(as_array(x))) for x in (a, b))
            raise ValueError(f"{type(self).__name__.lower()}: shapes {shapes} do not broadcast together.") from None

    def to_inputs(self, ga, gb):
        """Return the gradients of both inputs, summed along the axes where broadcasting repeated them."""
        gradients = zip((ga, gb), self.input_shapes, self.needs, strict=True)
        return tuple(unbroadcast(g, shape) if need else None for g, shape, need in gradients)


class Add(Binary):
    def forward(self, a, b):
        return _sum(a, b)

    def backward(self, gy):
        return self.to_inputs(gy, gy)


class Subtract(Binary):
    def forward(self, a, b):
        return a - b

    def backward(self, gy):
        return self.to_inputs(gy, -gy)


class Multiply(Binary):
    def forward(self, a, b):
        self.saved = a, b
        return _product(a, b)

    def backward(self, gy):
        a, b = self.saved
        return self.to_inputs(*(_product(gy, x) if need else None for x, need in zip((b, a), self.needs, strict=True)))


class Divide(Binary):
    def forward(self, a, b):
        y = a / b
        self.saved = b, y
        return y

    def backward(self, gy):
        b, y = self.saved
        ga = gy / b
        return self.to_inputs(ga, -ga * y)


class Power(HalfFunction):
    def __init__(self, exponent):
        self.exponent = exponent

    def forward(self, x):
        self.saved = x
        return x**self.exponent

    def backward(self, gy):
        k = self.exponent
        return gy * k * self.saved ** (k - 1) if k else 0 * gy  # x^0 is constant, at x = 0 too


class Exp(HalfFunction):
    def forward(self, x):
        self.saved = xp_of(x).exp(x)
        return self.saved

    def backward(self, gy):
        return gy * self.saved


class Log(HalfFunction):
    def forward(self, x):
        self.saved = x
        return xp_of(x).log(x)

    def backward(self, gy):
        return gy / self.saved


class Sum(HalfFunction):
    adds_up = True

    def __init__(self, axis=None, keepdims=False):
        self.axis, self.keepdims = axis, keepdims

    def forward(self, x):
        check_axes(type(self).__name__.lower(), x, self.axis)
        y = sum_over(x, self.axis, keepdims=True)
        self.kept = y.shape
        return y if self.keepdims else y.squeeze(self.axis)

    def backward(self, gy):
        return xp_of(gy).broadcast_to(gy.reshape(self.kept), self.input_shapes[0]).copy()


class Mean(Sum):
    def forward(self, x):
        y = super().forward(x)
        self.count = count_over(x, self.axis)
        if self.count == 0 and y.size:
            raise ValueError(f"mean: there is nothing to average over axis {self.axis} of an array of shape {x.shape}.")
        return y / y.dtype.type(max(self.count, 1))

    def backward(self, gy):
        return super().backward(gy / gy.dtype.type(max(self.count, 1)))


def add(a: Tensor | Array | Number, b: Tensor | Array | Number) -> Tensor:
    """Return a + b elementwise, with broadcasting."""
    return Add()(a, b)


def subtract(a: Tensor | Array | Number, b: Tensor | Array | Number) -> Tensor:
    """Return a - b elementwise, with broadcasting."""
    return Subtract()(a, b)


def multiply(a: Tensor | Array | Number, b: Tensor | Array | Number) -> Tensor:
    """Return a · b elementwise, with broadcasting."""
    return Multiply()(a, b)


def divide(a: Tensor | Array | Number, b: Tensor | Array | Number) -> Tensor:
    """Return a / b elementwise, with broadcasting."""
    return Divide()(a, b)


def power(x: Tensor | Array, exponent: float) -> Tensor:
    """Return x^exponent elementwise; the exponent is a number."""
    if not isinstance(exponent, numbers.Real):
        raise TypeError(f"power: the exponent must be a number, but is {type(exponent).__name__}.")
    return Power(float(exponent))(x)


def exp(x: Tensor | Array) -> Tensor:
    """Return exp(x), elementwise."""
    return Exp()(x)


def log(x: Tensor | Array) -> Tensor:
    """Return the natural logarithm of x, elementwise."""
    return Log()(x)


def sum(x: Tensor | Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
    """Return the sum over `axis`: an int, a tuple, or None for all axes."""
    return Sum(axis, keepdims)(x)


def mean(x: Tensor | Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
    """Return the mean over `axis`: an int, a tuple, or None for all axes."""
    return Mean(axis, keepdims)(x)


# ----- Tensor's operators, and the sum of two gradients ------------------------
define_operators(
    {
        "__add__": add,
        "__radd__": add,
        "__mul__": multiply,
        "__rmul__": multiply,
        "__sub__": subtract,
        "__rsub__": lambda a, b: subtract(b, a),
        "__truediv__": divide,
        "__rtruediv__": lambda a, b: divide(b, a),
        "__neg__": lambda x: multiply(x, -1.0),
        "__pow__": power,
        "__len__": lambda x: len(x.data),
        "__float__": lambda x: float(x.data),
        "sum": sum,
        "mean": mean,
        "reshape": reshape,
        "transpose": transpose,
    },
    sum_of_gradients=_sum,
)
