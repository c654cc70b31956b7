"""Networks that `tinyseg.models.build` does not make as they are: exported right, or refused with a sentence."""

import numpy as np
import pytest

from tests.export.networks import trained_like
from tests.export.test_describing import compute
from tinyseg import models, nn, no_grad
from tinyseg.export.describing import describe

SMALL = {"name": "sdunet", "width": 8, "levels": 3}
BATCH = {"name": "sdunet_bn", "width": 8, "levels": 3}


def layers(model, cls):
    return [layer for _, layer in model.named_modules() if isinstance(layer, cls)]


def narrow():
    return trained_like(name="sdunet", width=1, levels=2)


def seven_to_eleven():
    return trained_like(**SMALL, in_channels=7, num_classes=11)


def groups_that_do_not_divide():
    return trained_like(**SMALL, groups=7)


def double_precision():
    return trained_like(**SMALL).astype("float64")


def in_training():
    return trained_like(**BATCH).train()


def another_eps():
    model = trained_like(**SMALL)
    for norm in layers(model, nn.GroupNorm):
        norm.eps = 0.1
    return model


def variance_of_zero():
    model = trained_like(**BATCH)
    for norm in layers(model, nn.BatchNorm2d):
        norm.running_var[:3] = 0
    return model


def means_far_from_zero():
    model = trained_like(**BATCH)
    for norm in layers(model, nn.BatchNorm2d):
        norm.running_mean[:] += 1000
    return model


def large_weights():
    model = trained_like(**SMALL)
    for parameter in model.parameters():
        parameter.data = parameter.data * np.float32(1000)
    return model


def even_kernels():
    model = trained_like(**SMALL)
    model.encoder[1].convs[0] = nn.Conv2d(8, 16, 4, padding="same")
    return model


def a_large_separable_kernel():
    model = trained_like(**SMALL)
    model.encoder[1].convs[0] = nn.SeparableConv2d(8, 16, 5, padding="same", ws="filter")
    return model


def pointwise_in_a_block():
    model = trained_like(**SMALL)
    model.encoder[1].convs[0] = nn.PointwiseConv2d(8, 16, bias=False)
    return model


def dropout_in_the_head():
    model = trained_like(**SMALL)
    model.head = nn.Sequential(nn.Dropout(), model.head)
    return model.eval()


def head_of_relus():
    model = trained_like(**SMALL)
    model.head = nn.Sequential(model.head, nn.Conv2d(1, 1, 3, padding="same", activation="relu"))
    return model


class Renamed(models.SDUNet):
    """Nothing changed."""


def subclass():
    return Renamed(width=4, levels=2).eval()


@pytest.mark.parametrize(
    "make",
    [
        narrow, seven_to_eleven, groups_that_do_not_divide, double_precision, in_training, another_eps,
        variance_of_zero, means_far_from_zero, large_weights, even_kernels, a_large_separable_kernel,
        pointwise_in_a_block, dropout_in_the_head, head_of_relus, subclass,
    ],
)  # fmt: skip
def test_it_is_exported_as_it_computes(make):
    model = make()
    network = describe(model)
    x = np.random.default_rng(0).normal(size=(1, network.in_channels, 3 * network.multiple, 2 * network.multiple))
    exact = model.astype("float64").eval()
    with no_grad():
        expected = exact(x).data[0]
    np.testing.assert_allclose(compute(network, x[0]), expected, rtol=0, atol=1e-5 * abs(expected).max())


def test_batch_norm_on_a_gpu_is_exported(stand_in):
    model = trained_like(**BATCH)
    here = describe(model)
    there = describe(model.to("gpu"))
    for a, b in zip(there.levels, here.levels, strict=True):
        np.testing.assert_allclose(a.norm.bias, b.norm.bias, rtol=1e-6)


def changed(change):
    model = trained_like(**SMALL)
    change(model)
    return model


def put(model, path, layer):
    """Put a layer at a place such as "encoder.1.norm" or "encoder.1.convs.0"."""
    *way, last = path.split(".")
    for name in way:
        model = model[int(name)] if name.isdigit() else getattr(model, name)
    if last.isdigit():
        model[int(last)] = layer
    else:
        setattr(model, last, layer)


LAYERS = {
    "high kernel": ("encoder.1.convs.0", nn.Conv2d(8, 16, (3, 1), padding="same"), "as high as wide"),
    "wide kernel": ("encoder.1.convs.0", nn.Conv2d(8, 16, (1, 3), padding="same"), "as high as wide"),
    "separable": ("encoder.1.convs.0", nn.SeparableConv2d(8, 16, (5, 3), padding="same"), "as high as wide"),
    "depthwise": ("encoder.1.convs.1", nn.DepthwiseConv2d(16, 3, padding="same"), "a DepthwiseConv2d.*Conv2d, Sep"),
    "dropout": ("encoder.1.convs.1", nn.Dropout(), "a Dropout.*Conv2d, Separable"),
    "several": ("encoder.1.convs.1", nn.Sequential(nn.PointwiseConv2d(16, 16)), "a Sequential.*Conv2d, Separable"),
    "no norm": ("encoder.1.norm", nn.Dropout(), "a Dropout.*GroupNorm, BatchNorm2d"),
    "norms": ("encoder.1.norm", nn.Sequential(nn.GroupNorm(4, 16)), "a Sequential.*GroupNorm, BatchNorm2d"),
    "no block": ("encoder.1", nn.Sequential(nn.PointwiseConv2d(8, 16)), "a Sequential.*one of Block"),
    "no up": ("decoder.1", nn.Sequential(nn.PointwiseConv2d(8, 16)), "a Sequential.*one of Up"),
}


@pytest.mark.parametrize("case", LAYERS)
def test_a_layer_in_a_place_where_it_is_not_known_is_named(case):
    path, layer, sentence = LAYERS[case]
    model = trained_like(**SMALL)
    put(model, path, layer)
    with pytest.raises(ValueError, match=rf"^{path} is .*{sentence}"):
        describe(model)


def test_another_forward_of_one_layer_is_named():
    model = trained_like(**SMALL)
    norm = model.encoder[1].norm
    before = norm.forward
    norm.forward = lambda x: before(x) * 2
    with pytest.raises(ValueError, match=r"^encoder\.1\.norm was given another forward"):
        describe(model)


class Doubled(models.UNet):
    def __call__(self, x):
        return super().__call__(x) * 2


def test_a_network_that_is_called_otherwise_is_refused():
    with pytest.raises(ValueError, match="^Doubled has a forward of its own"):
        describe(Doubled(width=2, levels=2))


NUMBERS = {
    "NaN": (SMALL, "head.weight", np.nan, "^head of the network holds NaN"),
    "infinity": (SMALL, "head.bias", -np.inf, "^head of the network holds NaN"),
    "beyond float32": (SMALL, "decoder.0.conv.pointwise.weight", 1e200, r"^decoder\.0\.conv of the network holds NaN"),
    "no variance, no eps": (BATCH, "encoder.0.norm.running_var", 0, r"^encoder\.0\.norm of the network holds NaN"),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_weights_that_are_no_numbers_are_named(case):
    options, name, value, sentence = NUMBERS[case]
    model = trained_like(**options).astype("float64")
    for norm in layers(model, nn.BatchNorm2d):
        norm.eps = 0.0
    state = model.state_dict()
    state[name] = np.full_like(state[name], value)
    model.load_state_dict(state)
    with pytest.raises(ValueError, match=sentence):
        describe(model)


def test_a_head_of_other_classes_is_named():
    model = trained_like(**SMALL)
    model.head = nn.PointwiseConv2d(8, 3)
    with pytest.raises(ValueError, match="^The network says that it has 1 classes, and its head gives 3"):
        describe(model)


@pytest.mark.parametrize("thing", ["best.safetensors", None, {"model": 1}], ids=str)
def test_what_is_no_network_is_named(thing):
    with pytest.raises(ValueError, match=rf"^export writes a network, but was given a {type(thing).__name__}"):
        describe(thing)
