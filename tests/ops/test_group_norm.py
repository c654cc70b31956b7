"""group_norm against the formula, group by group, and PyTorch."""

import numpy as np
import pytest
from arrays import EPS32, equal, equals_torch, rand

from tinyseg import Tensor, check_grads
from tinyseg.ops import batch_norm, group_norm

CASES = [((2, 4, 3, 5), 2), ((1, 6, 2, 3), 3), ((3, 4, 5, 1), 1), ((2, 3, 4, 5), 3), ((2, 1, 3, 2), 1)]
cases = pytest.mark.parametrize(("shape", "G"), CASES)


@cases
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_normalizes_each_group(shape, G, eps, kernels):
    N, C = shape[:2]
    x, w, b, size = rand(*shape), rand(C), rand(C, seed=1), C // G
    expected = np.empty(shape)
    for n, g in np.ndindex(N, G):
        v = x[n, g * size : (g + 1) * size]
        expected[n, g * size : (g + 1) * size] = (v - v.mean()) / np.sqrt(np.var(v) + eps)
    equal(group_norm(x, G, w, b, eps).data, expected * w.reshape(-1, 1, 1) + b.reshape(-1, 1, 1))


@cases
def test_gradients(shape, G, kernels):
    C = shape[1]
    check_grads(lambda x, w, b: group_norm(x, G, w, b), rand(*shape), rand(C), rand(C, seed=1))
    check_grads(lambda x: group_norm(x, G), rand(*shape))


@cases
def test_equals_torch(shape, G, kernels):
    C = shape[1]
    equals_torch(
        lambda x, w, b: group_norm(x, G, w, b),
        lambda torch, x, w, b: torch.nn.functional.group_norm(x, G, w, b),
        *(rand(*shape), rand(C), rand(C, seed=1)),
    )


def test_images_do_not_see_each_other():
    x = rand(3, 4, 3, 5)
    y = group_norm(x, 2).data
    x[1] *= 100
    np.testing.assert_array_equal(group_norm(x, 2).data[::2], y[::2])


def test_one_image_with_a_group_a_channel_is_batch_norm():
    x = rand(1, 4, 3, 5)
    equal(group_norm(x, 4).data, batch_norm(x, None, None, training=True).data)


def test_a_large_offset_costs_its_own_rounding_only():
    x = (rand(2, 4, 16, 16) + 1000).astype(np.float32)
    exact = group_norm(x.astype(np.float64), 2).data
    np.testing.assert_allclose(group_norm(x, 2).data, exact, rtol=0, atol=16 * 1000 * EPS32)


def test_a_constant_group_becomes_beta():
    x = Tensor(np.full((1, 2, 3, 4), 5.0), requires_grad=True)
    y = group_norm(x, 1, bias=np.array([0.5, -1.0]))
    np.testing.assert_array_equal(y.data[0, :, 0, 0], [0.5, -1])
    y.backward(rand(1, 2, 3, 4))
    assert np.isfinite(x.grad).all()


@pytest.mark.parametrize(
    ("x", "G", "options", "sentence"),
    [
        ((2, 4, 3), 2, {}, r"group_norm takes x of shape \(N, C, H, W\), but got \(2, 4, 3\)"),
        ((4,), 2, {}, r"group_norm takes x of shape \(N, C, H, W\), but got \(4,\)"),
        ((2, 4, 3, 5), 3, {}, "4 channels cannot be split into 3 equal groups"),
        ((2, 4, 3, 5), 0, {}, r"group_norm: num_groups must be an integer in the interval \[1, inf\), but is 0"),
        ((2, 4, 3, 5), 2, {"weight": rand(2)}, r"group_norm: weight must have shape \(4,\), but has \(2,\)"),
        ((2, 4, 3, 5), 2, {"bias": rand(1, 4)}, r"group_norm: bias must have shape \(4,\), but has \(1, 4\)"),
    ],
)
def test_refuses(x, G, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        group_norm(rand(*x), G, **options)
