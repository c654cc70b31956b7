"""Batches copied to the GPU one ahead: the same, in the same order, whole when they are handed over."""

import fake_cuda
import fake_cupy
import numpy as np
import pytest

from tinyseg import models, optim
from tinyseg.backend import devices
from tinyseg.data import Loader, SegmentationDataset
from tinyseg.fast.gpu.upload import uploaded
from tinyseg.training import RunDirectory, Step, evaluate, fit

pytestmark = pytest.mark.usefixtures("blank_curves")


@pytest.fixture
def data():
    images = np.random.default_rng(0).standard_normal((7, 8, 12)).astype(np.float32)
    return SegmentationDataset(images, images > 0.2, seed=1)


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(devices, "cp", fake_cupy)
    monkeypatch.setattr(fake_cuda.Stream, "made", [])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_batches_in_the_same_order(workers, data, stand_in):
    loader = Loader(data, 2, seed=3, workers=workers)
    kept = []
    for (x, y), (x_, y_) in zip(uploaded(loader.epoch(1), "gpu"), loader.epoch(1), strict=True):
        assert type(x) is type(y) is stand_in.ndarray and y.dtype == y_.dtype
        kept += [(x, x_), (y, y_)]
        np.testing.assert_array_equal(stand_in.asnumpy(x), x_)
        np.testing.assert_array_equal(stand_in.asnumpy(y), y_)
    for found, expected in kept:  # none was written over by those that followed
        np.testing.assert_array_equal(stand_in.asnumpy(found), expected)


def test_the_next_batch_is_under_way_and_waits_for_what_was_launched(fake):
    steps = uploaded([(np.full(3, k, np.float32), np.full((2, 2), k)) for k in range(3)], "gpu")
    next(steps)
    (stream,) = fake_cuda.Stream.made
    assert len(stream.waiting) == 2  # the second batch
    assert stream.log == ["wait", "do", "do", "record"] * 2
    next(steps)
    assert len(stream.waiting) == 2
    next(steps)
    assert stream.waiting == []
    assert list(steps) == []


def test_leaving_early_waits_for_the_copies(fake):
    closed = []

    def batches():
        try:
            for k in range(4):
                yield (np.full(3, k),)
        finally:
            closed.append(True)

    for _ in uploaded(batches(), "gpu"):
        break
    assert fake_cuda.Stream.made[0].waiting == [] and closed == [True]


def test_no_batches(fake):
    assert list(uploaded([], "gpu")) == []


def test_on_the_cpu_nothing_is_touched():
    batches = [(np.zeros(2), np.ones(3))]
    assert list(uploaded(batches, "cpu"))[0] is batches[0]


def test_fit_learns_the_same_on_the_device(data, tmp_path, stand_in):
    histories = []
    for device in ("cpu", "gpu"):
        model = models.build("sdunet", width=4, levels=2, seed=1).to(device)
        optimizer = optim.Adam(model.parameters(), lr=5e-3)
        step, run = Step(model, optimizer), RunDirectory(tmp_path / device)
        result = fit(
            step, Loader(data, 3, seed=1), lambda m: evaluate(m, data.images[:, 0], data.labels)[0],
            schedule=optim.WarmupLR(optimizer), epochs=1, run=run, progress=False,
        )  # fmt: skip
        histories.append(result["history"])
    for a, b in zip(*histories, strict=True):
        assert a["step"] == b["step"] and a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-3)
