"""Ops that move numbers and compute nothing: concat, pad, crop, reshape, transpose.

    concat       y = [x_0, x_1, …] along an axis        gx_k = the slice of gy where x_k is in y
    pad          y = x inside a border of zeros         gx = gy without the border
    crop         y = a window of x                      gx = gy inside a border of zeros
    reshape      y = x in another shape                 gx = gy in x's shape
    transpose    y = x with its axes in another order   gx = gy with its axes in x's order

Each backward pass moves the gradient back.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from tinyseg.autograd import Array, Tensor
from tinyseg.backend import kernels, xp_of
from tinyseg.backend.half import HalfFunction
from tinyseg.ops.window import Pair, Sides, check_nchw, crop2d, pad2d, pair, sides


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def concat_forward(xs, axis):
    """Join arrays along `axis`."""
    return xp_of(*xs).concatenate(xs, axis=axis)


def concat_backward(gy, cuts, axis):
    """Cut gy at the indices `cuts` along `axis` into one array for each input."""
    return tuple(xp_of(gy).split(gy, cuts, axis=axis))


# ----- the nodes of the graph ------------------------------------------------
class Concat(HalfFunction):
    def __init__(self, axis=1):
        self.axis = axis

    def forward(self, *xs):
        ndim, shapes = xs[0].ndim, [x.shape for x in xs]
        if not -ndim <= self.axis < ndim:
            raise ValueError(f"concat: there is no axis {self.axis} in an array of shape {shapes[0]}.")
        axis = self.axis % ndim
        if len({(len(shape), shape[:axis] + shape[axis + 1 :]) for shape in shapes}) > 1:
            raise ValueError(f"concat along axis {self.axis}: all other sizes must agree, but the shapes are {shapes}.")
        self.saved = np.cumsum([shape[axis] for shape in shapes])[:-1].tolist()
        return kernels(__name__, *xs).concat_forward(xs, axis)

    def backward(self, gy):
        return kernels(__name__, gy).concat_backward(gy, self.saved, self.axis)


class Pad(HalfFunction):
    def __init__(self, pads):
        self.pads = pads

    def forward(self, x):
        X = pad2d(x, self.pads)
        return X.copy() if X is x else X

    def backward(self, gy):
        return crop2d(gy, self.pads)


class Crop(HalfFunction):
    def __init__(self, pads):
        self.pads = pads

    def forward(self, x):
        return crop2d(x, self.pads).copy()

    def backward(self, gy):
        return pad2d(gy, self.pads)


class Reshape(HalfFunction):
    def __init__(self, shape):
        self.shape = shape

    def forward(self, x):
        self.saved = x.shape
        try:
            return x.reshape(self.shape)
        except (ValueError, TypeError):
            found = f"{x.size} numbers of shape {x.shape}"
            raise ValueError(f"reshape: {found} cannot take the shape {self.shape}; give every size.") from None

    def backward(self, gy):
        return gy.reshape(self.saved)


class Transpose(HalfFunction):
    def __init__(self, axes):
        self.axes = axes

    def forward(self, x):
        axes = self.axes or tuple(reversed(range(x.ndim)))
        if not all(-x.ndim <= a < x.ndim for a in axes) or sorted(a % x.ndim for a in axes) != list(range(x.ndim)):
            raise ValueError(f"transpose takes the new order of all {x.ndim} axes (PyTorch's permute), but got {axes}.")
        self.saved = np.argsort([a % x.ndim for a in axes]).tolist()  # the order that undoes it
        return x.transpose(axes)

    def backward(self, gy):
        return gy.transpose(self.saved)


def concat(xs: Iterable[Tensor | Array], axis: int = 1) -> Tensor:
    """Join Tensors along `axis` (the channels of (N, C, H, W) by default); all other sizes must agree."""
    xs = tuple(xs)
    if not xs:
        raise ValueError("concat needs at least one tensor.")
    return Concat(axis)(*xs)


def pad(x: Tensor | Array, padding: Sides) -> Tensor:
    """Surround `x` (N, C, H, W) with zeros.

    Parameters
    ----------
    x : Tensor or ndarray, shape (N, C, H, W)
    padding : int, pair (ph, pw) or ((top, bottom), (left, right))

    Returns
    -------
    Tensor, shape (N, C, top + H + bottom, left + W + right)
    """
    check_nchw("pad", x)
    return Pad(sides(padding))(x)


def center_crop(x: Tensor | Array, size: Pair) -> Tensor:
    """Cut the middle out of `x`.

    Parameters
    ----------
    x : Tensor or ndarray, shape (N, C, H, W)
    size : int or pair of int
        (OH, OW), at most (H, W). If H - OH or W - OW is odd, the extra row or column is cut at the bottom or right.

    Returns
    -------
    Tensor, shape (N, C, OH, OW)
    """
    check_nchw("center_crop", x)
    size, pads = pair(size, "size"), []
    for have, want in zip(x.shape[2:], size, strict=True):
        if not 1 <= want <= have:
            raise ValueError(f"center_crop: cannot cut {size} out of {x.shape[2:]}.")
        pads.append(((have - want) // 2, have - want - (have - want) // 2))
    return Crop(tuple(pads))(x)


def reshape(x: Tensor | Array, *shape: int | Sequence[int]) -> Tensor:
    """Give `x` another shape with the same number of elements; a size of -1 is computed from the others."""
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    return Reshape(tuple(sizes))(x)


def transpose(x: Tensor | Array, *axes: int | Sequence[int]) -> Tensor:
    """Put the axes of `x` into the order `axes` (reversed if none are given), as NumPy does."""
    order = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
    return Transpose(tuple(order))(x)
