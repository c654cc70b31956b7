"""weights.bin: a header and all weights of a network, in the order in which `c/network.c` needs them.

The header has 24 words of 32 bits, see `HEADER`; the weights follow as float32, all in little-endian order:

    for each convolution    depthwise (k, k, C) and pointwise (C, K), or of a standard one (k, k, C, K); bias (K,)
    for each norm           weight (C,), bias (C,)
"""

import struct
from collections.abc import Iterator

import numpy as np

from tinyseg.export.network import Convolution, Network

MAGIC, VERSION = 0x47455354, 1  # the letters TSEG
STANDARDIZE = {"section": 0, "stack": 1, "unit": 2}
# magic, version; in_channels, classes, width, levels, stem_layers, bottleneck_layers; separable, norm, groups,
# paper_head; eps; number of weights; how grey values are standardized; 0; scale of rows and columns; 0
HEADER = struct.Struct("<2i6i4if3i2d4i")
NORMS = {None: 0, "group": 1, "scale and shift": 2}


def pack(network: Network, scale: tuple[float, float] = (1, 1), standardize: str = "section") -> bytes:
    """Return the content of weights.bin.

    Parameters
    ----------
    network : Network
    scale : (float, float)
        Rows and columns of the network's image over those of the stored one; the program and the page read it.
    standardize : {"section", "stack", "unit"}
        As `tinyseg.data.standardize`.

    Raises
    ------
    ValueError
        The network is no U-Net of the shape that network.c computes.
    """
    parts = [part for part, _ in arrays(network)]
    return _header(network, scale, standardize) + b"".join(part.tobytes() for part in parts)


def arrays(network: Network) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield the arrays in the order of weights.bin, each with whether it is a large matrix."""
    for level in network.levels:
        for layer in (*([level.up] if level.up else []), *level.convolutions):
            yield from _of_convolution(layer)
        if level.norm is not None:
            yield from ((each.astype("<f4"), False) for each in (level.norm.weight, level.norm.bias))
    for layer in network.head:
        yield from _of_convolution(layer)


def _of_convolution(layer: Convolution) -> Iterator[tuple[np.ndarray, bool]]:
    matrix = layer.kernel.transpose(2, 3, 1, 0)
    if layer.depthwise is not None:
        yield layer.depthwise.transpose(1, 2, 0).astype("<f4"), False
        matrix = matrix[0, 0]
    yield np.ascontiguousarray(matrix, "<f4"), layer.size > 1
    yield layer.bias.astype("<f4"), False


def _header(network, scale, standardize):
    first, *others = network.encoder
    norms = [level.norm for level in network.levels]
    kinds = {norm and ("group" if norm.groups else "scale and shift") for norm in norms}
    groups, eps = max((norm.groups for norm in norms if norm), default=1) or 1, (norms[0].eps if norms[0] else 0.0)
    _check_shape(network, kinds, groups, eps)
    numbers = sum(part.size for part, _ in arrays(network))
    return HEADER.pack(
        MAGIC, VERSION, network.in_channels, network.num_classes, network.width, len(network.encoder),
        len(first.convolutions), len(others[-1].convolutions), others[0].convolutions[0].depthwise is not None,
        NORMS[kinds.pop()], groups, len(network.head) > 1, eps, numbers, STANDARDIZE[standardize], 0, *scale, 0, 0, 0,
        0,
    )  # fmt: skip


def _check_shape(network, kinds, groups, eps):
    """Raise a ValueError unless the network has the shape that `network_run` computes from the header alone."""
    width, separable = network.width, network.encoder[1].convolutions[0].depthwise is not None
    expected = []
    for number, level in enumerate(network.levels):
        depth = number if number < len(network.encoder) else 2 * len(network.decoder) - number
        for layer in level.convolutions:
            fits = len(layer.bias) == width << depth and layer.size == 3 and layer.relu and layer.upsample == 1
            is_stem = number == 0 and layer is level.convolutions[0]
            expected.append((layer.name, fits and (layer.depthwise is not None) == (separable and not is_stem)))
        if level.up:
            fits = level.up.size == 2 and level.up.upsample == 2 and level.up.relu
            expected.append((level.up.name, fits and (level.up.depthwise is not None) == separable))
        if norm := level.norm:
            expected.append((norm.name, norm.eps == eps and norm.groups in (0, _groups(groups, width << depth))))
    odd = [name for name, fits in expected if not fits]
    if odd or len(kinds) > 1:
        raise ValueError(
            f"{odd[0] if odd else 'Not every block has a norm, and the network'} differs from the U-Nets that "
            "tinyseg.models.build makes, and the C program and the page compute these alone: export it with --format "
            "onnx, which takes any."
        )


def _groups(most, channels):
    """Return the number of groups as network.c counts them."""
    return next(n for n in range(min(most, max(channels // 2, 1)), 0, -1) if channels % n == 0)
