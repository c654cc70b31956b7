"""Training steps that are captured and replayed: those of ordinary launches, to the bit.

On the stand-in (fake_graphs.py). On a GPU the replays are compared with the same launches without a capture, because
ordinary products are CuPy's, whose bits may differ.
"""

import gc

import numpy as np
import pytest
from captured import Training, differ

from tinyseg import models, ops, optim, using
from tinyseg.fast.gpu import graphs, targets
from tinyseg.fast.gpu.graphs import recording, training_step
from tinyseg.fast.gpu.graphs.training_step import CapturedStep
from tinyseg.training import Step
from tinyseg.training.losses import dice_and_cross_entropy

pytestmark = pytest.mark.slow

TRAININGS = {
    "sdunet": {},
    "unet, classes, Adam with decay": {
        "name": "unet", "classes": 3, "loss": dice_and_cross_entropy(), "optimizer": optim.Adam,
        "options": {"lr": 2e-3, "weight_decay": 0.01},
    },
    "batch norm, no clipping": {"name": "unet_dw_bn", "clip": None, "options": {"lr": 1e-3}},
    "Dice": {"loss": lambda z, y: ops.soft_dice_loss(z, y, empty="ignore"), "model_options": {"head": "paper"}},
}  # fmt: skip


def expected(options, steps, cp, monkeypatch):
    """A training of the same launches, none of them replayed."""
    training = Training(**options)
    if cp.__name__ == "cupy":
        monkeypatch.setattr(training_step, "WARM_UP", steps)
        training.capture()
    found = training.run(steps).state()
    monkeypatch.undo()
    return found


# ----- training ----------------------------------------------------------------------
def test_fifty_replayed_steps_are_fifty_ordinary_ones(stand_in):
    ordinary, replayed = Training().run(50), Training().capture().run(50)
    if stand_in.__name__ == "cupy":
        np.testing.assert_allclose(replayed.figures[:5], ordinary.figures[:5], rtol=1e-3)
    else:
        assert replayed.launches == 48 and differ(ordinary.state(), replayed.state()) == []
    assert replayed.model.drops[0].counter[1] == 50 and replayed.adam.steps == 50


@pytest.mark.parametrize("options", TRAININGS.values(), ids=TRAININGS)
def test_replays_are_what_was_captured(options, stand_in):
    with pytest.MonkeyPatch.context() as patch:
        before = expected(options, 7, stand_in, patch)
    replayed = Training(**options).capture().run(7)
    assert replayed.trained.key is not None and differ(before, replayed.state()) == []


def test_other_shapes_take_the_ordinary_step(stand_in):
    runs = [Training(), Training().capture()]
    for training in runs:
        for k in range(8):
            training.step(*training.batch(k, (1, 8, 8) if k % 4 == 3 else (2, 8, 8)))
    if stand_in.__name__ != "cupy":
        assert runs[1].launches == 4 and differ(runs[0].state(), runs[1].state()) == []
    assert runs[1].trained.key[0][0] == (2, 1, 8, 8)


def test_weights_that_lie_elsewhere_are_captured_again(stand_in):
    runs = [Training().run(6), Training().capture().run(4)]
    graph = runs[1].trained.graph
    for p in runs[1].model.parameters():
        p.data = p.data.copy()
    runs[1].run(2, first=4)
    assert runs[1].trained.graph is not graph and runs[1].trained.key is None
    assert stand_in.__name__ == "cupy" or differ(runs[0].state(), runs[1].state()) == []


def spoiled(training, how):
    """A batch at which an ordinary step raises, or goes on in its own way."""
    x, y = training.batch(5)
    if how == "loss":
        x[0, 0, 2, 3] = np.nan
    if how == "labels":
        y[1, 2, 3] = 3
    return x, y


@pytest.mark.parametrize("how", ["loss", "labels"])
def test_a_bad_batch_changes_no_weight_and_goes_to_the_ordinary_step(how, stand_in):
    training = Training(classes=3, loss=ops.cross_entropy).capture().run(5)
    before, asked = training.state(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step, "__call__", lambda self, *batch: asked.append(differ(before, training.state())))
        training.trained(*spoiled(training, how))
    assert asked == [[]]  # weights, Adam's state, number of steps and dropout's counters are those from before
    if how == "labels":
        with pytest.raises(ValueError, match="class numbers must be 0 … 2, but range from 0 to 3"):
            training.trained(*spoiled(training, how))
    training.run(2, first=5)
    assert np.isfinite(training.figures[-1]).all()


def test_squares_that_float32_cannot_hold(stand_in):
    def steep(z, y):
        return ops.binary_cross_entropy_with_logits(z, y) * 1e25

    with np.errstate(over="ignore"):  # on the stand-in NumPy would warn
        runs = [Training(loss=steep).run(5), Training(loss=steep).capture().run(5)]
    assert runs[1].adam.steps == 5
    assert stand_in.__name__ == "cupy" or differ(runs[0].state(), runs[1].state()) == []


def test_what_cannot_be_captured_is_said_and_leaves_everything_in_order(stand_in):
    def looking(z, y):
        value = ops.binary_cross_entropy_with_logits(z, y)
        value.item()
        return value

    training = Training(loss=looking).capture().run(2)
    before = training.state()
    with pytest.raises(RuntimeError, match="cannot be captured as a CUDA graph: .*permitted.*reads results on the way"):
        training.run(1, first=2)
    assert differ(before, training.state()) == [] and recording.recording() is None
    training.trained = training.make(Step)
    training.run(2, first=2)
    assert stand_in.__name__ == "cupy" or differ(Training().run(4).state(), training.state()) == []
    Training().capture().run(4)


def test_numbers_that_would_be_frozen_are_refused(stand_in):
    def masked(z, y):
        return ops.binary_cross_entropy_with_logits(ops.dropout(z, 0.5, seed=3), y)

    with pytest.raises(ValueError, match="needs for a seed an array that is counted up, as nn.Dropout has, but got 3"):
        Training(loss=masked).capture().run(1)
    with pytest.raises(ValueError, match="with Adam or AdamW, float32 parameters .* but the optimizer is SGD"):
        Training(optimizer=optim.SGD, options={"lr": 0.1}).capture()
    with using(kernels="reference"), pytest.raises(ValueError, match="and the fast kernels"):
        Training().capture()
    training = Training().capture()
    forward, training.model.buffers, training.model.calls = training.model.forward, ("calls",), np.zeros(1, int)

    def counting(x):
        training.model.calls += 1
        return forward(x)

    training.model.forward = counting
    training.capture()
    with pytest.raises(ValueError, match="The model counts something on the host"):
        training.run(3)


def test_on_the_cpu_it_is_an_error():
    model = models.build("sdunet", width=4, levels=2)
    with pytest.raises(ValueError, match="CUDA graphs are for a GPU, but the model is on the CPU"):
        CapturedStep(model, optim.Adam(model.parameters()))


# ----- that these tests can fail -------------------------------------------------------
def frozen(kind):
    """`Recording.put_changing`, which looks at numbers of one dtype only once."""
    whole = recording.Recording.put_changing

    def put_changing(self, make, dtype):
        values = make()
        return whole(self, (lambda: values) if dtype is kind else make, dtype)

    return recording.Recording, "put_changing", put_changing


BREAKS = {
    "dropout's key": frozen(np.uint32),
    "Adam's rate": frozen(np.float32),
    "the inputs": (training_step, "copy_in", lambda arrays, inputs: None),
    "the numbers of a step": (recording.Recording, "write_changes", lambda self: None),
    "the constants": (recording.Recording, "finish_capture", recording.Recording.rewind_counters),
}


@pytest.mark.parametrize("what", BREAKS)
def test_what_is_frozen_is_seen(what, stand_in):
    with pytest.MonkeyPatch.context() as patch:
        before = expected({}, 5, stand_in, patch)
        assert differ(before, Training().capture().run(5).state()) == []
        patch.setattr(*BREAKS[what])
        if what == "the constants" and stand_in.__name__ == "cupy":
            pytest.skip("a kernel would follow addresses that are none")
        assert differ(before, Training().capture().run(5).state()) != []


def test_a_training_step_that_is_made_anew_gives_its_memory_back(stand_in):
    training, taken = Training().capture(), []
    for k in range(4):
        training.run(3, first=3 * k)
        gc.collect()
        taken.append(graphs.bytes_in_pools())
        for p in training.model.parameters():
            p.data = p.data.copy()
    assert taken[1] == taken[2] == taken[3]


def test_weights_of_a_loss_that_a_graph_uses_stay(stand_in):
    weights = [0.25, 0.5, 2.0]
    runs = [Training(classes=3, loss=lambda z, y: ops.cross_entropy(z, y, weight=weights)) for _ in range(2)]
    runs[1].run(1).capture().run(4, first=1)
    for k in range(100):
        targets._constant(stand_in, (float(k), 1.0), np.dtype(np.float32))
    assert targets._constant.cache_info().currsize <= 64
    gc.collect()
    runs[1].run(2, first=5)
    assert stand_in.__name__ == "cupy" or differ(runs[0].run(7).state(), runs[1].state()) == []
