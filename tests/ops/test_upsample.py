"""upsample against np.kron, scikit-image's resize and PyTorch's interpolate, and numba against the maths."""

import numpy as np
import pytest
from arrays import EPS32, both_axes, equal, equals_torch, layouts, rand
from skimage.transform import resize

from tinyseg import Tensor, check_grads
from tinyseg.backend import kernels as kernels_for
from tinyseg.ops import avg_pool2d, upsample
from tinyseg.ops.upsample import bilinear_forward, bilinear_grad_x, nearest_forward, nearest_grad_x

SHAPES = [((2, 3, 5, 4), 2), ((1, 2, 3, 7), (3, 2)), ((2, 1, 1, 6), (2, 5)), ((1, 1, 4, 1), (1, 4)), ((1, 2, 1, 1), 3)]
shapes = pytest.mark.parametrize(("shape", "factor"), SHAPES)
modes = pytest.mark.parametrize("mode", ["nearest", "bilinear"])


@shapes
def test_nearest_repeats_pixels(shape, factor, kernels):
    x = rand(*shape)
    equal(upsample(x, factor).data, np.kron(x, np.ones((1, 1, *both_axes(factor)))))


@shapes
def test_bilinear_is_resize(shape, factor, kernels):
    x = rand(*shape)
    size = tuple(n * f for n, f in zip(shape[2:], both_axes(factor), strict=True))
    expected = [[resize(p, size, order=1, mode="edge", anti_aliasing=False) for p in image] for image in x]
    equal(upsample(x, factor, "bilinear").data, np.array(expected))


@modes
@shapes
def test_gradients(shape, factor, mode, kernels):
    check_grads(lambda x: upsample(x, factor, mode), rand(*shape))


@modes
@shapes
def test_equals_torch(shape, factor, mode, kernels):
    def theirs(torch, x):
        size = [n * f for n, f in zip(shape[2:], both_axes(factor), strict=True)]
        return torch.nn.functional.interpolate(x, size, mode=mode)

    equals_torch(lambda x: upsample(x, factor, mode), theirs, rand(*shape))


def test_bilinear_keeps_a_ramp_away_from_the_border():
    x = np.tile(np.arange(6.0), (1, 1, 4, 1))
    np.testing.assert_allclose(upsample(x, (1, 2), "bilinear").data[0, 0, 0, 1:-1], np.arange(0.25, 5, 0.5))


def test_average_pooling_undoes_nearest():
    x = rand(2, 3, 4, 5)
    equal(avg_pool2d(upsample(x, (3, 2)), (3, 2)).data, x)


# ----- numba in float32 --------------------------------------------------------------------------
LARGER = [*SHAPES, ((2, 17, 9, 70), 2), ((1, 64, 8, 12), (3, 1)), ((3, 1, 40, 3), 4), ((1, 33, 1, 131), (1, 2))]


@pytest.mark.parametrize(("shape", "factor"), LARGER)
@layouts
def test_numba_in_float32_copies_exactly_and_is_within_the_rounding_of_its_sums(shape, factor, layout):
    pytest.importorskip("numba")
    fast = pytest.importorskip("tinyseg.fast.cpu.upsample")

    factor = both_axes(factor)
    x = layout(rand(*shape).astype(np.float32))
    gy = layout(rand(*shape[:2], shape[2] * factor[0], shape[3] * factor[1]).astype(np.float32))
    before = x.copy(), gy.copy()
    y, gx = fast.nearest_forward(x, factor), fast.nearest_grad_x(gy, factor)
    assert y.dtype == gx.dtype == np.float32
    np.testing.assert_array_equal(y, nearest_forward(x, factor))
    double = gy.astype(np.float64)
    bound = factor[0] * factor[1] * EPS32 * nearest_grad_x(abs(double), factor)
    assert (abs(gx - nearest_grad_x(double, factor)) <= bound).all() and gx.shape == shape
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(gy, before[1])


WIDER = [
    *LARGER,
    ((1, 64, 7, 5), (1, 3)),
    ((2, 33, 5, 6), (3, 2)),
    ((3, 16, 2, 9), (2, 1)),
    ((2, 40, 1, 1), (2, 2)),
    ((1, 19, 1, 4), (3, 3)),
    ((1, 16, 6, 1), (1, 1)),
]


@pytest.mark.parametrize(("shape", "factor"), WIDER)
@layouts
def test_numba_bilinear_in_float32_is_within_the_rounding_of_its_sums(shape, factor, layout):
    pytest.importorskip("numba")
    fh, fw = factor = both_axes(factor)
    x = layout(rand(*shape).astype(np.float32))
    gy = layout(rand(*shape[:2], shape[2] * fh, shape[3] * fw).astype(np.float32))
    before = x.copy(), gy.copy()
    fast = kernels_for("tinyseg.ops.upsample", x)  # leaves few channels to the maths
    for a, compute, maths, terms in (
        (x, fast.bilinear_forward, bilinear_forward, 4),
        (gy, fast.bilinear_grad_x, bilinear_grad_x, 4 * fh * fw),
    ):
        found, double = compute(a, factor), a.astype(np.float64)
        bound = (terms + 3) * EPS32 * maths(abs(double), factor)  # two weights and their product are rounded too
        assert found.dtype == np.float32 and found.shape == maths(double, factor).shape
        assert (abs(found - maths(double, factor)) <= bound).all()
        np.testing.assert_array_equal(found, compute(a, factor))
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(gy, before[1])


@pytest.mark.parametrize("channels", [3, 70])
def test_numba_bilinear_hands_float32_on_pixel_by_pixel(channels):
    pytest.importorskip("numba")
    pytest.importorskip("tinyseg.fast.cpu.upsample")
    x = Tensor(rand(2, channels, 4, 5).astype(np.float32), requires_grad=True)
    y = upsample(x, (2, 3), "bilinear")
    y.backward(rand(*y.shape).astype(np.float32))
    assert y.dtype == x.grad.dtype == np.float32
    if channels >= 16:  # with fewer channels than lanes the maths file computes
        assert y.data.transpose(0, 2, 3, 1).flags.c_contiguous
        assert x.grad.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize(
    ("shape", "arguments", "sentence"),
    [
        ((4, 5), (2,), r"takes x of shape \(N, C, H, W\)"),
        ((1, 1, 4, 5), (0,), "scale_factor must be at least 1, but is 0"),
        ((1, 1, 4, 5), (1.5,), "scale_factor must be an integer or a pair"),
        ((1, 1, 4, 5), (2, "cubic"), "mode must be 'nearest' or 'bilinear', but is 'cubic'"),
    ],
)
def test_refuses(shape, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        upsample(rand(*shape), *arguments)
