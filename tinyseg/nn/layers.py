"""Layers: each creates its parameters and calls one op.

`rng` is a numpy.random.Generator or a seed (None: seed 0). Give all layers of one network the same generator, so that
each draws different numbers.
"""

from typing import Literal, TypeAlias

import numpy as np

from tinyseg import ops
from tinyseg.autograd import Array, Tensor
from tinyseg.backend import check_number
from tinyseg.nn.init import Rng, as_rng, he_normal
from tinyseg.nn.module import Layer, Parameter
from tinyseg.ops.batch_parts import number_of_part
from tinyseg.ops.window import Padding, Pair, pair, sides

Standardization: TypeAlias = Literal["layer", "filter"] | None


def _zeros(n):
    return Parameter(np.zeros(n, np.float32))


def _check_counts(**counts):
    """Raise a ValueError unless all are integers of at least 1."""
    for name, value in counts.items():
        check_number(name, value, "[1, inf)", integer=True)


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, but is {value!r}.")


def _window(kernel_size, stride, padding, dilation=1):
    """Check the arguments of a window operation; return the kernel size as a pair."""
    for name, value in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation)):
        for n in pair(value, name):
            check_number(name, n, "[1, inf)", integer=True)
    if padding not in ("same", "valid"):
        sides(padding)
    return pair(kernel_size, "kernel_size")


def _around(layer):
    """Describe the upsampling before a convolution and the activation after it, for its repr."""
    upsample = f", upsample={layer.upsample}" if layer.upsample > 1 else ""
    return upsample + (f", {layer.activation}" if layer.activation else "")


class Conv2d(Layer):
    """Standard convolution, weight (K, C, KH, KW); see `tinyseg.ops.conv2d` and `tinyseg.ops.fused_conv2d`.

    Called with several inputs, it joins them along the channels.

    Parameters
    ----------
    in_channels, out_channels : int
        C and K.
    kernel_size, stride : int or pair of int
    padding : int, pair, pair of pairs, "valid" or "same"
    bias : bool
    rng : numpy.random.Generator or int, optional
    gain : float
        Mean square of the output at the start of training, see `tinyseg.nn.init`: 2 if a ReLU follows.
    upsample : int
        Factor by which the input is enlarged (nearest) before the convolution.
    activation : {None, "relu"}
        Applied to the output.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Pair, stride: Pair = 1, padding: Padding = 0,
        bias: bool = True, rng: Rng = None, gain: float = 2.0, upsample: int = 1,
        activation: Literal["relu"] | None = None,
    ) -> None:  # fmt: skip
        KH, KW = _window(kernel_size, stride, padding)
        _check_counts(in_channels=in_channels, out_channels=out_channels, upsample=upsample)
        _check_choice("activation", activation, (None, "relu"))
        shape = (out_channels, in_channels, KH, KW)
        self.stride, self.padding, self.upsample, self.activation = stride, padding, upsample, activation
        self.weight = Parameter(he_normal(as_rng(rng), shape, in_channels * KH * KW, gain))
        self.bias = _zeros(out_channels) if bias else None

    def forward(self, *xs: Tensor | Array) -> Tensor:
        if len(xs) == 1 and self.upsample == 1 and self.activation is None:
            return ops.conv2d(*xs, self.weight, self.bias, self.stride, self.padding)
        return ops.fused_conv2d(xs, self.weight, self.bias, self.stride, self.padding, self.upsample, self.activation)

    def extra_repr(self) -> str:
        K, C, KH, KW = self.weight.shape
        return f"{C} -> {K}, {KH}x{KW}, stride={self.stride}, padding={self.padding}{_around(self)}"


class DepthwiseConv2d(Layer):
    """Depthwise convolution, weight (C, KH, KW); see `tinyseg.ops.depthwise_conv2d`.

    Parameters
    ----------
    channels : int
    kernel_size, stride : int or pair of int
    padding : int, pair, pair of pairs, "valid" or "same"
    bias : bool
    ws : {None, "layer", "filter"}
        Weight standardization, see `tinyseg.ops.weight_standardization`.
    ws_gain : bool
        Multiply standardized weights by 1/√(KH·KW).
    rng : numpy.random.Generator or int, optional
    dilation : int or pair of int
        Pixels from one tap to the next; see `tinyseg.ops.depthwise_conv`.
    """

    def __init__(
        self, channels: int, kernel_size: Pair, stride: Pair = 1, padding: Padding = 0, bias: bool = False,
        ws: Standardization = None, ws_gain: bool = True, rng: Rng = None, dilation: Pair = 1,
    ) -> None:  # fmt: skip
        KH, KW = _window(kernel_size, stride, padding, dilation)
        _check_counts(channels=channels)
        _check_choice("ws", ws, (None, "layer", "filter"))
        self.stride, self.padding, self.ws, self.ws_gain = stride, padding, ws, ws_gain
        self.dilation = pair(dilation, "dilation")
        self.weight = Parameter(he_normal(as_rng(rng), (channels, KH, KW), KH * KW, gain=1.0))
        self.bias = _zeros(channels) if bias else None

    def kernel(self) -> Tensor:
        """Return the weights for the convolution: standardized if `ws` is set."""
        return ops.weight_standardization(self.weight, self.ws, self.ws_gain) if self.ws else self.weight

    def forward(self, x: Tensor | Array) -> Tensor:
        return ops.depthwise_conv2d(x, self.kernel(), self.bias, self.stride, self.padding, self.dilation)

    def extra_repr(self) -> str:
        C, KH, KW = self.weight.shape
        ws = f", ws={self.ws}{' with gain' if self.ws_gain else ''}" if self.ws else ""
        dilation = f", dilation={self.dilation}" if self.dilation != (1, 1) else ""
        return f"{C}, {KH}x{KW}, stride={self.stride}, padding={self.padding}{dilation}{ws}"


class PointwiseConv2d(Layer):
    """1 x 1 convolution, weight (K, C); see `tinyseg.ops.pointwise_conv2d`. Parameters as in `Conv2d`."""

    def __init__(
        self, in_channels: int, out_channels: int, bias: bool = True, rng: Rng = None, gain: float = 2.0
    ) -> None:
        _check_counts(in_channels=in_channels, out_channels=out_channels)
        self.weight = Parameter(he_normal(as_rng(rng), (out_channels, in_channels), in_channels, gain))
        self.bias = _zeros(out_channels) if bias else None

    def forward(self, x: Tensor | Array) -> Tensor:
        return ops.pointwise_conv2d(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        K, C = self.weight.shape
        return f"{C} -> {K}"


class SeparableConv2d(Layer):
    """Depthwise, then pointwise convolution, as one op: SD-UNet uses it instead of a standard convolution.

    The depthwise part has no bias: the pointwise bias can do the same. See `tinyseg.ops.separable_conv2d`. Parameters
    as in `Conv2d` and `DepthwiseConv2d`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Pair, stride: Pair = 1, padding: Padding = 0,
        ws: Standardization = None, ws_gain: bool = True, rng: Rng = None, upsample: int = 1,
        activation: Literal["relu"] | None = None,
    ) -> None:  # fmt: skip
        _check_counts(in_channels=in_channels, out_channels=out_channels, upsample=upsample)
        _check_choice("activation", activation, (None, "relu"))
        rng = as_rng(rng)
        self.upsample, self.activation = upsample, activation
        self.depthwise = DepthwiseConv2d(in_channels, kernel_size, stride, padding, ws=ws, ws_gain=ws_gain, rng=rng)
        self.pointwise = PointwiseConv2d(in_channels, out_channels, rng=rng)

    def forward(self, *xs: Tensor | Array) -> Tensor:
        depthwise, pointwise = self.depthwise, self.pointwise
        return ops.separable_conv2d(
            xs, depthwise.kernel(), pointwise.weight, pointwise.bias, depthwise.stride, depthwise.padding,
            self.upsample, self.activation,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return _around(self).lstrip(", ")


class ConvTranspose2d(Layer):
    """Transposed convolution, weight (C, K, KH, KW); see `tinyseg.ops.conv_transpose2d`. Parameters as in `Conv2d`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Pair, stride: Pair = 1, padding: Padding = 0,
        bias: bool = True, rng: Rng = None, gain: float = 2.0,
    ) -> None:  # fmt: skip
        KH, KW = _window(kernel_size, stride, padding)
        _check_counts(in_channels=in_channels, out_channels=out_channels)
        sh, sw = pair(stride, "stride")
        self.stride, self.padding = stride, padding
        fan_in = max(1, in_channels * KH * KW // (sh * sw))  # products that are added to one output value, on average
        self.weight = Parameter(he_normal(as_rng(rng), (in_channels, out_channels, KH, KW), fan_in, gain))
        self.bias = _zeros(out_channels) if bias else None

    def forward(self, x: Tensor | Array) -> Tensor:
        return ops.conv_transpose2d(x, self.weight, self.bias, self.stride, self.padding)

    def extra_repr(self) -> str:
        C, K, KH, KW = self.weight.shape
        return f"{C} -> {K}, {KH}x{KW}, stride={self.stride}, padding={self.padding}"


class GroupNorm(Layer):
    """Group normalization with weight γ = 1 and bias β = 0 to start; see `tinyseg.ops.group_norm`."""

    def __init__(self, num_groups: int, channels: int, eps: float = 1e-5) -> None:
        _check_counts(num_groups=num_groups, channels=channels)
        check_number("eps", eps, "[0, inf)")
        if channels % num_groups:
            raise ValueError(f"GroupNorm: {channels} channels cannot be split into {num_groups} equal groups.")
        self.num_groups, self.eps = num_groups, eps
        self.weight, self.bias = Parameter(np.ones(channels, np.float32)), _zeros(channels)

    def forward(self, x: Tensor | Array) -> Tensor:
        return ops.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.size}, groups={self.num_groups}"


class BatchNorm2d(Layer):
    """Batch normalization with running statistics; see `tinyseg.ops.batch_norm`."""

    buffers = ("running_mean", "running_var")

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        _check_counts(channels=channels)
        self.momentum, self.eps = check_number("momentum", momentum, "[0, 1]"), check_number("eps", eps, "[0, inf)")
        self.weight, self.bias = Parameter(np.ones(channels, np.float32)), _zeros(channels)
        self.running_mean, self.running_var = np.zeros(channels, np.float32), np.ones(channels, np.float32)

    def forward(self, x: Tensor | Array) -> Tensor:
        running = self.running_mean, self.running_var
        return ops.batch_norm(x, *running, self.weight, self.bias, self.training, self.momentum, self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.size}, momentum={self.momentum}"


class Dropout(Layer):
    """Dropout with a new mask in every call; see `tinyseg.ops.dropout`.

    The mask depends only on `counter` = (seed, number of calls so far), which is saved with the weights: a resumed run
    draws the masks that the run would have drawn without the interruption. If a batch is computed in parts, it also
    depends on the number of the part (`tinyseg.ops.batch_parts`).

    Parameters
    ----------
    p : float
        Probability of zeroing, in [0, 1).
    channelwise : bool
        Drop whole channels (`dropout2d`).
    rng : numpy.random.Generator or int, optional
        Draws the seed.
    """

    buffers = ("counter",)

    def __init__(self, p: float = 0.5, channelwise: bool = False, rng: Rng = None) -> None:
        self.p, self.channelwise = check_number("Dropout: p", p, "[0, 1)"), channelwise
        self.counter = np.array([as_rng(rng).integers(2**32), 0])

    def forward(self, x: Tensor | Array) -> Tensor:
        if not self.training:
            return x if isinstance(x, Tensor) else Tensor(x)
        drop = ops.dropout2d if self.channelwise else ops.dropout
        part = number_of_part()
        y = drop(x, self.p, seed=(*self.counter, part) if part else self.counter)
        self.counter[1] += 1
        return y

    def extra_repr(self) -> str:
        return f"p={self.p}{', channelwise' if self.channelwise else ''}"


class ReLU(Layer):
    """max(x, 0) as a layer, for `Sequential`."""

    def forward(self, x: Tensor | Array) -> Tensor:
        return ops.relu(x)


class MaxPool2d(Layer):
    """Max pooling as a layer, for `Sequential`; see `tinyseg.ops.max_pool2d`."""

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Padding = 0) -> None:
        _window(kernel_size, kernel_size if stride is None else stride, padding)
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Tensor | Array) -> Tensor:
        return ops.max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self) -> str:
        return f"{self.kernel_size}"


class Upsample(Layer):
    """Upsampling as a layer, for `Sequential`; see `tinyseg.ops.upsample`."""

    def __init__(self, scale_factor: Pair = 2, mode: Literal["nearest", "bilinear"] = "nearest") -> None:
        for n in pair(scale_factor, "scale_factor"):
            _check_counts(scale_factor=n)
        _check_choice("mode", mode, ("nearest", "bilinear"))
        self.scale_factor, self.mode = scale_factor, mode

    def forward(self, x: Tensor | Array) -> Tensor:
        return ops.upsample(x, self.scale_factor, self.mode)

    def extra_repr(self) -> str:
        return f"x{self.scale_factor}, {self.mode}"
