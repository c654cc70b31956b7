"""One step of training, as in a textbook: forward, loss, backward, update. `tinyseg.training.fit` repeats it.

Two classes can replace `Step`: one computes in float16 (`tinyseg.fast.gpu.mixed_precision`), one launches a CUDA graph
(`tinyseg.fast.gpu.graphs.training_step`).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from tinyseg import backend, ops, optim
from tinyseg.autograd import Array, Tensor
from tinyseg.nn import Module
from tinyseg.training.parallel import ALONE


@dataclasses.dataclass
class Figures:
    """The results of one step.

    Attributes
    ----------
    loss, norm : float
        The loss, and the norm of all gradients before clipping.
    overlap, area : int
        Number of foreground pixels in both prediction and truth, and the sum of the numbers in each. Dice is
        2 overlap / area.
    updated : bool
        Whether the optimizer changed the weights. It does not if the loss or a gradient is not finite.
    left_out : bool
        Whether the method left the update out on purpose. If not, a step without an update means divergence.
    """

    loss: float
    norm: float = math.nan
    overlap: int = 0
    area: int = 0
    updated: bool = False
    left_out: bool = False


class Step:
    """A training step: call it with a batch.

    Parameters
    ----------
    model : Module
        On the device to train on.
    optimizer : Optimizer
        For the model's parameters.
    loss : callable
        ``loss(logits, y) -> Tensor``, a scalar.
    clip : float, optional
        Largest norm of all gradients together.

    Attributes
    ----------
    group : Group
        The processes that train together: this one alone, except in `training.microbatches`.
    """

    group = ALONE

    def __init__(
        self,
        model: Module,
        optimizer: optim.Optimizer,
        loss: Callable[[Tensor, Array], Tensor] = ops.binary_cross_entropy_with_logits,
        clip: float | None = None,
    ) -> None:
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.clip = backend.check_number("clip", clip or math.inf, "(0, inf]")

    def __call__(self, x: Array, y: Array) -> Figures:
        """Train on one batch.

        Parameters
        ----------
        x : ndarray, shape (N, C, H, W)
        y : ndarray
            As the loss takes it.

        Returns
        -------
        Figures
        """
        logits = self.forward(x)
        loss = self.loss(logits, y)
        figures = Figures(loss.item())
        if math.isfinite(figures.loss):
            self.optimizer.zero_grad()
            loss.backward()
            figures.norm = optim.clip_grad_norm(self.optimizer.parameters, self.clip)
            if math.isfinite(figures.norm):
                self.optimizer.step()
                figures.updated = True
        overlap, predicted, true = count_foreground(logits.data, y)
        figures.overlap, figures.area = int(overlap), int(predicted) + int(true)
        return figures

    def forward(self, x: Array) -> Tensor:
        """Return the logits of a batch."""
        return self.model(x)

    def columns(self, log: Any) -> dict[str, float]:
        """Return further columns for an epoch's row in the log, a dict."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what the next step depends on besides model and optimizer, a dict of numbers."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""


def count_foreground(logits, y):
    """Return three numbers of foreground pixels: in both prediction and truth, in the prediction, in the truth."""
    if logits.shape == y.shape:
        predicted, true = logits > 0, y > 0.5
    else:
        predicted, true = logits.argmax(axis=1) > 0, y > 0
    return (predicted & true).sum(), predicted.sum(), true.sum()
