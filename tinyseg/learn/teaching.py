"""What the notebooks of docs/notebooks share: one style for all figures, animations, and drawings of graphs.

- `check` says whether an answer to an exercise is right, or what is off (`tinyseg.learn.answers`), `solution` shows
  the right one
- `style` sets the style, `animate` makes a GIF of a figure; `use_one_core` is for small images
- `draw_graph` draws the graph behind a tensor, `trace_backward` records what the backward pass does in it (both are in
  `tinyseg.learn.graph_picture`)

What a single notebook draws is in `tinyseg.learn.figures`. Both use pyplot, as notebooks do, which
`tinyseg.report.plots` does not.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from tinyseg.learn.answers import check, solution
from tinyseg.learn.figures import Film, picture
from tinyseg.learn.graph_picture import draw_graph, trace_backward
from tinyseg.report.colours import BLUE, GREEN, GREY, ORANGE, PURPLE

__all__ = [
    "BLUE", "GREEN", "GREY", "ORANGE", "PURPLE", "animate", "check", "draw_graph", "solution", "style",
    "trace_backward", "use_one_core",
]  # fmt: skip


def style() -> None:
    """Give all figures of a notebook one style, with text that can be read from the last row of a lecture room.

    Lines are blue, orange, green, purple and grey, in this order: Okabe and Ito's colours, which colour-blind readers
    can tell apart. ``imshow`` shows grey levels, and every pixel as a square.
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
            "axes.prop_cycle": mpl.cycler(color=[BLUE, ORANGE, GREEN, PURPLE, GREY]),  # type: ignore[attr-defined]
            "lines.linewidth": 1.8,
            "legend.frameon": False,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
        }
    )


def use_one_core() -> None:
    """Let tinyseg's kernels compute in one thread from now on, if numba is there: for images so small that waking a
    second one costs more than it saves.
    """
    if importlib.util.find_spec("numba"):
        importlib.import_module("numba").set_num_threads(1)


def animate(figure: Figure, draw: Callable[[int], Any], frames: int, seconds: float = 0.4, alt: str = "") -> Any:
    """Make a GIF of a figure that repeats without end, for a notebook.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        It is closed afterwards, since the notebook would otherwise show its last frame as well.
    draw : callable
        ``draw(k)`` draws frame k into the figure.
    frames : int
        Number of frames.
    seconds : float
        How long each frame is shown.
    alt : str
        What the GIF shows, in words, for readers who cannot see it.

    Returns
    -------
    IPython.display.Image
        The GIF. A cell that ends with it shows it.
    """
    return picture(Film(figure, draw, frames, seconds), alt)
