"""Optimizers and gradient clipping, with PyTorch's names; learning-rate schedules are in `schedules.py`.

With weights w, their gradient g and the learning rate η:

    SGD     v ← μ v + g,   w ← w - η v                                    (Nesterov: w ← w - η (g + μ v))
    Adam    m ← β₁ m + (1-β₁) g,   v ← β₂ v + (1-β₂) g²,
            w ← w - η m̂ / (√v̂ + ε),   m̂ = m / (1-β₁ᵗ),  v̂ = v / (1-β₂ᵗ)     (Kingma & Ba 2015)
    AdamW   w ← w - η λ w before the step of Adam                         (Loshchilov & Hutter 2019)

λ is `weight_decay`. SGD and Adam add λ w to the gradient instead. t counts the steps of each parameter by itself: one
that gets its first gradient late begins with t = 1.
"""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tinyseg.autograd import Array, Tensor
from tinyseg.backend import check_number, compare_states, device_of, kernels, to_device, to_numpy, xp_of
from tinyseg.optim.schedules import CosineAnnealingLR, ReduceLROnPlateau, Schedule, StepLR, WarmupLR

__all__ = [
    "SGD", "Adam", "AdamW", "CosineAnnealingLR", "Optimizer", "ReduceLROnPlateau", "Schedule", "StepLR", "WarmupLR",
    "clip_grad_norm", "grad_norm",
]  # fmt: skip


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
def check_parameters(parameters):
    """Return `parameters` as a list; raise unless each is a leaf that requires gradients, and is there once."""
    found = [parameters] if isinstance(parameters, Tensor) or not hasattr(parameters, "__iter__") else list(parameters)
    if not found:
        raise ValueError("The optimizer got no parameters.")
    for p in found:
        if not isinstance(p, Tensor) or isinstance(parameters, Tensor):
            what = type(parameters if isinstance(parameters, Tensor) else p).__name__
            raise TypeError(f"An optimizer takes a list of parameters, such as model.parameters(), but found a {what}.")
        if not p.requires_grad or p.creator is not None:
            mend = "give it nn.Parameters, or tensors made with requires_grad=True"
            raise ValueError(f"An optimizer cannot change a tensor that backward() gives no gradient: {mend}.")
    if len({id(p) for p in found}) < len(found):
        raise ValueError("A parameter is twice in the list for the optimizer, which would take two steps with it.")
    return found


class Optimizer:
    """Keep, for each name in `slots`, one array per parameter, and count its steps.

    A subclass writes ``update(w, g, *state)``.

    Attributes
    ----------
    counts : list of int
        For each parameter, the number of steps in which it had a gradient.
    """

    slots: tuple[str, ...] = ()

    def __init__(self, parameters: Iterable[Tensor], lr: float, weight_decay: float = 0.0) -> None:
        self.parameters = check_parameters(parameters)
        self.lr: float = check_number("lr", lr, "[0, inf)")
        self.weight_decay = check_number("weight_decay", weight_decay, "[0, inf)")
        self.counts = [0] * len(self.parameters)
        self.state = {slot: [xp_of(p.data).zeros_like(p.data) for p in self.parameters] for slot in self.slots}

    @property
    def steps(self) -> int:
        """Number of steps of the parameter that has made the most."""
        return max(self.counts)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for p in self.parameters:
            p.grad = None

    def step(self) -> None:
        """Change every parameter that has a gradient, in place."""
        chosen = [k for k, p in enumerate(self.parameters) if p.grad is not None]
        self.count_step(chosen)
        self.update_all(chosen)

    def count_step(self, chosen: Iterable[int], by: int = 1) -> None:
        """Count a step of the parameters with the numbers `chosen` (`by` -1: take it back), whose arrays change."""
        for k in chosen:
            self.counts[k] += by
            self.parameters[k].mark_changed()

    def arrays(self, k: int) -> tuple[Array, ...]:
        """Return ``(w, g, *state)`` of parameter k."""
        p = self.parameters[k]
        return p.data, self.gradient(p), *(self.state[slot][k] for slot in self.slots)

    def gradient(self, p: Tensor) -> Array:
        """Return the gradient of a parameter, with the weight decay added. It must not be changed in place."""
        return p.grad + self.weight_decay * p.data if self.weight_decay else p.grad  # type: ignore[return-value]

    def update_all(self, chosen: Iterable[int]) -> None:
        """Change the parameters with the numbers `chosen`."""
        for k in chosen:
            self.update(*self.arrays(k))

    def update(self, *arrays: Any, **options: Any) -> None:  # a subclass names its arrays: w, g, *state
        raise NotImplementedError(f"{type(self).__name__} has no update(w, g, *state).")

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return {name: NumPy array}: the steps of each parameter, the learning rate, ``slot.k`` for parameter k."""
        state = {"steps": np.array(self.counts), "lr": np.array(self.lr, np.float64)}
        return state | {f"{slot}.{k}": to_numpy(a) for slot in self.slots for k, a in enumerate(self.state[slot])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy a `state_dict` in; raises ValueError if it belongs to other parameters or another optimizer."""
        problems = compare_states(self.state_dict(), state)
        if problems:
            raise ValueError(
                f"The saved optimizer state does not fit {type(self).__name__} with {len(self.parameters)} parameters: "
                f"it was saved by another optimizer or for another model. {problems}"
            )
        counts, lr = np.asarray(state["steps"]).tolist(), np.asarray(state["lr"]).item()
        counts = [
            check_number("A number of steps in the saved optimizer state", n, f"[0, {2**53}]", True) for n in counts
        ]
        self.counts, self.lr = counts, check_number("lr in the saved optimizer state", lr, "[0, 1e6]")
        for slot in self.slots:
            for k, a in enumerate(self.state[slot]):
                a[...] = to_device(np.asarray(state[f"{slot}.{k}"], a.dtype), device_of(a))


class SGD(Optimizer):
    """Stochastic gradient descent with momentum μ; equations in the module docstring."""

    slots = ("velocity",)

    def __init__(
        self, parameters: Iterable[Tensor], lr: float = 1e-3, momentum: float = 0.0, weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(parameters, lr, weight_decay)
        self.momentum, self.nesterov = check_number("momentum", momentum, "[0, 1)"), nesterov
        if nesterov and momentum == 0:
            raise ValueError("Nesterov's step needs a momentum above 0.")

    def update(self, w: Array, g: Array, v: Array) -> None:
        v *= self.momentum
        v += g
        w -= self.lr * (g + self.momentum * v if self.nesterov else v)


class Adam(Optimizer):
    """Adam; equations in the module docstring. `betas` are (β₁, β₂)."""

    slots = ("m", "v")

    def __init__(
        self, parameters: Iterable[Tensor], lr: float = 1e-3, betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(parameters, lr, weight_decay)
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"betas must be two numbers, (β₁, β₂), but is {betas!r}.")
        self.betas = tuple(check_number(f"betas[{k}]", beta, "[0, 1)") for k, beta in enumerate(betas))
        self.eps = check_number("eps", eps, "[0, inf)")

    def update_all(self, chosen: Iterable[int]) -> None:
        for group in self.groups(chosen):
            parameters = [self.arrays(k) for k in group]
            k = kernels(__name__, *(a for arrays in parameters for a in arrays))
            k.adam_all(parameters, functools.partial(self.numbers, group[0]))

    def groups(self, chosen: Iterable[int]) -> list[list[int]]:
        """Return the numbers `chosen` in lists, one for all parameters that have made equally many steps."""
        groups: dict[int, list[int]] = {}
        for k in chosen:
            groups.setdefault(self.counts[k], []).append(k)
        return list(groups.values())

    def numbers(self, k: int) -> tuple[float, float, float, float, float]:
        """Return b1, b2, eps, rate and shrink of the step that parameter k makes, see `adam`."""
        (b1, b2), t = self.betas, self.counts[k]
        root = math.sqrt(1 - b2**t)
        return b1, b2, self.eps * root, self.lr * root / (1 - b1**t), self.shrink()

    def shrink(self) -> float:
        """Return the factor of the weights before the step."""
        return 1.0


class AdamW(Adam):
    """Adam with weight decay apart from the gradient; equations in the module docstring."""

    def __init__(
        self, parameters: Iterable[Tensor], lr: float = 1e-3, betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2,
    ) -> None:  # fmt: skip
        super().__init__(parameters, lr, betas, eps, weight_decay)

    def gradient(self, p: Tensor) -> Array:
        return p.grad  # type: ignore[return-value]

    def shrink(self) -> float:
        return 1 - self.lr * self.weight_decay


def grad_norm(parameters: Iterable[Tensor]) -> float:
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


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients so that their common norm is at most `max_norm`; return the norm before.

    Parameters
    ----------
    parameters : iterable of Parameter
    max_norm : float
        Above 0; infinity clips nothing.

    Returns
    -------
    float
        If it is not finite, the gradients are left as they are.
    """
    parameters, max_norm = list(parameters), check_number("max_norm", max_norm, "(0, inf]")
    norm = grad_norm(parameters)
    if max_norm < norm < math.inf:
        for p in parameters:
            if p.grad is not None:
                p.grad *= max_norm / norm
    return norm
