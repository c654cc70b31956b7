r"""Scores of a binary segmentation: accuracy, Dice, IoU, sensitivity and specificity, of one image or pooled over many.

The foreground, 1, white, is the inside of a cell; the background, 0, black, is membrane.  Over all pixels let

.. math::
    TP = \sum p\,t, \quad FP = \sum p\,(1-t), \quad FN = \sum (1-p)\,t, \quad TN = \sum (1-p)(1-t)

for a prediction :math:`p` and a target :math:`t`.  The scores are ratios of these counts, see
`tinyseg.metrics.ratios`.  The Dice and IoU of the membrane are those of the complements of the masks: TN takes the
place of TP.  `mean_iou` is the mean of the IoU of the two classes.

If four pixels in five are white, a prediction that is white everywhere has accuracy 0.8, Dice 0.89 and IoU 0.8, but
its membrane scores are 0.  A published "mean IoU" may be another score: Gadosey et al. (Diagnostics 2020) report 87.35
beside a Dice of 98.51, and the foreground's IoU at that Dice is 97.1.  Their mean is over classes or thresholds;
`mean_iou` is the nearest score here.

A score may be 0/0, such as the Dice of an empty prediction with an empty target.  ``empty`` says what it is
then, see `tinyseg.metrics`.  Arrays may have any shape.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from tinyseg.metrics.arrays import as_numbers, number_within
from tinyseg.metrics.ratios import Empty, fractions, value_of_empty

Score = TypeVar("Score", bound=Callable[..., Any])
_REPORTED = ("accuracy", "dice", "iou", "mean_iou", "membrane_dice", "membrane_iou")


def confusion_counts(prediction: ArrayLike, target: ArrayLike) -> tuple[int, int, int, int]:
    """Count the four outcomes.

    Parameters
    ----------
    prediction, target : array_like of bool, or of 0 and 1, equal shapes
        True inside of a cell.

    Returns
    -------
    tp, fp, fn, tn : int
        Numbers of pixels; see the module's equations.

    Raises
    ------
    ValueError
        If the shapes differ, or an array holds anything but 0 and 1.
    """
    prediction, target = _mask(prediction, "prediction"), _mask(target, "target")
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction and target must have one shape, but prediction is {prediction.shape} and target is "
            f"{target.shape}. Crop, resize or add the channel axis to one of them first."
        )
    tp = int(np.count_nonzero(prediction & target))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(target)) - tp
    return tp, fp, fn, target.size - tp - fp - fn


def _with_parameters(function: Score) -> Score:
    """Append the parameters, which all scores of two masks share, to the docstring."""
    function.__doc__ = f"{inspect.getdoc(function)}\n{_PARAMETERS}"
    return function


_PARAMETERS = """
Parameters
----------
prediction, target : array_like of bool, or of 0 and 1, equal shapes
    True inside of a cell.
empty : {"nan", "one", "zero"}
    What the score is where it is 0/0.

Returns
-------
float
    In [0, 1], or NaN.

Raises
------
ValueError
    If the shapes differ, an array is not binary or ``empty`` is none of the three.
"""


@_with_parameters
def accuracy(prediction: ArrayLike, target: ArrayLike, empty: Empty = "nan") -> float:
    """Fraction of the pixels that are right, (TP + TN) / (TP + FP + FN + TN); 0/0 if there are no pixels."""
    return _scores(*confusion_counts(prediction, target), empty)["accuracy"]


@_with_parameters
def dice(prediction: ArrayLike, target: ArrayLike, empty: Empty = "nan") -> float:
    """Dice coefficient of the foreground (F1 score), 2 TP / (2 TP + FP + FN); 0/0 if neither mask has foreground.

    ``dice(~prediction, ~target)`` is the membrane's.
    """
    return _scores(*confusion_counts(prediction, target), empty)["dice"]


@_with_parameters
def iou(prediction: ArrayLike, target: ArrayLike, empty: Empty = "nan") -> float:
    """Intersection over union of the foreground (Jaccard index), TP / (TP + FP + FN); 0/0 if neither has foreground.

    ``iou(~prediction, ~target)`` is the membrane's.
    """
    return _scores(*confusion_counts(prediction, target), empty)["iou"]


@_with_parameters
def mean_iou(prediction: ArrayLike, target: ArrayLike, empty: Empty = "nan") -> float:
    """Mean of the IoU of the two classes, (TP / (TP + FP + FN) + TN / (TN + FP + FN)) / 2.

    The IoU of a class that neither mask has is 0/0; ``empty="nan"`` then makes the mean NaN.
    """
    return _scores(*confusion_counts(prediction, target), empty)["mean_iou"]


@_with_parameters
def sensitivity(prediction: ArrayLike, target: ArrayLike, empty: Empty = "nan") -> float:
    """Fraction of the foreground that was found (recall), TP / (TP + FN); 0/0 if the target has no foreground."""
    return _scores(*confusion_counts(prediction, target), empty)["sensitivity"]


@_with_parameters
def specificity(prediction: ArrayLike, target: ArrayLike, empty: Empty = "nan") -> float:
    """Fraction of the background that was left alone, TN / (TN + FP); 0/0 if the target is all foreground."""
    return _scores(*confusion_counts(prediction, target), empty)["specificity"]


class BinaryScores:
    """Scores of all pixels together: counts are summed over the calls, and the batch size does not matter.

    A mean over the scores of batches would give a smaller last batch the weight of a full one.

    Parameters
    ----------
    empty : {"nan", "one", "zero"}
        The score of a class that neither prediction nor target has, see `tinyseg.metrics`.

    Attributes
    ----------
    tp, fp, fn, tn : int
        Pixels counted so far.

    Examples
    --------
    >>> scores = BinaryScores()
    >>> scores.update([[0.9, 0.2, 0.6]], [[True, True, False]])
    >>> scores.compute()["dice"]
    0.5
    """

    def __init__(self, empty: Empty = "nan") -> None:
        value_of_empty(empty)  # refuse a wrong policy now, not after an epoch
        self.empty = empty
        self.tp = self.fp = self.fn = self.tn = 0

    def update(self, probability_or_mask: ArrayLike, target: ArrayLike, threshold: float = 0.5) -> None:
        """Count the pixels of a batch.

        Parameters
        ----------
        probability_or_mask : array_like of float in [0, 1], or of bool, or of integer 0 and 1, any shape
            Probability of foreground: foreground where it is above ``threshold``; or a mask.
        target : array_like of bool, or of 0 and 1, same shape
            True inside of a cell.
        threshold : float
            In [0, 1]. A pixel at the threshold is background. The threshold is rounded to the dtype of the
            probabilities first: a float32 0.3 is at 0.3, while `tinyseg.metrics.isbi` compares in float64, where it is
            above. Masks have no use for the threshold.

        Raises
        ------
        ValueError
            If the shapes differ, a mask is not binary, or a probability or the threshold is NaN or outside of [0, 1].
        """
        threshold = number_within(threshold, 0, 1, "threshold, a probability,")
        prediction = as_numbers(probability_or_mask, "prediction")
        if prediction.dtype.kind == "f":
            if not np.all((prediction >= 0) & (prediction <= 1)):  # NaN fails both comparisons
                raise ValueError(
                    f"Probabilities must be in [0, 1], but run from {prediction.min()} to {prediction.max()}. "
                    "If these are logits, apply the sigmoid first; if they are NaN, the training has diverged."
                )
            prediction = prediction > threshold
        tp, fp, fn, tn = confusion_counts(prediction, target)
        self.tp, self.fp, self.fn, self.tn = self.tp + tp, self.fp + fp, self.fn + fn, self.tn + tn

    def compute(self) -> dict[str, float]:
        """Return the scores of all the pixels so far.

        Returns
        -------
        dict of str to float
            ``accuracy, dice, iou, mean_iou, membrane_dice, membrane_iou``, in [0, 1], or what ``empty`` says.
        """
        scores = _scores(self.tp, self.fp, self.fn, self.tn, self.empty)
        return {name: scores[name] for name in _REPORTED}


def _scores(tp, fp, fn, tn, empty):
    """Return all scores of the four counts, as floats."""
    undefined = value_of_empty(empty)
    inside = {name: a / b if b else undefined for name, (a, b) in fractions(tp, fp, fn, tn).items()}
    membrane = {name: a / b if b else undefined for name, (a, b) in fractions(tn, fn, fp, tp).items()}
    return {
        **inside,
        "mean_iou": (inside["iou"] + membrane["iou"]) / 2,
        "membrane_dice": membrane["dice"],
        "membrane_iou": membrane["iou"],
    }


def _mask(array, name) -> np.ndarray:
    """Return the array as bool, if its values are 0 and 1."""
    array = as_numbers(array, name)
    if array.dtype == bool:
        return array
    mask = array == 1
    if not np.all(mask | (array == 0)):
        raise ValueError(
            f"{name} must be a mask of True and False, or of 1 and 0, but holds values from {array.min()} to "
            f"{array.max()} (dtype {array.dtype}). Compare it with a threshold first, as in labels > 127."
        )
    return mask
