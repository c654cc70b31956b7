"""What the notebooks of docs/notebooks share: one look for all figures, animations that a page can hold, drawn graphs.

Unlike `tinyseg.report.plots` this uses pyplot, as a notebook does. Nothing else in tinyseg imports it.
"""

import functools
import itertools
import pathlib
import tempfile
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib import animation
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from tinyseg.autograd import Function
from tinyseg.report.plots import BLUE, GREEN, GREY, ORANGE, PURPLE

__all__ = ["BLUE", "GREEN", "GREY", "ORANGE", "PURPLE", "animate", "draw_graph", "style", "trace_backward"]


def style():
    """Give the figures of a notebook one look: letters that carry to the last row, colours for the colour-blind.

    Lines take blue, orange, green, purple and grey in this order (Okabe and Ito), images grey levels without axes
    interpolated away: ``imshow`` shows every pixel as a square.
    """
    mpl.rcParams.update(
        {
            "figure.figsize": (7.5, 3.4),
            "figure.dpi": 130,
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": False,
            "axes.prop_cycle": mpl.cycler(color=[BLUE, ORANGE, GREEN, PURPLE, GREY]),
            "lines.linewidth": 1.8,
            "legend.frameon": False,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
        }
    )


def animate(figure, draw, frames, seconds=0.4, alt=""):
    """Make a GIF that repeats.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        It is closed afterwards, so that the notebook does not show its last state as well.
    draw : callable
        ``draw(k)`` draws frame k into the figure.
    frames : int
        Number of frames.
    seconds : float
        How long each is shown.
    alt : str
        What it shows, in words, for those who cannot see it.

    Returns
    -------
    IPython.display.Image
        The GIF; a cell that ends with it shows it.
    """
    from IPython.display import Image
    from matplotlib import pyplot as plt

    draw(0)
    figure.canvas.draw()  # lays it out, once for all frames
    figure.set_layout_engine("none")  # else axes move from frame to frame
    film = animation.FuncAnimation(figure, draw, frames=frames, init_func=lambda: None)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "film.gif"
        film.save(path, writer=animation.PillowWriter(fps=1 / seconds), dpi=90)
        data = path.read_bytes()
    plt.close(figure)
    return Image(data=data, format="gif", alt=alt)


# ----- the graph behind a tensor ---------------------------------------------
GAP, ROW, LETTER, LINE = 0.8, 0.34, 0.083, 0.165  # inches: between columns, between rows; of a letter and a line


class Visit(NamedTuple):
    """What happened at a node of the graph in a backward pass."""

    node: Function
    gy: np.ndarray  # the sum of the cotangents that came in
    gxs: tuple  # what backward returned, one gradient an input; None where none is needed


def trace_backward(tensor, gy=None):
    """Run ``tensor.backward(gy)``, with its errors and those of `draw_graph`, and note each visit to a node.

    Returns
    -------
    list of Visit
        In the order in which the engine made them, with copies of the gradients.
    """
    visits = []

    def noted(node, backward, gy):
        before, gxs = gy.copy(), backward(gy)
        pairs = zip(gxs if isinstance(gxs, tuple) else (gxs,), node.needs, strict=False)  # the engine checks them
        visits.append(Visit(node, before, tuple(None if gx is None or not need else gx.copy() for gx, need in pairs)))
        return gxs

    nodes = [v for v in _vertices(tensor) if isinstance(v, Function)]
    for node in nodes:
        node.backward = functools.partial(noted, node, node.backward)
    try:
        tensor.backward(gy)
    finally:
        for node in nodes:
            del node.backward
    return visits


def draw_graph(tensor, names=None):
    """Draw the live graph behind a tensor: what ``backward()`` will walk, from right to left.

    Nodes are boxes with the name of their op, leaves are round. Inputs that want no gradient are not in the graph
    and so not in the picture. Nor does the graph hold the values of intermediate tensors: those in `names` are shown.
    Arrays of more than four elements are shown as their shape, their gradients as a Euclidean norm.

    Parameters
    ----------
    tensor : Tensor
        Computed from something that requires a gradient, and before ``backward()``, which takes the graph apart.
    names : dict of str to Tensor, optional
        What to call leaves and intermediate tensors, ``{"w": w}``.

    Returns
    -------
    GraphPicture
        Its ``figure`` is a pyplot figure, which a notebook shows; its ``draw`` draws it again, with gradients.

    Raises
    ------
    ValueError
        If there is no graph, or a backward pass has used it.
    """
    picture = GraphPicture(tensor, names or {})
    picture.draw()
    return picture


class GraphPicture:
    """A graph as it was when `draw_graph` read it; it outlives the graph. The unit of its axes is an inch."""

    def __init__(self, tensor, names):
        from matplotlib import pyplot as plt

        vertices = _vertices(tensor)
        known = [tensor, *names.values(), *(v for v in vertices if not isinstance(v, Function))]
        self.tensors = {t.creator or t: t for t in known}
        self.names = {t.creator or t: name for name, t in names.items()}
        self.edges = [(p, v, i) for v in vertices for i, p in enumerate(_parents(v)) if p is not None]
        self.size = {v: self._size(v) for v in vertices}
        columns, self.routes = _columns(vertices, self.edges)
        self.x, self.y = _places(columns, self.routes, self.size)
        right = max(self.x[v] + self.size[v][0] / 2 for v in vertices) + 0.1
        top = max(self.y[v] + self.size.get(v, (0, 0))[1] / 2 for v in self.y) + 0.1
        bottom = min(self.y[v] - self.size.get(v, (0, 0))[1] / 2 for v in self.y) - 0.1
        self.figure = plt.figure(figsize=(right, top - bottom))
        self.figure.set_layout_engine("none")  # style() has set one, which cannot place this axes
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.limits = {"xlim": (0, right), "ylim": (bottom, top)}

    def draw(self, visits=None):
        """Draw everything anew.

        Parameters
        ----------
        visits : list of Visit, optional
            The first few of those that `trace_backward` noted: gradients stand on the edges that they came along and
            are added up where they arrive, and the last node is marked. Without, what is in ``.grad`` is shown.
        """
        self.axes.clear()
        self.axes.set(**self.limits)
        self.axes.set_axis_off()
        done = {visit.node: visit for visit in visits or ()}
        sums = {v: t.grad for v, t in self.tensors.items() if t.grad is not None} if visits is None else {}
        for parent, node, i in self.edges:
            gx = done[node].gxs[i] if node in done else None
            self._arrow((parent, node, i), gx)
            if gx is not None:
                sums[parent] = gx if parent not in sums else sums[parent] + gx
        sums |= {node: visit.gy for node, visit in done.items()}
        for v in self.size:
            self._box(v, sums.get(v), marked=bool(visits) and v is visits[-1].node)

    def _words(self, v):
        """Lines of text in a box, without its gradient."""
        lines = [type(v).__name__] if isinstance(v, Function) else []
        if v in self.tensors:
            name, value = self.names.get(v, ""), _number(self.tensors[v].data)
            lines.append(f"{name} = {value}" if name else value)
        return lines

    def _size(self, v):
        """Width and height in inches, with room for a gradient of as many numbers as the value has."""
        lines = self._words(v)
        numbers = self.tensors[v].size if v in self.tensors else 1
        letters = max(*map(len, lines), 13 if numbers == 1 or numbers > 4 else 7 + 8 * numbers)
        return letters * LETTER + 0.2, (len(lines) + 1) * LINE + 0.16

    def _arrow(self, edge, gx):
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
        look = {"color": colour, "lw": width, "arrowstyle": style, "mutation_scale": 11, "shrinkA": 0, "shrinkB": 0}
        self.axes.add_patch(FancyArrowPatch(path=Path(points, codes), **look))
        if gx is not None and gx.size == 1:
            (xa, ya), (xb, yb) = at[-2:]
            text = self._text(0.42 * xa + 0.58 * xb, 0.38 * ya + 0.62 * yb, _number(gx), BLUE, backgroundcolor="white")
            text.get_bbox_patch().set_boxstyle("square", pad=0.1)

    def _box(self, v, gradient, marked):
        (width, height), lines, leaf = self.size[v], self._words(v), not isinstance(v, Function)
        shape = "round,pad=0,rounding_size=0.2" if leaf else "square,pad=0"
        look = {"facecolor": "#E8EEF4" if leaf else "white", "edgecolor": "black", "lw": 1, "zorder": 3}
        if marked:
            look |= {"facecolor": "#FBE3B0", "edgecolor": ORANGE, "lw": 2}
        corner = self.x[v] - width / 2, self.y[v] - height / 2
        self.axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=shape, **look))
        for k, line in enumerate(lines):
            self._text(self.x[v], self.y[v] + LINE * (len(lines) / 2 - k), line, "black")
        if gradient is not None:
            norm = f"|grad| = {float((gradient**2).sum()) ** 0.5:.3g}"
            value = norm if gradient.size > 4 else f"grad = {_number(gradient)}"
            self._text(self.x[v], self.y[v] - LINE * len(lines) / 2, value, BLUE)

    def _text(self, x, y, words, colour, **options):
        options |= {"ha": "center", "va": "center", "family": "monospace", "fontsize": 9.5, "zorder": 4}
        return self.axes.text(x, y, words, color=colour, **options)


def _parents(v):
    return v.parents if isinstance(v, Function) else ()


def _vertices(tensor):
    """Nodes and leaves of a live graph, users before what they use."""
    if not tensor.requires_grad:
        raise ValueError("There is no graph behind this tensor: nothing that it was made from requires a gradient.")
    order, seen, stack = [], set(), [(tensor.creator or tensor, False)]
    while stack:
        v, parents_done = stack.pop()
        if parents_done:
            order.append(v)
        elif v not in seen:
            if _parents(v) is None:
                raise ValueError("A backward pass has used this graph; draw or trace it before backward().")
            seen.add(v)
            stack.append((v, True))
            stack.extend((p, False) for p in reversed(_parents(v)) if p is not None)
    return order[::-1]


def _columns(vertices, edges):
    """Sort vertices into columns, what is used to the left of its users; long edges get a bend in each they cross."""
    depth = dict.fromkeys(vertices, 0)  # the longest way to the end
    for parent, node, _ in edges:  # users come first: depth[node] is final
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


def _places(columns, routes, size):
    """Middle of each box and bend, in inches, as two dicts x, y."""
    x, left = {}, 0.1
    for column in columns:
        width = max(size.get(v, (0, 0))[0] for v in column)
        x |= dict.fromkeys(column, left + width / 2)
        left += width + GAP
    height = {v: size.get(v, (0, ROW))[1] for v in x}
    pairs = [pair for route in routes.values() for pair in itertools.pairwise(route)]
    near = {v: [a if b == v else b for a, b in pairs if v in (a, b)] for v in x}
    y = dict.fromkeys(x, 0.0)
    for sweep in range(12):  # each towards the mean of its neighbours, as far as the one above it lets it
        for column in columns[:: 1 if sweep % 2 else -1]:
            wish = {v: float(np.mean([y[u] for u in near[v]] or [0])) for v in column}
            if sweep < 4:
                column.sort(key=wish.get, reverse=True)
            for k, v in enumerate(column):
                y[v] = min(wish[v], y[column[k - 1]] - (height[column[k - 1]] + height[v] + ROW) / 2) if k else wish[v]
            shift = float(np.mean([wish[v] - y[v] for v in column]))
            y |= {v: y[v] + shift for v in column}
    return x, y


def _number(array):
    """Up to four elements as numbers, more as their shape."""
    if array.size > 4:
        return str(array.shape)
    words = [f"{value:.4g}" for value in array.ravel().tolist()]
    return words[0] if array.ndim == 0 else f"[{' '.join(words)}]"
