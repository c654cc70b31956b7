r"""Moving data without computing: concat, pad, crop, reshape, transpose. Each backward moves the gradient back.

concat       y = [x_0, x_1, …] along an axis      gx_k = the slice of gy that x_k became
pad          y = x inside a border of zeros       gx = gy without the border
crop         y = a window of x                    gx = gy inside a border of zeros
reshape      y = x in another shape               gx = gy in x's shape
transpose    y = x with its axes in another order gx = gy with the order undone
"""

from itertools import accumulate

import numpy as np

from tinyseg.backend import kernels, xp_of
from tinyseg.backend.half import HalfFunction
from tinyseg.ops.window import check_nchw, crop2d, pad2d, pair


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def concat_forward(xs, axis):
    """Join arrays along `axis`."""
    return xp_of(*xs).concatenate(xs, axis=axis)


def concat_backward(gy, cuts, axis):
    """Cut gy at the indices `cuts` of `axis`: one array for each input."""
    return tuple(xp_of(gy).split(gy, cuts, axis=axis))


# ----- the nodes of the graph ------------------------------------------------
class Concat(HalfFunction):
    def __init__(self, axis=1):
        self.axis = axis

    def forward(self, *xs):
        if not -xs[0].ndim <= self.axis < xs[0].ndim:
            raise ValueError(f"concat: there is no axis {self.axis} in an array of shape {xs[0].shape}.")
        axis = self.axis % xs[0].ndim
        for x in xs[1:]:
            if x.ndim != xs[0].ndim or any(
                a != b for k, (a, b) in enumerate(zip(x.shape, xs[0].shape, strict=True)) if k != axis
            ):
                raise ValueError(
                    f"concat along axis {self.axis}: all other sizes must agree, but are {[x.shape for x in xs]}."
                )
        self.saved = list(accumulate(x.shape[axis] for x in xs[:-1]))
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
        return x.reshape(self.shape)

    def backward(self, gy):
        return gy.reshape(self.saved)


class Transpose(HalfFunction):
    def __init__(self, axes):
        self.axes = axes

    def forward(self, x):
        if self.axes and sorted(a % x.ndim for a in self.axes if -x.ndim <= a < x.ndim) != list(range(x.ndim)):
            raise ValueError(
                f"transpose takes the new order of all {x.ndim} axes (PyTorch's permute), but got {self.axes}."
            )
        y = x.transpose(self.axes or None)
        self.axes = tuple(a % x.ndim for a in self.axes or reversed(range(x.ndim)))
        return y

    def backward(self, gy):
        return gy.transpose(np.argsort(self.axes).tolist())


def concat(xs, axis=1):
    """Join Tensors along `axis` (the channels of (N, C, H, W) by default); all other sizes must agree."""
    xs = tuple(xs)
    if not xs:
        raise ValueError("concat needs at least one tensor.")
    return Concat(axis)(*xs)


def pad(x, padding):
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
    by_sides = isinstance(padding, (tuple, list)) and any(isinstance(s, (tuple, list)) for s in padding)
    pads = tuple(pair(s, "each side of padding") for s in (padding if by_sides else pair(padding, "padding")))
    if len(pads) != 2 or min(map(min, pads)) < 0:
        raise ValueError(
            f"padding must be a number, a pair or ((top, bottom), (left, right)), none negative: got {padding!r}."
        )
    return Pad(pads)(x)


def center_crop(x, size):
    """Cut the middle out of `x`.

    Parameters
    ----------
    x : Tensor or ndarray, shape (N, C, H, W)
    size : int or pair of int
        (OH, OW), at most (H, W). Where the border is odd, the extra row or column is cut at the bottom or right.

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


def reshape(x, *shape):
    """Give `x` another shape with the same number of elements; -1 stands for what is left over."""
    shape = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    return Reshape(tuple(shape))(x)


def transpose(x, *axes):
    """Put the axes of `x` into the order `axes` (reversed if none are given), as NumPy does."""
    axes = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
    return Transpose(tuple(axes))(x)
