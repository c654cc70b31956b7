"""ReLU and sigmoid with numba: one pass over the numbers in the order in which they lie in memory.

Equations and signatures as in `tinyseg.ops.activation`, which computes softmax and log_softmax itself. `exp` and
`log1p` are polynomials, so that the compiler can compute many at a time; `tinyseg.fast.cpu.loss` uses them too.
"""

import numpy as np

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.channels_last import channels_first, float32, pixels
from tinyseg.fast.cpu.kernel_cache import OPTIONS, njit
from tinyseg.fast.cpu.parallel import parallel

CHUNK = 1 << 14  # numbers that one thread works on at a time
RELU, RELU_GRAD, SIGMOID, SIGMOID_GRAD = range(4)

supports = float32


def relu_forward(x):
    """max(x, 0)."""
    return _apply(RELU, x, x)


def relu_grad(gy, y):
    """gy where the output is positive, else 0."""
    return _apply(RELU_GRAD, y, gy)


def sigmoid_forward(x):
    """1 / (1 + exp(-x))."""
    return _apply(SIGMOID, x, x)


def sigmoid_grad(gy, y):
    """gy · y · (1 - y), from the output y."""
    return _apply(SIGMOID_GRAD, y, gy)


def _apply(op, a, gy):
    """Compute on flat arrays; the result gets the shape and the layout of `a`. The forward passes do not read gy."""
    if a.ndim == 4 and not a.flags.c_contiguous:
        a, gy = pixels(a), pixels(gy)
        out = empty(a.shape)
        result = channels_first(out)
    else:
        result = out = empty(a.shape)
    a, gy = (np.ascontiguousarray(array).reshape(-1) for array in (a, gy))
    _each_number(-(-a.size // CHUNK), op, a, gy, out.reshape(-1))
    return result


# ----- functions of one number ---------------------------------------------------------
@njit(**OPTIONS)
def exp(x):
    """exp(x) for x <= 0, to one unit in the last place; 0 where the result would be smaller than normal numbers are.

    exp(x) = 2ⁿ exp(r), where n is the whole number next to x / log 2, and therefore |r| <= log(2) / 2; exp(r) is the
    polynomial of the Cephes library. Adding 1.5 · 2²³ rounds to a whole number and leaves n in the last bits.
    """
    shifted = max(x, np.float32(-87.3)) * np.float32(1.44269504) + np.float32(12582912)
    n = shifted - np.float32(12582912)
    r = (x - n * np.float32(0.693359375)) + n * np.float32(2.12194440e-4)  # log 2 in two parts, the first exact
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = (p * r * r + r) + np.float32(1)
    y = p * np.int32((np.float32(shifted).view(np.int32) + 127) << 23).view(np.float32)
    return np.float32(0) if x < np.float32(-87.3) else y


@njit(**OPTIONS)
def log1p(e):
    """log(1 + e) for 0 <= e <= 1: the series of 2 artanh(s), where s = e / (2 + e) <= 1/3."""
    s = e / (e + np.float32(2))
    z = s * s
    p = np.float32(2 / 13)
    p = p * z + np.float32(2 / 11)
    p = p * z + np.float32(2 / 9)
    p = p * z + np.float32(2 / 7)
    p = p * z + np.float32(2 / 5)
    p = p * z + np.float32(2 / 3)
    return p * z * s + np.float32(2) * s


@njit(**OPTIONS)
def sigmoid(x):
    """1 / (1 + exp(-x)), from e = exp(-|x|) <= 1."""
    e = exp(-abs(x))
    return (np.float32(1) if x >= 0 else e) / (np.float32(1) + e)


# ----- the pass ------------------------------------------------------------------------
@parallel
def _each_number(chunk, op, a, gy, out):
    i, j = chunk * CHUNK, (chunk + 1) * CHUNK
    _compute(op, a[i:j], gy[i:j], out[i:j])


@njit(**OPTIONS)
def _compute(op, a, gy, out):
    if op == RELU:
        for i in range(len(a)):
            out[i] = np.float32(0) if a[i] < 0 else a[i]
    elif op == RELU_GRAD:
        for i in range(len(a)):
            out[i] = gy[i] if a[i] > 0 else np.float32(0)
    elif op == SIGMOID:
        for i in range(len(a)):
            out[i] = sigmoid(a[i])
    else:
        for i in range(len(a)):
            out[i] = gy[i] * a[i] * (np.float32(1) - a[i])
