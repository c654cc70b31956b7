"""What the tests of fused_conv2d and separable_conv2d share: both ops, the cases, and bounds of rounding."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
from arrays import rand, roundings

from tinyseg import ops
from tinyseg.ops.window import resolve

# channels of the inputs, K, N, H, W, kernel, stride, padding, factor of upsampling
CASES = [
    ((5,), 7, 2, 9, 8, (3, 3), 1, "same", 1),
    ((16,), 33, 1, 7, 70, (3, 3), 1, "same", 1),
    ((33,), 16, 1, 40, 131, (3, 3), 1, "same", 1),
    ((5, 12), 16, 2, 6, 9, (3, 3), 1, "same", 1),
    ((16, 1), 20, 1, 9, 11, (3, 3), 2, ((1, 0), (2, 1)), 1),
    ((33, 16), 5, 3, 5, 4, (2, 2), (2, 1), "same", 1),
    ((1, 2), 1, 1, 4, 5, (1, 1), 1, 0, 1),
    ((7,), 9, 2, 5, 6, (2, 2), 1, "same", 2),
    ((16,), 32, 1, 6, 7, (3, 3), 1, "same", 2),
    ((3,), 17, 2, 4, 5, (2, 3), 1, "same", 2),
    ((5,), 16, 1, 5, 3, (2, 2), 1, "same", 3),
    ((17,), 8, 1, 4, 6, (3, 3), 1, "same", 3),
    ((16,), 5, 2, 3, 4, (2, 3), 1, "same", 3),
    ((4,), 6, 2, 3, 5, (3, 3), 1, "valid", 2),
    ((4,), 3, 1, 3, 2, (5, 4), 1, ((6, 1), (0, 5)), 2),  # more border than kernel
    ((2,), 3, 1, 1, 1, (1, 1), 1, 0, 3),
    ((6,), 5, 2, 4, 3, (3, 2), (2, 1), "same", 2),
    ((5, 4), 6, 2, 4, 3, (2, 2), 1, "same", 2),
    ((16, 32), 48, 1, 3, 5, (3, 3), (1, 2), ((2, 1), (0, 1)), 3),
]
LEVELS = [(24, 40), (16, 24), (8, 12), (8, 12), (8, 12)]  # H, W at each level of a network
cases = pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c)).replace(" ", ""))
some = pytest.mark.parametrize("case", [CASES[3], CASES[8], CASES[17]], ids=["joined", "upsampled", "both"])
activations = pytest.mark.parametrize("activation", [None, "relu"], ids=["plain", "relu"])


def fused_bounds(C, K, taps, outputs, blocks):
    """Bounds of y, gw, gb and gx."""
    return [roundings(C * taps + 1), roundings(outputs), roundings(outputs), roundings(K * taps * blocks)]


def separable_bounds(C, K, taps, outputs, blocks):
    """Bounds of y, gwd, gwp, gb and gx. Most are two sums, one of the other: the bounds of their roundings add up."""
    return [
        roundings(taps) + roundings(C + 1),  # y: the depthwise sums, then those over channels
        roundings(K) + roundings(outputs),  # wd: the gradient of d, then pixels
        roundings(taps) + roundings(outputs),  # wp: d, then pixels
        roundings(outputs),  # b
        roundings(K) + roundings(taps * blocks),  # x: the gradient of d, then taps and blocks
    ]


def separable_plain(X, wd, wp, b, stride, padding):
    return ops.pointwise_conv2d(ops.depthwise_conv2d(X, wd, None, stride, padding), wp, b)


def separable_torch(F, X, wd, wp, b, stride):
    return F.conv2d(F.conv2d(X, wd[:, None], None, stride, groups=len(wd)), wp[:, :, None, None], b)


FUSED = SimpleNamespace(
    name="fused_conv",
    call=ops.fused_conv2d,
    plain=ops.conv2d,
    torch=lambda F, X, w, b, stride: F.conv2d(X, w, b, stride),
    weights=lambda C, K, kernel: [rand(K, C, *kernel, seed=7)],
    backward_options=(True,),  # needs_x
    bounds=fused_bounds,
)
SEPARABLE = SimpleNamespace(
    name="separable_conv",
    call=ops.separable_conv2d,
    plain=separable_plain,
    torch=separable_torch,
    weights=lambda C, K, kernel: [rand(C, *kernel, seed=6), rand(K, C, seed=7)],
    backward_options=(),
    bounds=separable_bounds,
)


def maths(op):
    return importlib.import_module(f"tinyseg.ops.{op.name}")


def fast(op):
    return pytest.importorskip(f"tinyseg.fast.cpu.{op.name}")


def numbers(case):
    """Stride, pads and out of a case."""
    channels, _, N, H, W, kernel, stride, padding, factor = case
    return resolve((N, sum(channels), H * factor, W * factor), kernel, stride, padding)


def parts(op, case, dtype=np.float64):
    """The weights, b, x_0, …, and the cotangent."""
    channels, K, N, H, W, kernel, *_ = case
    xs = [rand(N, C, H, W, seed=k) for k, C in enumerate(channels)]
    gy = rand(N, K, *numbers(case)[2], seed=9)
    return [a.astype(dtype) for a in (*op.weights(sum(channels), K, kernel), rand(K, seed=8), *xs, gy)]


def joined(op, case, activation):
    """The op as a function of the weights, b, x_0, …"""
    channels, *_, stride, padding, factor = case

    def f(*arrays):
        n = len(arrays) - len(channels)
        return op.call(list(arrays[n:]), *arrays[:n], stride, padding, factor, activation)

    return f


def composed(op, case, activation):
    """The same function of the plain ops."""
    channels, *_, stride, padding, factor = case

    def f(*arrays):
        n = len(arrays) - len(channels)
        y = op.plain(ops.upsample(ops.concat(arrays[n:]), factor), *arrays[:n], stride, padding)
        return ops.relu(y) if activation else y

    return f


def passes(op, k, case, relu, y=None, dtype=np.float32, f=np.asarray, layout=np.asarray):
    """[y, gw …, gb, gx_0, …] of kernels `k`; `f` of all arrays, and the mask of a given `y`."""
    channels, *_, factor = case
    stride, pads, out = numbers(case)
    *weights, gy = (layout(f(a).astype(dtype)) for a in parts(op, case, np.float32))
    xs = [weights.pop() for _ in channels][::-1]
    b = np.ascontiguousarray(weights.pop())
    found = k.forward(xs, *weights, b, stride, pads, out, factor, relu)
    y = found if y is None else y.astype(dtype)
    *gws, gxs = k.backward(gy, xs, *weights, y, *op.backward_options, stride, pads, factor, relu)
    return [found, *gws, *gxs]


def compare(op, case, relu, tolerance=None):
    """Within the roundings of the sums, or within `tolerance` of the largest element of each result."""
    channels, K, *_, kernel, _, _, factor = case
    found = passes(op, fast(op), case, relu)
    expected = passes(op, maths(op), case, relu, found[0], np.float64)
    sizes = expected if tolerance else passes(op, maths(op), case, False, found[0], np.float64, abs)
    *bounds, of_x = op.bounds(sum(channels), K, kernel[0] * kernel[1], found[0].size // K, factor**2)
    bounds += [of_x] * len(channels)
    for i, (a, b, size, bound) in enumerate(zip(found, expected, sizes, bounds, strict=True)):
        assert a.dtype == np.float32 and a.shape == b.shape, f"array {i}"
        limit = bound * size if tolerance is None else tolerance * abs(b).max()
        assert (abs(a - b) <= limit).all(), f"array {i}: {(abs(a - b) / limit).max():.2g} times the bound"
