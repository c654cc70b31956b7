r"""How weights start.

A convolution sums `fan_in` products. If the inputs have mean square 1 and the weights mean 0 and variance g / fan_in,
the outputs have mean square g. ReLU halves it, so g = 2 keeps the scale through convolution + ReLU (He et al. 2015);
where no ReLU follows (depthwise before pointwise, the last layer), g = 1 does.

As in Keras' `he_normal`, the normal distribution is cut at two deviations and widened to make up for it.
"""

import math

import numpy as np

# Standard deviation of a standard normal variable cut at ±2.
_TRUNCATED_STD = 0.87962566103423978


def he_normal(rng, shape, fan_in, gain=2.0):
    """Draw weights from the truncated normal distribution with variance gain / fan_in.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of int
    fan_in : int
        Number of products summed for one output value: KH·KW·C for a standard convolution, C for a pointwise one
        and KH·KW for a depthwise one. (Keras takes KH·KW·C there too, so its depthwise kernels start √C times
        too small.)
    gain : float
        2 where a ReLU follows, 1 where none does.

    Returns
    -------
    float32 ndarray
    """
    z = rng.standard_normal(shape)
    outside = abs(z) > 2
    while outside.any():
        z[outside] = rng.standard_normal(int(outside.sum()))
        outside = abs(z) > 2
    return (z * (math.sqrt(gain / fan_in) / _TRUNCATED_STD)).astype(np.float32)
