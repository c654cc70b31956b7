"""Building blocks of networks: Module, Parameter and the layers."""

from tinyseg.nn.init import he_normal
from tinyseg.nn.layers import (
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    DepthwiseConv2d,
    Dropout,
    GroupNorm,
    MaxPool2d,
    PointwiseConv2d,
    ReLU,
    SeparableConv2d,
    Upsample,
)
from tinyseg.nn.module import Module, Parameter, Sequential, evaluation, watch

__all__ = [
    "BatchNorm2d", "Conv2d", "ConvTranspose2d", "DepthwiseConv2d", "Dropout", "GroupNorm", "MaxPool2d", "Module",
    "Parameter", "PointwiseConv2d", "ReLU", "SeparableConv2d", "Sequential", "Upsample", "evaluation", "he_normal",
    "watch",
]  # fmt: skip
