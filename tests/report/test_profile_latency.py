"""What is timed, how often, and what is said about it; several models side by side."""

import itertools
import json
import types

import numpy as np
import pytest
from matplotlib.image import imread

import tinyseg as ts
from tinyseg import nn
from tinyseg.backend import devices
from tinyseg.report import profile
from tinyseg.report.profile import timing
from tinyseg.report.profile.steps import make_step

SHAPE = (1, 1, 32, 32)


@pytest.fixture
def clock(monkeypatch):
    """A clock that shows 0, 1, 3, 6, 10 …: the time between looks grows by one second."""
    ticks = itertools.accumulate(itertools.count())
    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: float(next(ticks))))


def model():
    return ts.models.build("unet_dw_bn", width=2)


def watch_runs(measure):
    """Return what `measure` returns, and for each run of the whole model whether it was in training mode."""
    seen = []
    with nn.watch(lambda module, y: seen.append(module.training) if isinstance(module, ts.models.UNet) else None):
        found = measure()
    return found, seen


def test_inference_is_timed_after_a_warm_up_in_evaluation_mode():
    found, seen = watch_runs(lambda: profile.latency(model(), SHAPE, repeats=4))
    assert seen == [False] * (timing.WARM_UP + 4)
    assert len(found.seconds) == 4 and min(found.seconds) > 0 and not found.training


def test_the_budget_ends_it_after_three_runs(clock):
    found, seen = watch_runs(lambda: profile.latency(model(), SHAPE, repeats=50, budget=0))
    assert len(found.seconds) == timing.FEWEST == len(seen) - timing.WARM_UP
    found = profile.latency(model(), SHAPE, repeats=2, budget=0)
    assert len(found.seconds) == 2


def test_median_quartiles_and_minimum():
    found = timing.Latency(SHAPE, False, (0.004, 0.001, 0.003, 0.002, 0.010), "cpu: x, 2 cores", "NumPy", 2)
    assert (found.median, found.minimum, found.quartiles) == (0.003, 0.001, (0.002, 0.004))
    assert str(found) == (
        "inference, input 1 x 1 x 32 x 32: median 3.0 ms, quartiles 2.0 to 4.0, minimum 1.0, 5 runs\n"
        "cpu: x, 2 cores, 2 threads, NumPy"
    )
    assert json.loads(json.dumps(found.as_dict()))["upper_quartile"] == 0.004


def test_each_run_waits_for_the_device(monkeypatch):
    waits = []
    monkeypatch.setattr(timing, "synchronize", waits.append)
    profile.latency(model(), SHAPE, repeats=3)
    assert waits == ["cpu"] * 4


def test_where_it_ran_is_named():
    found = profile.latency(model(), SHAPE, repeats=1)
    assert found.device == ts.backend.device_name("cpu") and found.kernels == ts.backend.kernels_in_use()
    assert found.threads >= 1
    numba = pytest.importorskip("numba")
    assert found.threads == numba.get_num_threads()


def test_training_steps_train_a_copy():
    trained = model()
    before = {name: a.copy() for name, a in trained.state_dict().items()}
    found, seen = watch_runs(lambda: profile.latency(trained, SHAPE, training=True, repeats=2))
    assert seen == [True] * (timing.WARM_UP + 2) and found.training
    assert all(np.array_equal(a, before[name]) for name, a in trained.state_dict().items())
    assert all(p.grad is None for p in trained.parameters())


def test_a_training_step_goes_back_and_changes_weights(monkeypatch):
    copies, losses = [], []
    monkeypatch.setattr(timing, "copy_model", lambda m, training: copies.append(m.train(training)) or m)

    def loss(y):
        losses.append(y.shape)
        return ts.ops.mean(y * y)

    trained = model()
    before = trained.head.weight.data.copy()
    profile.latency(trained, SHAPE, training=True, loss=loss, repeats=1)
    assert losses == [SHAPE] * 3 and not np.array_equal(trained.head.weight.data, before)


def test_inference_records_no_graph():
    x = np.ones(SHAPE, np.float32)
    assert make_step(model().eval(), x, training=False)().creator is None


def test_on_a_gpus_stand_in(monkeypatch):
    import fake_cupy

    monkeypatch.setattr(devices, "cp", fake_cupy)
    found = profile.latency(model().to("gpu"), SHAPE, repeats=1)
    assert found.device == "gpu: Stand-in" and found.threads is None and "CuPy" in found.kernels


def test_wrong_arguments_get_a_sentence():
    with pytest.raises(ValueError, match="repeats must be at least 1, but is 0"):
        profile.latency(model(), SHAPE, repeats=0)
    with pytest.raises(ValueError, match="multiples of 16"):
        profile.latency(model(), (1, 1, 30, 32))


# ----- compare -----------------------------------------------------------------------------
def test_compare_returns_the_numbers_and_writes_the_picture(tmp_path):
    pair = {"wide": ts.models.build("sdunet", width=4), "narrow": model()}
    path = tmp_path / "models.png"
    paper = {"wide": {"latency": 0.1}}
    found = profile.compare(pair, SHAPE, path, dice={"wide": [0.9, 0.94], "narrow": 0.8}, paper=paper, repeats=3)
    for name, m in pair.items():
        counted = profile.summary(m, SHAPE, show=False)
        assert found[name]["parameters"] == m.num_parameters()
        assert found[name]["multiply_adds"] == counted.multiply_adds > 0
        assert len(found[name]["latency"]["seconds"]) == 3
    assert found["wide"]["dice"] == [0.9, 0.94] and found["narrow"]["dice"] == [0.8]
    assert found["wide"]["paper"] == {"latency": 0.1} and found["narrow"]["paper"] == {}
    assert json.loads(json.dumps(found)).keys() == pair.keys()
    assert imread(path).shape[1] > 1500


def test_compare_builds_models_by_name_for_the_channels_of_the_input(monkeypatch):
    built = []
    monkeypatch.setattr(ts.models, "build", lambda name, in_channels: built.append((name, in_channels)) or nn.ReLU())
    found = profile.compare(["unet", "sdunet"], (1, 3, 32, 32), repeats=1)
    assert built == [("unet", 3), ("sdunet", 3)] and list(found) == ["unet", "sdunet"]


def test_compare_names_what_does_not_fit():
    with pytest.raises(ValueError, match="there is no b, c; the models are a"):
        profile.compare({"a": nn.ReLU()}, SHAPE, dice={"b": 1.0}, paper={"c": {}})
    with pytest.raises(ValueError, match="paper takes .* but has params"):
        profile.compare({"a": nn.ReLU()}, SHAPE, paper={"a": {"params": 1}})
    with pytest.raises(ValueError, match="there is no model"):
        profile.compare({}, SHAPE)
