"""The numba kernels of the losses in float32 against the maths in float64."""

import importlib

import numpy as np
import pytest
from arrays import (
    EPS32,
    LAYOUTS,
    doubles,
    layouts,
    namesake,
    rand,
    same_with_any_number_of_threads,
    value_and_grads,
    within,
)

from tinyseg import ops, using
from tinyseg.backend import kernels

pytest.importorskip("numba")
fast = importlib.import_module("tinyseg.fast.cpu.loss")
maths = importlib.import_module("tinyseg.ops.loss")

Z = np.zeros((1, 4, 1, 3), np.float32)  # logits, to choose kernels by
SHAPES = [
    (1, 1, 1, 3),
    (3, 1, 131, 101),
    (1, 5, 7, 9),
    (3, 2, 33, 31),
    (1, 16, 17, 5),
    (2, 33, 20, 11),
    (1, 64, 45, 37),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
UNITS = 8  # roundings of an element: exponential, logarithm, quotient, a few products and sums


def case(shape, layout):
    """Logits, masks, class numbers (-1: ignored), and weights of classes."""
    rng = np.random.default_rng(list(shape))
    N, C, H, W = shape
    z, t = layout((4 * rand(*shape)).astype(np.float32)), layout((rng.random(shape) < 0.4).astype(np.float32))
    return z, t, rng.integers(-1, C, (N, H, W)), rng.uniform(0.5, 2, C).astype(np.float32)


def roundings(shape):
    """How many numbers are added in float32 at most (the rows of a chunk), and those of each element."""
    return fast.plan_rows(np.empty((1, np.prod(shape))), shape[1])[1] + UNITS


# ----- binary cross-entropy ----------------------------------------------------
WEIGHTS = {
    "number": lambda shape: np.float32(1.5),
    "classes": lambda shape: np.linspace(0.5, 2, shape[1], dtype=np.float32)[:, None, None],
    "pixels": lambda shape: abs(rand(shape[0], 1, *shape[2:], seed=5)).astype(np.float32),
    "rows": lambda shape: abs(rand(shape[2], 1, seed=5)).astype(np.float32),
    "all": lambda shape: abs(rand(*shape, seed=5)).astype(np.float32),
}


@shapes
@layouts
@pytest.mark.parametrize(
    ("weight", "pos_weight"),
    [("number", "number"), ("classes", "number"), ("pixels", "classes"), ("rows", "all"), ("all", "pixels")],
)
def test_bce(shape, layout, weight, pos_weight):
    z, t, _, _ = case(shape, layout)
    args = z, t, WEIGHTS[weight](shape), WEIGHTS[pos_weight](shape)
    exact = doubles(*args)
    softplus, parts = np.log1p(np.exp(-abs(exact[0]))), 1 + (1 + exact[3]) * exact[1]
    size = (exact[2] * parts * (abs(exact[0]) + softplus)).sum()
    within(fast.bce_forward(*args), maths.bce_forward(*exact), roundings(shape) * EPS32 * size)
    within(fast.bce_grad(*args), maths.bce_grad(*exact), UNITS * EPS32 * exact[2] * parts)


@pytest.mark.parametrize("shape", [(), (7,), (5, 300), (2, 3, 4, 5, 6)])
def test_bce_of_other_numbers_of_axes(shape):
    z, t = np.asarray(4 * rand(*shape), np.float32), np.asarray(abs(rand(*shape, seed=1)) % 1, np.float32)
    weights = [np.float32(1.5)]
    if len(shape) > 1:
        weights.append(np.linspace(0.5, 2, shape[1], dtype=np.float32).reshape(-1, *[1] * (len(shape) - 2)))
    for weight in weights:
        args = z, t, weight, weights[0]
        value, gz = maths.bce_forward(*doubles(*args)), maths.bce_grad(*doubles(*args))
        np.testing.assert_allclose(fast.bce_forward(*args), value, rtol=1e-6)
        within(fast.bce_grad(*args), np.asarray(gz), UNITS * EPS32 * 4)


def test_bce_at_extreme_logits():
    z = np.array([-1000, -1000, 1000, 1000, -1000, 1000, -3e38, 3e38], np.float32)
    t = np.array([0, 1, 0, 1, 0.5, 0.5, 0, 1], np.float32)
    one = np.float32(1)
    values = [fast.bce_forward(z[k : k + 1], t[k : k + 1], one, one) for k in range(8)]
    assert values == [0, 1000, 1000, 0, 500, 500, 0, 0]
    np.testing.assert_array_equal(fast.bce_grad(z, t, one, one), [0, -1, 1, 0, -0.5, 0.5, 0, 0])


# ----- cross-entropy -------------------------------------------------------------
@shapes
@layouts
def test_cross_entropy(shape, layout):
    z, _, k, weight = case(shape, layout)
    exact = doubles(z, k, weight)
    total, count = fast.ce_forward(z, k, weight)
    exact_total, exact_count = maths.ce_forward(*exact)
    # Of a pixel: the logarithm of C terms, and the distance of two logits. Pixels are added in float64.
    spread = (exact[0].max(axis=1) - exact[0].min(axis=1) + 1) * weight.max()
    within(total, exact_total, (shape[1] + UNITS) * EPS32 * spread.sum())
    within(count, exact_count, 2 * EPS32 * exact_count)
    within(fast.ce_grad(z, k, weight), maths.ce_grad(*exact), (shape[1] + UNITS) * EPS32 * weight.max())


def test_cross_entropy_ignores():
    z, _, k, weight = case((2, 5, 9, 11), LAYOUTS["pixels"])
    gz = fast.ce_grad(z, k, weight)
    assert (k == -1).any() and (gz.transpose(0, 2, 3, 1)[k == -1] == 0).all()
    assert fast.ce_forward(z, np.full_like(k, -1), weight) == (0, 0)


def test_cross_entropy_at_extreme_logits():
    z = np.array([-1000, 1000, 0], np.float32).reshape(1, 3, 1, 1)
    for k, expected in enumerate([2000, 0, 1000]):
        args = z, np.array([[[k]]]), np.ones(3, np.float32)
        assert fast.ce_forward(*args) == (expected, 1)
        np.testing.assert_array_equal(fast.ce_grad(*args), maths.ce_grad(*args))


@layouts
@pytest.mark.parametrize("pixels", [1, fast.BLOCK - 1, fast.BLOCK, fast.BLOCK * fast.BLOCKS + 1])
@pytest.mark.parametrize("C", [1, 2, 7])
def test_cross_entropy_of_any_number_of_pixels(C, pixels, layout):
    rng = np.random.default_rng([C, pixels])
    z = layout(rng.choice([-100, 100, 0, 3.7, -0.1], (2, C, 1, pixels)).astype(np.float32))
    k, weight = rng.integers(-1, C, (2, 1, pixels)), np.linspace(0.5, 2, C, dtype=np.float32)
    exact_total, exact_count = maths.ce_forward(*doubles(z, k, weight))
    total, count = fast.ce_forward(z, k, weight)
    # Of a pixel: logits 200 apart, the logarithm of at most C, each of the operations with its rounding.
    within(total, exact_total, (C + UNITS) * EPS32 * weight.max() * (201 + np.log(C)) * k.size)
    within(count, exact_count, EPS32 * exact_count)
    within(fast.ce_grad(z, k, weight), maths.ce_grad(*doubles(z, k, weight)), (C + UNITS) * EPS32 * weight.max())


def test_logarithm():
    x = np.concatenate([1 + np.logspace(-7, 0, 999), np.logspace(0, 30, 999), 2.0 ** np.arange(30)]).astype(np.float32)
    exact = np.log(x.astype(np.float64))
    found = np.array([fast._log(a) for a in x])
    assert (abs(found - exact) <= 3 * EPS32 * np.maximum(exact, np.finfo(np.float32).tiny)).all()
    assert np.isnan(fast._log(np.float32(np.nan))) and fast._log(np.float32(1)) == 0


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.uint64])
@pytest.mark.parametrize("ignore", [None, 4, np.int16(0), 255, -1, 2**70, 2.0])
def test_class_numbers(dtype, ignore):
    assert namesake("tinyseg.ops.targets", Z) is importlib.import_module("tinyseg.fast.cpu.targets")
    for t in ([[0, 1, 2]], [[0, 3, 2]], [[4, 1, 255]], [[0, 2, 4]], [[-1, 1, 2]], [[2**63 - 1, 0, 1]]):
        t = np.array(t).astype(dtype)[:, ::-1]
        before = t.copy()
        with using(kernels="reference"):
            expected, expected_valid = kernels("tinyseg.ops.targets", Z).class_numbers(t, 4, ignore)
        numbers, valid = kernels("tinyseg.ops.targets", Z).class_numbers(t, 4, ignore)
        assert valid == expected_valid and numbers.dtype == np.int64
        if valid:
            np.testing.assert_array_equal(numbers, expected)
        np.testing.assert_array_equal(t, before)


@pytest.mark.parametrize(("wrong", "ignore"), [(3, None), (-1, None), (3, 255), (-1, 0), (2**40, 1)])
@pytest.mark.parametrize("at", [0, 500, -1])
def test_cross_entropy_refuses_wrong_class_numbers(wrong, ignore, at):
    z, k = np.zeros((2, 3, 33, 31), np.float32), np.ones((2, 33, 31), np.int64)
    k.reshape(-1)[at] = wrong
    low, high = min(wrong, 1), max(wrong, 1)
    with pytest.raises(ValueError, match=f"class numbers must be 0 … 2, but range from {low} to {high}"):
        ops.cross_entropy(z, k, ignore_index=ignore)


# ----- soft Dice -----------------------------------------------------------------
@shapes
@layouts
@pytest.mark.parametrize("axes", [(2, 3), (0, 2, 3), (3,)], ids=str)
def test_dice(shape, layout, axes):
    z, t, _, _ = case(shape, layout)
    p, n = maths.sigmoid_forward(z), roundings(shape) if len(axes) > 1 else 2 * shape[3]
    D, denominator = kernels(maths.__name__, p).dice_forward(p, t, np.float32(0.5), axes)  # (3,) is for the maths
    exact_D, exact_denominator = maths.dice_forward(*doubles(p, t), 0.5, axes)
    within(denominator, exact_denominator, n * EPS32 * exact_denominator)
    within(D, exact_D, 2 * n * EPS32 * exact_D)


@shapes
@layouts
@pytest.mark.parametrize("pooled", [False, True])
def test_dice_gradient(shape, layout, pooled):
    p, t, _, _ = case(shape, layout)
    spread = (1 if pooled else shape[0], shape[1], 1, 1)
    gD, D, denominator = (rand(*spread, seed=k).astype(np.float32) for k in range(3))
    denominator = abs(denominator) + np.float32(0.1)
    args = doubles(gD, p, t, D, denominator)
    within(fast.dice_grad(gD, p, t, D, denominator), maths.dice_grad(*args), UNITS * EPS32 * abs(args[0] / args[4]) * 5)


def test_dice_of_nothing_is_not_0_over_0():
    nothing = np.zeros((2, 3, 4, 5), np.float32)
    D, denominator = fast.dice_forward(nothing, nothing, np.float32(0), (2, 3))
    assert (D == 0).all() and (denominator > 0).all()


# ----- all -----------------------------------------------------------------------
@layouts
def test_inputs_come_back_unchanged(layout):
    z, t, k, weight = case((2, 5, 9, 11), layout)
    p = layout(maths.sigmoid_forward(z))
    given = z, t, k, weight, p
    before = [a.copy() for a in given]
    D = np.ones((2, 5, 1, 1), np.float32)
    fast.bce_forward(z, t, weight[:, None, None], weight[:, None, None])
    fast.bce_grad(z, t, weight[:, None, None], weight[:, None, None])
    fast.ce_forward(z, k, weight)
    fast.ce_grad(z, k, weight)
    fast.dice_forward(p, t, np.float32(1), (2, 3))
    fast.dice_grad(D, p, t, D, D)
    for a, b in zip(given, before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("at", [0, 3, 2000])
def test_nan_is_seen(at):
    z, t, k, weight = case((1, 2, 33, 31), np.ascontiguousarray)
    k[...] = 0
    z.reshape(-1)[at] = np.nan
    one, one_pixel = np.float32(1), np.zeros(z.shape, bool)
    one_pixel.reshape(-1)[at] = True
    assert np.isnan(fast.bce_forward(z, t, one, one)) and np.isnan(fast.ce_forward(z, k, weight)[0])
    np.testing.assert_array_equal(np.isnan(fast.bce_grad(z, t, one, one)), one_pixel)
    np.testing.assert_array_equal(
        np.isnan(fast.ce_grad(z, k, weight)), np.repeat(one_pixel.any(1, keepdims=True), 2, 1)
    )
    for a in fast.dice_forward(z, t, one, (2, 3)):
        np.testing.assert_array_equal(np.isnan(a), one_pixel.any(axis=(2, 3)))


def test_the_number_of_threads_does_not_matter():
    z, t, k, weight = case((3, 5, 131, 101), LAYOUTS["pixels"])
    one = np.float32(1)

    def results():
        dice = fast.dice_forward(z, t, one, (2, 3))
        return [fast.bce_forward(z, t, one, one), *fast.ce_forward(z, k, weight), *dice]

    same_with_any_number_of_threads(results)


@pytest.mark.parametrize("layout", [LAYOUTS["planes"], LAYOUTS["pixels"]], ids=["planes", "pixels"])
def test_the_ops_are_the_same_on_both_paths(layout):
    z, t, k, weight = case((3, 4, 33, 31), layout)
    weight = weight.tolist()
    for op in (
        lambda x: ops.binary_cross_entropy_with_logits(x, t > 0, weight, pos_weight=2.0),
        lambda x: ops.cross_entropy(x, k, weight, ignore_index=-1),
        lambda x: ops.soft_dice_loss(x, t, weight=weight),
        lambda x: ops.soft_dice_loss(x, abs(k), "softmax", pooled=True),
        lambda x: ops.dice_bce_with_logits(x, t.astype(np.int64), 0.7, 1.3),
    ):
        y, gz = value_and_grads(op, z)
        with using(kernels="reference"):
            exact_y, exact_gz = value_and_grads(op, z.astype(np.float64))
        np.testing.assert_allclose(y, exact_y, rtol=1e-6)
        np.testing.assert_allclose(gz, exact_gz, rtol=1e-5, atol=1e-6 * abs(exact_gz).max())


def test_supports_float32_only():
    assert fast.supports(np.zeros(3, np.float32)) and not fast.supports(np.zeros(3))
