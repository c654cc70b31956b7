"""What was exported, beside tinyseg itself: how far probabilities may be apart, and how far they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyseg.prediction.predictor import labels


class NotRunError(RuntimeError):
    """What was written cannot be run on this machine: the sentence says what is missing."""


@dataclass(frozen=True)
class Difference:
    """How far two predictions are apart.

    Attributes
    ----------
    probability : float
        The largest difference of a probability.
    flips : float
        Share of the pixels whose mask differs, at a threshold of 0.5.
    """

    probability: float
    flips: float


# What each format is allowed: it computes in float32, with weights of 8 bits, or in 8 bits. One pixel in 100,000 may flip
# where two ways to add lead to two sides of 0.5.
LIMITS = {
    "c": Difference(1e-4, 1e-5),
    "html": Difference(0.1, 0.005),
    "onnx": Difference(1e-3, 1e-4),
    "bioimageio": Difference(1e-3, 1e-4),
    "int8": Difference(1.0, 0.03),
}


def compare(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> Difference:
    """Return how far the probabilities of some sections, (classes, H, W) each, are from those that were expected."""
    probability, flips, pixels = 0.0, 0, 0
    for p, q in zip(expected, found, strict=True):
        if p.shape != q.shape:
            raise RuntimeError(f"expected probabilities of shape {p.shape}, but found {q.shape}.")
        probability = max(probability, float(np.nan_to_num(abs(p - q), nan=np.inf).max()))
        flips += int((labels(p) != labels(q)).sum())
        pixels += p[0].size
    return Difference(probability, flips / pixels)


def refuse_beyond(format: str, found: Difference) -> None:
    """Raise a RuntimeError if what was exported differs by more than its format is allowed."""
    limit = LIMITS[format]
    if found.probability > limit.probability or found.flips > limit.flips:
        raise RuntimeError(
            f"what was exported as {format} differs from tinyseg: a probability by {found.probability:.2g}, and "
            f"{found.flips:.3%} of the mask. Expected at most {limit.probability:g} and {limit.flips:.3%}. Nothing is "
            "left behind."
        )
