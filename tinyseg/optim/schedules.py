"""Learning-rate schedules, with PyTorch's names."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from tinyseg.backend import check_number

if TYPE_CHECKING:
    from tinyseg.optim import Optimizer


class Schedule:
    """Set ``optimizer.lr`` at every `step()`. A subclass writes `rate(t)`, its factor after t steps."""

    def __init__(self, optimizer: "Optimizer") -> None:
        self.optimizer, self.base_lr, self.t = optimizer, optimizer.lr, 0
        self._apply()

    def step(self) -> None:
        """Advance by one."""
        self.t += 1
        self._apply()

    def _apply(self):
        self.optimizer.lr = self.base_lr * self.rate(self.t)

    def rate(self, t: int) -> float:
        return 1.0

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs, a dict of numbers."""
        return {"t": self.t, "base_lr": self.base_lr}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken; raises ValueError if another schedule saved it."""
        names = list(self.state_dict())
        if sorted(names) != sorted(state):
            found = f"{', '.join(names)}, but the saved state has {', '.join(map(str, state)) or 'nothing'}"
            raise ValueError(f"{type(self).__name__} needs {found}: it was saved by another schedule.")
        for name in names:
            setattr(self, name, self._checked(name, state[name]))
        self._apply()

    def _checked(self, name, value):
        """Return a number of a saved state, if it can be one."""
        if value is None and getattr(self, name) is None:
            return None
        what = f"{name} in the saved state of {type(self).__name__}"
        if name in ("t", "bad"):
            return check_number(what, value, f"[0, {2**53}]", integer=True)
        return check_number(what, value, "[0, 1e6]" if name in ("base_lr", "scale") else "(-inf, inf)")


class WarmupLR(Schedule):
    """Raise the learning rate linearly during `warmup` steps, then keep it."""

    def __init__(self, optimizer: "Optimizer", warmup: int = 0) -> None:
        self.warmup = check_number("warmup", warmup, "[0, inf)", integer=True)
        super().__init__(optimizer)

    def rate(self, t: int) -> float:
        return min(1.0, (t + 1) / (self.warmup + 1))


class StepLR(Schedule):
    """Multiply the learning rate by `gamma` every `step_size` steps."""

    def __init__(self, optimizer: "Optimizer", step_size: int, gamma: float = 0.1) -> None:
        self.step_size = check_number("step_size", step_size, "[1, inf)", integer=True)
        self.gamma = check_number("gamma", gamma, "[0, inf)")
        super().__init__(optimizer)

    def rate(self, t: int) -> float:
        return self.gamma ** (t // self.step_size)


class CosineAnnealingLR(Schedule):
    """Raise the learning rate linearly during `warmup` steps, then lower it to `eta_min` along half a cosine.

    Loshchilov & Hutter (2017), without restarts: after `T_max` steps, warmup included, it stays at `eta_min`.
    """

    def __init__(self, optimizer: "Optimizer", T_max: int, eta_min: float = 0.0, warmup: int = 0) -> None:
        self.T_max = check_number("T_max", T_max, "[1, inf)", integer=True)
        self.warmup = check_number("warmup", warmup, "[0, inf)", integer=True)
        eta_min = check_number("eta_min", eta_min, "[0, inf)")
        self.floor = eta_min / optimizer.lr if optimizer.lr else 0.0
        super().__init__(optimizer)

    def rate(self, t: int) -> float:
        if t < self.warmup:
            return (t + 1) / (self.warmup + 1)
        progress = min(1.0, (t - self.warmup) / max(1, self.T_max - self.warmup))
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))


class ReduceLROnPlateau(Schedule):
    """Multiply the learning rate by `factor` when a figure has not improved for more than `patience` steps.

    Call ``step(figure)`` after each epoch. With `mode` "min" (a loss) a lower figure is better, with "max" (a Dice) a
    higher one. A difference of `threshold` or less is no improvement.
    """

    def __init__(
        self,
        optimizer: "Optimizer",
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        min_lr: float = 0.0,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', but is {mode!r}.")
        self.mode, self.factor = mode, check_number("factor", factor, "[0, 1)")
        self.patience = check_number("patience", patience, "[0, inf)", integer=True)
        self.threshold = check_number("threshold", threshold, "[0, inf)")
        self.min_lr = check_number("min_lr", min_lr, "[0, inf)")
        self.best: float | None = None
        self.bad, self.scale = 0, 1.0
        super().__init__(optimizer)

    def step(self, figure: float) -> None:  # type: ignore[override]
        """Advance by one, with the figure of this epoch. NaN is no improvement."""
        sign = 1 if self.mode == "min" else -1
        if not math.isnan(figure) and (self.best is None or sign * (self.best - figure) > self.threshold):
            self.best, self.bad = figure, 0
        else:
            self.bad += 1
            if self.bad > self.patience:
                self.scale, self.bad = self.scale * self.factor, 0
        super().step()

    def rate(self, t: int) -> float:
        return max(self.scale, self.min_lr / self.base_lr if self.base_lr else 0.0)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"best": self.best, "bad": self.bad, "scale": self.scale}
