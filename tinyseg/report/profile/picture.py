"""A picture that compares networks, with a panel each for parameters, multiply-adds, latency and Dice."""

import itertools
import math

import numpy as np

from tinyseg.report.colours import BLUE, DPI, GREEN, ORANGE, PURPLE
from tinyseg.report.load_matplotlib import load_matplotlib
from tinyseg.report.saving import save

SIZE = 12  # of the text, in points: large enough for a slide
BAR = 0.62  # height of a bar; the rows of two networks are 1 apart
UNITS = {"G": 1e9, "M": 1e6, "k": 1e3, "": 1, "s": 1, "ms": 1e-3}
PAPER = {"marker": "D", "markersize": 8, "markerfacecolor": "white", "markeredgecolor": "black", "linestyle": "none"}
PANELS = [  # key, label, colour
    ("parameters", "parameters ({unit})", BLUE),
    ("multiply_adds", "multiply-adds ({unit})", ORANGE),
    ("latency", "inference ({unit})\nmedian, quartiles", GREEN),
    ("dice", "Dice\nseeds, mean ± deviation", PURPLE),
]


def comparison(networks, path, title=""):
    """Draw a row for each network and a panel for each quantity, with the values written beside the bars.

    Bars begin at 0. Dice is drawn as dots, one for each seed, with a line at their mean; its axis need not begin at 0.

    Parameters
    ----------
    networks : dict
        ``{name: values}``, drawn from top to bottom. The values are a dict with any of

        - "parameters", "multiply_adds": numbers;
        - "latency": dict with "median" and, if they are known, "lower_quartile" and "upper_quartile", in seconds;
        - "dice": list of numbers, one for each seed;
        - "paper": dict with any of "parameters", "multiply_adds", "latency" (in seconds) and "dice": a paper's numbers,
          which are drawn as diamonds.

        A quantity that no network has gets no panel.
    path : str or path-like
        File to write; its ending says the format (``.png``, ``.pdf``, ``.svg``; PNG without one).
    title : str
        Text above all panels.

    Raises
    ------
    ValueError
        If there is nothing to draw.
    FileNotFoundError
        If the folder of ``path`` does not exist.
    """
    rows = list(networks.values())
    panels = [panel for panel in PANELS if any(_has(values, panel[0]) for values in rows)]
    if not panels:
        raise ValueError(
            "comparison needs at least one network with parameters, multiply_adds, latency or dice, but found "
            f"{networks}."
        )
    mpl = load_matplotlib()
    figure = mpl.Figure(figsize=(13.3, 1.5 + 0.52 * len(rows)), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, wspace=0.03)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (key, label, color) in zip(grid, panels, strict=True):
        ours = {row: values[key] for row, values in enumerate(rows) if _has(values, key)}
        papers = {row: values["paper"][key] for row, values in enumerate(rows) if key in (values.get("paper") or {})}
        draw = _draw_dots if key == "dice" else _draw_bars
        unit = draw(axes, ours, papers, color)
        axes.set_xlabel(label.format(unit=unit), fontsize=SIZE)
        axes.tick_params(labelsize=SIZE - 2, left=False)
        axes.spines[["top", "right", "left"]].set_visible(False)
        for row, value in papers.items():
            axes.plot(value / UNITS[unit], row, **PAPER)
    grid[0].set_yticks(range(len(rows)), networks, fontsize=SIZE)
    grid[0].set_ylim(len(rows) - 0.5, -0.5)
    if title:
        figure.suptitle(title, fontsize=SIZE + 1)
    if any(values.get("paper") for values in rows):
        diamond = mpl.Line2D([], [], label="the paper's", **PAPER)
        figure.legend(handles=[diamond], loc="outside upper right", frameon=False, fontsize=SIZE)
    save(figure, path)


def _has(values, key):
    return values.get(key) not in (None, [])


def _draw_bars(axes, ours, papers, color):
    """Draw bars from 0, a line between the quartiles that are known, and values beside the bars; return the unit."""
    medians = {row: v["median"] if isinstance(v, dict) else v for row, v in ours.items()}
    reach = max([*medians.values(), *papers.values()])
    if any(isinstance(v, dict) for v in ours.values()):  # seconds
        unit = "s" if reach >= 10 else "ms"
    else:
        unit = next((unit for unit in ("G", "M", "k") if reach >= UNITS[unit]), "")
    factor, reach = UNITS[unit], reach / UNITS[unit]
    axes.barh(list(medians), [v / factor for v in medians.values()], height=BAR, color=color)
    ends = {}
    for row, median in medians.items():
        ends[row] = median / factor
        if isinstance(ours[row], dict) and "lower_quartile" in ours[row]:
            low, high = ours[row]["lower_quartile"] / factor, ours[row]["upper_quartile"] / factor
            axes.plot([low, high], [row, row], color="black", linewidth=1.5, solid_capstyle="butt")
            ends[row] = max(ends[row], high)
    reach = max([reach, *ends.values()])
    for row, end in ends.items():
        diamond = papers.get(row, -math.inf) / factor
        x, distance = end, 5
        if abs(diamond - end) < 0.25 * reach:  # the text would lie on the diamond: write it to the right of both
            x, distance = max(end, diamond), 9
        _write(axes, x, row, _format_digits(medians[row] / factor), distance)
    axes.set_xlim(0, 1.28 * reach or 1)
    return unit


def _draw_dots(axes, ours, papers, color):
    """Draw a dot for each seed and a line at their mean; write mean and standard deviation at the right; return ""."""
    everything = [*itertools.chain(*ours.values()), *papers.values()]
    centre, half = (min(everything) + max(everything)) / 2, max(0.01, (max(everything) - min(everything)) / 2)
    for row, seeds in ours.items():
        mean = float(np.mean(seeds))
        axes.plot(seeds, [row] * len(seeds), "o", color=color, markersize=9, alpha=0.65, markeredgewidth=0)
        axes.plot([mean, mean], [row - BAR / 2, row + BAR / 2], color="black", linewidth=2)
        deviation = f" ± {np.std(seeds, ddof=1):.3f}" if len(seeds) > 1 else ""
        _write(axes, 1, row, f"{mean:.3f}{deviation}", xycoords=axes.get_yaxis_transform())
    axes.set_xlim(centre - 1.16 * half, centre + 1.16 * half)
    axes.xaxis.set_major_locator(load_matplotlib().MaxNLocator(4))
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    return ""


def _write(axes, x, row, text, distance=5, **options):
    """Write a text so many points to the right of x."""
    axes.annotate(text, (x, row), (distance, 0), textcoords="offset points", va="center", fontsize=SIZE, **options)


def _format_digits(v):
    """Return a number as text with three significant digits, or more for 1000 and above, and no exponent."""
    return f"{v:.{max(0, 2 - math.floor(math.log10(v)))}f}" if v else "0"
