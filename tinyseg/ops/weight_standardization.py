r"""Weight standardization: train v, convolve with w = v shifted and scaled to mean 0 and deviation 1.

Over a set of m weights with mean μ and (biased) standard deviation σ (Qiao et al. 2019; Gadosey et al. 2020, Eq. 5):

    forward   w_i  = a (v_i - μ) / (σ + ε)
    grad_v    gv_i = a (gw_i - mean(gw)) / (σ + ε)  -  w_i mean(gw · w) / (a σ)

The second term is dσ/dv: what the gradient would do to the scale is taken out, as the first term takes out the
mean. Where σ = 0 all w are 0 and that term is 0.

The set is what Eq. 5 leaves open, and for depthwise kernels (C, KH, KW) it decides whether a network learns:

    per="filter"   each filter w[c] by itself: every filter sums to zero, sees edges and no level
    per="layer"    all weights of the layer together, as the usual Keras code does to a kernel (KH, KW, C, 1);
                   single filters keep their level

The optional gain a = 1/√(fan-in), fan-in = weights per filter, keeps the scale of what comes out of the
convolution near that of what goes in (a = 1 without it).

Shapes: v and w alike, filters along the first axis: (C, KH, KW), (K, C) or (K, C, KH, KW).
"""

import math

from tinyseg.backend import kernels, xp_of
from tinyseg.backend.half import HalfFunction


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def forward(v, axes, eps, a):
    """Standardize over `axes`: returns w and σ (σ with the reduced axes kept as 1)."""
    centred = v - v.mean(axis=axes, keepdims=True)
    std = xp_of(v).sqrt((centred * centred).mean(axis=axes, keepdims=True))
    return a * centred / (std + eps), std


def grad_v(gw, w, std, axes, eps, a):
    """Gradient of the trained weights, from the standardized ones and σ."""
    xp = xp_of(gw)
    toward_scale = w * (gw * w).mean(axis=axes, keepdims=True)
    toward_scale /= a * xp.where(std > 0, std, 1)  # w = 0 where std = 0
    return a * (gw - gw.mean(axis=axes, keepdims=True)) / (std + eps) - toward_scale


# ----- the node of the graph -------------------------------------------------
class WeightStandardization(HalfFunction):
    def __init__(self, per="layer", gain=False, eps=1e-5):
        if per not in ("layer", "filter"):
            raise ValueError(f"weight_standardization is per 'layer' or per 'filter', not {per!r}.")
        self.per, self.gain, self.eps = per, gain, eps

    def forward(self, v):
        if v.ndim < 2:
            raise ValueError(
                f"weight_standardization takes weights with filters along axis 0, but got shape {v.shape}."
            )
        a = 1 / math.sqrt(v[0].size) if self.gain else 1.0
        self.args = tuple(range(0 if self.per == "layer" else 1, v.ndim)), self.eps, a
        w, std = kernels(__name__, v).forward(v, *self.args)
        self.saved = w, std
        return w

    def backward(self, gw):
        return kernels(__name__, gw).grad_v(gw, *self.saved, *self.args)


def weight_standardization(v, per="layer", gain=False, eps=1e-5):
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
    return WeightStandardization(per, gain, eps)(v)
