"""The mean of the weights: its formula, what the checkpoints hold, and that a run goes on to the same bits."""

import numpy as np
import pytest

import tinyseg as ts
from tinyseg import models, nn, optim
from tinyseg.data import Loader, SegmentationDataset
from tinyseg.training import RunDirectory, Step, WeightAverage, evaluate, fit

pytestmark = pytest.mark.usefixtures("blank_curves")


@pytest.fixture
def data():
    images = np.random.default_rng(0).standard_normal((6, 16, 24)).astype(np.float32)
    return SegmentationDataset(images, images > 0.2, seed=1)


class Line(nn.Module):
    """One weight, and a counter beside it."""

    buffers = ("count",)

    def __init__(self):
        self.weight, self.count = nn.Parameter(np.zeros(3, np.float32)), np.zeros((), np.int64)


def run_fit(data, path, epochs=4, resume=False, decay=0.9):
    run = RunDirectory(path, resume=resume)
    model = models.build("sdunet", width=4, levels=3, seed=1)
    optimizer = optim.Adam(model.parameters(), lr=5e-3)
    options = {"schedule": optim.CosineAnnealingLR(optimizer, T_max=12, warmup=2), "epochs": epochs, "progress": False}
    average = None if decay is None else WeightAverage(model, decay)

    def validate(model):
        return evaluate(model, data.images[:, 0], data.labels)[0]

    return fit(Step(model, optimizer), Loader(data, 2, seed=1), validate, run=run, average=average, **options), run


def assert_same_weights(a, b):
    (left, _), (right, _) = ts.checkpoint.read(a), ts.checkpoint.read(b)
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_the_mean_is_a_weighted_sum_of_all_steps():
    model, rng = Line(), np.random.default_rng(0)
    average, weights, factors = WeightAverage(model, 0.8), [np.zeros(3)], [1.0]
    for t in range(1, 40):
        model.weight.data = rng.standard_normal(3).astype(np.float32)
        model.count[...] = t
        average.update()
        d = min(0.8, (1 + t) / (10 + t))
        factors = [f * d for f in factors] + [1 - d]
        weights.append(model.weight.data.copy())
    expected = np.einsum("t,tk->k", factors, weights)
    assert sum(factors) == pytest.approx(1)
    np.testing.assert_allclose(average.state_dict()["weight"], expected, atol=1e-6)
    assert average.state_dict()["count"] == 39 and average.updates == 39


def test_in_the_block_the_model_has_the_mean_and_afterwards_its_weights():
    model = models.build("sdunet_bn", width=4, levels=2)
    average, x = WeightAverage(model, 0.5), np.random.default_rng(0).standard_normal((1, 1, 16, 32)).astype(np.float32)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    first = ts.prediction.predict(model, x)
    for p in model.parameters():
        p.data = p.data + np.float32(0.01)
    average.update()
    now = {name: array.copy() for name, array in model.state_dict().items()}
    changed = ts.prediction.predict(model, x)
    with average:
        for name, array in model.state_dict().items():
            if array.dtype.kind == "f":
                share = 1 - min(0.5, 2 / 11)
                np.testing.assert_allclose(array, before[name] + share * (now[name] - before[name]), atol=1e-7)
        inside = ts.prediction.predict(model, x)
    assert not np.array_equal(inside, first) and not np.array_equal(inside, changed)
    np.testing.assert_array_equal(ts.prediction.predict(model, x), changed)
    with pytest.raises(KeyError), average:
        raise KeyError
    np.testing.assert_array_equal(ts.prediction.predict(model, x), changed)


def test_an_interrupted_run_with_a_mean_goes_on_to_the_same_bits(data, tmp_path):
    whole, run = run_fit(data, tmp_path / "whole")
    run_fit(data, tmp_path / "parts", epochs=2)
    parts, other = run_fit(data, tmp_path / "parts", resume=True)
    assert_same_weights(run.latest, other.latest)
    assert_same_weights(run.best, other.best)
    assert [row["val_loss"] for row in whole["history"]] == [row["val_loss"] for row in parts["history"]]


def test_what_is_validated_and_saved_is_the_mean_and_training_is_as_without(data, tmp_path):
    with_mean, run = run_fit(data, tmp_path / "mean")
    without, plain = run_fit(data, tmp_path / "plain", decay=None)
    assert [row["train_loss"] for row in with_mean["history"]] == [row["train_loss"] for row in without["history"]]
    assert [row["val_loss"] for row in with_mean["history"]] != [row["val_loss"] for row in without["history"]]
    last = evaluate(ts.checkpoint.load(run.latest), data.images[:, 0], data.labels)[0]
    assert last["loss"] == with_mean["history"][-1]["val_loss"]
    arrays, of_plain = ts.checkpoint.read(run.latest)[0], ts.checkpoint.read(plain.latest)[0]
    weights = {name.removeprefix("model."): a for name, a in of_plain.items() if name.startswith("model.")}
    for name, array in weights.items():
        np.testing.assert_array_equal(arrays[f"training.{name}"], array)
        assert array.dtype.kind != "f" or not np.array_equal(arrays[f"model.{name}"], array)
    assert not any(name.startswith("training.") for name in ts.checkpoint.read(run.best)[0])


def test_a_mean_of_another_model_and_a_decay_that_is_none():
    average = WeightAverage(models.build("sdunet", width=4, levels=2))
    with pytest.raises(ValueError, match="mean is of the weights of another model"):
        average.load_state_dict(models.build("sdunet", width=8, levels=2).state_dict())
    for decay in (1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="decay"):
            WeightAverage(Line(), decay)
