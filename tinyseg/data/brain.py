"""Preparing slices of brain MRI for a network, and putting its output back into place.

The scans are skull-stripped: the brain is where any modality is not 0. There each modality is standardized,

    y = (x - centre) / deviation,     centre = the mean of x over the brain, or its most frequent value

Outside of the brain everything is 0. Then the middle of each axial slice is cut out, or the slice is resampled.

A large tumour moves the mean towards its own grey values, and is then darker than a small one. The most frequent value
is that of healthy tissue, whatever the tumour (as of the white matter in Shinohara et al. 2014, NeuroImage: Clinical
6:9). It is the highest place of a histogram of `BINS` bins from the 0.5th to the 99.5th percentile, smoothed by a
Gaussian whose deviation is `SMOOTHED` bins.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tinyseg.data.resample import nearest, resample, restore

BINS, SMOOTHED = 256, 5


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
    standardize : {"volume", "slice", "mode"}
        The centre is the mean of the whole volume, of each slice by itself, or the most frequent value of the volume;
        the deviation is that of the same voxels about their mean.
    """

    size: int = 144
    how: str = "crop"
    standardize: str = "volume"

    def __post_init__(self) -> None:
        if (
            self.how not in ("crop", "resize")
            or self.standardize not in ("volume", "slice", "mode")
            or not 0 <= self.size <= 2**16
        ):
            raise ValueError(
                f"{self}: size must be from 0 to 65536, how 'crop' or 'resize', and standardize 'volume', 'slice' or "
                "'mode'."
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the options as a dict for a checkpoint or another JSON file."""
        return asdict(self)

    def statistics(self, slices: Iterable[np.ndarray]) -> tuple[Any, Any] | None:
        """Return the centre and the deviation of each modality over the brain, (M,) each, from all slices (M, X, Y).

        If each slice is standardized by itself, return None.
        """
        if self.standardize == "slice":
            return None
        count, total, squares, brain = 0, 0.0, 0.0, []
        for x in slices:
            stored = x[:, (x != 0).any(axis=0)]  # (M, brain)
            values = stored.astype(np.float64)
            count += values.shape[1]
            total, squares = total + values.sum(axis=1), squares + np.square(values).sum(axis=1)
            if self.standardize == "mode":
                brain.append(stored)
        mean = total / max(count, 1)
        deviation = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
        if count and self.standardize == "mode":
            return np.array([most_frequent(values) for values in np.concatenate(brain, axis=1)]), deviation
        return mean, deviation

    def prepare(self, x: np.ndarray, statistics: Any = None) -> np.ndarray:
        """Prepare one slice (M, X, Y): float32 (M, h, w).

        `statistics` comes from the method of this name. Left out, they are those of this slice.
        """
        brain = (x != 0).any(axis=0)
        if statistics is None:
            alone = Preparation(standardize="volume" if self.standardize == "slice" else self.standardize)
            statistics = alone.statistics([x])
        centre, deviation = (np.asarray(s, np.float32)[:, None, None] for s in statistics)
        return self.fit((x - centre) / np.where(deviation > 0, deviation, 1) * brain)

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


def most_frequent(values: np.ndarray) -> float:
    """Return the value that is the most frequent among many, see the module; at least one is needed."""
    values = values.astype(np.float64)
    low, high = np.percentile(values, (0.5, 99.5))
    if not low < high:
        return float(low)
    inside = values[(values >= low) & (values <= high)]
    bins = np.minimum(((inside - low) / (high - low) * BINS).astype(int), BINS - 1)
    reach = np.arange(-4 * SMOOTHED, 4 * SMOOTHED + 1)
    counts = np.convolve(np.bincount(bins, minlength=BINS), np.exp(-0.5 * (reach / SMOOTHED) ** 2), "same")
    return float(low + (counts.argmax() + 0.5) * (high - low) / BINS)


def _middle(shape, size):
    starts = [(n - m) // 2 for n, m in zip(shape, size, strict=True)]
    return tuple(slice(s, s + m) for s, m in zip(starts, size, strict=True))
