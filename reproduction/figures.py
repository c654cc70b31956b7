"""Draw what the paper's Figures 9 to 12 show: predictions side by side, and training curves."""

import itertools

import numpy as np

from tinyseg.report import plots
from tinyseg.report.colours import DPI
from tinyseg.report.load_matplotlib import load_matplotlib

COLOURS = ("#000000", "#767676", "#D55E00", "#E69F00", "#CC79A7", "#0072B2", "#56B4E9", "#009E73")  # Okabe and Ito's
DASHES = ("-", "--", "-.", ":")
CURVES = {"train_loss": "training loss", "val_dice": "Dice, held out"}  # columns of a log, one panel each


def curves(histories, path):
    """Draw training loss and Dice of each network: the mean over its seeds as a line, least to most as a band.

    Parameters
    ----------
    histories : dict of str to list of list of dict
        For each network the histories of its seeds, see `tinyseg.training.fit`.
    path : path-like
        File to write; its ending is the format.
    """
    figure = load_matplotlib().Figure(figsize=(5.2 * len(CURVES), 4.6), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(CURVES))
    for (title, seeds), colour, dash in zip(histories.items(), itertools.cycle(COLOURS), itertools.cycle(DASHES)):
        step = [row["step"] for row in min(seeds, key=len)]
        for ax, key in zip(panels, CURVES, strict=True):
            values = np.array([[row[key] for row in seed[: len(step)]] for seed in seeds], float)  # (seeds, epochs)
            ax.plot(step, values.mean(axis=0), dash, color=colour, label=title, linewidth=1.5)
            if len(values) > 1:
                ax.fill_between(step, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.12, linewidth=0)
    for ax, name in zip(panels, CURVES.values(), strict=True):
        ax.set(xlabel="step", ylabel=name)
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False, handlelength=3)
    plots.save(figure, path)


def sections_side_by_side(images, labels, predictions, captions, path):
    """Draw sections, one a row: image, truth, and the errors of each network.

    Parameters
    ----------
    images : ndarray, shape (S, H, W)
    labels : bool ndarray, shape (S, H, W)
        True inside of a cell.
    predictions : dict of str to float ndarray, shape (S, H, W)
        Probabilities of the inside of a cell, by the network's name.
    captions : dict of str to list of str
        For each network, what to write below its prediction of each section, such as the score. What to write beside
        each row is under ``""``.
    path : path-like
    """
    rows = zip(images, labels, *predictions.values(), strict=True)
    figure, grid = _grid(["image", "truth", *predictions], images, captions)
    for axes, (image, label, *probabilities) in zip(grid, rows, strict=True):
        axes[0].imshow(image, cmap="gray")
        axes[1].imshow(label, cmap="gray", vmin=0, vmax=1)
        for ax, p in zip(axes[2:], probabilities, strict=True):
            ax.imshow(plots.error_overlay(image, np.asarray(label, bool), p > 0.5))
    kinds = [(plots.FALSE_MEMBRANE, "false membrane"), (plots.MISSED_MEMBRANE, "missed membrane")]
    patches = [load_matplotlib().Patch(facecolor=np.array(colour) / 255, label=text) for colour, text in kinds]
    figure.legend(handles=patches, loc="outside lower right", ncols=2, fontsize=9, frameon=False)
    plots.save(figure, path)


def tumours_side_by_side(images, labels, predictions, captions, path, classes):
    """Draw slices of brains, one a row: image, truth, and the classes that each network finds, as outlines.

    Parameters
    ----------
    images : ndarray, shape (S, X, Y)
        Of one modality.
    labels : integer ndarray, shape (S, X, Y)
    predictions : dict of str to integer ndarray, shape (S, X, Y)
        Class numbers by the network's name.
    captions : dict of str to list of str
        As for `sections_side_by_side`.
    path : path-like
    classes : sequence of str
        Names of the classes from 0.
    """
    rows = zip(images, labels, *predictions.values(), strict=True)
    figure, grid = _grid(["image", "truth", *predictions], np.swapaxes(images, 1, 2), captions)
    for axes, (image, *outlined) in zip(grid, rows, strict=True):
        for ax in axes:
            ax.imshow(np.rot90(image), cmap="gray", vmin=image.min(), vmax=np.percentile(image, 99.8))
        for ax, found in zip(axes[1:], outlined, strict=True):
            plots.outline(ax, np.rot90(found), len(classes))
    plots.legend_of_classes(figure, classes)
    plots.save(figure, path)


def _grid(titles, pictures, captions):
    """Return a figure, and its axes without ticks: a row for each picture, titles above, captions beside and below."""
    height, width = pictures.shape[1:]
    size = 2.4 * len(titles), (2.4 * height / width + 0.2) * len(pictures) + 0.6  # inches
    figure = load_matplotlib().Figure(figsize=size, dpi=DPI, layout="constrained")
    grid = figure.subplots(len(pictures), len(titles), squeeze=False)
    for number, axes in enumerate(grid):
        axes[0].set_ylabel(captions[""][number], fontsize=9)
        for ax, title in zip(axes, titles, strict=True):
            ax.set(xticks=[], yticks=[])
            ax.set_xlabel(captions.get(title, [""] * len(grid))[number], fontsize=8)
            if number == 0:
                ax.set_title(title, fontsize=10)
    return figure, grid
