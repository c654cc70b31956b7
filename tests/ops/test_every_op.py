"""What holds for all ops alike, asked of every entry of the catalogue."""

import numpy as np
import pytest
from arrays import EPS32, equal, strided, value_and_grads
from catalogue import ENTRIES

from tinyseg import Tensor, check_grads, no_grad, ops, using

every_op = pytest.mark.parametrize("entry", ENTRIES, ids=[entry[0] for entry in ENTRIES])


def test_the_catalogue_is_complete():
    assert {entry[0].split("-")[0] for entry in ENTRIES} == set(ops.__all__)
    assert all(callable(getattr(ops, name)) for name in ops.__all__)


@every_op
def test_gradients(entry, kernels):
    _, f, *arrays = entry
    check_grads(f, *arrays)


@every_op
def test_strided_inputs_give_the_same_and_come_back_unchanged(entry):
    _, f, *arrays = entry
    views = [strided(a) for a in arrays]
    around = [v.base.copy() for v in views]
    equal(value_and_grads(f, *views), value_and_grads(f, *arrays))
    for view, old in zip(views, around, strict=True):
        np.testing.assert_array_equal(view.base, old)


@every_op
def test_a_strided_cotangent_gives_the_same_and_comes_back_unchanged(entry):
    _, f, *arrays = entry
    results = []
    for layout in (np.ascontiguousarray, strided):
        xs = [Tensor(a, requires_grad=True) for a in arrays]
        y = f(*xs)
        gy = layout(np.random.default_rng(3).standard_normal(y.shape)) if y.ndim else np.array(1.7)
        old = gy.copy()
        y.backward(gy)
        np.testing.assert_array_equal(gy, old)
        results.append([x.grad for x in xs])
    equal(*results)


@every_op
def test_float32_stays_float32_and_near_float64(entry):
    _, f, *arrays = entry
    singles = [a.astype(np.float32) for a in arrays]
    found = value_and_grads(f, *singles)
    expected = value_and_grads(f, *(a.astype(np.float64) for a in singles))
    # No sum here has more terms than there are inputs; n terms carry n roundings, each of the size of a partial sum.
    n = sum(a.size for a in arrays)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=0, atol=n * EPS32 * max(1, abs(b).max()))


@every_op
def test_plain_arrays_will_do_and_no_graph_is_kept_without_need(entry):
    _, f, *arrays = entry
    y = f(*arrays)
    assert isinstance(y, Tensor) and y.creator is None and not y.requires_grad
    with no_grad():
        z = f(*(Tensor(a, requires_grad=True) for a in arrays))
    assert z.creator is None and not z.requires_grad
    np.testing.assert_array_equal(y.data, z.data)


@every_op
def test_only_the_inputs_that_ask_get_gradients(entry):
    _, f, *arrays = entry
    _, *all_grads = value_and_grads(f, *arrays)
    for i, expected in enumerate(all_grads):
        xs = [Tensor(a, requires_grad=k == i) for k, a in enumerate(arrays)]
        y = f(*xs)
        y.backward(np.asarray(np.random.default_rng([99, *y.shape]).standard_normal(y.shape)))
        equal(xs[i].grad, expected)
        assert all(x.grad is None for k, x in enumerate(xs) if k != i)


@every_op
def test_integers_are_refused(entry):
    name, f, *arrays = entry
    with pytest.raises(TypeError, match="needs floating-point data|mixed precision"):
        f(*(a.astype(np.int64) for a in arrays))


@every_op
def test_both_paths_are_the_same_function(entry):
    _, f, *arrays = entry
    with using(kernels="reference"):
        expected = value_and_grads(f, *arrays)
    equal(value_and_grads(f, *arrays), expected)
