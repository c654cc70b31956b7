"""The CUDA kernels of fused_conv2d and separable_conv2d against the maths files, and of whole networks."""

import numpy as np
import pytest
from arrays import EPS32, HALF_TINY, HALF_ULP, gradients_across, rand, value_and_grads
from stand_in import LAYOUTS, both, chosen, planes, reals, within

from tinyseg import models, ops, optim, using
from tinyseg.fast.gpu import launch as cuda
from tinyseg.ops.window import resolve

# channels of the inputs, K, N, H, W, kernel, stride, padding, factor of upsampling
CASES = [
    ((5,), 7, 2, 9, 8, (3, 3), 1, "same", 1),
    ((3,), 4, 1, 7, 37, (3, 3), 1, "same", 1),
    ((5, 6), 4, 2, 6, 9, (3, 3), 1, "same", 1),
    ((6, 1), 2, 1, 9, 11, (3, 3), 2, ((1, 0), (2, 1)), 1),
    ((3, 4), 5, 3, 5, 4, (2, 2), (2, 1), "same", 1),
    ((2, 3), 4, 2, 9, 5, (2, 2), 1, "same", 1),
    ((1, 2), 1, 1, 4, 5, (1, 1), 1, 0, 1),
    ((7,), 4, 2, 5, 6, (2, 2), 1, "same", 2),
    ((4,), 3, 1, 9, 7, (3, 3), 1, "same", 2),
    ((3,), 5, 2, 4, 5, (2, 3), 1, "same", 2),
    ((5,), 3, 1, 5, 3, (2, 2), 1, "same", 3),
    ((4,), 6, 2, 3, 5, (3, 3), 1, "valid", 2),
    ((4,), 3, 1, 3, 2, (5, 4), 1, ((6, 1), (0, 5)), 2),  # more border than kernel
    ((4,), 3, 1, 3, 2, (3, 3), 1, ((4, 1), (0, 5)), 2),
    ((2,), 3, 1, 1, 1, (1, 1), 1, 0, 3),
    ((4,), 5, 2, 4, 3, (3, 2), (2, 1), "same", 2),
    ((5, 4), 3, 2, 4, 3, (2, 2), 1, "same", 2),
    ((2, 3), 4, 3, 9, 5, (3, 3), 1, "same", 2),
    ((3, 2), 4, 1, 3, 5, (3, 3), (1, 2), ((2, 1), (0, 1)), 3),
]
cases = pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c)).replace(" ", ""))
some = pytest.mark.parametrize("case", [CASES[2], CASES[7], CASES[16]], ids=["joined", "upsampled", "both"])
both_ops = pytest.mark.parametrize("op", ["fused_conv", "separable_conv"])
activations = pytest.mark.parametrize("relu", [False, True], ids=["plain", "relu"])


def parts(op, channels, K, N, H, W, kernel, stride, padding, factor):
    """The weights, the bias, x_0, …, and the cotangent, float32."""
    C = sum(channels)
    _, _, out = resolve((N, C, H * factor, W * factor), kernel, stride, padding)
    weights = [(C, *kernel), (K, C)] if op == "separable_conv" else [(K, C, *kernel)]
    shapes = [*weights, (K,), *((N, c, H, W) for c in channels), (N, K, *out)]
    return [rand(*shape, seed=k).astype(np.float32) for k, shape in enumerate(shapes)]


def passes(op, k, case, relu, arrays, y=None):
    """[y, the gradients of the weights, gb, gx_0, …] of kernels `k`, with the mask of a given `y`."""
    channels, _, N, H, W, kernel, stride, padding, factor = case
    stride, pads, out = resolve((N, sum(channels), H * factor, W * factor), kernel, stride, padding)
    *ws, b = arrays[: -len(channels) - 1]
    xs, gy = arrays[-len(channels) - 1 : -1], arrays[-1]
    needs_x = () if op == "separable_conv" else (True,)
    found = k.forward(xs, *ws, b, stride, pads, out, factor, relu)
    *gs, gxs = k.backward(gy, xs, *ws, found if y is None else y, *needs_x, stride, pads, factor, relu)
    return [found, *gs, *gxs]


def bounds(op, case, outputs):
    """Roundings of each result, as many as its sum has products; of separable_conv two sums, one of the other."""
    channels, K, *_, kernel, _, _, factor = case
    taps, C, pixels = kernel[0] * kernel[1], sum(channels), outputs // K
    if op == "fused_conv":
        counts = [C * taps + 1, pixels, pixels, *[K * taps * factor**2] * len(channels)]
    else:
        counts = [taps + C + 1, K + pixels, taps + pixels, pixels, *[K + (taps + 1) * factor**2] * len(channels)]
    return [EPS32 * (count + 2) for count in counts]


# What is rounded to float16 on the way to y, the gradients and each gx: weights, d or columns, and what comes of them.
HALVES = {"fused_conv": [3, 0, 0, 3], "separable_conv": [4, 3, 1, 0, 3]}


def compare(cp, op, case, relu, layout=planes, real=np.float32, tiles=0):
    maths, fast = both(op)
    arrays, images = parts(op, *case), len(case[0]) + 1  # the xs and gy
    arrays[-images:] = [a.astype(real) for a in arrays[-images:]]
    given = [layout(cp, a) if a.ndim == 4 else cp.asarray(a) for a in arrays]
    found = passes(op, fast, case, relu, given)
    y, doubles = cp.asnumpy(found[0]), [a.astype(np.float64) for a in arrays]
    expected = passes(op, maths, case, relu, doubles, y)
    sizes = passes(op, maths, case, False, [abs(a) for a in doubles])
    if relu:  # what the mask lets through
        sizes[1:] = passes(op, maths, case, True, [abs(a) for a in doubles], y)[1:]
    halves = HALVES[op] + HALVES[op][-1:] * (images - 2)
    for k, (a, b, bound, size) in enumerate(zip(found, expected, bounds(op, case, y.size), sizes, strict=True)):
        is_image = k == 0 or k > len(found) - images
        roundings = halves[k] + tiles * (is_image and k > 0) if real == np.float16 else 0
        bound = (bound + roundings * HALF_ULP) * size + roundings * bound / EPS32 * HALF_TINY
        within(cp, a, b, bound, real if is_image else np.float32)
    for a, old in zip(given, arrays, strict=True):
        np.testing.assert_array_equal(cp.asnumpy(a), old)
    return found


@cases
@both_ops
@activations
@reals
def test_equals_the_maths(case, op, relu, real, stand_in):
    compare(stand_in, op, case, relu, real=real)


@some
@both_ops
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@reals
def test_any_layout(case, op, layout, real, stand_in):
    compare(stand_in, op, case, True, layout, real)


@pytest.mark.parametrize("case", CASES[:5] + CASES[7:10] + CASES[16:], ids=str)
@pytest.mark.parametrize("tile", [32, 96])
@reals
def test_tiles_of_the_workspace(case, tile, real, stand_in, monkeypatch):
    """In float16 the sum of gx is rounded once a tile, at most once a window that saw the pixel."""
    channels, _, _, _, _, kernel, *_, factor = case
    monkeypatch.setattr("tinyseg.fast.gpu.conv2d.WORKSPACE", 4 * sum(channels) * kernel[0] * kernel[1] * tile)
    compare(stand_in, "fused_conv", case, True, real=real, tiles=kernel[0] * kernel[1] * factor**2)


def test_tiles_are_alike_and_cover_all_columns(stand_in, monkeypatch):
    from tinyseg.fast.gpu.conv2d import tiles

    monkeypatch.setattr("tinyseg.fast.gpu.conv2d.WORKSPACE", 4 * 10 * 200)
    for columns, widths in ((200, [200]), (201, [128, 73]), (7, [7]), (1000, [224] * 4 + [104])):
        found = [(first, cols.shape) for first, cols in tiles(10, columns, np.dtype(np.float32))]
        assert [shape for _, shape in found] == [(10, width) for width in widths]
        assert [first for first, _ in found] == [sum(widths[:k]) for k in range(len(widths))]


def test_gradients_of_x_only_where_they_are_wanted(stand_in):
    _, fast = both("fused_conv")
    w, b, x, x2, gy = (stand_in.asarray(a) for a in parts("fused_conv", *CASES[2]))
    args = (1, 1), ((1, 1), (1, 1)), 1, False
    gw, gb, gxs = fast.backward(gy, (x, x2), w, None, True, *args)
    gw2, gb2, nothing = fast.backward(gy, (x, x2), w, None, False, *args)
    assert nothing == (None, None) and len(gxs) == 2
    np.testing.assert_array_equal(stand_in.asnumpy(gw), stand_in.asnumpy(gw2))
    np.testing.assert_array_equal(stand_in.asnumpy(gb), stand_in.asnumpy(gb2))


# ----- through the ops -----------------------------------------------------------------
def public(op, case, relu):
    *_, stride, padding, factor = case
    end = stride, padding, factor, "relu" if relu else None
    if op == "separable_conv":
        return lambda wd, wp, b, *xs: ops.separable_conv2d(xs, wd, wp, b, *end)
    return lambda w, b, *xs: ops.fused_conv2d(xs, w, b, *end)


@some
@both_ops
@activations
def test_through_the_op(case, op, relu, stand_in):
    arrays = [stand_in.asarray(a) for a in parts(op, *case)[:-1]]
    assert chosen(f"tinyseg.ops.{op}", *arrays) is both(op)[1]
    found = value_and_grads(public(op, case, relu), *arrays)
    with using(kernels="reference"):
        expected = value_and_grads(public(op, case, relu), *arrays)
    for a, b in zip(found, expected, strict=True):
        a, b = stand_in.asnumpy(a), stand_in.asnumpy(b)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * abs(b).max())


@some
@both_ops
@pytest.mark.parametrize(("first", "second"), [("fast", "reference"), ("reference", "fast")])
def test_forward_and_backward_may_be_on_different_kernels(case, op, first, second, stand_in):
    f, arrays = public(op, case, True), [stand_in.asarray(a) for a in parts(op, *case)[:-1]]
    _, *expected = value_and_grads(f, *arrays)
    for gx, g in zip(gradients_across(f, arrays, first, second), expected, strict=True):
        g = stand_in.asnumpy(g)
        np.testing.assert_allclose(stand_in.asnumpy(gx), g, rtol=0, atol=1e-5 * abs(g).max())


@both_ops
def test_three_inputs_and_float64_go_to_the_maths(op, stand_in):
    maths, fast = both(op)
    case = (2, 3, 1), 5, 2, 6, 5, (3, 3), 1, "same", 2
    *arrays, _ = (stand_in.asarray(a) for a in parts(op, *case))
    assert not fast.supports(*arrays) and fast.supports(*arrays[:-1])
    assert not fast.supports(*arrays[:-2], arrays[-2].astype(np.float64))
    assert chosen(maths.__name__, *arrays) is maths


@pytest.mark.parametrize(
    ("case", "limit"),
    [
        (((2, 3), 5, 2, 6, 5, (3, 3), 1, "same", 2), 1000),  # D and y are too large
        (((4, 4), 1, 2, 6, 5, (3, 3), 2, "same", 1), 300),  # only the two inputs together are
    ],
)
@both_ops
def test_what_an_int_cannot_count_goes_to_the_maths(case, limit, op, stand_in, monkeypatch):
    *arrays, _ = (stand_in.asarray(a) for a in parts(op, *case))
    with using(kernels="reference"):
        expected = value_and_grads(public(op, case, True), *arrays)
    monkeypatch.setattr(cuda, "LIMIT", limit)
    monkeypatch.setattr("tinyseg.fast.gpu.conv2d.ALIGNED", 1)
    monkeypatch.setattr("tinyseg.fast.gpu.conv2d.WORKSPACE", 4 * limit - 4)
    assert chosen(f"tinyseg.ops.{op}", *arrays) is both(op)[1]
    found = value_and_grads(public(op, case, True), *arrays)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(stand_in.asnumpy(a), stand_in.asnumpy(b), rtol=0, atol=1e-5 * abs(b).max().item())


# ----- networks ------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("name", ["sdunet", "unet"])
def test_a_training_step_of_a_network(name, stand_in):
    x, t = rand(2, 1, 32, 48).astype(np.float32), rand(2, 1, 32, 48, seed=1) > 0
    results = []
    for kernels in ("fast", "reference"):
        model = models.build(name, width=4).to("gpu")
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        with using(kernels=kernels):
            loss = ops.dice_bce_with_logits(model(stand_in.asarray(x)), stand_in.asarray(t))
            loss.backward()
            grads = [stand_in.asnumpy(p.grad) for p in model.parameters()]
            optimizer.step()
        results.append((loss.item(), grads, [n for n, _ in model.named_parameters()]))
    (loss, grads, names), (expected, expected_grads, _) = results
    assert abs(loss - expected) < 1e-5
    for a, b, parameter in zip(grads, expected_grads, names, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * abs(b).max(), err_msg=parameter)
