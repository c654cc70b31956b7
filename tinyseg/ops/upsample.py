"""Upsampling by a whole factor (fh, fw): nearest and bilinear.

    nearest    y[n,c,i,j] = x[n,c,i//fh,j//fw]
               gx[n,c,r,q] = sum_{u<fh,v<fw} gy[n,c,r·fh+u,q·fw+v]

    bilinear   Y = A X Bᵀ for every plane, with the interpolation matrices A (fh·H, H) and B (fw·W, W) of the two axes
               GX = Aᵀ GY B

Row i of A holds the two weights of output i. The centre of output i is at (i + ½)/fh - ½ in input pixels; positions
outside the image are moved to its border (as with PyTorch's align_corners=False, and as in Keras and scikit-image).

Shapes: x (N, C, H, W), y (N, C, fh·H, fw·W).
"""

from typing import Literal

import numpy as np

from tinyseg.autograd import Array, Tensor
from tinyseg.backend import kernels, xp_of
from tinyseg.backend.half import HalfFunction
from tinyseg.ops.window import Pair, check_nchw, pair

# In these functions channel c of the result depends only on channel c of the arguments.
BY_CHANNEL = ("nearest_forward", "nearest_grad_x")


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def nearest_forward(x, factor):
    """Repeat every pixel fh x fw times."""
    (N, C, H, W), (fh, fw) = x.shape, factor
    y = xp_of(x).empty((N, C, H * fh, W * fw), x.dtype)
    for u in range(fh):
        for v in range(fw):
            y[:, :, u::fh, v::fw] = x
    return y


def nearest_grad_x(gy, factor):
    """Sum the gradient over every fh x fw block."""
    fh, fw = factor
    gx = gy[:, :, ::fh, ::fw].copy()
    for u in range(fh):
        for v in range(fw):
            if u or v:
                gx += gy[:, :, u::fh, v::fw]
    return gx


def bilinear_forward(x, factor):
    """Interpolate both axes: A X Bᵀ."""
    xp, (A, B) = xp_of(x), interpolation_matrices(x, x.shape[2:], factor)
    return xp.matmul(xp.matmul(A, x), B.T)


def bilinear_grad_x(gy, factor):
    """Apply the transposed matrices: Aᵀ GY B."""
    size = tuple(n // f for n, f in zip(gy.shape[2:], factor, strict=True))
    xp, (A, B) = xp_of(gy), interpolation_matrices(gy, size, factor)
    return xp.matmul(xp.matmul(A.T, gy), B)


def interpolation_matrices(like, size, factor):
    """Return A (fh·H, H) and B (fw·W, W), with `like`'s dtype and device."""
    return tuple(xp_of(like).asarray(_matrix(n, f), like.dtype) for n, f in zip(size, factor, strict=True))


def _matrix(n, f):
    position = np.clip((np.arange(n * f) + 0.5) / f - 0.5, 0, n - 1)
    lower = np.minimum(position.astype(int), max(n - 2, 0))
    A = np.zeros((n * f, n))
    A[np.arange(n * f), lower] = 1 - (position - lower)
    A[np.arange(n * f), np.minimum(lower + 1, n - 1)] += position - lower
    return A


# ----- the node of the graph -------------------------------------------------
class Upsample(HalfFunction):
    def __init__(self, scale_factor=2, mode="nearest"):
        self.factor, self.mode = pair(scale_factor, "scale_factor"), mode
        if min(self.factor) < 1:
            raise ValueError(f"upsample: scale_factor must be at least 1, but is {scale_factor}.")
        if mode not in ("nearest", "bilinear"):
            raise ValueError(f"upsample: mode must be 'nearest' or 'bilinear', but is {mode!r}.")

    def forward(self, x):
        check_nchw("upsample", x)
        k = kernels(__name__, x)
        return (k.nearest_forward if self.mode == "nearest" else k.bilinear_forward)(x, self.factor)

    def backward(self, gy):
        k = kernels(__name__, gy)
        return (k.nearest_grad_x if self.mode == "nearest" else k.bilinear_grad_x)(gy, self.factor)


def upsample(x: Tensor | Array, scale_factor: Pair = 2, mode: Literal["nearest", "bilinear"] = "nearest") -> Tensor:
    """Enlarge `x` by a whole factor; equations in the module docstring.

    Parameters
    ----------
    x : Tensor or ndarray, shape (N, C, H, W)
    scale_factor : int or pair of int
        (fh, fw).
    mode : {"nearest", "bilinear"}

    Returns
    -------
    Tensor, shape (N, C, fh·H, fw·W), x's dtype
    """
    return Upsample(scale_factor, mode)(x)
