"""The numba kernels of conv2d in float32 against the maths in float64; Winograd's method has a file of its own."""

import importlib

import numpy as np
import pytest
from arrays import EPS32, WINDOW_CASES, WINDOW_NAMES, layouts, single, strided

from tinyseg import using
from tinyseg.ops import conv2d as op
from tinyseg.ops.window import resolve

fast = pytest.importorskip("tinyseg.fast.cpu.conv2d")
maths = importlib.import_module("tinyseg.ops.conv2d")

windows = pytest.mark.parametrize(WINDOW_NAMES, WINDOW_CASES)

# N, C, K, H, W, kernel, stride, padding
LARGER = [
    (1, 1, 1, 5, 4, (3, 3), 1, "same"),
    (3, 1, 64, 20, 11, (3, 3), 1, "same"),  # the first layer of a network
    (1, 64, 1, 9, 13, (1, 1), 1, 0),
    (3, 5, 16, 7, 70, (3, 3), 1, "same"),  # wider than 64 pixels
    (1, 33, 64, 9, 131, (3, 3), 1, "same"),  # wider than 128 pixels
    (1, 16, 5, 4, 300, (1, 3), 1, "same"),  # one row is longer than a sum of the gradient
    (3, 16, 5, 12, 9, (2, 2), 1, "same"),
    (1, 64, 33, 11, 13, (3, 3), 2, "same"),
    (3, 33, 33, 6, 5, (5, 3), (2, 1), ((2, 0), (1, 3))),
    (1, 33, 16, 40, 33, (3, 3), (3, 2), ((0, 2), (4, 1))),
    (3, 5, 33, 40, 21, (2, 3), (1, 2), "valid"),
    (1, 16, 33, 3, 3, (3, 3), 1, 1),  # smaller than a band
    (3, 33, 5, 1, 1, (3, 3), 1, 1),
    (1, 16, 16, 2, 2, (4, 5), 1, 4),  # most windows see nothing but border
    (1, 400, 70, 4, 5, (3, 3), 1, "same"),  # a tap row longer than a block of weights
    (1, 130, 40, 5, 3, (3, 2), 1, "valid"),  # tap rows in blocks
    (1, 1024, 20, 2, 3, (2, 1), 1, "same"),  # a pixel of 4096 bytes
    (1, 300, 300, 6, 5, (3, 3), 1, "same"),
]
larger = pytest.mark.parametrize("case", LARGER, ids=lambda c: "-".join(map(str, c)).replace(" ", ""))


@pytest.fixture(autouse=True)
def without_winograd():
    with using(winograd=False):
        yield


def calls(N, C, K, H, W, kernel, stride, padding, layout=np.asarray):
    """Name, arguments and length of the sums of each function."""
    stride, pads, out = resolve((N, C, H, W), kernel, stride, padding)
    x, gy, w = layout(single(N, C, H, W)), layout(single(N, K, *out, seed=1)), single(K, C, *kernel, seed=2)
    taps = kernel[0] * kernel[1]
    return (
        ("forward", (x, w, stride, pads, out), C * taps),
        ("grad_x", (gy, w, x.shape, stride, pads), K * taps),
        ("grad_w", (x, gy, w.shape, stride, pads), N * out[0] * out[1]),
    )


def converted(args, f):
    return [f(a.astype(np.float64)) if isinstance(a, np.ndarray) else a for a in args]


def check(name, args, terms):
    """n products with n roundings each at most: n times the sum of their sizes, or √n times for long sums.

    Roundings go up and down; beyond some dozen the sum of n of them stays, but for a chance below 1e-6, within
    4√n times their size (Higham & Mary 2019).
    """
    expected, sizes = (getattr(maths, name)(*converted(args, f)) for f in (np.asarray, abs))
    found = getattr(fast, name)(*args)
    assert found.dtype == np.float32 and found.shape == expected.shape
    bound = min(terms + 1, 4 * terms**0.5) * EPS32 * sizes
    assert (abs(found - expected) <= bound).all(), name


@windows
def test_windows(H, W, kernel, stride, padding, pads, N, C, K):
    for call in calls(N, C, K, H, W, kernel, stride, padding):
        check(*call)


@larger
def test_larger_shapes(case):
    for call in calls(*case):
        check(*call)


@larger
@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bands_shared_by_threads_and_channels_shared_by_threads(case, threads, divided, monkeypatch):
    """Both ways to share, with bands of few rows so that there are several and a last one that is shorter."""
    monkeypatch.setattr(fast, "_rows", lambda OH, OW: max(1, min(3, OH)))
    monkeypatch.setattr(fast, "threads", lambda: threads)
    monkeypatch.setattr(fast, "divide_sums", lambda sums, read: divided)
    for call in calls(*case):
        check(*call)


def test_a_band_has_some_hundred_pixels():
    assert fast._rows(400, 512) == 1
    assert fast._rows(64, 64) == 4
    assert fast._rows(8, 12) == 8


@layouts
@pytest.mark.parametrize("case", [LARGER[3], LARGER[8], LARGER[11]], ids=["wide", "uneven", "small"])
def test_any_layout_gives_the_same_and_comes_back_unchanged(case, layout):
    for (name, args, _), (_, plain, _) in zip(calls(*case, layout), calls(*case), strict=True):
        arrays = [a for a in args if isinstance(a, np.ndarray)]
        before = [(a.base if a.base is not None else a).copy() for a in arrays]
        found = getattr(fast, name)(*args)
        np.testing.assert_array_equal(found, getattr(fast, name)(*plain), err_msg=name)
        for a, old in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(a.base if a.base is not None else a, old, err_msg=name)
            assert not np.shares_memory(found, a)


WEIGHTS = {
    "(C, K)": lambda w: np.ascontiguousarray(w.transpose(1, 0, 2, 3)).transpose(1, 0, 2, 3),
    "turned": lambda w: np.ascontiguousarray(w[:, :, ::-1, ::-1])[:, :, ::-1, ::-1],
    "a part": lambda w: np.concatenate([w, w], axis=1)[:, w.shape[1] :],
    "strided": strided,
    "read only": lambda w: np.frombuffer(w.tobytes(), np.float32).reshape(w.shape),
}


@pytest.mark.parametrize("layout", WEIGHTS.values(), ids=WEIGHTS)
def test_any_layout_of_the_weights(layout):
    for name, args, _ in calls(2, 19, 35, 9, 8, (3, 2), 1, "same")[:2]:
        expected = getattr(fast, name)(*args)
        changed = (args[0], layout(args[1]), *args[2:])
        np.testing.assert_array_equal(changed[1], args[1])
        np.testing.assert_array_equal(getattr(fast, name)(*changed), expected, err_msg=name)


def test_results_lie_with_their_channels_side_by_side():
    for name, args, _ in calls(2, 5, 7, 9, 8, (3, 3), 1, "same")[:2]:
        assert getattr(fast, name)(*args).transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("C", [1, 5, 16, 33])
def test_nan_reaches_the_windows_that_see_it_and_no_other(C):
    x, w = single(2, C, 9, 70), single(17, C, 3, 3, seed=1)
    x[1, C // 2, 4, 66] = np.nan
    stride, pads, out = resolve(x.shape, (3, 3), 1, "same")
    seen = np.isnan(fast.forward(x, w, stride, pads, out))
    assert seen[1, :, 3:6, 65:68].all()
    seen[1, :, 3:6, 65:68] = False
    assert not seen.any()


def test_the_op_is_the_kernel_plus_bias():
    x, w, b = single(2, 5, 9, 8), single(7, 5, 3, 3, seed=1), single(7, seed=2)
    stride, pads, out = resolve(x.shape, (3, 3), 1, "same")
    expected = fast.forward(x, w, stride, pads, out) + b[:, None, None]
    np.testing.assert_array_equal(op(x, w, b, padding="same").data, expected)


def test_supports_float32_only():
    x, w = single(1, 2, 3, 4), single(2, 2, 1, 1)
    assert fast.supports(x, w)
    assert not fast.supports(x.astype(np.float64), w) and not fast.supports(x, w.astype(np.float64))


@pytest.mark.slow
@pytest.mark.parametrize(("C", "K"), [(1024, 1024), (1024, 512), (512, 1024)])
@pytest.mark.parametrize(("H", "W"), [(8, 12), (3, 5)])
def test_many_channels_on_small_images(C, K, H, W):
    for call in calls(1, C, K, H, W, (3, 3), 1, "same"):
        check(*call)
