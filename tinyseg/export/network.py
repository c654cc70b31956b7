"""What a trained U-Net computes, as plain arrays: what every exported format is written from.

`tinyseg.export.describing.describe` makes a `Network` of a model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Part:
    """One convolution of a layer that may be two: the depthwise and the pointwise part of a separable one.

    Attributes
    ----------
    name : str
        Of the layer, and ".depthwise" behind it if it is that part.
    kernel : float32 ndarray, (K, C, k, k), or (C, 1, k, k) if it is depthwise
    bias : float32 ndarray, (K,)
        0 of a depthwise part.
    depthwise, relu : bool
        Whether each channel is convolved for itself, and whether a ReLU follows.
    """

    name: str
    kernel: np.ndarray
    bias: np.ndarray
    depthwise: bool
    relu: bool


@dataclass(frozen=True)
class Convolution:
    """A convolution with stride 1 that keeps the size: standard, depthwise separable or 1 × 1.

    Attributes
    ----------
    name : str
        Of the layer in the network, such as "encoder.0.convs.1".
    depthwise : float32 ndarray, (C, k, k), or None
        The kernels of a separable convolution, standardized if the layer standardizes them. Applied first.
    kernel : float32 ndarray, (K, C, k, k)
        Of a standard convolution, or (K, C, 1, 1), the pointwise part of a separable one.
    bias : float32 ndarray, (K,)
    upsample : int
        The input is enlarged by this factor first, each pixel repeated.
    relu : bool
        Whether a ReLU follows.
    """

    name: str
    depthwise: np.ndarray | None
    kernel: np.ndarray
    bias: np.ndarray
    upsample: int
    relu: bool

    @property
    def size(self) -> int:
        """Height and width of the kernel, k. It is padded by (k-1)//2 zeros before and k//2 after."""
        return (self.kernel if self.depthwise is None else self.depthwise).shape[-1]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The convolutions that it consists of, in the order in which they are computed."""
        last = Part(self.name, self.kernel, self.bias, False, self.relu)
        if self.depthwise is None:
            return (last,)
        none = np.zeros(len(self.depthwise), np.float32)
        return Part(f"{self.name}.depthwise", self.depthwise[:, None], none, True, False), last


@dataclass(frozen=True)
class Norm:
    """A normalization: y = (x - mean) / sqrt(variance + eps) · weight + bias, with mean and variance of each group.

    `weight` and `bias` are float32, (C,). If `groups` is 0 there is no mean and no variance: y = x · weight + bias.
    """

    name: str
    groups: int
    weight: np.ndarray
    bias: np.ndarray
    eps: float


@dataclass(frozen=True)
class Level:
    """The convolutions of one block and the norm at its end. In the decoder, `up` comes first.

    The first convolution of a decoder's block takes the encoder's output of this level and the output of `up`, joined
    along the channels in this order.
    """

    convolutions: tuple[Convolution, ...]
    norm: Norm | None
    up: Convolution | None = None


@dataclass(frozen=True)
class Network:
    """A U-Net of plain arrays.

    Attributes
    ----------
    in_channels, num_classes : int
    encoder : tuple of Level
        From full resolution down to the bottleneck. Before each but the first, 2 × 2 maxima are taken.
    decoder : tuple of Level
        From the level above the bottleneck up to full resolution.
    head : tuple of Convolution
        To the logits.
    """

    in_channels: int
    num_classes: int
    encoder: tuple[Level, ...]
    decoder: tuple[Level, ...]
    head: tuple[Convolution, ...]

    @property
    def multiple(self) -> int:
        """Height and width of the image must be multiples of this."""
        return 2 ** len(self.decoder)

    @property
    def width(self) -> int:
        """Channels of the first level."""
        return len(self.encoder[0].convolutions[0].bias)

    @property
    def levels(self) -> Iterator[Level]:
        """All levels, in the order in which they are computed."""
        yield from self.encoder
        yield from self.decoder

    @property
    def parts(self) -> Iterator[Part]:
        """All convolutions, the last one at the end."""
        layers = [layer for level in self.levels for layer in (level.up, *level.convolutions) if layer]
        for layer in (*layers, *self.head):
            yield from layer.parts

    def compute(self, steps: Any, x: Any) -> Any:
        """Return the logits of images x, by the steps of an object, which may compute them or write them down.

        Its methods are ``pool(name, x)``, maxima of 2 × 2 pixels; ``join(name, skip, x)``, along the channels;
        ``upsample(name, x, factor)``; ``convolve(part, x)``, a `Part` and its ReLU; and ``normalize(norm, x)``.
        """

        def convolve(layer, x):
            if layer.upsample > 1:
                x = steps.upsample(layer.name, x, layer.upsample)
            for part in layer.parts:
                x = steps.convolve(part, x)
            return x

        def run(level, x):
            for layer in level.convolutions:
                x = convolve(layer, x)
            return x if level.norm is None else steps.normalize(level.norm, x)

        skips = []
        for k, level in enumerate(self.encoder):
            x = run(level, steps.pool(f"encoder.{k}", x) if k else x)
            skips.append(x)
        skips.pop()
        for k, level in enumerate(self.decoder):
            x = run(level, steps.join(f"decoder.{k}", skips.pop(), convolve(level.up, x)))
        for layer in self.head:
            x = convolve(layer, x)
        return x


def refuse_undescribed(network: Network) -> None:
    """Raise a ValueError unless a network is what `describe` returns."""
    if not isinstance(network, Network):
        raise ValueError(
            f"expected a network as describe(model) returns it, but found a {type(network).__name__}: give "
            "tinyseg.export.describe(model)."
        )
