"""Activations: ReLU, sigmoid, softmax and log-softmax. The backward pass of all four needs only their output y.

    relu          y = max(x, 0)                 gx = gy where y > 0, else 0
    sigmoid       y = 1 / (1 + exp(-x))         gx = gy y (1 - y)
    softmax       y = exp(x) / Σ exp(x)         gx = y (gy - Σ gy y)
    log_softmax   y = x - log Σ exp(x)          gx = gy - exp(y) Σ gy

Σ runs over `axis` (the channels by default). So that no exp overflows, softmax and log-softmax first subtract the
largest x along `axis`, which does not change y, and the sigmoid computes exp(-|x|). x may have any shape.
"""

from tinyseg.autograd import Array, Tensor
from tinyseg.backend import kernels, xp_of
from tinyseg.backend.half import HalfFunction
from tinyseg.ops.sums import sum_over
from tinyseg.ops.window import check_axes


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def relu_forward(x):
    """Return max(x, 0)."""
    return xp_of(x).maximum(x, x.dtype.type(0))


def relu_grad(gy, y):
    """Gradient of the input: gy where y > 0, else 0."""
    return xp_of(gy).where(y > 0, gy, gy.dtype.type(0))  # not gy · 0, which is NaN for an infinite gy


def sigmoid_forward(x):
    """Return 1 / (1 + exp(-x)): with e = exp(-|x|), this is 1 / (1 + e) for x >= 0 and e / (1 + e) for x < 0."""
    xp = xp_of(x)
    e = xp.exp(-abs(x))
    return xp.where(x >= 0, x.dtype.type(1), e) / (1 + e)


def sigmoid_grad(gy, y):
    """Gradient of the input, from the output y."""
    return gy * y * (1 - y)


def softmax_forward(x, axis):
    """Return probabilities: positive, with sum 1 along `axis`."""
    if x.size == 0:
        return x.copy()  # there is no largest x
    e = xp_of(x).exp(x - x.max(axis=axis, keepdims=True))
    e /= sum_over(e, axis, keepdims=True)
    return e


def softmax_grad(gy, y, axis):
    """Gradient of the input, from the output y."""
    return y * (gy - sum_over(gy * y, axis, keepdims=True))


def log_softmax_forward(x, axis):
    """Return the logarithms of these probabilities."""
    if x.size == 0:
        return x.copy()
    xp = xp_of(x)
    y = x - x.max(axis=axis, keepdims=True)
    y -= xp.log(sum_over(xp.exp(y), axis, keepdims=True))
    return y


def log_softmax_grad(gy, y, axis):
    """Gradient of the input, from the output y."""
    return gy - xp_of(gy).exp(y) * sum_over(gy, axis, keepdims=True)


# ----- the nodes of the graph ------------------------------------------------
class Relu(HalfFunction):
    def forward(self, x):
        self.saved = kernels(__name__, x).relu_forward(x)
        return self.saved

    def backward(self, gy):
        return kernels(__name__, gy).relu_grad(gy, self.saved)


class Sigmoid(HalfFunction):
    def forward(self, x):
        self.saved = kernels(__name__, x).sigmoid_forward(x)
        return self.saved

    def backward(self, gy):
        return kernels(__name__, gy).sigmoid_grad(gy, self.saved)


class AlongAxis(HalfFunction):
    def __init__(self, axis):
        self.axis = axis


class Softmax(AlongAxis):
    def forward(self, x):
        check_axes("softmax", x, self.axis)
        self.saved = kernels(__name__, x).softmax_forward(x, self.axis)
        return self.saved

    def backward(self, gy):
        return kernels(__name__, gy).softmax_grad(gy, self.saved, self.axis)


class LogSoftmax(AlongAxis):
    def forward(self, x):
        check_axes("log_softmax", x, self.axis)
        self.saved = kernels(__name__, x).log_softmax_forward(x, self.axis)
        return self.saved

    def backward(self, gy):
        return kernels(__name__, gy).log_softmax_grad(gy, self.saved, self.axis)


def relu(x: Tensor | Array) -> Tensor:
    """Rectified linear unit, max(x, 0), of a Tensor or array of any shape. At 0 the gradient is 0."""
    return Relu()(x)


def sigmoid(x: Tensor | Array) -> Tensor:
    """Logistic function 1 / (1 + exp(-x)) of a Tensor or array of any shape; no overflow for any x."""
    return Sigmoid()(x)


def softmax(x: Tensor | Array, axis: int = 1) -> Tensor:
    """Probabilities exp(x) / Σ exp(x) along `axis` (the channels of (N, C, H, W) by default)."""
    return Softmax(axis)(x)


def log_softmax(x: Tensor | Array, axis: int = 1) -> Tensor:
    """Logarithm of `softmax` along `axis`; accurate even where softmax itself rounds to 0."""
    return LogSoftmax(axis)(x)
