"""A trained network with integers of 8 bits: what they stand for, and what they compute (NumPy).

Every tensor that a convolution reads or gives is replaced by integers q of 8 bits,

    x ≈ s (q - z),    q = round(x / s) + z, clipped to 0 … 255,    s = (high - low) / 255,    z = round(-low / s),

with the range [low, high] that x takes (`tinyseg.export.calibration` finds it on the user's images). Kernels are
integers p with a scale t for each output channel and no zero point. A convolution is then a sum of products of
integers, which is exact:

    y = sum x w + b ≈ s t (sum (q - z) p + c),    c = round(b / (s t)),

    q' = round(s t / s' · (sum (q - z) p + c)) + z', clipped,    with s' and z' of y.

A ReLU needs no step of its own: the range of its output begins at 0, z' is 0, and what is below is clipped to it.
Norms, which divide by small deviations, and the last convolution, whose output is compared with a threshold, stay
float: what they read are the numbers that the integers stand for.

An ONNX file with 8 bits (`tinyseg.export.onnx`) holds these scales and integers, and gives the same to rounding.

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", Equations 1 to 7.
"""

from dataclasses import dataclass

import numpy as np

from tinyseg import ops
from tinyseg.backend import kernels
from tinyseg.export.network import Network, Norm, Part

TINY = 1e-12  # a tensor with a smaller range is 0


@dataclass(frozen=True)
class Quantizer:
    """The integers of a tensor: they stand for ``scale · (q - zero_point)``."""

    scale: np.float32
    zero_point: int

    @classmethod
    def of_range(cls, low: float, high: float) -> "Quantizer":
        """Return the one whose 0 … 255 stand for low … high; the range must hold 0, which stays exact."""
        scale = np.float32((high - low if high - low > TINY else 1) / 255)
        return cls(scale, int(np.clip(np.rint(-low / scale), 0, 255)))

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Return floats as integers, uint8."""
        return (np.rint(x / self.scale) + self.zero_point).clip(0, 255).astype(np.uint8)

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """Return what integers stand for, float32."""
        return (q.astype(np.float32) - self.zero_point) * self.scale


@dataclass(frozen=True)
class IntegerConvolution:
    """A convolution of integers, which stands for a `Part` of a network.

    Attributes
    ----------
    kernel : int8 ndarray, (K, C, k, k), or (C, 1, k, k) if it is depthwise
    scale : float32 ndarray, (K,)
        Of the integers of the kernel of each output channel.
    bias : int32 ndarray, (K,)
        In units of ``scale · x.scale``, as the sums that it is added to.
    x, y : Quantizer
        Of what goes in and what comes out.
    depthwise : bool
        Whether each channel is convolved for itself.
    """

    kernel: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    x: Quantizer
    y: Quantizer
    depthwise: bool = False

    def __call__(self, q: np.ndarray) -> np.ndarray:
        """Return the integers of the output for those of the input, uint8 (N, C, H, W): uint8 (N, K, H, W)."""
        factor = self.scale * self.x.scale / self.y.scale  # float32, and so is the product: as in onnxruntime
        sums = (self.sums(q) + self.bias[:, None, None]).astype(np.float32)
        return (np.rint(sums * factor[:, None, None]) + self.y.zero_point).clip(0, 255).astype(np.uint8)

    def sums(self, q: np.ndarray) -> np.ndarray:
        """Return the sums of products, float64 (N, K, H, W), in which these integers are exact."""
        N, C, H, W = q.shape
        K, _, k, _ = self.kernel.shape
        before, after = (k - 1) // 2, k // 2
        X = np.pad(q.astype(float) - self.x.zero_point, ((0, 0), (0, 0), (before, after), (before, after)))
        total = np.zeros((N, K, H, W))
        for u in range(k):
            for v in range(k):
                window, p = X[:, :, u : u + H, v : v + W], self.kernel[:, :, u, v].astype(float)
                if self.depthwise:
                    total += p[:, :, None] * window
                else:
                    total += (p @ window.reshape(N, C, H * W)).reshape(N, K, H, W)
        return total


class Int8Network:
    """A network whose convolutions compute with integers, except for the last one: call it with images.

    Parameters
    ----------
    network : Network
        Of `tinyseg.export.describing.describe`.
    convolutions : dict of str to IntegerConvolution
        For the name of each `Part`.

    Attributes
    ----------
    network, convolutions
        As given.
    """

    def __init__(self, network: Network, convolutions: dict[str, IntegerConvolution]) -> None:
        self.network, self.convolutions = network, convolutions
        self._kept: dict[str, object] = {}  # what fast kernels make of the weights

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the logits of images: float32 (N, C, H, W) to float32 (N, classes, H, W)."""
        images = np.asarray(images, np.float32)
        refuse_shape(images.shape[1:], self.network)
        return kernels(__name__, images).compute(self.network, self.convolutions, images, self._kept)


def compute(
    network: Network, convolutions: dict[str, IntegerConvolution], images: np.ndarray, kept: dict[str, object]
) -> np.ndarray:
    """Return the logits of images by the steps of this file; `kept` is for kernels that remember what they made."""
    return network.compute(_Integers(convolutions), images)


class Floats:
    """The steps of a network, on float32 arrays (N, C, H, W)."""

    def pool(self, name: str, x: np.ndarray) -> np.ndarray:
        return ops.max_pool2d(x, 2).data

    def join(self, name: str, skip: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.concatenate([skip, x], axis=1)

    def normalize(self, norm: Norm, x: np.ndarray) -> np.ndarray:
        if norm.groups:
            return ops.group_norm(x, norm.groups, norm.weight, norm.bias, norm.eps).data
        return x * norm.weight[:, None, None] + norm.bias[:, None, None]

    def upsample(self, name: str, x: np.ndarray, factor: int) -> np.ndarray:
        return x.repeat(factor, axis=2).repeat(factor, axis=3)

    def convolve(self, part: Part, x: np.ndarray) -> np.ndarray:
        if part.depthwise:
            y = ops.depthwise_conv2d(x, part.kernel[:, 0], padding="same").data
        else:
            y = ops.conv2d(x, part.kernel, part.bias, padding="same").data
        return np.maximum(y, 0) if part.relu else y


class _Integers(Floats):
    def __init__(self, convolutions):
        self.convolutions = convolutions

    def convolve(self, part, x):
        integers = self.convolutions.get(part.name)
        if integers is None:
            return super().convolve(part, x)
        return integers.y.dequantize(integers(integers.x.quantize(x)))


def refuse_shape(shape: tuple[int, ...], network: Network) -> None:
    """Raise a ValueError unless a network takes images of a shape (C, H, W)."""
    multiple = network.multiple
    if len(shape) != 3 or shape[0] != network.in_channels or shape[1] % multiple or shape[2] % multiple or 0 in shape:
        raise ValueError(
            f"images must be arrays ({network.in_channels}, H, W), height and width multiples of {multiple}, as the "
            f"network takes them, but one is {shape}."
        )
