"""Winograd's F(4x4, 3x3): its identity in fractions, the numba kernels against the maths, and when they are used.

TOLERANCE is measured, since bounds from the norms of the transforms are a thousand times too wide. On standard-normal
data the largest error, over the largest output, was 2e-6 … 2e-5 forward and for x (growing with the channels), and
1e-6 … 2e-5 for the weights (growing with the image; 4e-5 at 8 x 128 x 128), whatever the shape. A lost tap, channel,
pixel or tile is an error of 1e-2 and more.
"""

import importlib
from fractions import Fraction

import numpy as np
import pytest
from arrays import single, strided

from tinyseg import Tensor, ops, using
from tinyseg.ops.window import resolve

winograd = pytest.importorskip("tinyseg.fast.cpu.winograd")

from tinyseg.fast.cpu import conv2d as fast  # noqa: E402
from tinyseg.fast.cpu import winograd_tiles as tiles  # noqa: E402
from tinyseg.fast.cpu.bands import NOTHING  # noqa: E402
from tinyseg.fast.cpu.gemm import pad  # noqa: E402
from tinyseg.fast.cpu.packing import as_read  # noqa: E402
from tinyseg.fast.cpu.simd import LANES, WIDTH  # noqa: E402
from tinyseg.fast.cpu.tile import NO_FLOOR  # noqa: E402
from tinyseg.fast.cpu.winograd_weights import transform_panel  # noqa: E402

maths = importlib.import_module("tinyseg.ops.conv2d")
TOLERANCE = 5e-5
SAME = ((1, 1), (1, 1))

F = Fraction
BT = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
G = [
    [F(1, 4), 0, 0],
    [F(-1, 6), F(-1, 6), F(-1, 6)],
    [F(-1, 6), F(1, 6), F(-1, 6)],
    [F(1, 24), F(1, 12), F(1, 6)],
    [F(1, 24), F(-1, 12), F(1, 6)],
    [0, 0, 1],
]
AT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
BT, G, AT = (np.array(matrix, dtype=object) for matrix in (BT, G, AT))


# ----- the identity, exactly ------------------------------------------------------------------
def whole(*shape, seed):
    """Random whole numbers as Python objects: arithmetic with fractions is exact."""
    return np.random.default_rng(seed).integers(-99, 100, shape).astype(object)


@pytest.mark.parametrize("seed", range(20))
def test_the_matrices_compute_four_outputs_of_a_filter_of_three(seed):
    d, g = whole(6, seed=seed), whole(3, seed=100 + seed)
    expected = [sum(d[p + u] * g[u] for u in range(3)) for p in range(4)]
    assert list(AT @ ((G @ g) * (BT @ d))) == expected


@pytest.mark.parametrize("seed", range(5))
def test_the_matrices_compute_four_by_four_outputs(seed):
    d, g = whole(6, 6, seed=seed), whole(3, 3, seed=100 + seed)
    expected = [[sum((d[p : p + 3, q : q + 3] * g).ravel()) for q in range(4)] for p in range(4)]
    assert (AT @ ((G @ g @ G.T) * (BT @ d @ BT.T)) @ AT.T).tolist() == expected


@pytest.mark.parametrize("seed", range(20))
def test_the_transposed_matrices_compute_the_gradient_of_the_filter(seed):
    d, gy = whole(6, seed=seed), whole(4, seed=100 + seed)
    expected = [sum(d[p + u] * gy[p] for p in range(4)) for u in range(3)]
    assert list(G.T @ ((AT.T @ gy) * (BT @ d))) == expected


@pytest.mark.parametrize(("name", "matrix"), [("bt", BT), ("at", AT), ("a", AT.T), ("g", G), ("gt", G.T)])
def test_the_kernels_arithmetic_is_these_matrices(name, matrix, monkeypatch):
    """Their Python source, on fractions instead of vectors."""
    monkeypatch.setattr(tiles, "splat", lambda s: F(float(s)).limit_denominator(99))
    column = whole(matrix.shape[1], seed=7)
    assert list(getattr(tiles, name).py_func(column)) == list(matrix @ column)


# ----- the kernels -------------------------------------------------------------------------------
def pixels(x):
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def close(found, expected):
    """Within TOLERANCE of the largest output, everywhere."""
    assert found.shape == expected.shape and found.dtype == np.float32
    error = abs(found - expected).max() / abs(expected).max()
    assert error <= TOLERANCE, error


def doubles(*arrays):
    return [a.astype(np.float64) for a in arrays]


def joined(x, x2, repeat):
    X = x if x2 is None else np.concatenate([x, x2], axis=1)
    return X.repeat(repeat, axis=2).repeat(repeat, axis=3).astype(np.float64)


# N, C, C of a second input, K, H, W, pads, factor of upsampling
CASES = [
    (1, 16, 0, 16, 8, 8, SAME, 1),
    (2, 32, 0, 32, 40, 70, SAME, 1),  # several strips across and several chunks
    (3, 17, 0, 35, 13, 131, SAME, 1),  # no multiples of anything
    (1, 64, 0, 48, 5, 66, ((0, 0), (0, 0)), 1),
    (1, 16, 0, 33, 6, 7, ((2, 0), (1, 3)), 1),
    (2, 20, 0, 16, 9, 5, ((0, 2), (5, 0)), 1),
    (1, 16, 0, 16, 3, 3, ((7, 6), (9, 70)), 1),  # mostly border
    (1, 16, 16, 40, 12, 20, SAME, 1),
    (2, 5, 12, 16, 11, 9, SAME, 1),
    (1, 33, 1, 17, 7, 65, ((1, 0), (0, 2)), 1),
    (1, 24, 0, 16, 7, 9, SAME, 2),
    (2, 16, 0, 20, 5, 11, ((0, 2), (2, 1)), 3),
    (2, 9, 11, 16, 6, 17, SAME, 2),
    (1, 3, 0, 2, 10, 9, SAME, 1),  # too few to pay, but not too few to be right
    (1, 1, 0, 1, 1, 1, SAME, 1),
    (1, 200, 0, 130, 12, 12, SAME, 1),
    (1, 16, 0, 16, 150, 149, SAME, 1),
    # small images: several rows of tiles in a strip, and several images
    (3, 64, 0, 64, 8, 8, SAME, 1),
    (5, 40, 0, 70, 9, 10, SAME, 1),
    (7, 130, 0, 65, 4, 6, SAME, 1),
    (2, 30, 40, 96, 16, 16, SAME, 1),
    (1, 70, 0, 64, 20, 20, SAME, 1),
    (19, 16, 0, 33, 12, 28, SAME, 1),  # many chunks
]
cases = pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c)).replace(" ", ""))


def inputs(N, C, C2, K, H, W, pads, repeat):
    """x, x2 or None, w, bias, gy and the output's size."""
    shape = N, C + C2, H * repeat, W * repeat
    _, _, out = resolve(shape, (3, 3), 1, pads)
    x, x2 = single(N, C, H, W), single(N, C2, H, W, seed=1) if C2 else None
    return x, x2, single(K, C + C2, 3, 3, seed=2), single(K, seed=3), single(N, K, *out, seed=4), out


@cases
@pytest.mark.parametrize("relu", [False, True], ids=["plain", "relu"])
def test_forward(case, relu):
    (N, _, _, K, _, _, pads, repeat), (x, x2, w, b, _, out) = case, inputs(*case)
    guard = np.full(N * out[0] * out[1] * K + 2 * WIDTH, np.float32(-77.25))
    y = guard[WIDTH:-WIDTH].reshape(N, *out, K)
    halves = pixels(x), NOTHING if x2 is None else pixels(x2)
    winograd.convolve(*halves, w, pad(b), np.float32(0) if relu else NO_FLOOR, pads, y, repeat)
    expected = maths.forward(joined(x, x2, repeat), *doubles(w), (1, 1), pads, out) + b[:, None, None]
    close(y.transpose(0, 3, 1, 2), np.maximum(expected, 0) if relu else expected)
    assert (guard[:WIDTH] == -77.25).all() and (guard[-WIDTH:] == -77.25).all()


@cases
def test_gradient_of_the_weights(case):
    (*_, pads, repeat), (x, x2, w, _, gy, _) = case, inputs(*case)
    halves = pixels(x), NOTHING if x2 is None else pixels(x2)
    found = winograd.gradient(*halves, pixels(gy), w.shape, pads, repeat)
    close(found, maths.grad_w(joined(x, x2, repeat), *doubles(gy), w.shape, (1, 1), pads))


@cases
def test_gradient_of_the_input(case, monkeypatch):
    monkeypatch.setattr(winograd, "is_faster", lambda w_shape, stride, y, spread: True)
    (*_, pads, repeat), (x, x2, w, _, gy, _) = case, inputs(*case)
    shape = joined(x, x2, repeat).shape
    close(fast.grad_x(gy, w, shape, (1, 1), pads), maths.grad_x(*doubles(gy, w), shape, (1, 1), pads))


@pytest.mark.parametrize(("K", "C"), [(1, 1), (16, 16), (33, 47), (64, 48), (40, 100), (5, 97)])
def test_transformed_weights(K, C):
    w = single(K, C, 3, 3)
    rows = np.array(G, dtype=np.float64)
    expected = np.zeros((-(-K // WIDTH) * WIDTH, -(-C // WIDTH) * WIDTH, 6, 6))
    expected[:K, :C] = rows @ w.astype(np.float64) @ rows.T
    turned = np.ascontiguousarray(w.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1])  # as the gradient of x has them
    for layout in (w, turned[:, :, ::-1, ::-1].transpose(1, 0, 2, 3), strided(w)):
        np.testing.assert_array_equal(layout, w)
        for p in range(len(expected) // WIDTH):
            for c in range(expected.shape[1] // WIDTH):
                U, g = (
                    np.full((36, WIDTH + 1, WIDTH), np.nan, np.float32),
                    np.full(9 * WIDTH**2 + 3, np.nan, np.float32),
                )
                transform_panel(*as_read(layout), p, c, g, 3, U.reshape(-1), 0, (WIDTH + 1) * WIDTH)
                panel = expected[p * WIDTH : (p + 1) * WIDTH, c * WIDTH : (c + 1) * WIDTH].reshape(WIDTH, WIDTH, 36)
                found = U[:, :WIDTH].transpose(2, 1, 0)
                np.testing.assert_allclose(found, panel, rtol=0, atol=4e-7 * abs(w).max())
                assert not found[panel == 0].any() and np.isnan(U[:, WIDTH]).all()


@cases
def test_neither_the_number_of_threads_nor_the_way_of_the_gradient_changes_a_bit(case, monkeypatch):
    (N, _, _, K, _, _, pads, repeat), (x, x2, w, b, gy, out) = case, inputs(*case)
    halves, found = (pixels(x), NOTHING if x2 is None else pixels(x2)), []
    for threads in (1, 2, 16):
        for few in (0, winograd.CHUNK - 1) if threads == 2 else (winograd.FEW_TILES,):
            monkeypatch.setattr(winograd, "threads", lambda threads=threads: threads)
            monkeypatch.setattr(winograd, "FEW_TILES", few if max(gy.shape[2:]) < 40 else 0)
            y = np.empty((N, *out, K), np.float32)
            winograd.convolve(*halves, w, pad(b), np.float32(0), pads, y, repeat)
            found.append((y, winograd.gradient(*halves, pixels(gy), w.shape, pads, repeat)))
    for y, gw in found[1:]:
        np.testing.assert_array_equal(y, found[0][0])
        np.testing.assert_array_equal(gw, found[0][1])


@cases
def test_the_largest_value_of_every_image_is_noted(case):
    (N, _, _, K, _, _, _, repeat), (x, x2, w, b, _, _) = case, inputs(*case)
    X = joined(x, x2, repeat)
    halves, y = (pixels(x), NOTHING if x2 is None else pixels(x2)), np.empty((N, *X.shape[2:], K), np.float32)
    peaks = winograd.convolve(*halves, w, pad(b), np.float32(0), SAME, y, repeat)
    np.testing.assert_array_equal(peaks.max(axis=1).view(np.float32), abs(X).max(axis=(1, 2, 3)).astype(np.float32))


def test_nan_reaches_the_windows_that_see_it_and_stays_in_their_tiles():
    x, w = single(2, 16, 14, 90), single(20, 16, 3, 3, seed=1)
    x[1, 5, 7, 64] = np.nan
    y = np.empty((2, 14, 90, 20), np.float32)
    winograd.convolve(pixels(x), NOTHING, w, pad(np.zeros(20)), np.float32(0), SAME, y)
    seen = np.isnan(y)
    assert seen[1, 6:9, 63:66].all()
    seen[1, 4:12, 60:68] = False
    assert not seen.any()


def test_inputs_come_back_unchanged():
    for layout in (np.asarray, strided, lambda a: pixels(a).transpose(0, 3, 1, 2)):
        x, w, gy = (layout(a) for a in (single(1, 16, 32, 32), single(16, 16, 3, 3, seed=1), single(1, 16, 32, 32)))
        before = [a.copy() for a in (x, w, gy)]
        assert winograd.is_faster(w.shape, (1, 1), pixels(gy), (1, 1))
        fast.forward(x, w, (1, 1), SAME, (32, 32))
        fast.grad_x(gy, w, x.shape, (1, 1), SAME)
        fast.grad_w(x, gy, w.shape, (1, 1), SAME)
        for a, old in zip((x, w, gy), before, strict=True):
            np.testing.assert_array_equal(a, old)


# ----- when it is used -----------------------------------------------------------------------------
def is_faster(K=16, C=16, N=1, H=32, W=32, kernel=(3, 3), stride=(1, 1), spread=(1, 1)):
    return winograd.is_faster((K, C, *kernel), stride, np.empty((N, H, W, K)), spread)


def test_it_is_for_3x3_windows_side_by_side_with_enough_channels_and_pixels():
    assert is_faster()
    with using(winograd=False):
        assert not is_faster()
    for options in (
        {"kernel": (2, 2)}, {"kernel": (3, 1)}, {"kernel": (5, 5)}, {"stride": (2, 2)}, {"stride": (1, 2)},
        {"spread": (2, 2)}, {"spread": (2, 1)}, {"K": LANES - 1}, {"C": LANES - 1}, {"H": 8, "W": 4},
    ):  # fmt: skip
        assert not is_faster(**options), options


def test_the_number_of_tiles_that_it_needs(monkeypatch):
    monkeypatch.setattr(winograd, "MIN_TILES", 10)
    assert is_faster(H=4, W=40) and not is_faster(H=4, W=36)
    assert is_faster(N=10, H=4, W=4) and not is_faster(N=9, H=4, W=4)
    # not where tiles are mostly outside: 5 x 5 pixels are four tiles of 16
    assert not is_faster(N=10, H=5, W=5) and not is_faster(N=10, H=1, W=1000) and is_faster(N=10, H=6, W=6)


@pytest.mark.parametrize("op", ["conv2d", "fused", "joined", "upsampled"])
def test_ops_use_it_where_it_is_faster_and_only_there(op, monkeypatch):
    called = []
    for name in ("convolve", "gradient"):
        original = getattr(winograd, name)
        monkeypatch.setattr(
            winograd, name, lambda *args, name=name, original=original: called.append(name) or original(*args)
        )
    x, w = Tensor(single(1, 32, 28, 28), requires_grad=True), Tensor(single(32, 32, 3, 3, seed=1), requires_grad=True)
    f = {
        "conv2d": lambda: ops.conv2d(x, w, padding="same"),
        "fused": lambda: ops.fused_conv2d(x, w, padding="same", activation="relu"),
        "joined": lambda: ops.fused_conv2d([x, x], Tensor(np.concatenate([w.data, w.data], 1), True), padding="same"),
        "upsampled": lambda: ops.fused_conv2d(x, w, padding="same", upsample=2),
    }[op]
    f().sum().backward()
    assert set(called) == {"convolve", "gradient"} and called.count("gradient") == 1
    called.clear()
    with using(winograd=False):
        f().sum().backward()
    with using(kernels="reference"):
        f().sum().backward()
    assert not called


def test_without_it_other_bits_and_smaller_errors():
    x, w, gy = single(1, 32, 28, 30), single(32, 32, 3, 3, seed=1), single(1, 32, 28, 30, seed=2)
    calls = {
        "forward": (x, w, (1, 1), SAME, (28, 30)),
        "grad_x": (gy, w, x.shape, (1, 1), SAME),
        "grad_w": (x, gy, w.shape, (1, 1), SAME),
    }
    for name, args in calls.items():
        with_it = getattr(fast, name)(*args)
        with using(winograd=False):
            without = getattr(fast, name)(*args)
        exact = getattr(maths, name)(*(a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in args))
        assert (with_it != without).any(), name
        tolerance = 4e-6 if name == "grad_w" else 1e-6  # grad_w adds 840 pixels one after the other
        assert abs(without - exact).max() < tolerance * abs(exact).max(), name
        close(with_it, exact)


# ----- images whose values are too uneven for it -----------------------------------------------------
def far_from(spikes):
    """Pixels whose windows see none of the pixels `spikes` (H, W)."""
    seen = np.pad(spikes, 1)
    H, W = spikes.shape
    return ~np.any([seen[u : u + H, v : v + W] for u in range(3) for v in range(3)], axis=0)


@pytest.mark.parametrize("value", [1e2, 1e6, np.inf, np.nan], ids=str)
def test_a_large_value_changes_only_the_outputs_that_see_it(value):
    x, w = 1e-4 * single(2, 32, 32, 40), single(32, 32, 3, 3, seed=1)
    spikes = np.zeros((32, 40), bool)
    spikes[5, 6] = spikes[20, 33] = True
    x[1, 3, spikes] = value
    y, far = ops.conv2d(x, w, padding=1).data, far_from(spikes)
    x[1, 3, spikes] = 0
    true = ops.conv2d(x.astype(np.float64), w.astype(np.float64), padding=1).data
    assert abs(y - true)[:, :, far].max() < 1e-2 * abs(true[:, :, far]).max()
    assert abs(y - true)[0].max() < 5e-5 * abs(true[0]).max()  # the other image has none


def test_a_large_value_in_the_last_row_of_a_small_image_among_others():
    x, w = 1e-4 * single(3, 32, 8, 8), single(32, 32, 3, 3, seed=1)
    spikes = np.zeros((8, 8), bool)
    spikes[6, 6] = True
    x[1, 3, spikes] = 1e6
    y, far = ops.conv2d(x, w, padding=1).data, far_from(spikes)
    true = ops.conv2d(x.astype(np.float64), w.astype(np.float64), padding=1).data
    assert abs(y - true)[1][:, far].max() < 1e-5 * abs(true[1][:, far]).max()


def test_images_of_ordinary_values_are_even(monkeypatch):
    monkeypatch.setattr(fast, "_directly", lambda *args: pytest.fail("computed directly"))
    x, w = single(2, 32, 32, 40), single(32, 32, 3, 3, seed=1)
    background = np.where(np.arange(40) < 30, 0, np.maximum(x, 0))  # as after a ReLU, most of it 0
    for image in (x, np.maximum(x, 0), background.astype(np.float32), 0 * x, 30 * x**3):
        ops.conv2d(image, w, padding=1)


def test_uneven_images_are_named():
    peaks = np.array([[1, 2], [1, 2000], [1, np.nan], [0, 0], [1, np.inf]], np.float32).view(np.int32)
    x = np.ones((5, 4, 4, 2), np.float32)
    x[3] = 0
    assert winograd.uneven_images(peaks, x, NOTHING).tolist() == [1, 2, 4]
    x2 = np.full((5, 4, 4, 1), 1e-4, np.float32)
    assert winograd.uneven_images(peaks, x, x2).tolist() == [1, 2, 4]  # a pixel is as large as its largest channel
