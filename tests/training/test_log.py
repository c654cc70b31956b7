"""The state of a log as a checkpoint holds it, whole and damaged."""

import csv

import pytest

from tinyseg.training.log import Log
from tinyseg.training.run import RunDirectory

SCORES = {"dice": 0.5, "loss": 1.0}


def logged(epochs=2):
    log = Log()
    for _ in range(epochs):
        log.close_epoch(SCORES, [0.1], {}, "dice")
    return log


def test_a_state_is_taken_up():
    log = Log()
    log.load_state_dict(logged().state_dict())
    log.close_epoch(SCORES, [0.1], {}, "dice")
    assert [row["epoch"] for row in log.history] == [1, 2, 3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state["history"][1].pop("lr"), "the columns of every log"),
        (lambda state: [row.pop("step") for row in state["history"]], "the columns of every log"),
        (lambda state: state["history"][0].update(lr=None), "found null"),
        (lambda state: state["history"][0].update(step=10**400), "out of range"),
        (lambda state: state.update(epoch=7), "2 epochs"), (lambda state: state.update(step=-1), "at step"),
    ],
)  # fmt: skip
def test_a_damaged_state_is_refused(change, words):
    state = logged().state_dict()
    change(state)
    with pytest.raises(ValueError, match=words):
        Log().load_state_dict(state)


def test_a_run_that_was_begun_with_other_scores_goes_on(tmp_path):
    log = logged()
    assert log.close_epoch(SCORES | {"iou": 0.5}, [0.1], {}, "iou")  # the best: the rows before have no such score
    assert not log.close_epoch(SCORES | {"iou": 0.4}, [0.1], {}, "iou")
    again = Log()
    again.load_state_dict(log.state_dict())
    assert again.best == 2
    with RunDirectory(tmp_path / "run") as run:
        run.write_log(log.history)
    with open(tmp_path / "run" / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["val_iou"] for row in rows] == ["", "", "0.5", "0.4"]
    assert [row["val_dice"] for row in rows] == ["0.5"] * 4
