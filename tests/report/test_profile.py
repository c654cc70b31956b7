"""The table: multiply-adds against the paper's equations and brute force; nothing is disturbed."""

import contextlib
import threading

import numpy as np
import pytest
from catalogue import ENTRIES

import tinyseg as ts
from tinyseg import nn, ops
from tinyseg.autograd import Function
from tinyseg.backend import devices
from tinyseg.data import memory
from tinyseg.report import profile
from tinyseg.report.profile.table import format_count
from tinyseg.report.profile.trace import trace


def quiet(model, shape, **options):
    return profile.summary(model, shape, show=False, **options)


# ----- multiply-adds ---------------------------------------------------------------
def standard(K, C, N, pixels):
    """Equation 1 of the paper."""
    return K * K * C * N * pixels


def separable(K, C, N, pixels):
    """Equation 2."""
    return K * K * C * pixels + C * N * pixels


def paper_unet(conv, width, pixels):
    """The 23 convolutions of the Keras U-Net, `conv` for all but the first and the last."""
    widths, pixels = [width * 2**level for level in range(5)], [pixels // 4**level for level in range(5)]
    total = standard(3, 1, width, pixels[0]) + conv(3, width, width, pixels[0])
    for level in range(1, 5):
        total += conv(3, widths[level - 1], widths[level], pixels[level])
        total += conv(3, widths[level], widths[level], pixels[level])
    for level in (3, 2, 1, 0):
        c, n = widths[level], pixels[level]
        total += conv(2, 2 * c, c, n) + conv(3, 2 * c, c, n) + conv(3, c, c, n)
    return total + conv(3, width, 2, pixels[0]) + standard(1, 2, 1, pixels[0])


@pytest.mark.parametrize(
    "name, conv, giga",
    [("unet", standard, "54.61 G"), ("unet_dw_gn", separable, "7.70 G"), ("unet_dw_bn", separable, "7.70 G")],
)
def test_the_papers_networks_have_the_multiply_adds_of_its_equations(name, conv, giga):
    assert format_count(paper_unet(conv, 64, 256 * 256)) == giga
    found = quiet(ts.models.build(name, head="paper", width=32), (1, 1, 48, 32))
    assert found.multiply_adds == paper_unet(conv, 32, 48 * 32)
    assert found.flops == 2 * found.multiply_adds
    assert f"multiply-adds  {format_count(found.multiply_adds)} = {format_count(found.flops)} FLOPs" in str(found)


def ones(*shape):
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    "op, joined",  # of x (2, 3, 9, 7), or of two such: without padding, so that a sum of ones is a number of products
    [
        (lambda x: ops.conv2d(x, ones(5, 3, 3, 2), stride=(2, 1)), 1),
        (lambda x: ops.depthwise_conv2d(x, ones(3, 2, 3), stride=2), 1),
        (lambda x: ops.depthwise_conv2d(x, ones(3, 2, 3), dilation=(3, 2), stride=2), 1),
        (lambda x: ops.pointwise_conv2d(x, ones(5, 3)), 1),
        (lambda x: ops.conv_transpose2d(x, ones(3, 5, 2, 3), stride=(2, 3)), 1),
        (lambda x: ops.fused_conv2d(x, ones(5, 6, 3, 2), upsample=2, activation="relu"), 2),
    ],
    ids=["conv2d", "depthwise", "dilated", "pointwise", "transposed", "fused"],
)
def test_an_op_counts_the_products_that_add_up_to_its_output(op, joined):
    class One(nn.Module):
        def forward(self, x):
            self.y = op([x] * joined if joined > 1 else x)
            return self.y

    expected = float(op([ones(2, 3, 9, 7)] * joined if joined > 1 else ones(2, 3, 9, 7)).data.sum())
    assert quiet(One(), (2, 3, 9, 7)).multiply_adds == expected


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if "conv" in entry[0]], ids=lambda entry: entry[0])
def test_no_convolution_is_forgotten(entry):
    _, f, x, *others = entry

    class One(nn.Module):
        def forward(self, x):
            return f(x, *(a.astype(np.float32) for a in others))

    assert quiet(One(), x.shape).multiply_adds > 0


def test_a_separable_op_counts_both_of_its_halves():
    layer = nn.SeparableConv2d(3, 5, (3, 2), stride=(2, 1), upsample=2, activation="relu")
    halves = nn.Sequential(
        nn.Upsample(2), nn.DepthwiseConv2d(3, (3, 2), stride=(2, 1)), nn.PointwiseConv2d(3, 5), nn.ReLU()
    )
    found, expected = quiet(layer, (2, 3, 9, 7)), quiet(halves, (2, 3, 9, 7))
    assert found.multiply_adds == expected.multiply_adds == (3 * 3 * 2 + 3 * 5) * 2 * 8 * 13
    assert [row.multiply_adds == 0 for row in expected.rows] == [True, True, False, False, True]


def test_fast_kernels_count_as_the_definition_does(kernels):
    """Also where they multiply less: Winograd's method, a convolution of an upsampled image."""
    model = nn.Sequential(nn.Conv2d(16, 16, 3, padding="same"), nn.Conv2d(16, 16, 2, padding="same", upsample=2))
    assert quiet(model, (1, 16, 48, 48)).multiply_adds == 16 * 16 * (9 * 48 * 48 + 4 * 96 * 96)


def test_what_runs_without_gradients_is_counted():
    class Frozen(nn.Module):
        def __init__(self):
            self.first, self.second = nn.Conv2d(1, 4, 3), nn.PointwiseConv2d(4, 2)

        def forward(self, x):
            with ts.no_grad():
                x = self.first(x)
            return self.second(x)

    found = quiet(Frozen(), (1, 1, 6, 5))
    assert found.multiply_adds == 36 * 12 + 8 * 12
    assert [row.activations for row in found.rows] == [0, 0, 4 * 4 * 12]  # second's input


def test_other_threads_are_not_counted_and_the_engine_is_left_as_it_was():
    call, model = Function.__call__, nn.PointwiseConv2d(1, 1)

    class Busy(nn.Module):
        def forward(self, x):
            other = threading.Thread(target=model, args=(x,))
            other.start()
            other.join()
            return model(x)

    assert quiet(Busy(), (1, 1, 4, 5)).multiply_adds == 20
    with pytest.raises(ValueError):
        quiet(ts.models.build("unet", width=2), (1, 1, 15, 16))
    assert Function.__call__ is call and nn.module._watchers == []


def test_two_threads_may_count_at_once():
    call, found = Function.__call__, []

    def count():
        found.append(quiet(ts.models.build("sdunet", width=4), (1, 1, 32, 32)).multiply_adds)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1 and Function.__call__ is call


def test_a_model_may_catch_the_errors_of_its_layers():
    class Careful(nn.Module):
        def __init__(self):
            self.fails, self.works = nn.Sequential(nn.PointwiseConv2d(3, 1)), nn.PointwiseConv2d(1, 2)

        def forward(self, x):
            with contextlib.suppress(ValueError):
                self.fails(x)
            return self.works(x)

    class Outer(nn.Module):
        def __init__(self):
            self.inner, self.last = Careful(), nn.PointwiseConv2d(2, 5)

        def forward(self, x):
            return self.last(self.inner(x))

    found = quiet(Outer(), (1, 1, 4, 5), depth=1)
    assert [(row.name, row.multiply_adds) for row in found.rows] == [("", 0), ("inner", 40), ("last", 200)]


# ----- ops that are not known --------------------------------------------------------
class Double(Function):
    def forward(self, x):
        return 2 * x

    def backward(self, gy):
        return 2 * gy


class Own(nn.Module):
    def __init__(self):
        self.conv = nn.PointwiseConv2d(1, 3)

    def forward(self, x):
        return Double()(self.conv(Double()(x)))


def test_an_unknown_op_is_listed_with_a_question_mark_and_counts_as_0():
    found = quiet(Own(), (1, 1, 4, 5))
    assert found.multiply_adds == 60 and found.unknown == ("Double",)
    assert [(row.kind, row.unknown) for row in found.rows] == [
        ("Own", ()), ("Double", ("Double",)), ("PointwiseConv2d", ()), ("Double", ("Double",))
    ]  # fmt: skip
    assert str(found).count(" ?\n") == 2 and "at least: Double not known" in str(found)
    assert "60 + ?" in str(quiet(Own(), (1, 1, 4, 5), depth=0))


def test_an_op_can_be_registered():
    class Triple(Double):
        pass

    profile.multiply_adds.register(Triple, lambda node, shapes, out: len(shapes) * out[-1])

    class Net(nn.Module):
        def forward(self, x):
            return Triple()(x)

    found = quiet(Net(), (1, 1, 4, 7))
    assert found.multiply_adds == 7 and found.unknown == ()


# ----- the model and its copy ----------------------------------------------------------
def test_the_model_stays_as_it_was():
    model = ts.models.build("unet_dw_bn", width=4).train()
    model.encoder[0].norm.training = False
    gradients = []
    for p in model.parameters():
        p.grad = np.full(p.shape, 3, np.float32)
        gradients.append(p.grad)
    arrays = [getattr(*where) for where in model.slots().values()]
    before = [a.copy() for a in arrays]
    flags = [module.training for _, module in model.named_modules()]
    quiet(model, (2, 1, 32, 32))
    assert all(a is getattr(*where) for a, where in zip(arrays, model.slots().values(), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))
    assert all(p.grad is g and (g == 3).all() for p, g in zip(model.parameters(), gradients, strict=True))
    assert flags == [module.training for _, module in model.named_modules()]


def test_the_run_itself_is_one_of_training():
    seen = trace(ts.models.build("unet_dw_bn", width=4).eval(), (2, 1, 32, 32))
    assert [d.counter[1] for d in seen.model.drops] == [1, 1]
    assert np.abs(seen.model.encoder[0].norm.running_mean).max() > 0


def test_the_copy_has_no_gradients():
    model = nn.PointwiseConv2d(1, 2)
    model.weight.grad = model.weight.data
    assert trace(model, (1, 1, 2, 3)).model.weight.grad is None


def test_float64_models_are_run_in_float64():
    model = nn.Conv2d(1, 2, 3, activation="relu").astype("float64")
    found = quiet(model, (1, 1, 5, 6))
    assert (found.weights, found.input, found.activations) == (8 * 20, 8 * 30, 8 * 2 * 3 * 4)


def test_wrong_arguments_get_a_sentence():
    model = ts.models.build("unet", width=2)
    with pytest.raises(ValueError, match="takes images of shape"):
        quiet(model, (1, 3, 32, 32))
    with pytest.raises(ValueError, match="multiples of 16"):
        quiet(model, (1, 1, 30, 32))
    with pytest.raises(ValueError, match="whole numbers of at least 1"):
        quiet(model, (1, 1, -32, 32))
    with pytest.raises(ValueError, match="whole numbers of at least 1"):
        quiet(model, (1, 1, 32.0, 32))
    with pytest.raises(TypeError, match="this is a function"):
        quiet(quiet, (1, 1, 32, 32))
    with ts.no_grad(), pytest.raises(RuntimeError, match="outside of it"):
        quiet(model, (1, 1, 32, 32))


def test_on_the_device(monkeypatch):
    """On arrays that do not mix with NumPy's, as a GPU's do not."""
    import fake_cupy

    model = ts.models.build("sdunet_bn", width=4)
    expected = quiet(model, (1, 1, 32, 32))
    monkeypatch.setattr(devices, "cp", fake_cupy)
    found = quiet(model.to("gpu"), (1, 1, 32, 32))
    assert found.multiply_adds == expected.multiply_adds and found.parameters == expected.parameters


# ----- input shapes ----------------------------------------------------------------
@pytest.mark.parametrize("shape", [64, None, "abcd", (1, 64, 64), (0, 1, 32, 32), (1, 1, -32, 32), (1, 1, 32.0, 32)])
def test_an_input_shape_that_is_none_is_refused(shape):
    model = ts.models.build("sdunet", width=2)
    calls = (profile.summary, profile.memory, profile.latency, lambda _, shape: profile.compare(["sdunet"], shape))
    for call in calls:
        with pytest.raises(
            ValueError, match=r"input_shape must be whole numbers of at least 1, \(N, C, H, W\), but is"
        ):
            call(model, shape)


@pytest.mark.parametrize("side", [2**10, 2**20, 2**40])
def test_an_input_shape_beyond_the_memory_is_refused_before_anything_is_made(side, monkeypatch):
    monkeypatch.setattr(memory, "memory_limit", lambda: 64 << 20)
    for call in (profile.summary, profile.memory, profile.latency):
        with pytest.raises(ValueError, match=r"input_shape \(1, 1, .* would take at least .* GiB of memory, and this"):
            call(ts.models.build("sdunet", width=2), (1, 1, side, side))


def test_a_batch_that_fits_is_profiled_and_one_that_does_not_is_refused_of_any_model(monkeypatch):
    monkeypatch.setattr(memory, "memory_limit", lambda: 4 * 32 * 32)
    assert quiet(nn.ReLU(), [1, 1, 32, np.int64(32)]).input == 4 * 32 * 32
    with pytest.raises(ValueError, match="give a smaller one"):
        quiet(nn.ReLU(), (1, 1, 32, 33))
