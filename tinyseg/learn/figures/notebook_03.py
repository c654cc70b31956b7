"""Figures of notebook 3, depthwise convolution by hand."""

import numpy as np
from matplotlib import pyplot as plt

from tinyseg.learn.figures import Film, figure
from tinyseg.report.colours import BLUE


@figure
def window_by_window(x, w, y):
    """A window of 3 by 3 slides over the input; each position fills one pixel of the output."""
    steps, order = [], np.arange(y.size).reshape(y.shape)
    for k, at in enumerate(np.ndindex(y.shape)):
        filled = np.where(order <= k, y, np.nan)
        steps.append(
            (
                (x, "x, a window", at, w.shape),
                (w, "w", (0, 0), w.shape),
                (filled, f"y[{at[0]}, {at[1]}] = {y[at]:g}", at, (1, 1)),
            )
        )
    return _film(steps, hold=4, seconds=0.3)


@figure
def tap_by_tap(x, w, sums):
    """A frame as large as the output takes nine places on the input; each adds a term to all of it."""
    steps = []
    for (u, v), so_far in zip(np.ndindex(w.shape), sums, strict=True):
        rows, columns = so_far.shape
        steps.append(
            (
                (x, f"x[{u}:{u + rows}, {v}:{v + columns}]", (u, v), so_far.shape),
                (w, f"w[{u}, {v}] = {w[u, v]:g}", (u, v), (1, 1)),
                (so_far, "y, so far", (0, 0), so_far.shape),
            )
        )
    return _film(steps, hold=3, seconds=0.9)


@figure
def windows_over_a_pixel(seen):
    """How many windows see each pixel.

    Without padding 1 at the corners and 9 inside; with padding 4 at the corners; with stride 2 a pattern of 1, 2 and 4.
    """
    drawn, axes = plt.subplots(1, 3, figsize=(9.5, 2.6))
    for ax, ((stride, padding), windows) in zip(axes, seen.items(), strict=True):
        _cells(ax, windows, f"stride {stride}, padding {padding}", limit=18)
    return drawn


@figure
def matrix_and_transpose(kernel, matrix, transposed):
    """A kernel with the values 1 to 9, the matrix that it makes, and the transposed matrix.

    The matrix has 12 rows and 30 columns, in blocks of 4 by 6 with constant diagonals, which are constant along block
    diagonals.
    """
    drawn, axes = plt.subplots(1, 3, figsize=(9.5, 4.4), width_ratios=[3, 15, 7])
    _cells(axes[0], kernel, "w", limit=14)
    for ax, m, (rows, columns) in zip(axes[1:], (matrix, transposed), [(4, 6), (6, 4)], strict=True):
        ax.imshow(m, cmap="PuOr", vmin=-14, vmax=14)
        ax.set_xticks(np.arange(columns, m.shape[1], columns) - 0.5, [])
        ax.set_yticks(np.arange(rows, m.shape[0], rows) - 0.5, [])
        ax.grid(color=BLUE, lw=0.8)
    axes[1].set(title="A, forward", xlabel="pixels of x, row after row", ylabel="pixels of y")
    axes[2].set(title="Aᵀ, grad_x", xlabel="pixels of y", ylabel="pixels of x")
    return drawn


@figure
def right_and_wrong(pairs):
    """Two rows of three images: right gradient, gradient with the kernel turned round, difference.

    With a cotangent of ones both are 45 everywhere and the difference 0; with a random one they differ almost
    everywhere.
    """
    drawn, axes = plt.subplots(2, 3, figsize=(9.5, 4.8))
    for row, (name, (right, wrong)) in zip(axes, pairs.items(), strict=True):
        _cells(row[0], right, f"{name}: right", limit=90)
        _cells(row[1], wrong, "kernel turned round", limit=90)
        _cells(row[2], wrong - right, "difference", limit=90)
    return drawn


def _cells(ax, values, title, limit=8):
    """Show numbers as coloured squares, orange below 0, purple above; NaN stays empty."""
    ax.clear()
    ax.imshow(values, cmap="PuOr", vmin=-limit, vmax=limit)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = f"{value + 0.0:g}"  # 0 for -0
            ax.text(column, row, text, ha="center", va="center", fontsize=9)
    ax.set(xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(True)


def _film(steps, hold, seconds):
    """Show steps one after the other and hold the last; of x, w and y each has numbers, a title, and a frame's corner
    and size.
    """
    drawn, axes = plt.subplots(1, 3, figsize=(8.5, 2.6), width_ratios=[8, 3, 6])
    drawn.get_layout_engine().set(w_pad=0.15)

    def draw(k):
        for ax, (values, title, (row, column), size) in zip(axes, steps[min(k, len(steps) - 1)], strict=True):
            _cells(ax, values, title)
            corner = column - 0.5, row - 0.5
            ax.add_patch(plt.Rectangle(corner, *size[::-1], fill=False, ec=BLUE, lw=3, clip_on=False))

    return Film(drawn, draw, len(steps) + hold, seconds)
