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
    flipped, pixels : int
        How many pixels have another mask, at a threshold of 0.5, and how many there are.
    """

    probability: float
    flipped: int
    pixels: int


# What each format is allowed: the largest difference of a probability, and the share of pixels whose mask flips. It
# computes in float32, or with weights of 8 and 16 bits, or in 8 bits.
LIMITS = {
    "c": (1e-4, 1e-5), "html": (0.02, 1e-3), "onnx": (1e-3, 1e-4), "bioimageio": (1e-3, 1e-4), "int8": (1.0, 0.03),
    "onnx, 8 bits": (1.0, 0.03),
}  # fmt: skip
BORDERLINE = 2  # pixels that may flip in any case: rounding decides where a probability is almost 0.5


def compare(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> Difference:
    """Return how far the probabilities of some sections, (classes, H, W) each, are from those that were expected."""
    probability, flipped, pixels = 0.0, 0, 0
    for p, q in zip(expected, found, strict=True):
        if p.shape != q.shape:
            raise RuntimeError(f"expected probabilities of shape {p.shape}, but found {q.shape}.")
        probability = max(probability, float(np.nan_to_num(abs(p - q), nan=np.inf).max()))
        flipped += int((labels(p) != labels(q)).sum())
        pixels += p[0].size
    return Difference(probability, flipped, pixels)


def refuse_beyond(name: str, found: Difference) -> None:
    """Raise a RuntimeError if what was exported in a format of `LIMITS` differs by more than it is allowed."""
    probability, share = LIMITS[name]
    if not (found.probability <= probability and found.flipped <= share * found.pixels + BORDERLINE):
        raise RuntimeError(
            f"what was exported as {name} differs from tinyseg: a probability by {found.probability:.2g}, and the mask "
            f"of {found.flipped} of {found.pixels} pixels. Expected at most {probability:g}, and {share:.3%} of the "
            "pixels."
        )
