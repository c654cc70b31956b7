r"""A trained network with integers of 8 bits: how they are chosen, and what they compute (NumPy).

Every tensor that a convolution reads or gives is replaced by integers q of 8 bits,

    x ≈ s (q - z),    q = round(x / s) + z, clipped to 0 … 255,    s = (high - low) / 255,    z = round(-low / s),

with the range [low, high] that x takes on the user's images, without the rarest values at both ends. Kernels are
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

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tinyseg import ops
from tinyseg.autograd import no_grad
from tinyseg.export.network import Network, refuse_undescribed

AT_MOST = 50  # images of which ranges are taken
SIDE = 512  # pixels: of larger ones the middle is taken
BINS = 8192
TINY = 1e-12  # a tensor with a smaller range is 0
LARGEST_BIAS = 2**30  # which leaves room in 32 bits for the sum that it is added to
COUNTED = 2**20  # values of a tensor; of larger ones every n-th, n odd, so that all rows and columns are met


# ----- the maths -------------------------------------------------------------------------
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
    kernel : int8 ndarray, shape (K, C, k, k), or (C, 1, k, k) if it is depthwise
    scale : float32 ndarray, shape (K,)
        Of the integers of the kernel of each output channel.
    bias : int32 ndarray, shape (K,)
        In units of ``scale · x.scale``, as the sums that it is added to.
    x, y : Quantizer
        Of what goes in and what comes out.
    """

    kernel: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    x: Quantizer
    y: Quantizer

    def __call__(self, q: np.ndarray) -> np.ndarray:
        """Return the integers of the output for those of the input, uint8 (N, C, H, W): uint8 (N, K, H, W)."""
        factor = self.scale * self.x.scale / self.y.scale
        sums = self.sums(q) + self.bias[:, None, None]
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
                if C > 1 and p.shape[1] == 1:  # depthwise: each channel for itself
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

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the logits of images: float32 (N, C, H, W) to float32 (N, classes, H, W)."""
        return self.network.compute(_Integers(self.convolutions), np.asarray(images, np.float32))


class _Floats:
    """The steps of a network, on float32 arrays (N, C, H, W)."""

    def pool(self, name, x):
        return ops.max_pool2d(x, 2).data

    def join(self, name, skip, x):
        return np.concatenate([skip, x], axis=1)

    def normalize(self, norm, x):
        if norm.groups:
            return ops.group_norm(x, norm.groups, norm.weight, norm.bias, norm.eps).data
        return x * norm.weight[:, None, None] + norm.bias[:, None, None]

    def upsample(self, name, x, factor):
        return x.repeat(factor, axis=2).repeat(factor, axis=3)

    def convolve(self, part, x):
        if part.depthwise:
            y = ops.depthwise_conv2d(x, part.kernel[:, 0], padding="same").data
        else:
            y = ops.conv2d(x, part.kernel, part.bias, padding="same").data
        return np.maximum(y, 0) if part.relu else y


class _Integers(_Floats):
    def __init__(self, convolutions):
        self.convolutions = convolutions

    def convolve(self, part, x):
        integers = self.convolutions.get(part.name)
        if integers is None:
            return super().convolve(part, x)
        return integers.y.dequantize(integers(integers.x.quantize(x)))


# ----- choosing the integers ---------------------------------------------------------------
def quantize(
    network: Network,
    images: Iterable[np.ndarray],
    *,
    per_channel: bool = True,
    percentile: float = 99.99,
    kernel_bits: int = 7,
) -> Int8Network:
    """Choose the integers of a network, from images as it will be given them.

    Parameters
    ----------
    network : Network
        Of `tinyseg.export.describing.describe`.
    images : iterable of float32 ndarray, shape (C, H, W)
        20 to 50 of them, prepared as for training; H and W multiples of ``network.multiple``. The first 50 are used,
        and the middle 512 × 512 pixels of larger ones.
    per_channel : bool
        A scale for each output channel of a kernel instead of one for the kernel.
    percentile : float
        How many of a tensor's values, in per cent, its range holds.
    kernel_bits : int
        Of the integers in kernels, from 2 to 8. With 8, sums of two products overflow on x86 processors that have AVX2
        and no VNNI, also in onnxruntime.

    Raises
    ------
    ValueError
        There is no image, or one does not fit; the network is not what `describe` returns; an option is out of range.
    """
    refuse_undescribed(network)
    if not 90 < percentile <= 100:
        raise ValueError(f"percentile must be above 90 and at most 100, but is {percentile}.")
    if kernel_bits not in range(2, 9):
        raise ValueError(f"kernel_bits must be from 2 to 8, but is {kernel_bits!r}.")
    watch = _measure(network, images)
    most, convolutions = 2 ** (kernel_bits - 1) - 1, {}
    for name, part in watch.parts.items():
        x, y = (Quantizer.of_range(*histogram.limits(percentile)) for histogram in watch.histograms[name])
        convolutions[name] = _to_integers(part, x, y, most, per_channel)
    return Int8Network(network, convolutions)


def _to_integers(part, x, y, most, per_channel):
    """Return the integers of a part whose kernel is to hold -most … most."""
    scale = np.maximum(np.abs(part.kernel).reshape(len(part.kernel), -1).max(axis=1) / most, TINY)
    scale = np.maximum(scale, np.abs(part.bias) / (x.scale * LARGEST_BIAS))  # where a kernel is all but 0
    scale = (scale if per_channel else np.full_like(scale, scale.max())).astype(np.float32)
    kernel = np.rint(part.kernel.astype(float) / scale[:, None, None, None]).clip(-most, most).astype(np.int8)
    bias = np.rint(part.bias.astype(float) / (scale * x.scale)).astype(np.int32)
    return IntegerConvolution(kernel, scale, bias, x, y)


def _measure(network, images):
    """Run images through a network; return the `_Watch` that has seen them."""
    watch, count = _Watch(network.head[-1].name), 0
    for image in images:
        if count == AT_MOST:
            break
        x = _middle(np.asarray(image), network)
        with no_grad():
            network.compute(watch, x)
        count += 1
    if not count:
        raise ValueError("There is no image to take the ranges of 8-bit numbers from: give 20 to 50 of your images.")
    return watch


def _middle(image, network):
    """Return the middle of an image (C, H, W), float32 (1, C, h, w); a ValueError if the network cannot take it."""
    if image.ndim != 3 or image.dtype.kind not in "biuf" or not np.isfinite(image).all():
        raise ValueError(f"images must be arrays (C, H, W) of finite numbers, but one is {image.dtype} {image.shape}.")
    multiple, shape = network.multiple, image.shape
    if shape[0] != network.in_channels or shape[1] % multiple or shape[2] % multiple or 0 in shape:
        raise ValueError(
            f"images must be arrays ({network.in_channels}, H, W), height and width multiples of {multiple}, as the "
            f"network takes them, but one is {shape}."
        )
    sides = [min(n, SIDE // multiple * multiple) for n in shape[1:]]
    rows, columns = (slice((n - side) // 2, (n - side) // 2 + side) for n, side in zip(shape[1:], sides, strict=True))
    return image[None, :, rows, columns].astype(np.float32)


class _Watch(_Floats):
    """The float steps, which count the values that convolutions read and give, except for the last convolution."""

    def __init__(self, last):
        self.last, self.parts, self.histograms = last, {}, {}
        self._before = None, None  # what the convolution before has given, and its histogram

    def convolve(self, part, x):
        y = super().convolve(part, x)
        if part.name != self.last:
            if part.name not in self.parts:
                given, its = self._before
                self.parts[part.name] = part
                self.histograms[part.name] = its if x is given else _Histogram(), _Histogram()
            of_x, of_y = self.histograms[part.name]
            if x is not self._before[0]:
                of_x.add(x)
            of_y.add(y)
            self._before = y, of_y
        return y


class _Histogram:
    """How often values occur, in equal bins from -limit to limit; the limit is doubled when a value is beyond it."""

    def __init__(self):
        self.counts, self.limit = np.zeros(BINS, np.int64), 0.0

    def add(self, values):
        largest = float(max(values.max(), -values.min()))
        values = values.reshape(-1)[:: values.size // COUNTED | 1]
        if self.limit == 0:
            self.limit = largest
        while self.limit < largest:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([np.zeros(BINS // 4, np.int64), merged, np.zeros(BINS // 4, np.int64)])
            self.limit *= 2
        if self.limit:
            self.counts += np.histogram(values, BINS, (-self.limit, self.limit))[0]

    def limits(self, percentile):
        """Return the range that holds `percentile` of the values, widened to contain 0."""
        if self.limit == 0:
            return 0.0, 0.0
        below, tail = np.cumsum(self.counts), (100 - percentile) / 200 * self.counts.sum()
        edges = np.linspace(-self.limit, self.limit, BINS + 1)
        low = edges[np.searchsorted(below, tail, side="right")]
        high = edges[np.searchsorted(below, below[-1] - tail) + 1]
        return min(float(low), 0.0), max(float(high), 0.0)
