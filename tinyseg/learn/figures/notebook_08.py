"""Figures of notebook 8, SD-UNet on membranes."""

import numpy as np
from matplotlib import pyplot as plt

from tinyseg.learn.figures import Film, figure
from tinyseg.metrics.isbi import thin
from tinyseg.report.colours import BLUE, GREEN, GREY, ORANGE
from tinyseg.report.plots import error_overlay

PALE, MAGENTA = (0.85, 0.85, 0.85), "#D90080"
CELLS = (0.34, 0.71, 0.91), (0.94, 0.89, 0.26)  # light blue and yellow: the true cells that a mistake concerns
JOINED, PIECES = (0.9, 0.62, 0), ((0, 0.45, 0.7), (0.45, 0.75, 0.95), (0.2, 0.25, 0.55))  # orange; shades of blue


@figure
def section_and_label(section, label):
    """A section, grey cells with dark borders, beside its label: cells white, membranes black."""
    drawn, axes = plt.subplots(1, 2, figsize=(7.5, 4))
    _show(axes, (section, label), ("Dark: membranes, and other things", "White: inside of a cell"))
    return drawn


@figure
def loss(steps, tested, white):
    """Loss against steps.

    Training and held-out loss fall steeply at first, then slowly, far below what is reached by knowing only how much is
    white.
    """
    drawn, ax = plt.subplots()
    ax.plot(np.arange(1, len(steps) + 1), steps, color=ORANGE, linewidth=1)
    ax.plot(np.arange(1, len(tested) + 1) * (len(steps) // len(tested)), tested, "o-", color=BLUE, markersize=4)
    constant = -(white * np.log(white) + (1 - white) * np.log(1 - white))
    ax.axhline(constant, color=GREY, linestyle=":", linewidth=1.2)
    ax.text(len(steps), constant + 0.01, "knows only how much is white", color=GREY, ha="right")
    ax.text(len(steps), constant - 0.07, "held-out sections, after each epoch", color=BLUE, ha="right")
    ax.text(len(steps), constant - 0.13, "each training step", color=ORANGE, ha="right")
    ax.set(xlabel="training step", ylabel="cross-entropy (nats a pixel)", title="The loss falls", ylim=(0, None))
    return drawn


@figure
def training(section, probabilities, steps):
    """A held-out section. Predicted membranes grow sharper as training goes on."""
    drawn, axes = plt.subplots(1, 2, figsize=(7.5, 4.1))
    _show(axes, (section, probabilities[0]), ("Never seen in training",))
    axes[1].images[0].set_clim(0, 1)

    def frame(k):
        axes[1].images[0].set_data(probabilities[k])
        axes[1].set_title(f"Probability of inside, step {(k + 1) * steps // len(probabilities)}")

    return Film(drawn, frame, len(probabilities))


@figure
def errors(sections, labels, probabilities):
    """Two held-out sections: image, probability of inside, and errors.

    The latter are the image with missed membrane in blue and false membrane in orange.
    """
    drawn, axes = plt.subplots(2, 3, figsize=(7.5, 5.2))
    titles = ("Held-out section", "Probability of inside", "Errors at threshold 0.5")
    for row, k in zip(axes, (0, -1), strict=True):
        wrong = error_overlay(sections[k], labels[k], probabilities[k] > 0.5)
        _show(row, (sections[k], probabilities[k], wrong), titles if k == 0 else ())
    axes[1, 2].set_xlabel("blue: missed membrane\norange: false membrane")
    return drawn


@figure
def pixel_scores(thresholds, accuracy, inside, membrane, guess):
    """Accuracy, Dice of the inside and Dice of the membrane against the threshold.

    The first two are nearly flat over a wide range.
    """
    drawn, ax = plt.subplots()
    for name, values, colour, above in (
        ("Dice of the inside", inside, BLUE, 0.02),
        ("accuracy", accuracy, ORANGE, -0.06),
        ("Dice of the membrane", membrane, GREEN, -0.09),
    ):
        ax.plot(thresholds, values, color=colour)
        ax.text(0.5, np.interp(0.5, thresholds, values) + above, name, color=colour)
    ax.axhline(guess, color=GREY, linestyle=":", linewidth=1.2)
    ax.text(0.05, guess - 0.015, "accuracy of all white", color=GREY, va="top")
    ax.set(xlabel="threshold t", ylabel="score", title="Pixel scores are flat over a wide range")
    ax.set(xlim=(0.04, 0.96), ylim=(0, 1))
    return drawn


@figure
def toy(cells, proposals, v_rand):
    """Three by three cells, four times.

    The truth; a gap joins two cells, orange; a line cuts one into two blues; thick walls change no cell.
    """
    drawn, axes = plt.subplots(1, 1 + len(proposals), figsize=(7.5, 2.3))
    painted = [_paint(mask, cells) for mask in (cells > 0, *proposals.values())]
    _show(axes, painted, ("Truth", *(name.capitalize() for name in proposals)))
    for ax, v in zip(axes[1:], v_rand, strict=True):
        ax.set_xlabel(f"V$^{{Rand}}$ = {v:.3f}")
    return drawn


@figure
def cells_come_apart(thresholds, split, merge, rand, accuracy):
    """Split score, merge score and V-Rand against the threshold.

    The merge score is near 0 at low thresholds and rises late; the split score falls from 1; V-Rand peaks where they
    meet.
    """
    drawn, ax = plt.subplots()
    for values, name, colour, where, above in (
        (split, "split score", BLUE, 0.3, 0.03),
        (merge, "merge score", ORANGE, 0.8, -0.13),
        (accuracy, "accuracy", GREY, 0.1, -0.1),
    ):
        ax.plot(thresholds, values, color=colour, linestyle=":" if name == "accuracy" else "-")
        ax.text(where, np.interp(where, thresholds, values) + above, name, color=colour)
    ax.plot(thresholds, rand, color=GREEN, linewidth=3)
    ax.plot(thresholds[rand.argmax()], rand.max(), "o", color=GREEN)
    ax.text(1.01, rand.max(), "V$^{Rand}$", color=GREEN, va="center")
    ax.set(xlabel="threshold t", ylabel="score", title="Cells come apart only when the threshold is high")
    ax.set(xlim=(0.04, 1.07), ylim=(0, 1.08))
    return drawn


@figure
def mistakes(section, cells, probability, mask, mended):
    """Crops around the costliest merge and the costliest split.

    In each row: image, true cells, probability, and predicted segments with the mended pixels in magenta.
    """
    drawn, axes = plt.subplots(2, 4, figsize=(7.5, 4.2))
    for row, (kind, (_, changed, concerned)) in zip(axes, mended.items(), strict=True):
        middle = [np.median(c) if len(c) else 128 for c in np.nonzero(changed)]
        y, x = (int(np.clip(c, 48, 208)) for c in middle)
        truth, predicted = np.where(cells[..., None] > 0, PALE, 0), _paint(mask, cells)
        for cell, colour in zip(concerned, CELLS, strict=False):
            truth[cells == cell] = colour
        predicted[changed] = (0.85, 0, 0.5)
        crops = [picture[y - 48 : y + 48, x - 48 : x + 48] for picture in (section, truth, probability, predicted)]
        titles = ("Image", "True cells", "Probability", "Predicted")
        _show(row, crops, titles if kind == "merge" else ())
        for ax in row[[0, 2, 3]] if kind == "merge" else ():  # few pixels: a circle shows where
            place = middle[1] - x + 48, middle[0] - y + 48
            ax.add_patch(plt.Circle(place, 9, fill=False, color=MAGENTA, linewidth=1.5))
        row[0].set_ylabel(f"costliest {kind}", fontsize=11)
    axes[1, 3].set_xlabel("magenta: mended")
    return drawn


def _show(row, pictures, titles=()):
    """Draw pictures side by side, without ticks."""
    for ax, picture in zip(row, pictures, strict=True):
        ax.imshow(picture)
        ax.set(xticks=[], yticks=[])
    for ax, title in zip(row, titles, strict=False):
        ax.set_title(title)


def _paint(mask, cells):
    """Colour a mask's segments: grey if right, orange over several cells, shades of blue for pieces of one cell."""
    segments = thin(mask)
    n = np.zeros((cells.max() + 1, segments.max() + 1))  # of pixels: n[i, j] in true cell i and segment j
    np.add.at(n, (cells, segments), 1)
    n = n[1:, 1:]
    share = n / np.maximum(n.sum(1, keepdims=True), 1)  # of a cell, in each segment
    several, pieces = (share > 0.5).sum(0) > 1, share > 0.05
    colours = np.full((n.shape[1] + 1, 3), PALE)
    for j in np.flatnonzero((pieces.sum(1) > 1)[n.argmax(0)]):
        number = pieces[n[:, j].argmax(), :j].sum()
        colours[j + 1] = PIECES[number % len(PIECES)]
    colours[1:][several] = JOINED
    return np.where(mask[..., None], colours[segments], 0)
