"""tinyseg: U-Net and SD-UNet from scratch, on NumPy or CuPy arrays.

A small autograd engine (`autograd`), ops with hand-written backward passes (`ops`), layers (`nn`), the six networks of
Gadosey et al. 2020 (`models`), optimizers (`optim`), data (`data`) and a training loop (`training`).
"""

import os

# Before NumPy and numba load their thread pools: threads that have nothing to do sleep, instead of spinning on the
# cores that the other pool, or another program, needs.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# ruff: noqa: E402
from tinyseg import backend, checkpoint, data, metrics, models, nn, ops, optim, plots, prediction, training
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
    "metrics",
    "models",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "plots",
    "prediction",
    "training",
    "using",
]
