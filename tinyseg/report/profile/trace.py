"""What a network does when it runs: which ops, on which shapes, in which layer, and what the graph keeps of it.

Nothing here depends on an architecture. A copy of the network runs once, on one batch, with two watchers: one is told
when modules begin and end (`tinyseg.nn.watch`), the other of every op (`tinyseg.autograd.Function`) with the shapes of
its inputs and its output. What the graph keeps is read from its nodes at the end of the forward pass.
"""

import contextlib
import dataclasses
import functools
import math
import threading
import weakref

import numpy as np

from tinyseg import nn
from tinyseg.autograd import Function, Tensor, as_array, no_grad
from tinyseg.ops.conv2d import Conv2d
from tinyseg.ops.conv_transpose import ConvTranspose2d
from tinyseg.ops.depthwise_conv import DepthwiseConv2d
from tinyseg.ops.fused_conv import FusedConv2d
from tinyseg.ops.pointwise_conv import PointwiseConv2d
from tinyseg.ops.separable_conv import SeparableConv2d
from tinyseg.report.profile.steps import batch, copied


# ----- multiply-adds of one op ---------------------------------------------------
@functools.singledispatch
def multiply_adds(node, shapes, out):
    """Return the number of multiply-adds of one op by its definition; register a function for an op of your own.

    A convolution uses each of its weights once for every pixel of its output, padding included (a transposed one: of
    its input). With K x K taps, C channels in and N out (Gadosey et al. 2020, Equations 1 and 2):

        standard     K·K·C·N·OH·OW
        separable    K·K·C·OH·OW + C·N·OH·OW

    What is not a convolution counts as 0, as in other tools: norms, activations, pooling, upsampling, losses.

    Parameters
    ----------
    node : Function
        The op; its type decides: ``@multiply_adds.register(MyOp)``.
    shapes : list of tuple
        Of the inputs.
    out : tuple
        Shape of the output.

    Returns
    -------
    int or None
        None if the op is not known.
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
    """One call of a module or of an op, and the calls made inside of it.

    `multiply_adds` is for ops (None: not known), `held` the bytes that the graph keeps for this op and for none before
    it, `node` a weak reference, which is dead if the graph does not need the op.
    """

    module: nn.Module | None
    kind: str
    output: tuple = ()
    inside: list = dataclasses.field(default_factory=list)
    multiply_adds: int | None = 0
    held: int = 0
    node: weakref.ref | None = None

    def ops(self):
        """Yield the ops in this call, in the order in which they ran."""
        if self.module is None:
            yield self
        for call in self.inside:
            yield from call.ops()


@dataclasses.dataclass
class Trace:
    """What happened in one run.

    Attributes
    ----------
    model : Module
        The copy that ran.
    root : Call
        The call of the model.
    weights, input : int
        Bytes of parameters and buffers, and of the batch.
    """

    model: nn.Module
    root: Call
    weights: int
    input: int


def trace(model, input_shape, training=True, loss=None):
    """Run a copy of a model once, on random numbers between 0 and 1.

    Parameters
    ----------
    model : Module
        Stays as it is: a copy of it runs, on the device and in the precision of the model's parameters.
    input_shape : tuple
        (N, C, H, W).
    training : bool
        Run in training mode and record the graph, or in evaluation mode without.
    loss : function of the output, optional
        What is computed from the output in the same run.

    Returns
    -------
    Trace
    """
    model = copied(model, training)
    x, stack = batch(model, input_shape), [Call(None, "")]

    def begin(module):
        call = Call(module, type(module).__name__)
        stack[-1].inside.append(call)
        stack.append(call)

    def end(module, y):
        while stack[-1].module is not module:
            stack.pop()  # it ended in an exception, which the model caught
        stack.pop().output = _shape(y)

    def op(node, inputs, y):
        shapes = [_shape(as_array(a)) for a in inputs]
        work = multiply_adds(node, shapes, y.shape)
        stack[-1].inside.append(Call(None, type(node).__name__, y.shape, multiply_adds=work, node=weakref.ref(node)))

    with _watching(begin, end, op), contextlib.nullcontext() if training else no_grad():
        output = model(x)
        if loss is not None:
            output = loss(output)
    state = [p.data for p in model.parameters()]
    state += [getattr(module, name) for _, module in model.named_modules() for name in module.buffers]
    _count_held(stack[0], {id(_memory(a)[0]) for a in [*state, x]})  # while `output` keeps the graph alive
    return Trace(model, stack[0].inside[0], sum(a.nbytes for a in state), x.nbytes)


# ----- what is seen ------------------------------------------------------------------
_one_at_a_time = threading.RLock()


@contextlib.contextmanager
def _watching(begin, end, op):
    """Call `begin` and `end` for every module and `op` for every op that this thread runs."""
    me = threading.get_ident()

    def mine(watcher):
        return lambda *args: watcher(*args) if threading.get_ident() == me else None

    begin, end, op = mine(begin), mine(end), mine(op)
    with _one_at_a_time, nn.watch(end, begin):
        run = Function.__call__

        def watched(node, *inputs):
            y = run(node, *inputs)
            op(node, inputs, y)
            return y

        Function.__call__ = watched  # for this block: a hook in the engine would cost every op something
        try:
            yield
        finally:
            Function.__call__ = run


def _count_held(root, fixed):
    """Write to each op how many bytes its node is the first to hold; `fixed` are ids of memory that does not count."""
    seen = set(fixed)
    for call in root.ops():
        node = call.node and call.node()
        if node is None or node.parents is None:
            continue
        state = {name: value for name, value in vars(node).items() if name not in ("parents", "retained")}
        memories = {id(memory): size for memory, size in map(_memory, _arrays(state))}
        call.held = sum(size for key, size in memories.items() if key not in seen)
        seen.update(memories)


def _arrays(value):
    """Yield the arrays in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value.data
    elif isinstance(value, dict):
        yield from _arrays(list(value.values()))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _arrays(item)
    elif hasattr(value, "nbytes") and hasattr(value, "dtype") and not isinstance(value, np.generic):
        yield value


def _memory(array):
    """Return the array that owns the memory of a view, and how many bytes it counts for."""
    owner = array
    while isinstance(owner.base, type(array)):
        owner = owner.base
    of_arena = owner.ndim == 1 and owner.dtype == np.uint8  # and perhaps larger than what was asked for
    return owner, (array if of_arena else owner).nbytes


def _shape(y):
    """Shape of an array, of a Tensor or of a number; of several in a tuple, a tuple of shapes."""
    return tuple(map(_shape, y)) if isinstance(y, (tuple, list)) else tuple(getattr(y, "shape", ()))
