"""Figures of notebook 7, U-Net from blocks."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm

from tinyseg.learn.figures import figure, show_images
from tinyseg.report.colours import BLUE, GREEN, GREY, ORANGE

LIGHT_BLUE = "#56B4E9"  # to be seen on black
GAP = 60  # between two boxes of the U
SHOWN = slice(0, 128), slice(0, 128)  # of a section


@figure
def the_u(shapes):
    """The U of a U-Net with five levels.

    Boxes become lower and wider from level to level down to the bottleneck, then higher and narrower again. Orange
    arrows, the skip connections, lead across.
    """
    levels = sum(name.startswith("encoder.") and name.count(".") == 1 for name in shapes)
    heights = [shapes[f"encoder.{level}"][2] for level in range(levels)]
    middle = [-sum(heights[:level]) - heights[level] / 2 - 65 * level for level in range(levels)]
    drawn, axes = plt.subplots(figsize=(11, 5.2))
    axes.axis("off")
    at, ends = 0, []
    for level, height in enumerate(heights):
        if level:
            above = ends[-1] - 16, middle[level - 1] - heights[level - 1] / 2
            _arrow(axes, above, (at, middle[level]), GREY)
        channels = [shapes[f"encoder.{level}.convs.{k}"][1] for k in range(2)]
        ends.append(_boxes(axes, at, middle[level], height, channels, [BLUE, BLUE], f"{channels[-1]}"))
        deepest = level == levels - 1
        place = (at, middle[level] - 50) if deepest else (ends[-1] + 25, middle[level] + 7)
        axes.text(*place, f"{height} × {height}", color=GREY, va="baseline")
        at = ends[-1] + GAP + 10
    for k, level in enumerate(reversed(range(levels - 1))):
        skip, up = shapes[f"encoder.{level}"][1], shapes[f"decoder.{k}.conv"][1]
        channels = [skip, up, *(shapes[f"decoder.{k}.block.convs.{i}"][1] for i in range(2))]
        _arrow(axes, (at - GAP, middle[level + 1]), (at + skip + up / 2, middle[level] - heights[level] / 2), GREEN)
        _arrow(axes, (ends[level], middle[level]), (at, middle[level]), ORANGE)
        words, colours = f"{skip} + {up} → {channels[-1]}", [ORANGE, GREEN, BLUE, BLUE]
        at = _boxes(axes, at, middle[level], heights[level], channels, colours, words) + GAP + 10
    axes.text(at / 2, middle[0] + 8, "skip: copied and joined", color=ORANGE, ha="center")
    axes.text(ends[0] - 40, middle[1] + 80, "max pool", color=GREY, ha="right")
    axes.text(at - 150, middle[2] + 60, "upsample,\nconvolve 2 × 2", color=GREEN, ha="right", va="center")
    axes.text(0, middle[-1], "blue: convolution 3 × 3, ReLU\nabove a block: channels", va="center", color=BLUE)
    width, side = shapes["encoder.0"][1], heights[0]
    axes.set_title(f"U-Net of width {width}, as it computes an image of {side} × {side}")
    axes.set(xlim=(-130, at), ylim=(middle[-1] - 60, 40))
    return drawn


def _boxes(axes, start, middle, height, channels, colours, words):
    """Draw boxes beside each other from `start` on, with words above; return where the last one ends."""
    at, low = start, middle - height / 2
    for width, colour in zip(channels, colours, strict=True):
        axes.add_patch(plt.Rectangle((at, low), width, height, color=colour, alpha=0.85, linewidth=0))
        at += width + GAP * (colour != ORANGE)  # what is joined touches
    axes.text((start + at - GAP) / 2, low + height + 8, words, ha="center", va="bottom")
    return at - GAP


def _arrow(axes, begin, end, colour):
    axes.annotate("", end, begin, arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkA": 1, "shrinkB": 1})


@figure
def receptive_fields(fields):
    """Four maps of the influence of input pixels on the middle output, on a logarithmic scale.

    A bright centre fades outwards. It grows with every pooling, and stays inside of the theoretical box.
    """
    drawn, grid = plt.subplots(1, len(fields), figsize=(11, 3.3), sharey=True)
    for axes, (poolings, (influence, bound, effective)) in zip(grid, fields.items(), strict=True):
        half, relative = len(influence) // 2, influence / influence.max() + 1e-12
        extent = -half, half, half, -half
        shown = axes.imshow(relative, norm=LogNorm(1e-6, 1), cmap="magma", extent=extent)
        for r, colour in ((bound, "white"), (effective, LIGHT_BLUE)):
            axes.add_patch(plt.Rectangle((-r, -r), 2 * r, 2 * r, fill=False, edgecolor=colour, linewidth=1.4))
        name = f"{poolings} pooling{'s' * (poolings > 1)}"
        axes.set_title(f"{name}: bound {2 * bound + 1}\n95 % in {2 * effective + 1} pixels")
        axes.set(xlabel="pixels", xticks=(-100, 0, 100))
    drawn.colorbar(shown, ax=grid, label="influence, relative", shrink=0.8)
    return drawn


@figure
def with_and_without_skips(losses, section, inside, found):
    """Two loss curves, the one without skips above the other; beside them what both networks find in a section.

    A part of the section, its membranes, and the predictions: fine lines with skips, thick blurred ones without.
    """
    drawn, grid = plt.subplots(1, 5, figsize=(11, 2.9), width_ratios=(1.6, 1, 1, 1, 1))
    for (name, values), colour, away in zip(losses.items(), (BLUE, ORANGE), (-20, 12), strict=True):
        smooth = np.convolve(values, np.ones(15) / 15, "valid")
        grid[0].plot(np.arange(len(smooth)) + 7, smooth, color=colour)
        at = 2 * len(values) // 3
        place = {"xy": (at, smooth[at - 7]), "xytext": (0, away), "textcoords": "offset points", "ha": "center"}
        grid[0].annotate(name, **place, color=colour)
    grid[0].set(xlabel="step", ylabel="cross-entropy", title="Loss (mean of 15 steps)", ylim=(0, None))
    pictures = {"a test section": section, "membranes": inside}
    pictures |= {f"{name}: {area:.2f}": p for name, (p, area) in found.items()}
    for axes, (title, picture) in zip(grid[1:], pictures.items(), strict=True):
        _grey(axes, picture, title)
    return drawn


@figure
def cuts(whole, inside, found):
    """Predictions with one connection cut.

    The upper row is without one of the three skips, the lower row without what comes from below each level.
    """
    drawn, grid = plt.subplots(2, 4, figsize=(9, 4.9))
    _grey(grid[0, 0], whole[0], f"whole: {whole[1]:.2f}")
    _grey(grid[1, 0], inside, "membranes")
    for row, what in zip(grid, ("skip", "below"), strict=True):
        for level, (p, area) in enumerate(found[what]):
            _grey(row[1 + level], p, f"{what} {level} cut: {area:.2f}")
    return drawn


def _grey(axes, picture, title):
    """Draw a part of a section, or of what was found in it."""
    show_images([axes], [picture[SHOWN]], [title])


@figure
def borders_and_checkerboards(difference, reach, ways_up):
    """What padding changes, and what three ways of upsampling make of a constant image.

    Left: the error of mirrored padding is confined to the right and lower border. Right: a constant image after three
    ways of upsampling, two with a checkerboard, the third even.
    """
    drawn, grid = plt.subplots(1, 1 + len(ways_up), figsize=(11, 2.9), width_ratios=(1.25, *[1] * len(ways_up)))
    shown = grid[0].imshow(difference + 1e-9, norm=LogNorm(1e-5, 1), cmap="magma")
    drawn.colorbar(shown, ax=grid[0], label="|difference of logits|")
    grid[0].axvline(reach, color="white", linewidth=1)
    grid[0].axhline(reach, color="white", linewidth=1)
    grid[0].set_title("250² mirrored, or cut from 256²")
    show_images(grid[1:], [y.data[0, 0] for y in ways_up.values()], ways_up, vmin=0)
    return drawn
