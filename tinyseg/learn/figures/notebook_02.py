"""Figures of notebook 2, what a convolution costs."""

import numpy as np
from matplotlib import pyplot as plt

from tinyseg.learn.figures import figure
from tinyseg.report.colours import BLUE, DARK_ORANGE, GREY, ORANGE, PURPLE


@figure
def matrices(standard, depthwise, pointwise):
    """Three matrices as pictures.

    Standard: nine blocks, each with bands. Depthwise: bands only in the three diagonal blocks. Pointwise: nine blocks,
    each with one diagonal line.
    """
    drawn, axes = plt.subplots(1, 3, figsize=(8.6, 2.1), width_ratios=(108, 108, 48))
    found = {"Standard": standard, "Depthwise": depthwise, "Pointwise": pointwise}
    for ax, (name, m) in zip(axes, found.items(), strict=True):
        ax.imshow(np.where(m == 0, np.nan, m), cmap="PuOr", vmin=-2.5, vmax=2.5)
        ax.set(title=f"{name}: {np.count_nonzero(m)}", xticks=[], yticks=[], xlabel="3 channels in")
        for edge in (1, 2):
            ax.axvline(edge * m.shape[1] / 3 - 0.5, color=GREY, linewidth=0.8)
            ax.axhline(edge * m.shape[0] / 3 - 0.5, color=GREY, linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(True)
    axes[0].set_ylabel("3 channels out")
    return drawn


@figure
def savings(places):
    """Contours of how many times fewer multiply-adds a separable convolution needs, over channels and kernel size.

    They run level for many output channels and upright for few. Points mark SD-UNet's layers: most near 8 times, those
    of 2 by 2 near 4, the last one below 2.
    """
    drawn, ax = plt.subplots(figsize=(7.2, 3.6))
    channels, taps = np.meshgrid(np.geomspace(1, 1100, 300), np.linspace(1, 7.2, 300))
    times = 1 / (1 / channels + 1 / taps**2)
    levels = [1, 2, 4, 8, 16, 32]
    ax.contour(channels, taps, times, levels=levels, colors=BLUE, linewidths=1.3)
    for level in levels:
        text = "as many" if level == 1 else f"{level} times fewer"
        ax.text(1200, 1 / np.sqrt(1 / level - 1 / 1100) if level > 1 else 1, text, color=BLUE, va="center")
    ax.plot(*zip(*places, strict=True), "o", color=ORANGE, markersize=7, clip_on=False)
    for x_at, y_at, text in ((90, 3.3, "3 × 3"), (90, 2.3, "2 × 2, upsampling"), (2.3, 3, "3 × 3, head")):
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        ax.text(x_at, y_at, text, color=DARK_ORANGE, va="center", bbox=box)
    ax.set(xscale="log", xlabel="output channels K", ylabel="kernel size k", xlim=(1, 1100), ylim=(0.9, 7.2))
    ax.set_title("Multiply-adds saved, and the layers of SD-UNet (points)")
    ax.set_xticks([1, 4, 16, 64, 256, 1024], ["1", "4", "16", "64", "256", "1024"])
    return drawn


@figure
def layer_by_layer(dense, separable):
    """Two rows of bars, one bar a layer, U-Net behind and SD-UNet in front.

    Parameters peak in the middle of the network, where images are small. Multiply-adds are spread over all levels and
    highest in the decoder. SD-UNet's bars are much lower everywhere but in the first layer.
    """
    drawn, axes = plt.subplots(2, 1, figsize=(8.6, 4.6), sharex=True)
    at, by_name = np.arange(len(dense)), {row.name: row for row in separable}
    for ax, key, unit, label in (
        (axes[0], "parameters", 1e6, "parameters in millions"),
        (axes[1], "multiply_adds", 1e9, "multiply-adds in G"),
    ):
        ax.bar(at, [getattr(row, key) / unit for row in dense], 0.8, color=BLUE)
        ax.bar(at, [getattr(by_name.get(row.name), key, 0) / unit for row in dense], 0.5, color=ORANGE)
        ax.set_ylabel(label)
    axes[0].set_title("Layer by layer, in the order in which they run")
    axes[0].text(9.8, 7.4, "U-Net", color=BLUE, weight="bold")
    axes[0].text(9.8, 5.9, "SD-UNet (in front)", color=DARK_ORANGE, weight="bold")
    sizes = [row.output[-1] for row in dense]
    starts = [i for i in at if i == 0 or sizes[i] != sizes[i - 1]]
    for begin in starts:
        for ax in axes:
            ax.axvline(begin - 0.5, color=GREY, linewidth=0.5)
    middles = [(begin + end - 1) / 2 for begin, end in zip(starts, [*starts[1:], len(sizes)], strict=True)]
    axes[1].set_xticks(middles, [f"{sizes[begin]}²" for begin in starts])
    axes[1].tick_params(axis="x", length=0)
    axes[1].set(xlabel="size of the layer's output in pixels", xlim=(-0.5, len(sizes) - 0.5))
    return drawn


@figure
def errors(found):
    """Error of the best separable kernel against the number of depthwise kernels a channel, from 1 to 16.

    Edges fall to zero at 2. Lines fall in steps of two and are near zero at 7. Random kernels fall slowly and reach
    zero at 16.
    """
    drawn, ax = plt.subplots(figsize=(7.2, 3.4))
    places = (8.2, 0.57), (3.2, 0.4), (2.15, 0.05)
    for (name, values), colour, spot in zip(found.items(), (GREY, BLUE, PURPLE), places, strict=True):
        ax.plot(range(1, 17), values, "o-", markersize=4, color=colour)
        ax.text(*spot, name, color=colour, weight="bold")
    ax.set(xlabel="R, depthwise kernels for each input channel", ylabel="relative error of the kernels")
    ax.set(ylim=(-0.03, 1), title="What the best separable kernel misses")
    return drawn


@figure
def line_detectors(rows):
    """Eight line detectors in eight directions, in four rows.

    Exact: each has its own direction. R = 1: all eight show the same round spot. R = 3: eight directions, blurred.
    R = 5: nearly the exact ones.
    """
    drawn, axes = plt.subplots(len(rows), 8, figsize=(7.6, 4.1))
    for row, (name, kernels) in zip(axes, rows.items(), strict=True):
        for ax, kernel in zip(row, kernels[:, 0], strict=True):
            ax.imshow(kernel, vmin=-0.4, vmax=0.4)
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    drawn.suptitle("Line detectors, and the closest separable kernels", x=0.02, ha="left", fontsize=11)
    return drawn


@figure
def strongest_answers(section, strongest):
    """A synthetic section with dark membranes, and the strongest answer of eight line detectors.

    With the exact kernels membranes stand out in every direction, with R = 1 they fall apart into spots, with R = 3 it
    is nearly the exact picture.
    """
    shown = [name for name in strongest if name != "R = 5"]  # which looks like the exact ones
    drawn, axes = plt.subplots(1, 1 + len(shown), figsize=(8.6, 2.5))
    axes[0].imshow(section)
    axes[0].set_title("section")
    for ax, name in zip(axes[1:], shown, strict=True):
        ax.imshow(strongest[name], vmin=0, vmax=np.quantile(strongest["exact"], 0.99))
        ax.set_title(name)
    for ax in axes:
        ax.set(xticks=[], yticks=[])
    return drawn
