import numpy as np
import pytest

import tinyseg as ts
from tinyseg import nn, ops
from tinyseg.nn import init


class Net(nn.Module):
    def __init__(self):
        self.first = nn.Conv2d(2, 3, (3, 1), rng=1)
        self.rest = [nn.BatchNorm2d(3), nn.Sequential(nn.ReLU(), nn.Dropout(0.25, rng=2), nn.PointwiseConv2d(3, 4))]
        self.scale = nn.Parameter(np.ones((1, 4, 1, 1), np.float32))

    def forward(self, x):
        x = self.first(x)
        for layer in self.rest:
            x = layer(x)
        return x * self.scale


def batch(seed=0, shape=(2, 2, 5, 6)):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_parameters_are_found_in_attributes_lists_and_below_in_order_of_definition():
    names = [name for name, _ in Net().named_parameters()]
    assert names == [
        "scale", "first.weight", "first.bias", "rest.0.weight", "rest.0.bias",
        "rest.1.layers.2.weight", "rest.1.layers.2.bias"
    ]  # fmt: skip
    assert Net().num_parameters() == 4 + (2 * 3 * 3 + 3) + 6 + (12 + 4)


def test_state_goes_over_and_makes_equal_outputs():
    a, b = Net(), Net()
    for p in a.parameters():
        p.data += 0.1
    a(batch())  # moves the running statistics and the dropout counter
    b.load_state_dict(a.state_dict())
    assert "rest.0.running_var" in a.state_dict() and "rest.1.layers.1.counter" in a.state_dict()
    for mode in (True, False):
        np.testing.assert_array_equal(a.train(mode)(batch(1)).data, b.train(mode)(batch(1)).data)


def test_load_state_dict_lists_what_does_not_fit_and_changes_nothing():
    net, state = Net(), Net().state_dict()
    before = {k: v.copy() for k, v in net.state_dict().items()}
    wrong = {k: v + 1 for k, v in state.items() if k != "first.bias"} | {"extra": np.zeros(1)}
    wrong["scale"] = np.zeros(3)
    with pytest.raises(
        ValueError, match=r"missing: first\.bias; unexpected: extra; scale: expected the shape \(1, 4, 1, 1\)"
    ):
        net.load_state_dict(wrong)
    for k, v in net.state_dict().items():
        np.testing.assert_array_equal(v, before[k])


def test_train_and_eval_reach_every_module():
    net = Net()
    assert all(not m.training for _, m in net.eval().named_modules())
    assert all(m.training for _, m in net.train().named_modules())


def test_eval_is_deterministic_and_train_is_not():
    net = Net()
    assert not np.array_equal(net(batch()).data, net(batch()).data)
    net.eval()
    np.testing.assert_array_equal(net(batch()).data, net(batch()).data)


def test_evaluation_holds_in_its_block_and_changes_no_mode():
    net = Net()
    net.first.eval()
    with nn.evaluation():
        assert not any(m.training for _, m in net.named_modules())
        np.testing.assert_array_equal(net(batch()).data, net(batch()).data)
    assert net.training and not net.first.training


def test_astype_converts_floats_and_leaves_counters():
    net = Net().astype("float64")
    assert net(batch().astype("float64")).dtype == np.float64
    assert net.rest[1].layers[1].counter.dtype.kind == "i"


def test_repr_shows_the_tree():
    text = repr(Net())
    assert "(first): Conv2d(2 -> 3, 3x1" in text and "\n    (layers.2): PointwiseConv2d(3 -> 4)" in text


def test_watch_sees_every_module_once_and_only_inside_the_block():
    net, seen = Net(), []
    with nn.watch(lambda module, y: seen.append((type(module).__name__, y.shape))):
        net(batch())
    net(batch())
    assert [name for name, _ in seen] == [
        "Conv2d", "BatchNorm2d", "ReLU", "Dropout", "PointwiseConv2d", "Sequential", "Net"
    ]  # fmt: skip
    assert seen[-1][1] == (2, 4, 3, 6)


def test_watch_tells_when_a_module_begins():
    net, depths, deepest = Net(), [0], [0]

    def begin(module):
        depths[0] += 1
        deepest[0] = max(deepest[0], depths[0])

    def end(module, y):
        depths[0] -= 1

    with nn.watch(end, begin):
        net(batch())
    assert depths == [0] and deepest == [3]  # Net, Sequential, a layer in it


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 5, (3, 2), stride=2, padding="same", rng=0),
        nn.DepthwiseConv2d(3, 3, ws="filter", bias=True, rng=0),
        nn.DepthwiseConv2d(3, (2, 3), ws="layer", ws_gain=False, rng=0),
        nn.DepthwiseConv2d(3, (2, 3), padding="same", ws="layer", rng=0, dilation=(3, 2)),
        nn.SeparableConv2d(3, 5, 2, ws="layer", rng=0),
        nn.ConvTranspose2d(3, 5, 2, stride=2, rng=0),
        nn.GroupNorm(3, 3),
        nn.BatchNorm2d(3),
        nn.Sequential(nn.MaxPool2d(2), nn.Upsample(3, "bilinear"), nn.ReLU()),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_every_parameter_of_every_layer_gets_the_right_gradient(layer):
    layer.astype("float64")
    if isinstance(layer, nn.BatchNorm2d):
        layer.momentum = 0.0  # the check calls the layer several times
    rng = np.random.default_rng(0)
    places = [(m, n) for _, m in layer.named_modules() for n, v in vars(m).items() if isinstance(v, nn.Parameter)]
    values = [rng.standard_normal(vars(module)[name].shape) for module, name in places]
    x = rng.permutation(np.linspace(-1, 1, 2 * 3 * 7 * 6)).reshape(2, 3, 7, 6)  # spaced: away from kinks

    def f(x, *weights):
        for (module, name), w in zip(places, weights, strict=True):
            vars(module)[name] = w
        return layer(x)

    ts.check_grads(f, x, *values)


def test_he_normal_is_truncated_and_has_the_variance_that_keras_documents():
    w = init.he_normal(np.random.default_rng(0), (200_000,), fan_in=50, gain=2.0)
    assert w.dtype == np.float32
    assert abs(w.std() / np.sqrt(2 / 50) - 1) < 0.01 and abs(w.mean()) < 0.002
    assert abs(w).max() <= 2 * np.sqrt(2 / 50) / 0.8796 + 1e-6


@pytest.mark.parametrize("layer", [nn.Conv2d(64, 64, 3, rng=0), nn.PointwiseConv2d(64, 64, rng=0)])
def test_a_layer_with_relu_keeps_the_scale(layer):
    x = np.random.default_rng(1).standard_normal((1, 64, 40, 40)).astype(np.float32)
    y = ops.relu(layer(x)).data[:, :, 2:-2, 2:-2]
    assert 0.8 < (y * y).mean() < 1.25


def test_a_depthwise_layer_keeps_the_scale_with_and_without_standardization():
    x = np.random.default_rng(1).standard_normal((1, 256, 20, 20)).astype(np.float32)
    for ws in (None, "layer", "filter"):
        y = nn.DepthwiseConv2d(256, 3, ws=ws, rng=0)(x).data[:, :, 2:-2, 2:-2]
        assert 0.8 < (y * y).mean() < 1.25, ws


def test_a_depthwise_layer_hands_its_dilation_to_the_op():
    x = batch(shape=(1, 2, 9, 8))
    plain, dilated = (nn.DepthwiseConv2d(2, 3, 2, 3, True, rng=0, dilation=d) for d in (1, (1, 3)))
    arguments = plain.weight, plain.bias
    np.testing.assert_array_equal(plain(x).data, ops.depthwise_conv2d(x, *arguments, 2, 3).data)
    np.testing.assert_array_equal(dilated(x).data, ops.depthwise_conv2d(x, *arguments, 2, 3, (1, 3)).data)
    assert plain(x).shape == (1, 2, 7, 6) and dilated(x).shape == (1, 2, 7, 4)
    assert "dilation" not in repr(plain) and "padding=3, dilation=(1, 3)" in repr(dilated)
    with pytest.raises(ValueError, match="dilation must be an integer or a pair"):
        nn.DepthwiseConv2d(2, 3, dilation="2")


def test_dropout_in_evaluation_gives_a_tensor_of_a_plain_array():
    x = np.ones((1, 2, 3, 4), np.float32)
    y = nn.Dropout(0.5).eval()(x)
    assert isinstance(y, ts.Tensor) and y.data is x


def test_dropout_layers_of_one_generator_draw_different_masks_and_never_repeat():
    rng = np.random.default_rng(0)
    a, b = nn.Dropout(0.5, rng=rng), nn.Dropout(0.5, rng=rng)
    x = np.ones((1, 4, 8, 8), np.float32)
    masks = [layer(x).data.tobytes() for layer in (a, b, a, b)]
    assert len(set(masks)) == 4


def test_group_norm_layer_refuses_uneven_groups():
    with pytest.raises(ValueError, match="6 channels cannot be split into 4"):
        nn.GroupNorm(4, 6)


def test_shared_modules_and_parameters_count_once():
    net = Net()
    net.again, net.twin = net.first, net.scale
    assert net.num_parameters() == Net().num_parameters()
    assert len(net.state_dict()) == len(Net().state_dict())


def test_layers_have_pytorchs_defaults():
    x = batch(shape=(1, 2, 7, 9))
    assert nn.Conv2d(2, 3, 3)(x).shape == (1, 3, 5, 7)
    assert nn.DepthwiseConv2d(2, 3)(x).shape == nn.SeparableConv2d(2, 2, 3)(x).shape == (1, 2, 5, 7)
    assert nn.BatchNorm2d(2, 1e-3).eps == 1e-3
    with pytest.raises(ValueError, match=r"p must be a number in the interval \[0, 1\), but is 1.5"):
        nn.Dropout(1.5)
    assert len(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))) == 2
