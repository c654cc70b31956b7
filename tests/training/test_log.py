"""The state of a log as a checkpoint holds it, whole and damaged."""

import pytest

from tinyseg.training.log import Log

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
        (lambda state: state["history"][1].pop("lr"), "one set of columns"),
        (lambda state: [row.pop("step") for row in state["history"]], "one set of columns"),
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


def test_a_history_with_other_columns_than_the_validation_gives_is_refused_before_it_is_written():
    log = logged()
    with pytest.raises(ValueError, match="in its history val_iou does not fit"):
        log.close_epoch(SCORES | {"iou": 0.5}, [0.1], {}, "dice")
    assert len(log.history) == 2
