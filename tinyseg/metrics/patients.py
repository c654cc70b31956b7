"""Scores of whole patients: the slices of a volume are put together and scored as one.

A score of slices would count a patient with many tumour slices more often than one with few, and slices without tumour
have no Dice. Here a patient has one Dice for each class and region. Voxels that the preparation cut off count as
predicted background.

A tumour is small if its volume is below a limit, and large otherwise. The limit is given, or the median of the
patients scored. Patients without a tumour count among the small, with what `empty` says if nothing was predicted.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinyseg.metrics import SegmentationScores
from tinyseg.metrics.arrays import as_numbers, number_within
from tinyseg.metrics.multiclass import MOST_CLASSES, as_classes
from tinyseg.metrics.ratios import Empty

EMPTY: Empty = (
    "one"  # as in BraTS: Dice is 1 if neither truth nor prediction has the region, and 0 if only one of them has it
)


class PatientScores:
    """Scores of whole patients, added one by one.

    Parameters
    ----------
    classes : sequence of str
        Names from the background on. A single name means tumour or not: then every class above 0 is tumour.
    regions : dict of str to tuple of int
        Unions of classes to score beside the classes, "whole tumour" among them. Ignored with a single name.
    empty : {"nan", "one", "zero"}
        What a score is that is 0/0, such as Dice where neither truth nor prediction has the class or region.

    Raises
    ------
    ValueError
        As `SegmentationScores`; or "whole tumour" is not among the regions.
    """

    def __init__(
        self, classes: Sequence[str], regions: Mapping[str, Sequence[int]] | None, empty: Empty = EMPTY
    ) -> None:
        self._binary = not isinstance(classes, str) and len(classes) == 1
        if self._binary:
            classes, regions = ("background", "whole tumour"), {"whole tumour": (1,)}
        if "whole tumour" not in (regions or ()):
            raise ValueError(f'regions must have "whole tumour", but are {regions}: see data.classes.regions_of.')
        self._scores = SegmentationScores(len(classes), classes, empty, include_background=False, regions=regions)
        self._names: list[str] = []
        self._volumes: list[float] = []

    def add(self, name: str, predicted: ArrayLike, truth: ArrayLike, voxel: float) -> None:
        """Score one patient.

        Parameters
        ----------
        name : str
        predicted, truth : array_like of integer or bool, equal shapes
            Class of each voxel.
        voxel : float
            Volume of a voxel, mm³.

        Raises
        ------
        ValueError
            As `confusion_matrix`; or there are no voxels, their volume is not above 0, or the patient was scored
            before. Nothing is counted then.
        """
        self._refuse_again(name)
        predicted, truth = as_numbers(predicted, "predicted"), as_numbers(truth, "truth")
        if self._binary:
            predicted, truth = _tumour(predicted, "predicted"), _tumour(truth, "truth")
        voxel = number_within(voxel, 1e-30, 1e30, "voxel, a volume in mm³,")
        if not truth.size:
            raise ValueError(f"{name} has no voxels (shape {truth.shape}): leave the patient out.")
        self._scores.update(predicted[None, None], truth[None, None])
        self._names.append(name)
        self._volumes.append(float(voxel * np.count_nonzero(truth)))

    def join(self, other: "PatientScores") -> None:
        """Add the patients of `other`, which scores the same classes and regions, behind those that are here."""
        for name in other._names:
            self._refuse_again(name)
        self._scores._matrices += other._scores._matrices
        self._names += other._names
        self._volumes += other._volumes

    def _refuse_again(self, name):
        if name in self._names:
            raise ValueError(f"{name} was scored already: a patient counts once.")

    def report(self, small: float | None = None) -> dict[str, Any]:
        """Return the scores of all patients.

        Parameters
        ----------
        small : float, optional
            Tumours of less than this many mm³ are small; the median of the patients if left out.

        Raises
        ------
        ValueError
            There are no patients, or `small` is NaN or below 0.

        Returns
        -------
        dict
            As `tinyseg.prediction.evaluation.score_patients`, without ``loss``.
        """
        if not self._names:
            raise ValueError("no patient has been scored: add one before the report.")
        means, each, volumes = self._scores.mean(), self._scores.per_image(), np.array(self._volumes)
        wholes = [patient["regions"]["whole tumour"] for patient in each]
        small = np.median(volumes) if small is None else small
        limit = number_within(small, 0, math.inf, "small, a volume in mm³,")
        foreground = self._scores.class_names[1:]
        report = {
            "accuracy": self._scores.pooled()["accuracy"],
            "dice": _mean([value["dice"]["mean"] for value in means["regions"].values()]),
            "classes": {name: means["classes"][name]["dice"] for name in foreground},
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
            | {region: value["dice"] for region, value in patient["regions"].items()}
            | {label: patient["classes"][label]["dice"] for label in foreground}
            for name, volume, patient, whole in zip(self._names, self._volumes, each, wholes, strict=True)
        ]
        return report


def as_log(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a report for a row of the log: loss, accuracy, Dice, and Dice by region, class and size."""
    row = {name: report[name] for name in ("loss", "accuracy", "dice")}
    for kind in ("regions", "classes"):
        row |= {name.replace(" ", "_").replace("-", "_"): value["mean"] for name, value in report[kind].items()}
    return row | {stratum: report[stratum]["dice"] for stratum in ("small", "large")}


def _tumour(classes, name) -> np.ndarray:
    """Return where there is a tumour: every class above 0."""
    return classes if classes.dtype == bool else as_classes(classes, name, MOST_CLASSES) > 0


def _mean(values):
    values = [v for v in values if not math.isnan(v)]
    return math.fsum(values) / len(values) if values else math.nan
