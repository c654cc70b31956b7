"""Optimizers, learning-rate schedules and gradient clipping, with PyTorch's names.

With weights w, their gradient g and the learning rate η:

    SGD     v ← μ v + g,   w ← w - η v                                    (Nesterov: w ← w - η (g + μ v))
    Adam    m ← β₁ m + (1-β₁) g,   v ← β₂ v + (1-β₂) g²,
            w ← w - η m̂ / (√v̂ + ε),   m̂ = m / (1-β₁ᵗ),  v̂ = v / (1-β₂ᵗ)     (Kingma & Ba 2015)
    AdamW   w ← w - η λ w before the step of Adam                         (Loshchilov & Hutter 2019)

λ is `weight_decay`. SGD and Adam add λ w to the gradient instead.
"""

import math

import numpy as np

from tinyseg.backend import device_of, kernels, to_device, to_numpy, xp_of


# ----- the maths (NumPy or CuPy) ---------------------------------------------------
def adam(w, g, m, v, b1, b2, eps, rate, shrink):
    """Take one step of Adam, in place, after w ← shrink·w.

    m̂ and v̂ are m and v, each divided by a number. Both numbers are put into `eps` = ε √(1-β₂ᵗ) and
    `rate` = η √(1-β₂ᵗ) / (1-β₁ᵗ); then η m̂ / (√v̂ + ε) = rate · m / (√v + eps).
    """
    xp = xp_of(w)
    m += (1 - b1) * (g - m)
    v += (1 - b2) * (g * g - v)
    step = xp.sqrt(v)
    step += eps
    xp.divide(m, step, out=step)
    step *= rate
    if shrink != 1:
        w *= shrink
    w -= step


def adam_all(parameters, numbers):
    """Call `adam` for each (w, g, m, v) of `parameters`. The namesake for the GPU does this in one launch.

    ``numbers()`` returns b1, b2, eps, rate and shrink of this step.
    """
    numbers = numbers()
    for arrays in parameters:
        kernels(__name__, *arrays).adam(*arrays, *numbers)


# ----- optimizers ----------------------------------------------------------------
class Optimizer:
    """Keep, for each name in `slots`, one array per parameter, and count the steps. A subclass writes `update`."""

    slots = ()

    def __init__(self, parameters, lr, weight_decay=0.0):
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("The optimizer got no parameters.")
        if lr < 0 or weight_decay < 0:
            raise ValueError(f"Learning rate and weight decay must not be negative, but are {lr} and {weight_decay}.")
        self.lr, self.weight_decay, self.steps = lr, weight_decay, 0
        self.state = {slot: [xp_of(p.data).zeros_like(p.data) for p in self.parameters] for slot in self.slots}

    def zero_grad(self):
        """Forget the gradients of all parameters."""
        for p in self.parameters:
            p.grad = None

    def step(self):
        """Change every parameter that has a gradient, in place."""
        self.steps += 1
        self.update_all(
            (p.data, self.gradient(p), *(self.state[slot][k] for slot in self.slots))
            for k, p in enumerate(self.parameters)
            if p.grad is not None
        )

    def gradient(self, p):
        """Return the gradient of a parameter, with the weight decay added. It must not be changed in place."""
        return p.grad + self.weight_decay * p.data if self.weight_decay else p.grad

    def update_all(self, parameters):
        """Change w in place, in each ``(w, g, *state)``."""
        for arrays in parameters:
            self.update(*arrays)

    def update(self, w, g, *state):
        raise NotImplementedError(f"{type(self).__name__} has no update(w, g, *state).")

    def state_dict(self):
        """Return {name: NumPy array}: the step count, the learning rate and ``slot.k`` for parameter k."""
        state = {"steps": np.array(self.steps), "lr": np.array(self.lr, np.float64)}
        return state | {f"{slot}.{k}": to_numpy(a) for slot in self.slots for k, a in enumerate(self.state[slot])}

    def load_state_dict(self, state):
        """Copy a `state_dict` in; raises ValueError if it belongs to other parameters or another optimizer."""
        mine = self.state_dict()
        if mine.keys() != state.keys() or any(mine[k].shape != state[k].shape for k in mine):
            raise ValueError(
                f"The saved optimizer state does not fit {type(self).__name__} with {len(self.parameters)} parameters: "
                "it was saved by another optimizer or for another model."
            )
        self.steps, self.lr = int(state["steps"]), float(state["lr"])
        for slot in self.slots:
            for k, a in enumerate(self.state[slot]):
                a[...] = to_device(state[f"{slot}.{k}"], device_of(a))


class SGD(Optimizer):
    """Stochastic gradient descent with momentum μ; equations in the module docstring."""

    slots = ("velocity",)

    def __init__(self, parameters, lr=1e-3, momentum=0.0, weight_decay=0.0, nesterov=False):
        super().__init__(parameters, lr, weight_decay)
        if nesterov and momentum <= 0:
            raise ValueError("Nesterov's step needs a momentum above 0.")
        self.momentum, self.nesterov = momentum, nesterov

    def update(self, w, g, v):
        v *= self.momentum
        v += g
        w -= self.lr * (g + self.momentum * v if self.nesterov else v)


class Adam(Optimizer):
    """Adam; equations in the module docstring. `betas` are (β₁, β₂)."""

    slots = ("m", "v")

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(parameters, lr, weight_decay)
        self.betas, self.eps = tuple(betas), eps

    def update_all(self, parameters):
        parameters = list(parameters)
        if parameters:
            k = kernels(__name__, *(a for arrays in parameters for a in arrays))
            k.adam_all(parameters, self.numbers)

    def numbers(self):
        """Return b1, b2, eps, rate and shrink of this step, see `adam`."""
        (b1, b2), t = self.betas, self.steps
        root = math.sqrt(1 - b2**t)
        return b1, b2, self.eps * root, self.lr * root / (1 - b1**t), self.shrink()

    def shrink(self):
        """Return the factor of the weights before the step."""
        return 1.0


class AdamW(Adam):
    """Adam with weight decay apart from the gradient; equations in the module docstring."""

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        super().__init__(parameters, lr, betas, eps, weight_decay)

    def gradient(self, p):
        return p.grad

    def shrink(self):
        return 1 - self.lr * self.weight_decay


def grad_norm(parameters):
    """Return the Euclidean norm of all gradients together, a Python float; inf or nan if one is not finite."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = math.sqrt(_total([(g * g).sum() for g in gradients]))
    if not math.isfinite(norm):  # squares of float32 overflow above 1.8e19
        norm = math.sqrt(_total([(g.astype("float64") ** 2).sum() for g in gradients]))
    return norm


def _total(numbers):
    """Add up arrays of one number each, in float64. A GPU sends all of them in one transfer."""
    total = 0.0
    for number in to_numpy(xp_of(*numbers).stack(numbers)).tolist() if numbers else ():
        total += number  # in plain float64, as optim.cu does: from Python 3.12 on, `sum` rounds in another way
    return total


def clip_grad_norm(parameters, max_norm):
    """Scale all gradients so that their common norm is at most `max_norm`; return the norm before.

    Parameters
    ----------
    parameters : iterable of Parameter
    max_norm : float

    Returns
    -------
    float
        If it is not finite, the gradients are left as they are.
    """
    parameters = list(parameters)
    norm = grad_norm(parameters)
    if max_norm < norm < math.inf:
        for p in parameters:
            if p.grad is not None:
                p.grad *= max_norm / norm
    return norm


# ----- schedules -----------------------------------------------------------------
class Schedule:
    """Set ``optimizer.lr`` at every `step()`. A subclass writes `rate(t)`, its factor after t steps."""

    def __init__(self, optimizer):
        self.optimizer, self.base_lr, self.t = optimizer, optimizer.lr, 0
        self._apply()

    def step(self):
        """Advance by one."""
        self.t += 1
        self._apply()

    def _apply(self):
        self.optimizer.lr = self.base_lr * self.rate(self.t)

    def rate(self, t):
        return 1.0

    def state_dict(self):
        """Return what `load_state_dict` needs, a dict of numbers."""
        return {"t": self.t, "base_lr": self.base_lr}

    def load_state_dict(self, state):
        """Continue where `state_dict` was taken."""
        for name in self.state_dict():
            setattr(self, name, state[name])
        self._apply()


class WarmupLR(Schedule):
    """Raise the learning rate linearly during `warmup` steps, then keep it."""

    def __init__(self, optimizer, warmup=0):
        self.warmup = warmup
        super().__init__(optimizer)

    def rate(self, t):
        return min(1.0, (t + 1) / (self.warmup + 1))


class StepLR(Schedule):
    """Multiply the learning rate by `gamma` every `step_size` steps."""

    def __init__(self, optimizer, step_size, gamma=0.1):
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def rate(self, t):
        return self.gamma ** (t // self.step_size)


class CosineAnnealingLR(Schedule):
    """Raise the learning rate linearly during `warmup` steps, then lower it to `eta_min` along half a cosine.

    Loshchilov & Hutter (2017), without restarts: after `T_max` steps, warmup included, it stays at `eta_min`.
    """

    def __init__(self, optimizer, T_max, eta_min=0.0, warmup=0):
        self.T_max, self.warmup = T_max, warmup
        self.floor = eta_min / optimizer.lr if optimizer.lr else 0.0
        super().__init__(optimizer)

    def rate(self, t):
        if t < self.warmup:
            return (t + 1) / (self.warmup + 1)
        progress = min(1.0, (t - self.warmup) / max(1, self.T_max - self.warmup))
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))


class ReduceLROnPlateau(Schedule):
    """Multiply the learning rate by `factor` when a figure has not improved for more than `patience` steps.

    Call ``step(figure)`` after each epoch. With `mode` "min" (a loss) a lower figure is better, with "max" (a Dice) a
    higher one. A difference of `threshold` or less is no improvement.
    """

    def __init__(self, optimizer, mode="min", factor=0.1, patience=10, threshold=1e-4, min_lr=0.0):
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', but is {mode!r}.")
        self.mode, self.factor, self.patience, self.threshold, self.min_lr = mode, factor, patience, threshold, min_lr
        self.best, self.bad, self.scale = None, 0, 1.0
        super().__init__(optimizer)

    def step(self, figure):
        """Advance by one, with the figure of this epoch. NaN is no improvement."""
        sign = 1 if self.mode == "min" else -1
        if not math.isnan(figure) and (self.best is None or sign * (self.best - figure) > self.threshold):
            self.best, self.bad = figure, 0
        else:
            self.bad += 1
            if self.bad > self.patience:
                self.scale, self.bad = self.scale * self.factor, 0
        super().step()

    def rate(self, t):
        return max(self.scale, self.min_lr / self.base_lr if self.base_lr else 0.0)

    def state_dict(self):
        return super().state_dict() | {"best": self.best, "bad": self.bad, "scale": self.scale}
