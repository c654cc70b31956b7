"""Preparing slices of brain MRI for a network, and putting its output back into place.

The scans are skull-stripped: the brain is where any modality is not 0. There each modality gets mean 0 and variance 1.
Outside of the brain everything is 0. Then the middle of each axial slice is cut out, or the slice is resampled.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tinyseg.data.resample import nearest, resample, restore


@dataclass(frozen=True)
class Preparation:
    """Preparation of slices for a network, and the way back.

    Parameters
    ----------
    size : int
        Height and width of the slices; 0 leaves them as they are. Cropping leaves a side as it is if it is shorter.
        The paper says both that the resolution "was reduced to 144 × 144" and that "center cropping" was used.
        Cropping 240 to 144 keeps voxels of 1 mm, but loses the front and the back of most brains, which lie outside of
        the middle 144 mm. Resizing keeps the whole slice, with pixels of 1.7 mm.
    how : {"crop", "resize"}
        Cut out the middle, or resample the whole slice.
    standardize : {"volume", "slice"}
        Mean and variance of the whole volume, or of each slice by itself.
    """

    size: int = 144
    how: str = "crop"
    standardize: str = "volume"

    def __post_init__(self) -> None:
        if (
            self.how not in ("crop", "resize")
            or self.standardize not in ("volume", "slice")
            or not 0 <= self.size <= 2**16
        ):
            raise ValueError(
                f"{self}: size must be from 0 to 65536, how 'crop' or 'resize', and standardize 'volume' or 'slice'."
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the options as a dict for a checkpoint or another JSON file."""
        return asdict(self)

    def statistics(self, slices: Iterable[np.ndarray]) -> tuple[Any, Any] | None:
        """Return the mean and the deviation of each modality over the brain, (M,) each, from all slices (M, X, Y).

        If each slice is standardized by itself, return None.
        """
        if self.standardize == "slice":
            return None
        count, total, squares = 0, 0.0, 0.0
        for x in slices:
            values = x[:, (x != 0).any(axis=0)].astype(np.float64)  # (M, brain)
            count += values.shape[1]
            total, squares = total + values.sum(axis=1), squares + np.square(values).sum(axis=1)
        mean = total / max(count, 1)
        return mean, np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))

    def prepare(self, x: np.ndarray, statistics: Any = None) -> np.ndarray:
        """Prepare one slice (M, X, Y): float32 (M, h, w).

        `statistics` comes from the method of this name. Left out, the mean and deviation of this slice are used.
        """
        brain = (x != 0).any(axis=0)
        if statistics is None:
            statistics = Preparation(standardize="volume").statistics([x])
        mean, deviation = (np.asarray(s, np.float32)[:, None, None] for s in statistics)
        return self.fit((x - mean) / np.where(deviation > 0, deviation, 1) * brain)

    def resampled(self, x: np.ndarray) -> np.ndarray:
        """Return a slice at the pixels at which it is standardized: its own, since `fit` comes after that."""
        return x

    def fit(self, planes: np.ndarray) -> np.ndarray:
        """Crop or resample planes (..., X, Y) to the network's size; integers are labels and are never mixed."""
        shape = planes.shape[-2:]
        size = self.target(shape)
        if self.how == "crop" or size == shape:
            return planes[(..., *_middle(shape, size))]
        change = resample if planes.dtype.kind == "f" else nearest
        fitted = np.stack([change(plane, size) for plane in planes.reshape(-1, *shape)])
        return fitted.reshape(*planes.shape[:-2], *size)

    def restore(self, probabilities: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Put probabilities (classes, h, w) of a prepared slice back into a slice of `shape` (X, Y): (classes, X, Y).

        What was cut off becomes background: class 0 has probability 1, or the only class has probability 0.
        """
        if self.how == "resize":
            return restore(probabilities, shape)
        whole = np.zeros((len(probabilities), *shape), probabilities.dtype)
        whole[0] = len(probabilities) > 1
        whole[(slice(None), *_middle(shape, probabilities.shape[1:]))] = probabilities
        return whole

    def target(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width that `fit` gives planes of this shape."""
        if self.size == 0:
            return shape[0], shape[1]
        if self.how == "crop":
            return min(shape[0], self.size), min(shape[1], self.size)
        return self.size, self.size


def _middle(shape, size):
    starts = [(n - m) // 2 for n, m in zip(shape, size, strict=True)]
    return tuple(slice(s, s + m) for s, m in zip(starts, size, strict=True))
