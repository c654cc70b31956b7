"""Figures of notebook 6, two readings of weight standardization."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap

from tinyseg.learn.figures import figure
from tinyseg.report.colours import BLUE, DARK_GREY, GREY, ORANGE

COLOURS = {"none": GREY, "per layer": BLUE, "per filter": ORANGE}


def _number(value):
    return f"{value:.2g}" if abs(value) > 1e-9 else "0"


def _name_row(ax, reading):
    ax.set_ylabel("v, as trained" if reading == "none" else f"w, {reading}", fontsize=11)


@figure
def kernels(names, found):
    """Twelve 3 by 3 kernels with their weights.

    As trained, blur and copy sum to 4 and 1, edge and spot to 0. Per layer the sums are 6.3, -2.9, -2.9 and -0.57, zero
    in all. Per filter every sum is 0, and blur and copy look like spot.
    """
    colours = LinearSegmentedColormap.from_list("blue to orange", [BLUE, "white", ORANGE])
    drawn, grid = plt.subplots(3, 4, figsize=(7.6, 6))
    for row, (reading, filters) in zip(grid, found.items(), strict=True):
        _name_row(row[0], reading)
        for ax, w, name in zip(row, filters, names, strict=True):
            largest = abs(w).max()
            ax.imshow(w, cmap=colours, vmin=-largest, vmax=largest)
            ax.set(xticks=[], yticks=[], title=f"{name}: sum {_number(w.sum())}")
            for (i, j), weight in np.ndenumerate(w):
                colour = "white" if weight < -0.9 * largest else "black"
                ax.text(j, i, _number(weight), ha="center", va="center", color=colour)
    return drawn


@figure
def responses(names, found):
    """Transfer functions of the twelve kernels.

    Blur and copy as trained are bright in the middle; per filter all four are black in the middle.
    """
    drawn, grid = plt.subplots(3, 4, figsize=(7.6, 6.2))
    for row, (reading, filters) in zip(grid, found.items(), strict=True):
        _name_row(row[0], reading)
        for ax, heard, name in zip(row, filters, names, strict=True):
            ax.imshow(heard, vmin=0, vmax=heard.max() * 1.0001, extent=(-0.5, 0.5, 0.5, -0.5))
            middle = heard[heard.shape[0] // 2, heard.shape[1] // 2]
            ax.set(xticks=[], yticks=[], title=f"{name}: {_number(middle)} at 0")
            ax.spines[:].set_visible(True)
        row[0].set_yticks([-0.5, 0, 0.5])
    drawn.supxlabel("cycles per pixel", fontsize=10)
    for ax in grid[2]:
        ax.set_xticks([-0.5, 0, 0.5], ["-0.5", "0", "0.5"])
    return drawn


@figure
def brightness(image, found):
    """A section whose right half is brighter, and the output of the blur filter.

    As trained and per layer the right half is brighter too; per filter both halves are the same grey, with a line
    between them.
    """
    drawn, row = plt.subplots(1, 4, figsize=(9.4, 2.9))
    for ax, (title, picture) in zip(row, {"image": image, **found}.items(), strict=True):
        ax.imshow(picture)
        ax.set_title(title)
        half = picture.shape[1] // 2
        for at, mean in ((0, picture[:, : half - 2].mean()), (half, picture[:, half + 2 :].mean())):
            ax.text(at, picture.shape[0] + 2, f"mean {mean.round(1) + 0.0:.1f}", va="top")
        ax.axis("off")
    return drawn


@figure
def cosines(found):
    """For each of 64 filters the cosine of its gradient with the vector of ones and with its weights.

    Per layer the points scatter widely; per filter all lie at zero.
    """
    drawn, row = plt.subplots(1, 2, figsize=(7.4, 3.6), sharey=True)
    for ax, (per, (with_ones, with_weights)) in zip(row, found.items(), strict=True):
        ax.axhline(0, color=GREY, lw=0.6)
        ax.axvline(0, color=GREY, lw=0.6)
        ax.plot(with_ones, with_weights, "o", color=COLOURS[f"per {per}"], ms=5, alpha=0.7)
        ax.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
        ax.set(title=f"per {per}", xlabel="cosine with 1 (level of the filter)")
    row[0].set_ylabel("cosine with w (its strength)")
    row[1].annotate("all 64 filters", (0.02, 0.03), (0.25, 0.5), arrowprops={"arrowstyle": "->", "color": DARK_GREY})
    drawn.align_labels()
    return drawn


@figure
def losses(found, constant):
    """Training loss against step, mean of three seeds in a band from least to most.

    Without standardization and per layer the curves lie on each other; per filter lies above both.
    """
    drawn, ax = plt.subplots(figsize=(7.5, 3.6))
    for reading, runs in found.items():
        smooth = np.array([np.convolve(run, np.ones(15) / 15, "valid") for run in runs])
        step = np.arange(15, runs.shape[1] + 1)
        ax.fill_between(step, smooth.min(0), smooth.max(0), color=COLOURS[reading], alpha=0.25, lw=0)
        ax.plot(step, smooth.mean(0), color=COLOURS[reading], ls="--" if reading == "none" else "-", label=reading)
    ax.axhline(constant, color="black", lw=0.8, ls=":")
    ax.text(runs.shape[1], constant + 0.01, "one answer for all pixels", ha="right")
    ax.set(xlabel="step", ylabel="loss (mean of 15 steps)", ylim=(0.25, 0.9))
    ax.set_title("Three seeds each: mean, and least to most")
    ax.legend()
    ax.margins(x=0.02)
    return drawn


@figure
def predictions(section, truth, found):
    """A new section, its true labels and the three networks' probabilities.

    Per filter membranes come out as thin, broken lines; the other two are alike and show dark regions as well.
    """
    drawn, row = plt.subplots(1, 2 + len(found), figsize=(9.6, 2.3))
    row[0].imshow(section)
    for ax, picture in zip(row[1:], (truth, *found.values()), strict=True):
        ax.imshow(picture, vmin=0, vmax=1)
    for ax, title in zip(row, ("new section", "truth", *found), strict=True):
        ax.set_title(title)
        ax.axis("off")
    return drawn
