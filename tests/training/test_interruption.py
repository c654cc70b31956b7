"""Trainings that are stopped, and what somebody does to their folder meanwhile."""

import shutil
import signal

import numpy as np
import pytest

import tinyseg as ts
from tinyseg.data import Loader, SegmentationDataset
from tinyseg.training import RunDirectory, Step, evaluate, fit, loop

pytestmark = pytest.mark.usefixtures("blank_curves")


@pytest.fixture
def train(tmp_path):
    """Train for two epochs of three steps in a folder of this name; return the result and the run."""
    images = np.random.default_rng(0).standard_normal((6, 16, 24)).astype(np.float32)
    data = SegmentationDataset(images, images > 0.2, seed=1)

    def train(name, validating=lambda: None, stepping=lambda: None, resume=False, epochs=2):
        model = ts.models.build("sdunet", width=4, levels=2, seed=1)
        optimizer = ts.optim.Adam(model.parameters(), lr=5e-3)

        def validate(model):
            scores = evaluate(model, data.images[:, 0], data.labels)[0]
            validating()
            return scores

        def loss(logits, y):
            stepping()
            return ts.ops.binary_cross_entropy_with_logits(logits, y)

        run = RunDirectory(tmp_path / name, resume=resume)
        schedule = ts.optim.WarmupLR(optimizer, warmup=2)
        options = {"schedule": schedule, "epochs": epochs, "run": run, "progress": False}
        return fit(Step(model, optimizer, loss), Loader(data, 2, seed=1, workers=1), validate, **options), run

    return train


def once(action, call):
    """Return a function that carries `action` out at its call of this number."""
    calls = []

    def maybe():
        calls.append(1)
        if len(calls) == call:
            action()

    return maybe


def weights(run):
    return ts.checkpoint.read(run.latest)[0]


def assert_same_weights(run, other):
    for name, array in weights(run).items():
        np.testing.assert_array_equal(array, weights(other)[name], err_msg=name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_during_a_long_validation_does_not_wait_for_it(train, capfd, number):
    def long():
        signal.raise_signal(number)
        pytest.fail("the validation went on")

    _, whole = train("whole")
    stopped, run = train("run", validating=once(long, 2))
    assert stopped["interrupted"] == number and stopped["steps"] == 6 and len(stopped["history"]) == 1
    said = capfd.readouterr().err
    assert (
        f"Stopping at {signal.Signals(number).name}: the validation is broken off, and a checkpoint is written" in said
    )
    assert train("run", resume=True)[0]["steps"] == 6
    assert_same_weights(whole, run)


def test_a_stop_in_a_step_says_what_it_waits_for(train, capfd):
    train("run", stepping=once(lambda: signal.raise_signal(signal.SIGTERM), 2))
    assert "Stopping at SIGTERM: this step is finished, and a checkpoint is written." in capfd.readouterr().err


def test_a_second_ctrl_c_stops_at_once_and_leaves_no_temporary_file(train, monkeypatch):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train("run", stepping=once(twice, 5))
    finished, run = train("run", resume=True)
    assert finished["steps"] == 6 and not [p.name for p in run.path.iterdir() if p.name.startswith(".")]


def test_a_stop_before_the_first_step_can_be_resumed(train, monkeypatch):
    begin = RunDirectory.begin

    class Bar(loop.Bar):
        def __enter__(self):
            signal.raise_signal(signal.SIGTERM)
            return super().__enter__()

    _, whole = train("whole")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "Bar", Bar)
        stopped, run = train("run")
    assert stopped["steps"] == 0 and RunDirectory.begin is begin
    train("run", resume=True)
    assert_same_weights(whole, run)


def test_the_folder_is_deleted_during_the_training(train, tmp_path):
    def delete():
        shutil.rmtree(tmp_path / "run")

    _, whole = train("whole", epochs=3)
    with pytest.warns(UserWarning) as said:
        result, run = train("run", stepping=once(delete, 5), epochs=3)
    sentences = [str(warning.message) for warning in said]
    assert f"{run.path} was deleted: it is made again, and the training goes on." in sentences
    assert any("is not there: the best of the epochs that follow takes its place" in each for each in sentences)
    assert result["steps"] == 9 and result["best"]["epoch"] > 1
    assert {p.name for p in run.path.iterdir()} == {p.name for p in whole.path.iterdir()}
    assert_same_weights(whole, run)


def test_the_folder_is_deleted_and_the_training_stopped_then(train, tmp_path):
    def delete():
        shutil.rmtree(tmp_path / "run")
        signal.raise_signal(signal.SIGTERM)

    with pytest.warns(UserWarning, match="run was deleted"):
        stopped, run = train("run", stepping=once(delete, 5))
    assert stopped["steps"] == 5 and run.latest.is_file() and (run.path / "config.json").is_file()


def test_a_computer_that_crashes_costs_minutes_of_an_epoch_of_hours(train, monkeypatch):
    monkeypatch.setattr(loop, "BETWEEN_CHECKPOINTS", 0)

    def crash():
        raise RuntimeError("power failure")

    with pytest.raises(RuntimeError, match="power failure"):
        train("run", validating=crash)
    assert train("run", resume=True)[0]["steps"] == 6
