"""Answers to notebook 3: a gradient by the forward op, a kernel with holes, a backward pass with all its terms."""

import numpy as np
from scipy.signal import convolve2d

from tinyseg.autograd import Tensor
from tinyseg.learn.comparing import case, numbers, same, slopes


def exercise_1(answer):
    """Check gx, computed with the forward op: a function of gy, w and the padding p of the forward pass."""
    gy = numbers(2, 2, 6, 5, seed=1)
    for KH, KW, p in ((3, 2, 0), (3, 2, 1), (3, 3, 0), (3, 3, 1), (4, 3, 2)):
        w = numbers(2, KH, KW, seed=2)
        bordered = np.array([[convolve2d(g, kernel) for g, kernel in zip(gys, w, strict=True)] for gys in gy])
        expected = bordered[:, :, p : bordered.shape[2] - p, p : bordered.shape[3] - p]
        with case(f"a {KH} × {KW} kernel and a padding of {p}"):
            found = answer(gy.copy(), w.copy(), p)
            same(found.data if isinstance(found, Tensor) else found, expected, "gx")


def exercise_2(answer):
    """Check a Function of x and w, the convolution with dilation 2, given as its class."""

    def dilated(x, w):
        y = np.zeros((*x.shape[:2], x.shape[2] - 2 * (w.shape[1] - 1), x.shape[3] - 2 * (w.shape[2] - 1)))
        for n, c, i, j in np.ndindex(y.shape):
            y[n, c, i, j] = sum(x[n, c, i + 2 * u, j + 2 * v] * w[c, u, v] for u, v in np.ndindex(w.shape[1:]))
        return y

    for KH, KW in ((3, 2), (2, 3)):
        x, w = numbers(2, 2, 6, 5, seed=1), numbers(2, KH, KW, seed=2)
        tx, tw = Tensor(x.copy(), requires_grad=True), Tensor(w.copy(), requires_grad=True)
        with case(f"a {KH} × {KW} kernel"):
            y = answer()(tx, tw)
            same(y.data, dilated(x, w), "y")
            gy = numbers(*y.shape, seed=3)
            y.backward(gy.copy())
            same(tx.grad, slopes(lambda a, w=w, gy=gy: (gy * dilated(a, w)).sum(), x), "gx")
            same(tw.grad, slopes(lambda a, x=x, gy=gy: (gy * dilated(x, a)).sum(), w), "gw")


def exercise_3(answer):
    """Check Normalize with the term that it lacks, given as its class."""

    def normalized(x):
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5)

    x, gy = numbers(5, 4, seed=1), numbers(5, 4, seed=2)
    for words, cotangent, gx in (
        ("gy = 1 everywhere", np.ones(x.shape), np.zeros(x.shape)),  # the sum of y is 0, whatever x is
        ("a random gy", gy, slopes(lambda a: (gy * normalized(a)).sum(), x)),
    ):
        tensor = Tensor(x.copy(), requires_grad=True)
        y = answer()(tensor)
        same(y.data, normalized(x), "y")
        y.backward(cotangent.copy())
        with case(words):
            same(tensor.grad, gx, "gx")
