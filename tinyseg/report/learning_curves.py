"""Learning curves: losses, scores of the validation and the learning rate over the epochs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tinyseg.report.colours import BLUE, DPI, GREEN, GREY, ORANGE, PURPLE, class_colours
from tinyseg.report.load_matplotlib import load_matplotlib
from tinyseg.report.saving import FilePath, save

_LOSSES = [("train_loss", "training", ORANGE), ("val_loss", "validation", BLUE)]
_SCORES = [
    ("val_dice", "Dice", BLUE), ("val_accuracy", "accuracy", ORANGE), ("val_mean_iou", "mean IoU", GREEN),
    ("val_membrane_iou", "membrane IoU", PURPLE), ("val_whole_tumour", "whole tumour", GREEN),
    ("val_tumour_core", "tumour core", PURPLE), ("val_enhancing", "enhancing", GREY),
]  # fmt: skip
_OF_A_CLASS = "val_dice_"


def curves(history: Iterable[Mapping[str, Any]], path: FilePath, best: str = "val_dice") -> None:
    """Draw loss and validation scores over the epochs, with the best epoch marked.

    Parameters
    ----------
    history : sequence of dict
        One for each epoch, in order: ``epoch`` (counted from 1 if it is missing), ``train_loss``, ``val_loss``,
        ``val_dice``, ``val_accuracy``, ``val_mean_iou``, ``val_membrane_iou``, ``val_whole_tumour``,
        ``val_tumour_core``, ``val_enhancing``, ``lr``, and ``val_dice_<name>`` of each class, the background first.
        Other keys are ignored; a missing, empty or NaN value is a gap. Values may be text, as read from a CSV file.
    path : str or path-like
        File to write; its ending says the format (``.png``, ``.pdf``, ``.svg``; PNG without one).
    best : str
        Key whose value decides which epoch is best: the smallest value of a loss, the largest of anything else.

    Raises
    ------
    ValueError
        If ``history`` is empty.
    FileNotFoundError
        If the folder of ``path`` does not exist.
    """
    history = list(history)
    if not history:
        raise ValueError("curves needs at least one epoch, but history is empty. Train for one epoch first.")
    epoch = _read_values(history, "epoch")
    epoch = np.where(np.isnan(epoch), np.arange(1, len(history) + 1), epoch)
    span = epoch.max() - epoch.min()
    pad = max(0.02 * span, 0.1) if span else 0.5
    marker = "o" if len(history) <= 40 else None
    score, best_row = _read_values(history, best), None
    if not np.isnan(score).all():
        best_row = int(np.nanargmin(score) if "loss" in best else np.nanargmax(score))

    mpl = load_matplotlib()
    figure = mpl.Figure(figsize=(11, 4.2), dpi=DPI, layout="constrained")
    loss_axes, score_axes = figure.subplots(1, 2)
    scores = [*_SCORES, *_lines_of_classes(history)]
    for axes, lines, title in [(loss_axes, _LOSSES, "Loss"), (score_axes, scores, "Validation scores")]:
        for key, label, color in lines:
            values = _read_values(history, key)
            if np.isfinite(values).any():
                if best_row is not None and np.isfinite(values[best_row]):
                    label = f"{label} {values[best_row]:.3f}"
                style = {"linestyle": "--"} if key.startswith(_OF_A_CLASS) else {"marker": marker, "markersize": 3.5}
                axes.plot(epoch, values, color=color, label=label, **style)
        drawn = bool(axes.lines)
        if best_row is not None:
            axes.axvline(epoch[best_row], color="black", linestyle=":", linewidth=1.2)
        axes.set(title=title, xlabel="epoch", xlim=(epoch.min() - pad, epoch.max() + pad))
        axes.xaxis.set_major_locator(mpl.MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        axes.grid(color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        if drawn:
            heading = None if best_row is None else f"at epoch {epoch[best_row]:g}, the best {best}"
            axes.legend(title=heading, loc="best", fontsize=9, title_fontsize=9, framealpha=0.95)
        else:
            axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=GREY)
    _draw_learning_rate(loss_axes, epoch, _read_values(history, "lr"))
    save(figure, path)


def _lines_of_classes(history):
    """Return a line for the Dice of each class but the background, in the colour of the class."""
    keys = list(dict.fromkeys(key for record in history for key in record if key.startswith(_OF_A_CLASS)))[1:]
    return [
        (key, f"Dice of {key.removeprefix(_OF_A_CLASS)}", tuple(colour))
        for key, colour in zip(keys, class_colours(len(keys)), strict=True)
    ]


def _draw_learning_rate(axes, epoch, rate):
    """Draw the learning rate as a faint line with its own axis on the right."""
    finite = rate[np.isfinite(rate)]
    if not finite.size:
        return
    right = axes.twinx()
    right.plot(epoch, rate, "--", color=GREY, alpha=0.5, marker="o" if len(rate) == 1 else None, linewidth=1.2)
    right.set_ylabel("learning rate (dashed)", color=GREY)
    right.set_ylim(0, max(1.15 * finite.max(), 1e-12))
    right.tick_params(axis="y", colors=GREY)
    right.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.set_zorder(right.get_zorder() + 1)  # the loss and its legend are drawn over the learning rate
    axes.patch.set_visible(False)


def _read_values(history, key):
    """Return the values of a key as floats; a missing or empty value is NaN."""
    values = [record.get(key) for record in history]
    return np.array([np.nan if value is None or value == "" else float(value) for value in values])
