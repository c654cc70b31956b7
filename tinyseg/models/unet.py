"""U-Net (Ronneberger et al. 2015), as Gadosey et al. (2020) measured it, and the variants of their ablation.

    level   width      encoder                      decoder
      0       64   x - block ------------------------- concat - block - head - logits
      1      128       pool - block ------------- concat - block - up
      2      256           pool - block ----- concat - block - up
      3      512             pool - block* - concat - block - up
      4     1024                pool - block* ------ up                 (* ends in dropout)

block = conv3x3 - ReLU - conv3x3 - ReLU (- norm);  up = upsample x2, conv2x2, ReLU. Each convolution is one op, together
with its ReLU, and with the upsampling or concatenation before it.

This is the Keras U-Net with 'same' padding from which all models of Gadosey et al. (2020, Table 1) are made: with
head="paper" it has their 31,031,685 parameters. `separable=True` replaces every 3x3 and 2x2 convolution except the
first by a depthwise separable one: 3,902,085 parameters.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from tinyseg import nn, ops
from tinyseg.autograd import Array, Tensor, as_array
from tinyseg.backend import check_number
from tinyseg.data.memory import refuse_beyond_memory
from tinyseg.models.size import fewest_weights
from tinyseg.nn.layers import Standardization
from tinyseg.nn.module import Layer

Norm: TypeAlias = Literal["group", "batch"] | None


class UNet(Layer):
    """U-Net for images whose height and width are multiples of ``2 ** (levels - 1)``.

    Parameters
    ----------
    in_channels, num_classes : int
    width : int
        Channels at full resolution; doubled at every level. 64 in the paper.
    levels : int
        Number of resolutions, including the bottleneck. 5 in the paper.
    separable : bool
        Depthwise separable convolutions everywhere except in the first layer.
    norm : {None, "group", "batch"}
        One normalization at the end of every block, as in the paper's SD-UNet block (Figure 5). The paper does not say
        where U-Net has them.
    groups : int
        Groups of the group normalization; fewer if a group would have fewer than two channels, or not divide evenly.
    ws : {None, "layer", "filter"}
        Weight standardization of the depthwise 3x3 kernels (not of the 2x2 ones: the paper's Section 3.1).
    ws_gain : bool
        Multiply standardized kernels by 1/√9, which keeps the scale of the activations.
    dropout : float
        Probability at the end of the last two encoder levels. 0.5 in the paper.
    head : {"direct", "paper"}
        "direct": 1x1 convolution to the logits. "paper": conv3x3 to 2·num_classes channels, ReLU, 1x1 convolution.
        The ReLU on so few channels can become 0 everywhere; the output is then constant and training cannot change it.
    stem_layers, bottleneck_layers : int
        Number of convolutions in the first and in the last encoder block.
    seed : int
        For the initial weights and the dropout masks.

    Attributes
    ----------
    config : dict
        What `tinyseg.models.build` made it with.
    meta : dict
        The metadata of the file, after `tinyseg.models.checkpoint.load`.
    """

    config: dict[str, Any]
    meta: dict[str, Any]

    def __init__(
        self, in_channels: int = 1, num_classes: int = 1, width: int = 64, levels: int = 5, separable: bool = False,
        norm: Norm = None, groups: int = 32, ws: Standardization = None, ws_gain: bool = True, dropout: float = 0.5,
        head: Literal["direct", "paper"] = "direct", stem_layers: int = 2, bottleneck_layers: int = 2, seed: int = 0,
    ) -> None:  # fmt: skip
        for name, flag in (("separable", separable), ("ws_gain", ws_gain)):
            _check_choice(name, flag, (False, True))
        _check_choice("norm", norm, (None, "group", "batch"))
        _check_choice("ws", ws, (None, "layer", "filter"))
        _check_choice("head", head, ("direct", "paper"))
        if ws and not separable:
            raise ValueError("ws standardizes depthwise kernels; this U-Net has none: use separable=True or ws=None.")
        check_number("levels", levels, "[2, 32]", integer=True)
        counts = {"in_channels": in_channels, "num_classes": num_classes, "width": width, "groups": groups}
        for name, value in (counts | {"stem_layers": stem_layers, "bottleneck_layers": bottleneck_layers}).items():
            check_number(name, value, "[1, inf)", integer=True)
        check_number("dropout", dropout, "[0, 1)")
        check_number("seed", seed, "[0, inf)", integer=True)
        kernels = counts | {"stem_layers": stem_layers, "bottleneck_layers": bottleneck_layers}
        weights = fewest_weights(levels=levels, separable=separable, head=head, **kernels)
        refuse_beyond_memory(
            4 * weights, f"a network of width {width} and {levels} levels would take", "weights", "make it smaller"
        )
        self.in_channels, self.num_classes = in_channels, num_classes
        rng = np.random.default_rng(seed)

        def conv(c_in, c_out, k, first=False, upsample=1):
            options = {"padding": "same", "rng": rng, "upsample": upsample, "activation": "relu"}
            if separable and not first:
                return nn.SeparableConv2d(c_in, c_out, k, ws=ws if k == 3 else None, ws_gain=ws_gain, **options)
            return nn.Conv2d(c_in, c_out, k, **options)

        def block(c_in, c_out, layers=2, first=False):
            convs = [conv(c_in if i == 0 else c_out, c_out, 3, first and i == 0) for i in range(layers)]
            return Block(convs, _norm(norm, c_out, groups))

        c = [width * 2**level for level in range(levels)]
        layers = [stem_layers, *[2] * (levels - 2), bottleneck_layers]
        self.encoder = [
            block(c[level - 1] if level else in_channels, c[level], layers[level], first=level == 0)
            for level in range(levels)
        ]
        self.drops = [nn.Dropout(dropout, rng=rng) for _ in range(2)]  # of the last two levels
        self.decoder = [
            Up(conv(c[level + 1], c[level], 2, upsample=2), block(2 * c[level], c[level]))
            for level in reversed(range(levels - 1))
        ]
        self.head: nn.PointwiseConv2d | nn.Sequential
        if head == "direct":
            self.head = nn.PointwiseConv2d(width, num_classes, rng=rng, gain=1.0)
        else:
            hidden = 2 * num_classes
            first = conv(width, hidden, 3)  # before the last layer: the order decides which random numbers each gets
            self.head = nn.Sequential(first, nn.PointwiseConv2d(hidden, num_classes, rng=rng, gain=1.0))

    def forward(self, x: Tensor | Array) -> Tensor:
        """Map images (N, in_channels, H, W) to logits (N, num_classes, H, W)."""
        self.check_input(as_array(x).shape)
        skips, levels = [], len(self.encoder)
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else ops.max_pool2d(x, 2))
            if level >= levels - len(self.drops):
                x = self.drops[level - levels](x)
            skips.append(x)
        skips.pop()  # the bottleneck has no skip
        for up in self.decoder:
            x = up(x, skips.pop())
        return self.head(x)

    @property
    def multiple(self) -> int:
        """Height and width of the input must be multiples of this."""
        return 2 ** (len(self.encoder) - 1)

    @property
    def receptive_radius(self) -> int:
        """No output depends on an input more than this many rows or columns away, except through a GroupNorm."""
        reach, skips = 0, []
        for level, block in enumerate(self.encoder):
            if level > 0:
                reach += 2 ** (level - 1)  # pooling reads one pixel of the level above
            reach += len(block.convs) * 2**level
            skips.append(reach)
        for level in reversed(range(len(self.decoder))):
            reach = max(reach + 2**level, skips[level])  # the 2x2 convolution after upsampling; the skip
            reach += 2 * 2**level  # the block
        if isinstance(self.head, nn.Sequential):
            reach += 1  # the 3x3 convolution of the head
        return reach

    def check_input(self, shape: Sequence[int]) -> None:
        """Raise a ValueError unless images of this shape can go through the network."""
        if len(shape) != 4 or shape[1] != self.in_channels:
            raise ValueError(f"The model takes images of shape (N, {self.in_channels}, H, W), but got {tuple(shape)}.")
        if shape[2] % self.multiple or shape[3] % self.multiple or 0 in shape:
            raise ValueError(
                f"The model halves its input {len(self.encoder) - 1} times, so height and width must be multiples of "
                f"{self.multiple}, but are {shape[2]} x {shape[3]}. Resize or pad the images, or let "
                "tinyseg.prediction.predict pad them and crop the result."
            )


class Block(nn.Module):
    """Convolutions, each with its ReLU, then one norm or none. The first convolution joins several inputs."""

    def __init__(self, convs, norm):
        self.convs, self.norm = convs, norm

    def forward(self, *xs):
        x = self.convs[0](*xs)
        for conv in self.convs[1:]:
            x = conv(x)
        return self.norm(x) if self.norm is not None else x


class Up(nn.Module):
    """Upsample, convolve 2x2, join with the features of the encoder, and apply a block."""

    def __init__(self, conv, block):
        self.conv, self.block = conv, block

    def forward(self, x, skip):
        return self.block(skip, self.conv(x))


def _norm(kind, channels, groups):
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        # At least two channels in a group: alone, a channel would lose its mean and scale.
        possible = range(min(groups, max(channels // 2, 1)), 0, -1)
        return nn.GroupNorm(next((n for n in possible if channels % n == 0), groups), channels)
    return None


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, but is {value!r}.")
