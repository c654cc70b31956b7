"""Pictures of a run: learning curves, and predictions beside the truth with their errors in colour.

Figures are made with Matplotlib's objects and not with pyplot: they need no display and leave no global state. A file
appears whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinyseg.metrics import BinaryScores
from tinyseg.report.colours import DPI, ORANGE, class_colours
from tinyseg.report.learning_curves import curves
from tinyseg.report.load_matplotlib import load_matplotlib
from tinyseg.report.saving import FilePath, drawing, save

__all__ = ["curves", "drawing", "error_overlay", "outline", "predictions", "save", "tumours"]

FALSE_MEMBRANE = (230, 159, 0)  # orange: predicted membrane, truly inside of a cell
MISSED_MEMBRANE = (0, 114, 178)  # blue: predicted inside of a cell, truly membrane
INSIDE = "inside of a cell"  # the class of the networks of train_isbi.py


def error_overlay(image: ArrayLike, label: ArrayLike, prediction: ArrayLike) -> np.ndarray:
    """Paint the errors of a prediction onto its image.

    Parameters
    ----------
    image : ndarray, shape (H, W)
        Grey levels: uint8 stays as it is; of any other dtype, smallest to largest value are stretched to 0–255.
    label, prediction : ndarray of bool, shape (H, W)
        True inside of a cell, False on the membrane.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        ``FALSE_MEMBRANE`` (orange) where the inside of a cell was predicted as membrane, ``MISSED_MEMBRANE`` (blue)
        where membrane was predicted as inside, the image's grey elsewhere.

    Raises
    ------
    ValueError
        If the shapes differ or are not two-dimensional, or a mask is not boolean.
    """
    image, label, prediction = np.asarray(image), np.asarray(label), np.asarray(prediction)
    if image.ndim != 2 or not image.shape == label.shape == prediction.shape:
        raise ValueError(
            "error_overlay needs image, label and prediction of one shape (H, W), but found "
            f"{image.shape}, {label.shape} and {prediction.shape}."
        )
    if label.dtype != bool or prediction.dtype != bool:
        raise ValueError(
            f"label and prediction must be boolean, but are {label.dtype} and {prediction.dtype}. "
            "Compare them with a threshold first, as in probability > 0.5."
        )
    overlay = np.repeat(to_grey(image)[..., None], 3, axis=2)  # (H, W, 3)
    overlay[label & ~prediction] = FALSE_MEMBRANE
    overlay[prediction & ~label] = MISSED_MEMBRANE
    return overlay


def predictions(
    images: ArrayLike, labels: ArrayLike | None, probabilities: ArrayLike, path: FilePath,
    names: Iterable[str] | None = None, threshold: float = 0.5, max_rows: int = 4, what: str = INSIDE,
) -> None:  # fmt: skip
    """Draw sections, each in a row of its own: image, truth, prediction and errors.

    Parameters
    ----------
    images : ndarray, shape (S, H, W)
        Grey levels of any dtype.
    labels : ndarray of bool or of 0 and 1, shape (S, H, W), or None
        True inside of a cell. Without labels a row shows the image, the prediction and its outlines on the image.
    probabilities : ndarray of float in [0, 1], shape (S, H, W)
        Probability of the inside of a cell.
    path : str or path-like
        File to write; its ending says the format (``.png``, ``.pdf``, ``.svg``; PNG without one).
    names : sequence of str, optional
        A name for each of the S sections; by default ``section 0`` and so on.
    threshold : float
        In [0, 1]. A pixel with a larger probability counts as inside of a cell.
    max_rows : int
        Draw at most this many sections, evenly spaced from the first to the last.
    what : str
        Name of the class; what is not the inside of a cell is membrane.

    Raises
    ------
    ValueError
        If shapes or the number of names differ, a probability is NaN or outside of [0, 1], labels are not
        binary, or there is nothing to draw.
    FileNotFoundError
        If the folder of ``path`` does not exist.
    """
    images, probabilities = np.asarray(images), np.asarray(probabilities, dtype=float)
    labels = None if labels is None else np.asarray(labels)
    names = [f"section {s}" for s in range(len(images))] if names is None else list(names)
    _check_stacks(images, labels, probabilities, names, max_rows)

    rows = np.unique(np.linspace(0, len(images) - 1, min(max_rows, len(images))).round().astype(int))
    probability_title = f"probability of\n{what}"
    if labels is None:
        titles = ["image", probability_title, f"outlines at {threshold:g}"]
        room, legend_room = 0.08, 0.5  # inches, beside the pictures of a row and below all rows
    else:
        titles = ["image", f"truth: white is\n{what}", probability_title, f"errors at {threshold:g}"]
        room, legend_room = 0.25, 0.8
    height = 3.1 * np.clip(images.shape[1] / images.shape[2], 0.3, 3) + room
    size = 3.1 * len(titles) + 0.4, height * len(rows) + legend_room
    mpl = load_matplotlib()
    figure = mpl.Figure(figsize=size, dpi=DPI)
    figure.set_layout_engine("constrained", w_pad=0.03, h_pad=0.03)
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=10)
    other = "membrane IoU" if what == INSIDE else "IoU of the rest"
    for axes, s in zip(grid, rows, strict=True):
        label = None if labels is None else labels[s]
        _draw_row(axes, images[s], label, probabilities[s], names[s], threshold, other)
    if labels is not None:
        words = ("false membrane", "missed membrane") if what == INSIDE else (f"missed: {what}", f"false: {what}")
        kinds = zip((FALSE_MEMBRANE, MISSED_MEMBRANE), words, strict=True)
        patches = [mpl.Patch(facecolor=np.array(color) / 255, label=text) for color, text in kinds]
        figure.legend(handles=patches, loc="outside lower right", ncols=2, fontsize=10, frameon=False)
    save(figure, path)


def tumours(
    images: np.ndarray, labels: np.ndarray, predictions: np.ndarray, names: Sequence[str], path: FilePath,
    modalities: Sequence[str], classes: Sequence[str],
) -> None:  # fmt: skip
    """Draw slices of brains, each in a row of its own: two modalities, then outlines of the truth and the prediction.

    Parameters
    ----------
    images : float ndarray, shape (S, M, H, W)
    labels, predictions : integer ndarray, shape (S, H, W)
        Class numbers; 0 is background.
    names : sequence of str
        One for each slice.
    path : str or path-like
        File to write; its ending says the format (``.png``, ``.pdf``, ``.svg``; PNG without one).
    modalities : sequence of str
        Names of the M channels. The first is drawn, and the first other one with gadolinium, whose name ends in gd, ce
        or c.
    classes : sequence of str
        Names of the classes, from background on. A single name is that of class 1.
    """
    gadolinium = [m for m, name in enumerate(modalities) if m > 0 and name.lower().endswith(("gd", "c", "ce"))]
    shown = [0, *gadolinium[:1]]
    titles = [*(modalities[m] for m in shown), "truth", "prediction"]
    height, width = images.shape[2:]
    size = 2.6 * len(titles), 2.6 * height / width * len(images) + 0.6  # inches
    figure = load_matplotlib().Figure(figsize=size, dpi=DPI, layout="constrained")
    grid = figure.subplots(len(images), len(titles), squeeze=False)
    classes = ["background", *classes] if len(classes) == 1 else classes
    for row, image, label, prediction, name in zip(grid, images, labels, predictions, names, strict=True):
        for ax, m, outlined in zip(row, [*shown, 0, 0], [None] * len(shown) + [label, prediction], strict=True):
            ax.imshow(np.rot90(image[m]), cmap="gray", vmin=image[m].min(), vmax=np.percentile(image[m], 99.8))
            ax.set(xticks=[], yticks=[])
            if outlined is not None:
                outline(ax, np.rot90(outlined), len(classes))
        row[0].set_ylabel(name, fontsize=9)
    for ax, title in zip(grid[0], titles, strict=True):
        ax.set_title(title, fontsize=10)
    legend_of_classes(figure, classes)
    save(figure, path)


def outline(ax: Any, labels: np.ndarray, num_classes: int) -> None:
    """Draw the outline of each class of a label image (H, W) in its colour; 0 is background and has none."""
    for k, colour in enumerate(class_colours(num_classes - 1), start=1):
        if 0 < (labels == k).mean() < 1:
            ax.contour(labels == k, [0.5], colors=[colour], linewidths=1)


def legend_of_classes(figure, classes):
    """Name the colours of `outline` below a figure with the constrained layout; `classes` begin with background."""
    pairs = zip(class_colours(len(classes) - 1), classes[1:], strict=True)
    patches = [load_matplotlib().Patch(facecolor=colour, label=name) for colour, name in pairs]
    figure.legend(handles=patches, loc="outside lower right", ncols=min(len(patches), 6), fontsize=9, frameon=False)


def _draw_row(axes, image, label, probability, name, threshold, other):
    """Draw one section in a row of axes."""
    grey, predicted, scores = to_grey(image), probability > threshold, BinaryScores()
    scores.update(probability, predicted if label is None else label, threshold)  # this checks their values, too
    if label is None:
        pictures = [grey, probability, grey]
        if probability.min() < threshold < probability.max():  # older Matplotlibs warn where there is no line
            axes[-1].contour(probability, [threshold], colors=[ORANGE], linewidths=1)
    else:
        label, score = label == 1, scores.compute()
        pictures = [grey, label, probability, error_overlay(image, label, predicted)]
        axes[-1].set_xlabel(
            f"accuracy {score['accuracy']:.3f}, Dice {score['dice']:.3f}, {other} {score['membrane_iou']:.3f}",
            fontsize=8,
        )
    for ax, picture in zip(axes, pictures, strict=True):
        white = 255 if picture.dtype == np.uint8 else 1
        ax.imshow(picture, cmap="gray", vmin=0, vmax=white)
        ax.set(xticks=[], yticks=[])
    axes[0].set_ylabel(name, fontsize=10)


def _check_stacks(images, labels, probabilities, names, max_rows):
    """Raise ValueError if the stacks do not belong together."""
    if images.ndim != 3 or images.size == 0 or max_rows < 1:
        raise ValueError(
            "predictions needs images of shape (S, H, W) with at least one section, and max_rows >= 1, "
            f"but found shape {images.shape} and max_rows={max_rows}."
        )
    for name, stack in [("labels", labels), ("probabilities", probabilities)]:
        if stack is not None and stack.shape != images.shape:
            raise ValueError(f"{name} must have the images' shape {images.shape}, but found {stack.shape}.")
    if len(names) != len(images):
        raise ValueError(f"names must name each of the {len(images)} sections, but there are {len(names)}.")


def to_grey(image):
    """Return an image as uint8; the range of another dtype's values is stretched to 0–255."""
    if image.dtype == np.uint8:
        return image
    image, low, high = image.astype(float), image.min(), image.max()
    return np.rint(255 * (image - low) / (high - low if high > low else 1)).astype(np.uint8)
