"""Adam with numba: the same bits as the equations in NumPy."""

import numpy as np
import pytest
from arrays import namesake, rand, strided

pytest.importorskip("numba")

from tinyseg import nn, optim, using
from tinyseg.fast.cpu import optim as fast

SHAPES = [(1,), (0, 3), (7, 5), (3, 2, 1, 9), (33, 31, 33), (32768,), (32767,), (4, 8193), (65, 64, 3, 3)]
OPTIMIZERS = [
    ("Adam", {"lr": 0.02}),
    ("Adam", {"lr": 0.02, "betas": (0.5, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.02, "weight_decay": 0.1}),
]
LAYOUTS = [np.ascontiguousarray, strided, np.asfortranarray]


def single(shape, seed):
    return np.asarray(rand(*shape, seed=seed), np.float32).reshape(shape)


def steps(name, options, layout, gradients=3):
    """Train one parameter of each shape for some steps; return all arrays that have changed."""
    parameters = [nn.Parameter(single(shape, 0)) for shape in SHAPES]
    held = [p.data for p in parameters]
    optimizer = getattr(optim, name)(parameters, **options)
    for t in range(gradients):
        for p, shape in zip(parameters, SHAPES, strict=True):
            g = single(shape, t + 1) * np.float32(10.0 ** (-4 * t))
            p.grad = layout(g)
        optimizer.step()
    assert all(p.data is a for p, a in zip(parameters, held, strict=True))  # in place
    return held + optimizer.state["m"] + optimizer.state["v"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "options"), OPTIMIZERS)
def test_the_same_bits_as_the_equations(name, options, layout):
    found = steps(name, options, layout)
    with using(kernels="reference"):
        expected = steps(name, options, layout)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_are_left_as_they_are(layout):
    p = nn.Parameter(single((65, 64, 3, 3), 0))
    p.grad = layout(single((65, 64, 3, 3), 1))
    old = p.grad.copy()
    optim.AdamW([p]).step()
    np.testing.assert_array_equal(p.grad, old)


@pytest.mark.parametrize("size", [5, 40000])
def test_nan_is_seen(size):
    p = nn.Parameter(np.zeros(size, np.float32))
    p.grad = np.ones(size, np.float32)
    p.grad[3] = np.nan
    optim.Adam([p]).step()
    assert np.argwhere(np.isnan(p.data)).tolist() == [[3]]


def test_what_is_taken():
    w, name = single((4, 3, 2), 0), "tinyseg.optim"
    assert namesake(name, w, strided(w), w, w) is fast
    double = w.astype(np.float64)
    for arrays in (
        (double,) * 4,
        (w, double, w, w),
        (strided(w), w, w, w),
        (w, w, strided(w), w),
        (w[None, None],) * 4,
    ):
        assert namesake(name, *arrays) is None
    with using(kernels="reference"):
        assert namesake(name, w, w, w, w) is None
