import csv
import json
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import tinyseg as ts
from tinyseg import models, ops, optim
from tinyseg.data import Loader, SegmentationDataset
from tinyseg.training import RunDirectory, Step, TrainingDiverged, evaluate, fit
from tinyseg.training.interruption import STOPS, Interruption

pytestmark = pytest.mark.usefixtures("blank_curves")


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    images = rng.standard_normal((6, 16, 24)).astype(np.float32)
    return SegmentationDataset(images, images > 0.2, seed=1)


def pieces(data, lr=5e-3, steps=12, **options):
    model = models.build("sdunet", **({"width": 4, "levels": 3, "seed": 1} | options))
    optimizer = optim.Adam(model.parameters(), lr=lr)
    schedule = optim.CosineAnnealingLR(optimizer, T_max=steps, warmup=2)
    loader = Loader(data, 2, seed=1, workers=1)
    return model, optimizer, schedule, loader, lambda m: evaluate(m, data.images[:, 0], data.labels)[0]


def run_fit(data, path, epochs=4, resume=False, **options):
    run = RunDirectory(path, resume=resume)
    of_step = {k: options.pop(k) for k in ("clip", "loss") if k in options}
    of_fit = {k: options.pop(k) for k in ("meta", "best", "callback") if k in options}
    model, optimizer, schedule, loader, validate = pieces(data, **options)
    step = Step(model, optimizer, **of_step)
    result = fit(step, loader, validate, schedule=schedule, epochs=epochs, run=run, progress=False, **of_fit)
    return result, run


def test_a_run_leaves_what_the_design_promises(data, tmp_path):
    result, run = run_fit(data, tmp_path / "run", meta={"classes": ["inside"]})
    assert {p.name for p in run.path.iterdir()} == {
        "config.json", "checkpoint.safetensors", "best.safetensors", "log.csv", "curves.png"
    }  # fmt: skip
    with open(run.path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["3", "6", "9", "12"]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert float(rows[2]["val_dice"]) == result["history"][2]["val_dice"]
    assert result["steps"] == 12 and result["interrupted"] is None and result["seconds_per_step"] > 0
    best = max(result["history"], key=lambda row: row["val_mean_iou"])
    assert result["best"] == best
    model = ts.checkpoint.load(run.best)
    assert model.meta["classes"] == ["inside"]
    assert evaluate(model, data.images[:, 0], data.labels)[0]["mean_iou"] == best["val_mean_iou"]


def test_a_callback_gets_the_row_of_every_epoch_when_its_checkpoint_is_there(data, tmp_path):
    rows = []

    def note(row):
        assert (
            ts.checkpoint.load(tmp_path / "run" / "checkpoint.safetensors").meta["training"]["state"]["epoch"]
            == row["epoch"]
        )
        rows.append(row)

    result, _ = run_fit(data, tmp_path / "run", epochs=2, callback=note)
    assert rows == result["history"]
    run_fit(data, tmp_path / "run", epochs=3, callback=note, resume=True)
    assert [row["epoch"] for row in rows] == [1, 2, 3]


def test_a_run_stopped_between_epochs_goes_on_to_the_same_bits(data, tmp_path):
    whole, run = run_fit(data, tmp_path / "whole", epochs=4)
    run_fit(data, tmp_path / "parts", epochs=2)
    parts, other = run_fit(data, tmp_path / "parts", epochs=4, resume=True)
    assert_same_weights(run.latest, other.latest)
    assert [r["train_loss"] for r in whole["history"]] == [r["train_loss"] for r in parts["history"]]


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": KeyError}, {"state": [[]]}, {"state": {}}, {"scaler": KeyError}, {"schedule": {"t": 1}},
        {"state": {"history": "x"}}, {"state": {"epoch": -1}}, {"state": {"best": 7}}, {"state": {"history": []}},
        {"state": {"lr": float("nan")}}, {"state": {"loss_sum": float("inf")}}, {"state": {"step": 10**30}},
    ],
)  # fmt: skip
def test_a_state_that_was_damaged_gets_a_sentence_with_the_files_name(change, data, tmp_path):
    _, run = run_fit(data, tmp_path / "run", epochs=1)
    with safe_open(run.latest, "numpy") as file:
        meta, arrays = json.loads(file.metadata()["tinyseg"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, value in change.items():
        before = meta["training"].pop(name)
        if value is not KeyError:
            meta["training"][name] = before | value if value and name == "state" and isinstance(value, dict) else value
    save_file(arrays, run.latest, metadata={"tinyseg": json.dumps(meta)})
    with pytest.raises(ValueError, match=r'checkpoint\.safetensors is damaged: "training" in its metadata'):
        run_fit(data, tmp_path / "run", epochs=2, resume=True)


@pytest.mark.parametrize("name", ["model.encoder.0.convs.0.weight", "optimizer.m.0"])
def test_a_run_does_not_go_on_from_numbers_that_are_not_finite(name, data, tmp_path):
    _, run = run_fit(data, tmp_path / "run", epochs=1)
    arrays, meta = ts.checkpoint.read(run.latest)
    arrays[name] = np.full_like(arrays[name], np.nan)
    save_file(arrays, run.latest, metadata={"tinyseg": json.dumps(meta)})
    before = run.latest.read_bytes()
    with pytest.raises(ValueError, match=rf"checkpoint\.safetensors is damaged: {name} holds NaN or infinity"):
        run_fit(data, tmp_path / "run", epochs=2, resume=True)
    assert run.latest.read_bytes() == before


def test_a_run_whose_best_checkpoint_is_gone_says_so_before_it_trains(data, tmp_path):
    _, run = run_fit(data, tmp_path / "run", epochs=2)
    run.best.write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"best\.safetensors .*Move it elsewhere and resume again"):
        run_fit(data, tmp_path / "run", epochs=3, resume=True)
    ts.checkpoint.save(run.best, models.build("unet", width=4, levels=2))
    with pytest.raises(ValueError, match=r"best\.safetensors holds the model .*'unet'.*Move it elsewhere"):
        run_fit(data, tmp_path / "run", epochs=3, resume=True)
    arrays, meta = ts.checkpoint.read(run.latest)
    arrays["model.head.bias.0"] = arrays.pop("model.head.bias")
    save_file(arrays, run.best, metadata={"tinyseg": json.dumps(meta)})
    with pytest.raises(ValueError, match=r"best\.safetensors is damaged: missing: head\.bias; .*Move it elsewhere"):
        run_fit(data, tmp_path / "run", epochs=3, resume=True)
    run.best.unlink()
    with pytest.raises(ValueError, match=r"best\.safetensors, .* is not there: train more --epochs"):
        run_fit(data, tmp_path / "run", epochs=2, resume=True)
    with pytest.warns(UserWarning, match=r"best\.safetensors, .* the best of the epochs that follow takes its place"):
        result, run = run_fit(data, tmp_path / "run", epochs=3, resume=True)
    assert result["best"]["epoch"] == 3 and ts.checkpoint.load(run.best).meta["training"]["state"]["epoch"] == 3


def test_the_best_checkpoint_is_of_another_epoch_or_run(data, tmp_path):
    """Somebody has put an older checkpoint back, or copied a file from another run."""
    _, run = run_fit(data, tmp_path / "run", epochs=1)
    older = run.latest.read_bytes()
    result, _ = run_fit(data, tmp_path / "run", epochs=4, resume=True)
    assert result["best"]["epoch"] > 1
    newest = run.latest.read_bytes()
    run.latest.write_bytes(older)
    with pytest.raises(ValueError, match=r"best\.safetensors is of another run, or of epoch \d\. .*weights of epoch 1"):
        run_fit(data, tmp_path / "run", epochs=1, resume=True)
    again, _ = run_fit(data, tmp_path / "run", epochs=4, resume=True)  # the epoch of the newer best is trained again
    assert again["best"]["val_mean_iou"] == result["best"]["val_mean_iou"] and run.latest.read_bytes() != newest
    _, other = run_fit(data, tmp_path / "other", epochs=4, lr=1e-2)
    run.best.write_bytes(other.best.read_bytes())
    with pytest.raises(ValueError, match=r"best\.safetensors is of another run.*Move it elsewhere"):
        run_fit(data, tmp_path / "run", epochs=5, resume=True)


def test_the_best_checkpoint_is_given_for_the_latest(data, tmp_path):
    _, run = run_fit(data, tmp_path / "run", epochs=1)
    run.latest.write_bytes(run.best.read_bytes())
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors holds weights and no state of an optimizer"):
        run_fit(data, tmp_path / "run", epochs=2, resume=True)


def test_a_resumed_run_is_to_have_fewer_epochs_than_it_has(data, tmp_path):
    run_fit(data, tmp_path / "run", epochs=2)
    with pytest.raises(ValueError, match="epochs must be at least 2, as many as .*run has already: found 1"):
        run_fit(data, tmp_path / "run", epochs=1, resume=True)


def test_a_disk_without_room_for_the_checkpoints_is_found_before_the_first_step(data, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match="run could not be written: No space left on device. .* MiB are needed"):
        run_fit(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_batch_norm_and_plateau_resume_too(data, tmp_path):
    def part(path, epochs, resume=False):
        run = RunDirectory(path, resume=resume)
        model, optimizer, _, loader, validate = pieces(data, norm="batch")
        plateau = optim.ReduceLROnPlateau(optimizer, patience=0, threshold=1e9)  # falls every other epoch
        fit(Step(model, optimizer), loader, validate, schedule=plateau, epochs=epochs, run=run, progress=False)
        return run

    whole = part(tmp_path / "a", 4)
    part(tmp_path / "b", 3)
    assert_same_weights(whole.latest, part(tmp_path / "b", 4, resume=True).latest)


def assert_same_weights(a, b):
    (left, _), (right, _) = ts.checkpoint.read(a), ts.checkpoint.read(b)
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@pytest.mark.parametrize("stop", [number for number in STOPS if number != signal.SIGINT])
def test_interruption_in_mid_epoch_is_continued_to_the_same_bits(data, tmp_path, stop):
    """The handler is called by hand here; a real process is killed in test_train_isbi.py."""
    calls = []

    def loss(logits, y):
        calls.append(1)
        if len(calls) == 5:  # the second step of the second epoch
            signal.raise_signal(stop)
        return ops.binary_cross_entropy_with_logits(logits, y)

    _, whole = run_fit(data, tmp_path / "whole")
    stopped, run = run_fit(data, tmp_path / "run", loss=loss)
    assert stopped["interrupted"] == stop and stopped["steps"] == 5 and len(stopped["history"]) == 1
    finished, run = run_fit(data, tmp_path / "run", resume=True)
    assert finished["steps"] == 12 and len(finished["history"]) == 4
    assert_same_weights(whole.latest, run.latest)
    assert signal.getsignal(stop) == signal.SIG_DFL


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP here")
def test_a_training_under_nohup_outlives_its_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGHUP)
        assert interruption.signal is None and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_in_the_last_step_of_an_epoch_leaves_validation_to_the_resumed_run(data, tmp_path):
    calls = []

    def loss(logits, y):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return ops.binary_cross_entropy_with_logits(logits, y)

    whole, _ = run_fit(data, tmp_path / "whole")
    stopped, run = run_fit(data, tmp_path / "run", loss=loss)
    assert stopped["steps"] == 3 and stopped["history"] == [] and stopped["best"] is None and run.latest.exists()
    finished, other = run_fit(data, tmp_path / "run", resume=True)
    assert_same_weights(RunDirectory(tmp_path / "whole", resume=True).latest, other.latest)
    for a, b in zip(whole["history"], finished["history"], strict=True):
        assert {k: v for k, v in a.items() if "seconds" not in k} == {k: v for k, v in b.items() if "seconds" not in k}


@pytest.mark.parametrize("what", ["parameter", "layer", "input", "gradient", "loss"])
def test_divergence_stops_with_step_rate_and_place_and_keeps_the_checkpoint(data, tmp_path, what):
    _, run = run_fit(data, tmp_path / "run", epochs=1)
    kept = run.latest.read_bytes()
    model, optimizer, schedule, loader, validate = pieces(data)
    if what == "input":
        data.images[...] = np.inf
    message = {
        "parameter": "parameter decoder.0.conv.pointwise.weight is not finite",
        "layer": "layer encoder.1.convs.0 is the first whose output is not finite",
        "input": "the input batch itself is not finite",
        "gradient": "gradient norm is (inf|nan).*the gradient of encoder.0.convs.0.weight is not finite",
        "loss": "all layers are finite, so it arises in the loss",
    }[what]

    class Steep(ts.Function):
        def forward(self, x):
            return x

        def backward(self, gy):
            return gy * np.float32(1e38) * np.float32(1e38)

    def losing(logits, y):
        sabotage()
        value = ops.binary_cross_entropy_with_logits(logits, y)
        return value * float("nan") if what == "loss" else Steep()(value) if what == "gradient" else value

    def sabotage():
        if optimizer.steps == 4:
            if what == "parameter":
                model.decoder[0].conv.pointwise.weight.data[0, 0] = np.nan
            if what == "layer":
                model.encoder[1].convs[0].pointwise.weight.data[...] = 3e38

    run = RunDirectory(run.path, resume=True)
    with pytest.raises(TrainingDiverged, match=message) as caught:
        step = Step(model, optimizer, losing)
        fit(step, loader, validate, schedule=schedule, epochs=4, run=run, progress=False)
    assert (
        "learning rate" in str(caught.value) and "step " in str(caught.value) and str(run.latest) in str(caught.value)
    )
    assert kept == run.latest.read_bytes()


def test_clipping_is_applied(data, tmp_path):
    _, free = run_fit(data, tmp_path / "free", epochs=1)
    _, clipped = run_fit(data, tmp_path / "clipped", epochs=1, clip=1e-3)
    (a, _), (b, _) = ts.checkpoint.read(free.latest), ts.checkpoint.read(clipped.latest)
    assert abs(b["optimizer.m.0"]).max() < 1e-3 < abs(a["optimizer.m.0"]).max()


def test_validation_that_is_not_finite_stops_the_run_too(data, tmp_path):
    model, optimizer, schedule, loader, validate = pieces(data)

    def spoiled(m):
        m.head.weight.data[...] = np.nan
        return validate(m)

    run = RunDirectory(tmp_path / "run")
    with pytest.raises(TrainingDiverged, match="validation loss is nan at step .* parameter head.weight is not finite"):
        fit(Step(model, optimizer), loader, spoiled, schedule=schedule, epochs=2, run=run, progress=False)


def test_a_score_that_is_no_number_does_not_stay_the_best(data, tmp_path):
    figures = iter([float("nan"), 0.5, 0.9, 0.7])

    def validate(model):
        return {"loss": np.float32(1), "score": next(figures)}

    run = RunDirectory(tmp_path / "run")
    model, optimizer, schedule, loader, _ = pieces(data)
    step = Step(model, optimizer)
    result = fit(step, loader, validate, schedule=schedule, epochs=4, run=run, best="score", progress=False)
    assert result["best"]["epoch"] == 3


def test_the_log_has_the_rate_that_was_used(data, tmp_path):
    result, _ = run_fit(data, tmp_path / "run")
    assert result["history"][-1]["lr"] > 0


@pytest.mark.parametrize("epochs", [0, -1])
def test_no_epochs_are_refused_before_anything_is_written(data, tmp_path, epochs):
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        run_fit(data, tmp_path / "run", epochs=epochs)
    assert not (tmp_path / "run").exists()


def test_a_signal_after_the_last_step_is_told_to_the_caller(data, tmp_path):
    """A batch system that stops a run while its last checkpoint is written wants no report that takes minutes."""
    result, _ = run_fit(data, tmp_path / "run", epochs=1, callback=lambda row: signal.raise_signal(signal.SIGTERM))
    assert result["interrupted"] == signal.SIGTERM and len(result["history"]) == 1
