"""batch_norm against the formula, channel by channel, and PyTorch; training, evaluation and running statistics."""

import numpy as np
import pytest
from arrays import EPS32, equal, equals_torch, rand

from tinyseg import Tensor, check_grads, nn
from tinyseg.ops import batch_norm

shapes = pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 4, 3, 2), (3, 1, 5, 1), (4, 2, 1, 1)])


def statistics(C):
    return rand(C, seed=7), np.random.default_rng(7).uniform(0.5, 2, C)


@shapes
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_training_normalizes_each_channel(shape, eps, kernels):
    x, w, b = rand(*shape), rand(shape[1]), rand(shape[1], seed=1)
    y = batch_norm(x, None, None, w, b, training=True, eps=eps).data
    for c in range(shape[1]):
        v = x[:, c]
        equal(y[:, c], (v - v.mean()) / np.sqrt(np.var(v) + eps) * w[c] + b[c])


@shapes
def test_evaluation_uses_the_running_statistics(shape, kernels):
    C = shape[1]
    x, w, b, (mean, var) = rand(*shape), rand(C), rand(C, seed=1), statistics(C)
    before = mean.copy(), var.copy()
    y = batch_norm(x, mean, var, w, b).data
    for c in range(C):
        equal(y[:, c], (x[:, c] - mean[c]) / np.sqrt(var[c] + 1e-5) * w[c] + b[c])
    np.testing.assert_array_equal([mean, var], before)


@shapes
@pytest.mark.parametrize("training", [True, False])
def test_gradients(shape, training, kernels):
    C = shape[1]
    mean, var = statistics(C)
    check_grads(
        lambda *t: batch_norm(t[0], mean, var, *t[1:], training=training), rand(*shape), rand(C), rand(C, seed=1)
    )
    check_grads(lambda x: batch_norm(x, mean, var, training=training), rand(*shape))


@shapes
@pytest.mark.parametrize("training", [True, False])
def test_equals_torch(shape, training, kernels):
    C = shape[1]
    mean, var = statistics(C)
    equals_torch(
        lambda *t: batch_norm(t[0], mean.copy(), var.copy(), *t[1:], training=training),
        lambda torch, *t: torch.nn.functional.batch_norm(
            t[0], torch.tensor(mean), torch.tensor(var), *t[1:], training=training
        ),
        *(rand(*shape), rand(C), rand(C, seed=1)),
    )


@pytest.mark.parametrize("momentum", [0.1, 0.75, 1.0])
def test_running_statistics_move_towards_mean_and_unbiased_variance(momentum, kernels):
    mean, var = np.zeros(3), np.ones(3)
    expected_mean, expected_var = mean.copy(), var.copy()
    for step in range(4):
        x = 2 + 3 * rand(2, 3, 4, 5, seed=step)
        batch_norm(x, mean, var, training=True, momentum=momentum)
        for c in range(3):
            expected_mean[c] += momentum * (x[:, c].mean() - expected_mean[c])
            expected_var[c] += momentum * (np.var(x[:, c], ddof=1) - expected_var[c])
    equal([mean, var], [expected_mean, expected_var])


def test_running_statistics_equal_torch(kernels):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.BatchNorm2d(3).double()
    mean, var = np.zeros(3), np.ones(3)
    for step in range(3):
        x = rand(2, 3, 4, 5, seed=step)
        batch_norm(x, mean, var, training=True)
        theirs(torch.tensor(x))
    equal([mean, var], [theirs.running_mean.numpy(), theirs.running_var.numpy()])


def test_no_channel_sees_another():
    x = rand(2, 3, 4, 5)
    y = batch_norm(x, None, None, training=True).data
    x[:, 1] *= 100
    np.testing.assert_array_equal(batch_norm(x, None, None, training=True).data[:, ::2], y[:, ::2])


def test_a_large_offset_costs_its_own_rounding_only():
    x = (rand(4, 2, 16, 16) + 1000).astype(np.float32)
    exact = batch_norm(x.astype(np.float64), None, None, training=True).data
    # x is exact; subtracting a mean near 1000, itself good to a few roundings of 1000, leaves an error of that size.
    np.testing.assert_allclose(batch_norm(x, None, None, training=True).data, exact, rtol=0, atol=16 * 1000 * EPS32)


def test_a_constant_channel_becomes_beta():
    x = Tensor(np.full((2, 1, 3, 4), 5.0), requires_grad=True)
    y = batch_norm(x, None, None, bias=np.array([0.5]), training=True)
    np.testing.assert_array_equal(y.data, 0.5)
    y.backward(rand(2, 1, 3, 4))
    assert np.isfinite(x.grad).all()


def test_running_statistics_in_double_leave_float32_alone():
    x, (mean, var) = rand(2, 3, 4, 5).astype(np.float32), statistics(3)
    for training in (True, False):
        assert batch_norm(x, mean, var, training=training).dtype == np.float32
    assert mean.dtype == var.dtype == np.float64


@pytest.mark.parametrize(
    ("x", "mean", "var", "options", "sentence"),
    [
        ((2, 3, 4), (3,), (3,), {}, r"batch_norm takes x of shape \(N, C, H, W\), but got \(2, 3, 4\)"),
        ((3,), (3,), (3,), {}, r"batch_norm takes x of shape \(N, C, H, W\), but got \(3,\)"),
        ((2, 3, 4, 5), None, None, {}, "in evaluation needs running_mean and running_var"),
        ((2, 3, 4, 5), (3,), None, {}, "in evaluation needs running_mean and running_var"),
        ((1, 3, 1, 1), None, None, {"training": True}, "more than one value per channel"),
        ((2, 3, 4, 5), (2,), (3,), {}, r"running_mean must have shape \(3,\), but has \(2,\)"),
        ((2, 3, 4, 5), (3,), (1,), {"training": True}, r"running_var must have shape \(3,\), but has \(1,\)"),
        ((2, 3, 4, 5), (3,), (3,), {"weight": rand(4)}, r"batch_norm: weight must have shape \(3,\), but has \(4,\)"),
        ((2, 3, 4, 5), (3,), (3,), {"bias": rand(3, 1)}, r"batch_norm: bias must have shape \(3,\), but has \(3, 1\)"),
    ],
)
def test_refuses(x, mean, var, options, sentence):
    mean, var = (None if s is None else np.ones(s) for s in (mean, var))
    with pytest.raises(ValueError, match=sentence):
        batch_norm(rand(*x), mean, var, **options)


@pytest.mark.parametrize("training", [True, False])
def test_an_empty_batch_leaves_the_running_statistics(training, kernels):
    layer = nn.BatchNorm2d(3).train(training)
    x = Tensor(np.zeros((0, 3, 8, 8), np.float32), requires_grad=True)
    y = layer(x)
    y.backward(np.zeros(y.shape, np.float32))
    assert y.shape == x.grad.shape == (0, 3, 8, 8)
    np.testing.assert_array_equal(layer.weight.grad, 0)
    np.testing.assert_array_equal(layer.running_mean, 0)
    np.testing.assert_array_equal(layer.running_var, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_batch_that_is_not_finite_leaves_the_running_statistics_of_that_channel(bad, kernels):
    x, layer = rand(2, 3, 4, 5).astype(np.float32), nn.BatchNorm2d(3)
    x[1, 1, 2, 3] = bad
    with np.errstate(invalid="ignore"):
        layer(x)
    assert layer.running_mean[1] == 0 and layer.running_var[1] == 1
    assert (layer.running_mean[[0, 2]] != 0).all() and np.isfinite(layer.running_var).all()


@pytest.mark.parametrize("training", [True, False])
def test_no_channels_at_all(training):
    x, none = Tensor(np.zeros((2, 0, 3, 4), np.float32), requires_grad=True), np.zeros(0, np.float32)
    batch_norm(x, none, none, training=training).backward(np.zeros((2, 0, 3, 4), np.float32))
    assert x.grad.shape == (2, 0, 3, 4)


@pytest.mark.parametrize("option", [{"eps": -1.0}, {"momentum": float("nan")}])
def test_options_without_sense_are_refused(option):
    with pytest.raises(ValueError, match=f"batch_norm: {next(iter(option))} must be a number in the interval"):
        batch_norm(np.ones((2, 3, 4, 5)), None, None, training=True, **option)
