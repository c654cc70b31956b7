"""A table of the layers: output shapes, parameters, multiply-adds and the bytes kept for the backward pass."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from tinyseg.nn import Module
from tinyseg.report.profile.trace import trace


@dataclasses.dataclass
class Row:
    """A module, with the modules inside of it where these have no rows of their own, or an op that a module calls.

    Nothing is counted in two rows: the rows add up to the totals.

    Attributes
    ----------
    name : str
        Dotted path of the module; for an op, path of the module that calls it.
    kind : str
        Class of the module, or of the op's node of the graph.
    depth : int
        Number of modules around it.
    output : tuple
        Shape; a tuple of shapes if a module returns several Tensors.
    parameters, trainable : int
        Numbers of values, in all and of those that require a gradient. A shared parameter is counted at its first use.
    multiply_adds : int
        See `tinyseg.report.profile.multiply_adds`.
    activations : int
        Bytes that the graph keeps from here to the backward pass, unless a row before this one counts them.
    unknown : tuple of str
        Ops whose multiply-adds are not known; they count as 0.
    is_op : bool
        Whether it is an op and not a module.
    """

    name: str
    kind: str
    depth: int
    output: tuple
    parameters: int = 0
    trainable: int = 0
    multiply_adds: int = 0
    activations: int = 0
    unknown: tuple[str, ...] = ()
    is_op: bool = False


@dataclasses.dataclass
class Summary:
    """What `summary` finds. ``str()`` gives the table, `as_dict()` what JSON can hold.

    Attributes
    ----------
    model : str
        Class of the model.
    input_shape : tuple
    rows : list of Row
        In the order of the calls.
    weights : int
        Bytes of the parameters: 4 for each value in float32.
    input : int
        Bytes of the batch.
    """

    model: str
    input_shape: tuple[int, ...]
    rows: list[Row]
    weights: int
    input: int

    @property
    def parameters(self) -> int:
        """Number of values in parameters."""
        return sum(row.parameters for row in self.rows)

    @property
    def trainable(self) -> int:
        """Number of values in parameters that require a gradient."""
        return sum(row.trainable for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one forward pass."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def flops(self) -> int:
        """Floating-point operations of one forward pass: 2 for each multiply-add."""
        return 2 * self.multiply_adds

    @property
    def activations(self) -> int:
        """Bytes that the graph keeps at the end of a forward pass in training, without input and weights."""
        return sum(row.activations for row in self.rows)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of ops whose multiply-adds are not known."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.unknown))

    def as_dict(self) -> dict[str, Any]:
        """Return everything as a dict, for JSON."""
        totals = ("parameters", "trainable", "multiply_adds", "flops", "activations", "unknown")
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in totals}

    def __str__(self) -> str:
        head = ("layer", "kind", "output", "parameters", "multiply-adds", "kept MB")
        rows = [self._cells(row) for row in self.rows]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        places = ["<"] * 3 + [">"] * 3
        top, *lines = (
            "  ".join(f"{cell:{place}{width}}" for cell, place, width in zip(row, places, widths, strict=True)).rstrip()
            for row in (head, *rows)
        )
        rule = "-" * (sum(widths) + 10)
        title = f"{self.model}, input {format_shape(self.input_shape)}"
        return "\n".join([title, rule, top, rule, *lines, rule, *self._totals()])

    def _cells(self, row):
        """Return the texts in a row of the table: first its name without that of the row around it; nothing for 0."""
        outer = max((f"{r.name}." for r in self.rows if row.name.startswith(f"{r.name}.")), key=len, default="")
        name = "(op)" if row.is_op else row.name.removeprefix(outer)
        label = "  " * max(row.depth - 1, 0) + (name or "(model)")
        parameters = f"{row.parameters:,}" if row.parameters else ""
        work = [format_count(row.multiply_adds)] if row.multiply_adds else []
        if row.unknown:
            work.append("?")
        kept = format_mb(row.activations) if row.activations else ""
        return label, row.kind, format_shape(row.output), parameters, " + ".join(work), kept

    def _totals(self):
        frozen = self.parameters - self.trainable
        more = f" (at least: {', '.join(self.unknown)} not known, see profile.multiply_adds)" if self.unknown else ""
        return [
            f"parameters     {self.parameters:,}" + (f", {self.trainable:,} of them trainable" if frozen else ""),
            f"multiply-adds  {format_count(self.multiply_adds)} = {format_count(self.flops)} FLOPs{more}",
            f"weights        {format_mb(self.weights)} MB; with Adam's moments {format_mb(3 * self.weights)}, "
            f"with gradients too {format_mb(4 * self.weights)}",
            f"activations    {format_mb(self.activations)} MB kept for backward, input {format_mb(self.input)} MB",
        ]


def summary(model: Module, input_shape: Sequence[int], depth: int | None = None, show: bool = True) -> Summary:
    """Count parameters, multiply-adds and activations, layer by layer, and print them as a table.

    A copy of the model runs one forward pass in training mode; the model stays as it is.

    Multiply-adds are those of the definitions (Gadosey et al. 2020, Equations 1 and 2), as in other tools. The kernels
    may need fewer: Winograd's method 36 products instead of 144, a 2x2 convolution of an upsampled image 9 instead of
    16. Only convolutions are counted: norms, activations, pooling and weight standardization count as 0, and so does
    what a model computes on plain arrays, outside of ops. For an op of your own the table shows a ? until you register
    a function that counts it with `tinyseg.report.profile.multiply_adds`.

    Activations are the arrays that the graph holds at the end of the forward pass, each counted once.
    `tinyseg.report.profile.memory` measures what a whole training step needs.

    Parameters
    ----------
    model : Module
        Any module built from tinyseg's ops. It is counted on the device where it is.
    input_shape : tuple
        (N, C, H, W). Multiply-adds and activations are those of the whole batch.
    depth : int, optional
        Modules nested deeper than this get no row and are counted with the module around them: 0 gives one row.
    show : bool
        Print the table.

    Returns
    -------
    Summary

    Raises
    ------
    ValueError
        If `input_shape` is no such shape, does not fit the model, or would take more than this computer's memory.
    """
    seen = trace(model, input_shape)
    names = {id(module): name for name, module in seen.model.named_modules()}
    limit = float("inf") if depth is None else depth
    found = Summary(
        type(model).__name__,
        tuple(map(int, input_shape)),
        _make_rows(seen.root, "", 0, limit, names, counted=set()),
        sum(p.data.nbytes for p in seen.model.parameters()),
        seen.input,
    )
    if show:
        print(found)
    return found


def _make_rows(call, outer, depth, limit, names, counted):
    """Return the row of a call, then those of the calls inside of it.

    `outer` is the name of the module that makes the call; `names` the names of modules by their ids; `counted` the ids
    of parameters that have been counted.
    """
    module, is_op = call.module, call.module is None
    name = outer if is_op else names.get(id(module), "")
    row, rows = Row(name, call.kind, depth, call.output, is_op=is_op), []
    if depth < limit and any(inner.module is not None for inner in call.inside):
        for inner in call.inside:
            rows += _make_rows(inner, name, depth + 1, limit, names, counted)
    else:
        ops = list(call.ops())
        row.multiply_adds = sum(op.multiply_adds or 0 for op in ops)
        row.activations = sum(op.held for op in ops)
        row.unknown = tuple(dict.fromkeys(op.kind for op in ops if op.multiply_adds is None))
    if not is_op:
        own = [p for p in module.parameters() if id(p) not in counted]  # the rows inside have counted theirs
        counted.update(map(id, own))
        row.parameters = sum(p.size for p in own)
        row.trainable = sum(p.size for p in own if p.requires_grad)
    return [row, *rows]


# ----- numbers as text -------------------------------------------------------------------
def format_count(n):
    """Return a count with an SI prefix: 54.61 G."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= factor:
            return f"{n / factor:.2f} {prefix}"
    return f"{n:g}"


def format_mb(size):
    """Return bytes as megabytes of 10⁶ bytes."""
    return f"{size / 1e6:,.1f}"


def format_shape(shape):
    """Return a shape as text: 1 x 64 x 256 x 256."""
    if any(isinstance(item, tuple) for item in shape):
        return ", ".join(map(format_shape, shape))
    return " x ".join(map(str, shape))
