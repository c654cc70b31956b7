"""Figures of the pages on norms."""

import numpy as np

from tinyseg import Tensor, ops
from tinyseg.report.colours import BLUE, DARK_GREY, DARK_ORANGE, GREEN, GREY, ORANGE

from .drawing import arrow, box, grid, number, plots, say, sheet, tint


def batch_norm():
    """The values of one channel, which are normalized together; below, the part of gy that stays."""
    x = np.array([[[1.0, 3, 0, 2], [5, 4, 9, 4], [8, 6, 7, 7]], [[2.0, 0, 1, 1], [2, 7, 4, 5], [6, 9, 7, 8]]])
    x = Tensor(x.reshape(2, 3, 2, 2), requires_grad=True)
    y = ops.batch_norm(x, None, None, None, None, training=True, eps=0.0)
    gy = np.zeros((2, 3, 2, 2))
    gy[:, 1] = np.array([[1.0, -2, 3, 0], [-2, 1, 0, 3]]).reshape(2, 2, 2)
    y.backward(gy)
    hat, given, gx = (a[:, 1].ravel() for a in (y.data, gy, x.grad))
    values = x.data[:, 1].ravel()
    mean, along = np.full(8, given.mean()), hat * (given * hat).mean()
    rest = given - mean - along
    assert np.allclose(gx, rest / values.std())

    figure, axes = plots(2, 4, 5.5, height_ratios=(1.5, 1))
    for ax in axes[0]:
        ax.remove()
    ax = figure.add_subplot(axes[0, 0].get_gridspec()[0, :])
    ax.set(xlim=(0, 24), ylim=(9.6, -1.2), aspect="equal", anchor="W")
    ax.axis("off")
    say(ax, 0, -0.8, "Forward: $\\mu$ and $r$ over $N$, $H$ and $W$, for each channel by itself", weight="bold")
    for n, c in np.ndindex(2, 3):
        light = tint(BLUE, 0.25) if c == 1 else "white"
        grid(ax, 2.6 + 3 * c, 1.8 + 3.1 * n, x.data[n, c], light)
        if c == 1:
            grid(ax, 18.2, 1.8 + 3.1 * n, y.data[n, c], tint(BLUE, 0.25), cell=1.5, high=1, words=number)
        if n == 0:
            say(ax, 3.6 + 3 * c, 0.9, f"$c = {c}$", ha="center")
    for n in range(2):
        say(ax, 2.2, 2.8 + 3.1 * n, f"$n = {n}$", ha="right")
    box(ax, 5.3, 1.5, 2.6, 5.7, BLUE)
    arrow(ax, 12.0, 4.4, 17.4, 4.4)
    say(ax, 14.7, 2.4, f"$m = NHW = {values.size}$", ha="center")
    say(ax, 14.7, 3.4, f"$\\mu = {number(values.mean())}$,  $r = 1/{number(values.std())}$", ha="center")
    say(ax, 18.2, 0.9, "$\\hat x$, $c = 1$")
    say(ax, 0, 8.9, "Backward: the parts of $gy$ along $\\mathbf{1}$ and along $\\hat x$ are taken out", weight="bold")

    lowest, highest = -2.6, 3.4
    parts = (
        (given, "$gy$", GREY), (mean, "$=$ mean$(gy)\\;\\mathbf{1}$", BLUE),
        (along, "$+$ mean$(gy\\,\\hat x)\\;\\hat x$", ORANGE), (rest, "$+$ rest", GREEN),
    )  # fmt: skip
    for ax, (part, name, colour) in zip(axes[1], parts, strict=True):
        ax.bar(np.arange(8), part, 0.75, color=colour)
        ax.axhline(0, color=DARK_GREY, linewidth=0.8)
        ax.set(ylim=(lowest, highest), xticks=[], yticks=[-2, 0, 2], xlabel="the 8 values")
        ax.set_yticks([-2, 0, 2], ["−2", "0", "2"])
        ax.set_title(name, fontsize=10.5)
    axes[1, 3].set_xlabel("$gx = \\gamma\\,r\\,\\cdot$ rest")
    return figure


def group_norm():
    """Over which planes the statistics run: four norms, each with the means of the planes of its output."""
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 3)) + np.arange(8).reshape(2, 4, 1, 1) % 3
    norms = (
        ("BatchNorm", "a channel of all images", ops.batch_norm(x, *[None] * 4, training=True, eps=0.0), None),
        ("GroupNorm, $G = 2$", "a group of one image", ops.group_norm(x, 2, eps=0.0), 2),
        ("$G = 1$: LayerNorm", "all channels of one image", ops.group_norm(x, 1, eps=0.0), 1),
        ("$G = C$: InstanceNorm", "one channel of one image", ops.group_norm(x, 4, eps=0.0), 4),
    )
    ax = sheet(16.2)
    wide, high = 2.2, 1.5
    shades = [tint(colour, strength) for strength in (0.3, 0.6) for colour in (BLUE, ORANGE, GREEN, GREY)]
    for at, (name, what, y, groups) in enumerate(norms):
        left, top = 1.8 + 12.4 * (at % 2), 3.2 + 6.6 * (at // 2)
        means = y.data.mean((2, 3))
        sets = (lambda n, c: c) if groups is None else (lambda n, c, g=groups: n * g + c * g // 4)
        grid(ax, left, top, means, lambda n, c, sets=sets: shades[sets(n, c)], cell=wide, high=high,
             words=lambda value: number(value, 2))  # fmt: skip
        say(ax, left, top - 2.4, name, weight="bold")
        say(ax, left, top - 1.5, what)
        say(ax, left - 0.2, top - 0.5, "$n$ \\ $c$", 9, "right", color=DARK_GREY)
        for c in range(4):
            say(ax, left + (c + 0.5) * wide, top - 0.5, f"{c}", 9, "center", color=DARK_GREY)
        for n in range(2):
            say(ax, left - 0.2, top + (n + 0.5) * high, f"{n}", 9, "right", color=DARK_GREY)
        for n, c in np.ndindex(2, 4):  # frames around what is normalized together
            same = [(a, b) for a, b in np.ndindex(2, 4) if sets(a, b) == sets(n, c)]
            if (n, c) == same[0]:
                rows, columns = same[-1][0] - n + 1, same[-1][1] - c + 1
                box(ax, left + c * wide, top + n * high, columns * wide, rows * high, "black", 1.8)
    say(ax, 0.7, 14.5, "A cell is a plane of $H \\times W$ values; the number is its mean in $\\hat x$. "
        "In a frame they add up to 0.")  # fmt: skip
    say(ax, 0.7, 15.4, "$g\\gamma$ and $g\\beta$ are sums over a column, all images, in each of the four.")
    return ax.figure


def weight_standardization():
    """Three filters before, standardized each by itself, and standardized together."""
    v = [[[0.0, 1, 0], [1, 2, 1], [0, 1, 0]], [[5, 4, 5], [4, 6, 4], [5, 4, 5]], [[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]]]
    v = np.array(v)
    ax = sheet(17)
    readings = (
        ("$v$, as trained", v), ("$w$, per=\"filter\"", ops.weight_standardization(v, per="filter", eps=0.0).data),
        ("$w$, per=\"layer\"", ops.weight_standardization(v, per="layer", eps=0.0).data),
    )  # fmt: skip
    for row, (name, w) in enumerate(readings):
        top = 2.2 + 5.1 * row
        largest = abs(w).max()
        say(ax, 0.7, top + 1.5, name, weight="bold")
        for c in range(3):
            left = 7.0 + 6.0 * c
            fill = lambda r, q, a=w[c], m=largest: tint(ORANGE if a[r, q] > 0 else BLUE, 0.6 * abs(a[r, q]) / m)  # noqa: E731
            grid(ax, left, top, w[c], fill, cell=1.6, high=1.0, size=9.5, words=lambda value: number(value, 1))
            say(ax, left + 2.4, top + 3.6, f"mean {number(w[c].mean(), 2)}", 9.5, "center", color=DARK_GREY)
            if row == 0:
                say(ax, left + 2.4, top - 0.7, f"filter $c = {c}$", ha="center")
        if row:
            sets = ((7.0, 4.8), (13.0, 4.8), (19.0, 4.8)) if row == 1 else ((7.0, 16.8),)
            for left, width in sets:
                box(ax, left - 0.2, top - 0.2, width + 0.4, 3.4, "black", 1.8)
            say(ax, 0.7, top + 2.6, "each frame: mean 0,", 9, color=DARK_ORANGE)
            say(ax, 0.7, top + 3.4, "deviation 1", 9, color=DARK_ORANGE)
    return ax.figure
