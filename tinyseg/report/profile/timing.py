"""How long inference or a training step takes: warm-up, then repetitions, and their quartiles."""

import dataclasses
import os
import sys
import time

import numpy as np

from tinyseg.backend import config, device_name, device_of, kernels_in_use, synchronize
from tinyseg.report.profile.steps import batch, copied, first_array, step_of
from tinyseg.report.profile.table import shape_text

WARM_UP = 2  # the first run loads or compiles kernels and asks for memory, the second finds them there
FEWEST = 3


@dataclasses.dataclass(frozen=True)
class Latency:
    """Seconds that runs took, and where.

    Attributes
    ----------
    input_shape : tuple
    training : bool
    seconds : tuple of float
        Of every repetition, in order.
    device : str
        Its name, as `tinyseg.backend.device_name` has it.
    kernels : str
        As `tinyseg.backend.kernels_in_use` has it.
    threads : int or None
        Of the numba kernels, or the cores that NumPy may use; None on a GPU.
    """

    input_shape: tuple
    training: bool
    seconds: tuple
    device: str
    kernels: str
    threads: int | None

    @property
    def median(self):
        """Median, in seconds."""
        return float(np.median(self.seconds))

    @property
    def minimum(self):
        """Shortest, in seconds: what the machine can do when nothing else runs on it."""
        return min(self.seconds)

    @property
    def quartiles(self):
        """First and third quartile, in seconds."""
        return tuple(float(q) for q in np.quantile(self.seconds, (0.25, 0.75)))

    def as_dict(self):
        """Return everything as a dict, for JSON."""
        low, high = self.quartiles
        found = {"median": self.median, "minimum": self.minimum, "lower_quartile": low, "upper_quartile": high}
        return dataclasses.asdict(self) | found

    def __str__(self):
        low, high = (1e3 * q for q in self.quartiles)
        what = "training step" if self.training else "inference"
        threads = f", {self.threads} threads" if self.threads else ""
        return (
            f"{what}, input {shape_text(self.input_shape)}: median {1e3 * self.median:.1f} ms, quartiles {low:.1f} to "
            f"{high:.1f}, minimum {1e3 * self.minimum:.1f}, {len(self.seconds)} runs\n"
            f"{self.device}{threads}, {self.kernels}"
        )


def latency(model, input_shape, training=False, loss=None, repeats=20, budget=10.0):
    """Time inference or a training step with Adam.

    A copy of the model runs twice to warm up, then `repeats` times or until the budget is spent, each run timed from
    its start to when the device is done. Other programs on the machine make it slower and never faster: compare
    medians of calm hours, or minima. Networks side by side with PyTorch: ``python -m benchmarks.models``.

    Parameters
    ----------
    model : Module
        Stays as it is.
    input_shape : tuple
        (N, C, H, W).
    training : bool
        Time a training step (forward, backward, Adam), or inference.
    loss : function of the model's output, optional
        Returns the one-element Tensor to call ``backward()`` on; binary cross-entropy from logits without.
    repeats : int
        Timed runs at most.
    budget : float
        Seconds after which no run is begun, once three are done (or `repeats`, if that is less).

    Returns
    -------
    Latency

    Raises
    ------
    ValueError
        If the model does not take this shape (the sentence is its own), or `repeats` is less than 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, but is {repeats}.")
    model, device = copied(model, training), device_of(first_array(model))
    step = step_of(model, batch(model, input_shape), training, loss)
    for _ in range(WARM_UP):
        step()
    synchronize(device)
    seconds, begin = [], time.perf_counter()
    while len(seconds) < repeats and (len(seconds) < FEWEST or time.perf_counter() - begin < budget):
        start = time.perf_counter()
        result = step()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
        del result  # handing back memory is not timed
    name, kernels = device_name(device), kernels_in_use(device)
    return Latency(tuple(map(int, input_shape)), training, tuple(seconds), name, kernels, _threads(device))


def _threads(device):
    if device == "gpu":
        return None
    numba = sys.modules.get("numba")  # there once one of its kernels has run
    if numba is not None and config.kernels == "fast":
        return numba.get_num_threads()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
