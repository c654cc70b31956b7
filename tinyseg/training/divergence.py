"""Stop training that has diverged (the loss or a gradient is not finite), and say where the first such number is."""

import math
from collections.abc import Callable

import numpy as np

from tinyseg import nn
from tinyseg.autograd import Array, no_grad

IN_THE_LOSS = "all layers are finite, so it arises in the loss"


class TrainingDiverged(RuntimeError):
    """The loss or a gradient is not finite. The checkpoint on disk was written before that."""


def quiet():
    """Let NumPy compute with what is not finite without a warning: `check_step` and `check_validation` say it."""
    return np.errstate(over="ignore", invalid="ignore")


def check_step(figures, step, x, log, run):
    """Raise TrainingDiverged if a step could not update the weights.

    Parameters
    ----------
    figures : Figures
        Of the step on the batch `x`.
    step : Step
    x : ndarray, shape (N, C, H, W)
    log : Log
        Of the steps before this one.
    run : RunDirectory
    """
    if figures.updated or figures.left_out:
        return
    what, value = ("gradient norm", figures.norm) if math.isfinite(figures.loss) else ("loss", figures.loss)
    raise TrainingDiverged(_message(what, value, log.step + 1, log.epoch + 1, step, step.forward, x, run))


def check_validation(loss, step, x, log, run):
    """Raise TrainingDiverged if the validation loss is not finite; `x` is the last batch, if there was one."""
    if not math.isfinite(loss):
        raise TrainingDiverged(_message("validation loss", loss, log.step, log.epoch + 1, step, step.model, x, run))


def _message(what, value, number, epoch, step, forward, x, run):
    x = x if x is not None and len(x) else None  # of several processes one can have no image of a batch
    places = step.group.gather(find_first_nonfinite(step.model, forward, x))
    place = next((place for place in places if place != IN_THE_LOSS), IN_THE_LOSS)  # of a process that has found it
    kept = f"The last good checkpoint is {run.latest}" if run.latest.exists() else "No checkpoint had been written yet"
    return (
        f"The {what} is {value} at step {number} (epoch {epoch}), learning rate {step.optimizer.lr:.3g}: {place}. "
        f"{kept}. Begin again with a smaller --lr or with --clip 1, or check the images."
    )


def find_first_nonfinite(model: nn.Module, forward: Callable[[Array], object], x: Array | None) -> str:
    """Return where the first NaN or infinity is: in the input, a parameter, the output of a layer or a gradient.

    Parameters
    ----------
    model : Module
    forward : callable
        ``forward(x)`` runs the model as training does.
    x : ndarray, shape (N, C, H, W), or None
        The batch. If it is None, only the parameters and gradients are checked.

    Returns
    -------
    str
    """
    if x is not None and not _is_finite(x):
        return "the input batch itself is not finite"
    for name, p in model.named_parameters():
        if not _is_finite(p.data):
            return f"parameter {name} is not finite"
    for _, module in model.named_modules():
        if isinstance(module, nn.Dropout):
            module.counter[1] -= 1  # draws the masks of the last step again
    names, found = {id(module): name or "the model" for name, module in model.named_modules()}, []

    def watch(module, y):
        if not _is_finite(y.data):
            found.append(names[id(module)])

    if x is not None:
        with no_grad(), nn.watch(watch), quiet():
            forward(x)
    if found:
        return f"layer {found[0]} is the first whose output is not finite"
    for name, p in model.named_parameters():
        if p.grad is not None and not _is_finite(p.grad):
            return f"the gradient of {name} is not finite"
    return IN_THE_LOSS


def _is_finite(a):
    return bool(np.isfinite(a).all())
