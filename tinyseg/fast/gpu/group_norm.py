"""Launches slices.cu and batch_norm.cu: the functions of `tinyseg.ops.group_norm` on float32 and float16 arrays.

The G groups of an image lie one after the other: slices.cu sees N·G planes. batch_norm.cu goes through planes (n, c),
each with the mean of its group.
"""

from tinyseg.fast.gpu.batch_norm import gradient, gradient_sums, normalize, supports  # noqa: F401
from tinyseg.fast.gpu.launch import contiguous, floats
from tinyseg.fast.gpu.slices import fold, moments


def forward(x, gamma, beta, G, eps):
    x, (gamma, beta) = contiguous(x), floats(gamma, beta)
    N, C = x.shape[:2]
    mean, rstd = moments(x, 1, N * G, float(eps))
    y = normalize(x, gamma, beta, mean, rstd, C // G, N * G)
    return y, mean.reshape(N, G, 1), rstd.reshape(N, G, 1)


def backward(gy, x, gamma, mean, rstd):
    (N, C), G = x.shape[:2], mean.shape[1]
    (gy, x), (gamma, mean, rstd) = contiguous(gy, x), floats(gamma, mean, rstd)
    partial, slices = gradient_sums(gy, x, mean, rstd, C // G, N * G)
    of_groups = fold(partial, slices, C, 1, N * G, gamma)
    gbeta, ggamma = fold(partial, slices, C, N, C)
    gx = gradient(gy, x, gamma, mean, rstd, of_groups, N * G / x.size, False, C // G, N * G)
    return gx, ggamma, gbeta
