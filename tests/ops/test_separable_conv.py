"""separable_conv2d against the plain ops that it stands for and PyTorch; its numba kernels against the maths."""

import importlib

import numpy as np
import pytest
from arrays import EPS32, cotangent, equal, equals_torch, rand, strided, value_and_grads

from tinyseg import Tensor, backend, check_grads, ops, using
from tinyseg.ops import separable_conv2d
from tinyseg.ops.window import resolve

maths = importlib.import_module("tinyseg.ops.separable_conv")

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
    ((16,), 5, 2, 3, 4, (2, 3), 1, "same", 3),
    ((4,), 6, 2, 3, 5, (3, 3), 1, "valid", 2),
    ((4,), 3, 1, 3, 2, (5, 4), 1, ((6, 1), (0, 5)), 2),  # more border than kernel
    ((2,), 3, 1, 1, 1, (1, 1), 1, 0, 3),
    ((6,), 5, 2, 4, 3, (3, 2), (2, 1), "same", 2),
    ((5, 4), 6, 2, 4, 3, (2, 2), 1, "same", 2),
    ((16, 32), 48, 1, 3, 5, (3, 3), (1, 2), ((2, 1), (0, 1)), 3),
]
cases = pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c)).replace(" ", ""))
activations = pytest.mark.parametrize("activation", [None, "relu"], ids=["plain", "relu"])
some = pytest.mark.parametrize("case", [CASES[3], CASES[8], CASES[16]], ids=["joined", "upsampled", "both"])


def parts(channels, K, N, H, W, kernel, stride, padding, factor):
    """wd, wp, b, x_0, …, and the cotangent, in float64."""
    C = sum(channels)
    _, _, out = resolve((N, C, H * factor, W * factor), kernel, stride, padding)
    xs = [rand(N, c, H, W, seed=k) for k, c in enumerate(channels)]
    return rand(C, *kernel, seed=6), rand(K, C, seed=7), rand(K, seed=8), *xs, rand(N, K, *out, seed=9)


def fused(case, activation):
    *_, stride, padding, factor = case
    return lambda wd, wp, b, *xs: separable_conv2d(list(xs), wd, wp, b, stride, padding, factor, activation)


def composed(case, activation):
    *_, stride, padding, factor = case

    def f(wd, wp, b, *xs):
        d = ops.depthwise_conv2d(ops.upsample(ops.concat(xs), factor), wd, None, stride, padding)
        y = ops.pointwise_conv2d(d, wp, b)
        return ops.relu(y) if activation else y

    return f


# ----- the maths ---------------------------------------------------------------------------------
@cases
@activations
def test_is_the_composition_of_the_plain_ops(case, activation):
    *arrays, _ = parts(*case)
    with using(kernels="reference"):
        equal(value_and_grads(fused(case, activation), *arrays), value_and_grads(composed(case, activation), *arrays))


@cases
@activations
def test_gradients(case, activation):
    *arrays, _ = parts(*case)
    check_grads(fused(case, activation), *arrays)


@cases
@activations
def test_equals_torch(case, activation):
    *arrays, _ = parts(*case)
    channels, _, N, H, W, kernel, stride, padding, factor = case
    stride, ((top, bottom), (left, right)), _ = resolve((N, 1, H * factor, W * factor), kernel, stride, padding)

    def theirs(torch, wd, wp, b, *xs):
        X = torch.nn.functional.interpolate(torch.cat(xs, dim=1), scale_factor=factor, mode="nearest")
        X = torch.nn.functional.pad(X, (left, right, top, bottom))
        d = torch.nn.functional.conv2d(X, wd[:, None], None, stride, groups=sum(channels))
        y = torch.nn.functional.conv2d(d, wp[:, :, None, None], b)
        return torch.relu(y) if activation else y

    equals_torch(fused(case, activation), theirs, *arrays)


def test_one_input_needs_no_list_and_no_bias_is_a_bias_of_zero(kernels):
    for dtype in (np.float64, np.float32):
        x, wd, wp = (a.astype(dtype) for a in (rand(2, 3, 5, 4), rand(3, 2, 3), rand(4, 3)))
        y = separable_conv2d(x, wd, wp, np.zeros(4, dtype), padding="same").data
        for given in (separable_conv2d(x, wd, wp, padding="same"), separable_conv2d([x], wd, wp, None, 1, "same"),
                      separable_conv2d((Tensor(x),), Tensor(wd), Tensor(wp), padding="same")):  # fmt: skip
            np.testing.assert_array_equal(given.data, y)
    check_grads(lambda *t: separable_conv2d(*t, activation="relu"), rand(2, 3, 5, 4), rand(3, 2, 3), rand(4, 3))


@pytest.mark.parametrize(("dtype", "tol"), [(np.float64, 1e-11), (np.float32, 1e-5)])
def test_one_array_may_be_joined_with_itself(dtype, tol):
    arrays = [a.astype(dtype) for a in (rand(1, 3, 5, 4), rand(6, 3, 3), rand(2, 6))]
    expected = value_and_grads(
        lambda x, wd, wp: ops.pointwise_conv2d(ops.depthwise_conv2d(ops.concat([x, x]), wd), wp), *arrays
    )
    equal(value_and_grads(lambda x, wd, wp: separable_conv2d([x, x], wd, wp), *arrays), expected, tol)


@some
@activations
@pytest.mark.parametrize(("first", "second"), [("fast", "reference"), ("reference", "fast")])
def test_forward_and_backward_may_be_on_different_kernels(case, activation, first, second):
    """Whoever leaves a `using` block in between gets the same gradients."""
    f, arrays = fused(case, activation), [a.astype(np.float32) for a in parts(*case)[:-1]]
    _, *expected = value_and_grads(f, *arrays)
    xs = [Tensor(a, requires_grad=True) for a in arrays]
    with using(kernels=first):
        y = f(*xs)
    with using(kernels=second):
        y.backward(cotangent(y.data))
    for x, g in zip(xs, expected, strict=True):
        np.testing.assert_allclose(x.grad, g, rtol=0, atol=1e-5 * abs(g).max())


FITTING = {"shapes": [(2, 3, 5, 4)], "wd": (3, 2, 2), "wp": (4, 3), "b": None}


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        ({"wd": (3, 1, 2, 2)}, {}, r"takes wd of shape \(C, KH, KW\) and wp of shape \(K, C\), but got \(3, 1, 2, 2\)"),
        ({"wp": (4, 3, 1, 1)}, {}, r"takes wd of shape .* and \(4, 3, 1, 1\)"),
        ({"wp": (4, 2)}, {}, r"takes wd of shape .* but got \(3, 2, 2\) and \(4, 2\)"),
        ({"wd": (2, 2, 2), "wp": (4, 2)}, {}, "separable_conv2d: the weights are for 2 channels, but the input has 3"),
        ({"shapes": [(2, 3, 5, 4)] * 2}, {}, "the weights are for 3 channels, but the input has 6"),
        ({"shapes": [(2, 1, 5, 4), (2, 2, 5, 5)]}, {}, "inputs that are joined may differ only in their channels"),
        ({"shapes": [(2, 1, 5, 4), (1, 2, 5, 4)]}, {}, "inputs that are joined may differ only in their channels"),
        ({"shapes": [(3, 5, 4)]}, {}, r"takes x of shape \(N, C, H, W\), but got \(3, 5, 4\)"),
        ({"b": (3,)}, {}, r"separable_conv2d: b must have shape \(4,\), but has \(3,\)"),
        ({"wd": (3, 6, 2)}, {}, "does not fit"),
        ({}, {"activation": "tanh"}, "separable_conv2d: activation must be None or 'relu', but is 'tanh'"),
        ({}, {"upsample": 0}, "whole number of at least 1, but is 0"),
        ({}, {"upsample": 1.5}, "whole number of at least 1, but is 1.5"),
    ],
)
def test_refuses(change, options, sentence):
    given = FITTING | change
    for dtype in (np.float64, np.float32):
        xs, wd, wp = [rand(*s).astype(dtype) for s in given["shapes"]], rand(*given["wd"]), rand(*given["wp"])
        b = None if given["b"] is None else rand(*given["b"]).astype(dtype)
        with pytest.raises(ValueError, match=sentence):
            separable_conv2d(xs, wd.astype(dtype), wp.astype(dtype), b, **options)


# ----- the numba kernels in float32 ---------------------------------------------------------------
@pytest.fixture
def fast():
    return pytest.importorskip("tinyseg.fast.cpu.separable_conv")


def roundings(n):
    """How much of the sum of their sizes a sum of n products may be off by.

    n roundings at most; beyond some dozen they stay, but for a chance below 1e-6, within 4√n (Higham & Mary 2019).
    """
    return EPS32 * min(n + 1, 4 * n**0.5)


def passes(k, case, relu, y=None, dtype=np.float32, f=np.asarray, layout=np.asarray):
    """[y, gwd, gwp, gb, gx_0, …] of kernels `k`; `f` of all arrays, and the mask of a given `y`."""
    channels, _, N, H, W, kernel, stride, padding, factor = case
    stride, pads, out = resolve((N, sum(channels), H * factor, W * factor), kernel, stride, padding)
    wd, wp, b, *xs, gy = (layout(f(a.astype(np.float32)).astype(dtype)) for a in parts(*case))
    found = k.forward(xs, wd, wp, np.ascontiguousarray(b), stride, pads, out, factor, relu)
    y = found if y is None else y.astype(dtype)
    gwd, gwp, gb, gxs = k.backward(gy, xs, wd, wp, y, stride, pads, factor, relu)
    return [found, gwd, gwp, gb, *gxs]


def compare(fast, case, relu):
    """Each result is two sums, one of the other: the bounds of their roundings add up."""
    channels, K, N, H, W, kernel, stride, padding, factor = case
    found = passes(fast, case, relu)
    expected = passes(maths, case, relu, found[0], np.float64)
    sizes = passes(maths, case, False, found[0], np.float64, abs)
    taps, outputs = kernel[0] * kernel[1], found[0].size // K
    bounds = [
        roundings(taps) + roundings(sum(channels) + 1),  # y: the depthwise sums, then those over channels
        roundings(K) + roundings(outputs),  # wd: the gradient of D, then pixels
        roundings(taps) + roundings(outputs),  # wp: D, then pixels
        roundings(outputs),  # b
        *[roundings(K) + roundings(taps * factor**2)] * len(channels),  # x: the gradient of D, then taps and blocks
    ]
    for i, (a, b, size, bound) in enumerate(zip(found, expected, sizes, bounds, strict=True)):
        assert a.dtype == np.float32 and a.shape == b.shape, f"array {i}"
        assert (abs(a - b) <= bound * size).all(), f"array {i}: {(abs(a - b) / size).max() / bound:.2g} of the bound"


@cases
@activations
def test_numba_in_float32_is_within_the_rounding_of_its_sums(case, activation, fast):
    compare(fast, case, activation == "relu")


LEVELS = [(24, 40), (16, 24), (8, 12), (8, 12), (8, 12)]
SDUNET = [  # channels of the inputs, K, level of the input, kernel, factor
    *[((64,), 128, 1, 3, 1), ((128,), 128, 1, 3, 1), ((128,), 256, 2, 3, 1), ((256,), 256, 2, 3, 1)],
    *[((256,), 512, 3, 3, 1), ((512,), 512, 3, 3, 1), ((512,), 1024, 4, 3, 1), ((1024,), 1024, 4, 3, 1)],
    *[((1024,), 512, 4, 2, 2), ((512, 512), 512, 3, 3, 1), ((512,), 256, 3, 2, 2), ((256, 256), 256, 2, 3, 1)],
    *[((256,), 128, 2, 2, 2), ((128, 128), 128, 1, 3, 1), ((128,), 64, 1, 2, 2), ((64, 64), 64, 0, 3, 1)],
    *[((64,), 64, 0, 3, 1), ((64,), 2, 0, 3, 1)],
]


@pytest.mark.parametrize("layer", SDUNET, ids=str)
@pytest.mark.parametrize("N", [1, 3])
def test_every_layer_of_sdunet(layer, N, fast):
    channels, K, level, kernel, factor = layer
    compare(fast, (channels, K, N, *LEVELS[level], (kernel, kernel), 1, "same", factor), relu=True)


LAYOUTS = {
    "strided": strided,
    "F": np.asfortranarray,
    "pixels": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) if a.ndim == 4 else a,
}


@some
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_any_layout_gives_the_same(case, layout, fast):
    for a, b in zip(passes(fast, case, True, layout=layout), passes(fast, case, True), strict=True):
        np.testing.assert_array_equal(a, b)


@some
@activations
def test_inputs_come_back_unchanged(case, activation, fast):
    given = []

    def keep(a):
        given.append((a, a.copy()))
        return a

    passes(fast, case, activation == "relu", layout=keep)
    for a, old in given:
        np.testing.assert_array_equal(a, old)


@cases
def test_a_nan_pixel_reaches_every_window_that_sees_it(case, fast):
    _, _, N, H, W, *_ = case
    arrays = [a.astype(np.float32) for a in parts(*case)[:-1]]
    arrays[-1][-1, -1, H // 2, W // 2] = np.nan
    for activation in (None, "relu"):
        with using(kernels="reference"):
            expected = np.isnan(fused(case, activation)(*arrays).data)
        assert expected.any()
        np.testing.assert_array_equal(np.isnan(fused(case, activation)(*arrays).data), expected)


def test_three_inputs_take_the_maths(fast):
    case = (2, 16, 3), 5, 2, 6, 5, (3, 3), 1, "same", 2
    *arrays, _ = (a.astype(np.float32) for a in parts(*case))
    assert not fast.supports(*arrays) and fast.supports(*arrays[:-1])
    assert backend.kernels(maths.__name__, *arrays) is maths
    found, expected = (value_and_grads(f(case, "relu"), *arrays) for f in (fused, composed))  # of the same fast halves
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        np.testing.assert_allclose(a, b, rtol=1e-5 if k == 3 else 0)  # only the bias sums gy in another order


def test_supports_float32_only(fast):
    *arrays, _ = (a.astype(np.float32) for a in parts(*CASES[0]))
    assert fast.supports(*arrays)
    for k in range(4):
        assert not fast.supports(*(a.astype(np.float64) if i == k else a for i, a in enumerate(arrays)))
