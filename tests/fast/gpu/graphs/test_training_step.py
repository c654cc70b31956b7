"""`fit` with CUDA graphs: the checkpoints and logs of a run without."""

import csv

import numpy as np
import pytest

import tinyseg as ts
from tinyseg import models, ops, optim
from tinyseg.data import Loader, SegmentationDataset
from tinyseg.fast.gpu.graphs.training_step import CapturedStep
from tinyseg.training import RunDirectory, Step, TrainingDiverged, evaluate, fit

pytestmark = pytest.mark.usefixtures("blank_curves")


@pytest.fixture
def data():
    images = np.random.default_rng(0).standard_normal((7, 8, 12)).astype(np.float32)
    return SegmentationDataset(images, images > 0.2, seed=1)


def run_fit(data, path, cuda_graph, epochs=3, resume=False, device="gpu", spoil=False):
    model = models.build("sdunet", width=4, levels=2, seed=1).to(device)
    optimizer = optim.Adam(model.parameters(), lr=5e-3)
    schedule = optim.CosineAnnealingLR(optimizer, T_max=12, warmup=2)
    run = RunDirectory(path, resume=resume)

    def validate(model):
        scores, _ = evaluate(model, data.images[:, 0], data.labels)
        if spoil:  # what comes in the next epoch
            data.images[5, 0, 1, 1] = np.inf
        return scores

    step = (CapturedStep if cuda_graph else Step)(model, optimizer, ops.dice_bce_with_logits, clip=0.5)
    loader = Loader(data, 2, seed=1)
    result = fit(step, loader, validate, schedule=schedule, epochs=epochs, run=run, progress=False)
    return result, run


def written(run):
    """What a run leaves but for its times: arrays of both checkpoints, and the log."""
    arrays = [ts.checkpoint.read(path)[0] for path in (run.latest, run.best)]
    with open(run.path / "log.csv") as file:
        rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]
    return *arrays, rows


def same(a, b):
    *arrays, rows = a
    *others, other_rows = b
    assert rows == other_rows
    for left, right in zip(arrays, others, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@pytest.fixture
def replays(monkeypatch):
    """The steps that were replays, by their number."""
    made, whole = [], CapturedStep._replay

    def replay(self, x, y):
        made.append(self.optimizer.steps + 1)
        return whole(self, x, y)

    monkeypatch.setattr(CapturedStep, "_replay", replay)
    return made


def test_the_same_files_with_and_without(data, tmp_path, stand_in, replays):
    _, ordinary = run_fit(data, tmp_path / "ordinary", False)
    _, run = run_fit(data, tmp_path / "graph", True)
    assert replays == [3, 5, 6, 7, 9, 10, 11]  # every fourth batch is smaller
    if stand_in.__name__ == "cupy":
        assert float(written(run)[2][-1]["train_loss"]) == pytest.approx(
            float(written(ordinary)[2][-1]["train_loss"]), 1e-2
        )
        return
    same(written(ordinary), written(run))
    run_fit(data, tmp_path / "parts", True, epochs=2)
    _, parts = run_fit(data, tmp_path / "parts", True, resume=True)
    same(written(ordinary), written(parts))


def test_divergence_is_noticed_in_its_step_with_the_same_words(data, tmp_path, stand_in, replays):
    messages = []
    for cuda_graph in (False, True):
        path = tmp_path / str(cuda_graph)
        with np.errstate(all="ignore"), pytest.raises(TrainingDiverged, match="input batch itself is not fin") as error:
            run_fit(data, path, cuda_graph, spoil=True)
        messages.append(str(error.value).replace(str(path), "path"))
        data.images[...] = np.where(np.isfinite(data.images), data.images, 0.5)
    assert messages[0] == messages[1] and f"at step {replays[-1]} (epoch 2)" in messages[1]


def test_on_the_cpu_it_is_refused_before_anything_is_written(data, tmp_path):
    with pytest.raises(ValueError, match="CUDA graphs are for a GPU, but the model is on the CPU"):
        run_fit(data, tmp_path / "run", True, device="cpu")
    assert not (tmp_path / "run").exists()
