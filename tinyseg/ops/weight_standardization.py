"""Weight standardization: v is trained; the convolution uses w, v shifted and scaled to mean 0 and deviation 1.

Over a set of weights with mean μ and (biased) standard deviation σ (Qiao et al. 2019; Gadosey et al. 2020, Eq. 5):

    forward   w_i  = a (v_i - μ) / (σ + ε)
    grad_v    gv_i = a (gw_i - mean(gw)) / (σ + ε)  -  w_i mean(gw · w) / (a σ)

The second term comes from dσ/dv: it removes the part of the gradient that would only scale v, as mean(gw) removes the
part that would only shift it. Where σ = 0, all w are 0 and this term is 0.

Eq. 5 does not say which weights form a set. For depthwise kernels (C, KH, KW) this decides whether a network learns:

    per="filter"   each filter v[c] is a set: every filter then sums to 0, and constant areas give 0
    per="layer"    all weights of the layer are one set, as in the usual Keras code for a kernel (KH, KW, C, 1);
                   the sums of single filters still differ from 0

The optional gain a = 1/√(fan-in), where fan-in is the number of weights per filter, keeps the output of the convolution
about as large as its input. Without it a = 1.

Shapes: v and w (C, KH, KW), (K, C) or (K, C, KH, KW), with the filters along the first axis.
"""

import math
from typing import Literal

from tinyseg.autograd import Array, Tensor
from tinyseg.backend import check_number, kernels, xp_of
from tinyseg.backend.half import HalfFunction
from tinyseg.ops.sums import mean_over


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def forward(v, axes, eps, a):
    """Standardize over `axes`: return w, and σ with these axes kept as 1."""
    centred = v - mean_over(v, axes, keepdims=True)
    std = xp_of(v).sqrt(mean_over(centred * centred, axes, keepdims=True))
    return a * centred / (std + eps), std


def grad_v(gw, w, std, axes, eps, a):
    """Gradient of the trained weights v, from the standardized ones w and σ."""
    scaling = w * mean_over(gw * w, axes, keepdims=True)
    scaling /= a * xp_of(gw).where(std > 0, std, 1)  # w = 0 where std = 0
    return a * (gw - mean_over(gw, axes, keepdims=True)) / (std + eps) - scaling


# ----- the node of the graph -------------------------------------------------
class WeightStandardization(HalfFunction):
    def __init__(self, per="layer", gain=False, eps=1e-5):
        if per not in ("layer", "filter"):
            raise ValueError(f"weight_standardization is per 'layer' or per 'filter', not {per!r}.")
        self.per, self.gain, self.eps = per, gain, eps

    def forward(self, v):
        if v.ndim < 2:
            raise ValueError(f"weight_standardization takes weights with filters along axis 0, but got {v.shape}.")
        a = 1 / math.sqrt(max(1, math.prod(v.shape[1:]))) if self.gain else 1.0
        self.args = tuple(range(0 if self.per == "layer" else 1, v.ndim)), self.eps, a
        w, std = kernels(__name__, v).forward(v, *self.args)
        self.saved = w, std
        return w

    def backward(self, gw):
        return kernels(__name__, gw).grad_v(gw, *self.saved, *self.args)


def weight_standardization(
    v: Tensor | Array,
    per: Literal["layer", "filter"] = "layer",
    gain: bool = False,
    eps: float = 1e-5,
) -> Tensor:
    """Standardize convolution weights to mean 0 and standard deviation 1 (or 1/√fan-in); see the module docstring.

    Parameters
    ----------
    v : Tensor or ndarray, shape (C, KH, KW), (K, C) or (K, C, KH, KW)
    per : {"layer", "filter"}
        Statistics over all weights of the layer, or over each filter ``v[k]``.
    gain : bool
        Multiply by 1/√fan-in, fan-in = ``v[0].size``.
    eps : float
        Added to the standard deviation (Eq. 5), not to the variance.

    Returns
    -------
    Tensor, shape and dtype of v
    """
    check_number("weight_standardization: eps", eps, "[0, inf)")
    return WeightStandardization(per, gain, eps)(v)
