"""Lesson 6: loss and optimizers by their equations in float64, and a step of training on a map of one weight."""

import math

import numpy as np

from tinyseg import nn, optim
from tinyseg.learn.comparing import Different, case, keeping, keeps_float32, numbers, same
from tinyseg.ops import loss
from tinyseg.training import step


def right_bce(z, t, weight, pos_weight):
    """Return the sum of the loss, number by number."""
    total = 0.0
    for zk, tk, wk in zip(z.flat, t.flat, np.broadcast_to(weight, z.shape).flat, strict=True):
        p = 1 / (1 + math.exp(-zk))
        total += wk * -(pos_weight * tk * math.log(p) + (1 - tk) * math.log(1 - p))
    return total


ONE, SHAPE = np.array(1.0), (2, 1, 2, 3)
WEIGHTS = (  # words, the weights of pixels, pos_weight
    ("all weights 1", ONE, ONE),
    ("weights of pixels", np.abs(numbers(*SHAPE, seed=2)), ONE),
    ("pos_weight 3", ONE, 3 * ONE),
)


def test_1_cross_entropy_forward():
    z, t = 2 * numbers(*SHAPE), np.abs(np.tanh(numbers(*SHAPE, seed=1)))
    for words, w, a in WEIGHTS:
        with case(words):
            with keeping(z=z, t=t):
                found = loss.bce_forward(z, t, w, a)
            same(found, right_bce(z, t, w, float(a)), "the sum")
    with case("logits of 1000 and -1000"), np.errstate(over="raise", invalid="raise"):
        far, sure = np.array([1000.0, -1000.0]), np.array([1.0, 0.0])
        same(loss.bce_forward(far, sure, ONE, ONE), 0.0, "the sum where the network is right")
        same(loss.bce_forward(far, 1 - sure, ONE, ONE), 2000.0, "the sum where it is wrong")
    with case("a NaN at a pixel of weight 0"):
        with_nan, without = np.array([np.nan, 0.5]), np.array([0.0, 1.0])
        right = right_bce(np.array([0.5]), np.array([1.0]), ONE, 1)
        same(loss.bce_forward(with_nan, np.ones(2), without, ONE), right, "the sum")


def test_2_cross_entropy_backward():
    z, t, h = 2 * numbers(*SHAPE), np.abs(np.tanh(numbers(*SHAPE, seed=1))), 1e-5
    for words, w, a in WEIGHTS:
        right = np.empty_like(z)
        for index in np.ndindex(z.shape):
            own, here = np.array(t[index]), np.broadcast_to(w, z.shape)[index]
            above, below = (right_bce(np.array(z[index] + s * h), own, here, float(a)) for s in (1, -1))
            right[index] = (above - below) / (2 * h)
        with case(words):
            with keeping(z=z, t=t):
                found = loss.bce_grad(z, t, w, a)
            same(found, right, "gz", 1e-6)
    keeps_float32(loss.bce_grad, z, t, ONE, ONE)
    with case("a NaN at a pixel of weight 0"):
        found = loss.bce_grad(np.array([np.nan, 0.0]), np.ones(2), np.array([0.0, 1.0]), ONE)
        same(found, [0.0, -0.5], "gz")


def parameter(*values):
    """Return a parameter of a network."""
    return nn.Parameter(np.array(values))


def take_steps(optimizer, w, gradients):
    """Take a step for each gradient; return the weights after each."""
    after = []
    for g in gradients:
        w.grad = g.copy()
        with keeping(g=w.grad):
            optimizer.step()
        after.append(w.data.copy())
    return after


GRADIENTS = [numbers(3, seed=k) for k in range(4)]


def test_3_descent_with_momentum():
    for words, momentum, nesterov in (
        ("without momentum", 0.0, False), ("with momentum 0.9", 0.9, False), ("Nesterov's step", 0.9, True),
    ):  # fmt: skip
        w, start = parameter(1.0, -2.0, 3.0), np.array([1.0, -2.0, 3.0])
        with case(words):
            found = take_steps(optim.SGD([w], lr=0.1, momentum=momentum, nesterov=nesterov), w, GRADIENTS)
            v, right = np.zeros(3), start
            for k, g in enumerate(GRADIENTS):
                v = momentum * v + g
                right = right - 0.1 * (g + momentum * v if nesterov else v)
                same(found[k], right, f"w after {k + 1} steps" if k else "w after one step")


def test_4_adam():
    w, (b1, b2, eps, lr) = parameter(1.0, -2.0, 3.0), (0.9, 0.99, 1e-3, 0.05)
    with case("β₁ 0.9, β₂ 0.99, ε 1e-3"):
        found = take_steps(optim.Adam([w], lr=lr, betas=(b1, b2), eps=eps), w, GRADIENTS)
        m, v, right = np.zeros(3), np.zeros(3), np.array([1.0, -2.0, 3.0])
        for k, g in enumerate(GRADIENTS):
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            m_hat, v_hat = m / (1 - b1 ** (k + 1)), v / (1 - b2 ** (k + 1))
            right = right - lr * m_hat / (np.sqrt(v_hat) + eps)
            same(found[k], right, f"w after {k + 1} steps" if k else "w after one step")
    late, early = parameter(1.0, 1.0, 1.0), parameter(1.0, 1.0, 1.0)
    optimizer = optim.Adam([early, late], lr=0.1)
    with case("a parameter that gets its first gradient in the second step: its t is 1 then"):
        early.grad = GRADIENTS[0].copy()
        optimizer.step()
        early.grad, late.grad = GRADIENTS[1].copy(), GRADIENTS[0].copy()
        optimizer.step()
        same(late.data, 1 - 0.1 * np.sign(GRADIENTS[0]), "w after its first step", 1e-5)
    w = parameter(1.0, -2.0, 3.0)
    with case("AdamW, which first takes η λ w from w: `shrink`"):
        optimizer = optim.AdamW([w], lr=0.1, weight_decay=0.5)
        w.grad = GRADIENTS[0].copy()
        optimizer.step()
        same(w.data, 0.95 * np.array([1.0, -2.0, 3.0]) - 0.1 * np.sign(GRADIENTS[0]), "w after one step", 1e-5)


class Line(nn.Module):
    """The map x -> w x, of one weight."""

    def __init__(self, w):
        self.weight = nn.Parameter(np.array([w]))

    def forward(self, x):
        return self.weight * x


def squares(logits, y):
    """Return half the sum of the squared errors, whose gradient with respect to w is Σ (w x - y) x."""
    error = logits - y
    return (error * error).sum() * 0.5


def test_5_a_step_of_training():
    x, y = np.array([1.0, -2.0]), np.array([0.5, 1.0])

    def trained(steps, clip=None, target=y):
        net = Line(2.0)
        train = step.Step(net, optim.SGD(net.parameters(), lr=0.1), squares, clip=clip)
        return net, [train(x, target) for _ in range(steps)]

    w, right = 2.0, []
    for _ in range(3):
        right.append((0.5 * float(((w * x - y) ** 2).sum()), abs(float(((w * x - y) * x).sum())), w))
        w -= 0.1 * float(((w * x - y) * x).sum())
    net, figures = trained(3)
    for k, (found, (expected, norm, _)) in enumerate(zip(figures, right, strict=True), 1):
        with case(f"step {k} of three"):
            if found is None:
                raise Different("the step returns None, and should return its Figures.")
            if not isinstance(found.loss, float):
                raise Different(f"the loss is a {type(found.loss).__name__}, and should be a float of Python.")
            same(found.loss, expected, "the loss")
            same(found.norm, norm, "the norm of the gradient")
            if not found.updated:
                raise Different("figures.updated is False, and the weights should have been changed.")
    same(net.weight.data, [w], "w after three steps")
    with case("a gradient that is clipped to norm 1"):
        same(trained(1, clip=1.0)[0].weight.data, [1.9], "w after one step")
    with case("a target that is NaN"):
        net, figures = trained(1, target=np.array([0.5, np.nan]))
        same(net.weight.data, [2.0], "w, which a loss of NaN must not change,")
        if figures[0].updated:
            raise Different("figures.updated is True, though nothing was changed.")
        if net.weight.grad is not None:
            raise Different("backward has run, though the loss is not finite.")
    with case("a gradient that was there before the step"):
        net = Line(2.0)
        net.weight.grad = np.array([100.0])
        step.Step(net, optim.SGD(net.parameters(), lr=0.1), squares)(x, y)
        same(net.weight.data, [2.0 - 0.1 * float(((2 * x - y) * x).sum())], "w after the step")
    with case("the pixels that are foreground, for the Dice score"):
        found = trained(1, target=np.array([1.0, 0.0]))[1][0]
        same(found.overlap, 1, "the number of pixels in both")
        same(found.area, 2, "the sum of the numbers in prediction and truth")


def draw(path):
    """Draw how the student's optimizers go down a valley."""
    from tinyseg.learn.course.pictures import figure

    def f(p):
        return 0.5 * (p[0] ** 2 + 100 * p[1] ** 2)

    ways = {}
    for name, make in (
        ("SGD", lambda p: optim.SGD(p, lr=0.015)),
        ("SGD with momentum", lambda p: optim.SGD(p, lr=0.01, momentum=0.8)),
        ("Adam", lambda p: optim.Adam(p, lr=0.3)),
    ):
        w = parameter(-4.0, 0.6)
        optimizer, way = make([w]), [w.data.copy()]
        for _ in range(80):
            w.grad = w.data * [1, 100]
            optimizer.step()
            way.append(w.data.copy())
        ways[name] = np.array(way)
    with figure(path, "Your optimizers in a narrow valley", 2) as (left, right):
        grid = np.meshgrid(np.linspace(-4.5, 4.5, 120), np.linspace(-0.8, 0.8, 80))
        left.contour(*grid, f(grid), levels=np.geomspace(0.1, 40, 8), colors="0.8", linewidths=0.8)
        for name, way in ways.items():
            left.plot(*way.T, ".-", label=name, linewidth=1)
            right.semilogy([max(f(p), 1e-12) for p in way], label=name)
        left.legend()
        right.set_xlabel("step")
        right.set_ylabel("loss")
