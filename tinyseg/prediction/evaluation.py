"""Scores of a network on images or whole patients that it was not trained on."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tinyseg import ops
from tinyseg.autograd import Array, Tensor
from tinyseg.metrics import BinaryScores, SegmentationScores
from tinyseg.metrics.patients import EMPTY, PatientScores
from tinyseg.metrics.ratios import Empty
from tinyseg.nn import Module
from tinyseg.prediction.components import drop_small_components
from tinyseg.prediction.predictor import labels as labels_of
from tinyseg.prediction.tiles import predict_logits


class ConstantOutputWarning(UserWarning):
    """The network gives the same output at every pixel, for example because a ReLU has died."""


def evaluate(
    model: Module,
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int = 1,
    tile: int | None = None,
    loss: Callable[[Array, Array], Tensor] = ops.binary_cross_entropy_with_logits,
) -> tuple[dict[str, float], np.ndarray]:
    """Score a one-class model on images that it was not trained on.

    Parameters
    ----------
    model : UNet
        With one output class; it runs in evaluation mode.
    images : float32 ndarray, shape (S, H, W)
        Preprocessed as for training; any size.
    labels : bool ndarray, shape (S, H, W)
        True = foreground (white, the inside of a cell).
    batch_size : int
    tile : int, optional
        See `predict_logits`: larger images go through the network in tiles.
    loss : callable
        ``loss(logits, y)``, as in training.

    Returns
    -------
    scores : dict
        ``loss`` and the scores of `tinyseg.metrics.BinaryScores` at threshold 0.5, pooled over all pixels of all
        images. All NaN if the network's output is not finite.
    probabilities : float32 ndarray, shape (S, H, W)

    Warns
    -----
    ConstantOutputWarning
        If all probabilities are the same to within 0.001.
    """
    logits = predict_logits(model, images, batch_size, tile)
    probabilities = ops.sigmoid(logits).data[:, 0]
    scores, value = BinaryScores(), math.nan  # the scores are NaN as long as nothing is counted
    if np.isfinite(logits).all():
        scores.update(probabilities, labels)
        value = loss(logits, labels[:, None]).item()
    if np.ptp(probabilities) < 1e-3:
        warnings.warn(
            f"The network's output is constant ({probabilities.mean():.3f} everywhere). "
            "With head='paper' the ReLU before the last layer has probably died: use head='direct'. Otherwise try a "
            "lower learning rate or another seed.",
            ConstantOutputWarning,
            stacklevel=2,
        )
    return {"loss": value, **scores.compute()}, probabilities


def evaluate_classes(
    model: Module,
    images: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    loss: Callable[[Array, Array], Tensor],
    batch_size: int = 1,
    tile: int | None = None,
) -> tuple[float, SegmentationScores, np.ndarray]:
    """Score a model of several classes on images that it was not trained on.

    Parameters
    ----------
    model : UNet
        It runs in evaluation mode.
    images : float32 ndarray, shape (S, H, W)
        Preprocessed as for training; any size.
    labels : integer ndarray, shape (S, H, W)
        Numbers of classes; pixels of -1 are left out of the scores.
    classes : sequence of str
        Names, from the background on.
    loss : callable
        ``loss(logits, y)``, as in training.
    batch_size : int
    tile : int, optional
        See `predict_logits`.

    Returns
    -------
    loss : float
        Mean over the images. NaN, as all scores, if the network's output is not finite.
    scores : SegmentationScores
        See `summarize_classes`.
    predicted : uint8 ndarray, shape (S, H, W)
    """
    predicted, losses = np.empty(labels.shape, np.uint8), []
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        logits, y = predict_logits(model, images[part], batch_size, tile), labels[part].astype(np.int64)
        if not np.isfinite(logits).all():
            return math.nan, SegmentationScores(len(classes), classes), np.zeros_like(predicted)
        losses += [loss(logits, y).item()] * len(y)
        predicted[part] = logits.argmax(axis=1)
    return float(np.mean(losses)), score_classes(predicted, labels, classes), predicted


def score_classes(
    predicted: np.ndarray, truth: np.ndarray, classes: Sequence[str], empty: Empty = "nan"
) -> SegmentationScores:
    """Count the pixels of each image (S, H, W) by true and predicted class; where the truth is -1, they are left out.

    `classes` are the names from the background on; for `empty` see `tinyseg.metrics`.
    """
    scores = SegmentationScores(len(classes), classes, empty)
    for prediction, label in zip(predicted, truth, strict=True):
        counted = label >= 0
        scores.update(prediction[counted][None, None], label[counted][None, None])
    return scores


def summarize_classes(scores: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures that stand for all classes, of the scores of all pixels or of an image.

    Parameters
    ----------
    scores : dict
        Of `SegmentationScores.pooled`, or one of those of `per_image`.

    Returns
    -------
    dict of str to float
        ``accuracy``; ``dice``, the mean over the classes beside the background; and ``mean_iou``, the mean over all
        classes, as Pascal VOC and Cityscapes have it. A class whose score is 0/0 is left out of the means.
    """
    each = [score["dice"] for score in scores["classes"].values()][1:]
    defined = [dice for dice in each if not math.isnan(dice)]
    dice = sum(defined) / len(defined) if defined else math.nan
    return {"accuracy": scores["accuracy"], "dice": dice, "mean_iou": scores["mean_iou"]}


def score_patients(
    model: Module,
    cache: Any,
    names: Sequence[str],
    regions: Mapping[str, Sequence[int]],
    loss: Callable[[Array, Array], Tensor],
    batch_size: int = 4,
    empty: Empty = EMPTY,
    small: float | None = None,
    min_component: float = 0.0,
) -> dict[str, Any]:
    """Score a model on patients that it was not trained on.

    Parameters
    ----------
    model : UNet
        With as many output classes as the cache has, or with one, which is whole tumour or not.
    cache : SliceCache
    names : sequence of str
        Its patients to score.
    regions : dict of str to tuple of int
        Unions of classes to score beside the classes, such as `tinyseg.data.classes.REGIONS`.
    loss : callable
        ``loss(logits, y)``, as in training.
    batch_size : int
        Number of slices that go through the network together.
    empty : {"nan", "one", "zero"}
        What Dice is where neither truth nor prediction has the class or region.
    small : float, optional
        Tumours of less than this many mm³ are small; the median of these patients if left out.
    min_component : float in [0, 1]
        Components of less than this share of the largest are taken for background, see `drop_small_components`.

    Returns
    -------
    dict
        ``loss``: mean over all slices. ``accuracy``: of all voxels of all patients. ``dice``: mean over regions and
        patients. ``classes`` and ``regions``: for each name, of Dice, the mean over the patients, the deviation, the
        number of patients and in how many it is 0/0 (see `tinyseg.metrics.SegmentationScores.mean`).
        ``sensitivity`` and ``specificity``: the same of the whole tumour. ``empty``: as given. ``small_below_mm3``:
        the limit. ``small`` and ``large``: mean Dice of the whole tumour over the patients with small and with large
        tumours, and how many these are. ``patients``: one dict for each patient.
    """
    binary = model.num_classes == 1
    scores = PatientScores(["whole tumour"] if binary else cache.classes, regions, empty)
    losses, weights = [], []
    for name in names:
        images, labels, entry = cache.images(name), cache.labels(name), cache.entries[name]
        predicted = np.empty(labels.shape, np.uint8)
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            logits = predict_logits(model, images[part], batch_size)
            y = (labels[part] > 0)[:, None].astype(np.float32) if binary else labels[part].astype(np.int64)
            losses.append(loss(logits, y).item())
            weights.append(len(y))
            predicted[part] = logits[:, 0] > 0 if binary else logits.argmax(axis=1)
        predicted = drop_small_components(predicted, min_component)
        outside = np.repeat(np.arange(len(entry.outside), dtype=np.uint8), entry.outside)  # truth that was cut off
        truth = np.concatenate([labels.ravel(), outside])
        scores.add(name, np.concatenate([predicted.ravel(), np.zeros_like(outside)]), truth, entry.voxel)
    return {"loss": float(np.average(losses, weights=weights))} | scores.report(small)


def examples_of(
    model: Module, cache: Any, names: Sequence[str], rows: int = 4
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Choose slices to look at and predict them: of each of the first patients the slice with most tumour.

    If there are fewer patients than `rows`, several slices of each are taken, in equal steps through the tumour.

    Parameters
    ----------
    model : UNet
    cache : SliceCache
    names : sequence of str
        The patients to choose from.
    rows : int
        Largest number of slices.

    Returns
    -------
    images : float32 ndarray, (S, M, h, w)
    labels, predictions : uint8 ndarray, (S, h, w)
        Class numbers; 0 and 1 for a model of one class.
    captions : list of str
    """
    each = max(1, rows // len(names))
    chosen = [(name, z) for name in list(names)[:rows] for z in _slices(cache.entries[name], each)]
    images = np.stack([np.asarray(cache.images(name)[z], np.float32) for name, z in chosen])
    labels = np.stack([cache.labels(name)[z] for name, z in chosen])
    if model.num_classes == 1:
        labels = (labels > 0).astype(np.uint8)
    predictions = np.stack([labels_of(logits, threshold=0.0) for logits in predict_logits(model, images)])
    return images, labels, predictions, [f"{name}\nslice {z}" for name, z in chosen]


def _slices(entry, number):
    """Return the number of the slice with most tumour, or several numbers in equal steps through the tumour."""
    area = entry.counts[:, 1:].sum(axis=1)
    with_tumour = np.flatnonzero(area)
    if number == 1 or len(with_tumour) < number:
        return [int(area.argmax())]
    return [int(with_tumour[len(with_tumour) * (k + 1) // (number + 1)]) for k in range(number)]
