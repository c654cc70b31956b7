"""Weight standardization with numba: computed in float64, so that only inputs and results carry float32's rounding."""

import numpy as np
import pytest
from arrays import EPS32, namesake, rand, strided

pytest.importorskip("numba")

from tinyseg.fast.cpu import weight_standardization as fast
from tinyseg.ops.weight_standardization import forward, grad_v

cases = pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray, strided])
shapes = pytest.mark.parametrize(
    "shape", [(4, 3, 2), (33, 5), (3, 16, 1, 4), (1, 3, 3), (64, 7, 5), (7, 1, 1), (40, 90, 3, 3)]
)
readings = pytest.mark.parametrize("first", [0, 1], ids=["layer", "filter"])
LEVEL = 1 + 2.0**-20  # of the float64 sums and of the last rounding of ε


def near(found, expected, size):
    """Assert that each number is `expected`, rounded once, but for `size` roundings of float64."""
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert (abs(found - expected) <= EPS32 / 2 * LEVEL * abs(expected) + size * np.finfo(np.float64).eps).all()


@cases
@shapes
@readings
@pytest.mark.parametrize("shift", [0, 100])
def test_forward(layout, shape, first, shift):
    v = layout((shift + rand(*shape)).astype(np.float32))
    old, args = v.copy(), (tuple(range(first, v.ndim)), 1e-5, 0.3)
    w, std = forward(v.astype(np.float64), *args)
    found_w, found_std = fast.forward(v, *args)
    # Differences from the mean, off by roundings of the values; then divided by σ + ε, at least ε.
    size = v.size * abs(v).max()
    near(found_std, std, size)
    near(found_w, w, size * 0.3 / (std.min() + 1e-5))
    np.testing.assert_array_equal(v, old)


@cases
@shapes
@readings
@pytest.mark.parametrize("spread", [1, 1e-4])
def test_gradient(layout, shape, first, spread):
    args = (tuple(range(first, len(shape))), 1e-5, 0.3)
    w, std = forward((spread * rand(*shape)).astype(np.float32), *args)
    gw, w = layout(rand(*shape, seed=1).astype(np.float32)), layout(w)
    old = gw.copy(), w.copy()
    expected = grad_v(gw.astype(np.float64), w.astype(np.float64), std.astype(np.float64), *args)
    size = w.size * abs(gw).max() * (1 + abs(w).max() ** 2) / (std.min() + 1e-5)
    near(fast.grad_v(gw, w, std, *args), expected, size)
    np.testing.assert_array_equal(gw, old[0])
    np.testing.assert_array_equal(w, old[1])


@readings
def test_of_equal_weights_nothing_is_left(first):
    v = np.full((3, 5, 2), 0.1, np.float32)  # no binary fraction
    axes = tuple(range(first, 3))
    w, std = fast.forward(v, axes, 1e-5, 1.0)
    assert not w.any() and not std.any()
    gw = rand(3, 5, 2).astype(np.float32)
    near(
        fast.grad_v(gw, w, std, axes, 1e-5, 1.0),
        (gw - gw.mean(axes, dtype=np.float64, keepdims=True)) / 1e-5,
        gw.size / 1e-5,
    )


@readings
def test_nan_is_seen(first):
    v = rand(4, 3, 2).astype(np.float32)
    v[2, 1, 0] = np.nan
    w, std = fast.forward(v, tuple(range(first, 3)), 1e-5, 1.0)
    assert np.isnan(w).reshape(4, -1).all(axis=1).tolist() == ([False, False, True, False] if first else [True] * 4)
    assert np.isnan(std).any()


def test_only_float32_is_taken():
    v = rand(4, 3, 2)
    assert namesake("tinyseg.ops.weight_standardization", v.astype(np.float32)) is fast
    assert namesake("tinyseg.ops.weight_standardization", v) is None
