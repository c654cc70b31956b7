"""The whole autograd engine: Tensor, Function, no_grad, backward.

A `Tensor` is an array and, if it was computed from a tensor that requires gradients, the `Function` that made it.
A `Function` is one node of the graph: it remembers what its backward pass needs (`saved`) and where the gradients go
(`parents`: other nodes, or leaf tensors such as parameters). A node does not hold its output, so the graph keeps no
array that no backward pass needs. There are no second derivatives.

`backward()` visits every node once, each after all the nodes that used its output:

    for node in reversed topological order:
        gxs = node.backward(gy)            # gy: the summed cotangents of the node's output
        add each gx to its parent's sum    # a leaf keeps it in .grad
        free what the node saved

A node saves the tensors' own arrays, not copies. Tensors count the changes of their arrays: if one that a node has
saved was changed since, `backward()` raises an error.
"""

import contextvars
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinyseg.autograd.array_methods import ArrayMethods
from tinyseg.autograd.arrays import Array, Number, describe, is_shared, owners_of, plain_array
from tinyseg.autograd.settings import Setting

_recording = contextvars.ContextVar("recording", default=True)  # whether operations record a graph
_sum: Callable = np.add  # adds two gradients; `define_operators` replaces it


def no_grad() -> Setting:
    """Context manager or decorator under which no graph is recorded (inference, updates of weights)."""
    return Setting(_recording, lambda _: False)


def is_grad_enabled() -> bool:
    """Whether operations record a graph in this thread or asyncio task (True unless inside `no_grad`)."""
    return _recording.get()


def define_operators(methods: dict[str, Callable], sum_of_gradients: Callable[[Array, Array], Array]) -> None:
    """Set Tensor's operators and the function that adds two gradients. `tinyseg.ops.arithmetic` calls this once."""
    global _sum
    _sum = sum_of_gradients
    for name, function in methods.items():
        setattr(Tensor, name, function)


class Tensor(ArrayMethods):
    """A float array that remembers which Function made it.

    Parameters
    ----------
    data : array_like
        NumPy or CuPy array, any shape, not copied; numbers and lists become NumPy arrays (of floats: float64). Of
        np.memmap and other subclasses of NumPy's array the plain array is taken; masked arrays are refused.
    requires_grad : bool
        Whether `backward` leaves d(output)/d(this) in `.grad`. Needs floating-point data.

    `grad` is the sum of the gradients so far, an array like `data`; None until a backward pass reaches this tensor.

    After ``tensor.data = …`` and ``tensor.data -= …`` a backward pass through a graph that has saved the old numbers
    raises an error. A change of the array alone, such as ``tensor.data[0] = 1``, is not noticed: call `mark_changed`.
    """

    __array_ufunc__ = None  # np.float64(2) * tensor asks Tensor.__rmul__ instead of looping over the tensor

    def __init__(self, data: ArrayLike, requires_grad: bool = False, *, creator: "Function | None" = None) -> None:
        if isinstance(data, Tensor):
            raise TypeError("Tensor(data) takes an array, not a Tensor; use tensor.detach() for one without graph.")
        self.changes = [0]  # the number of changes of the array; nodes and tensors that share the array share the list
        self._data = plain_array(data)
        if requires_grad and self.dtype.kind != "f":
            raise TypeError(f"Only floating-point tensors can require gradients, not {self.dtype}; use .astype.")
        self.requires_grad, self.creator = requires_grad, creator
        self.grad: Array | None = None

    def mark_changed(self) -> None:
        """Say that the numbers in `data` have been changed: graphs that saved the old ones cannot be used any more."""
        self.changes[0] += 1

    @property
    def data(self) -> Array:
        """The array."""
        return self._data

    @data.setter
    def data(self, array: ArrayLike) -> None:
        self._data = plain_array(array)
        self.mark_changed()

    def __repr__(self) -> str:
        if self.creator is not None:
            return f"Tensor({self.data!r}, creator={type(self.creator).__name__})"
        return f"Tensor({self.data!r}, requires_grad=True)" if self.requires_grad else f"Tensor({self.data!r})"

    def detach(self) -> "Tensor":
        """Return a tensor with the same array and no graph."""
        tensor = Tensor(self.data)
        tensor.changes = self.changes
        return tensor

    def retain_grad(self) -> None:
        """Ask `backward` to leave this intermediate tensor's gradient in `.grad` too."""
        if not self.requires_grad:
            raise RuntimeError("retain_grad() on a tensor that no gradient reaches: nothing behind it requires grad.")
        if self.creator:
            self.creator.retained = self

    def backward(self, gy: ArrayLike | None = None, done: "Callable[[Tensor], object] | None" = None) -> None:
        """Add d(self)/d(leaf), contracted with the cotangent `gy`, to `.grad` of every leaf that requires it.

        Parameters
        ----------
        gy : ndarray, optional
            Cotangent, with this tensor's shape, dtype and device. 1 if left out, which needs a one-element tensor.
        done : callable, optional
            ``done(leaf)`` is called as soon as the gradient of a leaf is complete.

        Raises RuntimeError if no leaf requires gradients or the graph was used before, ValueError if gy does not fit.
        """
        if not self.requires_grad:
            why = "it was made under no_grad(), or from tensors none of which has requires_grad=True"
            raise RuntimeError(f"backward() on a tensor that does not require grad: {why}.")
        if gy is None and self.size != 1:
            found = f"this one has shape {self.shape}; reduce it (.mean(), .sum()) or pass gy of that shape."
            raise RuntimeError(f"backward() without a cotangent needs a one-element tensor such as a loss, but {found}")
        gy = np.ones_like(self.data) if gy is None else as_array(gy)  # for a CuPy array NumPy calls CuPy's ones_like
        gy = plain_array(gy) if hasattr(gy, "dtype") else gy
        if getattr(gy, "shape", None) != self.shape or gy.dtype != self.dtype or type(gy) is not type(self.data):
            found = f"like the tensor itself, but gy is {describe(gy)}"
            raise ValueError(f"backward(gy) needs a {describe(self.data)}, {found}.")
        _backward(self, gy, done)


class Function:
    """One node of the graph. A subclass writes `forward(*xs) -> y` and `backward(gy) -> gxs`, on plain arrays.

    `forward` keeps what `backward` needs in `self.saved`. `backward` returns one gradient per input (a tuple, or a
    single array); it may return None for input i where `self.needs[i]` is False. Options (stride, eps …) are
    arguments of the constructor: `Relu()(x)`, `DepthwiseConv2d(stride, padding)(x, w)`.
    """

    saved: Any = None
    retained: Tensor | None = None
    needs: tuple[bool, ...] = ()
    parents: tuple | None = None  # None again after the backward pass
    _versions: Sequence = ()  # (changes, their number then, owner of the memory) of the inputs and the output

    def __call__(self, *inputs: Tensor | Array | Number) -> Tensor:
        if any(self.needs):
            raise RuntimeError(f"{type(self).__name__}: a node of the graph stands for one call; make a new one.")
        tensors, recording = as_tensors(type(self).__name__, inputs), is_grad_enabled()
        arrays = [t.data for t in tensors]
        self.needs = tuple([t.requires_grad and recording for t in tensors])
        self.input_shapes, self.input_dtypes = [a.shape for a in arrays], [a.dtype for a in arrays]
        result = Tensor(self.apply(*arrays))
        owner, owners = owners_of(result.data), [owners_of(a) for a in arrays]
        if owner in owners:  # the output is a view of an input
            result.changes = tensors[owners.index(owner)].changes
        if not any(self.needs):
            self.saved = None
            return result
        # A parent is the node that made the input, or the input itself where it is a leaf.
        self.parents = tuple([(t.creator or t) if need else None for t, need in zip(tensors, self.needs, strict=True)])
        held = zip((*tensors, result), (*owners, owner), strict=True)
        self._versions = [(t.changes, t.changes[0], memory) for t, memory in held]
        result.requires_grad, result.creator = True, self
        return result

    def apply(self, *xs: Array) -> Array:
        """Run `forward` on arrays of one type."""
        if any(x.dtype != xs[0].dtype for x in xs):
            raise TypeError(f"{type(self).__name__} got mixed precision: {', '.join(map(describe, xs))}; use .astype.")
        return self.forward(*xs)

    def gradients(self, gy: Array) -> tuple[Array | None, ...]:
        """Run `backward`, and return one gradient per input, a tuple."""
        gxs = self.backward(gy)
        return gxs if isinstance(gxs, tuple) else (gxs,)

    def forward(self, *xs: Any, **options: Any) -> Any:  # a subclass may have any arguments
        raise NotImplementedError(f"{type(self).__name__} has no forward(*xs).")

    def backward(self, gy: Array) -> Array | tuple[Array | None, ...]:
        raise NotImplementedError(f"{type(self).__name__} has no backward(gy).")


def as_tensors(name: str, inputs: Sequence[Any]) -> Sequence[Tensor]:
    """Wrap the inputs of the operation `name` as Tensors of floating-point numbers."""
    if all(isinstance(t, Tensor) and t.data.dtype.kind == "f" for t in inputs):
        return inputs
    dtype = next((t.dtype for t in inputs if hasattr(t, "dtype")), float)  # Python numbers take the first array's
    arrays = [np.asarray(t, dtype) if type(t) in (int, float) else t for t in inputs]
    tensors = [t if isinstance(t, Tensor) else Tensor(t) for t in arrays]
    for given, t in zip(inputs, tensors, strict=True):
        if t.dtype.kind in "OSU" or isinstance(given, bool):
            raise TypeError(f"{name} takes tensors, arrays or numbers, but got {type(given).__name__}.")
        if t.dtype.kind != "f":
            found = f"{t.dtype} of shape {t.shape}; convert it first, e.g. array.astype('float32')"
            raise TypeError(f"{name} needs floating-point data (such as float32), but got {found}.")
    return tensors


def as_array(x: Any) -> Any:
    """Return the array of a Tensor, or `x` itself."""
    return x.data if isinstance(x, Tensor) else x


def _backward(root, gy, done):
    if root.creator is None:
        _accumulate(root, gy, shared=True)
    grads, order = {root.creator: gy}, _topological(root.creator)
    last_use = {id(p): node for node in reversed(order) for p in node.parents} if done else {}
    while order:  # pop(): each node, and what it saved, can be freed as soon as it is done
        node = order.pop()
        gy, name = grads.pop(node), type(node).__name__
        if node.retained is not None:
            _accumulate(node.retained, gy, shared=True)
        changed = [memory for changes, then, memory in node._versions if changes[0] != then]
        if any(memory & owners_of(node.saved) for memory in changed):
            why = "has saved a tensor or parameter whose numbers were changed since, so that gradients would be wrong"
            raise RuntimeError(f"{name} {why}. Call backward() before the change, or run the forward pass again.")
        gxs = node.gradients(gy)
        if len(gxs) != len(node.parents):
            raise RuntimeError(f"{name}.backward: expected {len(node.parents)} gradients, found {len(gxs)}.")
        for i, (parent, shape, dtype) in enumerate(
            zip(node.parents, node.input_shapes, node.input_dtypes, strict=True)
        ):
            if parent is None:
                continue
            is_held = sys.getrefcount(gxs[i]) > 2  # by others than `gxs` and this call
            if (gx := gxs[i]) is None or gx.shape != shape or gx.dtype != dtype:
                found = "none" if gx is None else describe(gx)
                raise RuntimeError(f"{name}.backward: expected a {dtype} gradient of shape {shape}, found {found}.")
            if isinstance(parent, Function):
                grads[parent] = _sum(grads[parent], gx) if parent in grads else gx
            else:
                _accumulate(parent, gx, shared=is_held or is_shared(gx))
        for leaf in (p for p in node.parents if done and isinstance(p, Tensor) and last_use[id(p)] is node):
            done(leaf)
        node.saved = node.parents = node.retained = None


def _accumulate(leaf, gx, shared):
    """Add gx to a leaf's .grad. The leaf must own that array: a `shared` one, which others hold too, is copied."""
    gx = _sum(leaf.grad, gx) if leaf.grad is not None else gx.copy() if shared else gx
    leaf.grad = plain_array(gx)


def _topological(root):
    """Return `root` and all nodes it depends on, each after its parents. No recursion: graphs can be deep."""
    order, seen, stack = [], set(), [(root, False)] if root else []
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif node not in seen:
            if node.parents is None:
                mend = "Run the forward pass again, or add the losses and call backward() once on the sum."
                used = "an earlier backward() has used; its saved arrays are freed"
                raise RuntimeError(f"backward() reached a part of the graph that {used}. {mend}")
            seen.add(node)
            stack.append((node, True))
            stack.extend((p, False) for p in node.parents if isinstance(p, Function))
    return order
