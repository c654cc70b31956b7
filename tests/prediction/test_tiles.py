import concurrent.futures

import numpy as np
import pytest

import tinyseg as ts
from tinyseg.prediction import normalizes_over_space, predict, predict_logits, tile_within
from tinyseg.prediction.tiles import _spans


@pytest.fixture(scope="module")
def model():
    return ts.models.build("sdunet", width=4, levels=3, num_classes=1)


def images(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_sizes_that_fit_are_the_model_itself(model):
    x = images((3, 1, 8, 12))
    expected = model.eval()(x).data
    np.testing.assert_array_equal(predict_logits(model, x, batch_size=3), expected)
    np.testing.assert_allclose(predict(model, x), 1 / (1 + np.exp(-expected)), rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 7, 9), (2, 13, 8), (1, 1, 6), (1, 3, 1)])
def test_any_size_comes_back_at_its_own_size(model, shape):
    y = predict(model, images(shape))
    assert y.shape == (shape[0], 1, *shape[1:]) and np.isfinite(y).all()


def test_padding_mirrors_the_image(model):
    x = images((1, 1, 10, 11))
    padded = np.pad(x, ((0, 0), (0, 0), (0, 2), (0, 1)), mode="reflect")
    np.testing.assert_array_equal(predict_logits(model, x), model.eval()(padded).data[:, :, :10, :11])


def test_batch_size_does_not_matter(model):
    x = images((5, 8, 8))
    np.testing.assert_allclose(predict(model, x, 1), predict(model, x, 4), rtol=1e-4)


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_is_left_as_it_was_even_after_an_error(model, mode):
    model.train(mode)
    predict(model, images((1, 8, 8)))
    assert model.training == mode
    with pytest.raises(ValueError, match="takes images of shape"):
        predict(model, images((1, 2, 8, 8)))
    assert model.training == mode


@pytest.mark.parametrize("shape", [(1, 13, 17), (1, 40, 56)])
def test_the_smallest_tiles_cover_the_image(model, shape):
    y = predict(model, images(shape), tile=model.multiple)
    assert y.shape == (1, 1, *shape[1:]) and np.isfinite(y).all()


def test_several_classes_add_up_to_one():
    model = ts.models.build("sdunet", width=4, levels=2, num_classes=3)
    np.testing.assert_allclose(predict(model, images((1, 5, 6))).sum(axis=1), 1, rtol=1e-5)


def test_a_frozen_part_stays_frozen(model):
    model.train()
    model.encoder[0].eval()
    predict(model, images((1, 8, 8)))
    assert model.decoder[0].training and not model.encoder[0].training


@pytest.mark.parametrize("name", ["sdunet", "sdunet_bn"])
def test_a_pool_of_threads_predicts_with_a_model_in_training_mode(name):
    model = ts.models.build(name, width=4, levels=2, dropout=0.5)
    x = images((16, 32, 32))
    alone = [predict(model, x[k : k + 1]) for k in range(16)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda k: predict(model, x[k : k + 1]), range(16)))
    np.testing.assert_array_equal(together, alone)
    assert all(module.training for _, module in model.named_modules())


def influence(model, size=40):
    """How far from a changed pixel the output changes: the largest over all offsets from the pooling grid."""
    for p in model.parameters():
        p.data = (np.abs(p.data) + 0.01).astype(np.float64)  # nothing cancels, no ReLU is off
    r = model.receptive_radius
    n = -(-(2 * r + size) // model.multiple) * model.multiple
    base, reach = np.ones((1, model.in_channels, model.multiple, n)), 0
    before = predict_logits(model, base)
    for q in range(n // 2, n // 2 + model.multiple):
        x = base.copy()
        x[..., q] += 1
        changed = np.flatnonzero((predict_logits(model, x) != before).any(axis=(0, 1, 2)))
        reach = max(reach, q - changed[0], changed[-1] - q)
    return reach


@pytest.mark.parametrize("levels", [2, 3, 4])
@pytest.mark.parametrize("options", [{}, {"head": "paper"}, {"stem_layers": 1, "bottleneck_layers": 1}])
def test_the_receptive_radius_is_what_is_measured(options, levels):
    model = ts.models.build("unet", width=2, levels=levels, **options)
    assert influence(model) == model.receptive_radius


@pytest.mark.parametrize("name", ["unet", "unet_dw_bn"])
@pytest.mark.parametrize("shape", [(76, 62), (40, 90), (21, 83), (40, 40)])
def test_tiles_give_what_the_whole_image_gives(name, shape):
    model = ts.models.build(name, in_channels=2, num_classes=3, width=3, levels=2)
    x = images((2, 2, *shape))
    whole, tiled = predict_logits(model, x, 2), predict_logits(model, x, 2, tile=4 * model.receptive_radius)
    np.testing.assert_allclose(tiled, whole, atol=1e-5 * np.abs(whole).max())
    if shape == (21, 83):
        smaller = predict_logits(model, x, 2, tile=16)  # not enough for the margin: near, not equal
        assert 1e-5 < np.abs(smaller - whole).max() / np.abs(whole).max() < 1


def test_a_tile_larger_than_the_image_is_the_image(model):
    x = images((1, 1, 20, 24))
    np.testing.assert_array_equal(predict_logits(model, x, tile=64), predict_logits(model, x))


@pytest.mark.parametrize("tile", [0, -4, 30])
def test_tiles_must_fit_the_pooling(model, tile):
    with pytest.raises(ValueError, match="positive multiple of 4"):
        predict_logits(model, images((1, 1, 40, 40)), tile=tile)


@pytest.mark.parametrize(("n", "tile", "margin"), [(100, 40, 10), (41, 40, 10), (40, 40, 10), (99, 16, 4), (8, 16, 4)])
def test_every_pixel_has_a_tile_and_margins_count_for_nothing(n, tile, margin):
    total, spans = np.zeros(n), list(_spans(n, tile, margin, 1))
    for part, weight in spans:
        assert part.stop - part.start == min(tile, n) == len(weight)
        assert part.start == 0 or not weight[:margin].any()
        assert part.stop == n or not weight[len(weight) - margin :].any()
        total[part] += weight
    assert total.min() > 0 and spans[0][0].start == 0 and spans[-1][0].stop == n


def test_the_mean_over_flips_and_turns(model):
    x = images((2, 1, 12, 16))
    everything = [
        (lambda a: a), (lambda a: a[..., ::-1]), (lambda a: a[..., ::-1, :]), (lambda a: a[..., ::-1, ::-1]),
    ]  # fmt: skip
    flips = [undo(predict(model, undo(x))) for undo in everything]
    np.testing.assert_allclose(predict(model, x, transforms="flips"), np.mean(flips, 0), atol=1e-6)
    turned = [undo(predict(model, undo(x).swapaxes(2, 3)).swapaxes(2, 3)) for undo in everything]
    np.testing.assert_allclose(predict(model, x, transforms="all"), np.mean(flips + turned, 0), atol=1e-6)


def test_with_all_transforms_a_turned_image_gives_the_turned_answer(model):
    x = images((1, 1, 12, 16))

    def turn(array):
        return np.rot90(array, axes=(2, 3))

    y = predict(model, x, transforms="all")
    np.testing.assert_allclose(predict(model, turn(x), transforms="all"), turn(y), atol=1e-6)
    assert np.abs(predict(model, turn(x)) - turn(predict(model, x))).max() > 1e-4


def test_unknown_transforms_are_refused(model):
    with pytest.raises(ValueError, match="none, flips, all"):
        predict(model, images((1, 1, 8, 8)), transforms="rotations")


def test_the_tile_grows_with_the_memory_and_shrinks_with_the_width():
    narrow, wide = (ts.models.build("unet", width=w, levels=3) for w in (4, 16))
    sides = [tile_within(narrow, m) for m in (1, 2**24, 2**28)]
    assert sides[0] == 64 and sides == sorted(sides) and sides[2] / sides[1] == pytest.approx(4, rel=0.02)
    assert tile_within(wide, 2**28) * 2 == pytest.approx(sides[2], rel=0.02) and all(side % 4 == 0 for side in sides)


def test_which_networks_see_the_whole_image():
    seen = {name: normalizes_over_space(ts.models.build(name, width=4, levels=2)) for name in ts.models.MODELS}
    assert seen == {name: name.endswith("_gn") or name == "sdunet" for name in ts.models.MODELS}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (images((1, 8, 8)).tolist(), "found a list"), ("a.tif", "found a str"), (images((8, 8)), r"shape \(8, 8\)"),
        (images((8,)), r"shape \(8,\)"), (images((0, 1, 8, 8)), r"shape \(0, 1, 8, 8\)"),
        (ts.Tensor(images((1, 1, 8, 8))), "found a Tensor"), (images((1, 8, 8)).astype(complex), "found complex"),
        (np.ma.masked_less(images((1, 8, 8)), 0), "found a MaskedArray"),
        (np.full((1, 8, 8), -1e300), r"found values up to 1e\+300, beyond float32"),
    ],
    ids=["list", "path", "2-D", "1-D", "no images", "Tensor", "complex", "masked", "1e300"],
)  # fmt: skip
@pytest.mark.parametrize("function", [predict, predict_logits])
def test_images_that_are_no_batch_of_numbers_are_refused(model, function, given, words):
    with pytest.raises((TypeError, ValueError), match="images must be an array of .*" + words):
        function(model, given)


def test_a_network_of_float64_takes_what_float64_holds(model):
    wide = ts.models.build("unet", width=2, levels=2)
    for p in wide.parameters():
        p.data = p.data.astype(np.float64)
    assert np.isfinite(predict_logits(wide, np.full((1, 8, 8), 1e50))).all()
