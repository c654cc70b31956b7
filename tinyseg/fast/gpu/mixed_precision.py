r"""Mixed precision (Micikevicius et al. 2018): activations in float16, weights in float32, and a scaled loss.

`in_float16` runs a network between two casts. Its activations and their gradients are float16, half the memory and half
the traffic; its weights, their gradients and all sums stay float32 (`tinyseg.backend.half` has the rule).

float16 ends at 6e-8, and gradients of activations are often smaller. Gradients are linear in the loss L, so

    backward from  s L    gives  s g  for every gradient g, within float16's range if s is well chosen
    step with      g = (s g) / s,  in float32

If the factor s is too large, some s g becomes infinite. Then that step is left out and s is halved; after many good
steps s is doubled. In this way it stays near the largest that works. s is a power of 2: multiplying by it does not
round.
"""

import contextlib
import math

import numpy as np

from tinyseg import ops, optim
from tinyseg.training.step import Figures, Step, count_foreground


def in_float16(model):
    """Return a function x -> model(x), computed in float16 and returned in float32.

    Parameters
    ----------
    model : callable
        A network with float32 parameters.

    Returns
    -------
    callable
    """
    return lambda x: ops.cast(model(ops.cast(x, "float16")), "float32")


class LossScaler:
    """Scales the loss, and leaves out steps whose gradients are not finite, as PyTorch's ``GradScaler`` does::

        optimizer.zero_grad()
        with scaler.quiet():                # on a CPU, where NumPy would warn of what overflows
            scaler.scale(loss).backward()
        scaler.unscale_(optimizer)          # only needed before clipping: otherwise `step` does it
        scaler.step(optimizer)
        scaler.update()

    Parameters
    ----------
    init_scale : float
        The factor to begin with.
    growth_factor, backoff_factor : float
        The factor is multiplied by these: after `growth_interval` good steps in a row, and after a step that was left
        out.
    growth_interval : int
    floor : float
        The factor does not fall below this. If gradients are then still not finite, the factor is not the reason.
    enabled : bool
        False: the loss is not scaled, every step is made, and the factor stays 1.
    """

    def __init__(
        self, init_scale=2.0**16, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000, floor=1.0, enabled=True
    ):  # fmt: skip
        if not (growth_factor > 1 > backoff_factor > 0 and init_scale >= floor > 0):
            raise ValueError(
                "LossScaler needs growth_factor > 1 > backoff_factor > 0 and init_scale >= floor > 0, but got "
                f"{growth_factor}, {backoff_factor}, {init_scale} and {floor}."
            )
        self.factor, self.good = float(init_scale) if enabled else 1.0, 0  # good: steps since the last change
        self.growth_factor, self.backoff_factor, self.growth_interval = growth_factor, backoff_factor, growth_interval
        self.floor, self.enabled = float(floor), enabled
        self._unscaled, self._stepped = {}, {}  # since update(), by id: optimizers, and whether they made their step

    @property
    def at_floor(self):
        """Whether the factor cannot fall further."""
        return not self.enabled or self.factor <= self.floor

    def quiet(self):
        """Return a context in which NumPy does not warn of infinities: in the backward pass they are expected."""
        return np.errstate(over="ignore", invalid="ignore") if self.enabled else contextlib.nullcontext()

    def scale(self, loss):
        """Return the scaled loss, for ``backward()``.

        Parameters
        ----------
        loss : Tensor, float32
        """
        if not self.enabled:
            return loss
        if loss.dtype == np.float16:
            raise TypeError(
                "LossScaler scales a loss beyond what float16 holds; compute the loss in float32, from "
                "ops.cast(logits, 'float32')."
            )
        return loss * self.factor

    def unscale_(self, optimizer):
        """Divide the gradients of the optimizer's parameters by the factor, in place; once between two updates."""
        if not self.enabled:
            return
        if id(optimizer) in self._unscaled:
            raise RuntimeError("unscale_() has been called for this optimizer: the next time is after update().")
        self._unscaled[id(optimizer)] = optimizer
        for p in optimizer.parameters:
            if p.grad is not None:
                p.grad *= 1 / self.factor

    def step(self, optimizer, norm=None):
        """Make the optimizer's step if all gradients are finite; otherwise change nothing.

        Parameters
        ----------
        optimizer : Optimizer
        norm : float, optional
            Norm of the unscaled gradients, if it is known: what `optim.clip_grad_norm` returned.

        Returns
        -------
        bool
            Whether the step was made.
        """
        if self.enabled:
            if id(optimizer) in self._stepped:
                raise RuntimeError("step() has been called for this optimizer: the next time is after update().")
            if id(optimizer) not in self._unscaled:
                self.unscale_(optimizer)
            if norm is None:
                with self.quiet():
                    norm = optim.grad_norm(optimizer.parameters)
            self._stepped[id(optimizer)] = math.isfinite(norm)
            if not math.isfinite(norm):
                return False
        optimizer.step()
        return True

    def update(self):
        """Set the factor for the next step, after the steps of all optimizers."""
        if not self.enabled:
            return
        if not self._stepped:
            raise RuntimeError("update() comes after step(): there has been no step to judge the factor by.")
        if not all(self._stepped.values()):
            self.factor, self.good = max(self.floor, self.factor * self.backoff_factor), 0
        else:
            self.good += 1
            if self.good == self.growth_interval:
                self.factor, self.good = self.factor * self.growth_factor, 0
        self._unscaled, self._stepped = {}, {}

    def state_dict(self):
        """Return what the next steps depend on, a dict of numbers; call it after update(), before the next loss."""
        return {"factor": self.factor, "good": self.good} if self.enabled else {}

    def load_state_dict(self, state):
        """Continue where `state_dict` was taken; the empty state of a scaler that was not enabled changes nothing."""
        if self.enabled and state:
            self.factor, self.good = float(state["factor"]), int(state["good"])


class MixedPrecisionStep(Step):
    """A training step in mixed precision; parameters as `tinyseg.training.Step`.

    A step whose loss or gradients overflow is left out: it changes neither weights nor optimizer, and the factor of the
    loss is halved. It is a sign that training has diverged only if the factor was the smallest already.
    """

    def __init__(self, model, optimizer, loss=ops.binary_cross_entropy_with_logits, clip=None):
        super().__init__(model, optimizer, loss, clip)
        self.scaler, self.forward = LossScaler(), in_float16(model)

    def __call__(self, x, y):
        """Train on one batch, as `Step` does."""
        scaler, optimizer = self.scaler, self.optimizer
        logits = self.forward(x)
        loss = self.loss(logits, y)
        figures = Figures(loss.item(), left_out=not scaler.at_floor)
        if math.isfinite(figures.loss) or figures.left_out:
            optimizer.zero_grad()
            with scaler.quiet():
                scaler.scale(loss).backward()
                scaler.unscale_(optimizer)
                figures.norm = optim.clip_grad_norm(optimizer.parameters, self.clip)
            figures.updated = scaler.step(optimizer, figures.norm)
            scaler.update()
        overlap, predicted, true = count_foreground(logits.data, y)
        figures.overlap, figures.area = int(overlap), int(predicted) + int(true)
        return figures

    def columns(self, log):
        """Return the number of steps that were left out, and the factor."""
        return {"skipped": log.skipped, "loss_scale": self.scaler.factor}

    def state_dict(self):
        """Return the state of the scaler."""
        return self.scaler.state_dict()

    def load_state_dict(self, state):
        """Continue where `state_dict` was taken."""
        self.scaler.load_state_dict(state)
