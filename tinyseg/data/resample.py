"""Resampling images and labels to another size, and predictions back, so that all three stay aligned.

A smaller image and its labels are read at the same source pixels, the image after a Gaussian that prevents aliasing.
Usual resizing reads the image between the pixels: from 512 to 256 the labels would then lie a quarter of a pixel to one
side, and to the other side in a flipped sample. A prediction for the small image belongs to those source pixels, and
`restore` interpolates between them.
"""

import math
from collections.abc import Sequence

import numpy as np
import scipy

from tinyseg.data.memory import refuse_beyond_memory


def resample(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Read an image (H, W) of any type at the pixels of another size (height, width).

    The result has the image's type, rounded if it is an integer; it is `image` itself if the size is the same. The
    rounding is a part of what a network is trained on: an image of 8 bits and the same one in floats differ by up to
    half a grey level afterwards, and scores in about the fourth digit.
    """
    if image.shape == tuple(size):
        return image
    # Where each pixel is read takes two numbers of 64 bits, and what is read there another.
    what = f"an image of {size[0]} × {size[1]} pixels would take"
    refuse_beyond_memory(3 * 8 * math.prod(map(int, size)), what, "memory to resample", "make it smaller")
    sigma = [_antialiasing(n, m) for n, m in zip(image.shape, size, strict=True)]
    grid = np.meshgrid(*(positions(n, m) for n, m in zip(image.shape, size, strict=True)), indexing="ij")
    dtype = np.float32 if image.dtype == np.float32 else np.float64
    smooth = scipy.ndimage.gaussian_filter(image.astype(dtype), sigma)
    y = scipy.ndimage.map_coordinates(smooth, grid, order=1, mode="nearest")
    if image.dtype.kind != "f":
        y = np.rint(y)
    if image.dtype.kind in "iu":  # the largest number of 64 bits would become one above it, and that wrap around
        limits = np.iinfo(image.dtype)
        y = y.clip(limits.min, np.nextafter(limits.max + 1.0, 0))
    return y.astype(image.dtype)


def scaled(shape: Sequence[int], scale: Sequence[float]) -> tuple[int, int]:
    """Return (height, width), at least 1 each, of an image of this shape times a scale (rows, columns)."""
    height, width = (max(1, round(n * s)) for n, s in zip(shape, scale, strict=True))
    return height, width


def nearest(labels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Read labels (H, W) at the pixels of another size (height, width), without mixing them."""
    index = (np.floor(positions(n, m) + 0.5).astype(int) for n, m in zip(labels.shape, size, strict=True))
    return labels[np.ix_(*index)]


def restore(prediction: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Interpolate values of a resampled image, such as probabilities (..., height, width), back to (..., H, W).

    `size` is (H, W), the size of the image before it was resampled. The interpolation is linear.
    """
    if prediction.shape[-2:] == tuple(size):
        return prediction
    above, below, u = _interpolation(size[0], prediction.shape[-2])
    left, right, v = _interpolation(size[1], prediction.shape[-1])
    rows = prediction[..., above, :] * u[:, None] + prediction[..., below, :] * (1 - u)[:, None]
    y = rows[..., left] * v + rows[..., right] * (1 - v)
    return y.astype(prediction.dtype, copy=False)


def positions(source: int, target: int) -> np.ndarray:
    """Return where each of `target` pixels lies among `source` pixels: at whole numbers if they are fewer."""
    centres = (np.arange(target) + 0.5) * source / target - 0.5
    return np.floor(centres + 0.5) if target < source else np.clip(centres, 0, source - 1)


def _interpolation(source, target):
    """Return, for each source pixel, its two neighbours among the target's pixels and the weight of the first."""
    at = positions(source, target)
    right = np.clip(np.searchsorted(at, np.arange(source)), 1 if target > 1 else 0, target - 1)
    left = np.maximum(right - 1, 0)
    gap = at[right] - at[left]
    weight = np.clip((at[right] - np.arange(source)) / np.where(gap > 0, gap, 1), 0, 1)
    return left, right, weight.astype(np.float32)


def _antialiasing(source, target):
    """Return the deviation of the Gaussian that widens a blur of 0.5 pixels by the factor source/target, if above 1."""
    return 0.5 * np.sqrt(max((source / target) ** 2 - 1, 0))
