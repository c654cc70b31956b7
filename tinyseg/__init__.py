"""tinyseg: U-Net and SD-UNet from scratch, on NumPy or CuPy arrays.

A small autograd engine (`autograd`), ops with hand-written backward passes (`ops`), layers (`nn`), the six networks of
Gadosey et al. 2020 (`models`), optimizers (`optim`), data (`data`) and a training loop (`training`).
"""

from tinyseg import environment

environment.arrange()  # before NumPy is loaded

# ruff: noqa: E402
from tinyseg import (
    backend,
    checkpoint,
    data,
    graphs,
    metrics,
    mixed_precision,
    models,
    nn,
    ops,
    optim,
    plots,
    prediction,
    profile,
    training,
)
from tinyseg.autograd import Function, Tensor, no_grad
from tinyseg.backend import using
from tinyseg.gradcheck import check_grads

__version__ = "0.1.0"

__all__ = [
    "Function",
    "Tensor",
    "backend",
    "check_grads",
    "checkpoint",
    "data",
    "graphs",
    "metrics",
    "mixed_precision",
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
