"""Group normalization with numba: the passes of `tinyseg.fast.cpu.batch_norm`, image by image.

Equations and signatures as in `tinyseg.ops.group_norm`. A pass over the pixels gives sums for every channel; those of a
group are then added up, and what the second pass needs is again one number for every channel.
"""

import numpy as np

from tinyseg.fast.cpu.batch_norm import gradient, gradient_sums, moments, normalize, supports  # noqa: F401
from tinyseg.fast.cpu.channels_last import channels_first, pixels


def forward(x, gamma, beta, G, eps):
    """Normalize: returns y (N, C, H, W), μ and r (N, G, 1)."""
    x, (N, C) = pixels(x), x.shape[:2]
    mean, var = moments(x.reshape(N, -1), C, G)
    rstd = (1 / np.sqrt(var + eps)).astype(np.float32)
    y = normalize(x.reshape(N, -1), per_channel(mean, C), per_channel(rstd, C) * gamma, beta)
    return channels_first(y.reshape(x.shape)), mean[:, :, None], rstd[:, :, None]


def backward(gy, x, gamma, mean, rstd):
    """Gradients of x, γ and β."""
    gy, x, (N, C), G = pixels(gy), pixels(x), x.shape[:2], mean.shape[1]
    m = x[0].size // G
    mean, rstd = per_channel(mean, C), per_channel(rstd, C)
    flat = gy.reshape(N, -1), x.reshape(N, -1)
    sums = gradient_sums(*flat, mean)  # (2,N,C): of gy, and of gy (x - μ) = gy x̂ / r
    means = (sums * gamma).reshape(2, N, G, -1).sum(axis=3) / m  # of gx̂, and of gx̂ x̂ / r
    of_gxhat, of_gxhat_xhat = per_channel(means[0], C), rstd * per_channel(means[1], C)
    gx = gradient(*flat, mean, rstd * gamma, -rstd * of_gxhat, -(rstd**2) * of_gxhat_xhat)
    ggamma, gbeta = (rstd * sums[1]).sum(axis=0), sums[0].sum(axis=0)
    return channels_first(gx.reshape(x.shape)), ggamma.astype(np.float32), gbeta.astype(np.float32)


def per_channel(a, C):
    """Repeat numbers (N, G) or (N, G, 1) of groups for each of their channels: (N, C)."""
    return np.repeat(a.reshape(len(a), -1), C // a.shape[1], axis=1)
