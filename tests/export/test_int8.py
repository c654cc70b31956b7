"""The integers of a network with 8 bits: how they are chosen, and what they give."""

import numpy as np
import pytest

from tests.export.networks import trained_like
from tinyseg import no_grad
from tinyseg.data import em_sections, standardize
from tinyseg.export import calibration
from tinyseg.export.calibration import SIDE, _Histogram, quantize
from tinyseg.export.describing import describe
from tinyseg.export.int8 import IntegerConvolution, Quantizer

SDUNET = {"name": "sdunet", "width": 8, "levels": 3}
KINDS = [
    SDUNET, {"name": "unet", "width": 4, "levels": 3}, {"name": "unet_dw_bn", "width": 8, "levels": 2},
    {"name": "sdunet", "width": 6, "levels": 2, "head": "paper", "num_classes": 3},
]  # fmt: skip


def sections(count=6, seed=0):
    return list(standardize(em_sections(count, size=96, seed=seed)[0])[:, None, :, :64])


# ----- one convolution -----------------------------------------------------------------
def by_hand(convolution, q):
    """Add up products of integers in Python, for one image (C, H, W)."""
    (K, _, k, _), (C, H, W) = convolution.kernel.shape, q.shape
    out = np.zeros((K, H, W), np.uint8)
    for channel in range(K):
        read = [channel] if convolution.depthwise else range(C)
        for i in range(H):
            for j in range(W):
                total = int(convolution.bias[channel])
                for n, c in enumerate(read):
                    for u in range(k):
                        for v in range(k):
                            row, column = i + u - (k - 1) // 2, j + v - (k - 1) // 2
                            if 0 <= row < H and 0 <= column < W:
                                step = int(q[c, row, column]) - convolution.x.zero_point
                                total += step * int(convolution.kernel[channel, n, u, v])
                stands_for = total * float(convolution.scale[channel]) * float(convolution.x.scale)
                out[channel, i, j] = np.clip(
                    round(stands_for / float(convolution.y.scale)) + convolution.y.zero_point, 0, 255
                )
    return out


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(("K", "C", "depthwise"), [(4, 3, False), (2, 1, False), (3, 3, True)])
def test_a_convolution_is_a_sum_of_products_of_integers(k, K, C, depthwise):
    rng = np.random.default_rng(k)
    convolution = IntegerConvolution(
        rng.integers(-63, 64, (K, 1 if depthwise else C, k, k)).astype(np.int8),
        rng.uniform(0.01, 0.03, K).astype(np.float32), rng.integers(-3000, 3000, K).astype(np.int32),
        Quantizer(np.float32(0.013), 120), Quantizer(np.float32(0.017), 31), depthwise,
    )  # fmt: skip
    q = rng.integers(0, 256, (2, C, 5, 6)).astype(np.uint8)
    found = convolution(q)
    assert found.dtype == np.uint8 and len(np.unique(found)) > 5
    np.testing.assert_array_equal(found, [by_hand(convolution, image) for image in q])


def test_sums_that_float32_would_round_are_exact():
    kernel = np.full((1, 1100, 3, 3), 63, np.int8)
    ones = np.ones(1, np.float32)
    convolution = IntegerConvolution(kernel, ones, np.zeros(1, np.int32), Quantizer(ones[0], 0), Quantizer(ones[0], 0))
    q = np.full((1, 1100, 3, 3), 255, np.uint8)
    q[0, 0, 1, 1] = 254
    assert convolution.sums(q)[0, 0, 1, 1] == 63 * (255 * 9900 - 1) > 2**24


def test_integers_stand_for_the_range_and_0_is_exact():
    rng = np.random.default_rng(0)
    for low, high in ((-3.2, 4.1), (0, 7), (-0.4, 0), (-1e-3, 100)):
        quantizer = Quantizer.of_range(low, high)
        x = np.append(rng.uniform(low, high, 1000), [low, high, 0]).astype(np.float32)
        back = quantizer.dequantize(quantizer.quantize(x))
        assert np.abs(back - x).max() <= 0.501 * quantizer.scale + 1e-7 and back[-1] == 0
        np.testing.assert_array_equal(quantizer.quantize(back), quantizer.quantize(x))
        assert np.array_equal(quantizer.quantize(np.float32([2 * low - 1, 2 * high + 1])), [0, 255])


# ----- a network -------------------------------------------------------------------------
@pytest.mark.parametrize("options", KINDS, ids=lambda o: "-".join(map(str, o.values())))
def test_a_network_of_integers_gives_about_what_the_float_one_gives(options):
    model = trained_like(**options)
    quantized = quantize(describe(model), sections())
    x = np.stack(sections(3, seed=7))
    with no_grad():
        y = model(x).data
    spread = y.max() - y.min()
    assert 0 < np.abs(quantized(x) - y).mean() < 0.02 * spread  # rounding to 255 steps a layer; a wrong scale gives 0.2
    assert "head" not in quantized.convolutions and len(quantized.convolutions) > 7


@pytest.mark.parametrize("kernel_bits", [4, 7])
@pytest.mark.parametrize("per_channel", [True, False])
def test_kernels_and_biases_stand_for_the_floats(per_channel, kernel_bits):
    network = describe(trained_like(**SDUNET))
    quantized = quantize(network, sections(), per_channel=per_channel, kernel_bits=kernel_bits)
    layers = [layer for level in network.levels for layer in (*level.convolutions, level.up) if layer]
    parts = [part for layer in layers for part in layer.parts]
    assert [part.name for part in parts if part.depthwise] and len(parts) == len(quantized.convolutions)
    for part in parts:
        found = quantized.convolutions[part.name]
        most = 2 ** (kernel_bits - 1) - 1
        assert found.kernel.dtype == np.int8 and np.abs(found.kernel.astype(int)).max() == most
        assert (len(set(found.scale)) > 1) == (per_channel and len(part.kernel) > 1)
        scale = found.scale[:, None, None, None]
        assert (np.abs(found.kernel * scale - part.kernel) <= 0.5001 * scale).all()
        unit = found.scale * found.x.scale
        np.testing.assert_allclose(found.bias * unit, part.bias, rtol=0, atol=0.51 * unit.max())


def test_what_a_convolution_reads_of_the_one_before_has_its_integers():
    quantized = quantize(describe(trained_like(**SDUNET)), sections()).convolutions
    first, depthwise, second = (quantized[f"encoder.1.convs.{n}"] for n in ("0", "1.depthwise", "1"))
    assert first.y == depthwise.x and depthwise.y == second.x
    assert first.y.zero_point == second.y.zero_point == 0 < depthwise.y.zero_point  # a ReLU is the range of its output


def test_integers_use_the_whole_range_of_the_images():
    images = sections()
    x = quantize(describe(trained_like(**SDUNET)), images, percentile=100).convolutions["encoder.0.convs.0"].x
    assert -x.zero_point * x.scale == pytest.approx(np.min(images), abs=2 * float(x.scale))
    assert (255 - x.zero_point) * x.scale == pytest.approx(np.max(images), abs=2 * float(x.scale))


def test_a_filter_that_has_died_keeps_its_bias():
    model = trained_like(**SDUNET)
    layer = model.encoder[1].convs[0].pointwise
    layer.weight.data[3], layer.bias.data[3] = 0, 0.7
    network = describe(model)
    quantized = quantize(network, sections())
    found = quantized.convolutions["encoder.1.convs.0"]
    assert found.bias[3] * float(found.scale[3]) * float(found.x.scale) == pytest.approx(0.7, rel=1e-5)
    x = np.stack(sections(2, seed=7))
    with no_grad():
        y = model(x).data
    assert np.abs(quantized(x) - y).mean() < 0.02 * (y.max() - y.min())


def test_blank_images_make_a_network_that_runs():
    quantized = quantize(describe(trained_like(**SDUNET)), [np.zeros((1, 16, 24), np.float32)])
    assert np.isfinite(quantized(np.stack(sections(1)))).all()


# ----- ranges --------------------------------------------------------------------------
@pytest.mark.parametrize("percentile", [100, 99.99, 99])
@pytest.mark.parametrize("shift", [0, 3])
def test_a_range_holds_its_share_of_the_values(percentile, shift):
    """Of sorted values, whichever part of them comes first: the bins grow with the values."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(shift, scale, n).astype(np.float32) for scale, n in ((0.1, 9000), (1, 5000), (0.5, 9), (9, 40))]
    histogram = _Histogram()
    for part in parts:
        histogram.add(part)
    values = np.sort(np.concatenate(parts))
    left_out = int((100 - percentile) / 200 * values.size)
    low, high = values[left_out], values[-1 - left_out]
    width = 2 * histogram.limit / len(histogram.counts)
    np.testing.assert_allclose(histogram.limits(percentile), (min(low, 0), max(high, 0)), rtol=0, atol=2 * width)
    assert histogram.counts.sum() == 14049


def test_a_range_of_a_relu_begins_at_0_and_one_of_zeros_is_nothing():
    histogram = _Histogram()
    assert histogram.limits(99.99) == (0, 0)
    histogram.add(np.maximum(np.random.default_rng(0).normal(size=1000), 0))
    assert histogram.limits(100)[0] == 0 and histogram.limits(99)[0] == 0


def test_of_large_images_the_middle_is_used_and_of_many_the_first(monkeypatch):
    given, network = [], describe(trained_like(**SDUNET))
    add = _Histogram.add
    monkeypatch.setattr(_Histogram, "add", lambda self, x: given.append(x.copy()) or add(self, x))
    monkeypatch.setattr(calibration, "AT_MOST", 2)
    large = np.zeros((1, SIDE + 20, 8), np.float32)
    large[0, 10] = 1  # the first row that is used
    quantize(network, [large, *sections()])
    first = [x for x in given if x.shape[1] == 1]
    assert [x.shape for x in first] == [(1, 1, SIDE, 8), (1, 1, 96, 64)] and (first[0][0, 0, 0] == 1).all()


# ----- what cannot be --------------------------------------------------------------------
@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], "no image to take the ranges.*20 to 50"),
        ([np.zeros((8, 8))], r"arrays \(C, H, W\).*float64 \(8, 8\)"),
        ([np.full((1, 8, 8), np.nan)], "finite numbers"),
        ([np.zeros((2, 8, 8))], r"arrays \(1, H, W\).*\(2, 8, 8\)"),
        ([np.zeros((1, 9, 8))], "multiples of 4"),
    ],
)
def test_images_that_do_not_fit_are_refused(images, words):
    with pytest.raises(ValueError, match=words):
        quantize(describe(trained_like(**SDUNET)), images)


def test_what_was_not_described_is_refused():
    with pytest.raises(ValueError, match="describe"):
        quantize(trained_like(**SDUNET), sections(1))


def test_kernels_of_more_bits_than_a_byte_has_are_refused():
    with pytest.raises(ValueError, match="from 2 to 8, but is 16"):
        quantize(describe(trained_like(**SDUNET)), sections(1), kernel_bits=16)


def test_a_percentile_that_cuts_too_much_is_refused():
    with pytest.raises(ValueError, match="above 90 and at most 100, but is 0.99"):
        quantize(describe(trained_like(**SDUNET)), sections(1), percentile=0.99)
