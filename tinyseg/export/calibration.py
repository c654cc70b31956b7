"""Choosing the integers of a network with 8 bits (`tinyseg.export.int8`), from images as it will be given them.

The float network runs on the images, and how often which values occur in the tensors that convolutions read and give is
counted. A tensor's range is what holds nearly all of them: a single bright speck would otherwise widen the steps
between the integers for all. Kernels use their whole range.
"""

from collections.abc import Iterable

import numpy as np

from tinyseg.autograd import no_grad
from tinyseg.export.int8 import TINY, Floats, Int8Network, IntegerConvolution, Quantizer, refuse_shape
from tinyseg.export.network import Network, refuse_undescribed

AT_MOST = 50  # images of which ranges are taken
SIDE = 512  # pixels: of larger ones the middle is taken
BINS = 8192
LARGEST_BIAS = 2**30  # which leaves room in 32 bits for the sum that it is added to
COUNTED = 2**20  # values of a tensor; of larger ones every n-th, n odd, so that all rows and columns are met


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
    histograms = _measure(network, images)
    most, convolutions, (*parts, _) = 2 ** (kernel_bits - 1) - 1, {}, network.parts
    for part in parts:
        x, y = (Quantizer.of_range(*histogram.limits(percentile)) for histogram in histograms[part.name])
        convolutions[part.name] = _to_integers(part, x, y, most, per_channel)
    return Int8Network(network, convolutions)


def _to_integers(part, x, y, most, per_channel):
    """Return the integers of a part whose kernel is to hold -most … most."""
    scale = np.maximum(np.abs(part.kernel).reshape(len(part.kernel), -1).max(axis=1) / most, TINY)
    scale = np.maximum(scale, np.abs(part.bias) / (x.scale * LARGEST_BIAS))  # where a kernel is all but 0
    scale = (scale if per_channel else np.full_like(scale, scale.max())).astype(np.float32)
    kernel = np.rint(part.kernel.astype(float) / scale[:, None, None, None]).clip(-most, most).astype(np.int8)
    bias = np.rint(part.bias.astype(float) / (scale * x.scale)).astype(np.int32)
    return IntegerConvolution(kernel, scale, bias, x, y, part.depthwise)


def _measure(network, images):
    """Run images through a network; return the histograms of a `_Watch`."""
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
    return watch.histograms


def _middle(image, network):
    """Return the middle of an image (C, H, W), float32 (1, C, h, w); a ValueError if the network cannot take it."""
    if image.ndim != 3 or image.dtype.kind not in "biuf" or not np.isfinite(image).all():
        raise ValueError(f"images must be arrays (C, H, W) of finite numbers, but one is {image.dtype} {image.shape}.")
    refuse_shape(image.shape, network)
    multiple, shape = network.multiple, image.shape
    sides = [min(n, SIDE // multiple * multiple) for n in shape[1:]]
    rows, columns = (slice((n - side) // 2, (n - side) // 2 + side) for n, side in zip(shape[1:], sides, strict=True))
    return image[None, :, rows, columns].astype(np.float32)


class _Watch(Floats):
    """The float steps, which count the values that convolutions read and give, except for the last convolution."""

    def __init__(self, last):
        self.last, self.histograms = last, {}
        self._before = None, None  # what the convolution before has given, and its histogram

    def convolve(self, part, x):
        y = super().convolve(part, x)
        if part.name != self.last:
            if part.name not in self.histograms:
                given, its = self._before
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
