"""The CUDA kernels of the convolutions against the maths files, on a stand-in for the GPU or a real one."""

import numpy as np
import pytest
from arrays import EPS32, HALF_TINY, HALF_ULP, WINDOW_CASES, doubles, rand, value_and_grads
from stand_in import both, chosen, layouts, or_maths, reals, within

from tinyseg import Tensor, ops, using
from tinyseg.fast.gpu import launch as cuda
from tinyseg.ops.window import resolve


def roundings(n):
    """How much of the sum of their sizes a sum of n products may be off by, whatever the order: n roundings."""
    return EPS32 * (n + 1)


def single(*shape, seed=0):
    return rand(*shape, seed=seed).astype(np.float32)


def absolute(args):
    return [abs(a) if isinstance(a, np.ndarray) else a for a in args]


def compare(cp, fast, maths, name, args, terms, layout, real=np.float32, halves=0):
    """A function of arrays of both files: one array, of sums of `terms` products.

    In float16 the terms may have been rounded `halves` times before; gradients of weights, in float32, have not.
    """
    on_device = [layout(cp, a) if isinstance(a, np.ndarray) else a for a in args]
    found = getattr(fast, name)(*on_device)
    expected, size = (getattr(maths, name)(*a) for a in (doubles(*args), absolute(doubles(*args))))
    if real == np.float32 or name == "grad_w":
        within(cp, found, expected, roundings(terms) * size)
    else:
        within(cp, found, expected, (roundings(terms) + halves * HALF_ULP) * size + halves * terms * HALF_TINY, real)
    for a, old in zip(on_device, args, strict=True):
        if isinstance(old, np.ndarray):
            np.testing.assert_array_equal(cp.asnumpy(a), old, err_msg=f"{name} changed an input")


# ----- depthwise and standard convolutions --------------------------------------------
MORE = [  # H, W, kernel, stride, padding: strips of 8 rows that end anywhere, every border, more blocks than one
    (9, 5, (3, 3), 1, ((2, 1), (0, 3))),
    (16, 21, (3, 3), 1, "same"),
    (11, 7, (2, 2), 1, "same"),
    (8, 6, (2, 2), 1, ((1, 0), (2, 3))),
    (17, 3, (2, 2), 1, "valid"),
    (4, 5, (3, 3), 1, ((4, 3), (5, 4))),  # more border than kernel
    (19, 18, (3, 3), (2, 1), "same"),
]
sizes = pytest.mark.parametrize(("N", "C", "K"), [(3, 1, 2), (1, 4, 3)], ids=str)


def windows():
    cases = [case.values[:5] for case in WINDOW_CASES] + MORE
    return pytest.mark.parametrize(("H", "W", "kernel", "stride", "padding"), cases, ids=str)


@windows()
@sizes
@reals
def test_depthwise_conv(H, W, kernel, stride, padding, N, C, K, real, stand_in):
    stride, pads, out = resolve((N, C, H, W), kernel, stride, padding)
    x, w, gy = single(N, C, H, W).astype(real), single(C, *kernel, seed=1), single(N, C, *out, seed=2).astype(real)
    taps = kernel[0] * kernel[1]
    maths, fast = both("depthwise_conv")
    for name, args, terms in (
        ("forward", (x, w, stride, pads, out), taps),
        ("grad_x", (gy, w, x.shape, stride, pads), taps),
        ("grad_w", (x, gy, w.shape, stride, pads), N * out[0] * out[1]),
    ):
        compare(stand_in, fast, maths, name, args, terms, lambda cp, a: cp.asarray(a), real)


@windows()
@sizes
@pytest.mark.parametrize("tile", [32, 1 << 20], ids=["tiles", "whole"])
@reals
def test_conv2d(H, W, kernel, stride, padding, N, C, K, tile, real, stand_in, monkeypatch):
    """In float16 weights and columns are rounded too, and the sum of gx once a tile, at most once a window."""
    stride, pads, out = resolve((N, C, H, W), kernel, stride, padding)
    x, w, gy = single(N, C, H, W).astype(real), single(K, C, *kernel, seed=1), single(N, K, *out, seed=2).astype(real)
    taps = kernel[0] * kernel[1]
    maths, fast = both("conv2d")
    monkeypatch.setattr(fast, "WORKSPACE", 4 * C * taps * tile)
    for name, args, terms in (
        ("forward", (x, w, stride, pads, out), taps * C),
        ("grad_x", (gy, w, x.shape, stride, pads), taps * K),
        ("grad_w", (x, gy, w.shape, stride, pads), N * out[0] * out[1]),
    ):
        halves = 2 + (taps if tile == 32 else 0)
        compare(stand_in, fast, maths, name, args, terms, lambda cp, a: cp.asarray(a), real, halves)


@pytest.mark.parametrize(
    ("op", "w"), [("depthwise_conv", (5, 3, 3)), ("conv2d", (4, 5, 3, 3)), ("pointwise_conv", (4, 5))]
)
@layouts
@pytest.mark.parametrize("N", [1, 3])
@reals
def test_any_layout(op, w, layout, N, real, stand_in):
    maths, fast = both(op)
    if op == "pointwise_conv" and real == np.float32:  # forward and grad_x decline
        fast = or_maths(op)
    x, w, gy = single(N, 5, 9, 7), single(*w, seed=1), single(N, 5 if len(w) == 3 else 4, 9, 7, seed=2)
    x, gy = x.astype(real), gy.astype(real)
    where = () if op == "pointwise_conv" else ((1, 1), ((1, 1), (1, 1)))
    calls = {
        "forward": ((x, w), ((9, 7),) if where else ()),
        "grad_x": ((gy, w, x.shape) if where else (gy, w), ()),
        "grad_w": ((x, gy, w.shape) if where else (x, gy), ()),
    }
    for name, (start, end) in calls.items():
        compare(stand_in, fast, maths, name, (*start, *where, *end), 9 * 7 * N, layout, real, halves=2)


# ----- through the ops -------------------------------------------------------------------
CALLS = {
    "depthwise": (lambda x, w, b: ops.depthwise_conv2d(x, w, b, 1, "same"), (2, 3, 7, 5), (3, 3, 3), 3),
    "depthwise-larger": (lambda x, w, b: ops.depthwise_conv2d(x, w, b, 1, 4), (2, 3, 4, 5), (3, 2, 3), 3),
    "depthwise-dilated": (lambda x, w, b: ops.depthwise_conv2d(x, w, b, 1, "same", 2), (2, 3, 7, 6), (3, 3, 3), 3),
    "depthwise-smaller": (lambda x, w, b: ops.depthwise_conv2d(x, w, b, 2), (2, 3, 9, 5), (3, 3, 3), 3),
    "pointwise": (ops.pointwise_conv2d, (3, 4, 5, 2), (6, 4), 6),
    "conv2d": (lambda x, w, b: ops.conv2d(x, w, b, (1, 2), "same"), (2, 4, 5, 6), (5, 4, 2, 3), 5),
    "conv2d-larger": (lambda x, w, b: ops.conv2d(x, w, b, 1, 2), (2, 2, 5, 6), (6, 2, 3, 3), 6),
    "conv2d-smaller": (lambda x, w, b: ops.conv2d(x, w, b, 2), (2, 3, 9, 7), (2, 3, 3, 3), 2),
    "transposed": (lambda x, w, b: ops.conv_transpose2d(x, w, b, 2, 1), (2, 4, 5, 3), (4, 2, 3, 4), 2),
}


@pytest.mark.parametrize("limit", [2**31, 400, 200, 100])
@pytest.mark.parametrize("name", CALLS)
def test_through_the_op(name, limit, stand_in, monkeypatch):
    """With room for all arrays, or a limit below which some are and others not."""
    monkeypatch.setattr(cuda, "LIMIT", limit)
    monkeypatch.setattr("tinyseg.fast.gpu.conv2d.ALIGNED", 1)
    monkeypatch.setattr("tinyseg.fast.gpu.conv2d.WORKSPACE", min(1 << 20, 4 * limit - 4))
    f, x, w, bias = CALLS[name]
    x, w, b = (stand_in.asarray(single(*shape)) for shape in (x, w, (bias,)))
    op = {"depthwise": "depthwise_conv", "pointwise": "pointwise_conv"}.get(name.split("-")[0], "conv2d")
    maths, fast = both(op)
    assert chosen(maths.__name__, x, w) is (fast if x.size < limit else maths)
    assert chosen(maths.__name__, x, w.astype(np.float64)) is maths
    found = value_and_grads(f, x, w, b)
    with using(kernels="reference"):
        expected = value_and_grads(f, x, w, b)
    for a, e in zip(found, expected, strict=True):
        a, e = stand_in.asnumpy(a), stand_in.asnumpy(e)
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-5 * abs(e).max())


EMPTY = {
    "conv2d": (lambda x, w, b: ops.conv2d(x, w, b, 1, "same"), (4, 3, 3, 3)),
    "fused": (lambda x, w, b: ops.fused_conv2d([x], w, b, 1, "same", 2, "relu"), (4, 3, 3, 3)),
    "depthwise": (lambda x, w, b: ops.depthwise_conv2d(x, w, b[:3], 1, "same"), (3, 3, 3)),
    "pointwise": (ops.pointwise_conv2d, (4, 3)),
}


@pytest.mark.parametrize("name", EMPTY)
def test_no_images_give_no_images(name, stand_in):
    call, shape = EMPTY[name]
    x, w, b = (stand_in.asarray(a) for a in (single(0, 3, 6, 4), single(*shape, seed=1), single(4, seed=2)))
    x, w = Tensor(x, requires_grad=True), Tensor(w, requires_grad=True)
    y = call(x, w, b)
    assert y.shape[0] == 0
    y.backward(stand_in.zeros(y.shape, "float32"))
    assert x.grad.shape == x.shape and not stand_in.asnumpy(w.grad).any()
