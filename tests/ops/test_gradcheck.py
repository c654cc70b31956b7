"""check_grads sees what it is there to see, and why its cotangent must be random."""

import importlib

import numpy as np
import pytest
from arrays import rand

from tinyseg import Function, Tensor, check_grads, ops


class Square(Function):
    """y = x², with a backward pass that can be told what to do wrong."""

    def __init__(self, slope=2.0, spoil=None):
        self.slope, self.spoil = slope, spoil

    def forward(self, x):
        self.saved = x
        y = x * x
        if self.spoil is not None:
            self.spoil(x)
        return y

    def backward(self, gy):
        return gy * self.slope * self.saved


def test_a_right_gradient_passes_whatever_the_dtype():
    check_grads(lambda x: Square()(x), rand(2, 3).astype(np.float32))
    check_grads(lambda x, y: Square()(x) + y, rand(2, 3), np.arange(6).reshape(2, 3))
    check_grads(lambda x: Square()(x), np.array(1.5))


def test_a_wrong_gradient_is_named_with_both_values():
    with pytest.raises(AssertionError, match=r"input 0 of shape \(2, 3\): numeric .*, backward .*, relative error"):
        check_grads(lambda x: Square(2.001)(x), rand(2, 3))
    with pytest.raises(AssertionError, match="input 1"):
        check_grads(lambda a, b: a + Square(1.9)(b), rand(3), rand(3))
    check_grads(lambda x: Square(2.001)(x), rand(2, 3), tol=1e-2)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_nan_and_infinity_do_not_pass(wrong):
    with pytest.raises(AssertionError, match="numeric"), np.errstate(invalid="ignore"):
        check_grads(lambda x: Square(wrong)(x), rand(3))


def test_an_input_changed_in_place_is_seen():
    def spoil(x):
        x[0] += 1

    with pytest.raises(AssertionError, match="input 0 was changed in place"):
        check_grads(lambda x: Square(spoil=spoil)(x), rand(3))


def test_an_input_changed_in_backward_is_seen():
    class Spoiler(Square):
        def backward(self, gy):
            gx = super().backward(gy)
            self.saved *= 2
            return gx

    with pytest.raises(AssertionError, match="input 0 was changed in place"):
        check_grads(lambda x: Spoiler()(x), rand(3))


def test_a_missing_gradient_is_seen():
    with pytest.raises(AssertionError, match="input 1 got no gradient"):
        check_grads(lambda x, y: x * y.data, rand(3), rand(3))


def test_the_callers_arrays_are_left_alone_and_every_call_is_the_same():
    x = rand(3)
    old, errors = x.copy(), []
    for _ in range(2):
        with pytest.raises(AssertionError) as caught:
            check_grads(lambda x: Square(2.1)(x), x)
        errors.append(str(caught.value))
    np.testing.assert_array_equal(x, old)
    assert errors[0] == errors[1]
    with pytest.raises(AssertionError) as caught:
        check_grads(lambda x: Square(2.1)(x), x, seed=1)
    assert str(caught.value) != errors[0]


# ----- why the cotangent is random -------------------------------------------------
def broken_batch_norm(gy, x, gamma, mean, rstd, training):
    """The backward pass without the term x̂ · mean(gy x̂)."""
    xhat = (x - mean) * rstd
    gx = (gy - gy.mean(axis=(0, 2, 3), keepdims=True)) * rstd * gamma[:, None, None]
    return gx, (gy * xhat).sum(axis=(0, 2, 3)), gy.sum(axis=(0, 2, 3))


def broken_group_norm(gy, x, gamma, mean, rstd):
    """The same for group_norm."""
    shape = (*mean.shape[:2], -1)
    xhat, g = (x.reshape(shape) - mean) * rstd, (gy * gamma[:, None, None]).reshape(shape)
    gx = ((g - g.mean(axis=2, keepdims=True)) * rstd).reshape(x.shape)
    return gx, (gy * xhat.reshape(x.shape)).sum(axis=(0, 2, 3)), gy.sum(axis=(0, 2, 3))


@pytest.mark.parametrize(
    ("module", "wrong", "f"),
    [
        ("batch_norm", broken_batch_norm, lambda x: ops.batch_norm(x, None, None, training=True)),
        ("group_norm", broken_group_norm, lambda x: ops.group_norm(x, 2)),
    ],
)
def test_an_all_ones_cotangent_cannot_see_a_wrong_normalization(module, wrong, f, monkeypatch):
    x, v, eps = rand(2, 4, 3, 5), rand(2, 4, 3, 5, seed=1), 1e-6
    monkeypatch.setattr(importlib.import_module(f"tinyseg.ops.{module}"), "backward", wrong)
    t = Tensor(x, requires_grad=True)
    f(t).backward(np.ones(x.shape))
    numeric = (f(x + eps * v).data - f(x - eps * v).data).sum() / (2 * eps)
    assert (t.grad * v).sum() == pytest.approx(numeric, abs=1e-6)  # both are 0: "right"
    with pytest.raises(AssertionError, match="input 0"):
        check_grads(f, x)
