"""Describing a trained U-Net as a `Network` of plain arrays.

`describe` follows `tinyseg.models.UNet.forward` and leaves out what only training needs. Weight standardization is
applied to the kernels, once and for all. Dropout is gone. BatchNorm has become what it is after training, one factor
and one summand for each channel; it cannot vanish into the convolutions around it, since a ReLU comes before it and the
next convolution pads with zeros after it.
"""

import numpy as np

from tinyseg import nn
from tinyseg.autograd import Tensor
from tinyseg.backend import to_numpy
from tinyseg.export.network import Convolution, Level, Network, Norm
from tinyseg.models import UNet
from tinyseg.models.unet import Block, Up
from tinyseg.prediction.predictor import Predictor

CONVOLUTIONS = (nn.Conv2d, nn.SeparableConv2d, nn.PointwiseConv2d)
NORMS = (nn.GroupNorm, nn.BatchNorm2d)
KNOWN = (
    nn.Conv2d, nn.SeparableConv2d, nn.DepthwiseConv2d, nn.PointwiseConv2d, nn.GroupNorm, nn.BatchNorm2d, nn.Dropout,
    nn.Sequential, Block, Up, UNet,
)  # fmt: skip


def describe(model: UNet) -> Network:
    """Return what a network computes.

    Parameters
    ----------
    model : UNet
        Such as `tinyseg.models.build` makes, on any device.

    Returns
    -------
    Network
        Its arrays are copies.

    Raises
    ------
    ValueError
        The model is no `tinyseg.models.UNet`, or holds a layer that cannot be exported; the sentence names it.
    """
    _refuse_unknown(model)
    encoder = tuple(_level(f"encoder.{k}", block) for k, block in enumerate(model.encoder))
    ups = [_typed(up, f"decoder.{k}", Up) for k, up in enumerate(model.decoder)]
    decoder = tuple(
        _level(f"decoder.{k}.block", up.block, _convolution(f"decoder.{k}.conv", up.conv)) for k, up in enumerate(ups)
    )
    if isinstance(model.head, nn.Sequential):
        layers = [(k, layer) for k, layer in enumerate(model.head.layers) if not isinstance(layer, nn.Dropout)]
        head = tuple(_convolution(f"head.layers.{k}", layer) for k, layer in layers)
    else:
        head = (_convolution("head", model.head),)
    network = Network(model.in_channels, model.num_classes, encoder, decoder, head)
    if len(head[-1].bias) != model.num_classes:
        raise ValueError(
            f"The network says that it has {model.num_classes} classes, and its head gives {len(head[-1].bias)}."
        )
    _refuse_nonfinite(network)
    return network


def as_predictor(model: UNet | Predictor) -> Predictor:
    """Return the `Predictor` of a network, or the one that is given; raises as its constructor, and as `describe`."""
    if isinstance(model, Predictor):
        return model
    _refuse_no_network(model)
    return Predictor(model)


def _refuse_no_network(model):
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"export writes a network, but was given a {type(model).__name__}: read a file with "
            "tinyseg.checkpoint.load(path)."
        )


def _refuse_unknown(model):
    """Raise a ValueError unless the model is a U-Net of layers that are known, computed as `UNet.forward` does."""
    _refuse_no_network(model)
    for name, layer in model.named_modules():
        if name and type(layer) not in KNOWN:
            raise ValueError(
                f"{name} is a {type(layer).__name__}, and export does not know this layer: it writes U-Nets made of "
                f"{', '.join(cls.__name__ for cls in KNOWN[:7])}, as tinyseg.models.build makes them."
            )
        if "forward" in vars(layer):
            raise ValueError(
                f"{name or type(model).__name__} was given another forward, and export does not know what it computes: "
                "leave it as its class has it."
            )
    cls = type(model)
    if not isinstance(model, UNet) or cls.forward is not UNet.forward or cls.__call__ is not UNet.__call__:
        raise ValueError(
            f"{cls.__name__} has a forward of its own, and export does not know what it computes: it writes "
            "tinyseg.models.UNet and SDUNet, and classes made from them that leave their forward as it is."
        )


def _refuse_nonfinite(network):
    """Raise a ValueError if a weight is NaN, infinite or beyond float32."""
    for level in (*network.levels, Level(network.head, None)):
        for layer in (level.up, *level.convolutions, level.norm):
            arrays = [value for value in vars(layer).values() if isinstance(value, np.ndarray)] if layer else []
            if not all(np.isfinite(array).all() for array in arrays):
                raise ValueError(
                    f"{layer.name} of the network holds NaN, infinity or numbers beyond float32, or so large ones that "
                    "they become such: the file is damaged, or the training had diverged. Use another checkpoint."
                )


def _typed(layer, name, *classes):
    """Return the layer if it is of one of these classes; else raise a ValueError that names it."""
    if type(layer) not in classes:
        raise ValueError(
            f"{name} is a {type(layer).__name__}, and export writes networks in which it is one of "
            f"{', '.join(cls.__name__ for cls in classes)}, as tinyseg.models.build makes them."
        )
    return layer


def _level(name, block, up=None):
    _typed(block, name, Block)
    convolutions = tuple(_convolution(f"{name}.convs.{k}", layer) for k, layer in enumerate(block.convs))
    return Level(convolutions, _norm(f"{name}.norm", block.norm), up)


def _convolution(name, layer):
    _typed(layer, name, *CONVOLUTIONS)
    if isinstance(layer, nn.PointwiseConv2d):
        return Convolution(name, None, _array(layer.weight)[:, :, None, None], _bias(layer), 1, False)
    separable = isinstance(layer, nn.SeparableConv2d)
    first = layer.depthwise if separable else layer  # which has the window
    if first.stride not in (1, (1, 1)) or first.padding != "same" or getattr(first, "dilation", (1, 1)) != (1, 1):
        raise ValueError(
            f"{name} is {first}, and export writes convolutions that keep the size: stride 1, dilation 1, "
            'padding "same".'
        )
    if first.weight.shape[-1] != first.weight.shape[-2]:
        raise ValueError(f"{name} is {first}, and export writes convolutions with kernels that are as high as wide.")
    relu = layer.activation == "relu"
    if not separable:
        return Convolution(name, None, _array(layer.weight), _bias(layer), layer.upsample, relu)
    pointwise = _array(layer.pointwise.weight)[:, :, None, None]
    return Convolution(name, _array(first.kernel()), pointwise, _bias(layer.pointwise), layer.upsample, relu)


def _norm(name, layer):
    if layer is None:
        return None
    _typed(layer, name, *NORMS)
    weight, bias = _array(layer.weight), _array(layer.bias)
    if isinstance(layer, nn.GroupNorm):
        return Norm(name, layer.num_groups, weight, bias, layer.eps)
    mean, variance = _array(layer.running_mean).astype(float), _array(layer.running_var).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):  # `_refuse_nonfinite` says it
        factor = weight / np.sqrt(variance + layer.eps)
        return Norm(name, 0, _array(factor), _array(bias - mean * factor), 0.0)


def _bias(layer):
    return np.zeros(layer.weight.shape[0], np.float32) if layer.bias is None else _array(layer.bias)


def _array(value):
    """Return a parameter, a tensor or an array as a float32 NumPy array of its own."""
    array = to_numpy(value.data if isinstance(value, Tensor) else value)  # other arrays have a `data` too
    with np.errstate(over="ignore"):  # `_refuse_nonfinite` says it
        return np.array(array, np.float32)
