"""Lesson 2: elementwise ops against difference quotients, and a check of gradients on functions that are wrong."""

import numpy as np

from tinyseg.autograd import Function, Tensor
from tinyseg.learn.comparing import Different, case, keeping, keeps_float32, numbers, same, slopes
from tinyseg.ops import activation, arithmetic, gradcheck


def gradients(op, *arrays, seed=1):
    """Return the gradients that backward leaves for inputs, for a random cotangent, and those by differences."""
    xs = [Tensor(a.copy(), requires_grad=True) for a in arrays]
    y = op(*xs)
    u = numbers(*y.shape, seed=seed)
    y.backward(u)

    def f(k, a):
        return float((u * op(*[Tensor(a if i == k else b) for i, b in enumerate(arrays)]).data).sum())

    return [x.grad for x in xs], [slopes(lambda a, k=k: f(k, a), arrays[k]) for k in range(len(arrays))]


def compare_gradients(op, *arrays, names="ab"):
    """Compare both kinds of gradients."""
    found, expected = gradients(op, *arrays)
    for g, e, name in zip(found, expected, names, strict=False):
        same(g, e, f"g{name}", 1e-5)


def test_1_what_was_repeated_is_summed():
    for shape in ((2, 3, 4), (4,), (3, 1), (1, 1), (2, 1, 4), (), (1, 3, 1)):
        with case(f"an array of shape {shape} that was repeated to (2, 3, 4)"):
            g = numbers(2, 3, 4)
            expected = np.zeros(shape)
            for index in np.ndindex(g.shape):
                own = tuple(0 if n == 1 else k for k, n in zip(index[3 - len(shape) :], shape, strict=True))
                expected[own] += g[index]
            same(arithmetic.unbroadcast(g, shape), expected, "the sum")


def test_2_product_and_quotient():
    divisor = numbers(2, 3, seed=2) + 3
    with case("a · b, both of shape (2, 3)"):
        compare_gradients(arithmetic.multiply, numbers(2, 3), divisor)
    with case("a / b, both of shape (2, 3)"):
        compare_gradients(arithmetic.divide, numbers(2, 3), divisor)
    with case("a · b, a of shape (2, 3) and b of shape (3)"):
        compare_gradients(arithmetic.multiply, numbers(2, 3), divisor[0])
    with case("a / b, a of shape (2, 3) and b of shape (2, 1)"):
        compare_gradients(arithmetic.divide, numbers(2, 3), divisor[:, :1])


def test_3_sum_and_mean():
    for name, op in (("sum", arithmetic.sum), ("mean", arithmetic.mean)):
        for axis, keepdims in ((None, False), (1, False), (1, True), ((0, 2), False)):
            with case(f"the {name} over axis {axis} of an array (2, 3, 4){', keepdims' if keepdims else ''}"):
                compare_gradients(lambda x, op=op, a=axis, k=keepdims: op(x, a, k), numbers(2, 3, 4), names="x")
    with case("the gradient of a sum, changed in place"):
        node = arithmetic.Sum()
        node(Tensor(numbers(2, 2), requires_grad=True))
        g = node.backward(np.array(3.0))
        g[0, 0] += 1
        same(g, [[4.0, 3.0], [3.0, 3.0]], "the gradient")


def test_4_the_rectifier():
    x = np.array([[-2.0, 0.0, 3.0], [0.5, -0.1, 0.0]])
    y, gy = np.array([[0.0, 0.0, 3.0], [0.5, 0.0, 0.0]]), np.array([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    with keeping(x=x):
        found = activation.relu_forward(x)
    same(found, y, "y")
    with keeping(gy=gy, y=y):
        found = activation.relu_grad(gy, y)
    same(found, [[0.0, 0.0, 4.0], [8.0, 0.0, 0.0]], "gx")
    with case("gy is infinite where y is 0"):
        same(activation.relu_grad(np.array([np.inf, 1.0]), np.array([0.0, 2.0])), [0.0, 1.0], "gx")
    keeps_float32(activation.relu_forward, x)


def test_5_the_sigmoid():
    x = np.array([-3.0, -0.5, 0.0, 0.5, 3.0])
    with case("numbers of moderate size"):
        same(activation.sigmoid_forward(x), 1 / (1 + np.exp(-x)), "y")
    with case("numbers of any size, in float32"), np.errstate(over="raise", invalid="raise"):
        found = activation.sigmoid_forward(np.array([-1e4, -200, 200, 1e4], np.float32))
        same(found, np.array([0, 0, 1, 1], np.float32), "y")
    with case("the gradient"):
        compare_gradients(activation.sigmoid, numbers(2, 3), names="x")
    keeps_float32(activation.sigmoid_forward, x)


class Cube(Function):
    """Return x³, with the gradient that a subclass gives."""

    def forward(self, x):
        self.saved = x
        return x**3

    def backward(self, gy):
        return 3 * self.saved**2 * gy


class CubeTimesTwo(Cube):
    """Of which the gradient is twice what it should be."""

    def backward(self, gy):
        return 2 * super().backward(gy)


class CubeTurned(Cube):
    """Of which the gradient lacks a transpose: the sum of all its numbers is right."""

    def backward(self, gy):
        return super().backward(gy).T.copy()


class WithoutMean(Function):
    """Subtract the mean; the gradient passes the cotangent on, as if nothing had been subtracted from it."""

    def forward(self, x):
        return x - x.mean()

    def backward(self, gy):
        return np.zeros_like(gy)  # right if all of gy are equal


class Times(Function):
    """Return a · b."""

    def forward(self, a, b):
        self.saved = a, b
        return a * b

    def backward(self, gy):
        return gy * self.saved[1], gy * self.saved[0]


class NotANumber(Cube):
    """With a gradient that is NaN."""

    def backward(self, gy):
        return np.nan * gy


class NearlyCube(Cube):
    """With a gradient that is a thousandth too large."""

    def backward(self, gy):
        return 1.001 * super().backward(gy)


class Shift(Function):
    """Return x + 1, and keep nothing."""

    def forward(self, x):
        return x + 1

    def backward(self, gy):
        return gy.copy()


def changes_its_input(x):
    """Return x + 1 with a right gradient, and change x afterwards."""
    y = Shift()(x)
    np.add(x.data, 1, out=x.data)
    return y


class ForgetsItsSecond(Times):
    """With a gradient of b that is 0."""

    def backward(self, gy):
        return gy * self.saved[1], 0 * gy


def test_6_a_check_of_gradients():
    x, z = numbers(3, 3), numbers(3, 3, seed=4)
    for words, op, arrays in (
        ("x³", lambda x: Cube()(x), (x,)),
        ("a · b", lambda a, b: Times()(a, b), (x, z)),
    ):
        with case(f"{words}, whose gradient is right, was refused"):
            gradcheck.check_grads(op, *arrays)
    with case("a gradient that is a thousandth too large was refused, with tol=0.01"):
        gradcheck.check_grads(lambda x: NearlyCube()(x), x, tol=0.01)
    for words, op, arrays in (
        ("the gradient of x³ is twice what it should be", lambda x: CubeTimesTwo()(x), (x,)),
        ("the gradient of x³ lacks a transpose", lambda x: CubeTurned()(x), (x,)),
        ("the gradient of the second factor of a · b is 0", lambda a, b: ForgetsItsSecond()(a, b), (x, z)),
        ("a gradient is right for a cotangent of ones alone", lambda x: WithoutMean()(x), (x,)),
        ("a gradient is NaN", lambda x: NotANumber()(x), (x,)),
        ("a gradient is a thousandth too large", lambda x: NearlyCube()(x), (x,)),
        ("the second input gets no gradient, since f does not use it", lambda a, b: Cube()(a), (x, z)),
        ("f changes its input", changes_its_input, (x,)),
    ):
        try:
            gradcheck.check_grads(op, *arrays)
        except AssertionError:
            continue
        raise Different(f"{words}, and check_grads did not raise an AssertionError.")


def draw(path):
    """Draw how the error of a difference quotient depends on its step, for the student's own sigmoid."""
    from tinyseg.learn.course.pictures import figure

    x = np.linspace(-4, 4, 41)
    y = activation.sigmoid_forward(x)
    exact = activation.sigmoid_grad(np.ones_like(x), y)
    steps = np.logspace(-13, 0, 60)
    central, forward = [], []
    for h in steps:
        above, below = activation.sigmoid_forward(x + h), activation.sigmoid_forward(x - h)
        central.append(np.abs((above - below) / (2 * h) - exact).max())
        forward.append(np.abs((above - y) / h - exact).max())
    with figure(path, "Your sigmoid's gradient, and difference quotients") as (left, right):
        left.plot(x, y, label="your sigmoid")
        left.plot(x, exact, label="your gradient")
        left.set_xlabel("x")
        left.legend()
        right.loglog(steps, forward, label="(f(x + h) − f(x)) / h")
        right.loglog(steps, central, label="(f(x + h) − f(x − h)) / 2h")
        right.set_xlabel("h")
        right.set_ylabel("largest error")
        right.legend()
