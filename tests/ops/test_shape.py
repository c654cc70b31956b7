"""concat, pad, crop, reshape, transpose against NumPy's own functions."""

import numpy as np
import pytest
from arrays import equal, rand, value_and_grads

from tinyseg import Tensor, check_grads
from tinyseg.ops import center_crop, concat, pad, reshape, transpose


@pytest.mark.parametrize(
    ("shapes", "axis"),
    [
        ([(2, 3, 4, 5), (2, 1, 4, 5), (2, 2, 4, 5)], 1),
        ([(1, 3), (4, 3)], 0),
        ([(2, 3, 4), (2, 3, 1)], -1),
        ([(2, 3)], 1),
    ],
)
def test_concat(shapes, axis, kernels):
    arrays = [rand(*s) for s in shapes]
    equal(concat(arrays, axis).data, np.concatenate(arrays, axis))
    check_grads(lambda *xs: concat(xs, axis), *arrays)


def test_concat_of_one_tensor_with_itself():
    check_grads(lambda x: concat([x, x * 2.0, x]), rand(2, 3, 1, 4))


def test_concat_of_a_generator():
    assert concat(rand(2, c, 1, 1) for c in (1, 2)).shape == (2, 3, 1, 1)


@pytest.mark.parametrize(
    ("shapes", "axis", "sentence"),
    [
        ([], 1, "concat needs at least one tensor"),
        ([(2, 3, 4), (2, 3, 5)], 1, "concat along axis 1: all other sizes must agree"),
        ([(2, 3, 4), (2, 3)], 1, "all other sizes must agree"),
        ([(5, 7), (5,)], 1, "all other sizes must agree"),
        ([(2, 3), (2, 3)], 2, "no axis 2"),
        ([(2, 3), (2, 3)], -3, "no axis -3"),
        ([(), ()], 0, "no axis 0"),
    ],
)
def test_concat_refuses(shapes, axis, sentence):
    with pytest.raises(ValueError, match=sentence):
        concat([np.asarray(rand(*s)) for s in shapes], axis)


@pytest.mark.parametrize(
    ("padding", "sides"),
    [
        (1, ((1, 1), (1, 1))),
        ((2, 0), ((2, 2), (0, 0))),
        (((1, 2), (0, 3)), ((1, 2), (0, 3))),
        ([[1, 0], [2, 1]], ((1, 0), (2, 1))),
        (0, ((0, 0), (0, 0))),
        (np.int64(2), ((2, 2), (2, 2))),
    ],
)
def test_pad(padding, sides, kernels):
    x = rand(2, 3, 4, 5)
    y = pad(x, padding).data
    equal(y, np.pad(x, ((0, 0), (0, 0), *sides)))
    assert not np.shares_memory(x, y)
    check_grads(lambda x: pad(x, padding), x)


@pytest.mark.parametrize(
    ("padding", "sentence"),
    [
        *[(padding, "padding must not be negative") for padding in (-1, (1, -1), ((0, 0), (-1, 2)))],
        *[(padding, "padding must be an integer or a pair") for padding in ((1, 2, 3), 1.5, "same")],
        (((1, 1), (1, 1), (1, 1)), r"by sides must be \(\(top, bottom\), \(left, right\)\)"),
    ],
)
def test_pad_refuses(padding, sentence):
    with pytest.raises(ValueError, match=sentence):
        pad(rand(1, 2, 3, 4), padding)


def test_pad_and_crop_take_images():
    for op in (pad, center_crop):
        with pytest.raises(ValueError, match=rf"{op.__name__} takes x of shape \(N, C, H, W\)"):
            op(rand(3, 4), 1)


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [
        (2, slice(1, 3), slice(1, 3)),  # of 5 x 4: three rows too many, the extra one is cut at the bottom
        ((4, 1), slice(0, 4), slice(1, 2)),
        ((5, 4), slice(0, 5), slice(0, 4)),
        ((3, 3), slice(1, 4), slice(0, 3)),
    ],
)
def test_center_crop(size, rows, columns, kernels):
    x = rand(2, 3, 5, 4)
    y = center_crop(x, size).data
    equal(y, x[:, :, rows, columns])
    assert not np.shares_memory(x, y)
    check_grads(lambda x: center_crop(x, size), x)


@pytest.mark.parametrize("size", [6, (5, 5), (0, 2), (-1, 2)])
def test_center_crop_refuses(size):
    with pytest.raises(ValueError, match=r"center_crop: cannot cut \(.*\) out of \(5, 4\)"):
        center_crop(rand(1, 1, 5, 4), size)


def test_crop_undoes_pad():
    x = rand(2, 3, 4, 5)
    equal(center_crop(pad(x, (2, 3)), (4, 5)).data, x)


@pytest.mark.parametrize("shape", [(6, 20), (-1, 5), (2, 3, 2, 2, 5), (120,), (2, 3, 4, 5)])
def test_reshape(shape, kernels):
    x = rand(2, 3, 4, 5)
    for y in (reshape(x, *shape), reshape(x, shape), Tensor(x).reshape(*shape), Tensor(x).reshape(list(shape))):
        equal(y.data, x.reshape(shape))
    check_grads(lambda x: reshape(x, shape), x)


@pytest.mark.parametrize("axes", [(), (0, 2, 3, 1), (3, 2, 1, 0), (1, 0, -1, -2)])
def test_transpose(axes, kernels):
    x = rand(2, 3, 4, 5)
    for y in (transpose(x, *axes), transpose(x, axes), Tensor(x).transpose(*axes)):
        equal(y.data, x.transpose(axes or None))
    check_grads(lambda x: transpose(x, *axes), x)


def test_wrong_shapes_and_axes_are_errors():
    for shape in ((7, 20), (-1, 7), (-1, -1)):
        with pytest.raises(ValueError, match=r"reshape|one unknown dimension"):
            reshape(rand(2, 3, 4, 5), shape)
    for axes in ((0,), (0, 0), (0, 2), (1, -4)):
        with pytest.raises(ValueError, match="axes|axis"):
            transpose(rand(2, 3), *axes)
    with pytest.raises(ValueError, match="the new order of all 0 axes"):
        transpose(np.array(3.0), 0)


def test_reshape_of_a_transposed_tensor_and_back():
    def f(x):
        return x.transpose(1, 0, 2).reshape(3, -1).transpose().reshape(2, 4, 3)

    x = rand(2, 3, 4)
    equal(f(Tensor(x)).data, x.transpose(1, 0, 2).reshape(3, -1).T.reshape(2, 4, 3))
    check_grads(f, x)
    assert all(g.flags.owndata for g in value_and_grads(f, x)[1:])
