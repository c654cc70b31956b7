"""fused_conv2d against the plain ops that it stands for and PyTorch; its numba kernels against the maths."""

import importlib

import numpy as np
import pytest
from arrays import EPS32, cotangent, equal, equals_torch, rand, strided, value_and_grads

from tinyseg import Tensor, backend, check_grads, ops, using
from tinyseg.ops import fused_conv2d
from tinyseg.ops.window import resolve

maths = importlib.import_module("tinyseg.ops.fused_conv")

# channels of the inputs, K, N, H, W, kernel, stride, padding, factor of upsampling
CASES = [
    ((5,), 7, 2, 9, 8, (3, 3), 1, "same", 1),
    ((16,), 33, 1, 7, 70, (3, 3), 1, "same", 1),
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
    ((16, 16), 16, 1, 3, 5, (3, 3), (1, 2), ((2, 1), (0, 1)), 3),
]
cases = pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c)).replace(" ", ""))
some = pytest.mark.parametrize("case", [CASES[2], CASES[7], CASES[16]], ids=["joined", "upsampled", "both"])
activations = pytest.mark.parametrize("activation", [None, "relu"], ids=["plain", "relu"])


def parts(channels, K, N, H, W, kernel, stride, padding, factor):
    """w, b, x_0, …, and the cotangent, in float64."""
    _, _, out = resolve((N, sum(channels), H * factor, W * factor), kernel, stride, padding)
    xs = [rand(N, C, H, W, seed=k) for k, C in enumerate(channels)]
    return rand(K, sum(channels), *kernel, seed=7), rand(K, seed=8), *xs, rand(N, K, *out, seed=9)


def fused(case, activation):
    *_, stride, padding, factor = case
    return lambda w, b, *xs: fused_conv2d(list(xs), w, b, stride, padding, factor, activation)


def composed(case, activation):
    *_, stride, padding, factor = case

    def f(w, b, *xs):
        y = ops.conv2d(ops.upsample(ops.concat(xs), factor), w, b, stride, padding)
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

    def theirs(torch, w, b, *xs):
        X = torch.nn.functional.interpolate(torch.cat(xs, dim=1), scale_factor=factor, mode="nearest")
        y = torch.nn.functional.conv2d(torch.nn.functional.pad(X, (left, right, top, bottom)), w, b, stride)
        return torch.relu(y) if activation else y

    equals_torch(fused(case, activation), theirs, *arrays)


def test_one_input_needs_no_list_and_no_bias_is_a_bias_of_zero(kernels):
    for dtype in (np.float64, np.float32):
        x, w = rand(2, 3, 5, 4).astype(dtype), rand(4, 3, 2, 3).astype(dtype)
        y = fused_conv2d(x, w, np.zeros(4, dtype), padding="same").data
        for given in (fused_conv2d(x, w, padding="same"), fused_conv2d([x], w, None, padding="same"),
                      fused_conv2d((Tensor(x),), Tensor(w), padding="same")):  # fmt: skip
            np.testing.assert_array_equal(given.data, y)
    check_grads(lambda x, w: fused_conv2d(x, w, activation="relu"), rand(2, 3, 5, 4), rand(4, 3, 2, 3))


@pytest.mark.parametrize(("dtype", "tol"), [(np.float64, 1e-11), (np.float32, 1e-5)])
def test_one_array_may_be_joined_with_itself(dtype, tol):
    arrays = [a.astype(dtype) for a in (rand(1, 3, 5, 4), rand(2, 6, 3, 3))]
    expected = value_and_grads(lambda x, w: ops.conv2d(ops.concat([x, x]), w), *arrays)
    equal(value_and_grads(lambda x, w: fused_conv2d([x, x], w), *arrays), expected, tol)


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


@pytest.mark.parametrize(
    ("shapes", "w", "b", "options", "sentence"),
    [
        ([(2, 3, 5, 4)], (4, 3, 2), None, {}, r"fused_conv2d takes w of shape \(K, C, KH, KW\), but got \(4, 3, 2\)"),
        ([(2, 3, 5, 4)], (4, 2, 2, 2), None, {}, "fused_conv2d: the weights are for 2 channels, but the input has 3"),
        ([(2, 3, 5, 4)] * 2, (4, 3, 2, 2), None, {}, "the weights are for 3 channels, but the input has 6"),
        ([(2, 3, 5, 4), (2, 3, 5, 5)], (4, 6, 2, 2), None, {}, "that are joined may differ only in their channels"),
        ([(2, 3, 5, 4), (1, 3, 5, 4)], (4, 6, 2, 2), None, {}, "that are joined may differ only in their channels"),
        ([(3, 5, 4)], (4, 3, 2, 2), None, {}, r"takes x of shape \(N, C, H, W\), but got \(3, 5, 4\)"),
        ([(2, 3, 5, 4)], (4, 3, 2, 2), (3,), {}, r"fused_conv2d: b must have shape \(4,\), but has \(3,\)"),
        ([(2, 3, 5, 4)], (4, 3, 6, 2), None, {}, "does not fit"),
        ([(2, 3, 5, 4)], (4, 3, 2, 2), None, {"activation": "tanh"}, "must be None or 'relu', but is 'tanh'"),
        ([(2, 3, 5, 4)], (4, 3, 2, 2), None, {"upsample": 0}, "whole number of at least 1, but is 0"),
        ([(2, 3, 5, 4)], (4, 3, 2, 2), None, {"upsample": 1.5}, "whole number of at least 1, but is 1.5"),
        ([(2, 3, 5, 4)], (4, 3, 2, 2), None, {"upsample": (2, 2)}, r"whole number of at least 1, but is \(2, 2\)"),
    ],
)
def test_refuses(shapes, w, b, options, sentence):
    for dtype in (np.float64, np.float32):
        xs, *others = [rand(*s).astype(dtype) for s in shapes], rand(*w).astype(dtype)
        with pytest.raises(ValueError, match=sentence):
            fused_conv2d(xs, *others, None if b is None else rand(*b).astype(dtype), **options)


# ----- the numba kernels in float32 ---------------------------------------------------------------
@pytest.fixture
def fast():
    return pytest.importorskip("tinyseg.fast.cpu.fused_conv")


@pytest.fixture(params=["direct", "phases"])
def upsampled(request, fast, monkeypatch):
    """Upsampled convolutions with the pixels repeated in the band, and as a convolution for each phase."""
    monkeypatch.setattr(fast, "MANY", 0 if request.param == "phases" else 1 << 60)


def roundings(n):
    """How much of the sum of their sizes a sum of n products may be off by.

    n roundings at most; beyond some dozen they stay, but for a chance below 1e-6, within 4√n (Higham & Mary 2019).
    """
    return EPS32 * min(n + 1, 4 * n**0.5)


def passes(k, case, relu, y=None, dtype=np.float32, f=np.asarray, layout=np.asarray):
    """[y, gw, gb, gx_0, …] of kernels `k`; `f` of all arrays, and the mask of a given `y`."""
    channels, _, N, H, W, kernel, stride, padding, factor = case
    shape = N, sum(channels), H * factor, W * factor
    stride, pads, out = resolve(shape, kernel, stride, padding)
    w, b, *xs, gy = (layout(f(a.astype(np.float32)).astype(dtype)) for a in parts(*case))
    found = k.forward(xs, w, np.ascontiguousarray(b), stride, pads, out, factor, relu)
    y = found if y is None else y.astype(dtype)
    gw, gb, gxs = k.backward(gy, xs, w, y, True, stride, pads, factor, relu)
    return [found, gw, gb, *gxs]


def compare(fast, case, relu, tolerance=None):
    """Within the roundings of the sums, or within `tolerance` of the largest element of each result."""
    channels, K, N, H, W, kernel, stride, padding, factor = case
    found = passes(fast, case, relu)
    expected = passes(maths, case, relu, found[0], np.float64)
    taps, outputs = kernel[0] * kernel[1], found[0].size // K
    terms = [sum(channels) * taps + 1, outputs, outputs, *[K * taps * factor**2] * len(channels)]
    sizes = passes(maths, case, False, found[0], np.float64, abs) if tolerance is None else expected
    for i, (a, b, size, n) in enumerate(zip(found, expected, sizes, terms, strict=True)):
        assert a.dtype == np.float32 and a.shape == b.shape, f"array {i}"
        bound = roundings(n) * size if tolerance is None else tolerance * abs(b).max()
        assert (abs(a - b) <= bound).all(), f"array {i}: {(abs(a - b) / bound).max():.2g} times the bound"


@cases
@activations
def test_numba_in_float32_is_within_the_rounding_of_its_sums(case, activation, fast, upsampled):
    with using(winograd=False):
        compare(fast, case, activation == "relu")


LEVELS = [(24, 40), (16, 24), (8, 12), (8, 12), (8, 12)]
UNET = [  # channels of the inputs, K, level of the input, kernel, factor
    *[((64,), 64, 0, 3, 1), ((64,), 128, 1, 3, 1), ((128,), 128, 1, 3, 1), ((128,), 256, 2, 3, 1)],
    *[((256,), 256, 2, 3, 1), ((256,), 512, 3, 3, 1), ((512,), 512, 3, 3, 1), ((512,), 1024, 4, 3, 1)],
    *[((1024,), 1024, 4, 3, 1), ((1024,), 512, 4, 2, 2), ((512, 512), 512, 3, 3, 1), ((512,), 256, 3, 2, 2)],
    *[((256, 256), 256, 2, 3, 1), ((256,), 128, 2, 2, 2), ((128, 128), 128, 1, 3, 1), ((128,), 64, 1, 2, 2)],
    *[((64, 64), 64, 0, 3, 1), ((1,), 64, 0, 3, 1), ((64,), 2, 0, 3, 1)],
]
unet = pytest.mark.parametrize(
    "layer",
    [
        pytest.param(layer, marks=pytest.mark.slow if sum(layer[0]) * layer[1] >= 1 << 18 else (), id=str(layer))
        for layer in UNET
    ],
)


def layer_case(channels, K, level, kernel, factor):
    return channels, K, 1, *LEVELS[level], (kernel, kernel), 1, "same", factor


@unet
def test_every_layer_of_unet(layer, fast, upsampled):
    with using(winograd=False):
        compare(fast, layer_case(*layer), relu=True)


@unet
def test_every_layer_of_unet_by_winograds_method(layer, fast, monkeypatch):
    """The tolerance is measured, see test_winograd.py."""
    winograd = importlib.import_module("tinyseg.fast.cpu.winograd")

    def anywhere(w, stride, y, spread):
        return w.shape[2:] == (3, 3) and stride == spread == (1, 1)

    monkeypatch.setattr(winograd, "pays", anywhere)
    compare(fast, layer_case(*layer), relu=True, tolerance=5e-5)


@pytest.mark.parametrize("layout", [strided, lambda a: np.asfortranarray(a), "pixels"], ids=["strided", "F", "pixels"])
@some
def test_any_layout_gives_the_same(case, layout, fast, upsampled):
    if layout == "pixels":

        def layout(a):
            return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) if a.ndim == 4 else a

    found = passes(fast, case, True, layout=layout)
    for a, b in zip(found, passes(fast, case, True), strict=True):
        np.testing.assert_array_equal(a, b)


@some
@activations
def test_inputs_come_back_unchanged(case, activation, fast, upsampled):
    given = []

    def keep(a):
        given.append((a, a.copy()))
        return a

    passes(fast, case, activation == "relu", layout=keep)
    for a, old in given:
        np.testing.assert_array_equal(a, old)


@some
def test_gradients_of_the_inputs_are_left_out_where_nobody_asks(case, fast, upsampled):
    channels, _, N, H, W, kernel, stride, padding, factor = case
    stride, pads, out = resolve((N, sum(channels), H * factor, W * factor), kernel, stride, padding)
    w, b, *xs, gy = (a.astype(np.float32) for a in parts(*case))
    for k in (fast, maths):
        y = k.forward(xs, w, b, stride, pads, out, factor, True)
        gw, gb, gxs = k.backward(gy, xs, w, y, False, stride, pads, factor, True)
        expected = k.backward(gy, xs, w, y, True, stride, pads, factor, True)
        np.testing.assert_array_equal(gw, expected[0])
        np.testing.assert_array_equal(gb, expected[1])
        assert gxs == (None,) * len(xs)


@cases
def test_a_nan_pixel_reaches_every_window_that_sees_it(case, fast, upsampled):
    channels, _, N, H, W, kernel, stride, padding, factor = case
    arrays = [a.astype(np.float32) for a in parts(*case)[:-1]]
    arrays[-1][-1, -1, H // 2, W // 2] = np.nan
    for activation in (None, "relu"):
        with using(kernels="reference"):
            expected = np.isnan(fused(case, activation)(*arrays).data)
        assert expected.any()
        with using(winograd=False):
            np.testing.assert_array_equal(np.isnan(fused(case, activation)(*arrays).data), expected)
        assert np.isnan(fused(case, activation)(*arrays).data)[expected].all()


def test_three_inputs_take_the_maths(fast):
    case = (2, 16, 3), 5, 2, 6, 5, (3, 3), 1, "same", 2
    *arrays, _ = (a.astype(np.float32) for a in parts(*case))
    assert not fast.supports(*arrays) and fast.supports(*arrays[:-1])
    assert backend.kernels(maths.__name__, *arrays) is maths
    found = value_and_grads(fused(case, "relu"), *arrays)
    with using(kernels="reference"):
        expected = value_and_grads(fused(case, "relu"), *arrays)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_supports_float32_only(fast):
    w, b, x, _ = (a.astype(np.float32) for a in parts(*CASES[0]))
    assert fast.supports(w, b, x)
    for k in range(3):
        assert not fast.supports(*(a.astype(np.float64) if i == k else a for i, a in enumerate((w, b, x))))
