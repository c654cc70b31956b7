"""The engine: Tensor, Function, no_grad and backward are in `tinyseg.autograd.engine`."""

from tinyseg.autograd.arrays import Array, Number, describe, plain_array
from tinyseg.autograd.engine import Function, Tensor, as_array, as_tensors, define_operators, is_grad_enabled, no_grad
from tinyseg.autograd.settings import Setting

__all__ = [
    "Array", "Function", "Number", "Setting", "Tensor", "as_array", "as_tensors", "define_operators", "describe",
    "is_grad_enabled", "no_grad", "plain_array",
]  # fmt: skip
