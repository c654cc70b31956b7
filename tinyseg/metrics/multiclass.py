r"""Scores of a segmentation into K classes, of each image and pooled, all from one confusion matrix an image.

Let :math:`M_{ab}` be the number of pixels of true class :math:`a` that were predicted as class :math:`b`.  A region
:math:`R` is a set of classes, seen as foreground against all others; class :math:`k` by itself is
:math:`R = \{k\}`.  Then

.. math::
    TP_R = \sum_{a \in R} \sum_{b \in R} M_{ab}, \quad
    FP_R = \sum_{a \notin R} \sum_{b \in R} M_{ab}, \quad
    FN_R = \sum_{a \in R} \sum_{b \notin R} M_{ab}, \quad
    TN_R = \sum_{a \notin R} \sum_{b \notin R} M_{ab}

and its Dice, IoU, sensitivity and specificity are the ratios of `tinyseg.metrics.ratios`.  Taking one class of a region
for another is no error of the region.  Over the classes :math:`C` (all K, or all but the background 0)

.. math::
    \text{accuracy} = \frac{\sum_k M_{kk}}{\sum_{ab} M_{ab}}, \quad
    \text{mean Dice} = \frac{1}{|C|} \sum_{k \in C} \text{Dice}_k, \quad
    \text{mean IoU} = \frac{1}{|C|} \sum_{k \in C} \text{IoU}_k

With ``empty="nan"`` :math:`C` holds only the classes whose score is defined, as in MONAI and torchmetrics, because most
slices lack some class.  `tinyseg.metrics.mean_iou` of two masks is NaN instead.

Pooled scores come from the sum of the images' matrices: large images and large objects weigh more.  Means over
images weigh each image alike.  Both are the same however the images are batched.
"""

import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinyseg.metrics.arrays import as_numbers
from tinyseg.metrics.ratios import Empty, fractions, value_of_empty

MOST_CLASSES = 10_000  # a matrix of K² numbers for each image


def confusion_matrix(prediction: ArrayLike, target: ArrayLike, num_classes: int) -> np.ndarray:
    """Count the pixels of each true class that were predicted as each class.

    Rows are the truth and columns the prediction, as in scikit-learn; the order of the arguments is this
    library's, prediction first (scikit-learn has the truth first).

    Parameters
    ----------
    prediction, target : array_like of integer in [0, K), equal shapes; or of bool, if K = 2
        Class of each pixel.
    num_classes : int
        K, from 2 to `MOST_CLASSES`.

    Returns
    -------
    int64 ndarray, shape (K, K)
        Entry [a, b]: pixels of true class a predicted as class b.

    Raises
    ------
    ValueError
        If the shapes differ, an array is not of integers, a class is outside of [0, K), or K is out of range.

    Examples
    --------
    >>> confusion_matrix([0, 1, 2, 2], [0, 0, 2, 2], num_classes=3).tolist()
    [[1, 1, 0], [0, 0, 0], [0, 0, 2]]
    """
    size = _number_of_classes(num_classes)
    prediction, target = as_classes(prediction, "prediction", size), as_classes(target, "target", size)
    _need_equal_shapes(prediction, target)
    cell = target.astype(np.int64).ravel()  # wide enough for K² - 1, which uint8 is not
    cell *= size
    cell += prediction.astype(np.int64, copy=False).ravel()
    return np.bincount(cell, minlength=size * size).astype(np.int64, copy=False).reshape(size, size)


class SegmentationScores:
    """Scores of each class and region, from one confusion matrix an image: batches and their order do not matter.

    Parameters
    ----------
    num_classes : int
        K, from 2 to `MOST_CLASSES`. Class 0 is the background.
    class_names : sequence of K different str, optional
        Keys of the results; ``"0"``, ``"1"``, … if not given.
    empty : {"nan", "one", "zero"}
        What a score is that is 0/0, see `tinyseg.metrics`.
    include_background : bool
        Whether ``mean_dice`` and ``mean_iou`` average over class 0, too. Its own scores are reported in any case.
    regions : mapping of str to (collection of int, or int), optional
        Unions of classes that are scored like a class, such as
        ``{"whole tumour": (1, 2, 3), "tumour core": (2, 3)}``. They take no part in ``mean_dice`` and ``mean_iou``.

    Raises
    ------
    ValueError
        If ``num_classes`` is out of range, the names are not K different strings, ``empty`` is none of the three, or a
        region is empty, names a class twice or names one outside of [0, K).

    Examples
    --------
    >>> scores = SegmentationScores(3, regions={"cell": (1, 2)})
    >>> scores.update([[[0, 1, 2]]], [[[0, 1, 1]]])
    >>> scores.pooled()["classes"]["1"]["sensitivity"], scores.pooled()["regions"]["cell"]["sensitivity"]
    (0.5, 1.0)
    """

    def __init__(
        self, num_classes: int, class_names: Iterable[str] | None = None, empty: Empty = "nan",
        include_background: bool = True, regions: Mapping[str, Iterable[int] | int] | None = None,
    ) -> None:  # fmt: skip
        self.num_classes = _number_of_classes(num_classes)
        self.class_names = _names(class_names, self.num_classes)
        self.empty, self.include_background = empty, include_background
        self.regions = {name: _members(name, each, self.num_classes) for name, each in dict(regions or {}).items()}
        self._undefined = value_of_empty(empty)
        self._matrices: list[np.ndarray] = []

    def update(self, prediction: ArrayLike, target: ArrayLike) -> None:
        """Count the pixels of a batch.

        Parameters
        ----------
        prediction, target : array_like of integer in [0, K), shape (N, H, W) or (N, D, H, W); or of bool, if K = 2
            Class of each pixel. Each entry of the first axis is one image.

        Raises
        ------
        ValueError
            As `confusion_matrix`, or if there are fewer than three axes. Nothing of the batch is counted then.
        """
        prediction, target = as_numbers(prediction, "prediction"), as_numbers(target, "target")
        _need_equal_shapes(prediction, target)
        if target.ndim < 3:
            raise ValueError(
                "prediction and target must be batches of images, (N, H, W) or (N, D, H, W), but have shape "
                f"{target.shape}. Give a single image a first axis of length 1, as in image[None]."
            )
        self._matrices += [confusion_matrix(p, t, self.num_classes) for p, t in zip(prediction, target, strict=True)]

    @property
    def matrices(self) -> np.ndarray:
        """Confusion matrices of the S images so far, in the order they came: int64 ndarray, shape (S, K, K), a copy."""
        return np.array(self._matrices, np.int64).reshape(-1, self.num_classes, self.num_classes)

    def pooled(self) -> dict[str, Any]:
        """Scores of all pixels together.

        Returns
        -------
        dict
            ``accuracy``, ``mean_dice``, ``mean_iou``: float in [0, 1], or what ``empty`` says.
            ``classes``: for each name a dict with ``dice``, ``iou``, ``sensitivity``, ``specificity``.
            ``regions``: the same for each region.
            ``empty``: int, how many of all these scores are 0/0.
        """
        return self._scores_of_each(self.matrices.sum(axis=0, keepdims=True))[0]

    def per_image(self) -> list[dict[str, Any]]:
        """Scores of each image by itself.

        Returns
        -------
        list of dict
            One for each image, in the order they came, with the keys of `pooled`.
        """
        return self._scores_of_each(self.matrices)

    def mean(self) -> dict[str, Any]:
        """Mean over the images of each score of `per_image`.

        Returns
        -------
        dict
            ``accuracy``, ``mean_dice``, ``mean_iou``, ``classes`` and ``regions`` as in `pooled`, but in the place of
            each score a dict with

            ``mean``, ``std`` : float
                Over the images used; NaN if there are none. The deviation is divided by their number, as
                in ``numpy.std``.
            ``images`` : int
                How many images were used. With ``empty="nan"`` the empty ones are not among them.
            ``empty`` : int
                In how many images the score is 0/0, whatever is done with them. For ``mean_dice`` and ``mean_iou``:
                in how many it is so for every class averaged.
        """
        return _map_leaves(self._score_tree(self.matrices), self._summarize)

    def _score_tree(self, m):
        """Return the tree of scores of matrices m, (S, K, K): each leaf is an array (S,), NaN where it is 0/0."""
        classes = {name: _score_region(m, [k]) for k, name in enumerate(self.class_names)}
        averaged = self.class_names if self.include_background else self.class_names[1:]
        return {
            "accuracy": _divide(np.trace(m, axis1=1, axis2=2), m.sum(axis=(1, 2))),
            "mean_dice": self._average([classes[name]["dice"] for name in averaged]),
            "mean_iou": self._average([classes[name]["iou"] for name in averaged]),
            "classes": classes,
            "regions": {name: _score_region(m, members) for name, members in self.regions.items()},
        }

    def _fill(self, scores):
        """Put what ``empty`` says in the place of 0/0."""
        return np.where(np.isnan(scores), self._undefined, scores)

    def _average(self, scores):
        """Return the mean over classes of what is defined, NaN where all classes are 0/0.

        The classes are added one by one, because NumPy's sum rounds differently for different numbers of images.
        """
        filled = [self._fill(score) for score in scores]
        total = sum(np.nan_to_num(score) for score in filled)
        used = sum(~np.isnan(score) for score in filled)
        return np.where(np.isnan(scores).all(axis=0), np.nan, _divide(total, used))

    def _scores_of_each(self, m):
        """Return for each matrix of m, (S, K, K), its scores, and how many of them are 0/0."""
        tree, leaves = self._score_tree(m), []
        _map_leaves(tree, leaves.append)
        empties = np.isnan(leaves).sum(axis=0)
        filled = _map_leaves(tree, self._fill)
        images = [_map_leaves(filled, lambda score, i=i: float(score[i])) for i in range(len(m))]
        return [image | {"empty": int(empty)} for image, empty in zip(images, empties, strict=True)]

    def _summarize(self, scores):
        """Return mean and deviation over the images that have a value; with fsum, their order does not matter."""
        filled = self._fill(scores)
        used = filled[~np.isnan(filled)].tolist()
        mean = math.fsum(used) / len(used) if used else math.nan
        variance = math.fsum((v - mean) ** 2 for v in used) / len(used) if used else math.nan
        return {"mean": mean, "std": math.sqrt(variance), "images": len(used), "empty": int(np.isnan(scores).sum())}


def _score_region(m, members):
    """Return Dice, IoU, sensitivity and specificity of a region in matrices m, (S, K, K)."""
    truth, predicted = m[:, members].sum(axis=(1, 2)), m[:, :, members].sum(axis=(1, 2))  # pixels of the region, (S,)
    tp = m[:, members][:, :, members].sum(axis=(1, 2))
    fp, fn = predicted - tp, truth - tp
    ratios = fractions(tp, fp, fn, m.sum(axis=(1, 2)) - tp - fp - fn)
    return {name: _divide(*ratios[name]) for name in ("dice", "iou", "sensitivity", "specificity")}


def _divide(numerator, denominator):
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator > 0)


def _map_leaves(tree, change):
    """Return the same tree of dicts, with ``change(leaf)`` for each leaf."""
    return {k: _map_leaves(v, change) if isinstance(v, dict) else change(v) for k, v in tree.items()}


def as_classes(array: ArrayLike, name: str, size: int) -> np.ndarray:
    """Return the array, if it holds class indices: integers in [0, size), or bool if `size` is 2. Else a ValueError."""
    array = as_numbers(array, name)
    if array.dtype == bool and size > 2:
        raise ValueError(
            f"{name} must hold class indices from 0 to {size - 1}, but is a mask of True and False. "
            "Take the argmax over the classes if it is one-hot, or use num_classes=2."
        )
    if array.dtype.kind not in "biu":
        raise ValueError(
            f"{name} must hold class indices as integers, but its dtype is {array.dtype}. "
            "Take the argmax over the class axis of probabilities or logits; convert labels with .astype(np.uint8)."
        )
    if array.size and not 0 <= array.min() <= array.max() < size:
        raise ValueError(
            f"{name} must hold class indices from 0 to {size - 1} (num_classes={size}), but holds values from "
            f"{array.min()} to {array.max()}. Renumber its labels, as in labels[labels == 4] = 3 for BraTS files "
            "that skip 3, or raise num_classes."
        )
    return array


def _need_equal_shapes(prediction, target):
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction and target must have one shape, but prediction is {prediction.shape} and target is "
            f"{target.shape}. Take the argmax over the prediction's class axis, or crop or resize one of them first."
        )


def _number_of_classes(number):
    size = _index(number)
    if size is None or not 2 <= size <= MOST_CLASSES:
        raise ValueError(
            f"num_classes must be an integer from 2 to {MOST_CLASSES}, but is {number!r}. The background is a class, "
            "too: foreground against background is num_classes=2. Numbers of objects are no classes."
        )
    return size


def _names(names, size):
    names = [str(k) for k in range(size)] if names is None else names
    names = list(names) if isinstance(names, Iterable) and not isinstance(names, str) else [names]
    if len(names) != size or len(set(names)) != size or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"class_names must be {size} different strings, one for each class from 0, but is {names}. "
            "Name the background, too."
        )
    return names


def _members(name, classes, size):
    members = [_index(k) for k in (classes if isinstance(classes, Iterable) else [classes])]
    possible = all(k is not None and 0 <= k < size for k in members)
    if not members or not possible or len(set(members)) != len(members):
        raise ValueError(
            f"Region {name!r} must list different classes from 0 to {size - 1}, but is {classes!r}. Write it as in "
            "regions={'whole tumour': (1, 2, 3)}."
        )
    return sorted(members)


def _index(number):
    """Return the number as int, or None if it is no integer."""
    try:
        return operator.index(number)
    except TypeError:
        return None
