"""The kernels of integers give, to the bit, what `tinyseg.export.int8` computes."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("numba")

from tests.export.networks import trained_like  # noqa: E402
from tests.export.test_int8 import KINDS, sections  # noqa: E402
from tinyseg import ops  # noqa: E402
from tinyseg.backend import using  # noqa: E402
from tinyseg.export.calibration import quantize  # noqa: E402
from tinyseg.export.describing import describe  # noqa: E402
from tinyseg.export.int8 import IntegerConvolution, Quantizer  # noqa: E402
from tinyseg.fast.cpu.int8_between import logits, requantize, sums_of  # noqa: E402
from tinyseg.fast.cpu.int8_conv import Packed, separable, standard  # noqa: E402
from tinyseg.fast.cpu.kernel_cache import njit  # noqa: E402
from tinyseg.fast.cpu.simd import LANES, WIDTH  # noqa: E402
from tinyseg.fast.cpu.simd_int8 import DOT, tile8  # noqa: E402


def some_convolution(rng, K, C, k, depthwise=False, x=None, extreme=False):
    kernel = rng.integers(-63, 64, (K, 1 if depthwise else C, k, k)).astype(np.int8)
    if extreme:
        kernel[:] = np.where(np.arange(K) % 2, 63, -63)[:, None, None, None]
    scale = rng.uniform(0.5, 1.5, K).astype(np.float32) / np.float32(9 * k * np.sqrt(1 if depthwise else C))
    bias = np.zeros(K) if depthwise else rng.integers(-9000, 9000, K)
    y = Quantizer(np.float32(rng.uniform(1, 3)), int(rng.integers(0, 200)))
    x = x or Quantizer(np.float32(rng.uniform(0.5, 2)), int(rng.integers(0, 200)))
    return IntegerConvolution(kernel, scale, bias.astype(np.int32), x, y, depthwise)


def some_bytes(rng, *shape, extreme=False):
    return np.full(shape, 255, np.uint8) if extreme else rng.integers(0, 256, shape).astype(np.uint8)


def channels_first(q):
    return q.transpose(0, 3, 1, 2)


def read(xs, repeat):
    return channels_first(np.concatenate(xs, axis=3)).repeat(repeat, axis=2).repeat(repeat, axis=3)


shapes = pytest.mark.parametrize(
    ("K", "C", "H", "W"),
    [
        (1, 1, 1, 1), (3, 5, 4, 7), (WIDTH, LANES, 9, 13), (WIDTH + 3, 2 * LANES, 17, 6),
        (2 * WIDTH, 2 * LANES + 1, 5, 31), (LANES, 70, 8, 8), (5, 1024, 2, 3),
    ],
)  # fmt: skip


@shapes
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(("repeat", "joined"), [(1, False), (1, True), (2, False)])
@pytest.mark.parametrize("extreme", [False, True])
def test_a_standard_convolution(K, C, H, W, k, repeat, joined, extreme):
    rng = np.random.default_rng(K + C + k)
    xs = [some_bytes(rng, 2, H, W, C, extreme=extreme)] + ([some_bytes(rng, 2, H, W, 3)] if joined else [])
    convolution = some_convolution(rng, K, C + 3 * joined, k, extreme=extreme)
    expected = convolution(read(xs, repeat))
    found = standard(tuple(xs), Packed(convolution), repeat)
    np.testing.assert_array_equal(channels_first(found), expected)
    assert extreme or expected.size < 100 or len(np.unique(expected)) > 10


@shapes
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize(("repeat", "joined"), [(1, False), (1, True), (2, False)])
def test_a_separable_convolution(K, C, H, W, k, repeat, joined):
    rng = np.random.default_rng(K + C + k)
    xs = [some_bytes(rng, 2, H, W, C)] + ([some_bytes(rng, 2, H, W, LANES)] if joined else [])
    depthwise = some_convolution(rng, C + LANES * joined, C + LANES * joined, k, depthwise=True)
    pointwise = some_convolution(rng, K, C + LANES * joined, 1, x=depthwise.y)
    expected = pointwise(depthwise(read(xs, repeat)))
    found = separable(tuple(xs), Packed(depthwise), Packed(pointwise), repeat)
    np.testing.assert_array_equal(channels_first(found), expected)


@pytest.mark.parametrize("dot", sorted({DOT, "any"}))
@pytest.mark.parametrize("extreme", [False, True])
def test_every_way_to_add_products_gives_the_same(dot, extreme):
    tile, rng = tile8(3, dot), np.random.default_rng(0)
    A = some_bytes(rng, 3, 20, extreme=extreme)
    B = np.full((20, WIDTH), 64, np.int8) if extreme else rng.integers(-64, 65, (20, WIDTH)).astype(np.int8)
    packed = np.ascontiguousarray(B.reshape(5, 4, WIDTH).transpose(0, 2, 1)).reshape(-1)
    S, F, C = np.arange(WIDTH, dtype=np.int32), np.full(WIDTH, 1e-3, np.float32), np.zeros(3 * WIDTH, np.uint8)

    @njit()
    def run(a, b, s, f, c):
        tile(1, 5, a, 0, 0, 20, b, 0, s, f, 0, np.float32(7), c, 0, WIDTH)

    run(A.reshape(-1), packed, S, F, C)
    sums = (A.astype(int) @ B.astype(int) + S).astype(np.float32)
    np.testing.assert_array_equal(C.reshape(3, WIDTH), (np.rint(sums * F) + 7).clip(0, 255))


@pytest.mark.parametrize("C", [1, LANES - 1, LANES, 2 * LANES + 3])
@pytest.mark.parametrize("pool", [False, True])
def test_integers_of_another_scale(C, pool):
    rng = np.random.default_rng(C)
    q = some_bytes(rng, 2, 6, 10, C)
    before, after = Quantizer(np.float32(0.013), 130), Quantizer(np.float32(0.021), 90)
    x = before.dequantize(channels_first(q))
    expected = after.quantize(ops.max_pool2d(x, 2).data if pool else x)
    factor = np.full((2, C), before.scale)
    found = requantize(q, before.zero_point, factor, np.zeros((2, C)), after, pool)
    np.testing.assert_array_equal(channels_first(found), expected)


@pytest.mark.parametrize("pool", [False, True])
def test_a_factor_and_a_summand_for_each_channel_of_each_image(pool):
    rng = np.random.default_rng(0)
    q, (factor, summand) = some_bytes(rng, 2, 4, 6, 11), rng.normal(0, 0.01, (2, 2, 11)).astype(np.float32)
    y = (channels_first(q) - 90.0) * factor[:, :, None, None] + summand[:, :, None, None]
    y = y.reshape(2, 11, 2, 2, 3, 2).max(axis=(3, 5)) if pool else y
    after = Quantizer(np.float32(0.02), 128)
    off = channels_first(requantize(q, 90, factor, summand, after, pool)) - (y / after.scale + 128).clip(0, 255)
    assert np.abs(off).max() < 0.501


def test_sums_of_a_channel_are_exact():
    q = some_bytes(np.random.default_rng(0), 2, 70, 51, 19)
    q[1, :, :, 3] = 255
    wide = q.astype(int)
    np.testing.assert_array_equal(sums_of(q), [wide.sum(axis=(1, 2)), (wide**2).sum(axis=(1, 2))])


def test_logits_are_products_with_floats():
    rng = np.random.default_rng(0)
    q, weight, bias = some_bytes(rng, 2, 3, 5, 37), rng.normal(size=(2, 4, 37)), rng.normal(size=(2, 4))
    expected = np.einsum("nkc,nijc->nkij", weight, q - 40.0) + bias[:, :, None, None]
    found = logits(q, 40, weight.astype(np.float32), bias.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("options", KINDS, ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("kernel_bits", [7, 8])
def test_a_network_gives_what_the_maths_gives(options, kernel_bits):
    """But for ties, where a norm is rounded otherwise. Kernels of 8 bits, which do not fit, are left to the maths."""
    quantized = quantize(describe(trained_like(**options)), sections(), kernel_bits=kernel_bits)
    x = np.stack(sections(3, seed=7))
    found = quantized(x)
    with using(kernels="reference"):
        expected = quantized(x)
    off = np.abs(found - expected) / (expected.max() - expected.min())
    assert off.mean() < 2e-3 and (off.max() < 1e-6 or ("bn" in options["name"] and kernel_bits == 7))


@pytest.mark.parametrize("relu", [False, True])
def test_a_last_convolution_of_another_kind_is_left_to_the_maths(relu):
    network = describe(trained_like(name="sdunet", width=8, levels=2))
    kernel = np.random.default_rng(0).normal(size=(1, 8, 1 if relu else 3, 1 if relu else 3)).astype(np.float32)
    head = dataclasses.replace(network.head[-1], kernel=kernel, relu=relu)
    quantized = quantize(dataclasses.replace(network, head=(head,)), sections())
    x = np.stack(sections(2, seed=7))
    found = quantized(x)
    with using(kernels="reference"):
        expected = quantized(x)
    assert found.std() > 0 and np.abs(found - expected).mean() < 2e-3 * np.ptp(expected)
