r"""Scores of objects: are they found, one by one, and are they kept apart?

Truth and prediction are labels: an integer for each pixel, 0 for background, and a number for each object.

**Average precision.** The overlap of a true object A and a predicted one B is IoU = |A ∩ B| / |A ∪ B|. At a threshold t
each true object is paired with at most one predicted object, and each of these with at most one true object, so that
as many pairs as possible have IoU ≥ t. These pairs are the true positives TP(t); FP(t) predicted objects and FN(t)
true ones have no partner::

    AP(t) = TP(t) / (TP(t) + FP(t) + FN(t))

That is the definition of StarDist and cellpose, which both call it average precision; it is not the area under a curve
of precision and recall that COCO means by the word. Over many sections TP, FP and FN are added up, see `Matches`. A
section where nothing is and nothing is found makes a 0/0, for which `empty` decides, as in `tinyseg.metrics`.

**Adapted Rand error** and **variation of information** are scikit-image's, over the pixels that have a true object (0
of the truth is left out). With n_ij pixels in true object i and predicted object j, j = 0 included, n in all, and sums
s = Σ_ij n_ij² − n, a = Σ_i (Σ_j n_ij)² − n and b = Σ_j (Σ_i n_ij)² − n::

    error = 1 − 2 s / (a + b)
    split = H(S | T)    merge = H(T | S)      in bits, of predicted objects S and true ones T

All three are 0 for a perfect prediction. They are other numbers than V^Rand and V^Info: those count each pixel of a
line as an object of its own, here all pixels without a predicted object count as one (docs/isbi_score.md).

Sources: U. Schmidt et al., MICCAI 2018, and C. Stringer et al., Nature Methods 18, 2021 (average precision);
I. Arganda-Carreras et al., Front. Neuroanat. 9:142, 2015 (Rand error); M. Meilă, J. Multivariate Anal. 98(5), 2007.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
import skimage
from numpy.typing import ArrayLike

from tinyseg.metrics.arrays import as_numbers
from tinyseg.metrics.ratios import value_of_empty

THRESHOLDS = tuple(k / 100 for k in range(50, 100, 5))  # 0.5, 0.55, …, 0.95


@dataclass
class Matches:
    """How many objects there are, and how many are found at each threshold; sums of them are of several sections.

    Attributes
    ----------
    found : ndarray of int, (T,)
        Pairs of a true and a predicted object, TP, at each threshold.
    true, predicted : int
        Objects of the truth, TP + FN, and of the prediction, TP + FP.
    """

    found: np.ndarray
    true: int
    predicted: int

    def __add__(self, other: "Matches") -> "Matches":
        return Matches(self.found + other.found, self.true + other.true, self.predicted + other.predicted)

    def average_precision(self, empty: str = "nan") -> np.ndarray:
        """Return AP at each threshold, float64 (T,); `empty` says what 0/0 is."""
        several = self.true + self.predicted - self.found
        return np.where(several > 0, self.found / np.maximum(several, 1), value_of_empty(empty))


def match_objects(truth: ArrayLike, prediction: ArrayLike, thresholds: Sequence[float] = THRESHOLDS) -> Matches:
    """Pair true and predicted objects one to one, at each threshold of their IoU.

    Parameters
    ----------
    truth, prediction : array_like of int, equal shapes
        Labels; 0 is background. Sections of a stack whose objects are numbered anew are given one by one.
    thresholds : sequence of float in (0, 1], (T,)
        A pair counts where its IoU is at least the threshold.

    Returns
    -------
    Matches

    Raises
    ------
    ValueError
        Shapes differ, labels are no integers or negative, or a threshold is out of its range.
    """
    T, S = _check_labels(truth, prediction)
    least = as_numbers(thresholds, "thresholds").astype(np.float64)
    if least.ndim != 1 or not ((least > 0) & (least <= 1)).all():
        raise ValueError(f"thresholds must be a list of numbers in (0, 1], found {thresholds}.")
    rows, columns, both, a, b = _overlaps(T, S)
    iou = both / (a[rows] + b[columns] - both)
    return Matches(np.array([_count_pairs(rows, columns, iou >= t) for t in least], int), len(a), len(b))


def average_precision(
    truth: ArrayLike, prediction: ArrayLike, thresholds: Sequence[float] = THRESHOLDS, empty: str = "nan"
) -> np.ndarray:
    """Return AP of one section at each threshold, float64 (T,); arguments and errors as `match_objects`."""
    return match_objects(truth, prediction, thresholds).average_precision(empty)


def adapted_rand_error(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Return scikit-image's adapted Rand error of one section, in [0, 1]; 0 is perfect.

    Arguments and errors are those of `match_objects`. It is NaN if the truth has no object, or no two pixels that count
    are in one.
    """
    T, S = _check_labels(truth, prediction)
    with np.errstate(invalid="ignore"):
        return float(skimage.metrics.adapted_rand_error(T, S, ignore_labels=(0,))[0])


def variation_of_information(truth: ArrayLike, prediction: ArrayLike) -> tuple[float, float]:
    """Return the two parts of scikit-image's variation of information of one section, in bits; 0 is perfect.

    Arguments and errors are those of `match_objects`.

    Returns
    -------
    split : float
        H(S | T): true objects that are in several pieces.
    merge : float
        H(T | S): predicted objects that cover several true ones. Both are NaN if the truth has no object.
    """
    T, S = _check_labels(truth, prediction)
    if not T.any():
        return float("nan"), float("nan")
    split, merge = skimage.metrics.variation_of_information(T, S, ignore_labels=(0,))
    return max(0.0, float(split)), max(0.0, float(merge))  # rounding may take them below 0


def _check_labels(truth, prediction):
    """Return both as integers 0, 1, 2, … without gaps, or raise a ValueError."""
    T, S = as_numbers(truth, "truth"), as_numbers(prediction, "prediction")
    if T.shape != S.shape or not T.size:
        raise ValueError(
            f"truth and prediction must have one shape and pixels, found {T.shape} and {S.shape}: crop, resize or "
            "choose sections."
        )
    for labels, name in ((T, "truth"), (S, "prediction")):
        if labels.dtype.kind not in "biu" or labels.min() < 0:
            raise ValueError(
                f"{name} must be labels, integers from 0, found {labels.dtype} from {labels.min()}: of a mask give "
                "scipy.ndimage.label(mask)[0], of probabilities find_instances(probability)."
            )
    return _renumber(T), _renumber(S)


def _renumber(labels):
    numbers, renumbered = np.unique(labels, return_inverse=True)
    return renumbered.reshape(labels.shape) + (numbers[0] > 0)


def _overlaps(T, S):
    """Return, of each pair that overlaps, its numbers from 0 and common pixels; then the sizes of all objects."""
    a, b = np.bincount(T.ravel())[1:], np.bincount(S.ravel())[1:]
    inside = (T > 0) & (S > 0)
    pairs, both = np.unique((T[inside] - 1) * max(len(b), 1) + S[inside] - 1, return_counts=True)
    rows, columns = np.divmod(pairs, max(len(b), 1))
    return rows, columns, both, a, b


def _count_pairs(rows, columns, good):
    """Return how many disjoint pairs there are at most among the good ones of pairs (rows, columns)."""
    rows, columns = rows[good], columns[good]
    if not len(rows):
        return 0
    graph = scipy.sparse.coo_array((np.ones(len(rows), bool), (rows, columns))).tocsr()
    return np.count_nonzero(scipy.sparse.csgraph.maximum_bipartite_matching(graph) >= 0)
