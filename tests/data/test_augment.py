"""One transform for image and mask: what it does, that both move together, and that it can be repeated."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.transform import rotate

from tinyseg.data.augment import Augment, smooth_noise, source_points

KINDS = {
    "flips": Augment(horizontal_flip=True, vertical_flip=True),
    "turns": Augment(quarter_turns=True),
    "rotation": Augment(rotation=40),
    "zoom": Augment(zoom=0.3),
    "shift": Augment(shift=0.2),
    "elastic": Augment(elastic=4, elastic_sigma=14),
    "all": Augment(True, True, True, 30, 0.2, 0.1, elastic=3),
    "paper": Augment.paper(),
    "default": replace(Augment.default(), brightness=0, contrast=0, gamma=0, blur=0, noise=0),
}


def blobs(height=61, width=83, seed=0):
    """A smooth image (2, H, W) and the mask where its first channel is above 0."""
    noise = np.random.default_rng(seed).standard_normal((2, height, width))
    image = np.stack([gaussian_filter(n, 5) for n in noise]).astype(np.float32)
    image /= image.std()
    return image, image[0] > 0


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("kind", KINDS)
def test_image_and_mask_move_together(kind):
    """The mask stays where the image is above 0, but for pixels at the very edge of a blob."""
    image, label = blobs()
    moved = 0
    for seed in range(12):
        new_image, new_label = KINDS[kind](image, label, rng(seed))
        clear = np.abs(new_image[0]) > 0.35  # further from the threshold than one pixel changes it
        assert clear.mean() > 0.6
        np.testing.assert_array_equal(new_label[clear], new_image[0][clear] > 0)
        moved += (new_label != label).mean() > 0.02
    assert moved >= 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_types_values_and_memory(kind, dtype):
    image, label = blobs()
    label = (2 * label + (image[1] > 0)).astype(dtype)  # four classes, or True and False
    kept_image, kept_label = image.copy(), label.copy()
    for seed in range(4):
        new_image, new_label = KINDS[kind](image, label, rng(seed))
        assert (new_image.dtype, new_label.dtype) == (np.float32, dtype)
        assert (new_image.shape, new_label.shape) == (image.shape, label.shape)
        assert set(np.unique(new_label)) <= set(np.unique(label))
        assert new_image.min() >= image.min() - 1e-6
        assert new_image.max() <= image.max() + 1e-6
        for new, old in [(new_image, image), (new_label, label)]:
            assert new.flags.c_contiguous
            assert not np.shares_memory(new, old)
    np.testing.assert_array_equal(image, kept_image)
    np.testing.assert_array_equal(label, kept_label)


def test_input_in_any_layout():
    image, label = blobs()
    a = KINDS["all"](image, label, rng(3))
    b = KINDS["all"](np.asfortranarray(image), np.asfortranarray(label), rng(3))
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[1], b[1])


@pytest.mark.parametrize("kind", KINDS)
def test_same_generator_same_result(kind):
    image, label = blobs()
    a, b = (KINDS[kind](image, label, rng(5)) for _ in range(2))
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[1], b[1])


def test_none_changes_nothing():
    image, label = blobs()
    new_image, new_label = Augment.none()(image, label, rng())
    np.testing.assert_array_equal(new_image, image)
    np.testing.assert_array_equal(new_label, label)
    assert not np.shares_memory(new_image, image)


def test_flips_are_exact_and_all_occur():
    image, label = blobs()
    seen = set()
    for seed in range(24):
        new_image, new_label = KINDS["flips"](image, label, rng(seed))
        for step_i in (1, -1):
            for step_j in (1, -1):
                if (new_image == image[:, ::step_i, ::step_j]).all():
                    np.testing.assert_array_equal(new_label, label[::step_i, ::step_j])
                    seen.add((step_i, step_j))
    assert len(seen) == 4


def test_a_horizontal_flip_is_left_right():
    image, label = blobs()
    results = [Augment(horizontal_flip=True)(image, label, rng(seed))[0] for seed in range(12)]
    flipped = [(r == image[:, :, ::-1]).all() for r in results]
    kept = [(r == image).all() for r in results]
    assert any(flipped)
    assert any(kept)
    assert np.logical_xor(flipped, kept).all()


@pytest.mark.parametrize(("shape", "turns"), [((40, 40), {0, 1, 2, 3}), ((40, 50), {0, 2})])
def test_quarter_turns_keep_the_shape(shape, turns):
    image, label = blobs(*shape)
    seen = set()
    for seed in range(24):
        new_image, new_label = KINDS["turns"](image, label, rng(seed))
        (turn,) = [k for k in turns if (new_label == np.rot90(label, k)).all()]
        np.testing.assert_array_equal(new_image, np.rot90(image, turn, axes=(1, 2)))
        seen.add(turn)
    assert seen == turns


def sampled(image, **transform):
    return map_coordinates(image, source_points(image.shape, **transform), order=1, mode="reflect")


def test_rotation_is_counter_clockwise_about_the_centre():
    square = blobs(40, 40)[0][0]
    np.testing.assert_allclose(sampled(square, angle=90), np.rot90(square), atol=1e-5)
    image = blobs()[0][0]
    expected = rotate(image, 25, order=1, mode="constant", cval=np.nan, preserve_range=True)
    inside = np.isfinite(expected)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(sampled(image, angle=25)[inside], expected[inside], atol=1e-4)


def test_zoom_enlarges_about_the_centre():
    image = np.zeros((41, 61))
    image[16:25, 27:34] = 1  # 9 by 7, in the middle
    large = sampled(image, zoom=3) > 0.5
    np.testing.assert_array_equal(np.flatnonzero(large.any(axis=1))[[0, -1]], [20 - 13, 20 + 13])
    np.testing.assert_array_equal(np.flatnonzero(large.any(axis=0))[[0, -1]], [30 - 10, 30 + 10])


def test_shift_goes_down_and_right_and_mirrors_the_border():
    image = blobs()[0][0]
    moved = sampled(image, shift=(3, 5))
    np.testing.assert_allclose(moved[3:, 5:], image[:-3, :-5], atol=1e-6)
    np.testing.assert_allclose(moved[2::-1, 5:], image[:3, :-5], atol=1e-6)


def test_turn_grow_then_move():
    """The order in the formula: a point of the input ends where the three steps take it, one by one."""
    shape, angle, zoom, shift = (61, 83), 30, 1.2, (4, -7)
    q = source_points(shape, angle, zoom, shift)
    p = np.array([20, 50])
    up, right = 30 - q[0, *p], q[1, *p] - 41  # from the centre, mathematically
    turned = np.exp(1j * np.radians(angle)) * (right + 1j * up) * zoom
    np.testing.assert_allclose([30 - turned.imag + 4, 41 + turned.real - 7], p)


@pytest.fixture
def drawn(monkeypatch):
    """The transforms that are asked of `source_points`, one a call."""
    calls = []

    def spy(shape, **transform):
        calls.append(transform)
        return source_points(shape, **transform)

    monkeypatch.setattr("tinyseg.data.augment.source_points", spy)
    return calls


def test_draws_keep_within_their_ranges(drawn):
    image, label = blobs()
    augment = Augment(rotation=20, zoom=0.1, shift=0.25)
    for seed in range(60):
        augment(image, label, rng(seed))
    for values, low, high in [
        ([d["angle"] for d in drawn], -20, 20),
        ([d["zoom"] for d in drawn], 0.9, 1.1),
        ([d["shift"][0] for d in drawn], -61 / 4, 61 / 4),
        ([d["shift"][1] for d in drawn], -83 / 4, 83 / 4),
    ]:
        assert low <= min(values) < low + 0.15 * (high - low)
        assert high >= max(values) > high - 0.15 * (high - low)


def test_switching_other_kinds_on_leaves_a_draw_as_it_was(drawn):
    image, label = blobs()
    Augment(rotation=20)(image, label, rng(4))
    Augment(True, True, True, rotation=20, zoom=0.1, shift=0.1, elastic=2, contrast=0.1)(image, label, rng(4))
    assert drawn[0]["angle"] == drawn[1]["angle"] != 0
    assert drawn[0]["zoom"] == 1 != drawn[1]["zoom"]


def test_smooth_noise_has_unit_variance_everywhere_and_is_smooth():
    fields = np.concatenate([smooth_noise((30, 44), 7, rng(seed)) for seed in range(600)])  # (1200, 30, 44)
    # 1200 fields: the standard error of a standard deviation is 1 / sqrt(2 · 1200) = 0.02
    assert np.abs(fields.std(axis=0) - 1).max() < 0.1
    assert np.abs(fields.mean(axis=0)).max() < 5 / np.sqrt(1200)
    # Gaussians of width σ make a field of correlation exp(-d² / 4σ²)
    for column in (0, 10):
        correlation = (fields[:, :, column] * fields[:, :, column + 10]).mean()
        assert abs(correlation - np.exp(-(10**2) / (4 * 7**2))) < 0.05
    rows, columns = smooth_noise((30, 44), 7, rng())
    assert abs((rows * columns).mean()) < 0.9  # two fields, not one twice


def test_elastic_moves_by_so_many_pixels():
    """On a ramp the grey value is the column, so that the change of it is the displacement."""
    ramp = np.tile(np.arange(200.0), (50, 1))[None]
    moves = [
        (Augment(elastic=3, elastic_sigma=10)(ramp, ramp[0] > 9, rng(s))[0] - ramp)[0, :, 20:-20] for s in range(20)
    ]
    assert 2.6 < np.std(moves) < 3.4


def test_brightness_and_contrast_change_the_image_only():
    image, label = blobs()
    means, stds = [], []
    for seed in range(40):
        new_image, new_label = Augment(brightness=0.5, contrast=0.2)(image, label, rng(seed))
        np.testing.assert_array_equal(new_label, label)
        assert new_image.dtype == np.float32
        means.append(new_image[0].mean() - image[0].mean())
        stds.append(new_image[0].std() / image[0].std())
    assert -0.5 <= min(means) < -0.3 < 0.3 < max(means) <= 0.5
    assert 0.8 - 1e-6 <= min(stds) < 0.9 < 1.1 < max(stds) <= 1.2 + 1e-6


def test_a_window_without_movement_is_a_piece_of_the_section_and_each_place_is_met():
    image, label = blobs(9, 12)
    places = set()
    for seed in range(300):
        window, of_label = Augment.none()(image, label, rng(seed), crop=(7, 8))
        (place,) = [
            (i, j) for i in range(3) for j in range(5) if (window == image[:, i : i + 7, j : j + 8]).all()
        ]  # fmt: skip
        np.testing.assert_array_equal(of_label, label[place[0] : place[0] + 7, place[1] : place[1] + 8])
        assert window.flags.c_contiguous and not np.shares_memory(window, image)
        places.add(place)
    assert len(places) == 15


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_window_image_and_mask_move_together(kind):
    image, label = blobs()
    for seed in range(12):
        window, of_label = KINDS[kind](image, label, rng(seed), crop=(32, 48))
        assert window.shape == (2, 32, 48) and of_label.shape == (32, 48)
        clear = np.abs(window[0]) > 0.35
        np.testing.assert_array_equal(of_label[clear], window[0][clear] > 0)


def test_a_window_that_is_moved_shows_the_section_around_it():
    """On a ramp the grey value is the column: a turn about the window's centre goes beyond the window's own columns."""
    ramp = np.tile(np.arange(200.0), (60, 1))[None]
    for seed in range(20):
        still = Augment.none()(ramp, ramp[0] > 9, rng(seed), crop=(40, 30))[0]
        turned = Augment(rotation=30)(ramp, ramp[0] > 9, rng(seed), crop=(40, 30))[0]
        middle = still[0, 19:21, 14:16].mean()
        assert abs(turned[0, 19:21, 14:16].mean() - middle) < 1e-6
        if 40 < middle < 160 and abs(turned[0, 0, 0] - turned[0, -1, 0]) > 5:
            assert turned.min() < still.min() - 1 and turned.max() > still.max() + 1


def test_a_square_window_of_a_long_section_is_turned_by_90_degrees_too():
    image, label = blobs(40, 50)
    turns = set()
    for seed in range(40):
        window = KINDS["turns"](image, label, rng(seed), crop=(36, 36))[0]
        for k in range(4):
            turned = np.rot90(image, k, axes=(1, 2))
            views = np.lib.stride_tricks.sliding_window_view(turned, (36, 36), axis=(1, 2))
            if (views == window[:, None, None]).all(axis=(0, 3, 4)).any():
                turns.add(k)
    assert turns == {0, 1, 2, 3}


def test_gamma_keeps_mean_and_deviation_and_the_order_of_grey_values():
    image, label = blobs()
    changed = 0
    for seed in range(40):
        bent = Augment(gamma=0.8)(image, label, rng(seed))[0]
        for new, old in zip(bent, image, strict=True):
            assert new.mean() == pytest.approx(old.mean(), abs=1e-4) and new.std() == pytest.approx(old.std(), rel=1e-4)
            assert (np.diff(new.ravel()[np.argsort(old.ravel())]) > -1e-5).all()
        changed += not np.allclose(bent, image, atol=1e-3)
    assert 5 < changed < 25  # one of three
    flat = np.full((1, 8, 9), 3, np.float32)
    np.testing.assert_array_equal(Augment(gamma=2)(flat, flat[0] > 0, rng(1))[0], flat)


def test_blur_smoothes_and_noise_adds_within_their_limits():
    image, label = np.random.default_rng(1).standard_normal((1, 61, 83)).astype(np.float32), np.zeros((61, 83), bool)
    stds = [Augment(blur=1.5)(image, label, rng(seed))[0].std() / image.std() for seed in range(60)]
    least = gaussian_filter(image[0], 1.5).std() / image.std()
    assert least - 1e-3 < min(stds) < 1.3 * least and 20 < sum(std == 1 for std in stds) < 55
    added = [(Augment(noise=0.4)(image, label, rng(seed))[0] - image).std() for seed in range(60)]
    assert 0.3 < max(added) < 0.42 and 25 < sum(a == 0 for a in added) < 55


# ---- building one


def test_presets():
    assert Augment.none() == Augment()
    assert Augment.paper() == Augment(horizontal_flip=True, zoom=0.05, shift=0.05)
    for name in ("none", "paper", "default"):
        assert Augment.parse(name) == getattr(Augment, name)()


def test_parse():
    assert Augment.parse("hflip,vflip,rotation=15,zoom=0.1,shift=0.05,elastic=8") == Augment(
        horizontal_flip=True, vertical_flip=True, rotation=15, zoom=0.1, shift=0.05, elastic=8
    )
    assert Augment.parse(" turns , elastic = 4 ,elastic_sigma=10") == Augment(
        quarter_turns=True, elastic=4, elastic_sigma=10
    )
    assert Augment.parse("paper,shift=0.2,brightness=.1,contrast=.3") == Augment(
        horizontal_flip=True, zoom=0.05, shift=0.2, brightness=0.1, contrast=0.3
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hflip,spin", "'spin' is not known"),
        ("", "'' is not known"),
        ("hflip,", "'' is not known"),
        ("spin=3", "'spin=3' is not known"),
        ("rotation", "'rotation' needs a number, as in rotation="),
        ("rotation=ten", "'ten' is not a number"),
        ("rotation=", "'' is not a number"),
        ("hflip=1", "hflip takes no value"),
        ("hflip,paper", "'paper' is a preset, and goes first"),
    ],
)
def test_parse_errors_list_the_known_names(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        Augment.parse(text)
    for name in ("paper", "default", "hflip", "vflip", "turns", "rotation=", "elastic_sigma=", "contrast="):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rotation": -1}, r"rotation=-1: expected at least 0 and at most 180"),
        ({"rotation": 181}, "at most 180"),
        ({"zoom": 1.0}, "zoom=1: expected at least 0 and below 1"),
        ({"shift": 5}, "shift=5: .*below 1"),
        ({"elastic": float("nan")}, "elastic=nan"),
        ({"elastic": float("inf")}, "at least 0 and at most 1000"),
        ({"elastic_sigma": 0}, "elastic_sigma=0: expected at least 1"),
        ({"brightness": -0.1}, "brightness"),
        ({"contrast": 1}, "contrast=1: .*below 1"),
        ({"gamma": -1}, "gamma=-1: expected at least 0"),
        ({"blur": float("nan")}, "blur=nan"),
        ({"noise": -0.5}, "noise=-0.5: expected at least 0"),
    ],
)
def test_values_out_of_range(values, message):
    with pytest.raises(ValueError, match=message):
        Augment(**values)


def test_through_a_json_file_and_back():
    augment = Augment.parse("default,elastic=8")
    assert Augment.from_dict(json.loads(json.dumps(augment.to_dict()))) == augment
    with pytest.raises(ValueError, match="unknown augmentation spin: expected horizontal_flip"):
        Augment.from_dict({"spin": 3})


@pytest.mark.parametrize(
    ("image", "label"),
    [
        (np.zeros((4, 5), np.float32), np.zeros((4, 5), bool)),
        (np.zeros((1, 4, 5), np.uint8), np.zeros((4, 5), bool)),
        (np.zeros((1, 4, 5), np.float32), np.zeros((5, 4), bool)),
    ],
)
def test_inputs_that_do_not_fit(image, label):
    with pytest.raises(ValueError, match=r"expects a float image \(C, H, W\) and its mask"):
        Augment.default()(image, label, rng())
