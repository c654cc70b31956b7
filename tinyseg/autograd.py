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
"""

import contextlib
import sys
import threading

import numpy as np

_mode = threading.local()  # per thread: a worker thread's no_grad must not switch the trainer's graph off
_sum = np.add  # adds two gradients; `define_operators` replaces it


@contextlib.contextmanager
def no_grad():
    """Context manager or decorator under which no graph is recorded (inference, updates of weights)."""
    outer, _mode.enabled = is_grad_enabled(), False
    try:
        yield
    finally:
        _mode.enabled = outer


def is_grad_enabled():
    """Whether operations record a graph in this thread (True unless inside `no_grad`)."""
    return getattr(_mode, "enabled", True)


def define_operators(methods, sum_of_gradients):
    """Set Tensor's operators and the function that adds two gradients. `tinyseg.ops.arithmetic` calls this once."""
    global _sum
    _sum = sum_of_gradients
    for name, function in methods.items():
        setattr(Tensor, name, function)


class Tensor:
    """A float array that remembers which Function made it.

    Parameters
    ----------
    data : array_like
        NumPy or CuPy array, any shape, not copied; numbers and lists become NumPy arrays (of floats: float64).
    requires_grad : bool
        Whether `backward` leaves d(output)/d(this) in `.grad`. Needs floating-point data.

    `grad` is the sum of the gradients so far, an array like `data`; None until a backward pass reaches this tensor.
    """

    __array_ufunc__ = None  # np.float64(2) * tensor asks Tensor.__rmul__ instead of looping over the tensor

    def __init__(self, data, requires_grad=False, *, creator=None):
        if isinstance(data, Tensor):
            raise TypeError("Tensor(data) takes an array, not a Tensor; use tensor.detach() for one without graph.")
        # Where a result has no axes, NumPy returns a scalar (np.generic), not an array.
        self.data = data if hasattr(data, "dtype") and not isinstance(data, np.generic) else np.asarray(data)
        if requires_grad and self.data.dtype.kind != "f":
            raise TypeError(f"Only floating-point tensors can require gradients, not {self.data.dtype}; use .astype.")
        self.requires_grad, self.creator, self.grad = requires_grad, creator, None

    shape = property(lambda self: self.data.shape, doc="Shape of the array.")
    ndim = property(lambda self: self.data.ndim, doc="Number of axes.")
    size = property(lambda self: self.data.size, doc="Number of elements.")
    dtype = property(lambda self: self.data.dtype, doc="Element type of the array.")

    def __len__(self):
        return len(self.data)

    def __bool__(self):
        return bool(self.data)  # NumPy raises if there are several elements; Python alone would ask len()

    def __float__(self):
        return float(self.data)

    def __array__(self, dtype=None, copy=None):
        raise TypeError("A Tensor is not an array: use tensor.data, or pass it to the functions of tinyseg.ops.")

    def __repr__(self):
        if self.creator is not None:
            return f"Tensor({self.data!r}, creator={type(self.creator).__name__})"
        return f"Tensor({self.data!r}, requires_grad=True)" if self.requires_grad else f"Tensor({self.data!r})"

    def item(self):
        """Return the value of a one-element tensor as a Python float."""
        return self.data.item()

    def detach(self):
        """Return a tensor with the same array and no graph."""
        return Tensor(self.data)

    def retain_grad(self):
        """Ask `backward` to leave this intermediate tensor's gradient in `.grad` too."""
        if not self.requires_grad:
            raise RuntimeError("retain_grad() on a tensor that no gradient reaches: nothing behind it requires grad.")
        if self.creator:
            self.creator.retained = self

    def backward(self, gy=None):
        """Add d(self)/d(leaf), contracted with the cotangent `gy`, to `.grad` of every leaf that requires it.

        Parameters
        ----------
        gy : ndarray, optional
            Cotangent, with this tensor's shape, dtype and device. 1 if left out, which needs a one-element tensor.

        Raises RuntimeError if no leaf requires gradients or the graph was used before, ValueError if gy does not fit.
        """
        if not self.requires_grad:
            why = "it was made under no_grad(), or from tensors none of which has requires_grad=True"
            raise RuntimeError(f"backward() on a tensor that does not require grad: {why}.")
        if gy is None and self.size != 1:
            found = f"this one has shape {self.shape}; reduce it (.mean(), .sum()) or pass gy of that shape."
            raise RuntimeError(f"backward() without a cotangent needs a one-element tensor such as a loss, but {found}")
        gy = np.ones_like(self.data) if gy is None else as_array(gy)  # for a CuPy array NumPy calls CuPy's ones_like
        gy = np.asarray(gy) if isinstance(gy, np.generic) else gy
        if getattr(gy, "shape", None) != self.shape or gy.dtype != self.dtype or type(gy) is not type(self.data):
            found = f"like the tensor itself, but gy is {describe(gy)}"
            raise ValueError(f"backward(gy) needs a {describe(self.data)}, {found}.")
        _backward(self, gy)


class Function:
    """One node of the graph. A subclass writes `forward(*xs) -> y` and `backward(gy) -> gxs`, on plain arrays.

    `forward` keeps what `backward` needs in `self.saved`. `backward` returns one gradient per input (a tuple, or a
    single array); it may return None for input i where `self.needs[i]` is False. Options (stride, eps …) are
    arguments of the constructor: `Relu()(x)`, `DepthwiseConv2d(stride, padding)(x, w)`.
    """

    saved, retained, needs = None, None, ()
    parents = None  # None again after the backward pass

    def __call__(self, *inputs):
        if any(self.needs):
            raise RuntimeError(f"{type(self).__name__}: a node of the graph stands for one call; make a new one.")
        inputs = as_tensors(type(self).__name__, inputs)
        self.needs = tuple(t.requires_grad and is_grad_enabled() for t in inputs)
        self.input_shapes, self.input_dtypes = [t.shape for t in inputs], [t.dtype for t in inputs]
        y = self.apply(*(t.data for t in inputs))
        if not any(self.needs):
            self.saved = None
            return Tensor(y)
        # A parent is the node that made the input, or the input itself where it is a leaf.
        self.parents = tuple((t.creator or t) if need else None for t, need in zip(inputs, self.needs, strict=True))
        return Tensor(y, requires_grad=True, creator=self)

    def apply(self, *xs):
        """Run `forward` on arrays of one type."""
        if len({x.dtype for x in xs}) > 1:
            raise TypeError(f"{type(self).__name__} got mixed precision: {', '.join(map(describe, xs))}; use .astype.")
        return self.forward(*xs)

    def gradients(self, gy):
        """Run `backward`, and return one gradient per input, a tuple."""
        gxs = self.backward(gy)
        return gxs if isinstance(gxs, tuple) else (gxs,)

    def forward(self, *xs):
        raise NotImplementedError(f"{type(self).__name__} has no forward(*xs).")

    def backward(self, gy):
        raise NotImplementedError(f"{type(self).__name__} has no backward(gy).")


def as_tensors(name, inputs):
    """Wrap the inputs of the operation `name` as Tensors of floating-point numbers."""
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


def as_array(x):
    """Return the array of a Tensor, or `x` itself."""
    return x.data if isinstance(x, Tensor) else x


def _backward(root, gy):
    if root.creator is None:
        _accumulate(root, gy, shared=True)
    grads, order = {root.creator: gy}, _topological(root.creator)
    while order:  # pop(): each node, and what it saved, can be freed as soon as it is done
        node = order.pop()
        gy, name = grads.pop(node), type(node).__name__
        if node.retained is not None:
            _accumulate(node.retained, gy, shared=True)
        gxs = node.gradients(gy)
        if len(gxs) != len(node.parents):
            raise RuntimeError(f"{name}.backward: expected {len(node.parents)} gradients, found {len(gxs)}.")
        for parent, gx, shape, dtype in zip(node.parents, gxs, node.input_shapes, node.input_dtypes, strict=True):
            if parent is None:
                continue
            if gx is None or gx.shape != shape or gx.dtype != dtype:
                found = "none" if gx is None else describe(gx)
                raise RuntimeError(f"{name}.backward: expected a {dtype} gradient of shape {shape}, found {found}.")
            if isinstance(parent, Function):
                grads[parent] = _sum(grads[parent], gx) if parent in grads else gx
            else:
                viewed = gx.base is not None and sys.getrefcount(gx.base) > 2  # by others than gx and this call
                _accumulate(parent, gx, shared=viewed or sum(g is gx for g in (gy, *gxs)) > 1)
        node.saved = node.parents = node.retained = None


def _accumulate(leaf, gx, shared):
    """Add gx to a leaf's .grad. The leaf must own that array: a `shared` one, which others hold too, is copied."""
    gx = _sum(leaf.grad, gx) if leaf.grad is not None else gx.copy() if shared else gx
    leaf.grad = np.asarray(gx) if isinstance(gx, np.generic) else gx


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


def describe(a):
    """Return dtype, library and shape of an array in words, for messages."""
    library = type(a).__module__.split(".")[0]
    return f"{a.dtype} {library} array of shape {a.shape}" if hasattr(a, "dtype") else type(a).__name__
