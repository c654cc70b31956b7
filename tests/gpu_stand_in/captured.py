"""What the tests of CUDA graphs share: a short training, made of ordinary steps or of captured ones."""

import dataclasses

import numpy as np

from tinyseg import backend, models, ops, optim
from tinyseg.fast.gpu.graphs.training_step import CapturedStep
from tinyseg.training import Step


@dataclasses.dataclass
class Training:
    """A small network, its optimizer, the steps to come, and what they gave."""

    name: str = "sdunet"
    loss: object = ops.binary_cross_entropy_with_logits
    classes: int = 1
    optimizer: object = optim.AdamW
    options: dict = dataclasses.field(default_factory=lambda: {"lr": 1e-2, "weight_decay": 0.1})
    clip: float = 0.5
    model_options: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self.model = models.build(self.name, 1, self.classes, width=4, levels=2, seed=1, **self.model_options).to("gpu")
        self.adam = self.optimizer(self.model.parameters(), **self.options)
        self.schedule = optim.CosineAnnealingLR(self.adam, T_max=50, warmup=3)
        self.trained, self.figures = self.make(Step), []

    def make(self, step):
        """Return a step of the class `step`."""
        return step(self.model, self.adam, self.loss, self.clip)

    def capture(self):
        """Make the steps to come captured ones."""
        self.trained = self.make(CapturedStep)
        return self

    def batch(self, k, shape=(2, 8, 8)):
        """Images and targets of step k."""
        rng = np.random.default_rng([7, k])
        x = rng.standard_normal((shape[0], 1, *shape[1:]), np.float32)
        y = x > 0.3 if self.classes == 1 else rng.integers(0, self.classes, shape)
        return backend.to_device(x, "gpu"), backend.to_device(y, "gpu")

    def step(self, x, y):
        figures = self.trained(x, y)
        self.figures.append((figures.loss, figures.overlap, figures.area, figures.updated))
        self.schedule.step()

    def run(self, steps, first=0):
        for k in range(first, first + steps):
            self.step(*self.batch(k))
        return self

    @property
    def launches(self):
        return self.trained.graph.graph.launches

    def state(self):
        """All that the next step depends on, and the figures so far."""
        return self.model.state_dict() | self.adam.state_dict() | {"figures": np.array(self.figures)}


def differ(a, b):
    """Names of the arrays in which two states differ."""
    assert a.keys() == b.keys()
    return [name for name in a if not np.array_equal(a[name], b[name], equal_nan=True)]
