"""The position and the measurements of a training run: the state in a checkpoint, and the rows of log.csv."""

import math
import statistics
from typing import Annotated

import msgspec

from tinyseg.data.json_files import check_shape

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


REQUIRED = {"epoch", "step", "lr", "train_loss", "train_dice", "seconds_per_step"}  # columns of every log


class State(msgspec.Struct):
    """The shape of the state of a `Log` in a checkpoint."""

    epoch: Count
    batch: Count
    step: Count
    skipped: Count
    losses: Count
    overlap: Count
    area: Count
    lr: float
    loss_sum: float
    history: list[dict[str, float]]
    best: Count | None

    def __post_init__(self):
        if len(self.history) != self.epoch or (self.best is not None and self.best >= self.epoch):
            raise ValueError(f"the history has {len(self.history)} epochs and the state {self.epoch}")
        if not all(row.keys() >= REQUIRED for row in self.history):
            raise ValueError(f"a row of the history has not the columns of every log, {', '.join(sorted(REQUIRED))}")
        if not (0 <= self.lr < math.inf and math.isfinite(self.loss_sum)):
            raise ValueError(f"the learning rate is {self.lr} and the sum of the losses {self.loss_sum}")


class Log:
    """Count steps and epochs, add up the figures of the current epoch, and keep a row for each epoch.

    Attributes
    ----------
    epoch, batch, step : int
        Number of complete epochs, of batches in the current epoch, and of all batches.
    lr : float
        Learning rate of the last step.
    skipped : int
        Steps of this epoch that did not change the weights (`tinyseg.training.step.Figures`).
    history : list of dict
        One row for each epoch. Rows have the same columns, unless the run goes on with other scores than it began with.
    best : int or None
        Index of the row with the best score.
    """

    def __init__(self):
        self.epoch = self.step = 0
        self.lr, self.history, self.best = 0.0, [], None
        self._begin_epoch()

    def _begin_epoch(self):
        self.batch, self.skipped = 0, 0
        self.loss_sum, self.losses, self.overlap, self.area = 0.0, 0, 0, 0

    def count(self, figures, lr):
        """Add the figures of one step."""
        self.step += 1
        self.batch += 1
        self.lr = lr
        if math.isfinite(figures.loss):  # a step that was left out may have an infinite loss
            self.loss_sum += figures.loss
            self.losses += 1
        self.overlap += figures.overlap
        self.area += figures.area
        if not figures.updated:
            self.skipped += 1

    @property
    def dice(self):
        """Foreground Dice of the current epoch, each batch before its update; NaN if there is no foreground."""
        return 2 * self.overlap / self.area if self.area else math.nan

    def close_epoch(self, scores, seconds, more, best):
        """Add the row of the current epoch, and begin the next one.

        Parameters
        ----------
        scores : dict of str to float
            From the validation.
        seconds : list of float
            Duration of each step so far.
        more : dict
            Further columns.
        best : str
            Name of the score that is largest in the best epoch.

        Returns
        -------
        bool
            Whether this epoch is the best so far.
        """
        row = {
            "epoch": self.epoch + 1,
            "step": self.step,
            "lr": self.lr,
            "train_loss": self.loss_sum / self.losses if self.losses else math.nan,
            "train_dice": self.dice,
            **{f"val_{name}": value for name, value in scores.items()},
            "seconds_per_step": statistics.median(seconds[-self.batch :]) if seconds else math.nan,
        }
        self.history.append(row | more)
        self.epoch += 1
        self._begin_epoch()
        improved = self._improved(f"val_{best}")
        if improved:
            self.best = self.epoch - 1
        return improved

    def _improved(self, name):
        """Whether the last row is the best so far. A row with NaN is the best only if it is the first row."""
        if self.best is None:
            return True
        score, before = self.history[-1][name], self.history[self.best].get(name, math.nan)
        return score > before or (math.isnan(before) and not math.isnan(score))

    def state_dict(self):
        """Return everything, a dict of numbers and rows."""
        return dict(vars(self))

    def load_state_dict(self, state):
        """Continue where `state_dict` was taken; another state is a ValueError."""
        check_shape(state, State, "the log")
        vars(self).update({name: state[name] for name in vars(self)})

    def summary(self):
        """Return what `tinyseg.training.fit` returns, except for the signal."""
        timed = [row["seconds_per_step"] for row in self.history if math.isfinite(row["seconds_per_step"])]
        return {
            "history": self.history,
            "best": None if self.best is None else self.history[self.best],
            "steps": self.step,
            "seconds_per_step": statistics.median(timed) if timed else None,
        }
