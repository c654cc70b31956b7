"""Lay out tables that commands print, with intervals of means."""

import math

import numpy as np

from tinyseg.metrics import mean_interval


def table(titles, rows):
    """Lay out a table as one text: each row is a name, and a cell for each title.

    Parameters
    ----------
    titles : sequence of str
    rows : sequence of (str, sequence of str)

    Returns
    -------
    str
    """
    width = max(len(name) for name, _ in rows)
    columns = [max(map(len, cells)) + 2 for cells in zip(titles, *(cells for _, cells in rows), strict=True)]
    lines = [("", titles), *rows]
    return "\n".join(f"{name:{width}}" + "".join(map(str.rjust, cells, columns)) for name, cells in lines)


def interval_of(values):
    """Return {"interval": [low, high]} of the mean of values, for `mean_rows`; {} where there are too few."""
    interval = mean_interval(values)
    return {"interval": list(interval)} if interval else {}


def average_sections(values):
    """Return the mean of the scores that are defined, how many sections these are, and an interval of the mean."""
    kept = [value for value in values if not math.isnan(value)]
    result = {"mean": float(np.mean(kept)) if kept else math.nan, "sections": len(kept)}
    return result | {"undefined": len(values) - len(kept)} | interval_of(values)


def mean_rows(name, means):
    """Return rows of a `table`: the means, and below them their intervals if there are any (see `interval_of`)."""
    rows = [(name, [f"{mean['mean']:.4f}" for mean in means])]
    if any("interval" in mean for mean in means):
        bounds = [mean.get("interval", (math.nan, math.nan)) for mean in means]
        rows.append(("  95% from", [f"{low:.4f}" for low, _ in bounds]))
        rows.append(("       to", [f"{high:.4f}" for _, high in bounds]))
    return rows
