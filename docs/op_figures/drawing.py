"""What the figures share: a sheet of cells, matrices with their numbers, outlines, arrows, and what a file holds."""

import io
import re

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from tinyseg.learn import teaching
from tinyseg.report.colours import DARK_GREY

CELL = 0.3  # inches
WIDTH = 25  # cells: 7.5 inches, 720 pixels of a page
LINE, PALE = "#b0b0b0", "#8a8a8a"  # between cells; for zeros


def svg(draw):
    """Return the SVG, text, of the figure that ``draw()`` returns: the same text each time with one matplotlib.

    Letters are drawn as outlines, so that they look alike everywhere; the words stand beside them in comments.
    """
    with mpl.rc_context():
        mpl.style.use("default")
        teaching.style()
        mpl.rcParams.update({"svg.hashsalt": "tinyseg", "svg.fonttype": "path", "mathtext.fontset": "dejavusans"})
        figure, file = draw(), io.StringIO()
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    text = "\n".join(line.strip() for line in file.getvalue().splitlines()) + "\n"
    for long, short in (("DejaVuSans-Bold-", "b"), ("DejaVuSans-Oblique-", "i"), ("DejaVuSans-", "r")):
        text = text.replace(f'id="{long}', f'id="{short}').replace(f'href="#{long}', f'href="#{short}')
    text = re.sub(r'<g id="text_\d+">\n(<!--.*-->\n<g (?:(?!<g|</g).*\n)*</g>)\n</g>', r"\1", text)
    return re.sub(r"scale\([^)]*\)|-?\d+\.\d{2,}", _rounded, text)


def _rounded(found):
    """Round a coordinate to a tenth of a point, which nobody sees; a scale stays."""
    return found[0] if found[0].startswith("scale") else f"{float(found[0]):.1f}"


def sheet(height, width=WIDTH):
    """Return the axes, without a frame, of a figure that is measured in cells: x to the right, y downwards."""
    figure = Figure(figsize=(width * CELL, height * CELL), layout="none", facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    return ax


def plots(rows, columns, height, **kwargs):
    """Return a figure of page width for curves, ``height`` inches high, and its axes."""
    figure = Figure(figsize=(WIDTH * CELL, height), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def tint(colour, strength):
    """Mix a colour with white; strength 1 is the colour itself."""
    return to_hex([1 - strength * (1 - part) for part in to_rgb(colour)])


def number(value, decimals=2):
    """Write a number as short as it is, with the minus sign of mathematics."""
    text = f"{value:.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text.replace("-", "−")


def say(ax, x, y, text, size=10, ha="left", **kwargs):
    """Write text; x is where it begins, y its middle."""
    ax.text(x, y, text, size=size, ha=ha, va=kwargs.pop("va", "center"), **kwargs)


def grid(ax, x, y, values, fill="white", name="", cell=1.0, size=10, words=number, grey_zeros=False, high=None):
    """Draw a matrix with its numbers; (x, y) is its upper left corner.

    Parameters
    ----------
    values : array of two axes
    fill : colour, or a function of row and column that returns one
    name : str
        Written above.
    words : callable or None
        Makes the text of a cell from its number; None writes nothing.
    high : float, optional
        Height of a cell where it differs from its width.
    """
    high, values = high or cell, np.asarray(values)
    rows, columns = values.shape
    colours = [[fill(r, q) if callable(fill) else fill for q in range(columns)] for r in range(rows)]
    for colour in sorted({one for row in colours for one in row}):
        runs = [(r, *run) for r, row in enumerate(colours) for run in _runs(row, colour)]
        corners = [[(q, r), (end, r), (end, r + 1), (q, r + 1), (q, r)] for r, q, end in runs]
        _path(ax, x, y, cell, high, corners, facecolor=colour, edgecolor="none")
    lines = [[(0, r), (columns, r)] for r in range(rows + 1)] + [[(q, 0), (q, rows)] for q in range(columns + 1)]
    _path(ax, x, y, cell, high, lines, fill=False, edgecolor=LINE, linewidth=0.7, capstyle="projecting")
    for (r, q), value in np.ndenumerate(values):
        if words:
            at, grey = (x + (q + 0.5) * cell, y + (r + 0.5) * high), grey_zeros and value == 0
            ax.text(*at, words(value), size=size, ha="center", va="center_baseline", color=PALE if grey else "black")
    if name:
        say(ax, x, y - 0.6, name)


def _runs(row, colour):
    """Return where the cells of one colour in a row begin and end."""
    edges = np.flatnonzero(np.diff([0, *[one == colour for one in row], 0]))
    return edges.reshape(-1, 2).tolist()


def _path(ax, x, y, width, height, lines, **kwargs):
    """Draw lines, given in cells of a grid, as one path."""
    paths = [Path(np.array(line) * (width, height) + (x, y)) for line in lines]
    ax.add_patch(PathPatch(Path.make_compound_path(*paths), clip_on=False, **kwargs))


def box(ax, x, y, width, height, colour, line=2.4, style="-"):
    """Draw the outline of a rectangle."""
    ax.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=line, linestyle=style))


def arrow(ax, x, y, to_x, to_y, colour=DARK_GREY, label="", size=10):
    """Draw an arrow, with a label above its middle."""
    how = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", xy=(to_x, to_y), xytext=(x, y), arrowprops=how)
    if label:
        say(ax, (x + to_x) / 2, (y + to_y) / 2 - 0.6, label, size=size, ha="center")
