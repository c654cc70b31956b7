"""A network of integers with numba: the same as `tinyseg.export.int8` computes, from kernel to kernel as bytes.

What stands between two convolutions (a norm, pooling, joining) is written down and not computed, until a convolution
says which integers it reads. Then it is one pass over the bytes.
"""

from dataclasses import dataclass, replace

import numpy as np

from tinyseg.fast.cpu.channels_last import float32
from tinyseg.fast.cpu.int8_between import logits, requantize, sums_of
from tinyseg.fast.cpu.int8_conv import Packed, fits, separable, standard

supports = float32


def compute(network, convolutions, images, kept):
    """Return the logits (N, classes, H, W) of images; `kept` is a dict in which weights are remembered as packed."""
    last = network.head[-1]
    if last.size > 1 or last.relu or last.upsample > 1 or last.depthwise is not None:  # none that tinyseg builds
        return NotImplemented
    if not kept:
        kept |= {name: Packed(each) if fits(each) else None for name, each in convolutions.items()}
    if None in kept.values():
        return NotImplemented
    return network.compute(_Steps(kept), _Image(images))


@dataclass
class _Later:
    """Numbers (q - zero) · factor + summand that have not been computed, and what is to be done with them.

    Attributes
    ----------
    q : uint8 ndarray, shape (N, H, W, C)
    zero : int
    factor, summand : float32 ndarray, shape (N, C)
    pool : bool
        Whether maxima of 2 × 2 pixels are meant.
    """

    q: np.ndarray
    zero: int
    factor: np.ndarray
    summand: np.ndarray
    pool: bool = False

    def later(self):
        return self

    def integers(self, quantizer):
        return requantize(self.q, self.zero, self.factor, self.summand, quantizer, self.pool)


@dataclass
class _Given:
    """Integers as a convolution has given them, which the next one may read as they are."""

    q: np.ndarray
    quantizer: object

    def integers(self, quantizer):
        return self.q if quantizer == self.quantizer else self.later().integers(quantizer)

    def later(self):
        shape = len(self.q), self.q.shape[3]
        factor = np.full(shape, self.quantizer.scale, np.float32)
        return _Later(self.q, self.quantizer.zero_point, factor, np.zeros(shape, np.float32))


@dataclass
class _Image:
    x: np.ndarray

    def integers(self, quantizer):
        return np.ascontiguousarray(quantizer.quantize(self.x).transpose(0, 2, 3, 1))


@dataclass
class _Input:
    """What a convolution reads: values to be joined, each pixel repeated, perhaps by a depthwise convolution first."""

    values: tuple
    repeat: int = 1
    depthwise: object = None


class _Steps:
    """The steps of a network, for `Network.compute`."""

    def __init__(self, packed):
        self.packed = packed

    def pool(self, name, x):
        return replace(x.later(), pool=True)

    def join(self, name, skip, x):
        return _Input((skip, x))

    def upsample(self, name, x, factor):
        return _Input((x,), factor)

    def normalize(self, norm, x):
        """Write the norm down: (x - mean) / deviation · weight + bias, with x = scale · (q - zero)."""
        N, H, W, C = x.q.shape
        factor, summand = np.ones((N, C)), np.zeros((N, C))
        scale, zero = float(x.quantizer.scale), x.quantizer.zero_point
        if norm.groups:
            first, second = (sums.reshape(N, norm.groups, -1).sum(axis=2) for sums in sums_of(x.q))
            count = H * W * C // norm.groups
            mean, variance = first / count, (second - first**2 / count) / count
            mean, variance = scale * (mean - zero), scale**2 * variance
            factor = np.repeat(1 / np.sqrt(variance + norm.eps), C // norm.groups, axis=1)
            summand = -factor * np.repeat(mean, C // norm.groups, axis=1)
        summand = (summand * norm.weight + norm.bias).astype(np.float32)
        return _Later(x.q, zero, (scale * factor * norm.weight).astype(np.float32), summand)

    def convolve(self, part, x):
        given = x if isinstance(x, _Input) else _Input((x,))
        convolution = self.packed.get(part.name)
        if convolution is None:
            return _last(part, given.values[0])
        if convolution.depthwise:
            return replace(given, depthwise=convolution)
        read = (given.depthwise or convolution).x
        xs = tuple(value.integers(read) for value in given.values)
        if given.depthwise:
            y = separable(xs, given.depthwise, convolution, given.repeat)
        else:
            y = standard(xs, convolution, given.repeat)
        return _Given(y, convolution.y)


def _last(part, x):
    """Return the logits: a pointwise convolution with floats."""
    x = x.later()
    kernel = part.kernel[:, :, 0, 0].astype(float)
    weight = (kernel * x.factor[:, None]).astype(np.float32)
    bias = (x.summand @ kernel.T + part.bias).astype(np.float32)
    return logits(x.q, x.zero, weight, bias)
