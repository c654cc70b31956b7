"""Ops that run a few channels at a time give what they give at once."""

import importlib
import threading

import numpy as np
import pytest
from arrays import rand

from tinyseg import ops, using
from tinyseg.fast.cpu import by_channels as blocks
from tinyseg.fast.cpu.by_channels import by_channels, in_blocks

conv2d = importlib.import_module("tinyseg.ops.conv2d")
depthwise = importlib.import_module("tinyseg.ops.depthwise_conv")
pool = importlib.import_module("tinyseg.ops.pool")
upsample = importlib.import_module("tinyseg.ops.upsample")

STRIDE, PADS, KERNEL, OUT = (2, 1), ((1, 2), (0, 1)), (3, 2), (5, 6)
X, W, GY = rand(2, 7, 9, 6), rand(7, *KERNEL), rand(2, 7, *OUT)
WINNER = pool.max_forward(X, KERNEL, STRIDE, ((1, 1), (0, 1)), (5, 6))[1]
FORWARD = pool.avg_forward
CASES = {
    "depthwise": (depthwise, "forward", (X, W, STRIDE, PADS, OUT)),
    "depthwise grad_w": (depthwise, "grad_w", (X, GY, W.shape, STRIDE, PADS)),
    "depthwise grad_x": (depthwise, "grad_x", (GY, W, X.shape, STRIDE, PADS)),
    "dilated": (depthwise, "forward", (X, W, STRIDE, PADS, (4, 4), (2, 3))),
    "dilated grad_w": (depthwise, "grad_w", (X, GY[:, :, :4, :4], W.shape, STRIDE, PADS, (2, 3))),
    "dilated grad_x": (depthwise, "grad_x", (GY[:, :, :4, :4], W, X.shape, STRIDE, PADS, (2, 3))),
    "max pool": (pool, "max_forward", (X, KERNEL, STRIDE, ((1, 1), (0, 1)), (5, 6))),
    "max pool grad_x": (pool, "max_grad_x", (GY, WINNER, X.shape, KERNEL, STRIDE, ((1, 1), (0, 1)))),
    "average pool": (pool, "avg_forward", (X, KERNEL, STRIDE, PADS, OUT)),
    "average pool grad_x": (pool, "avg_grad_x", (GY, X.shape, KERNEL, STRIDE, PADS)),
    "upsample": (upsample, "nearest_forward", (X, (2, 3))),
    "upsample grad_x": (upsample, "nearest_grad_x", (X, (3, 2))),
}


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("name", CASES)
def test_blocks_give_the_same(name, channels, monkeypatch):
    maths, function_name, args = CASES[name]
    function = getattr(maths, function_name)
    expected = function(*args)
    largest = max(a.size for a in args if isinstance(a, np.ndarray))
    monkeypatch.setattr(blocks, "BLOCK", channels * largest // 7)
    calls = []
    counted = by_channels(lambda *a: (calls.append(max(a, key=np.size).shape[1]), function(*a))[1])
    for mine in (counted(*args), getattr(in_blocks(maths), function_name)(*args)):
        for a, b in zip(as_list(mine), as_list(expected), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=0, atol=0 if a.dtype.kind == "u" else 1e-13)
    assert sorted(calls) == sorted([channels] * (7 // channels) + [7 % channels] * (7 % channels > 0))


def test_every_function_that_a_maths_file_declares_is_a_case():
    declared = {(m, name) for m in (depthwise, pool, upsample) for name in m.BY_CHANNEL}
    assert {(m, name) for m, name, _ in CASES.values()} == declared


def test_the_dispatcher_hands_a_few_channels_at_a_time_to_the_maths(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 1)
    seen = []
    monkeypatch.setattr(pool, "avg_forward", lambda x, *args: (seen.append(x.shape[1]), FORWARD(x, *args))[1])
    ops.avg_pool2d(X, 2)  # float64, for which there is no numba kernel
    assert seen == [1] * 7
    seen.clear()
    with using(kernels="reference"):
        ops.avg_pool2d(X, 2)
    assert seen == [7]


def as_list(result):
    return list(result) if isinstance(result, tuple) else [result]


def test_small_arrays_and_no_channels_go_through_at_once():
    seen = []
    function = by_channels(lambda x: (seen.append(x), x + 1)[1])
    for shape in ((2, 5, 3, 4), (1, 0, 3, 4), (0, 5, 3, 4)):
        x = np.zeros(shape, np.float32)
        assert function(x).shape == shape
        assert seen.pop() is x and not seen


def test_an_error_in_any_block_is_the_callers(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 1)

    @by_channels
    def fails_late(x):
        if x[0, 0, 0, 0] == 6:
            raise ValueError("the seventh channel")
        return x

    with pytest.raises(ValueError, match="the seventh channel"):
        fails_late(np.arange(7, dtype=np.float32).reshape(1, 7, 1, 1))


def test_blocks_are_shared_among_threads(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 1)
    names = set()
    function = by_channels(lambda x: (names.add(threading.current_thread().name), x)[1])
    function(np.ones((1, 50, 2, 2), np.float32))
    assert any(name.startswith("tinyseg-channels") for name in names)


@pytest.mark.parametrize("strip", [1, 200, 10_000])
def test_strips_of_the_dense_convolution(strip, monkeypatch):
    x, w, gy = rand(2, 5, 9, 6), rand(4, 5, *KERNEL), rand(2, 4, *OUT)
    whole = conv2d.forward(x, w, STRIDE, PADS, OUT), conv2d.grad_w(x, gy, w.shape, STRIDE, PADS)
    whole += (conv2d.grad_x(gy, w, x.shape, STRIDE, PADS),)
    monkeypatch.setattr(conv2d, "STRIP", strip)
    rows = [ys.shape[1] for _, ys in conv2d.strips(conv2d.pad2d(x, PADS), gy, KERNEL, STRIDE)]
    assert sum(rows) == 2 * OUT[0] and max(rows) == {1: 1, 200: 1, 10_000: 5}[strip]
    np.testing.assert_allclose(conv2d.forward(x, w, STRIDE, PADS, OUT), whole[0], atol=1e-12)
    np.testing.assert_allclose(conv2d.grad_w(x, gy, w.shape, STRIDE, PADS), whole[1], atol=1e-12)
    np.testing.assert_allclose(conv2d.grad_x(gy, w, x.shape, STRIDE, PADS), whole[2], atol=1e-12)
