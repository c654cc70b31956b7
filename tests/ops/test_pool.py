"""Max and average pooling against loops over the windows, scikit-image's block_reduce and PyTorch."""

import numpy as np
import pytest
from arrays import WINDOW_CASES, WINDOW_NAMES, both_axes, equal, equals_torch, rand, spaced, value_and_grads
from skimage.measure import block_reduce

from tinyseg import Tensor, check_grads
from tinyseg.ops import avg_pool2d, max_pool2d

POOLABLE = [  # padding at most half the kernel
    case
    for case in WINDOW_CASES
    if all(2 * max(sides) <= k for sides, k in zip(case.values[5], case.values[2], strict=True))
]
windows = pytest.mark.parametrize(WINDOW_NAMES, POOLABLE)
OPS = [(max_pool2d, np.max, -np.inf), (avg_pool2d, np.mean, 0.0)]
both = pytest.mark.parametrize(("op", "reduce", "border"), OPS, ids=["max", "average"])


@both
@windows
def test_reduces_every_window(op, reduce, border, H, W, kernel, stride, padding, pads, N, C, K, kernels):
    x = spaced(N, C, H, W)
    X = np.pad(x, ((0, 0), (0, 0), *pads), constant_values=border)
    seen = np.lib.stride_tricks.sliding_window_view(X, kernel, axis=(2, 3))
    sh, sw = both_axes(stride)
    equal(op(x, kernel, stride, padding).data, reduce(seen[:, :, ::sh, ::sw], axis=(4, 5)))


@both
@windows
def test_gradients(op, reduce, border, H, W, kernel, stride, padding, pads, N, C, K, kernels):
    check_grads(lambda x: op(x, kernel, stride, padding), spaced(N, C, H, W))


@both
@pytest.mark.parametrize("kernel", [(2, 3), (3, 1)])
def test_equals_block_reduce(op, reduce, border, kernel, kernels):
    x = rand(2, 3, 6, 9)
    equal(op(x, kernel).data, block_reduce(x, (1, 1, *kernel), reduce))


@pytest.mark.parametrize(("name", "op"), [("max_pool2d", max_pool2d), ("avg_pool2d", avg_pool2d)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [((2, 3), None, 0), ((3, 2), (1, 2), (1, 1)), (3, 2, 1), ((1, 2), 3, 0)]
)
def test_equals_torch(name, op, kernel, stride, padding, kernels):
    equals_torch(
        lambda x: op(x, kernel, stride, padding),
        lambda torch, x: getattr(torch.nn.functional, name)(x, kernel, stride, padding),
        spaced(2, 3, 7, 8),
    )


def test_of_equal_values_the_first_in_row_major_order_wins(kernels):
    x = Tensor(np.zeros((1, 1, 4, 6)), requires_grad=True)
    max_pool2d(x, (2, 3)).backward(np.array([[[[1.0, 2.0], [3.0, 4.0]]]]))
    expected = np.zeros((1, 1, 4, 6))
    expected[0, 0, ::2, ::3] = [[1, 2], [3, 4]]
    np.testing.assert_array_equal(x.grad, expected)
    rows = np.array([[[[0.0, 5.0, 1.0], [5.0, 5.0, 0.0]]]])
    _, gx = value_and_grads(lambda x: max_pool2d(x, (2, 3)), rows)
    assert np.argwhere(gx[0, 0]).tolist() == [[0, 1]]


def test_overlapping_windows_add_up(kernels):
    x = np.zeros((1, 1, 3, 3))
    x[0, 0, 1, 1] = 1.0
    t = Tensor(x, requires_grad=True)
    max_pool2d(t, 2, stride=1).backward(np.arange(1.0, 5).reshape(1, 1, 2, 2))
    assert t.grad[0, 0, 1, 1] == 10 and abs(t.grad).sum() == 10


def test_the_border_of_a_max_pool_never_wins(kernels):
    x = np.full((1, 2, 3, 4), -1e300)
    y, gx = value_and_grads(lambda x: max_pool2d(x, 3, 2, 1), x)
    assert (y == -1e300).all()
    assert np.count_nonzero(gx) == y.size


def test_the_border_of_an_average_counts_as_zeros(kernels):
    y = avg_pool2d(np.ones((1, 1, 3, 4)), (2, 2), 1, ((1, 0), (1, 0))).data
    np.testing.assert_allclose(y[0, 0, :2, :2], [[0.25, 0.5], [0.5, 1]])


@both
def test_nan_is_seen(op, reduce, border, kernels):
    for i, j in np.ndindex(2, 3):  # wherever in the window it stands
        x = rand(1, 1, 4, 6)
        x[0, 0, i, j] = np.nan
        y = op(x, (2, 3)).data
        assert np.isnan(y[0, 0, 0, 0]) and np.isfinite(y[0, 0].ravel()[1:]).all()


def test_the_last_of_256_taps_can_win(kernels):
    x = np.arange(16.0 * 32).reshape(1, 1, 16, 32)
    y, gx = value_and_grads(lambda x: max_pool2d(x, 16), x)
    np.testing.assert_array_equal(y, [[[[495, 511]]]])
    assert np.argwhere(gx[0, 0]).tolist() == [[15, 15], [15, 31]]


def test_stride_is_the_kernel_if_left_out(kernels):
    assert max_pool2d(rand(1, 1, 7, 9), (2, 4)).shape == (1, 1, 3, 2)


@pytest.mark.parametrize("op", [max_pool2d, avg_pool2d])
@pytest.mark.parametrize(
    ("shape", "arguments", "sentence"),
    [
        ((3, 5, 4), (2,), r"takes x of shape \(N, C, H, W\)"),
        ((1, 1, 5, 4), (2, 1, 2), "padding must be at most half the kernel"),
        ((1, 1, 5, 4), (2, 1, ((0, 0), (0, 2))), "padding must be at most half the kernel"),
        ((1, 1, 5, 4), (6,), "does not fit"),
        ((1, 1, 5, 4), ((2, 2, 2),), "kernel_size must be an integer or a pair"),
        ((1, 1, 5, 4), (2, 0), "must be at least 1"),
    ],
)
def test_refuses(op, shape, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        op(rand(*shape), *arguments)


def test_max_pool_refuses_more_taps_than_a_byte_counts():
    with pytest.raises(ValueError, match=r"at most 256 taps, but the kernel is \(17, 16\)"):
        max_pool2d(rand(1, 1, 20, 20), (17, 16))
