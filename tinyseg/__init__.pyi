"""What `import tinyseg` gives: the names of the package and where they are."""

from . import backend, data, export, metrics, models, nn, ops, optim, prediction, training
from .autograd import Function, Tensor, no_grad
from .backend import using
from .models import checkpoint
from .ops.gradcheck import check_grads
from .report import plots, profile

__version__: str

__all__ = [
    "Function",
    "Tensor",
    "backend",
    "check_grads",
    "checkpoint",
    "data",
    "export",
    "metrics",
    "models",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "plots",
    "prediction",
    "profile",
    "training",
    "using",
]
