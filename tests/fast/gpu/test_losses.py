"""The CUDA kernels of the losses in float32 against the maths in float64."""

import numpy as np
import pytest
from arrays import EPS32, doubles, rand
from stand_in import both, layouts, or_maths, planes, rounding, slices, within

maths, fast = both("loss")

SHAPES = [
    (1, 1, 1, 3),
    (3, 1, 67, 65),  # two slices a plane
    (1, 5, 7, 9),
    (3, 2, 33, 31),
    (2, 33, 4, 11),
    (300, 2, 1, 3),  # more images than threads
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
UNITS = 8  # roundings of an element: exponential, logarithm, quotient, a few products and sums


def case(shape):
    """Logits, masks, class numbers (-1: ignored), and weights of classes."""
    rng = np.random.default_rng(list(shape))
    N, C, H, W = shape
    z, t = (4 * rand(*shape)).astype(np.float32), (rng.random(shape) < 0.4).astype(np.float32)
    return z, t, rng.integers(-1, C, (N, H, W)), rng.uniform(0.5, 2, C).astype(np.float32)


def on(cp, layout, *arrays):
    """On the device: images in a layout, the rest in C order."""
    return [layout(cp, a) if a.ndim > 2 else planes(cp, a) for a in arrays]


# ----- binary cross-entropy ------------------------------------------------------------
WEIGHTS = {
    "number": lambda shape: np.array(1.5, np.float32),
    "classes": lambda shape: np.linspace(0.5, 2, shape[1], dtype=np.float32)[:, None, None],
    "images": lambda shape: abs(rand(shape[0], 1, 1, 1, seed=5)).astype(np.float32),
    "pixels": lambda shape: abs(rand(shape[0], 1, *shape[2:], seed=5)).astype(np.float32),
    "plane": lambda shape: abs(rand(*shape[2:], seed=5)).astype(np.float32),
    "rows": lambda shape: abs(rand(shape[2], 1, seed=5)).astype(np.float32),
    "all": lambda shape: abs(rand(*shape, seed=5)).astype(np.float32),
}
PAIRS = [("number", "classes"), ("pixels", "number"), ("rows", "all"), ("all", "pixels"), ("images", "plane")]


@shapes
@layouts
@pytest.mark.parametrize(("weight", "pos_weight"), PAIRS)
def test_bce(shape, layout, weight, pos_weight, stand_in):
    z, t, _, _ = case(shape)
    args = z, t, WEIGHTS[weight](shape), WEIGHTS[pos_weight](shape)
    exact, there = doubles(*args), on(stand_in, layout, *args)
    softplus, parts = np.log1p(np.exp(-abs(exact[0]))), 1 + (1 + exact[3]) * exact[1]
    size = (exact[2] * parts * (abs(exact[0]) + softplus)).sum()
    within(stand_in, fast.bce_forward(*there), maths.bce_forward(*exact), rounding(slices(z.size)) * size)
    within(stand_in, fast.bce_grad(*there), maths.bce_grad(*exact), UNITS * EPS32 * exact[2] * parts)


@pytest.mark.parametrize("shape", [(), (7,), (5, 300), (2, 3, 4, 5, 6)], ids=str)
def test_bce_of_other_numbers_of_axes(shape, stand_in):
    z, t = np.asarray(4 * rand(*shape), np.float32), np.asarray(abs(rand(*shape, seed=1)) % 1, np.float32)
    weights = [np.array(1.5, np.float32)]
    if len(shape) > 1:
        weights.append(np.linspace(0.5, 2, shape[1], dtype=np.float32).reshape(-1, *[1] * (len(shape) - 2)))
    for weight in weights:
        exact = [np.asarray(a, np.float64) for a in (z, t, weight, weights[0])]
        there = [planes(stand_in, a) for a in (z, t, weight, weights[0])]
        value = maths.bce_forward(*exact)
        within(stand_in, fast.bce_forward(*there), value, rounding() * 5 * value)
        within(stand_in, fast.bce_grad(*there), maths.bce_grad(*exact), UNITS * EPS32 * 4)


def test_bce_at_extreme_logits(stand_in):
    z = np.array([-1000, -1000, 1000, 1000, -1000, 1000, -3e38, 3e38], np.float32)
    t = np.array([0, 1, 0, 1, 0.5, 0.5, 0, 1], np.float32)
    one = planes(stand_in, np.array(1, np.float32))
    z, t = planes(stand_in, z), planes(stand_in, t)
    values = [float(fast.bce_forward(z[k : k + 1], t[k : k + 1], one, one)) for k in range(8)]
    assert values == [0, 1000, 1000, 0, 500, 500, 0, 0]
    within(stand_in, fast.bce_grad(z, t, one, one), np.array([0, -1, 1, 0, -0.5, 0.5, 0, 0]), 0)


# ----- cross-entropy -------------------------------------------------------------------
@shapes
@layouts
def test_cross_entropy(shape, layout, stand_in):
    z, _, k, weight = case(shape)
    exact, there = doubles(z, k, weight), on(stand_in, layout, z, k, weight)
    (total, count), (exact_total, exact_count) = fast.ce_forward(*there), maths.ce_forward(*exact)
    # Of a pixel: the logarithm of C terms, and the distance of two logits.
    spread = (exact[0].max(axis=1) - exact[0].min(axis=1) + 1) * weight.max()
    n = rounding(slices(k.size)) + shape[1] * EPS32
    within(stand_in, total, exact_total, n * spread.sum())
    within(stand_in, count, exact_count, n * exact_count)
    bound = (shape[1] + UNITS + spread.max()) * EPS32 * weight.max()
    within(stand_in, fast.ce_grad(*there), maths.ce_grad(*exact), bound)


def test_cross_entropy_ignores(stand_in):
    z, _, k, weight = case((2, 5, 9, 11))
    there = on(stand_in, planes, z, k, weight)
    gz = stand_in.asnumpy(fast.ce_grad(*there))
    assert (k == -1).any() and (gz.transpose(0, 2, 3, 1)[k == -1] == 0).all()
    there[1] = planes(stand_in, np.full_like(k, -1))
    assert [float(a) for a in fast.ce_forward(*there)] == [0, 0]


def test_cross_entropy_at_extreme_logits(stand_in):
    z = np.array([-1000, 1000, 0], np.float32).reshape(1, 3, 1, 1)
    for k, expected in enumerate([2000, 0, 1000]):
        args = z, np.array([[[k]]]), np.ones(3, np.float32)
        there = on(stand_in, planes, *args)
        assert [float(a) for a in fast.ce_forward(*there)] == [expected, 1]
        within(stand_in, fast.ce_grad(*there), maths.ce_grad(*args), 0)


# ----- soft Dice -----------------------------------------------------------------------
@shapes
@layouts
@pytest.mark.parametrize("axes", [(2, 3), (0, 2, 3), (1, 2, 3)], ids=["images", "pooled", "as the maths"])
def test_dice(shape, layout, axes, stand_in):
    z, t, _, _ = case(shape)
    p, smooth = (1 / (1 + np.exp(-z))).astype(np.float32), np.float32(1)
    p_there, t_there = on(stand_in, layout, p, t)
    exact = maths.dice_forward(*doubles(p, t), float(smooth), axes)
    k = or_maths("loss") if axes == (1, 2, 3) else fast
    D, denominator = k.dice_forward(p_there, t_there, smooth, axes)
    n = rounding(p.shape[0] * slices(shape[2] * shape[3])) if axes != (1, 2, 3) else p[0].size * EPS32
    within(stand_in, D, exact[0], 2 * n * exact[0])
    within(stand_in, denominator, exact[1], n * exact[1])
    if axes == (1, 2, 3):
        return
    D, denominator = (a.astype(np.float32).reshape(-1, shape[1], 1, 1) for a in exact)
    for gD in (rand(*D.shape), rand(1, shape[1], 1, 1)):
        gD = gD.astype(np.float32)
        found = fast.dice_grad(*on(stand_in, layout, gD, p, t, D, denominator))
        expected = maths.dice_grad(*doubles(gD, p, t, D, denominator))
        within(stand_in, found, expected, UNITS * EPS32 * abs(gD / denominator) * (2 * t + D))


def test_dice_of_nothing(stand_in):
    zeros = planes(stand_in, np.zeros((2, 3, 4, 5), np.float32))
    D, denominator = fast.dice_forward(zeros, zeros, 0, (2, 3))
    assert (D == 0).all() and (denominator > 0).all()
    D, _ = fast.dice_forward(zeros, zeros, np.float32(1), (0, 2, 3))
    assert (D == 1).all() and D.shape == (3,)
