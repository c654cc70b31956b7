"""NaN and infinity where nothing counts: ignored pixels, weights of 0, inactive units, losers of a pool, padding."""

import numpy as np
import pytest
from arrays import single

from tinyseg import Tensor, ops, using

BAD = [np.nan, np.inf, -np.inf]
bad = pytest.mark.parametrize("value", BAD, ids=str)


def loss_and_gradient(loss, z):
    z = Tensor(z, requires_grad=True)
    y = loss(z)
    y.backward()
    return y.item(), z.grad


@bad
def test_logits_of_ignored_pixels(value, kernels):
    z, t = single(1, 3, 2, 5), np.random.default_rng(0).integers(0, 3, (1, 2, 5))
    t[0, 0, :2] = 255, 2
    clean, spoilt = z.copy(), z.copy()
    spoilt[0, :, 0, 0] = value  # ignored
    spoilt[0, 1, 0, 1] = value  # of class 2, which has weight 0
    clean[0, :, 0, :2] = 0
    weights = [1.0, 2.0, 0.0]
    t[t == 2] = 0
    t[0, 0, 1] = 2
    expected, gz = loss_and_gradient(lambda z: ops.cross_entropy(z, t, weights, ignore_index=255), clean)
    found, g = loss_and_gradient(lambda z: ops.cross_entropy(z, t, weights, ignore_index=255), spoilt)
    assert found == expected and np.isfinite(found)
    np.testing.assert_array_equal(g, gz)
    assert not g[0, :, 0, :2].any()


@bad
def test_logits_of_pixels_with_weight_0(value, kernels):
    z, w = single(1, 2, 3, 4), np.ones((1, 1, 3, 4), np.float32)
    w[0, 0, 1, 2] = 0
    z[0, :, 1, 2] = value
    found, g = loss_and_gradient(lambda z: ops.binary_cross_entropy_with_logits(z, np.ones(z.shape), w), z)
    assert np.isfinite(found) and np.isfinite(g).all() and not g[0, :, 1, 2].any()


def test_logits_of_classes_with_weight_0_in_soft_dice(kernels):
    z = single(2, 2, 3, 4)
    z[:, 0] = np.nan
    found, g = loss_and_gradient(lambda z: ops.soft_dice_loss(z, np.ones(z.shape), weight=[0.0, 1.0]), z)
    assert np.isfinite(found) and np.isfinite(g[:, 1]).all()


@pytest.mark.parametrize(("weights", "ignored"), [(None, 1), ([1.0, 0.0, 1.0], None)], ids=["ignored", "weight 0"])
def test_a_loss_of_nothing_is_0_with_a_gradient_of_0(weights, ignored, kernels):
    found, g = loss_and_gradient(
        lambda z: ops.cross_entropy(z, np.ones((1, 2, 5), int), weights, ignore_index=ignored), single(1, 3, 2, 5)
    )
    assert found == 0 and not g.any()


@pytest.mark.parametrize("scale", [1e-300, 1e-44, 1e-14, 1.0, 1e38, 1e300])
def test_only_the_ratios_of_class_weights_matter(scale, kernels):
    z, t = single(1, 3, 2, 5), np.random.default_rng(0).integers(0, 3, (1, 2, 5))
    expected = loss_and_gradient(lambda z: ops.cross_entropy(z, t, [1.0, 0.5, 2.0]), z)
    found = loss_and_gradient(lambda z: ops.cross_entropy(z, t, [scale, 0.5 * scale, 2 * scale]), z)
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("weight", [[-1.0, 1.0], [np.nan, 1.0], [np.inf, 1.0], np.array([1.0, -1e-9])], ids=str)
def test_weights_that_are_negative_or_not_finite_are_refused(weight):
    z = single(1, 2, 3, 4)
    for loss in (
        lambda: ops.cross_entropy(z, np.zeros((1, 3, 4), int), weight),
        lambda: ops.binary_cross_entropy_with_logits(z, np.zeros(z.shape), weight),
        lambda: ops.binary_cross_entropy_with_logits(z, np.zeros(z.shape), pos_weight=weight),
        lambda: ops.soft_dice_loss(z, np.zeros(z.shape), weight=weight),
    ):
        with pytest.raises(ValueError, match=r"weights must be finite numbers and not negative, but run from .*\.$"):
            loss()


@pytest.mark.parametrize(
    "target", [255 * np.ones((1, 2, 3, 4), np.uint8), np.full((1, 2, 3, 4), np.nan), -np.ones((1, 2, 3, 4))]
)
def test_a_mask_of_0_and_255_and_other_targets_outside_of_0_to_1_are_refused(target, kernels):
    for loss in (ops.binary_cross_entropy_with_logits, ops.soft_dice_loss):
        with pytest.raises(ValueError, match="target must hold numbers from 0 to 1, but runs from"):
            loss(single(1, 2, 3, 4), target)


@pytest.mark.parametrize("smooth", [np.nan, np.inf, -1.0, "1"], ids=str)
def test_a_smoothing_that_is_no_finite_number_is_refused(smooth):
    with pytest.raises(ValueError, match="smooth must be a finite number of at least 0"):
        ops.soft_dice_loss(single(1, 2, 3, 4), np.ones((1, 2, 3, 4)), smooth=smooth, empty="ignore")


@bad
@pytest.mark.parametrize("op", ["relu", "max_pool2d", "dropout", "fused_conv2d", "separable_conv2d"])
def test_gradients_of_inactive_units_are_0_whatever_arrives(op, value, kernels):
    x = single(1, 16, 6, 8)
    w, wd = np.zeros((16, 16, 1, 1), np.float32), np.ones((16, 1, 1), np.float32)
    w[range(16), range(16)] = 1
    f = {
        "relu": ops.relu,
        "max_pool2d": lambda x: ops.max_pool2d(x, 2),
        "dropout": lambda x: ops.dropout(x, 0.5, seed=3),
        "fused_conv2d": lambda x: ops.fused_conv2d(x, w, activation="relu"),
        "separable_conv2d": lambda x: ops.separable_conv2d(x, wd, w[:, :, 0, 0], activation="relu"),
    }[op]
    X = Tensor(x, requires_grad=True)
    y = f(X)
    gy = np.ones(y.shape, np.float32)
    inactive = y.data == 0
    gy[inactive] = value
    if op == "max_pool2d":
        gy[0, :, 1, 1] = value
    y.backward(gy)
    if op == "max_pool2d":
        assert (~np.isfinite(X.grad)).sum() == 16  # the winners of that window alone
    else:
        assert inactive.any() and np.isfinite(X.grad).all() and not X.grad[inactive].any()


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 1), ((2, 3), (1, 2))])
def test_a_window_of_minus_infinity_gives_its_gradient_to_a_pixel_inside(kernel, stride, kernels):
    torch = pytest.importorskip("torch")
    x = np.full((2, 3, 5, 4), -np.inf, np.float32)
    X, theirs = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y = ops.max_pool2d(X, kernel, stride, 1)
    y.backward(np.ones(y.shape, np.float32))
    torch.nn.functional.max_pool2d(theirs, kernel, stride, 1).backward(torch.ones(y.shape))
    np.testing.assert_array_equal(X.grad, theirs.grad.numpy())


def test_a_nan_in_a_window_is_the_largest_and_takes_the_gradient_as_in_torch(kernels):
    torch = pytest.importorskip("torch")
    x = single(1, 2, 6, 8)
    x[0, 0, 1, 1] = x[0, 0, 1, 2] = x[0, 1, 3, 3] = np.nan
    X, theirs = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ops.max_pool2d(X, 3, 1, 1), torch.nn.functional.max_pool2d(theirs, 3, 1, 1)
    y.backward(np.ones(y.shape, np.float32))
    z.backward(torch.ones(y.shape))
    np.testing.assert_array_equal(y.data, z.detach().numpy())
    np.testing.assert_array_equal(X.grad, theirs.grad.numpy())


@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_extreme_logits_stay_finite(kernels):
    z = np.array([1e4, -1e4, 1e37, -1e37, 0.0, 88.0], np.float32).reshape(1, 6, 1, 1)
    with using(kernels=kernels):
        for f in (ops.sigmoid, ops.softmax, lambda z: ops.binary_cross_entropy_with_logits(z, z > 0)):
            assert np.isfinite(f(z).data).all()
        np.testing.assert_allclose(ops.cross_entropy(z[:, :2], np.ones((1, 1, 1), int)).item(), 2e4)
