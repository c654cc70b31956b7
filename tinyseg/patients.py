"""Scores of whole patients: every slice of a volume predicted, put together, and scored as one.

A score of slices would count a patient with many tumour slices more often than one with few, and would ask, slice by
slice, what Dice is where there is no tumour. Here a patient has one Dice for each class and region. Voxels that the
preparation cut off count as predicted background.

Tumours are called small or large by their own volume, against the median of the patients scored or a given volume.
"""

import math

import numpy as np

from tinyseg import ops
from tinyseg.metrics import SegmentationScores
from tinyseg.prediction import predict_logits
from tinyseg.predictor import labels as labels_of

EMPTY = "one"  # BraTS's convention: a region that neither truth nor prediction has scores 1, a false one 0


def score_patients(model, cache, names, regions, loss, batch_size=4, empty=EMPTY, small=None):
    """Score a model on patients that it was not trained on.

    Parameters
    ----------
    model : UNet
        With as many output classes as the cache has, or one: whole tumour or not.
    cache : SliceCache
    names : sequence of str
        Its patients to score.
    regions : dict of str to tuple of int
        Unions of classes to score beside the classes, such as `tinyseg.data.brats.REGIONS`.
    loss : callable
        ``loss(logits, y)``, as in training.
    batch_size : int
        Slices that go through the network together.
    empty : {"nan", "one", "zero"}
        What Dice is where neither truth nor prediction has the class or region.
    small : float, optional
        Tumours of less than this many mm³ are small; the median of these patients if left out.

    Returns
    -------
    dict
        ``loss``, ``accuracy`` (all voxels of all patients); ``dice``, the mean over regions and patients; ``classes``
        and ``regions``: for each name the mean over patients with deviation, number of patients and how many had none
        of it (see `tinyseg.metrics.SegmentationScores.mean`); ``sensitivity`` and ``specificity`` of the whole tumour
        in the same way; ``small`` and ``large``: the mean Dice of the whole tumour of patients with small and large
        tumours, and their numbers; ``patients``: one dict a patient.
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


class PatientScores:
    """Scores of whole patients, added one by one.

    Parameters
    ----------
    classes : sequence of str
        Names from the background on; or one only, for tumour or not: then every class above 0 is tumour.
    regions : dict of str to tuple of int
        Unions of classes to score beside the classes, "whole tumour" among them; of one class there is no other.
    empty : {"nan", "one", "zero"}
        What Dice is where neither truth nor prediction has the class or region.
    """

    def __init__(self, classes, regions, empty=EMPTY):
        self.binary = len(classes) == 1
        if self.binary:
            classes, regions = ("background", "whole tumour"), {"whole tumour": (1,)}
        self._scores = SegmentationScores(len(classes), classes, empty, include_background=False, regions=regions)
        self._names, self._volumes = [], []

    def add(self, name, predicted, truth, voxel):
        """Score one patient.

        Parameters
        ----------
        name : str
        predicted, truth : uint8 ndarray, equal shapes
            Class of each voxel.
        voxel : float
            Volume of a voxel, mm³.
        """
        if self.binary:
            predicted, truth = predicted > 0, truth > 0
        self._scores.update(predicted[None, None], truth[None, None])
        self._names.append(name)
        self._volumes.append(float(voxel * np.count_nonzero(truth)))

    def report(self, small=None):
        """Return the scores of all patients, as `score_patients` but for the loss."""
        means, each, volumes = self._scores.mean(), self._scores.per_image(), np.array(self._volumes)
        wholes = [patient["regions"]["whole tumour"] for patient in each]
        limit = float(np.median(volumes)) if small is None else small
        report = {
            "accuracy": self._scores.pooled()["accuracy"],
            "dice": _mean([value["dice"]["mean"] for value in means["regions"].values()]),
            "classes": {name: value["dice"] for name, value in list(means["classes"].items())[1:]},
            "regions": {name: value["dice"] for name, value in means["regions"].items()},
            "sensitivity": means["regions"]["whole tumour"]["sensitivity"],
            "specificity": means["regions"]["whole tumour"]["specificity"],
            "empty": self._scores.empty, "small_below_mm3": limit,
        }  # fmt: skip
        dice = np.array([whole["dice"] for whole in wholes])
        for stratum, chosen in (("small", volumes < limit), ("large", volumes >= limit)):
            report[stratum] = {"dice": _mean(dice[chosen]), "patients": int(chosen.sum())}
        report["patients"] = [
            {"name": name, "tumour_mm3": volume, "accuracy": patient["accuracy"]}
            | {"sensitivity": whole["sensitivity"], "specificity": whole["specificity"]}
            | {region: patient["regions"][region]["dice"] for region in patient["regions"]}
            | {name: value["dice"] for name, value in list(patient["classes"].items())[1:]}
            for name, volume, patient, whole in zip(self._names, self._volumes, each, wholes, strict=True)
        ]
        return report


def as_log(report):
    """Return the figures of a report that go into a row of the log: loss, accuracy, dice, one a region and class."""
    row = {name: report[name] for name in ("loss", "accuracy", "dice")}
    for kind in ("regions", "classes"):
        row |= {name.replace(" ", "_").replace("-", "_"): value["mean"] for name, value in report[kind].items()}
    return row | {stratum: report[stratum]["dice"] for stratum in ("small", "large")}


def dice_and_cross_entropy(dice_weight=1.0, ce_weight=1.0, class_weights=None):
    """Make the loss ``ce_weight · cross-entropy - dice_weight · soft Dice`` (Gadosey et al. 2020, Section 3.5).

    Parameters
    ----------
    dice_weight, ce_weight : float
        The paper does not give its own.
    class_weights : sequence of float, optional
        Of the classes, in both parts; for several classes the background has no part in Dice unless this says so.

    Returns
    -------
    callable
        ``loss(logits, y)``: of several classes, with y (N, H, W) class numbers; or of one, with y (N, 1, H, W).
    """

    def loss(logits, y):
        if logits.shape[1] == 1:
            return ops.dice_bce_with_logits(logits, y, dice_weight=dice_weight, bce_weight=ce_weight)
        shares = [0.0] + [1.0] * (logits.shape[1] - 1) if class_weights is None else class_weights
        ce = ops.cross_entropy(logits, y, weight=class_weights)
        dice_loss = ops.soft_dice_loss(logits, y, "softmax", weight=shares, pooled=True)
        return ce * ce_weight + (dice_loss - 1.0) * dice_weight

    return loss


def _mean(values):
    values = [v for v in values if not math.isnan(v)]
    return math.fsum(values) / len(values) if values else math.nan


def examples_of(model, cache, names, rows=4):
    """Return slices to look at: of each of the first patients that with most tumour; of few patients several.

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
    """The slice with most tumour, or several through the tumour in equal steps."""
    area = entry.counts[:, 1:].sum(axis=1)
    through = np.flatnonzero(area)
    if number == 1 or len(through) < number:
        return [int(area.argmax())]
    return [int(through[len(through) * (k + 1) // (number + 1)]) for k in range(number)]
