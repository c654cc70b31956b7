"""group_norm.py on float32 and float16 arrays of the GPU, with the kernels of slices.cu and batch_norm.cu.

The G groups of an image lie one after the other: to the sums they are N·G planes. The passes that know channels go
through planes (n, c), each with the mean of its group.
"""

from tinyseg.fast.gpu.batch_norm import arguments, gradient, gradient_sums, normalize, supports
from tinyseg.fast.gpu.launch import contiguous, floats
from tinyseg.fast.gpu.slices import fold, moments

__all__ = ["backward", "forward", "supports"]


def forward(x, gamma, beta, G, eps, relu=False):
    x, (gamma, beta) = contiguous(x), floats(gamma, beta)
    N, C = x.shape[:2]
    mean, rstd = moments(x, 1, N * G, float(eps))
    y = normalize(x, gamma, beta, mean, rstd, C // G, N * G, relu)
    return y, mean.reshape(N, G, 1), rstd.reshape(N, G, 1)


def backward(gy, x, gamma, mean, rstd, beta=None):
    args = arguments(gy, x, gamma, beta, mean, rstd)
    (N, C), G = x.shape[:2], mean.shape[1]
    partial, slices = gradient_sums(*args, C // G, N * G)
    of_groups = fold(partial, slices, C, 1, N * G, floats(gamma))
    gbeta, ggamma = fold(partial, slices, C, N, C)
    return gradient(*args, of_groups, N * G / x.size, False, C // G, N * G), ggamma, gbeta
