"""What `describe` gives is computed here with SciPy alone, and equals what the model gives."""

import numpy as np
import pytest
import scipy.ndimage

from tests.export.networks import CASES, trained_like
from tinyseg import models, nn, no_grad
from tinyseg.export.describing import describe


def convolve(x, layer):
    """One convolution of `describe` on (C, H, W), by SciPy."""
    x = x.repeat(layer.upsample, axis=1).repeat(layer.upsample, axis=2)
    k = layer.size
    taps = (slice(None), slice(0, x.shape[1]), slice(0, x.shape[2]))
    padded = np.pad(x, ((0, 0), ((k - 1) // 2, k // 2), ((k - 1) // 2, k // 2)))

    def window(channel, kernel):
        return scipy.ndimage.correlate(channel, kernel, mode="constant", origin=-(k // 2))[taps[1:]]

    if layer.depthwise is not None:
        x = np.stack([window(c, kernel) for c, kernel in zip(padded, layer.depthwise.astype(float), strict=True)])
        y = np.tensordot(layer.kernel[:, :, 0, 0].astype(float), x, 1)
    else:
        y = np.stack([sum(map(window, padded, of_one)) for of_one in layer.kernel.astype(float)])
    y = y + layer.bias[:, None, None]
    return np.maximum(y, 0) if layer.relu else y


def normalize(x, norm):
    if norm is None:
        return x
    if norm.groups:
        g = x.reshape(norm.groups, -1)
        x = ((g - g.mean(1, keepdims=True)) / np.sqrt(g.var(1, keepdims=True) + norm.eps)).reshape(x.shape)
    return x * norm.weight[:, None, None] + norm.bias[:, None, None]


def compute(network, x):
    skips = []
    for level, each in enumerate(network.encoder):
        if level:
            C, H, W = x.shape
            x = x.reshape(C, H // 2, 2, W // 2, 2).max(axis=(2, 4))
        for layer in each.convolutions:
            x = convolve(x, layer)
        x = normalize(x, each.norm)
        skips.append(x)
    skips.pop()
    for each in network.decoder:
        x = np.concatenate([skips.pop(), convolve(x, each.up)])
        for layer in each.convolutions:
            x = convolve(x, layer)
        x = normalize(x, each.norm)
    for layer in network.head:
        x = convolve(x, layer)
    return x


@pytest.mark.parametrize("options", CASES, ids=lambda o: "-".join(map(str, o.values())))
def test_the_arrays_give_what_the_model_gives(options):
    model = trained_like(**options)
    network = describe(model)
    x = np.random.default_rng(0).normal(size=(1, network.in_channels, 3 * network.multiple, 2 * network.multiple))
    with no_grad():
        expected = model(x.astype(np.float32)).data[0]
    np.testing.assert_allclose(compute(network, x[0]), expected, rtol=0, atol=2e-5 * abs(expected).max())
    assert network.multiple == model.multiple and network.num_classes == model.num_classes
    assert network.width == options.get("width", 64)


def test_an_exported_network_keeps_nothing_of_the_model():
    model = trained_like(name="unet", width=4)
    network = describe(model)
    before = network.encoder[0].convolutions[0].kernel.copy()
    model.encoder[0].convs[0].weight.data[:] = 7
    np.testing.assert_array_equal(network.encoder[0].convolutions[0].kernel, before)


def test_a_layer_that_is_not_known_is_named():
    model = models.build("sdunet", width=4, levels=2)
    model.encoder[1].norm = nn.Upsample(2)
    with pytest.raises(ValueError, match=r"^encoder\.1\.norm is a Upsample, and export does not know.*GroupNorm"):
        describe(model)


def test_a_convolution_with_another_stride_is_named():
    model = models.build("unet", width=4, levels=2)
    model.encoder[0].convs[1].stride = 2
    with pytest.raises(ValueError, match=r"^encoder\.0\.convs\.1 is Conv2d.*stride 1"):
        describe(model)


class Own(nn.Module):
    def __init__(self):
        self.first = nn.PointwiseConv2d(1, 1)

    def forward(self, x):
        return self.first(x)


class OwnForward(models.UNet):
    def forward(self, x):
        return super().forward(x) * 2


@pytest.mark.parametrize("model", [Own(), OwnForward(width=2, levels=2)], ids=["module", "subclass"])
def test_a_network_with_a_forward_of_its_own_is_refused(model):
    with pytest.raises(ValueError, match=rf"^{type(model).__name__} has a forward of its own.*UNet and SDUNet"):
        describe(model)
