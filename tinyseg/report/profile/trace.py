"""What a network does in a forward pass: which ops run in which layer, their work, and what the graph keeps.

This works for any architecture. A copy of the network runs once, on one batch, and is watched: `tinyseg.nn.watch`
reports where modules begin and end, and a replaced ``Function.__call__`` reports every op with the shapes of its inputs
and its output. What the graph keeps is read from its nodes at the end of the forward pass.
"""

import contextlib
import dataclasses
import functools
import math
import threading
import weakref
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tinyseg import nn
from tinyseg.autograd import Function, Tensor, as_array
from tinyseg.ops.conv2d import Conv2d
from tinyseg.ops.conv_transpose import ConvTranspose2d
from tinyseg.ops.depthwise_conv import DepthwiseConv2d
from tinyseg.ops.fused_conv import FusedConv2d
from tinyseg.ops.pointwise_conv import PointwiseConv2d
from tinyseg.ops.separable_conv import SeparableConv2d
from tinyseg.report.profile.steps import copy_model, make_batch


# ----- multiply-adds of one op ---------------------------------------------------
@functools.singledispatch
def multiply_adds(node: Function, shapes: Sequence[tuple[int, ...]], out: tuple[int, ...]) -> int | None:
    """Return the number of multiply-adds that the definition of an op asks for. Register a function for your own op.

    A convolution uses each of its weights once for every pixel of its output (a transposed one: for every pixel of its
    input). Products with the zeros of the padding count too. With K x K taps, C channels in and N out, one image has
    (Gadosey et al. 2020, Equations 1 and 2):

        standard     K·K·C·N·OH·OW
        separable    K·K·C·OH·OW + C·N·OH·OW

    Whatever is not a convolution counts as 0, as in other tools: norms, activations, pooling, upsampling, losses.

    Parameters
    ----------
    node : Function
        The op. Its type decides which function counts: ``@multiply_adds.register(MyOp)``.
    shapes : list of tuple
        Shapes of the inputs.
    out : tuple
        Shape of the output.

    Returns
    -------
    int or None
        None for an op that is not tinyseg's and has no function registered.
    """
    return 0 if type(node).__module__.startswith("tinyseg.") else None


@multiply_adds.register(Conv2d)
@multiply_adds.register(DepthwiseConv2d)
@multiply_adds.register(PointwiseConv2d)
def _(node, shapes, out):
    return math.prod(shapes[1]) * _pixels(out)


@multiply_adds.register(FusedConv2d)
def _(node, shapes, out):
    return math.prod(shapes[0]) * _pixels(out)


@multiply_adds.register(SeparableConv2d)
def _(node, shapes, out):
    return (math.prod(shapes[0]) + math.prod(shapes[1])) * _pixels(out)


@multiply_adds.register(ConvTranspose2d)
def _(node, shapes, out):
    return math.prod(shapes[1]) * _pixels(shapes[0])


def _pixels(shape):
    N, _, H, W = shape
    return N * H * W


# ----- one run ---------------------------------------------------------------------
@dataclasses.dataclass
class Call:
    """One call of a module or of an op, and the calls made inside of it."""

    module: nn.Module | None  # None for an op
    kind: str  # name of the class
    output: tuple = ()  # its shape
    inside: list = dataclasses.field(default_factory=list)
    multiply_adds: int | None = 0  # of an op; None if it is not known
    held: int = 0  # bytes that the graph keeps for this op and for none before it
    node: weakref.ref | None = None  # of an op; the reference is dead if the graph does not need the op

    def ops(self):
        """Yield the ops in this call, in the order in which they ran."""
        if self.module is None:
            yield self
        for call in self.inside:
            yield from call.ops()


class Trace(NamedTuple):
    """What happened in one forward pass."""

    model: nn.Module  # the copy that ran
    root: Call  # the call of the model
    input: int  # bytes of the batch


def trace(model, input_shape):
    """Run a copy of a model forward once, in training mode, on random numbers between 0 and 1; return a Trace."""
    model = copy_model(model, training=True)
    x, stack = make_batch(model, input_shape), [Call(None, "")]

    def begin(module):
        call = Call(module, type(module).__name__)
        stack[-1].inside.append(call)
        stack.append(call)

    def end(module, y):
        while stack[-1].module is not module:
            stack.pop()  # this module raised an exception, which the model caught
        stack.pop().output = _shape(y)

    def op(node, inputs, y):
        shapes = [_shape(as_array(a)) for a in inputs]
        work = multiply_adds(node, shapes, y.shape)
        stack[-1].inside.append(Call(None, type(node).__name__, y.shape, multiply_adds=work, node=weakref.ref(node)))

    with _watching(begin, end, op):
        output = model(x)
    state = [getattr(*where) for where in model.slots().values()]
    root = stack[0].inside[0]
    _count_held(root, {id(_find_memory(a)[0]) for a in [*state, x]})
    del output  # until here it kept the graph alive
    return Trace(model, root, x.nbytes)


# ----- how it is watched -----------------------------------------------------------
_one_at_a_time = threading.RLock()


@contextlib.contextmanager
def _watching(begin, end, op):
    """Call `begin` and `end` for every module and `op` for every op that this thread runs."""
    this_thread = threading.get_ident()

    def only_here(watcher):
        return lambda *args: watcher(*args) if threading.get_ident() == this_thread else None

    begin, end, op = only_here(begin), only_here(end), only_here(op)
    with _one_at_a_time, nn.watch(end, begin):
        run = Function.__call__

        def watched(node, *inputs):
            y = run(node, *inputs)
            op(node, inputs, y)
            return y

        Function.__call__ = watched  # and no hook in the engine, which would make every op a little slower
        try:
            yield
        finally:
            Function.__call__ = run


def _count_held(root, fixed):
    """Set `held` of each op: the bytes that its node is the first to hold. `fixed` are ids of memory not to count."""
    seen = set(fixed)
    for call in root.ops():
        node = call.node and call.node()
        if node is None or node.parents is None:
            continue
        state = {name: value for name, value in vars(node).items() if name not in ("parents", "retained")}
        memories = {id(memory): size for memory, size in map(_find_memory, _arrays(state))}
        call.held = sum(size for key, size in memories.items() if key not in seen)
        seen.update(memories)


def _arrays(value):
    """Yield the arrays in a value: an array, a Tensor, or tuples, lists and dicts of them, nested."""
    if isinstance(value, Tensor):
        yield value.data
    elif isinstance(value, dict):
        yield from _arrays(tuple(value.values()))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _arrays(item)
    elif hasattr(value, "nbytes") and hasattr(value, "dtype") and not isinstance(value, np.generic):
        yield value


def _find_memory(array):
    """Return the array that owns the memory of an array or of a view, and how many bytes to count for it."""
    owner = array
    while isinstance(owner.base, type(array)):
        owner = owner.base
    from_arena = owner.ndim == 1 and owner.dtype == np.uint8  # perhaps larger than what was asked for
    return owner, array.nbytes if from_arena else owner.nbytes


def _shape(y):
    """Return the shape of an array, a Tensor or a number; of a tuple or a list of them, a tuple of shapes."""
    if isinstance(y, (tuple, list)):
        return tuple(map(_shape, y))
    return tuple(getattr(y, "shape", ()))
