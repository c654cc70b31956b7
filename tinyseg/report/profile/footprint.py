"""How much memory inference or a training step needs: predicted from one forward pass, and measured.

Predicted, in bytes, each part a field of `Memory`:

    weights        parameters and buffers
    gradients      as large as what is trained
    moments        Adam's two, each as large
    input          the batch
    activations    training: what the graph holds at the end of the forward pass, each array once
                   inference: the outputs that live at the same time, at the worst moment
    working        training: gradients of activations at the worst moment of the backward pass, as `_in_backward`
                   goes through the graph, beyond the activations that are still held then
    remembered     inference: weights in the form that kernels want (`tinyseg.fast.cpu.prepared`), four times as large for
                   Winograd's method
    idle           memory that was used for arrays of other sizes and waits to be used again: a share of activations
                   and working, found by measuring (`IDLE`). With numba kernels it is what `tinyseg.fast.cpu.arena` keeps

Measured: see `tinyseg.report.profile.measured`.
"""

import collections
import dataclasses
import math
import sys

from tinyseg.autograd import Function
from tinyseg.backend import config, device_of
from tinyseg.report.profile.measured import measure
from tinyseg.report.profile.steps import default_loss, first_array
from tinyseg.report.profile.table import mb, shape_text
from tinyseg.report.profile.trace import arrays, trace

IDLE = {"arena": (2 / 3, 1 / 3), "other": (1 / 6, 1 / 6)}  # share: inference, training
PARTS = ("weights", "gradients", "moments", "input", "activations", "working", "remembered", "idle")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes that inference or a training step needs; the parts are explained in the module docstring.

    Attributes
    ----------
    input_shape : tuple
    training : bool
    device : {"cpu", "gpu"}
    weights, gradients, moments, input, activations, working, remembered, idle : int
        The parts.
    measured : int or None
        Peak of a process of its own, above what it held before it had the model.
    note : str
        Why nothing was measured, if so.
    """

    input_shape: tuple
    training: bool
    device: str
    weights: int
    gradients: int
    moments: int
    input: int
    activations: int
    working: int
    remembered: int
    idle: int
    measured: int | None = None
    note: str = "not asked for"

    @property
    def predicted(self):
        """Sum of all parts, in bytes."""
        return sum(getattr(self, name) for name in PARTS)

    def as_dict(self):
        """Return everything as a dict, for JSON."""
        return dataclasses.asdict(self) | {"predicted": self.predicted}

    def __str__(self):
        what = "training step" if self.training else "inference"
        lines = [f"Memory of {what}, input {shape_text(self.input_shape)}, {self.device}, in MB"]
        lines += [f"  {name:<12}{mb(getattr(self, name)):>10}" for name in PARTS if getattr(self, name)]
        found = self.note if self.measured is None else f"{mb(self.measured):>10}"
        return "\n".join([*lines, f"predicted     {mb(self.predicted):>10}", f"measured      {found}"])


def memory(model, input_shape, training=False, loss=None, run=True):
    """Predict how much memory inference or a training step with Adam needs, and measure it.

    Predicted / measured, in MB of 10⁶ bytes, on Linux with two threads::

        images              SD-UNet                        U-Net
                            inference      training        inference      training
        1 x 1 x 256 x 256   157 / 153      423 / 413       490 / 497       820 / 816
        4 x 1 x 256 x 256   535 / 540     1503 / 1595      932 / 997      1791 / 1636
        8 x 4 x 144 x 144   352 / 358      976 / 947       749 / 795      1318 / 1380

    That is within 10 %; the paper's other networks at batch 1 within 5 %. With the maths files (no numba) it was within
    15 %. Networks that need less than 130 MB are predicted up to 30 % too large. The shares in `IDLE` were chosen by
    these very measurements, so that other networks, allocators and numbers of threads may differ by more. On a GPU
    nothing has been measured yet.

    Parameters
    ----------
    model : Module
        Stays as it is: a copy runs one forward pass, and the measurement runs in a process of its own.
    input_shape : tuple
        (N, C, H, W).
    training : bool
        A step of training (forward, backward, Adam), or inference.
    loss : function of the model's output, optional
        Returns the one-element Tensor to call ``backward()`` on; a function that another process can import.
        Binary cross-entropy from logits without.
    run : bool
        Whether to measure: some seconds, and about as much memory as predicted.

    Returns
    -------
    Memory
        Its `measured` is None, and its `note` says why, where that cannot be done: a model whose class is defined in a
        notebook, for example, is not known to another process.

    Raises
    ------
    ValueError
        If the model does not take this shape; the sentence is its own.
    """
    found = _predicted(model, tuple(map(int, input_shape)), training, loss)
    if not run:
        return found
    measured, note = measure(model, tuple(map(int, input_shape)), training, loss)
    return dataclasses.replace(found, measured=measured, note=note)


def _predicted(model, input_shape, training, loss):
    seen = trace(model, input_shape, training, (loss or default_loss) if training else None)
    parameters, device = seen.model.parameters(), device_of(first_array(model))
    trained = sum(p.data.nbytes for p in parameters if p.requires_grad) if training else 0
    activations, worst = _in_backward(seen.nodes, seen.itemsize) if training else (seen.outputs, seen.outputs)
    return Memory(
        input_shape=input_shape,
        training=training,
        device=device,
        weights=seen.weights,
        gradients=trained,
        moments=2 * trained,
        input=seen.input,
        activations=activations,
        working=worst - activations,
        remembered=0 if training else sum(_remembered(p.data) for p in parameters),
        idle=int(_idle_share(device, training, seen.itemsize) * worst),
    )


def _in_backward(nodes, itemsize):
    """Return the bytes that the graph holds before the backward pass, and with the gradients at its worst moment."""
    sizes = {key: size for _, held in nodes for key, size in held.items()}
    users = collections.Counter(key for _, held in nodes for key in held)
    gradients, before = {}, sum(sizes.values())
    now = worst = before
    for node, held in reversed(nodes):
        gy = gradients.pop(node, 0)
        inputs = zip(node.parents, node.input_shapes, strict=True)
        gxs = [(parent, math.prod(shape) * itemsize) for parent, shape in inputs if isinstance(parent, Function)]
        both = gy, sum(size for _, size in gxs)
        between = max(both)  # gy behind the ReLU, or the gradient between the two halves of a separable convolution
        worst = max(worst, now + sum(both) + between + sum(gradients.values()))
        for parent, size in gxs:
            gradients[parent] = size
        users.subtract(held.keys())
        now -= sum(sizes[key] for key in held if users[key] == 0)
    return before, worst


def _idle_share(device, training, itemsize):
    numba = "numba" in sys.modules and device == "cpu" and config.kernels == "fast" and itemsize == 4
    return IDLE["arena" if numba else "other"][training]


def _remembered(w):
    """Bytes of what the kernels remember of weights, and of what they made of that."""
    prepared = sys.modules.get("tinyseg.fast.cpu.prepared")  # there once a numba kernel has run
    made = list(arrays(prepared.remembered(w))) if prepared else []
    return sum(a.nbytes + _remembered(a) for a in made)
