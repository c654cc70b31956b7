r"""Scores from the numbers of pixels that are truly and falsely foreground and background.

.. math::
    \text{accuracy} = \frac{TP + TN}{TP + FP + FN + TN}, \quad
    \text{Dice} = \frac{2\,TP}{2\,TP + FP + FN}, \quad
    \text{IoU} = \frac{TP}{TP + FP + FN}, \quad
    \text{sensitivity} = \frac{TP}{TP + FN}, \quad
    \text{specificity} = \frac{TN}{TN + FP}

and Dice = 2 IoU / (1 + IoU).  `binary` counts these pixels in two masks, `multiclass` in a confusion matrix.
"""

from typing import Any, Literal, TypeAlias

Empty: TypeAlias = Literal["nan", "one", "zero"]  # what 0/0 is, see `tinyseg.metrics`
_EMPTY = {"nan": float("nan"), "one": 1.0, "zero": 0.0}


def fractions(tp: Any, fp: Any, fn: Any, tn: Any) -> dict[str, tuple[Any, Any]]:
    """Return numerator and denominator of each score. All other code takes the equations from here.

    Parameters
    ----------
    tp, fp, fn, tn : int, or integer arrays of one shape
        Numbers of pixels.

    Returns
    -------
    dict of str to (numerator, denominator)
        ``accuracy``, ``dice``, ``iou``, ``sensitivity``, ``specificity``; both of a pair may be 0.
    """
    return {
        "accuracy": (tp + tn, tp + tn + fp + fn),
        "dice": (2 * tp, 2 * tp + fp + fn),
        "iou": (tp, tp + fp + fn),
        "sensitivity": (tp, tp + fn),
        "specificity": (tn, tn + fp),
    }


def value_of_empty(empty: str) -> float:
    """Return what 0/0 is under a policy: "nan", "one" or "zero". ValueError if ``empty`` is none of them."""
    if not isinstance(empty, str) or empty not in _EMPTY:
        raise ValueError(f"empty says what 0/0 is and must be 'nan', 'one' or 'zero', but is {empty!r}.")
    return _EMPTY[empty]
