"""The training loop of the commands: `fit`.

A run that is interrupted and resumed ends with exactly the weights of a run without the interruption: the checkpoint
holds all that the next step depends on (weights, optimizer, schedule, dropout counters, position in the epoch), and the
order and augmentation of the samples depend only on the seed and the epoch (`tinyseg.data.Loader`).
"""

import contextlib
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from tinyseg import optim
from tinyseg.backend import device_of, fast, kernels_in_use, to_device
from tinyseg.backend.dispatch import NUMBA
from tinyseg.data import Loader
from tinyseg.data.fingerprint import fingerprint
from tinyseg.models import checkpoint
from tinyseg.report import plots
from tinyseg.training.averaging import WeightAverage
from tinyseg.training.divergence import check_step, check_validation, quiet
from tinyseg.training.interruption import Interruption, Stopped
from tinyseg.training.log import Log
from tinyseg.training.lost import ProcessLost
from tinyseg.training.parallel import check_same_start
from tinyseg.training.run import Bar, RunDirectory
from tinyseg.training.step import Step

BETWEEN_PICTURES = 30  # seconds between two drawings of the curves, so that short epochs do not wait for them
BETWEEN_CHECKPOINTS = 300  # seconds within an epoch: what a computer that crashes costs


def fit(
    step: Step,
    loader: Loader,
    validate: Callable[[Any], Mapping[str, float]],
    *,
    schedule: optim.Schedule,
    epochs: int,
    run: RunDirectory,
    meta: dict[str, Any] | None = None,
    best: str = "mean_iou",
    progress: bool = True,
    callback: Callable[[dict[str, float]], object] | None = None,
    average: WeightAverage | None = None,
) -> dict[str, Any]:
    """Train a model; write the log, checkpoints and curves to a run directory.

    Parameters
    ----------
    step : Step
        Model, optimizer and loss. If `run` resumes, these and the schedule continue from its latest checkpoint. If
        several processes train together (`training.microbatches`), each calls `fit`; the first one validates and
        writes, and the others have a `training.run.FollowedRun`.
    loader : Loader
        ``loader.epoch(e, start)`` yields batches x (N, C, H, W) and y, as the loss takes it.
    validate : callable
        ``validate(model) -> dict`` of scores, with ``"loss"`` and `best` among them; called after every epoch.
    schedule : Schedule
        Advanced every step (`ReduceLROnPlateau`: every epoch, with the validation loss).
    epochs : int
        At least 1. A resumed run may get more epochs than it began with.
    run : RunDirectory
    meta : dict, optional
        Stored in the checkpoints: preprocessing, class names … ``meta["config"]`` is also written to config.json.
    best : str
        Name of a score: `run.best` holds the epoch where it is largest.
    progress : bool
        Show a progress bar.
    callback : callable, optional
        ``callback(row)``, called after every epoch, when its checkpoint has been written, with the row of log.csv: a
        dict of numbers. `docs/howto/callback.md` sends it to TensorBoard.
    average : WeightAverage, optional
        Of the model's weights, updated after every step. The mean is what is validated and what the checkpoints hold as
        the model; the latest also holds the weights from which the training goes on.

    Returns
    -------
    dict
        ``history`` (a dict for each epoch), ``best`` (the dict of the best epoch), ``steps``, ``seconds_per_step`` (the
        median of the epochs) and ``interrupted`` (a signal number, or None).

    Raises
    ------
    TrainingDiverged
        If the loss or a gradient is not finite; the message names the step, the learning rate and the layer.
    ValueError
        If `epochs` is below 1.
    ProcessLost
        If another of the processes that train together has ended. The latest checkpoint is of the last step.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, but is {epochs}.")
    with run:
        return _train(step, loader, validate, schedule, epochs, run, meta or {}, best, progress, callback, average)


def _train(step, loader, validate, schedule, epochs, run, meta, best, progress, callback, average):
    model, optimizer, group, log, interruption = step.model, step.optimizer, step.group, Log(), Interruption()
    device, by_epoch = device_of(model.parameters()[0].data), isinstance(schedule, optim.ReduceLROnPlateau)
    if run.resume:
        saved = checkpoint.restore(run.latest, model, optimizer, average)["training"]
        with reading_state(run.latest):
            log.load_state_dict(saved["state"])
            schedule.load_state_dict(saved["schedule"])
            step.load_state_dict(saved["scaler"])
            if average is not None:
                average.updates = int(saved["updates"])
        if log.epoch > epochs:
            raise ValueError(f"epochs must be at least {log.epoch}, as many as {run.path} has already: found {epochs}.")
        look_for_best(run, model, log, epochs)

    def begin():
        weights = 4 * model.num_parameters()
        copies = 8 if average is None else 10  # two checkpoints, the latest with Adam's arrays; the new beside the old
        run.begin(size=copies * weights)
        run.write_config(meta.get("config", {}))

    def keep_folder():
        if run.make_again():
            begin()

    def save(path, optimizer=None):
        if group.rank > 0:
            return
        keep_folder()
        states = {"state": log.state_dict(), "schedule": schedule.state_dict(), "scaler": step.state_dict()}
        states |= {} if average is None else {"updates": average.updates}
        checkpoint.save(path, model, optimizer, average, training=states, **meta)

    def draw():
        if group.rank > 0:
            return
        with plots.drawing(run.path / "curves.png") as picture:
            plots.curves(log.history, picture, best=f"val_{best}")

    def signalled():
        """Return a signal that any of the processes has got, or 0: the same in all of them."""
        return group.largest(interruption.signal or 0)

    def score():
        """Return the scores; None if a signal comes, after the last step of an epoch too: the resumed run validates."""
        try:
            with interruption.at_once(), quiet(), average or contextlib.nullcontext():
                return {name: float(value) for name, value in validate(model).items()}
        except Stopped:
            return None

    if group.size > 1:
        config = {name: value for name, value in meta.get("config", {}).items() if name != "computer"}
        check_same_start(
            group, step=log.step, batches=len(loader), epochs=epochs, folder=run.path.resolve(), options=config,
            weights=fingerprint(*model.state_dict().values()),
        )  # fmt: skip
    begin()
    keep_freed_memory()
    seconds, drawn, saved, x, stop = [], 0.0, time.monotonic(), None, 0
    first = "first step (compiling kernels)" if kernels_in_use(device) == NUMBA else "first step"
    shown = progress and group.rank == 0
    with (
        interruption,
        saved_if_lost(save, run.latest, optimizer),
        Bar(epochs * len(loader), log.step, not shown, first) as bar,
    ):
        while log.epoch < epochs and not (stop := signalled()):
            model.train()
            for x, y in on_device(loader.epoch(log.epoch, log.batch), device):
                start = time.perf_counter()
                with quiet():
                    figures = step(x, y)
                check_step(figures, step, x, log, run)
                log.count(figures, optimizer.lr)
                if figures.updated and not by_epoch:
                    schedule.step()
                if figures.updated and average is not None:
                    average.update()
                seconds.append(time.perf_counter() - start)
                bar.advance(log, epochs, figures.loss)
                if stop := signalled():
                    break
                if time.monotonic() - saved > BETWEEN_CHECKPOINTS:
                    save(run.latest, optimizer)
                    saved = time.monotonic()
            if group.size > 1:  # a process can be lost meanwhile
                save(run.latest, optimizer)
            scores = group.from_first(score)
            if scores is None:
                stop = signalled()
                break
            check_validation(scores["loss"], step, x, log, run)
            if by_epoch:
                schedule.step(scores["loss"])
            if log.best is not None and not run.best.is_file():
                miss_best(run, log)
            keep_folder()
            improved = log.close_epoch(scores, seconds, step.columns(log), best)
            run.write_log(log.history)
            if improved:
                save(run.best)  # before the latest, whose log says that this one exists
            save(run.latest, optimizer)
            saved = time.monotonic()
            bar.scores(scores)
            if callback is not None and group.rank == 0:
                callback(dict(log.history[-1]))
            if time.monotonic() - drawn > BETWEEN_PICTURES:
                draw()
                drawn = time.monotonic()
        if log.batch or not run.latest.is_file():  # the second: stopped before the first step
            save(run.latest, optimizer)
    stop = stop or signalled()  # one that came after the last step
    if log.history:
        draw()
    return log.summary() | {"interrupted": stop or None}


@contextlib.contextmanager
def saved_if_lost(save, path, optimizer):
    """If another process ends in the with-block, write the checkpoint of the last step before this one ends too."""
    try:
        yield
    except ProcessLost:
        save(path, optimizer)
        raise


@contextlib.contextmanager
def reading_state(path, advice="Begin the run again with --overwrite."):
    """Turn what comes of a state that has other parts or other types into a ValueError that names the file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(
            f'{path} is damaged: "training" in its metadata, the position in the run, does not fit '
            f"({type(error).__name__}: {error}). {advice}"
        ) from error


def look_for_best(run, model, log, epochs):
    """Before a run goes on, see that the weights of its best epoch are there: the report at the end needs them.

    If they are gone, a warning says that the best of the epochs that follow takes their place. A ValueError if no epoch
    follows, or if the file is damaged or holds another network.
    """
    if log.best is None:
        return
    if not run.best.is_file():
        if log.epoch >= epochs:
            raise ValueError(f"{describe_best(run, log)} is not there: train more --epochs, of which the best is kept.")
        miss_best(run, log)
        return
    try:
        meta = checkpoint.check(run.best, model)
        found = Log()
        with reading_state(run.best, "Its place in a run is not known."):
            found.load_state_dict(meta["training"]["state"])
        # A run that was stopped between its two files has a newer best, of an epoch that is trained again now.
        again = log.epoch < found.epoch <= epochs and str(found.history[: log.epoch]) == str(log.history)
        if not again and str(found.history) != str(log.history[: log.best + 1]):
            raise ValueError(f"{run.best} is of another run, or of epoch {found.epoch}.")
    except ValueError as error:
        raise ValueError(
            f"{error} It should hold the weights of epoch {log.best + 1}, the best of this run. Move it elsewhere and "
            "resume again: the best of the epochs that follow takes its place."
        ) from None


def describe_best(run, log):
    """Say which file has the best epoch's weights."""
    return f"{run.best}, which holds the weights of epoch {log.best + 1}, the best of this run,"


def miss_best(run, log):
    """Go on without the best epoch's weights, which somebody has deleted."""
    said = f"{describe_best(run, log)} is not there: the best of the epochs that follow takes its place."
    warnings.warn(said, stacklevel=3)
    log.best = None


def on_device(batches, device):
    """Yield the batches, moved to a device. With tinyseg/fast, the GPU gets the next batch during the current step."""
    upload = fast("gpu.upload") if device == "gpu" else None
    if upload is not None:
        return upload.uploaded(batches, device)
    return (tuple(to_device(a, device) for a in batch) for batch in batches)


def keep_freed_memory():
    """Let the C library keep the memory of freed arrays: every step needs arrays of the same sizes again."""
    arena = fast("cpu.arena")
    if arena is not None:
        arena.reuse_memory()
