"""Max and average pooling.

Over the taps (u, v) of the window of output (i, j), with X the input, padded with -∞ (max) or 0 (average):

    max       y[n,c,i,j] = max_{u,v} X[n,c,i·sh+u,j·sw+v]
              gX[n,c,i·sh+u,j·sw+v] += gy[n,c,i,j]              for the first tap inside of x with that value
    average   y[n,c,i,j] = sum_{u,v} X[n,c,i·sh+u,j·sw+v] / (KH·KW)
              gX[n,c,i·sh+u,j·sw+v] += gy[n,c,i,j] / (KH·KW)    for every tap

For backward, max pooling keeps the number u·KW + v of the tap with the largest value, one byte for each output; average
pooling keeps nothing. Padded zeros count in the average, as they do in PyTorch by default.

A NaN counts as the largest value, as in PyTorch: y is NaN, and the gradient goes to the last NaN of the window.

Shapes: x (N, C, H, W), y (N, C, OH, OW).
"""

import numpy as np

from tinyseg.autograd import Array, Tensor
from tinyseg.backend import kernels, xp_of
from tinyseg.backend.half import HalfFunction
from tinyseg.ops.window import Padding, Pair, check_nchw, crop2d, pad2d, pair, resolve, taps

# In these functions channel c of the result depends only on channel c of the arguments.
BY_CHANNEL = ("max_forward", "max_grad_x", "avg_forward", "avg_grad_x")


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def max_forward(x, kernel, stride, pads, out):
    """Return the largest value of each window and the number of its tap (uint8): two arrays (N, C, OH, OW)."""
    xp, X = xp_of(x), pad2d(x, pads, value=-np.inf)
    image = pad2d(xp.ones((1, 1, *x.shape[2:]), bool), pads)  # False in the padding, which never wins
    y, winner = xp.full((*x.shape[:2], *out), -np.inf, x.dtype), xp.zeros((*x.shape[:2], *out), np.uint8)
    empty = xp.ones((1, 1, *out), bool)  # where no tap has been inside of the image so far
    for tap, ((_, _, window), (_, _, inside)) in enumerate(
        zip(taps(X, kernel, out, stride), taps(image, kernel, out, stride), strict=True)
    ):
        wins = (window > y) | (window != window) | (inside & empty)  # NaN counts as largest: it must not disappear
        y = xp.where(wins, window, y)
        winner = xp.where(wins, np.uint8(tap), winner)
        empty &= ~inside
    return y, winner


def max_grad_x(gy, winner, x_shape, kernel, stride, pads):
    """Gradient of the input: gy is added at the tap that won."""
    gX = pad2d(xp_of(gy).zeros(x_shape, gy.dtype), pads)
    for tap, (_, _, window) in enumerate(taps(gX, kernel, gy.shape[2:], stride)):
        window += xp_of(gy).where(winner == tap, gy, gy.dtype.type(0))  # a view: writes into gX
    return crop2d(gX, pads)


def avg_forward(x, kernel, stride, pads, out):
    """Return the mean of each window, (N, C, OH, OW)."""
    total = xp_of(x).zeros((*x.shape[:2], *out), "float64")  # a window may be as large as the image
    for _, _, window in taps(pad2d(x, pads), kernel, out, stride):
        total += window
    return (total / (kernel[0] * kernel[1])).astype(x.dtype)


def avg_grad_x(gy, x_shape, kernel, stride, pads):
    """Gradient of the input: gy / (KH·KW) is added at every tap."""
    gX = pad2d(xp_of(gy).zeros(x_shape, gy.dtype), pads)
    share = gy / (kernel[0] * kernel[1])
    for _, _, window in taps(gX, kernel, gy.shape[2:], stride):
        window += share  # a view: writes into gX
    return crop2d(gX, pads)


# ----- the nodes of the graph ------------------------------------------------
class Pool2d(HalfFunction):
    def __init__(self, kernel_size, stride=None, padding=0):
        self.kernel = pair(kernel_size, "kernel_size")
        self.stride, self.padding = self.kernel if stride is None else stride, padding

    def resolve(self, op, x):
        check_nchw(op, x)
        self.stride, pads, out = resolve(x.shape, self.kernel, self.stride, self.padding)
        if any(2 * max(p) > k for p, k in zip(pads, self.kernel, strict=True)):
            raise ValueError(f"{op}: padding must be at most half the kernel {self.kernel}, but is {pads}.")
        self.args = self.kernel, self.stride, pads
        return out


class MaxPool2d(Pool2d):
    def forward(self, x):
        out = self.resolve("max_pool2d", x)
        if self.kernel[0] * self.kernel[1] > 256:
            raise ValueError(
                f"max_pool2d remembers the winner in one byte: at most 256 taps, but the kernel is {self.kernel}."
            )
        y, winner = kernels(__name__, x).max_forward(x, *self.args, out)
        self.saved = winner, x.shape
        return y

    def backward(self, gy):
        return kernels(__name__, gy).max_grad_x(gy, *self.saved, *self.args)


class AvgPool2d(Pool2d):
    def forward(self, x):
        out = self.resolve("avg_pool2d", x)
        self.saved = x.shape
        return kernels(__name__, x).avg_forward(x, *self.args, out)

    def backward(self, gy):
        return kernels(__name__, gy).avg_grad_x(gy, self.saved, *self.args)


def max_pool2d(x: Tensor | Array, kernel_size: Pair, stride: Pair | None = None, padding: Padding = 0) -> Tensor:
    """Largest value of each window; equations in the module docstring.

    Parameters
    ----------
    x : Tensor or ndarray, shape (N, C, H, W)
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        `kernel_size` if left out.
    padding : int, pair, ((top, bottom), (left, right)), "valid" or "same"
        At most half the kernel.

    Returns
    -------
    Tensor, shape (N, C, OH, OW), x's dtype
    """
    return MaxPool2d(kernel_size, stride, padding)(x)


def avg_pool2d(x: Tensor | Array, kernel_size: Pair, stride: Pair | None = None, padding: Padding = 0) -> Tensor:
    """Mean of each window, padded zeros included; parameters and shapes as `max_pool2d`."""
    return AvgPool2d(kernel_size, stride, padding)(x)
