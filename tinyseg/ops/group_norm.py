r"""Group normalization (Wu & He 2018): mean 0 and variance 1 over each group of channels of each image.

Channels are split into G groups; over the m = (C/G)·H·W values of one group of one image

    μ = mean(x),   r = 1 / √(var(x) + ε),   x̂ = (x - μ) r
    forward   y  = γ[c] x̂ + β[c]
    grad_x    gx = r ( gx̂ - mean(gx̂) - x̂ mean(gx̂ x̂) ),   gx̂ = γ[c] gy
    grad_γ    gγ[c] = sum_{n,i,j} gy x̂,      grad_β   gβ[c] = sum_{n,i,j} gy

The two means in grad_x remove the parts of the gradient that would only shift or scale the group: y does not depend on
these. The backward pass keeps x, μ and r, and computes x̂ again.

Shapes: x, y (N, C, H, W); γ, β (C,); μ, r (N, G, 1).
"""

from tinyseg.autograd import Array, Tensor
from tinyseg.backend import check_number, kernels, xp_of
from tinyseg.backend.half import HalfFunction
from tinyseg.ops.sums import mean_over, sum_over
from tinyseg.ops.window import check_shape, default_affine


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def forward(x, gamma, beta, G, eps):
    """Return y (N, C, H, W), μ and r (N, G, 1)."""
    xg = x.reshape(len(x), G, x.shape[1] // G * x.shape[2] * x.shape[3])  # (N,G,m)
    mean = mean_over(xg, 2, keepdims=True)
    xhat = xg - mean
    rstd = 1 / xp_of(x).sqrt(mean_over(xhat * xhat, 2, keepdims=True) + eps)
    xhat *= rstd
    y = xhat.reshape(x.shape) * gamma[:, None, None]
    y += beta[:, None, None]
    return y, mean, rstd


def backward(gy, x, gamma, mean, rstd):
    """Gradients of x, γ and β."""
    (N, C, H, W), G = x.shape, mean.shape[1]
    xhat = (x.reshape(N, G, C // G * H * W) - mean) * rstd  # (N,G,m)
    gy_xhat = gy * xhat.reshape(x.shape)
    ggamma, gbeta = sum_over(gy_xhat, (0, 2, 3)), sum_over(gy, (0, 2, 3))
    gxhat = (gy * gamma[:, None, None]).reshape(xhat.shape)
    gy_xhat *= gamma[:, None, None]  # now gx̂ x̂
    xhat *= mean_over(gy_xhat.reshape(xhat.shape), 2, keepdims=True)
    gx = gxhat - mean_over(gxhat, 2, keepdims=True)
    gx -= xhat
    gx *= rstd
    return gx.reshape(x.shape), ggamma, gbeta


# ----- the node of the graph -------------------------------------------------
class GroupNorm(HalfFunction):
    activations = slice(1)  # x

    def __init__(self, num_groups, eps=1e-5):
        self.G, self.eps = num_groups, eps

    def forward(self, x, gamma, beta):
        C = x.shape[1]
        if C % self.G:
            raise ValueError(f"group_norm: {C} channels cannot be split into {self.G} equal groups.")
        check_shape("group_norm", "weight", gamma, (C,))
        check_shape("group_norm", "bias", beta, (C,))
        y, mean, rstd = kernels(__name__, x).forward(x, gamma, beta, self.G, self.eps)
        self.saved = x, gamma, mean, rstd
        return y

    def backward(self, gy):
        return kernels(__name__, gy).backward(gy, *self.saved)


def group_norm(
    x: Tensor | Array,
    num_groups: int,
    weight: Tensor | Array | None = None,
    bias: Tensor | Array | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize each group of channels of each image; equations in the module docstring.

    Parameters
    ----------
    x : Tensor or ndarray, shape (N, C, H, W)
    num_groups : int
        G; must divide C. G = 1 is layer normalization over (C, H, W), G = C instance normalization.
    weight, bias : Tensor or ndarray, shape (C,), optional
        γ and β; 1 and 0 if left out.
    eps : float
        Added to the variance.

    Returns
    -------
    Tensor, shape (N, C, H, W), x's dtype
    """
    check_number("group_norm: num_groups", num_groups, "[1, inf)", integer=True)
    check_number("group_norm: eps", eps, "[0, inf)")
    return GroupNorm(num_groups, eps)(x, *default_affine("group_norm", x, weight, bias))
