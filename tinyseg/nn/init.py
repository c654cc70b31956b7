"""The weights at the start of training.

A convolution sums `fan_in` products. If the inputs have mean square 1 and the weights mean 0 and variance g / fan_in,
the outputs have mean square g. ReLU halves it, so g = 2 keeps the scale through convolution and ReLU (He et al. 2015).
If no ReLU follows (depthwise before pointwise, the last layer), g = 1 keeps it.

As in Keras' `he_normal`, the normal distribution is cut at two standard deviations, and then widened, because cutting
makes its standard deviation smaller.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from tinyseg.backend import check_number

Rng: TypeAlias = np.random.Generator | int | None  # see `as_rng`
# Standard deviation of a standard normal variable cut at ±2.
_TRUNCATED_STD = 0.87962566103423978


def as_rng(rng: Rng) -> np.random.Generator:
    """Return a numpy.random.Generator: `rng` itself, or one with the seed `rng` (None: 0)."""
    if isinstance(rng, np.random.Generator):
        return rng
    try:
        return np.random.default_rng(0 if rng is None else rng)
    except (TypeError, ValueError):
        found = f"a whole number of at least 0, but is {rng!r}"
        raise ValueError(f"rng must be a numpy.random.Generator or a seed, {found}.") from None


def he_normal(rng: np.random.Generator, shape: Sequence[int], fan_in: int, gain: float = 2.0) -> np.ndarray:
    """Draw weights from the truncated normal distribution with variance gain / fan_in.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of int
    fan_in : int
        Number of products summed for one output value: KH·KW·C for a standard convolution, C for a pointwise one
        and KH·KW for a depthwise one. (Keras takes KH·KW·C for a depthwise one too: its kernels start √C times too
        small.)
    gain : float
        g: 2 if a ReLU follows, otherwise 1.

    Returns
    -------
    float32 ndarray
    """
    check_number("gain", gain, "[0, inf)")
    z = rng.standard_normal(shape)
    outside = abs(z) > 2
    while outside.any():
        z[outside] = rng.standard_normal(int(outside.sum()))
        outside = abs(z) > 2
    return (z * (math.sqrt(gain / fan_in) / _TRUNCATED_STD)).astype(np.float32)
