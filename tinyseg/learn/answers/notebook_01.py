"""Answers to notebook 1: a path that is cut, a cotangent that is overwritten, a node that is worth writing."""

import numpy as np

from tinyseg.autograd import Function, Tensor
from tinyseg.learn.comparing import Different, same
from tinyseg.ops import sigmoid
from tinyseg.ops.gradcheck import check_grads


def exercise_1(answer):
    """Check the gradients of x, whole and with its path cut: two numbers."""
    whole, cut = answer
    same(float(whole), 12.0, "the gradient of the whole")
    same(float(cut), 4.0, "the gradient with s computed under no_grad")


def exercise_2(answer):
    """Check the backward pass of Twice: a function of the node and gy."""

    class Twice(Function):
        def forward(self, x):
            return 2 * x

        def backward(self, gy):
            return answer(self, gy)

    for words, f in (
        ("2x", lambda x: Twice()(x) + 0 * x),
        ("2x + σ(x)", lambda x: Twice()(x) + sigmoid(x)),
        ("σ(x) + 2x", lambda x: sigmoid(x) + Twice()(x)),
    ):
        x = Tensor(np.array([0.0, 1.0]), requires_grad=True)
        f(x).backward(np.ones(2))
        y = 1 / (1 + np.exp(-x.data))
        same(x.grad, 2 + (y * (1 - y) if "σ" in words else 0 * y), f"the gradient of {words}")


def exercise_3(answer):
    """Check a Function of a and b, log(exp(a) + exp(b)), given as its class."""
    try:
        check_grads(lambda a, b: answer()(a, b), *np.random.default_rng(5).standard_normal((2, 5, 4)))
    except AssertionError as error:
        raise Different(f"a gradient is wrong: {error}") from None
    a, b = (Tensor(np.array(value), requires_grad=True) for value in (1000.0, 999.0))
    node = answer()
    y = node(a, b)
    same(y.data, np.array(1000 + np.log1p(np.exp(-1.0))), "y at a = 1000, b = 999")
    if isinstance(node.saved, (tuple, list)):
        raise Different("the node keeps several arrays for its backward pass, and one is enough.")
    y.backward()
    same(float(a.grad + b.grad), 1.0, "ga + gb")
