"""The loss scaler, and training with activations in float16."""

import csv
import math
import signal

import numpy as np
import pytest
from arrays import HALF_ULP, rand

import tinyseg as ts
from tinyseg import backend, models, nn, no_grad, ops, optim
from tinyseg.data import Loader, SegmentationDataset
from tinyseg.fast.gpu.mixed_precision import LossScaler, MixedPrecisionStep, in_float16
from tinyseg.training import RunDirectory, Step, TrainingDiverged, evaluate, fit

pytestmark = pytest.mark.usefixtures("blank_curves")


# ----- the scaler -----------------------------------------------------------------------
def weight(*values):
    return nn.Parameter(np.array(values, np.float32))


def one_step(scaler, optimizer, loss):
    optimizer.zero_grad()
    with scaler.quiet():
        scaler.scale(loss).backward()
    made = scaler.step(optimizer)
    scaler.update()
    return made


def test_the_step_is_that_of_the_unscaled_loss():
    results = []
    for scaler in (LossScaler(), LossScaler(enabled=False)):
        w = weight(1, -2, 3)
        optimizer = optim.SGD([w], lr=0.1)
        assert one_step(scaler, optimizer, (w * w).sum())
        results.append(w.data)
    np.testing.assert_array_equal(*results)  # a power of two does not round
    np.testing.assert_allclose(results[0], [0.8, -1.6, 2.4], rtol=1e-6)


def test_gradients_that_are_not_finite_leave_everything_as_it_was():
    w = weight(1, 2)
    optimizer, scaler = optim.Adam([w], lr=0.1), LossScaler(2.0**16)
    assert one_step(scaler, optimizer, (w * w).sum())
    before = {name: a.copy() for name, a in optimizer.state_dict().items()} | {"w": w.data.copy()}
    for k in range(3):
        assert not one_step(scaler, optimizer, (w * float("inf")).sum())
        assert scaler.factor == 2.0 ** (15 - k)
    for name, a in (optimizer.state_dict() | {"w": w.data}).items():
        np.testing.assert_array_equal(a, before[name], err_msg=name)


def test_the_factor_doubles_after_good_steps_in_a_row():
    w = weight(1)
    optimizer, scaler, factors = optim.SGD([w], lr=0.0), LossScaler(8.0, growth_interval=3), []
    for bad in (0, 0, 1, 0, 0, 0, 0, 0, 0):
        one_step(scaler, optimizer, (w * float("inf" if bad else 1)).sum())
        factors.append(scaler.factor)
    assert factors == [8, 8, 4, 4, 4, 8, 8, 8, 16]


def test_the_factor_stops_at_its_floor():
    w = weight(1)
    optimizer, scaler = optim.SGD([w], lr=0.0), LossScaler(4.0, floor=1.0)
    found = []
    for _ in range(4):
        found.append((scaler.factor, scaler.at_floor))
        one_step(scaler, optimizer, (w * float("inf")).sum())
    assert found == [(4, False), (2, False), (1, True), (1, True)]


def test_it_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    w, v = weight(1, 2), torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    ours, theirs = optim.SGD([w], lr=0.1), torch.optim.SGD([v], lr=0.1)
    scaler = LossScaler(2.0**10, growth_interval=4)
    scaler_torch = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4)
    for k in range(20):
        factor = math.inf if k in (2, 3, 11) else 1.0
        one_step(scaler, ours, (w * w * factor).sum())
        theirs.zero_grad()
        scaler_torch.scale((v * v * factor).sum()).backward()
        scaler_torch.step(theirs)
        scaler_torch.update()
        assert scaler.factor == scaler_torch.get_scale(), k
        np.testing.assert_allclose(w.data, v.detach().numpy(), rtol=1e-6)


def test_clipping_comes_between():
    w = weight(3, 4)
    optimizer, scaler = optim.SGD([w], lr=1.0), LossScaler()
    scaler.scale((w * w * 0.5).sum()).backward()
    scaler.unscale_(optimizer)
    norm = optim.clip_grad_norm([w], 1.0)
    assert norm == pytest.approx(5) and scaler.step(optimizer, norm)
    np.testing.assert_allclose(w.data, [2.4, 3.2], rtol=1e-6)


def test_misuse_is_told():
    w = weight(1)
    optimizer, scaler = optim.SGD([w]), LossScaler()
    with pytest.raises(RuntimeError, match="update.. comes after step"):
        scaler.update()
    scaler.scale(w.sum()).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="unscale_.. has been called for this optimizer"):
        scaler.unscale_(optimizer)
    assert scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="step.. has been called for this optimizer: the next time is after update"):
        scaler.step(optimizer)
    with pytest.raises(TypeError, match="compute the loss in float32"):
        scaler.scale(ops.cast(w, "float16").sum())
    for options in ({"growth_factor": 1.0}, {"backoff_factor": 1.0}, {"init_scale": 0.5}, {"floor": 0}):
        with pytest.raises(ValueError, match="LossScaler needs growth_factor > 1"):
            LossScaler(**options)


def test_two_optimizers_have_one_factor():
    """Each gets its own gradients unscaled; one of them without finite gradients lowers the factor for both."""
    a, b, scaler = weight(1), weight(1), LossScaler(4.0)
    first, second = optim.SGD([a], lr=0.1), optim.SGD([b], lr=0.1)
    for spoiled in (False, True):
        first.zero_grad(), second.zero_grad()
        scaler.scale(a.sum() + b.sum()).backward()
        if spoiled:
            a.grad[...] = np.inf
        assert (scaler.step(first), scaler.step(second)) == (not spoiled, True)
        scaler.update()
    np.testing.assert_allclose([a.data[0], b.data[0]], [1 - 0.1, 1 - 0.2], rtol=1e-6)
    assert scaler.factor == 2.0


def test_its_state():
    scaler, other = LossScaler(64.0), LossScaler()
    w = weight(1)
    one_step(scaler, optim.SGD([w]), w.sum())
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == {"factor": 64.0, "good": 1}
    other.load_state_dict(LossScaler(enabled=False).state_dict())
    assert other.factor == 64.0


# ----- gradients ------------------------------------------------------------------------------
def gradients(device, mixed, x, y, factor=2.0**16):
    """Of a small SD-UNet, as one vector for each parameter."""
    model = models.build("sdunet", width=4, levels=3, seed=1).to(device)
    optimizer, scaler = optim.SGD(model.parameters()), LossScaler(factor, enabled=mixed)
    x, y = (backend.to_device(a, device) for a in (x, y))
    loss = ops.binary_cross_entropy_with_logits((in_float16(model) if mixed else model)(x), y)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    assert all(p.dtype == p.grad.dtype == np.float32 for p in model.parameters())
    return loss.item(), [backend.to_numpy(p.grad).ravel() for p in model.parameters()]


def relative(found, expected):
    a, b = np.concatenate(found), np.concatenate(expected)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def batch():
    x = rand(2, 1, 16, 24).astype(np.float32)
    return x, (x > 0.2).astype(np.float32)


# Each of the some 30 ops between x and loss rounds what it gives and the gradients that it returns, by up to 2^-11 in
# either direction. Roundings add up like steps of a random walk, to about d = sqrt(60) 2^-11 = 0.4 % of an activation.
# The loss and gradients move by as much, but for ReLUs: of standard normal numbers a share of 2 d / sqrt(2 pi) is near
# enough to 0 to be switched, and a share p of the units switched is an error of sqrt(p) in a gradient: 5.5 % in each
# of 11 layers. Forgetting to unscale is a factor of 65536.
WALK = math.sqrt(60) * HALF_ULP
NEAR = math.sqrt(11 * 2 * WALK / math.sqrt(2 * math.pi))


def test_gradients_are_those_of_float32(kernels):
    loss, expected = gradients("cpu", False, *batch())
    mixed_loss, found = gradients("cpu", True, *batch())
    assert abs(mixed_loss - loss) < WALK * loss and 0 < relative(found, expected) < NEAR


def test_gradients_on_the_device(stand_in):
    _, expected = gradients("cpu", False, *batch())
    _, found = gradients("gpu", True, *batch())
    assert relative(found, expected) < NEAR


def test_without_scaling_small_gradients_are_lost():
    """What the scaler is for: a loss whose gradients lie below float16's smallest number."""
    x, y = batch()
    model = models.build("sdunet", width=4, levels=3, seed=1)
    for factor, lost in ((1.0, True), (2.0**16, False)):
        scaler, optimizer = LossScaler(factor), optim.SGD(model.parameters())
        optimizer.zero_grad()
        loss = ops.binary_cross_entropy_with_logits(in_float16(model)(x), y) * 1e-6
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        assert (optim.grad_norm(model.parameters()) == 0) == lost


# ----- training -------------------------------------------------------------------------------
@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    images = rng.standard_normal((6, 16, 24)).astype(np.float32)
    return SegmentationDataset(images, images > 0.2, seed=1)


def run_fit(
    data, path, epochs=4, resume=False, mixed=True, loss=ops.binary_cross_entropy_with_logits, steps=12, **more
):
    model = models.build("sdunet", width=4, levels=3, seed=1)
    optimizer = optim.Adam(model.parameters(), lr=5e-3)
    schedule = optim.CosineAnnealingLR(optimizer, T_max=steps, warmup=2)
    loader, run = Loader(data, 2, seed=1, workers=1), RunDirectory(path, resume=resume)
    step = (MixedPrecisionStep if mixed else Step)(model, optimizer, loss, **more)

    def validate(m):
        return evaluate(m, data.images[:, 0], data.labels)[0]

    result = fit(step, loader, validate, schedule=schedule, epochs=epochs, run=run, progress=False)
    return result, run, schedule


@pytest.mark.slow
def test_training_ends_where_float32_ends(data, tmp_path):
    """36 steps. The losses fall alike, but for a small part of the fall; a gradient that is wrong would not do that."""
    losses = {}
    for mixed in (False, True):
        result, run, _ = run_fit(data, tmp_path / str(mixed), epochs=12, mixed=mixed, steps=36, clip=1.0)
        losses[mixed] = [row["train_loss"] for row in result["history"]]
        assert ("loss_scale" in result["history"][0]) == mixed
        assert not mixed or sum(row["skipped"] for row in result["history"]) == 0
        model = ts.checkpoint.load(run.latest)
        assert all(p.dtype == np.float32 for p in model.parameters())
    fall = losses[False][0] - losses[False][-1]
    assert fall > 0.05 and abs(losses[True][-1] - losses[False][-1]) < 0.05 * fall
    assert losses[True] != losses[False]


class Overflow(ts.Function):
    """The identity, whose gradient is too large at chosen steps."""

    def __init__(self, factor):
        self.factor = factor

    def forward(self, x):
        return x.copy()

    def backward(self, gy):
        return gy * np.float32(self.factor)


def overflowing_at(*steps, factor=math.inf):
    """A loss function with an overflow at chosen calls."""
    calls = []

    def loss(logits, y):
        calls.append(1)
        value = ops.binary_cross_entropy_with_logits(logits, y)
        return Overflow(factor)(value) if len(calls) - 1 in steps else value

    return loss


def test_an_overflow_is_a_skipped_step(data, tmp_path):
    seen = []

    def watching(logits, y):
        seen.append(1)
        return overflow(logits, y)

    overflow = overflowing_at(1, 4, 5)
    result, run, schedule = run_fit(data, tmp_path / "run", loss=watching)
    assert [row["skipped"] for row in result["history"]] == [1, 2, 0, 0]
    assert [row["loss_scale"] for row in result["history"]] == [2.0**15, 2.0**13, 2.0**13, 2.0**13]
    assert result["steps"] == 12 and schedule.t == 9  # batches, and steps that were made
    arrays, meta = ts.checkpoint.read(run.latest)
    assert set(arrays["optimizer.steps"].tolist()) == {9} and meta["training"]["scaler"] == {
        "factor": 2.0**13,
        "good": 6,
    }
    with open(run.path / "log.csv") as file:
        assert [row["skipped"] for row in csv.DictReader(file)] == ["1", "2", "0", "0"]


def test_a_skipped_step_leaves_the_weights_alone(data, tmp_path):
    """Two epochs, of which all of the second is left out: the weights and moments are those after the first."""
    _, one, _ = run_fit(data, tmp_path / "one", epochs=1)
    _, two, _ = run_fit(data, tmp_path / "two", epochs=2, loss=overflowing_at(3, 4, 5))
    (a, _), (b, _) = ts.checkpoint.read(one.latest), ts.checkpoint.read(two.latest)
    assert a.keys() == b.keys()
    for name in a:
        if not name.endswith("counter"):  # of dropout: it counts batches
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_loss_that_is_not_finite_does_not_spoil_the_mean(data, tmp_path):
    calls = []

    def loss(logits, y):
        calls.append(1)
        value = ops.binary_cross_entropy_with_logits(logits, y)
        return value * math.inf if len(calls) == 2 else value

    with np.errstate(invalid="ignore"):
        result, _, _ = run_fit(data, tmp_path / "run", epochs=1, loss=loss)
    (row,) = result["history"]
    assert row["skipped"] == 1 and 0.3 < row["train_loss"] < 1.5


def test_divergence_is_told_when_the_factor_is_at_its_floor(data, tmp_path):
    with pytest.raises(TrainingDiverged, match="gradient norm is (inf|nan) at step 17 "):  # 2^16 halved 16 times
        run_fit(data, tmp_path / "run", epochs=10, loss=overflowing_at(*range(99)))


def test_a_network_that_overflows_is_told_by_its_layer(data, tmp_path):
    """In float32 it would not: 3e4 * 3e4."""
    model = models.build("sdunet", width=4, levels=3, seed=1)
    model.encoder[1].convs[0].pointwise.weight.data[...] = 3e4
    model.encoder[1].norm = None
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    schedule, run = optim.WarmupLR(optimizer), RunDirectory(tmp_path / "run")
    loader, scores = Loader(data, 2, seed=1, workers=1), {"loss": 1.0, "mean_iou": 0.5}
    told = pytest.raises(TrainingDiverged, match="layer encoder.1.* is the first whose output is not finite")
    with told, np.errstate(all="ignore"):
        step = MixedPrecisionStep(model, optimizer)
        fit(step, loader, lambda m: scores, schedule=schedule, epochs=9, run=run, progress=False)
    with no_grad():
        assert np.isfinite(model(data.images[:2]).data).all()


def test_a_run_stopped_in_between_goes_on_to_the_same_bits(data, tmp_path):
    """With a skipped step before and after the interruption, which comes in mid-epoch."""

    def loss(*steps, stop=None):
        inner, calls = overflowing_at(*steps), []

        def f(logits, y):
            calls.append(1)
            if len(calls) - 1 == stop:
                signal.raise_signal(signal.SIGTERM)
            return inner(logits, y)

        return f

    whole, run, _ = run_fit(data, tmp_path / "whole", loss=loss(1, 6))
    stopped, _, _ = run_fit(data, tmp_path / "parts", loss=loss(1, stop=4))
    assert stopped["steps"] == 5
    parts, other, _ = run_fit(data, tmp_path / "parts", resume=True, loss=loss(6 - 5))
    (a, meta), (b, other_meta) = ts.checkpoint.read(run.latest), ts.checkpoint.read(other.latest)
    assert meta["training"]["scaler"] == other_meta["training"]["scaler"] == {"factor": 2.0**14, "good": 5}
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    for x, y in zip(whole["history"], parts["history"], strict=True):
        assert {k: v for k, v in x.items() if "seconds" not in k} == {k: v for k, v in y.items() if "seconds" not in k}


# ----- breaks: what these tests would see ---------------------------------------------------------
def test_forgetting_to_unscale_is_seen(monkeypatch):
    monkeypatch.setattr(LossScaler, "unscale_", lambda self, optimizer: None)
    with pytest.raises(AssertionError):
        test_gradients_are_those_of_float32(None)
    with pytest.raises(AssertionError):
        test_the_step_is_that_of_the_unscaled_loss()


def test_stepping_all_the_same_is_seen(monkeypatch):
    def careless(self, optimizer, norm=None):
        self._stepped[id(optimizer)] = False
        optimizer.step()
        return False

    monkeypatch.setattr(LossScaler, "step", careless)
    with pytest.raises(AssertionError), np.errstate(all="ignore"):
        test_gradients_that_are_not_finite_leave_everything_as_it_was()


def test_a_forgotten_state_is_seen(data, tmp_path, monkeypatch):
    monkeypatch.setattr(LossScaler, "load_state_dict", lambda self, state: None)
    with pytest.raises(AssertionError):
        test_a_run_stopped_in_between_goes_on_to_the_same_bits(data, tmp_path)
