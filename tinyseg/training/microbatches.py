"""A training step that computes its batch in parts: in less memory, and in several processes, to the same bits.

A batch is halved into M microbatches, M a power of two. With the gradient g(m) of the mean loss over the n(m) images of
a microbatch,

    gradient = Σ n(m) g(m) / n,        added up as ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))

A process of P has M / P of them, side by side: it adds up its branch of that tree, and the processes the rest
(`tinyseg.training.parallel`), while the last backward pass still computes (`tinyseg.training.overlap`). Rounding
depends on the order of additions, and the order on M alone: a run ends with the same bits in 1, 2 or 4 processes,
whatever the number of threads of each.

What else depends on the batch: losses that are no mean over images ask for sums over all of it, which costs a second
pass forward (`tinyseg.ops.batch_parts`); dropout draws a mask for each microbatch, by its number; BatchNorm normalizes
over a microbatch, and its running statistics become the mean over the microbatches.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tinyseg import nn, ops, optim
from tinyseg.autograd import Array, Tensor, no_grad
from tinyseg.backend import xp_of
from tinyseg.data.loader import samples_of_part
from tinyseg.ops.batch_parts import Part
from tinyseg.training.overlap import Gradient, Sender
from tinyseg.training.parallel import ALONE, Group, add
from tinyseg.training.step import Figures, Step, count_foreground


class MicrobatchStep(Step):
    """A training step on a batch in parts. Results are as of `Step`, but for rounding; see the module docstring.

    Parameters
    ----------
    model, optimizer, loss, clip
        As of `Step`. A loss is a mean over images, or asks for sums over the batch by `ops.batch_parts.over_batch`, as
        all of tinyseg's do.
    microbatches : int
        M, the number of parts: a power of two, and at least as many as processes.
    group : Group
        The processes that train together. Each calls the step with its part of the batch (`data.Loader`, ``part=``).

    Raises
    ------
    ValueError
        `microbatches` does not fit.
    """

    def __init__(
        self, model: nn.Module, optimizer: optim.Optimizer, loss: Callable[[Tensor, Array], Tensor],
        clip: float | None = None, microbatches: int = 1, group: Group = ALONE,
    ) -> None:  # fmt: skip
        super().__init__(model, optimizer, loss, clip)
        self.group = group
        check_microbatches(microbatches, self.group.size)
        self.own = microbatches // self.group.size  # of this process
        on_cpu = all(isinstance(p.data, np.ndarray) for p in optimizer.parameters)
        self._sender = Sender() if group.size > 1 and group.threads and on_cpu else None
        self._asks = True  # whether the loss asks for sums over the batch; the first step shows it

    def __call__(self, x: Array, y: Array) -> Figures:
        """Train on one batch, of which `x` and `y` are the part of this process, perhaps without an image."""
        buffers = Buffers(self.model)
        try:
            images, totals, logits = self._sums_over_batch(x, y, buffers) if self._asks else (0, None, None)
            parameters = self.optimizer.parameters
            branches: list[tuple[int, list[Array]]] = []
            for k, (number, a, b) in enumerate(self._parts(x, y)):
                last = k == self.own - 1
                before = [arrays[0] for _, arrays in reversed(branches)] if last else ()
                to_sum = (self.group, before, self._sender) if last else (ALONE,)
                gradient, part = Gradient(parameters, len(a), *to_sum), Part(number, len(a) / max(images, 1), totals)
                rest = self._compute(part, a, b, buffers, logits, gradient)
                if not last:
                    add_branch(branches, [gradient.finish(), *rest])
            total = gradient.finish()
            for _, (_, *earlier) in reversed(branches):
                rest = add(earlier, rest)
            state, sums, used, calls = self.group.sum(rest)
        except BaseException:  # as when another process is lost: the step was not made
            buffers.restore()
            raise
        images, loss, overlap, area = sums.tolist()
        buffers.set(state / images, calls / images)
        figures = Figures(loss / images, overlap=int(overlap), area=int(area))
        if math.isfinite(figures.loss):
            self._set_gradients(total / images, used)
            figures.norm = optim.clip_grad_norm(self.optimizer.parameters, self.clip)
            if math.isfinite(figures.norm):
                self.optimizer.step()
                figures.updated = True
        return figures

    def forward(self, x: Array) -> Tensor:
        """Return the logits of a batch, or of this process's part of it."""
        buffers, logits = Buffers(self.model), []
        for number, part, _ in self._parts(x, x):
            if len(part):
                buffers.restore()
                with Part(number)():
                    logits.append(self.model(part))
        return ops.concat(logits or [x], axis=0)

    def _parts(self, x, y):
        """Yield the number, the images and the labels of each microbatch of this process."""
        for k in range(self.own):
            mine = samples_of_part(len(x), k, self.own)
            yield self.group.rank * self.own + k, x[mine], y[mine]

    def _sums_over_batch(self, x, y, buffers):
        """Return the number of images of the batch, what the loss asks to be summed, and the logits if not too many.

        Only the logits of a single microbatch are kept: those of more would keep the memory of all of them.
        """
        logits = None

        def ask(number, a, b):
            nonlocal logits
            part, images = Part(number), len(a)
            if images == 0:  # two of zeros tell the shapes of what the loss asks for
                a, b = (xp_of(c).zeros((2, *c.shape[1:]), c.dtype) for c in (a, b))
            buffers.restore()
            with part(), contextlib.nullcontext() if self.own == 1 and images else no_grad():
                logits = self.model(a)
                self.loss(logits, b)
            return [np.array([images], np.float64), *(c if images else 0 * c for c in part.asked)]

        (images,), *totals = self.group.sum(add_in_pairs(ask(*part) for part in self._parts(x, y)))
        self._asks = bool(totals)
        return int(images), totals, logits if self.own == 1 else None

    def _compute(self, part, x, y, buffers, logits, gradient):
        """Fill the gradient of a microbatch; return what else is added up over them, four flat arrays.

        n(m) times the statistics of the buffers, the figures, which parameters have a gradient, and n(m) times the
        growth of the counters.
        """
        parameters, n = self.optimizer.parameters, len(x)
        self.optimizer.zero_grad()
        if n == 0:
            state, calls = buffers.read()
            return [0 * state, np.zeros(4), np.zeros(len(parameters)), 0 * calls]
        with part():
            if logits is None:
                buffers.restore()
                logits = self.model(x)
            loss = self.loss(logits, y)
        if part.asked and part.totals is None:
            raise RuntimeError("A loss has to ask for the same sums over the batch (ops.batch_parts) in every step.")
        value = loss.item()
        if math.isfinite(value):
            loss.backward(done=gradient.note)
        overlap, predicted, true = count_foreground(logits.data, y)
        state, calls = buffers.read()
        figures = np.array([n, n * value, int(overlap), int(predicted) + int(true)], np.float64)
        used = np.array([p.grad is not None for p in parameters], np.float64)
        return [n * state, figures, used, n * calls]

    def _set_gradients(self, flat, used):
        """Give each parameter that the network uses its part of a flat array as its gradient."""
        parameters = self.optimizer.parameters
        for p, gradient, is_used in zip(parameters, cut(flat, parameters), used, strict=True):
            p.grad = gradient if is_used else None


class Buffers:
    """What a forward pass changes in a model: running statistics, and the counters of dropout.

    Each microbatch begins with those before the step.
    """

    def __init__(self, model: nn.Module) -> None:
        arrays = [getattr(*where) for where in model.slots().values() if isinstance(where[0], nn.Module)]
        self.statistics = [a for a in arrays if a.dtype.kind == "f"]
        self.counters = [a for a in arrays if a.dtype.kind != "f"]
        self.before = [a.copy() for a in (*self.statistics, *self.counters)]

    def restore(self) -> None:
        """Set all to what they were."""
        for a, before in zip((*self.statistics, *self.counters), self.before, strict=True):
            a[...] = before

    def read(self) -> tuple[Array, Array]:
        """Return the statistics, and by how much the counters have grown (float64): flat arrays."""
        arrays = [a.reshape(-1) for a in self.statistics] or [np.zeros(0, np.float32)]
        grown = [(a - b).reshape(-1) for a, b in zip(self.counters, self.before[len(self.statistics) :], strict=True)]
        return xp_of(*arrays).concatenate(arrays), np.concatenate([np.zeros(0), *grown])

    def set(self, statistics: Array, grown: Array) -> None:
        """Set the statistics, and let the counters grow, by flat arrays as of `read`."""
        self.restore()
        for a, found in zip(self.statistics, cut(statistics, self.statistics), strict=True):
            a[...] = found
        for a, growth in zip(self.counters, cut(grown, self.counters), strict=True):
            a += np.rint(growth).astype(a.dtype)


def cut(flat: Array, like: Sequence[Any]) -> Iterator[Array]:
    """Yield the parts of a flat array that have the shapes of other arrays, one after the other."""
    first = 0
    for a in like:
        yield flat[first : first + a.size].reshape(a.shape)
        first += a.size


def add_in_pairs(parts: Iterable[list[Array]]) -> list[Array]:
    """Add up lists of arrays, of which there are a power of two, as a binary tree: ((0 + 1) + (2 + 3)) + …

    No more of them are there at the same time than the tree is high. The arrays are changed.
    """
    branches: list[tuple[int, list[Array]]] = []
    for arrays in parts:
        add_branch(branches, arrays)
    return branches[0][1]


def add_branch(branches: list[tuple[int, list[Array]]], arrays: list[Array]) -> None:
    """Add arrays to a growing tree, which is a list of branches and their heights, the highest first."""
    height = 0
    while branches and branches[-1][0] == height:
        arrays, height = add(branches.pop()[1], arrays), height + 1
    branches.append((height, arrays))


def check_microbatches(microbatches: int, processes: int) -> None:
    """Raise a ValueError unless so many microbatches can be divided among so many processes."""
    if microbatches < 1 or microbatches & (microbatches - 1):
        raise ValueError(
            f"a batch is halved, and its halves again: microbatches must be 1, 2, 4, …, not {microbatches}."
        )
    if processes > microbatches:
        raise ValueError(
            f"{processes} processes train together, and a batch of {microbatches} microbatches has no part for some of "
            "them: give more microbatches, or start fewer processes."
        )
