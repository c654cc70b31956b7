"""An independent PyTorch twin of the six models of Table 1, for tests only.

Parameters are registered in the order of use (depthwise weight, pointwise weight, pointwise bias, norm
weight, norm bias ...; encoder 0..4, then decoder 3..0 with the up-convolution first, then the head), so
that weights can be copied by position: ``list(model.parameters())``.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

MODELS = {  # name: (separable, norm, weight standardization)
    "unet": (False, None, None),
    "unet_gn": (False, "gn", None),
    "unet_dw_bn": (True, "bn", None),
    "unet_dw_gn": (True, "gn", None),
    "sdunet_bn": (True, "bn", "layer"),
    "sdunet": (True, "gn", "layer"),
}


def init_(weight, gain):
    """Truncated normal of variance gain / fan_in (Keras 'VarianceScaling': cut at 2 sigma, variance corrected)."""
    std = math.sqrt(gain / weight[0].numel()) / 0.87962566103423978
    return nn.init.trunc_normal_(weight, 0.0, std, -2 * std, 2 * std)


def standardize(w, ws, gain):
    """Weight standardization of a depthwise kernel (C, 1, KH, KW): over the whole layer, or over each filter."""
    dims = {"layer": (0, 1, 2, 3), "filter": (1, 2, 3)}[ws]
    std, mean = torch.std_mean(w, dims, correction=0, keepdim=True)
    w = (w - mean) / (std + 1e-5)
    return w / math.sqrt(w[0].numel()) if gain else w


class Conv(nn.Conv2d):
    """k x k convolution 'same' (an even kernel pads bottom/right), standard or depthwise, with optional WS."""

    def __init__(self, c_in, c_out, k, depthwise=False, ws=None, ws_gain=True, gain=2.0):
        super().__init__(c_in, c_out, k, groups=c_in if depthwise else 1, bias=not depthwise)
        self.ws, self.ws_gain = ws, ws_gain
        before, after = (k - 1) // 2, k // 2
        self.pad = (before, after, before, after)
        init_(self.weight.data, gain)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x):
        w = standardize(self.weight, self.ws, self.ws_gain) if self.ws else self.weight
        if self.pad[0] != self.pad[1]:
            return F.conv2d(F.pad(x, self.pad), w, self.bias, groups=self.groups)
        return F.conv2d(x, w, self.bias, padding=self.pad[0], groups=self.groups)


class UNet(nn.Module):
    def __init__(
        self,
        in_channels=1,
        num_classes=1,
        width=64,
        head="direct",
        separable=False,
        norm=None,
        ws=None,
        ws_gain=True,
        stem_layers=2,
        bottleneck_layers=2,
        dropout=0.5,
    ):
        super().__init__()
        widths = [width * 2**level for level in range(5)]

        def conv(c_in, c_out, k, sep=separable):
            if not sep:
                return Conv(c_in, c_out, k)
            return nn.Sequential(
                Conv(c_in, c_in, k, depthwise=True, ws=ws if k == 3 else None, ws_gain=ws_gain, gain=1.0),
                Conv(c_in, c_out, 1),
            )

        def block(c_in, c, layers=2, drop=0.0, sep_first=separable):
            parts = []
            for i in range(layers):
                parts += [conv(c, c, 3) if i else conv(c_in, c, 3, sep_first), nn.ReLU()]
            if norm == "gn":
                parts.append(nn.GroupNorm(min(32, c // 2), c, eps=1e-5))
            elif norm == "bn":
                parts.append(nn.BatchNorm2d(c, eps=1e-5, momentum=0.1))
            if drop:
                parts.append(nn.Dropout(drop))
            return nn.Sequential(*parts)

        layers = [stem_layers, 2, 2, 2, bottleneck_layers]
        self.encoder = nn.ModuleList(
            block(
                widths[i - 1] if i else in_channels,
                widths[i],
                layers[i],
                dropout if i >= 3 else 0.0,
                separable and i > 0,
            )
            for i in range(5)
        )
        self.decoder = nn.ModuleList(
            nn.ModuleDict({"up": conv(widths[i + 1], widths[i], 2), "block": block(2 * widths[i], widths[i])})
            for i in (3, 2, 1, 0)
        )
        if head == "direct":
            self.head = Conv(width, num_classes, 1, gain=1.0)
        else:
            self.head = nn.Sequential(
                conv(width, 2 * num_classes, 3), nn.ReLU(), Conv(2 * num_classes, num_classes, 1, gain=1.0)
            )

    def forward(self, x):
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for stage, skip in zip(self.decoder, skips[3::-1], strict=True):
            up = F.relu(stage["up"](F.interpolate(x, scale_factor=2, mode="nearest")))
            x = stage["block"](torch.cat([skip, up], 1))
        return self.head(x)


def build(name, in_channels=1, num_classes=1, **options):
    """One of MODELS; options override the model's own (width, head, norm, ws, ws_gain, stem_layers, ...)."""
    separable, norm, ws = MODELS[name]
    own = {"separable": separable, "norm": norm, "ws": ws, "stem_layers": 1 if name.startswith("sdunet") else 2}
    return UNet(in_channels, num_classes, **{**own, **options})
