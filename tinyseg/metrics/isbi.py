"""The score of the ISBI-2012 challenge: V^Rand and V^Info, foreground-restricted, after thinning.

White, 1, is the inside of a cell; black, 0, is membrane. The score says whether cells are kept apart: a membrane may
be drawn thick or thin, but a gap of one pixel in it merges two cells.

**Labels**, section by section, for a threshold t. Truth: 4-connected components of ``truth > t``, 0 is membrane.
Prediction: `thin` of ``prediction > t``, its components grown until only lines, 0, are left between them.

**Table.** Only the n pixels with a truth label count. n_ij of them have truth label i and predicted label j;
a_i = Σ_j n_ij with j = 0 included, b_j = Σ_i n_ij. The n0 = Σ_i n_i0 pixels on lines are each a segment of its own.

**Rand**, ordered pairs of pixels, each with itself included::

    A2 = Σ_i a_i²      B2 = Σ_{j≥1} b_j² + n0      AB2 = Σ_{i,j≥1} n_ij² + n0
    split = AB2 / A2   merge = AB2 / B2            V^Rand = AB2 / (A2/2 + B2/2)

**Info**, entropies of truth T and segmentation S, h(p) = −p ln p::

    HT = Σ_i h(a_i/n)  HS = Σ_{j≥1} h(b_j/n) + n0/n ln n    HST = Σ_{i,j≥1} h(n_ij/n) + n0/n ln n
    I = HT + HS − HST  split = I / HS   merge = I / HT      V^Info = 2 I / (HT + HS)

One segment that covers all n pixels has entropy 0, which makes a 0/0. ``empty="challenge"``, the default, follows the
challenge: V^Info = 0, with merge 0 and split 1 if HT = 0, else merge 1 and split 0 if HS = 0. A section of one cell,
found perfectly, then has V^Rand 1 and V^Info 0. With "one" or "zero", 0/0 is 1 or 0, as in `tinyseg.metrics`. There is
no "nan", because the mean at each threshold has to be over the same sections. A section without truth labels scores 0
in everything, whatever `empty` is.

**Stack.** The mean over sections at each threshold, then the maximum over thresholds, Rand and Info each at its own.

Source: Arganda-Carreras et al. 2015, Front. Neuroanat. 9:142, doi 10.3389/fnana.2015.00142; more in docs/isbi_score.md.
"""

import functools
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeAlias

import numpy as np
import scipy
from numpy.typing import ArrayLike

from tinyseg.backend.dispatch import compiles, fast
from tinyseg.metrics.arrays import as_numbers
from tinyseg.metrics.isbi_results import IsbiScores, LabelScores
from tinyseg.metrics.ratios import value_of_empty

__all__ = [
    "THRESHOLDS", "IsbiScores", "LabelScores", "flood", "isbi_scores", "label_scores", "thin", "v_info", "v_rand",
]  # fmt: skip

# Added up in double precision, as the challenge does: the fourth is 0.30000000000000004, the last 0.9999999999999999.
THRESHOLDS = tuple(itertools.accumulate([0.1] * 10, initial=0.0))
UNSEEN, QUEUED = -1, -2  # states of membrane pixels in `flood`
Empty: TypeAlias = Literal["challenge", "one", "zero"]


def v_rand(prediction: ArrayLike, truth: ArrayLike, empty: Empty = "challenge") -> float:
    """Return V^Rand of a stack, maximal over thresholds, foreground-restricted, after thinning.

    Parameters
    ----------
    prediction : array_like, (S, H, W) or (H, W)
        Probability of the inside of a cell, float in [0, 1]; or a mask of bool, or of 0 and 1.
    truth : array_like, same shape
        True inside of a cell: bool, 0 and 1, or float in [0, 1], of which each threshold makes a mask.
    empty : {"challenge", "one", "zero"}
        V^Rand does not depend on it: `v_rand` takes it because `v_info` does.

    Returns
    -------
    float
        In [0, 1]; 1 is perfect.

    Raises
    ------
    ValueError
        If shapes differ or are no stack, values are NaN or outside of [0, 1], or ``empty`` is none of the three.
    """
    return isbi_scores(prediction, truth, empty=empty).v_rand


def v_info(prediction: ArrayLike, truth: ArrayLike, empty: Empty = "challenge") -> float:
    """Return V^Info of a stack; arguments as `v_rand`. ``empty`` says what a section of one segment scores."""
    return isbi_scores(prediction, truth, empty=empty).v_info


def isbi_scores(
    prediction: ArrayLike, truth: ArrayLike, thresholds: ArrayLike | None = None, empty: Empty = "challenge"
) -> IsbiScores:
    """Return both scores and their parts, of every section at every threshold.

    Parameters
    ----------
    prediction, truth, empty
        As `v_rand`, errors too.
    thresholds : array_like of float in [0, 1], (T,), optional
        A pixel is inside where it is above, strictly and in float64. By default the challenge's eleven (`THRESHOLDS`),
        or 0 alone if the prediction holds only 0 and 1.

    Returns
    -------
    IsbiScores
    """
    prediction, truth = _stack(prediction, "prediction"), _stack(truth, "truth")
    _check(prediction, truth, empty)
    if thresholds is None:
        thresholds = (0.0,) if np.array_equal(prediction, prediction > 0) else THRESHOLDS
    thresholds = as_numbers(thresholds, "thresholds").astype(np.float64)
    if thresholds.ndim != 1 or not thresholds.size or not np.all((thresholds >= 0) & (thresholds <= 1)):
        raise ValueError(f"thresholds must be a list of numbers in [0, 1], but are {thresholds}.")
    with ThreadPoolExecutor(1 if _fastest_flood() is flood else None) as pool:  # plain Python gains nothing from more
        sections = list(pool.map(lambda p, g: _section(p, g, thresholds, empty), prediction, truth))
    return IsbiScores(thresholds, *np.transpose(sections, (2, 1, 0)))  # (S, T, 6) -> six of (T, S)


def label_scores(segmentation: ArrayLike, truth_labels: ArrayLike, empty: Empty = "challenge") -> LabelScores:
    """Return the scores of given labels, without threshold and thinning.

    Parameters
    ----------
    segmentation, truth_labels : array_like of int, equal shapes
        Label of each pixel. Where the truth is 0 it does not count; other pixels with 0 in the segmentation are lines.
    empty : {"challenge", "one", "zero"}
        What V^Info and its parts are where they are 0/0.

    Returns
    -------
    LabelScores
        Named tuple of floats ``rand, rand_split, rand_merge, info, info_split, info_merge``.

    Raises
    ------
    ValueError
        If shapes differ, labels are no integers or negative, or ``empty`` is none of the three.
    """
    S, T = as_numbers(segmentation, "segmentation"), as_numbers(truth_labels, "truth_labels")
    _check(S, T, empty)
    for array, name in ((S, "segmentation"), (T, "truth_labels")):
        if array.dtype.kind not in "biu" or np.any(array < 0):
            found = f"{np.sum(array < 0)} are negative and the dtype is {array.dtype}"
            raise ValueError(f"{name} must be integers from 0, but {found}. thin(mask) labels a mask.")
    _, a = np.unique(T[T > 0], return_inverse=True)  # labels become 0, 1, 2, …
    names, b = np.unique(S[T > 0], return_inverse=True)
    has_lines = names.size > 0 and names[0] == 0
    return _scores(a, b if has_lines else b + 1, empty)  # 0 is for lines only


def thin(mask: ArrayLike) -> np.ndarray:
    """Label the cells of a mask and thin the membrane to lines between them.

    Parameters
    ----------
    mask : array_like of bool, or of 0 and 1, (H, W)
        True inside of a cell. Other values raise a ValueError.

    Returns
    -------
    ndarray of int32, (H, W)
        Cells from 1 on, numbered by their first pixels, row by row; 0 on lines. A mask without a cell is one cell.
    """
    mask = _stack(mask, "mask")
    if len(mask) != 1 or not np.array_equal(mask, mask > 0):
        found = f"{len(mask)} section(s) of {mask.dtype}"
        raise ValueError(f"thin takes one mask (H, W) of 0 and 1, but found {found}. Thin mask[0] or mask > 0.5.")
    return _thin(mask[0] > 0)


def flood(cells: np.ndarray, pitch: int) -> None:
    """Grow the basins over the pixels that are UNSEEN, in place: Vincent and Soille's flooding, one level.

    Pixels that touch a basin wait in a queue, column by column. The first in the queue puts its UNSEEN neighbours at
    the end and takes the label of its neighbours. If they have two or more labels, or are all lines, it becomes a line,
    0. Neighbours that still wait are ignored, and therefore the order of the queue matters.

    `cells`, ((W + 2) · (H + 2),) of int32, holds column after column: labels ≥ 1 in basins, UNSEEN on membrane, and
    QUEUED in a frame one pixel wide around the image, so that nothing grows there. `pitch` = H + 2 leads one column on.
    """
    steps = (-pitch, -1, pitch, 1)  # left, up, right, down
    membrane = np.flatnonzero(cells == UNSEEN)
    queue = membrane[np.any([cells[membrane + step] > 0 for step in steps], axis=0)].tolist()
    cells[queue] = QUEUED
    labels = cells.tolist()  # Python reads a list faster than an array
    for p in queue:  # the queue grows meanwhile
        found, several = 0, False
        for step in steps:
            c = labels[p + step]
            if c > 0:
                several |= found > 0 and found != c
                found = c
            elif c == UNSEEN:
                labels[p + step] = QUEUED
                queue.append(p + step)
        labels[p] = 0 if several else found
    cells[:] = labels


@functools.cache
def _fastest_flood():
    """Return `flood`, compiled where numba is installed. If numba is there but broken, the error shows."""
    compiled = fast("cpu.isbi") if compiles("numba") else None
    return compiled.flood if compiled else flood


def _thin(mask):
    if not mask.any():
        return np.ones(mask.shape, np.int32)
    cells = np.full((mask.shape[1] + 2, mask.shape[0] + 2), QUEUED, np.int32)  # (W + 2, H + 2)
    cells[1:-1, 1:-1] = np.where(mask, scipy.ndimage.label(mask, output=np.int32)[0], UNSEEN).T
    _fastest_flood()(cells.reshape(-1), cells.shape[1])
    return np.ascontiguousarray(cells[1:-1, 1:-1].T)


def _section(p, g, thresholds, empty):
    """Return `LabelScores` of one section at each threshold."""
    p, g = p.astype(np.float64), g.astype(np.float64)  # in float32, values at a threshold fall on the other side
    truths, known, rows = {}, {}, []
    for t in thresholds:
        cells, inside = g > t, p > t
        # Masks shrink as t grows, so two with as many pixels are the same mask, which is labelled and flooded once.
        i, j = np.count_nonzero(cells), np.count_nonzero(inside)
        if i not in truths:
            truths[i] = scipy.ndimage.label(cells, output=np.int32)[0]
        if (i, j) not in known:
            A = truths[i]
            known[i, j] = _scores(A[A > 0], _thin(inside)[A > 0], empty)
        rows.append(known[i, j])
    return rows


def _scores(a, b, empty):
    """Compute the module's equations; a and b, (n,), are small integers, the labels of the pixels that count."""
    n = a.size
    if n == 0:
        return LabelScores(*[0.0] * 6)
    n0 = n - np.count_nonzero(b)
    pairs = a[b > 0] * (b.max() + np.int64(1)) + b[b > 0]
    a_i, b_j, n_ij = np.bincount(a), np.bincount(b)[1:], np.unique(pairs, return_counts=True)[1]

    A2, B2, AB2 = (a_i**2).sum(), (b_j**2).sum() + n0, (n_ij**2).sum() + n0
    rand = AB2 / (A2 / 2 + B2 / 2), AB2 / A2, AB2 / B2

    HT, HS, HST = (scipy.special.entr(counts / n).sum() for counts in (a_i, b_j, n_ij))  # entr is h
    HS, HST = HS + n0 / n * np.log(n), HST + n0 / n * np.log(n)
    if HT > 0 and HS > 0:
        I = max(0, min(HT + HS - HST, HT, HS))  # rounding may take it out of these bounds
        info = 2 * I / (HT + HS), I / HS, I / HT
    elif empty == "challenge":
        info = (0, 1, 0) if HT == 0 else (0, 0, 1)
    else:  # I = 0
        info = (0 if entropy > 0 else value_of_empty(empty) for entropy in (HT + HS, HS, HT))
    return LabelScores(*(float(score) for score in (*rand, *info)))


def _stack(array, name) -> np.ndarray:
    """Return the array as (S, H, W), if it holds values in [0, 1]."""
    array = as_numbers(array, name)
    if array.ndim not in (2, 3) or not array.size:
        found = f"has shape {array.shape}"
        raise ValueError(f"{name} must be pixels, (S, H, W) or (H, W), but {found}. array[:, 0] drops a channel axis.")
    if not np.all((array >= 0) & (array <= 1)):
        nan = np.isnan(array).sum()
        found = f"{nan} of {array.size} values are NaN" if nan else f"values run from {array.min()} to {array.max()}"
        raise ValueError(
            f"{name} must be in [0, 1], 1 inside of a cell, but its {found} (dtype {array.dtype}). Divide "
            "8-bit probabilities by 255, make a mask of labels with labels > 0, apply the sigmoid to logits."
        )
    return array.reshape(-1, *array.shape[-2:])


def _check(prediction, truth, empty):
    if prediction.shape != truth.shape:
        found = f"the prediction is {prediction.shape} and the truth is {truth.shape}"
        raise ValueError(f"Prediction and truth must have one shape, but {found}. Crop, resize or choose sections.")
    if empty not in ("challenge", "one", "zero"):
        raise ValueError(f"empty says what 0/0 is and must be 'challenge', 'one' or 'zero', but is {empty!r}.")
