"""What a Tensor has as an array has it: shape and type, operators, and methods such as ``x.mean()``.

The operators are declared here, for those who look them up and for type checkers. The engine knows no ops:
`tinyseg.ops.arithmetic` defines them (`tinyseg.autograd.define_operators`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tinyseg.autograd.arrays import Array, Number

if TYPE_CHECKING:
    from tinyseg.autograd.engine import Tensor


class ArrayMethods:
    """The base class of `tinyseg.Tensor`, which holds the array."""

    _data: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self._data.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._data.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._data.size

    @property
    def dtype(self) -> np.dtype:
        """Element type of the array."""
        return self._data.dtype

    def item(self) -> float:
        """Return the value of a one-element tensor as a Python float."""
        return self._data.item()

    def __bool__(self) -> bool:
        return bool(self._data)  # NumPy raises if there are several elements; Python alone would ask len()

    def __array__(self, dtype: object = None, copy: object = None) -> None:  # None: no NumPy function takes a Tensor
        raise TypeError("A Tensor is not an array: use tensor.data, or pass it to the functions of tinyseg.ops.")

    if TYPE_CHECKING:

        def __add__(self, other: Tensor | Array | Number) -> Tensor: ...
        def __radd__(self, other: Tensor | Array | Number) -> Tensor: ...
        def __sub__(self, other: Tensor | Array | Number) -> Tensor: ...
        def __rsub__(self, other: Tensor | Array | Number) -> Tensor: ...
        def __mul__(self, other: Tensor | Array | Number) -> Tensor: ...
        def __rmul__(self, other: Tensor | Array | Number) -> Tensor: ...
        def __truediv__(self, other: Tensor | Array | Number) -> Tensor: ...
        def __rtruediv__(self, other: Tensor | Array | Number) -> Tensor: ...
        def __pow__(self, exponent: float) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __len__(self) -> int: ...
        def __float__(self) -> float: ...
        def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor: ...
        def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor: ...
        def reshape(self, *shape: int | Sequence[int]) -> Tensor: ...
        def transpose(self, *axes: int | Sequence[int]) -> Tensor: ...
