"""What the scores of the ISBI-2012 challenge are returned in; `tinyseg.metrics.isbi` computes them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class LabelScores(NamedTuple):
    """V^Rand and V^Info of labels, each with its parts."""

    rand: float
    rand_split: float
    rand_merge: float
    info: float
    info_split: float
    info_merge: float


def _at_best(scores, score, array):
    """Return the values of an array at the threshold where a score is best."""
    return getattr(scores, array)[getattr(scores, score).mean(1).argmax()]


def _sections(score, array) -> np.ndarray:
    """Make a property: each section's value there. Type checkers see the type of its value."""

    def values(self) -> np.ndarray:
        return _at_best(self, score, array)

    return property(values)  # type: ignore[return-value]


def _mean(score, array) -> float:
    """Make a property: the mean of these values over sections."""

    def mean(self) -> float:
        return float(_at_best(self, score, array).mean())

    return property(mean)  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class IsbiScores:
    """Scores of S sections at T thresholds, each array (T, S) of float64.

    `v_rand` and `v_info` are the scores of the stack, ``…_threshold`` where each is reached (the lowest, if several),
    ``…_split`` and ``…_merge`` the parts there (mean over sections), ``…_sections`` each section's score there, (S,).
    """

    thresholds: np.ndarray  # (T,)
    rand: np.ndarray
    rand_split: np.ndarray
    rand_merge: np.ndarray
    info: np.ndarray
    info_split: np.ndarray
    info_merge: np.ndarray

    v_rand = _mean("rand", "rand")
    v_rand_threshold = _mean("rand", "thresholds")
    v_rand_split = _mean("rand", "rand_split")
    v_rand_merge = _mean("rand", "rand_merge")
    v_rand_sections = _sections("rand", "rand")
    v_info = _mean("info", "info")
    v_info_threshold = _mean("info", "thresholds")
    v_info_split = _mean("info", "info_split")
    v_info_merge = _mean("info", "info_merge")
    v_info_sections = _sections("info", "info")

    def summary(self) -> dict[str, Any]:
        """Return a dict for `json.dump`: the thresholds, the means over sections of the six arrays, and all ``v_…``."""
        result = {name: array.mean(1) if array.ndim == 2 else array for name, array in vars(self).items()}
        result |= {name: getattr(self, name) for name in vars(IsbiScores) if name.startswith("v_")}
        return {name: np.asarray(value).tolist() for name, value in result.items()}
