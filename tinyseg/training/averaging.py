"""The exponential mean of a network's weights over its training steps.

After step t the mean a follows the weights w,

    a ← a + (1 - d) (w - a),     d = min(decay, (1 + t) / (10 + t))

so that the mean of the first steps is short and forgets the initial weights. It stands for about the last
1 / (1 - decay) steps. The noise of single steps is averaged away; validation and prediction use the mean, training goes
on with w.

Source: Polyak and Juditsky 1992 (SIAM J. Control Optim. 30:838); the growing d is that of TensorFlow's
ExponentialMovingAverage.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from tinyseg.backend import check_number, compare_states, device_of, to_device, to_numpy, xp_of
from tinyseg.nn import Module


class WeightAverage:
    """The mean of a model's weights. In a with-block, the model has the mean in the place of its weights::

        average = WeightAverage(model, 0.999)
        for x, y in batches:
            step(x, y)
            average.update()
        with average:
            scores = validate(model)

    Parameters
    ----------
    model : Module
        On the device to train on.
    decay : float
        From 0, the weights of the last step, to below 1.

    Attributes
    ----------
    updates : int
        t, the number of steps so far.
    """

    def __init__(self, model: Module, decay: float = 0.999) -> None:
        self.decay = check_number("decay", decay, "[0, 1)")
        self.updates = 0
        self._slots = model.slots()
        self._mean = {name: array.copy() for name, array in self._arrays().items()}

    def _arrays(self):
        """Return the arrays that the model has, by name."""
        return {name: getattr(*where) for name, where in self._slots.items()}

    def update(self) -> None:
        """Take the model's present weights into the mean. What is no float, such as a counter, is copied."""
        self.updates += 1
        rest = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, w in self._arrays().items():
            a = self._mean[name]
            if w.dtype.kind == "f":
                change = xp_of(w).subtract(w, a)
                change *= w.dtype.type(rest)
                a += change
            else:
                a[...] = w

    def __enter__(self) -> Self:
        self._swap()
        return self

    def __exit__(self, *exc: object) -> None:
        self._swap()

    def _swap(self):
        """Exchange the mean and the weights."""
        before = self._arrays()
        for name, where in self._slots.items():
            setattr(*where, self._mean[name])
        self._mean = before

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the mean as NumPy arrays, by the names of `Module.state_dict`."""
        return {name: to_numpy(array) for name, array in self._mean.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy a `state_dict` into the mean; `updates` belongs to it. One of another model is a ValueError."""
        problems = compare_states(self._mean, state)
        if problems:
            raise ValueError(f"This mean is of the weights of another model. {problems}")
        for name, array in self._mean.items():
            array[...] = to_device(np.asarray(state[name], array.dtype), device_of(array))
