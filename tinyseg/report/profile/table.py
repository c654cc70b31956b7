"""Layer by layer: output shapes, parameters, multiply-adds and what is kept for backward, as a table."""

import dataclasses

from tinyseg.report.profile.trace import trace


@dataclasses.dataclass
class Row:
    """A layer, a folded part of the network, or an op that a module calls itself.

    Nothing is counted in two rows: each column adds up to its total.

    Attributes
    ----------
    name : str
        Dotted path of the module; of an op, that of the module which calls it.
    kind : str
        Class of the module, or of the op's node of the graph.
    depth : int
        Number of modules around it.
    output : tuple
        Shape; a tuple of shapes where a module returns several Tensors.
    parameters, trainable : int
        Numbers of values; a shared parameter is counted at its first use.
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
    unknown: tuple = ()
    is_op: bool = False


@dataclasses.dataclass
class Summary:
    """What `summary` finds. ``str()`` of it is the table, `as_dict()` of it goes into JSON.

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
    input_shape: tuple
    rows: list
    weights: int
    input: int

    @property
    def parameters(self):
        """Number of values in parameters."""
        return sum(row.parameters for row in self.rows)

    @property
    def trainable(self):
        """Number of values in parameters that require a gradient."""
        return sum(row.trainable for row in self.rows)

    @property
    def multiply_adds(self):
        """Multiply-adds of one forward pass."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def flops(self):
        """Floating-point operations of one forward pass: 2 for each multiply-add."""
        return 2 * self.multiply_adds

    @property
    def activations(self):
        """Bytes that the graph keeps at the end of a forward pass in training, without input and weights."""
        return sum(row.activations for row in self.rows)

    @property
    def unknown(self):
        """Names of ops whose multiply-adds are not known."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.unknown))

    def as_dict(self):
        """Return everything as dicts, lists, numbers and text."""
        totals = ("parameters", "trainable", "multiply_adds", "flops", "activations", "unknown")
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in totals}

    def __str__(self):
        head = ("layer", "kind", "output", "parameters", "multiply-adds", "kept MB")
        rows = [(self._label(r), r.kind, shape_text(r.output), *_numbers_as_text(r)) for r in self.rows]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        places = ["<"] * 3 + [">"] * 3
        head, *lines = (
            "  ".join(f"{cell:{place}{width}}" for cell, place, width in zip(row, places, widths, strict=True)).rstrip()
            for row in (head, *rows)
        )
        rule = "-" * (sum(widths) + 10)
        title = f"{self.model}, input {shape_text(self.input_shape)}"
        return "\n".join([title, rule, head, rule, *lines, rule, *self._totals()])

    def _label(self, row):
        """Return the name without that of the row around it, indented."""
        outer = max((r.name for r in self.rows if row.name.startswith(f"{r.name}.")), key=len, default="")
        name = "(op)" if row.is_op else row.name[len(outer) + 1 :] if outer else row.name
        return "  " * max(row.depth - 1, 0) + (name or "(model)")

    def _totals(self):
        frozen = self.parameters - self.trainable
        more = f" (at least: {', '.join(self.unknown)} not known, see profile.multiply_adds)" if self.unknown else ""
        return [
            f"parameters     {self.parameters:,}" + (f", {self.trainable:,} of them trainable" if frozen else ""),
            f"multiply-adds  {si(self.multiply_adds)} = {si(self.flops)} FLOPs{more}",
            f"weights        {mb(self.weights)} MB; with Adam's moments {mb(3 * self.weights)}, with gradients too "
            f"{mb(4 * self.weights)}",
            f"activations    {mb(self.activations)} MB kept for backward, input {mb(self.input)} MB",
        ]


def summary(model, input_shape, depth=None, show=True):
    """Count parameters, multiply-adds and activations, layer by layer, and print them as a table.

    A copy of the model runs one forward pass in training mode, and the model stays as it is.

    Multiply-adds are those of the definitions (Gadosey et al. 2020, Equations 1 and 2), as in every tool. The kernels
    may need fewer: Winograd's method 36 products instead of 144, a 2x2 convolution of an upsampled image 9 instead of
    16. Only convolutions are counted: norms, activations, pooling and weight standardization are 0, and so is what a
    model computes on plain arrays, outside of ops. An op of your own is counted once it is registered with
    `tinyseg.report.profile.multiply_adds`, and shown as ? until then.

    Activations are the arrays that the graph holds at the end of the forward pass, each counted once. What a whole
    training step needs is measured by `tinyseg.report.profile.memory`.

    Parameters
    ----------
    model : Module
        Any module built from tinyseg's ops, on its own device.
    input_shape : tuple
        (N, C, H, W). Multiply-adds and activations are those of the whole batch.
    depth : int, optional
        Modules nested deeper than this are folded into the one they are in: 0 is the model in one row.
    show : bool
        Print the table.

    Returns
    -------
    Summary

    Raises
    ------
    ValueError
        If the model does not take this shape; the sentence is its own.
    """
    seen = trace(model, input_shape)
    names = {id(module): name for name, module in seen.model.named_modules()}
    limit = float("inf") if depth is None else depth
    found = Summary(
        type(model).__name__,
        tuple(map(int, input_shape)),
        list(_rows(seen.root, names, 0, limit, counted=set())),
        sum(p.data.nbytes for p in seen.model.parameters()),
        seen.input,
    )
    if show:
        print(found)
    return found


def _rows(call, names, depth, limit, counted):
    """Yield the row of a call, then those of the calls inside. `counted` are ids of parameters that have a row."""
    name = names.get(id(call.module), "")
    row = Row(name, call.kind, depth, call.output)
    layers = [inner for inner in call.inside if inner.module is not None]
    if depth >= limit or not layers:
        _add_ops(row, call.ops())
        inside = []
    else:
        inside = [list(_inner(inner, name, names, depth + 1, limit, counted)) for inner in call.inside]
    own = [p for p in call.module.parameters() if id(p) not in counted]
    counted.update(map(id, own))
    row.parameters = sum(p.size for p in own)
    row.trainable = sum(p.size for p in own if p.requires_grad)
    yield row
    for rows in inside:
        yield from rows


def _inner(call, outer, names, depth, limit, counted):
    if call.module is not None:
        yield from _rows(call, names, depth, limit, counted)
    else:
        row = Row(outer, call.kind, depth, call.output, is_op=True)
        _add_ops(row, [call])
        yield row


def _add_ops(row, ops):
    ops = list(ops)
    row.multiply_adds = sum(op.multiply_adds or 0 for op in ops)
    row.activations = sum(op.held for op in ops)
    row.unknown = tuple(dict.fromkeys(op.kind for op in ops if op.multiply_adds is None))


# ----- numbers as text -------------------------------------------------------------------
def si(n):
    """Return a count with a prefix: 54.61 G."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= factor:
            return f"{n / factor:.2f} {prefix}"
    return f"{n:g}"


def mb(size):
    """Return bytes as megabytes of 10⁶ bytes."""
    return f"{size / 1e6:,.1f}"


def shape_text(shape):
    """Return a shape as text: 1 x 64 x 256 x 256."""
    if any(isinstance(item, tuple) for item in shape):
        return ", ".join(map(shape_text, shape))
    return " x ".join(map(str, shape))


def _numbers_as_text(row):
    """Return the last three cells of a row; 0 is left empty."""
    work = [si(row.multiply_adds)] if row.multiply_adds else []
    if row.unknown:
        work.append("?")
    parameters = f"{row.parameters:,}" if row.parameters else ""
    return parameters, " + ".join(work), mb(row.activations) if row.activations else ""
