"""What the tests of the ops share: uneven arrays, and one forward and backward pass as a list of arrays."""

import math
from unittest import mock

import numpy as np
import pytest

from tinyseg import Tensor, using
from tinyseg.backend import device_of, kernels, to_device

EPS32 = float(np.finfo(np.float32).eps)
HALF_ULP = 2.0**-11  # rounding to float16 changes a number by at most this part of it
HALF_TINY = 2.0**-25  # or by this, below 6e-5

# H, W, kernel, stride, padding; then what that padding means, worked out by hand: ((top, bottom), (left, right)).
WINDOWS = [
    (7, 5, (3, 3), 1, 1, ((1, 1), (1, 1))),
    (8, 9, (3, 1), 2, "valid", ((0, 0), (0, 0))),
    (6, 9, (2, 4), 1, "same", ((0, 1), (1, 2))),  # even kernels: the odd row and column at the bottom and right
    (7, 10, (3, 2), (2, 3), "same", ((1, 1), (0, 1))),
    (9, 11, (2, 3), (4, 5), 0, ((0, 0), (0, 0))),  # steps over pixels that no window sees
    (5, 6, (5, 6), 1, 0, ((0, 0), (0, 0))),  # one window
    (4, 3, (1, 1), 1, "same", ((0, 0), (0, 0))),
    (6, 7, (3, 3), 2, (0, 1), ((0, 0), (1, 1))),
    (1, 8, (1, 3), (1, 2), "same", ((0, 0), (0, 1))),
    (5, 4, (3, 2), (1, 2), ((2, 0), (1, 3)), ((2, 0), (1, 3))),
    (2, 3, (4, 5), 1, ((1, 2), (3, 0)), ((1, 2), (3, 0))),  # a kernel larger than the image
]
SIZES = [(2, 3, 4), (1, 2, 5), (3, 1, 2), (2, 4, 1)]  # N, C, K
WINDOW_CASES = [
    pytest.param(*window, *SIZES[i % len(SIZES)], id=f"{window[0]}x{window[1]}-{window[2]}-{window[3]}-{window[4]}")
    for i, window in enumerate(WINDOWS)
]
WINDOW_NAMES = "H, W, kernel, stride, padding, pads, N, C, K"


def rand(*shape, seed=0):
    """Standard-normal float64 numbers."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def single(*shape, seed=0):
    """Standard-normal float32 numbers."""
    return rand(*shape, seed=seed).astype(np.float32)


def spaced(*shape, seed=0, gap=0.25):
    """Shuffled float64 numbers, each `gap` from the next and `gap` / 2 from 0: far from every kink."""
    n = math.prod(shape)
    return ((np.random.default_rng([seed, *shape]).permutation(n) - n // 2 + 0.5) * gap).reshape(shape)


def strided(a):
    """The same numbers in a view that is contiguous in no order, with NaN in between."""
    big = np.full([2 * n for n in reversed(a.shape)], np.nan, a.dtype)
    view = big.T[tuple(slice(None, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def pixels(a):
    """The same numbers with the channels of a pixel side by side in memory, as the fast kernels keep images."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) if a.ndim > 1 else a


LAYOUTS = {  # the same numbers in another order in memory
    "planes": lambda a: np.ascontiguousarray(a).reshape(a.shape),
    "pixels": pixels,
    "strided": lambda a: strided(a) if a.ndim else a,
}
layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def doubles(*xs):
    """The arguments, with float64 instead of float32 and float16, for the maths file."""
    return [a.astype(np.float64) if getattr(a, "dtype", None) in (np.float32, np.float16) else a for a in xs]


def roundings(n):
    """How much of the sum of their sizes a float32 sum of n products may be off by.

    At most n + 1 roundings; for large n at most those of 4√n, with a chance of error below 1e-6 (Higham & Mary 2019).
    """
    return EPS32 * min(n + 1, 4 * n**0.5)


def both_axes(n):
    """An option given as one number for both axes, or as a pair, as a pair."""
    return (n, n) if isinstance(n, int) else n


def within(found, expected, bound):
    """Assert that a float32 result is no farther than `bound` from `expected`."""
    found = np.asarray(found)
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert (abs(found - expected) <= bound).all(), (abs(found - expected) / bound).max()


def same_with_any_number_of_threads(f):
    """Assert that f(), a list of arrays, has the same bits for any number of threads that the kernels work for."""
    numba = pytest.importorskip("numba")
    expected = None
    for number in (1, 2, 3, 5, 16):
        with mock.patch.object(numba, "get_num_threads", lambda number=number: number):
            found = [np.array(a) for a in f()]
        expected = expected or found
        for a, b in zip(expected, found, strict=True):
            assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), number


def cotangent(y, seed=99):
    """A random array like `y`: its shape, dtype and device."""
    return to_device(np.asarray(rand(*y.shape, seed=seed), y.dtype), device_of(y))


def value_and_grads(f, *arrays):
    """``[y, gx_0, gx_1, …]`` of one forward and one backward pass with a random cotangent."""
    xs = [Tensor(a, requires_grad=True) for a in arrays]
    y = f(*xs)
    y.backward(cotangent(y.data))
    return [y.data, *(x.grad for x in xs)]


def gradients_across(f, arrays, first, second):
    """The gradients of a forward pass with kernels `first` and a backward pass with kernels `second`."""
    xs = [Tensor(a, requires_grad=True) for a in arrays]
    with using(kernels=first):
        y = f(*xs)
    with using(kernels=second):
        y.backward(cotangent(y.data))
    return [x.grad for x in xs]


def namesake(op, *arrays):
    """The fast module that computes `op` for these arrays; None where its maths file does."""
    return getattr(kernels(op, *arrays), "namesake", None)


def equal(found, expected, tol=1e-11):
    """Assert that arrays (or lists of arrays) agree to a float64 rounding, in shape and value."""
    found, expected = (a if isinstance(a, list) else [a] for a in (found, expected))
    assert len(found) == len(expected)
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.shape == b.shape, f"array {k}"
        np.testing.assert_allclose(a, b, rtol=tol, atol=tol, err_msg=f"array {k}")


def equals_torch(ours, theirs, *arrays):
    """Compare value and gradients of two functions, ours of Tensors and theirs of torch tensors, in float64."""
    torch = pytest.importorskip("torch")
    xs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = theirs(torch, *xs)
    y.backward(torch.tensor(cotangent(y.detach().numpy())))
    equal(value_and_grads(ours, *arrays), [y.detach().numpy(), *(x.grad.numpy() for x in xs)])
