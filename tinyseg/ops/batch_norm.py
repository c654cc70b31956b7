r"""Batch normalization (Ioffe & Szegedy 2015): mean 0 and variance 1 over each channel of the whole batch.

Training, over the m = N·H·W values of one channel:

    μ = mean(x),   r = 1 / √(var(x) + ε),   x̂ = (x - μ) r
    forward   y  = γ x̂ + β
    grad_x    gx = γ r ( gy - mean(gy) - x̂ mean(gy x̂) )
    grad_γ    gγ = sum gy x̂,      grad_β   gβ = sum gy

and the running statistics move towards μ and the unbiased variance m/(m-1) var(x), by the fraction `momentum` of the
distance. Evaluation uses the running statistics for μ and var(x); they are constants, and gx = γ r gy.

A batch without values (N = 0), and a channel whose statistics are not finite, leave the running statistics as they are.

Shapes: x, y (N, C, H, W); γ, β, running mean and variance (C,); μ, r (C, 1, 1).
"""

from tinyseg.autograd import Array, Tensor
from tinyseg.backend import check_number, kernels, xp_of
from tinyseg.backend.half import HalfFunction
from tinyseg.ops.sums import mean_over, sum_over
from tinyseg.ops.window import check_shape, default_affine

AXES = (0, 2, 3)


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def statistics(x):
    """Return the mean and the biased variance of each channel, (C, 1, 1)."""
    mean = mean_over(x, AXES)[:, None, None]
    centred = x - mean
    return mean, mean_over(centred * centred, AXES)[:, None, None]


def forward(x, gamma, beta, mean, rstd):
    """Normalize with the given statistics μ and r: (N, C, H, W)."""
    y = (x - mean) * (rstd * gamma[:, None, None])
    y += beta[:, None, None]
    return y


def backward(gy, x, gamma, mean, rstd, training):
    """Gradients of x, γ and β."""
    xhat = (x - mean) * rstd
    m = x.size // max(1, x.shape[1])
    ggamma, gbeta = sum_over(gy * xhat, AXES), sum_over(gy, AXES)
    if training:
        xhat *= ggamma[:, None, None] / m  # x̂ mean(gy x̂)
        gx = gy - gbeta[:, None, None] / m
        gx -= xhat
        gx *= rstd * gamma[:, None, None]
    else:
        gx = gy * (rstd * gamma[:, None, None])
    return gx, ggamma, gbeta


# ----- the node of the graph -------------------------------------------------
class BatchNorm(HalfFunction):
    activations = slice(1)  # x

    def __init__(self, running_mean, running_var, training, momentum, eps):
        self.running = running_mean, running_var
        self.training, self.momentum, self.eps = training, momentum, eps

    def forward(self, x, gamma, beta):
        C, m = x.shape[1], x.size // max(1, x.shape[1])
        names = ("weight", "bias", "running_mean", "running_var")
        for name, array in zip(names, (gamma, beta, *self.running), strict=True):
            if array is not None:
                check_shape("batch_norm", name, array, (C,))
        k, xp = kernels(__name__, x), xp_of(x)
        if self.training and m == 1:
            raise ValueError(f"batch_norm in training needs more than one value per channel, but x is {x.shape}.")
        if self.training and m:
            mean, var = k.statistics(x)
            self.update_running(mean.reshape(C), var.reshape(C) * (m / (m - 1)))
        else:
            self.training = False  # the statistics are constants
            running = (xp.zeros(C), xp.ones(C)) if m == 0 else self.running
            # Copies: the backward pass needs these numbers, and training may change the running ones before it.
            mean, var = (stat.astype(gamma.dtype)[:, None, None] for stat in running)
        rstd = 1 / xp.sqrt(var + self.eps)
        self.saved = x, gamma, mean, rstd, self.training
        return k.forward(x, gamma, beta, mean, rstd)

    def update_running(self, mean, var):
        """Move the running statistics towards those of the batch, where these are finite."""
        xp = xp_of(mean)
        finite = xp.isfinite(mean) & xp.isfinite(var)
        for running, batch in zip(self.running, (mean, var), strict=True):
            if running is not None:
                running += self.momentum * (xp.where(finite, batch, running) - running)

    def backward(self, gy):
        return kernels(__name__, gy).backward(gy, *self.saved)


def batch_norm(
    x: Tensor | Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Tensor | Array | None = None,
    bias: Tensor | Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize each channel over the batch; equations in the module docstring.

    Parameters
    ----------
    x : Tensor or ndarray, shape (N, C, H, W)
    running_mean, running_var : ndarray, shape (C,), or None
        Running statistics: updated in place in training, used in evaluation. None is allowed in training.
    weight, bias : Tensor or ndarray, shape (C,), optional
        γ and β; 1 and 0 if left out.
    training : bool
        Use the statistics of the batch, and update the running ones with them.
    momentum : float
        Weight of the new batch in the running statistics (PyTorch's convention; Keras takes 1 - momentum).
    eps : float
        Added to the variance.

    Returns
    -------
    Tensor, shape (N, C, H, W), x's dtype
    """
    if not training and (running_mean is None or running_var is None):
        raise ValueError("batch_norm in evaluation needs running_mean and running_var; pass them or training=True.")
    check_number("batch_norm: momentum", momentum, "[0, 1]")
    check_number("batch_norm: eps", eps, "[0, inf)")
    node = BatchNorm(running_mean, running_var, training, momentum, eps)
    return node(x, *default_affine("batch_norm", x, weight, bias))
