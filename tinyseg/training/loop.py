"""The training loop that the commands share: `fit`.

What surrounds a step makes a run trustworthy: everything that decides the next step (weights, optimizer, schedule,
dropout counters, position in the epoch) is in the checkpoint, so that an interrupted run continues to the very weights
that it would have had; the order and augmentation of the samples depend on the seed and the epoch alone
(`tinyseg.data.Loader`).
"""

import time

from tinyseg import optim
from tinyseg.backend import device_of, fast, kernels_in_use, to_device
from tinyseg.models import checkpoint
from tinyseg.report import plots
from tinyseg.training.divergence import check_step, check_validation
from tinyseg.training.interruption import Interruption
from tinyseg.training.log import Log
from tinyseg.training.run import Bar

BETWEEN_PICTURES = 30  # seconds: a look while it runs; short epochs must not wait for pictures


def fit(step, loader, validate, *, schedule, epochs, run, meta=None, best="mean_iou", progress=True):
    """Train a model, keeping log, checkpoints and curves in a run directory.

    Parameters
    ----------
    step : Step
        Model, optimizer and loss. If `run` resumes, they take up its latest checkpoint, and so does the schedule.
    loader : Loader
        ``loader.epoch(e, start)`` yields batches x (N, C, H, W), y as the loss takes it.
    validate : callable
        ``validate(model) -> dict`` of scores, called after every epoch; ``"loss"`` and `best` among them.
    schedule : Schedule
        Advanced every step (`ReduceLROnPlateau`: every epoch, with the validation loss).
    epochs : int
        At least 1. A resumed run may be given more than it was begun with.
    run : RunDirectory
    meta : dict, optional
        Stored in the checkpoints: preprocessing, class names; ``meta["config"]`` is written to config.json too.
    best : str
        The score whose largest value decides which epoch `run.best` holds.
    progress : bool
        Show a progress bar.

    Returns
    -------
    dict
        ``history`` (a dict an epoch), ``best`` (that of the best epoch), ``steps``, ``seconds_per_step`` (the median of
        the epochs) and ``interrupted`` (a signal number, or None).

    Raises
    ------
    TrainingDiverged
        If the loss or a gradient is not finite; the message has step, learning rate and the layer.
    ValueError
        If there are no epochs.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, but is {epochs}.")
    model, optimizer, meta, log = step.model, step.optimizer, meta or {}, Log()
    device, by_epoch = device_of(model.parameters()[0].data), isinstance(schedule, optim.ReduceLROnPlateau)
    if run.resume:
        saved = checkpoint.restore(run.latest, model, optimizer)["training"]
        log.load_state_dict(saved["state"])
        schedule.load_state_dict(saved["schedule"])
        step.load_state_dict(saved["scaler"])
    run.begin()
    run.write_json("config.json", meta.get("config", {}))
    keep_freed_memory()

    def save(path, optimizer=None):
        states = {"state": log.state_dict(), "schedule": schedule.state_dict(), "scaler": step.state_dict()}
        checkpoint.save(path, model, optimizer, training=states, **meta)

    def draw():
        plots.curves(log.history, run.path / "curves.png", best=f"val_{best}")

    seconds, drawn, x = [], 0.0, None
    first = "first step (compiling kernels)" if "numba" in kernels_in_use(device) else "first step"
    with Interruption() as interruption, Bar(epochs * len(loader), log.step, not progress, first) as bar:
        while log.epoch < epochs and not interruption.signal:
            model.train()
            for x, y in on_device(loader.epoch(log.epoch, log.batch), device):
                start = time.perf_counter()
                figures = step(x, y)
                check_step(figures, step, x, log, run)
                log.count(figures, optimizer.lr)
                if figures.updated and not by_epoch:
                    schedule.step()
                seconds.append(time.perf_counter() - start)
                bar.advance(log, epochs, figures.loss)
                if interruption.signal:  # saved below; if that was the epoch's last step, validation comes on resuming
                    break
            else:
                scores = {name: float(value) for name, value in validate(model).items()}
                check_validation(scores["loss"], step, x, log, run)
                if by_epoch:
                    schedule.step(scores["loss"])
                improved = log.close_epoch(scores, seconds, step.columns(log), best)
                run.write_log(log.history)
                if improved:
                    save(run.best)  # before the latest, which knows of it
                save(run.latest, optimizer)
                bar.scores(scores)
                if time.monotonic() - drawn > BETWEEN_PICTURES:
                    draw()
                    drawn = time.monotonic()
        if log.batch:
            save(run.latest, optimizer)
    if log.history:
        draw()
    return log.summary() | {"interrupted": interruption.signal}


def on_device(batches, device):
    """Go through batches, each moved to a device; to the GPU while the step before is computed, if that can be."""
    upload = fast("gpu.upload") if device == "gpu" else None
    if upload is not None:
        return upload.uploaded(batches, device)
    return (tuple(to_device(a, device) for a in batch) for batch in batches)


def keep_freed_memory():
    """Let the C library keep the memory of freed arrays for the next ones: every step asks for the same sizes."""
    arena = fast("cpu.arena")
    if arena is not None:
        arena.reuse_memory()
