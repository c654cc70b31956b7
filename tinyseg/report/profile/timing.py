"""How long inference or a training step takes: median, quartiles and minimum of repeated runs, after a warm-up."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyseg.autograd import Tensor
from tinyseg.backend import count_threads, device_name, device_of, kernels_in_use, synchronize
from tinyseg.nn import Module
from tinyseg.report.profile.steps import copy_model, make_batch, make_step
from tinyseg.report.profile.table import format_shape

WARM_UP = 2  # runs that are not timed: the first loads or compiles kernels and asks for memory
FEWEST = 3  # timed runs, however long they take


@dataclasses.dataclass(frozen=True)
class Latency:
    """How many seconds each run took, and on what it ran.

    Attributes
    ----------
    input_shape : tuple
    training : bool
    seconds : tuple of float
        Of every timed run, in order.
    device : str
        Its name, as `tinyseg.backend.device_name` has it.
    kernels : str
        As `tinyseg.backend.kernels_in_use` has it.
    threads : int or None
        Number of threads of the numba kernels; without them the number of cores that NumPy may use; None on a GPU.
    """

    input_shape: tuple[int, ...]
    training: bool
    seconds: tuple[float, ...]
    device: str
    kernels: str
    threads: int | None

    @property
    def median(self) -> float:
        """Median time, in seconds."""
        return float(np.median(self.seconds))

    @property
    def minimum(self) -> float:
        """Shortest time, in seconds: the one that other programs disturbed least."""
        return min(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile of the times, in seconds."""
        low, high = np.quantile(self.seconds, (0.25, 0.75)).tolist()
        return low, high

    def as_dict(self) -> dict[str, Any]:
        """Return everything as a dict, for JSON."""
        low, high = self.quartiles
        found = {"median": self.median, "minimum": self.minimum, "lower_quartile": low, "upper_quartile": high}
        return dataclasses.asdict(self) | found

    def __str__(self) -> str:
        low, high = (1e3 * q for q in self.quartiles)
        what = "training step" if self.training else "inference"
        threads = f", {self.threads} threads" if self.threads else ""
        return (
            f"{what}, input {format_shape(self.input_shape)}: median {1e3 * self.median:.1f} ms, "
            f"quartiles {low:.1f} to {high:.1f}, minimum {1e3 * self.minimum:.1f}, {len(self.seconds)} runs\n"
            f"{self.device}{threads}, {self.kernels}"
        )


def latency(
    model: Module,
    input_shape: Sequence[int],
    training: bool = False,
    loss: Callable[[Any], Tensor] | None = None,
    repeats: int = 20,
    budget: float = 10.0,
) -> Latency:
    """Time inference or a training step with Adam.

    A copy of the model runs twice to warm up, then `repeats` times or until the budget is spent. Each run is timed
    until the device has finished it. Other programs on the machine make runs slower and never faster: compare
    medians that were measured while little else ran, or minima. ``python -m benchmarks.models`` times networks beside
    PyTorch.

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
        Largest number of timed runs.
    budget : float
        Seconds after which no further run begins; but three runs, or `repeats` if that is less, are always made.

    Returns
    -------
    Latency

    Raises
    ------
    ValueError
        If `input_shape` is no such shape, does not fit the model, or would take more than this computer's memory;
        or `repeats` is less than 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, but is {repeats}.")
    model = copy_model(model, training)
    x = make_batch(model, input_shape)
    step, device = make_step(model, x, training, loss), device_of(x)
    for _ in range(WARM_UP):
        step()
    synchronize(device)
    seconds: list[float] = []
    begin = time.perf_counter()
    while len(seconds) < repeats and (len(seconds) < FEWEST or time.perf_counter() - begin < budget):
        start = time.perf_counter()
        result = step()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
        del result  # here, where the time to free its memory is not counted
    name, kernels = device_name(device), kernels_in_use(device)
    return Latency(x.shape, training, tuple(seconds), name, kernels, None if device == "gpu" else count_threads())
