"""The training loop that the examples share: `fit` and `evaluate`.

One step is forward, loss, backward, Adam, as in any textbook. What surrounds it makes a run trustworthy:
everything that decides the next step (weights, optimizer, schedule, dropout counters, position in the epoch) is in the
checkpoint, so that an interrupted run continues to the very weights that it would have had; the order and
augmentation of the samples depend on the seed and the epoch alone (`tinyseg.data.Loader`).
"""

import math
import statistics
import time

import numpy as np

from tinyseg import nn, ops, optim
from tinyseg.autograd import no_grad
from tinyseg.backend import device_of, fast, kernels_in_use
from tinyseg.models import checkpoint
from tinyseg.report import plots
from tinyseg.training.run import Bar, Interruption, running_dice

LossScaler=fast("gpu.mixed_precision").LossScaler; in_float16=fast("gpu.mixed_precision").in_float16; TrainingStep=fast("gpu.graphs.training_step").TrainingStep; uploaded=fast("gpu.upload").uploaded




class TrainingDiverged(RuntimeError):
    """The loss or a gradient is not finite. The checkpoint on disk is from before."""


def fit(
    model, optimizer, schedule, loader, validate, *, epochs, run, loss=ops.binary_cross_entropy_with_logits, meta=None,
    clip=None, best="mean_iou", progress=True, cuda_graph=False, mixed_precision=False,
):  # fmt: skip
    """Train a model, keeping log, checkpoints and curves in a run directory.

    Parameters
    ----------
    model : UNet
        On the device to train on. If `run` resumes, model, optimizer and schedule take up its latest checkpoint.
    optimizer : Optimizer
    schedule : Schedule
        Advanced every step (`ReduceLROnPlateau`: every epoch, with the validation loss).
    loader : Loader
        ``loader.epoch(e, start)`` yields batches x (N, C, H, W), y as `loss` takes it.
    validate : callable
        ``validate(model) -> dict`` of scores, called after every epoch; ``"loss"`` and `best` among them.
    epochs : int
        At least 1. A resumed run may be given more than it was begun with.
    run : RunDirectory
    loss : callable
        ``loss(logits, y) -> Tensor``, a scalar.
    meta : dict, optional
        Stored in the checkpoints: preprocessing, class names; ``meta["config"]`` is written to config.json too.
    clip : float, optional
        Largest norm of all gradients together.
    best : str
        The score whose largest value decides which epoch `run.best` holds.
    progress : bool
        Show a progress bar.
    cuda_graph : bool
        On a GPU, launch each step as one CUDA graph; what that asks of optimizer and loss is in
        `tinyseg.fast.gpu.graphs.training_step.TrainingStep`.
    mixed_precision : bool
        Compute the network in float16, with float32 weights and a scaled loss (`tinyseg.fast.gpu.mixed_precision`). Steps whose
        gradients overflow are left out: they change neither weights nor optimizer nor schedule, and are counted in
        the log.

    Returns
    -------
    dict
        ``history`` (a dict an epoch), ``best`` (that of the best epoch), ``steps``, ``seconds_per_step`` (the median of
        the epochs) and ``interrupted`` (a signal number, or None).

    Raises
    ------
    TrainingDiverged
        If the loss or a gradient is not finite, in mixed precision even with the smallest scale; the message has step,
        learning rate and the layer.
    ValueError
        If there are no epochs, or a CUDA graph is asked for and cannot be.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, but is {epochs}.")
    if cuda_graph and mixed_precision:
        raise ValueError(
            "A CUDA graph and mixed precision cannot be had together, since which steps are left out is decided on the "
            "host: choose one of the two."
        )
    meta, device = meta or {}, device_of(model.parameters()[0].data)
    state = {"epoch": 0, "batch": 0, "step": 0, "lr": 0.0, "history": [], "best": None, **_NOTHING_YET}
    network, scaler = in_float16(model) if mixed_precision else model, LossScaler(enabled=mixed_precision)
    if run.resume:
        saved = checkpoint.restore(run.latest, model, optimizer)["training"]
        state = saved["state"]
        schedule.load_state_dict(saved["schedule"])
        scaler.load_state_dict(saved.get("scaler", {}))

    def step(x, y):
        logits = network(x)
        value = loss(logits, y)
        figure = value.item()
        if not math.isfinite(figure) and scaler.at_floor:
            raise _diverged("loss", figure, network, model, x, optimizer, state, run)
        optimizer.zero_grad()
        with scaler.quiet():
            scaler.scale(value).backward()
            scaler.unscale_(optimizer)
            norm = optim.clip_grad_norm(optimizer.parameters, clip or math.inf)
        if not math.isfinite(norm) and scaler.at_floor:
            raise _diverged("gradient norm", norm, network, model, x, optimizer, state, run)
        stepped = scaler.step(optimizer, norm)
        scaler.update()
        overlap, predicted, true = _overlap(logits.data, y)
        return figure, int(overlap), int(predicted) + int(true), stepped

    if cuda_graph:
        step = TrainingStep(model, optimizer, loss, clip, step, _overlap)
    run.begin()
    run.write_json("config.json", meta.get("config", {}))
    seconds = []

    def save(path, optimizer=None):
        training = {"state": state, "schedule": schedule.state_dict(), "scaler": scaler.state_dict()}
        checkpoint.save(path, model, optimizer, training=training, **meta)

    x, total, drawn = None, epochs * len(loader), 0.0
    first = "first step (compiling kernels)" if "numba" in kernels_in_use(device) else "first step"
    with Interruption() as interruption, Bar(total, state["step"], not progress, first) as bar:
        while state["epoch"] < epochs and not interruption.signal:
            model.train()
            for x, y in uploaded(loader.epoch(state["epoch"], state["batch"]), device):
                start = time.perf_counter()
                figure, overlap, area, stepped = step(x, y)
                state["lr"] = optimizer.lr
                if stepped and not isinstance(schedule, optim.ReduceLROnPlateau):
                    schedule.step()
                state["skipped"] = state.get("skipped", 0) + (not stepped)
                _count(state, figure, overlap, area)
                seconds.append(time.perf_counter() - start)
                bar.advance(state, epochs, figure)
                if interruption.signal:  # saved below; if that was the epoch's last step, validation comes on resuming
                    break
            else:
                scores = {name: float(value) for name, value in validate(model).items()}
                if not math.isfinite(scores["loss"]):
                    raise _diverged("validation loss", scores["loss"], model, model, x, optimizer, state, run)
                if isinstance(schedule, optim.ReduceLROnPlateau):
                    schedule.step(scores["loss"])
                precision = {"skipped": state["skipped"], "loss_scale": scaler.factor} if mixed_precision else {}
                state["history"].append(_row(state, scores, seconds) | precision)
                state.update(_NOTHING_YET, epoch=state["epoch"] + 1, batch=0)
                run.write_log(state["history"])
                if _improved(state, scores[best], f"val_{best}"):
                    state["best"] = state["epoch"] - 1
                    save(run.best)  # before the latest, which knows of it
                save(run.latest, optimizer)
                bar.scores(scores)
                if time.monotonic() - drawn > 30:  # a look while it runs; short epochs must not wait for pictures
                    plots.curves(state["history"], run.path / "curves.png", best=f"val_{best}")
                    drawn = time.monotonic()
        if state["batch"]:
            save(run.latest, optimizer)
    if state["history"]:
        plots.curves(state["history"], run.path / "curves.png", best=f"val_{best}")
    timed = [r["seconds_per_step"] for r in state["history"] if math.isfinite(r["seconds_per_step"])]
    return {
        "history": state["history"],
        "best": state["history"][state["best"]] if state["best"] is not None else None,
        "steps": state["step"],
        "seconds_per_step": statistics.median(timed) if timed else None,
        "interrupted": interruption.signal,
    }


_NOTHING_YET = {"loss_sum": 0.0, "losses": 0, "overlap": 0, "area": 0, "skipped": 0}  # of the epoch under way


def _overlap(logits, y):
    """Number of foreground pixels that the network and the truth have in common, and that each has."""
    predicted, true = (logits > 0, y > 0.5) if logits.shape == y.shape else (logits.argmax(axis=1) > 0, y > 0)
    return (predicted & true).sum(), predicted.sum(), true.sum()


def _count(state, loss, overlap, area):
    """Advance by one batch: the sums from which the epoch's training loss and foreground Dice are made."""
    state["step"] += 1
    state["batch"] += 1
    if math.isfinite(loss):  # that of a step that was left out may not be
        state["loss_sum"] += loss
        state["losses"] = state.get("losses", state["batch"] - 1) + 1
    state["overlap"] += overlap
    state["area"] += area


def _row(state, scores, seconds):
    losses = state.get("losses", state["batch"])
    return {
        "epoch": state["epoch"] + 1,
        "step": state["step"],
        "lr": state["lr"],
        "train_loss": state["loss_sum"] / losses if losses else math.nan,
        "train_dice": running_dice(state),
        **{f"val_{name}": value for name, value in scores.items()},
        "seconds_per_step": statistics.median(seconds[-state["batch"] :]) if seconds else math.nan,
    }


def _improved(state, score, name):
    """Whether `score` is the best so far; a NaN never is, unless there is nothing else."""
    if state["best"] is None:
        return True
    before = state["history"][state["best"]][name]
    return score > before or (math.isnan(before) and not math.isnan(score))


def _diverged(what, figure, network, model, x, optimizer, state, run):
    """Build the error for a loss or gradient that is not finite; says which layer of the `network` it comes from."""
    kept = (
        f"The last good checkpoint is {run.latest}." if run.latest.exists() else "No checkpoint had been written yet."
    )
    return TrainingDiverged(
        f"The {what} is {figure} at step {state['step'] + 1} (epoch {state['epoch'] + 1}), learning rate "
        f"{optimizer.lr:.3g}: {_first_nonfinite(network, model, x)}. {kept} Lower --lr, clip the gradients, or check "
        "the images."
    )


def _first_nonfinite(network, model, x):
    """Say where the first NaN or infinity is: the input, a parameter, a layer's output or a gradient."""

    def bad(a):
        return not bool(np.isfinite(a).all())

    if x is not None and bad(x):
        return "the input batch itself is not finite"
    for name, p in model.named_parameters():
        if bad(p.data):
            return f"parameter {name} is not finite"
    for _, module in model.named_modules():
        if isinstance(module, nn.Dropout):
            module.counter[1] -= 1  # the same masks again
    names, found = {id(module): name or "the model" for name, module in model.named_modules()}, []
    with no_grad(), nn.watch(lambda module, y: found.append(names[id(module)]) if bad(y.data) else None):
        if x is not None:
            network(x)
    if found:
        return f"layer {found[0]} is the first whose output is not finite"
    for name, p in model.named_parameters():
        if p.grad is not None and bad(p.grad):
            return f"the gradient of {name} is not finite"
    return "all layers are finite, so it arises in the loss"
