"""Scores of a network on images or whole patients that it was not trained on."""

import math
import warnings

import numpy as np

from tinyseg import ops
from tinyseg.metrics import BinaryScores
from tinyseg.metrics.patients import EMPTY, PatientScores
from tinyseg.prediction.predictor import labels as labels_of
from tinyseg.prediction.tiles import predict_logits


class ConstantOutputWarning(UserWarning):
    """The network gives the same answer everywhere, because it has died or collapsed."""


def evaluate(model, images, labels, batch_size=1):
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

    Returns
    -------
    scores : dict
        ``loss`` (mean binary cross-entropy) and the scores of `tinyseg.metrics.BinaryScores` at threshold 0.5, pooled
        over all pixels of all images. All NaN if the network's output is not finite.
    probabilities : float32 ndarray, shape (S, H, W)

    Warns
    -----
    ConstantOutputWarning
        If all probabilities are the same to within 0.001.
    """
    logits = predict_logits(model, images, batch_size)
    probabilities = ops.sigmoid(logits).data[:, 0]
    scores, loss = BinaryScores(), math.nan  # the scores are NaN as long as nothing is counted
    if np.isfinite(logits).all():
        scores.update(probabilities, labels)
        loss = ops.binary_cross_entropy_with_logits(logits, labels[:, None]).item()
    if np.ptp(probabilities) < 1e-3:
        warnings.warn(
            f"The network's output is constant ({probabilities.mean():.3f} everywhere). "
            "With head='paper' the ReLU before the last layer has probably died: use head='direct'. Otherwise try a "
            "lower learning rate or another seed.",
            ConstantOutputWarning,
            stacklevel=2,
        )
    return {"loss": loss, **scores.compute()}, probabilities


def score_patients(model, cache, names, regions, loss, batch_size=4, empty=EMPTY, small=None):
    """Score a model on patients that it was not trained on.

    Parameters
    ----------
    model : UNet
        With as many output classes as the cache has, or with one, which is whole tumour or not.
    cache : SliceCache
    names : sequence of str
        Its patients to score.
    regions : dict of str to tuple of int
        Unions of classes to score beside the classes, such as `tinyseg.data.brats.REGIONS`.
    loss : callable
        ``loss(logits, y)``, as in training.
    batch_size : int
        Number of slices that go through the network together.
    empty : {"nan", "one", "zero"}
        What Dice is where neither truth nor prediction has the class or region.
    small : float, optional
        Tumours of less than this many mm³ are small; the median of these patients if left out.

    Returns
    -------
    dict
        ``loss``, the mean over all slices; ``accuracy``, of all voxels of all patients; ``dice``, the mean over regions
        and patients; ``classes`` and ``regions``: for each name the Dice as mean over the patients, deviation, number
        of patients and in how many it is 0/0 (see `tinyseg.metrics.SegmentationScores.mean`); ``sensitivity`` and
        ``specificity`` of the whole tumour in the same way; ``empty``, as given; ``small_below_mm3``, the limit, and
        ``small`` and ``large``: the mean Dice of the whole tumour of patients with small and with large tumours, and
        their number; ``patients``: one dict for each patient.
    """
    binary = model.num_classes == 1
    scores, losses, weights = PatientScores(["whole tumour"] if binary else cache.classes, regions, empty), [], []
    for name in names:
        images, labels, entry = cache.images(name), cache.labels(name), cache.entries[name]
        predicted = np.empty(labels.shape, np.uint8)
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            logits = predict_logits(model, images[part], batch_size)
            y = labels[part]
            y = (y > 0)[:, None].astype(np.float32) if binary else y.astype(np.int64)
            losses.append(loss(logits, y).item())
            weights.append(len(y))
            predicted[part] = logits[:, 0] > 0 if binary else logits.argmax(axis=1)
        outside = np.repeat(np.arange(len(entry.outside), dtype=np.uint8), entry.outside)
        truth = np.concatenate([labels.ravel(), outside])
        scores.add(name, np.concatenate([predicted.ravel(), np.zeros_like(outside)]), truth, entry.voxel)
    return {"loss": float(np.average(losses, weights=weights))} | scores.report(small)


def examples_of(model, cache, names, rows=4):
    """Return slices to look at: the slice with most tumour of each of the first patients.

    Of fewer patients than `rows` it returns several slices each, in equal steps through the tumour.

    Parameters
    ----------
    model : UNet
    cache : SliceCache
    names : sequence of str
        The patients to choose from.
    rows : int
        At most so many slices.

    Returns
    -------
    images : float32 ndarray, (S, M, h, w)
    labels, predictions : uint8 ndarray, (S, h, w)
        Class numbers; 0 and 1 for a model of one class.
    captions : list of str
    """
    images, labels, predicted, captions = [], [], [], []
    each = max(1, rows // len(names))
    chosen = [(name, z) for name in list(names)[:rows] for z in _slices(cache.entries[name], each)]
    for name, z in chosen:
        images.append(np.asarray(cache.images(name)[z], np.float32))
        labels.append(np.asarray(cache.labels(name)[z]))
        logits = predict_logits(model, images[-1][None])[0]
        predicted.append(labels_of(logits, threshold=0.0))
        captions.append(f"{name}\nslice {z}")
    labels = np.stack(labels)
    return (
        np.stack(images),
        (labels > 0).astype(np.uint8) if model.num_classes == 1 else labels,
        np.stack(predicted),
        captions,
    )


def _slices(entry, number):
    """Return the slice with most tumour, or several in equal steps through the tumour."""
    area = entry.counts[:, 1:].sum(axis=1)
    through = np.flatnonzero(area)
    if number == 1 or len(through) < number:
        return [int(area.argmax())]
    return [int(through[len(through) * (k + 1) // (number + 1)]) for k in range(number)]
