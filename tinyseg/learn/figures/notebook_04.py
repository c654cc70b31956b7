"""Figures of notebook 4, making it fast."""

import numpy as np
from matplotlib import pyplot as plt

from tinyseg.learn.figures import figure
from tinyseg.report.colours import BLUE, GREEN, GREY, ORANGE, PURPLE


@figure
def race(seconds):
    """Bars on a logarithmic axis: the times of the five versions, and a line at the time of a copy."""
    *names, last = seconds
    first, floor = (1e3 * np.median(seconds[name]) for name in (names[0], last))
    drawn, axes = plt.subplots(figsize=(7.5, 2.9))
    for k, name in enumerate(names):
        low, middle, high = 1e3 * np.quantile(seconds[name], (0.25, 0.5, 0.75))
        axes.barh(k, middle, color=BLUE, height=0.6)
        axes.plot([low, high], [k, k], color="black", linewidth=1.2)
        text = f"{middle:.3g} ms, {first / middle:.3g} times as fast as a" if k else f"{middle:.3g} ms"
        axes.annotate(text, (high, k), (6, 0), textcoords="offset points", va="center")
    axes.axvline(floor, color=ORANGE)
    place = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
    axes.annotate(f"a copy: {floor:.2g} ms", (floor, -0.8), color=ORANGE, **place)
    axes.set(yticks=range(5), yticklabels=names, ylim=(4.5, -1.2), xscale="log", xlim=(floor / 2, 12 * first))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(f"ms: median of {len(seconds[last])} runs (black: quartiles)")
    axes.set_title("One layer, five programs, the same numbers")
    return drawn


@figure
def roofline(intensity, rate, moved, R, B):
    """Roofline: a slanted line for memory, a level one for arithmetic.

    The five versions stand above each other at 2.25 flop per byte, pointwise and dense layers to the right.
    """
    drawn, axes = plt.subplots(figsize=(7.5, 4.6))
    I, GR, GB = np.geomspace(0.05, 1000, 300), R / 1e9, B / 1e9
    axes.plot(I, np.minimum(GR, I * GB), color="black", zorder=1)
    axes.plot([0.05, GR / GB], [GR, GR], ":", color=GREY, zorder=1)
    axes.annotate(f"arithmetic: {GR:.0f} Gflop/s", (0.05, GR), (4, 4), textcoords="offset points")
    slope = {"rotation": np.degrees(np.arctan(1.15 * GB)), "rotation_mode": "anchor", "transform_rotates_text": True}
    axes.text(0.2, 1.15 * 0.2 * GB, f"memory: {GB:.0f} GB/s", slope)
    colours, above = {"pointwise": GREEN, "dense 3×3": PURPLE}, 0
    for name in sorted(intensity, key=rate.get):  # labels from below, each above the one before
        at, colour = rate[name] / 1e9, colours.get(name, BLUE)
        axes.plot(intensity[name], at, "o", color=colour, markersize=8)
        above = 0.7 * at if name in colours else max(at, 1.35 * above)
        axes.annotate(name, (intensity[name], above), (9, 0), textcoords="offset points", va="center", color=colour)
    a = rate["a  nine shifted adds"] / 1e9
    axes.annotate("", (moved, a), (2, a), arrowprops={"arrowstyle": "->", "color": BLUE, "linestyle": ":"})
    axes.plot(moved, a, "o", color="white", markeredgecolor=BLUE, markersize=8)
    axes.annotate("what a moves", (moved, a), (-6, -16), textcoords="offset points", color=BLUE)
    axes.set(xscale="log", yscale="log", xlim=(0.05, 1000), ylim=(min(0.4 * a, 0.04 * GB), 4 * GR))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.set(xlabel="flop / byte", ylabel="Gflop / s", title="This machine's roof, and what stands under it")
    return drawn


@figure
def training_step(costs):
    """Bars: milliseconds of each kind of op in a training step, forward and backward.

    At the left in plain steps, at the right with fused ops, where fewer kinds of op are left.
    """
    drawn, grid = plt.subplots(1, 2, figsize=(9, 3.4), sharex=True)
    longest = 0
    for axes, (name, found) in zip(grid, costs.items(), strict=True):
        kinds = {method.partition(".")[0] for method in found}
        spent = {op: [found.get(f"{op}.{way}", 0) for way in ("forward", "backward")] for op in kinds}
        longest = max(longest, *map(sum, spent.values()))
        total = sum(map(sum, spent.values()))
        shown = sorted((op for op in spent if sum(spent[op]) > 0.005 * total), key=lambda op: -sum(spent[op]))
        for k, (forward, backward) in enumerate(spent[op] for op in shown):
            axes.barh(k, forward, color=BLUE, height=0.65)
            axes.barh(k, backward, left=forward, color=ORANGE, height=0.65)
            axes.text(forward + backward, k, f" {forward + backward:.1f}", va="center")
        axes.set(yticks=range(len(shown)), yticklabels=shown, ylim=(len(shown) - 0.4, -0.6), xlabel="ms")
        axes.set_title(f"{name}: {total:.0f} ms in ops")
        axes.text(0.98, 0.2, "forward", color=BLUE, transform=axes.transAxes, ha="right")
        axes.text(0.98, 0.1, "backward", color=ORANGE, transform=axes.transAxes, ha="right")
    axes.set_xlim(right=1.18 * longest)
    return drawn


@figure
def strips(warps):
    """A plane of 24 by 64 outputs, grey by warp, twice, and outlined what one thread reads.

    One output a thread: a warp is half a row. A strip of 8 outputs a thread: a warp is a field of 32 by 8.
    """
    drawn, grid = plt.subplots(1, 2, figsize=(9, 2.2), sharey=True)
    titles = "One output a thread", "A strip of 8 outputs a thread"
    for axes, (rows, warp), title in zip(grid, warps.items(), titles, strict=True):
        axes.imshow((warp + warp // 2) % 2, vmin=-9, vmax=2)
        axes.add_patch(plt.Rectangle((19.5, 7.5), 1, rows, color=BLUE))
        axes.add_patch(plt.Rectangle((18.5, 6.5), 3, rows + 2, fill=False, edgecolor=ORANGE, linewidth=1.8))
        axes.text(23, 8, "what a thread\nwrites", color=BLUE, va="center")
        axes.text(18, 8, "and reads", color=ORANGE, ha="right", va="center")
        axes.set(title=f"{title} (grey: warps)", xlabel="column j")
    grid[0].set_ylabel("row i")
    return drawn
