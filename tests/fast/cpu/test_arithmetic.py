"""Sums and products of large arrays with numba: one operation an element, so the same bits as NumPy's."""

import itertools

import numpy as np
import pytest
from arrays import namesake, rand, strided

pytest.importorskip("numba")

from tinyseg import Tensor, ops, using
from tinyseg.fast.cpu import arithmetic as fast

NAME = "tinyseg.ops.arithmetic"
SHAPES = [(1, 64, 33, 41), (3, 5, 67, 71), (2, 33, 1001), (70001,), (1, 1, 65536, 1), (16, 4096)]


def single(shape, order, seed=0):
    """Random float32 numbers, their axes in memory in the given order."""
    a = rand(*(shape[k] for k in order), seed=seed).astype(np.float32)
    return a.transpose(np.argsort(order))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_order_of_axes(shape):
    for order in itertools.permutations(range(len(shape))):
        a, b = single(shape, order), single(shape, order, 1)
        old = a.copy(), b.copy()
        assert fast.supports(a, b)
        for y, expected in ((fast.add_forward(a, b), a + b), (fast.multiply_forward(a, b), a * b)):
            np.testing.assert_array_equal(y, expected)
            assert y.dtype == np.float32
            assert y.transpose(order).flags.c_contiguous and not np.shares_memory(y, a)
        np.testing.assert_array_equal((a, b), old)


def test_what_is_left_to_the_maths():
    a = rand(2, 64, 33, 41).astype(np.float32)
    pixels = np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert namesake(NAME, a, a) is namesake(NAME, pixels, pixels) is fast
    others = [(a, pixels), (strided(a), strided(a)), (a, a[:1]), (a[:1, :1], a[:1, :1])]
    others += [(a, a.astype(np.float64)), (a, np.broadcast_to(a[:1], a.shape)), (np.broadcast_to(a[:1], a.shape), a)]
    for x, y in others:
        assert namesake(NAME, x, y) is None
        np.testing.assert_array_equal(ops.add(x, y).data if x.dtype == y.dtype else x + y, x + y)
    with using(kernels="reference"):
        assert namesake(NAME, a, a) is None


def test_gradients_of_a_tensor_used_twice_are_summed_with_it(monkeypatch):
    calls = []
    add = fast.add_forward
    monkeypatch.setattr(fast, "add_forward", lambda a, b: calls.append(a.shape) or add(a, b))
    x = Tensor(single((1, 64, 33, 41), (0, 2, 3, 1)), requires_grad=True)  # as the kernels lay it out
    y = ops.relu(x)
    ops.concat([y, y * y]).sum().backward()
    assert len(calls) == 2  # both uses in y·y, and concat's
    np.testing.assert_allclose(x.grad, np.where(x.data > 0, 1 + 2 * x.data, 0), rtol=1e-6)


def test_a_gradient_that_somebody_kept_is_left_alone():
    x = Tensor(rand(70001).astype(np.float32), requires_grad=True)
    (x * 2.0).sum().backward()
    kept = x.grad
    (x * 2.0).sum().backward()
    np.testing.assert_array_equal(x.grad, np.full(70001, 4, np.float32))
    np.testing.assert_array_equal(kept, np.full(70001, 2, np.float32))
