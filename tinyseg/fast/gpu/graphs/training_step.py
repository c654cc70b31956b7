"""A training step as a CUDA graph: forward, loss, backward, clipping, Adam and the figures of the step in one launch.

`graph.py` makes graphs, and `recording.py` keeps the numbers that change from step to step.
"""

import collections
import math

import numpy as np

from tinyseg import backend, ops
from tinyseg.backend import devices
from tinyseg.fast.gpu import optim as optim_gpu
from tinyseg.fast.gpu.graphs.graph import WARM_UP, Graph, Slots, copy_in, need_gpu, signature
from tinyseg.training.step import Figures, Step, count_foreground


class CapturedStep(Step):
    """A training step that is replayed; parameters as `tinyseg.training.Step`.

    The first shape of batch that comes for the third time is captured; batches of other shapes, such as the smaller
    last one of an epoch, take the ordinary step. The results are those of ordinary steps.

    After every step its figures are read, in one transfer. If the loss or the gradient is not finite, or class numbers
    are wrong, the replay has changed no weight, and the ordinary step is made on the same batch: it says what is wrong,
    or goes on if only the squares of the gradient were too large for float32. (Running statistics of batch
    normalization have then seen that batch twice.)

    The model must be on the GPU, in float32, with dropout by `nn.Dropout`; the optimizer is Adam or AdamW. Its learning
    rate and `eps` may change from step to step, and so may AdamW's decay, but not `betas` nor Adam's decay. The loss
    must not read a result; its weights are frozen as they are at the capture.

    Raises
    ------
    ValueError
        If the step cannot be captured: on the CPU, with another optimizer, other dtypes or the reference kernels.
    """

    def __init__(self, model, optimizer, loss=ops.binary_cross_entropy_with_logits, clip=None):
        need_gpu(model)
        super().__init__(model, optimizer, loss, clip)
        state = (optimizer.state[slot] for slot in optimizer.slots)
        arrays = [a for p, *rest in zip(optimizer.parameters, *state, strict=True) for a in (p.data, p.data, *rest)]
        kernels = backend.kernels("tinyseg.optim", *arrays)
        if not hasattr(optimizer, "numbers") or getattr(kernels, "namesake", None) is not optim_gpu:
            raise ValueError(
                "A training step can be captured as a CUDA graph with Adam or AdamW, float32 parameters and the fast "
                f"kernels, but the optimizer is {type(optimizer).__name__} and the first parameter "
                f"{optimizer.parameters[0].dtype}: go without graphs."
            )
        self.slots = Slots(model)
        self._forget()

    def _forget(self):
        self.key, self.seen, self.arrays, self.groups = None, collections.Counter(), self.slots.arrays(), []
        self.graph, self.figures = Graph(), devices.cp.zeros(6)  # loss, norm, wrong class numbers, and the counts

    def __call__(self, x, y):
        """Train on one batch of CuPy arrays, as `Step` does."""
        counts = self.optimizer.counts
        if not self.slots.unchanged(self.arrays) or any(len({counts[k] for k in group}) > 1 for group in self.groups):
            self._forget()  # weights lie elsewhere, or parameters of one launch have made different numbers of steps
        key = signature((x, y))
        if key == self.key and self.model.training:
            return self._replay(x, y)
        if self.key is not None or not self.model.training:
            return super().__call__(x, y)
        self.seen[key] += 1
        if self.seen[key] > WARM_UP:
            self._capture(x, y)
            return self._replay(x, y)
        with self.graph.on_its_stream():
            self._launch(x, y)
        return self._result(x, y)

    def _launch(self, x, y):
        """Make the step; this is what is captured."""
        logits = self.model(x)
        value = self.loss(logits, y)
        if value.data.dtype != np.float32 or value.size != 1:
            raise TypeError(f"A captured step needs a loss of one float32, not {value.dtype} of shape {value.shape}.")
        self.optimizer.zero_grad()
        value.backward()
        gradients = [p.grad for p in self.optimizer.parameters if p.grad is not None]
        optim_gpu.clip_and_judge(gradients, self.clip, value.data, self.figures)
        self.optimizer.step()
        for k, count in enumerate(count_foreground(logits.data, y)):
            self.figures[3 + k] = count

    def _capture(self, x, y):
        self.inputs, counts = [a.copy() for a in (x, y)], list(self.optimizer.counts)
        before = [(a, a.copy()) for a in self.arrays if isinstance(a, np.ndarray)]
        try:
            self.graph.capture(lambda: self._launch(*self.inputs))
        finally:
            self.optimizer.counts = counts  # nothing was computed
        if any((a != old).any() for a, old in before):
            raise ValueError(
                "The model counts something on the host that a CUDA graph cannot follow: go without graphs."
            )
        self.key, self.gradients = signature((x, y)), [p.grad for p in self.optimizer.parameters]
        self.groups = self.optimizer.groups(self._stepping())

    def _stepping(self):
        """Return the numbers of the parameters that have a gradient."""
        return [k for k, p in enumerate(self.optimizer.parameters) if p.grad is not None]

    def _replay(self, x, y):
        copy_in((x, y), self.inputs)
        for p, g in zip(self.optimizer.parameters, self.gradients, strict=True):
            p.grad = g
        self.optimizer.count_step(self._stepping())
        self.graph.launch()
        return self._result(x, y)

    def _result(self, x, y):
        loss, norm, wrong, overlap, predicted, true = backend.to_numpy(self.figures).tolist()
        if math.isfinite(loss) and math.isfinite(norm) and not wrong:
            return Figures(loss, norm, int(overlap), int(predicted) + int(true), updated=True)
        self.optimizer.count_step(self._stepping(), by=-1)  # nothing was changed
        self.graph.recording.rewind_counters()
        return super().__call__(x, y)
