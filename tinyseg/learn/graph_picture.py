"""Draw the graph behind a tensor, and record and draw what the backward pass does in it.

A vertex is a node (a Function) or a leaf (a Tensor). An edge (parent, node, i) goes from a vertex to a node that uses
it as input i. An edge that crosses a column has a bend there, (node, i, depth), which takes a place of its own.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from tinyseg.autograd import Array, Function, Tensor
from tinyseg.report.colours import BLUE, GREY, ORANGE

# All lengths are in inches, and so is the unit of the picture's axes.
GAP, ROW = 0.8, 0.34  # between columns, between rows
LETTER, LINE = 0.083, 0.165  # width of a letter, height of a line of text


class Visit(NamedTuple):
    """What happened at a node of the graph in a backward pass."""

    node: Function
    gy: Array  # the sum of the cotangents that arrived
    gxs: tuple[Array | None, ...]  # what backward returned: a gradient for each input, None for one that needs none


def trace_backward(tensor: Tensor, gy: Array | None = None) -> list[Visit]:
    """Run ``tensor.backward(gy)`` and record its visit to each node.

    Parameters
    ----------
    tensor : Tensor
        As for `draw_graph`.
    gy : ndarray, optional
        Cotangent of the tensor, as for ``backward``.

    Returns
    -------
    list of Visit
        In the order in which the engine made them, with copies of the gradients.

    Raises
    ------
    ValueError
        If there is no graph, or a backward pass has used it. ``backward`` may raise errors of its own.
    """
    visits: list[Visit] = []

    def run_and_record(node, backward, gy):
        received, gxs = gy.copy(), backward(gy)
        pairs = zip(gxs if isinstance(gxs, tuple) else (gxs,), node.needs, strict=False)  # the engine checks the length
        copies = tuple(gx.copy() if need and gx is not None else None for gx, need in pairs)
        visits.append(Visit(node, received, copies))
        return gxs

    nodes = [v for v in _find_vertices(tensor) if isinstance(v, Function)]
    for node in nodes:
        node.backward = functools.partial(run_and_record, node, node.backward)  # type: ignore[method-assign]
    try:
        tensor.backward(gy)
    finally:
        for node in nodes:
            del node.backward
    return visits


def draw_graph(tensor: Tensor, names: Mapping[str, Tensor] | None = None) -> "GraphPicture":
    """Draw the graph behind a tensor; ``backward()`` will go through it from right to left.

    Nodes are boxes with the name of their op, leaves are boxes with round corners. Inputs that need no gradient are not
    in the graph and not in the picture. The graph does not hold the values of intermediate tensors: the picture shows
    the values of those in `names`. Of an array with more than four elements it shows the shape, of such a gradient the
    Euclidean norm.

    Parameters
    ----------
    tensor : Tensor
        Requires a gradient. Draw its graph before ``backward()``, which takes the graph apart.
    names : dict of str to Tensor, optional
        Names for leaves and intermediate tensors, such as ``{"w": w}``.

    Returns
    -------
    GraphPicture
        Its ``figure`` is a pyplot figure, which a notebook shows. Its ``draw`` draws the graph again, with gradients.

    Raises
    ------
    ValueError
        If there is no graph, or a backward pass has used it.
    """
    picture = GraphPicture(tensor, names or {})
    picture.draw()
    return picture


class GraphPicture:
    """A picture of a graph as it was when `draw_graph` read it; ``backward()`` may then take the graph apart."""

    def __init__(self, tensor: Tensor, names: Mapping[str, Tensor]) -> None:
        from matplotlib import pyplot as plt

        vertices = _find_vertices(tensor)
        known = [tensor, *names.values(), *(v for v in vertices if not isinstance(v, Function))]
        self.tensors = {t.creator or t: t for t in known}
        self.names = {t.creator or t: name for name, t in names.items()}
        self.edges = [(p, v, i) for v in vertices for i, p in enumerate(_parents_of(v)) if p is not None]
        self.size = {v: self._measure(v) for v in vertices}
        columns, self.routes = _sort_into_columns(vertices, self.edges)
        self.x, self.y = _place_boxes(columns, self.routes, self.size)
        heights = {v: self.size.get(v, (0, 0))[1] for v in self.y}  # 0 for a bend
        right = max(self.x[v] + self.size[v][0] / 2 for v in vertices) + 0.1
        top = max(self.y[v] + heights[v] / 2 for v in self.y) + 0.1
        bottom = min(self.y[v] - heights[v] / 2 for v in self.y) - 0.1
        self.figure = plt.figure(figsize=(right, top - bottom))
        self.figure.set_layout_engine("none")  # the one that style() sets cannot place these axes
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.limits = {"xlim": (0, right), "ylim": (bottom, top)}

    def draw(self, visits: Sequence[Visit] | None = None) -> None:
        """Draw the graph again.

        Parameters
        ----------
        visits : list of Visit, optional
            The first few of those that `trace_backward` recorded. Each gradient is written on its edge if it is one
            number, a box shows the sum of the gradients that arrived at it, and the last node is marked. Without
            `visits` the boxes show what is in ``.grad``.
        """
        self.axes.clear()
        self.axes.set(**self.limits)
        self.axes.set_axis_off()
        visited, gradients = {visit.node: visit for visit in visits or ()}, {}
        if visits is None:
            gradients = {v: t.grad for v, t in self.tensors.items() if t.grad is not None}
        for parent, node, i in self.edges:
            gx = visited[node].gxs[i] if node in visited else None
            self._draw_arrow((parent, node, i), gx)
            if gx is not None:
                gradients[parent] = gx if parent not in gradients else gradients[parent] + gx
        gradients |= {node: visit.gy for node, visit in visited.items()}
        last = visits[-1].node if visits else None
        for v in self.size:
            self._draw_box(v, gradients.get(v), marked=v is last)

    def _lines_of(self, v):
        """Return the lines of text in a box, without its gradient."""
        lines = [type(v).__name__] if isinstance(v, Function) else []
        if v in self.tensors:
            name, value = self.names.get(v, ""), _format(self.tensors[v].data)
            lines.append(f"{name} = {value}" if name else value)
        return lines

    def _measure(self, v):
        """Return width and height of a box, with room for a gradient of as many numbers as the value has."""
        lines = self._lines_of(v)
        numbers = self.tensors[v].size if v in self.tensors else 1
        letters = max(*map(len, lines), 13 if numbers == 1 or numbers > 4 else 7 + 8 * numbers)
        return letters * LETTER + 0.2, (len(lines) + 1) * LINE + 0.16

    def _draw_arrow(self, edge, gx):
        """Draw an edge as a curve; with a gradient from right to left, and write the gradient if it is one number."""
        parent, node, i = edge
        ports = sorted((e for e in self.edges if e[1] is node), key=lambda e: (-self.y[self.routes[e][-2]], e[2]))
        end = self.y[node] + ROW * ((len(ports) - 1) / 2 - ports.index(edge))
        at = [(self.x[parent] + self.size[parent][0] / 2, self.y[parent])]
        for bend in self.routes[edge][1:-1]:
            at += [(self.x[bend] - GAP / 4, self.y[bend]), (self.x[bend] + GAP / 4, self.y[bend])]
        at.append((self.x[node] - self.size[node][0] / 2, end))
        points, codes = [at[0]], [Path.MOVETO]
        for (xa, ya), (xb, yb) in itertools.pairwise(at):
            points += [((xa + xb) / 2, ya), ((xa + xb) / 2, yb), (xb, yb)]
            codes += [Path.CURVE4] * 3
        colour, width, style = (GREY, 1.2, "-|>") if gx is None else (BLUE, 1.8, "<|-")
        options = {"color": colour, "lw": width, "arrowstyle": style, "mutation_scale": 11, "shrinkA": 0, "shrinkB": 0}
        self.axes.add_patch(FancyArrowPatch(path=Path(points, codes), **options))
        if gx is not None and gx.size == 1:
            (xa, ya), (xb, yb) = at[-2:]
            text = self._write(0.42 * xa + 0.58 * xb, 0.38 * ya + 0.62 * yb, _format(gx), BLUE, backgroundcolor="white")
            text.get_bbox_patch().set_boxstyle("square", pad=0.1)

    def _draw_box(self, v, gradient, marked):
        """Draw a node or a leaf with its lines of text and its gradient."""
        (width, height), lines, leaf = self.size[v], self._lines_of(v), not isinstance(v, Function)
        shape = "round,pad=0,rounding_size=0.2" if leaf else "square,pad=0"
        options = {"facecolor": "#E8EEF4" if leaf else "white", "edgecolor": "black", "lw": 1, "zorder": 3}
        if marked:
            options |= {"facecolor": "#FBE3B0", "edgecolor": ORANGE, "lw": 2}
        corner = self.x[v] - width / 2, self.y[v] - height / 2
        self.axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=shape, **options))
        for k, line in enumerate(lines):
            self._write(self.x[v], self.y[v] + LINE * (len(lines) / 2 - k), line, "black")
        if gradient is not None:
            norm = f"|grad| = {float((gradient**2).sum()) ** 0.5:.3g}"
            value = norm if gradient.size > 4 else f"grad = {_format(gradient)}"
            self._write(self.x[v], self.y[v] - LINE * len(lines) / 2, value, BLUE)

    def _write(self, x, y, words, colour, **options):
        """Write centred words and return Matplotlib's text."""
        options |= {"ha": "center", "va": "center", "family": "monospace", "fontsize": 9.5, "zorder": 4}
        return self.axes.text(x, y, words, color=colour, **options)


def _parents_of(v):
    """Return the parents of a node, none for a leaf; None if a backward pass has taken the node out of its graph."""
    return v.parents if isinstance(v, Function) else ()


def _find_vertices(tensor):
    """Return the vertices of a graph that no backward pass has used, each after all nodes that use it."""
    if not tensor.requires_grad:
        raise ValueError("There is no graph behind this tensor: nothing that it was made from requires a gradient.")
    order, seen, stack = [], set(), [(tensor.creator or tensor, False)]
    while stack:
        v, parents_done = stack.pop()
        if parents_done:
            order.append(v)
        elif v not in seen:
            if _parents_of(v) is None:
                raise ValueError("A backward pass has used this graph; draw or trace it before backward().")
            seen.add(v)
            stack.append((v, True))
            stack.extend((p, False) for p in reversed(_parents_of(v)) if p is not None)
    return order[::-1]


def _sort_into_columns(vertices, edges):
    """Sort vertices into columns, each left of the nodes that use it, with a bend for every column an edge crosses.

    Return the columns and the route of each edge: its parent, its bends, its node.
    """
    depth = dict.fromkeys(vertices, 0)  # length of the longest path to the last node
    for parent, node, _ in edges:  # edges to the users of a node come before its own: depth[node] is final
        depth[parent] = max(depth[parent], depth[node] + 1)
    columns = [[v for v in vertices if depth[v] == d] for d in range(max(depth.values()), -1, -1)]
    routes = {}
    for edge in edges:
        parent, node, i = edge
        bends = {d: (node, i, d) for d in range(depth[parent] - 1, depth[node], -1)}
        for d, bend in bends.items():
            columns[-1 - d].append(bend)
        routes[edge] = [parent, *bends.values(), node]
    return columns, routes


def _place_boxes(columns, routes, size):
    """Return the centres of boxes and bends, as two dicts x, y."""
    x, left = {}, 0.1
    for column in columns:
        width = max(size.get(v, (0, 0))[0] for v in column)
        x |= dict.fromkeys(column, left + width / 2)
        left += width + GAP
    height = {v: size.get(v, (0, ROW))[1] for v in x}
    pairs = [pair for route in routes.values() for pair in itertools.pairwise(route)]
    neighbours = {v: [a if b == v else b for a, b in pairs if v in (a, b)] for v in x}
    y = dict.fromkeys(x, 0.0)
    for sweep in range(12):  # move each to the mean of its neighbours, or to below the one above it
        for column in columns[:: 1 if sweep % 2 else -1]:
            wanted = {v: float(np.mean([y[u] for u in neighbours[v]] or [0])) for v in column}
            if sweep < 4:
                column.sort(key=wanted.get, reverse=True)
            for k, v in enumerate(column):
                y[v] = wanted[v]
                if k:
                    above = column[k - 1]
                    y[v] = min(y[v], y[above] - (height[above] + height[v] + ROW) / 2)
            shift = float(np.mean([wanted[v] - y[v] for v in column]))
            y |= {v: y[v] + shift for v in column}
    return x, y


def _format(array):
    """Return as text the elements of an array if they are at most four, else its shape."""
    if array.size > 4:
        return str(array.shape)
    words = [f"{value:.4g}" for value in array.ravel().tolist()]
    return words[0] if array.ndim == 0 else f"[{' '.join(words)}]"
