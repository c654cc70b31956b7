"""One step of training, as in any textbook: forward, loss, backward, update.

`Step` can be replaced as a whole: by one that computes in float16 (`tinyseg.fast.gpu.mixed_precision`), or by one that
is launched as a CUDA graph (`tinyseg.fast.gpu.graphs.training_step`). The loop around it is `tinyseg.training.fit`.
"""

import dataclasses
import math

from tinyseg import ops, optim


@dataclasses.dataclass
class Figures:
    """What one step found.

    Attributes
    ----------
    loss, norm : float
        The loss, and the norm of all gradients before clipping.
    overlap, area : int
        Number of foreground pixels that prediction and truth have in common, and that each has, added up: the parts of
        Dice.
    updated : bool
        Whether the optimizer changed the weights. It does not where the loss or a gradient is not finite.
    left_out : bool
        Whether a step without an update is part of the method, and no sign that training has diverged.
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
        Of the model's parameters.
    loss : callable
        ``loss(logits, y) -> Tensor``, a scalar.
    clip : float, optional
        Largest norm of all gradients together.
    """

    def __init__(self, model, optimizer, loss=ops.binary_cross_entropy_with_logits, clip=None):
        self.model, self.optimizer, self.loss, self.clip = model, optimizer, loss, clip or math.inf

    def __call__(self, x, y):
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

    def forward(self, x):
        """Return the logits of a batch."""
        return self.model(x)

    def columns(self, log):
        """Return further columns for the row of an epoch in the log, a dict."""
        return {}

    def state_dict(self):
        """Return what the next step depends on beside model and optimizer, a dict of numbers."""
        return {}

    def load_state_dict(self, state):
        """Continue where `state_dict` was taken."""


def count_foreground(logits, y):
    """Count the foreground pixels that the network and the truth have in common, and that each has: three numbers."""
    predicted, true = (logits > 0, y > 0.5) if logits.shape == y.shape else (logits.argmax(axis=1) > 0, y > 0)
    return (predicted & true).sum(), predicted.sum(), true.sum()
