"""Pictures of predicted classes beside the true ones, each class in its colour."""

from collections.abc import Sequence

import numpy as np

from tinyseg.report.colours import DPI, class_colours
from tinyseg.report.load_matplotlib import load_matplotlib
from tinyseg.report.plots import to_grey
from tinyseg.report.saving import FilePath, save

OPACITY = 0.55  # of a colour on the image
IGNORED = (0.25, 0.25, 0.25)  # what is not scored is dark


def paint(image: np.ndarray, numbers: np.ndarray, number: int, shown: np.ndarray | None = None) -> np.ndarray:
    """Paint classes onto a grey image.

    Parameters
    ----------
    image : ndarray, shape (H, W)
        Grey levels: uint8 as they are, of any other type stretched from black to white.
    numbers : integer ndarray, shape (H, W)
        Of the classes: 0, the background, is not painted; -1, what is not scored, is dark.
    number : int
        How many classes there are, the background among them.
    shown : bool ndarray, shape (H, W), optional
        Where to paint, the background as white; everywhere by default.

    Returns
    -------
    float ndarray, shape (H, W, 3), in [0, 1]
    """
    grey = to_grey(image) / 255
    colours = np.vstack([[(1, 1, 1)], class_colours(number - 1), [IGNORED]])
    painted = numbers != 0 if shown is None else shown
    opacity = np.where(painted, OPACITY if shown is None else 1, 0)[..., None]
    return (1 - opacity) * grey[..., None] + opacity * colours[numbers]


def classes(
    images: np.ndarray, labels: np.ndarray, predicted: np.ndarray, names: Sequence[str], captions: Sequence[str],
    path: FilePath, max_rows: int = 4,
) -> None:  # fmt: skip
    """Draw images, each in a row of its own: image, true classes, predicted classes, and what is wrong.

    Parameters
    ----------
    images : ndarray, shape (S, H, W)
        Grey levels of any type.
    labels, predicted : integer ndarray, shape (S, H, W)
        Numbers of classes; where `labels` is -1, nothing is right or wrong.
    names : sequence of str
        Of the classes, from the background on.
    captions : sequence of str
        One for each image.
    path : str or path-like
        File to write; its ending says the format (``.png``, ``.pdf``, ``.svg``; PNG without one).
    max_rows : int
        Draw at most this many images, evenly spaced from the first to the last.
    """
    rows = np.unique(np.linspace(0, len(images) - 1, min(max_rows, len(images))).round().astype(int))
    titles = ["image", "truth", "prediction", "errors, in the colour\nof the true class"]
    height = 3.1 * np.clip(images.shape[1] / images.shape[2], 0.3, 3) + 0.25
    mpl = load_matplotlib()
    figure = mpl.Figure(figsize=(3.1 * len(titles) + 0.4, height * len(rows) + 0.8), dpi=DPI)
    figure.set_layout_engine("constrained", w_pad=0.03, h_pad=0.03)
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=10)
    for axes, s in zip(grid, rows, strict=True):
        wrong = (labels[s] != predicted[s]) & (labels[s] >= 0)
        painted = [
            paint(images[s], numbers, len(names)) for numbers in (np.zeros_like(labels[s]), labels[s], predicted[s])
        ]
        painted.append(paint(images[s], labels[s], len(names), wrong))
        for ax, picture in zip(axes, painted, strict=True):
            ax.imshow(picture)
            ax.set(xticks=[], yticks=[])
        counted = max(int((labels[s] >= 0).sum()), 1)
        axes[-1].set_xlabel(f"{int(wrong.sum()) / counted:.1%} of the pixels", fontsize=8)
        axes[0].set_ylabel(captions[s], fontsize=10)
    patches = [mpl.Patch(facecolor="white", edgecolor="0.5", label=f"{names[0]} (only where it is missed)")]
    pairs = zip(class_colours(len(names) - 1), names[1:], strict=True)
    patches += [mpl.Patch(facecolor=colour, label=name) for colour, name in pairs]
    if (labels < 0).any():
        patches.append(mpl.Patch(facecolor=IGNORED, label="not scored"))
    figure.legend(handles=patches, loc="outside lower right", ncols=min(len(patches), 6), fontsize=9, frameon=False)
    save(figure, path)
