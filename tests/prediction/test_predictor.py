"""From images as stored to probabilities at their own resolution."""

import numpy as np
import pytest
import tifffile

import tinyseg as ts
from tinyseg.data import Sections, memory, standardize
from tinyseg.data.images import open_image
from tinyseg.prediction import predict
from tinyseg.prediction.predictor import Predictor


def build(scale=(0.5, 0.5), how="section", num_classes=1, in_channels=1, name="sdunet", classes=None):
    model = ts.models.build(name, in_channels, num_classes, width=4, levels=3).eval()
    model.meta = {"preprocessing": {"scale": list(scale), "standardize": how}, "classes": classes}
    return model


def stack(shape=(3, 40, 56), dtype=np.uint8):
    return (np.random.default_rng(0).random(shape) * 250).astype(dtype)


@pytest.mark.parametrize("how", ["section", "stack", "unit"])
def test_it_prepares_images_as_the_training_did(how, tmp_path):
    """The same numbers as by the functions that the training uses, read back at the pixels they were read from."""
    images, model = stack(), build(how=how)
    tifffile.imwrite(tmp_path / "stack.tif", images, photometric="minisblack")
    small = Sections(images, None, ["a", "b", "c"]).resized((20, 28)).images
    expected = predict(model, standardize(small, how))
    predictor = Predictor(model)
    with open_image(tmp_path / "stack.tif") as image:
        predictor.look_at(image)
        found = np.stack([predictor(image.section(k)) for k in range(3)])
    assert found.shape == (3, 1, 40, 56) and found.dtype == np.float32
    np.testing.assert_allclose(found[:, :, 1::2, 1::2], expected, atol=1e-5)


def test_the_stacks_statistics_are_forgotten_with_the_next_stack(tmp_path):
    predictor = Predictor(build(how="stack", scale=(1, 1)))
    found = []
    for name, images in (("dark", stack()), ("light", stack() // 2 + 100), ("dark", stack())):
        tifffile.imwrite(tmp_path / f"{name}.tif", images, photometric="minisblack")
        with open_image(tmp_path / f"{name}.tif") as image:
            predictor.look_at(image)
            found.append(predictor(image.section(0)))
    np.testing.assert_array_equal(found[0], found[2])
    assert np.abs(found[0] - found[1]).max() < 0.05  # the light one is the dark one, rescaled and rounded


def test_a_blank_stack_is_no_division_by_zero(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((2, 24, 32), 7, np.uint8), photometric="minisblack")
    predictor = Predictor(build(how="stack"))
    with open_image(tmp_path / "a.tif") as image:
        predictor.look_at(image)
        assert np.isfinite(predictor(image.section(0))).all()


def test_several_classes_sum_to_one_and_are_named():
    predictor = Predictor(build(num_classes=3, in_channels=2, classes=["air", "bone", "rest"]))
    p = predictor(stack((2, 24, 40)))
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-5)
    assert p.shape == (3, 24, 40) and predictor.classes == ["air", "bone", "rest"]
    assert Predictor(build(num_classes=2)).classes == ["class 0", "class 1"]


def test_another_scale_than_the_trainings():
    image = stack((32, 32))
    model = build(scale=(1, 1))
    np.testing.assert_array_equal(Predictor(model, scale=0.5)(image), Predictor(build(scale=(0.5, 0.5)))(image))
    assert np.abs(Predictor(model, scale=0.5)(image) - Predictor(model)(image)).max() > 1e-3
    with pytest.raises(ValueError, match="scale must be from"):
        Predictor(model, scale=-1)


def test_an_image_that_the_scale_makes_huge_is_refused_before_it_is_resampled(monkeypatch):
    monkeypatch.setattr(memory, "memory_limit", lambda: 8 << 30)
    with pytest.raises(ValueError, match="32000 × 32000 pixels for the network would take .* GiB of memory"):
        Predictor(build(scale=(1, 1)), scale=1000)(stack((32, 32)))


def test_a_network_without_a_finite_output_is_named_with_its_file(tmp_path):
    model = build(scale=(1, 1))
    for p in model.parameters():
        p.data[...] = 3e38
    ts.checkpoint.save(tmp_path / "large.safetensors", model, preprocessing=model.meta["preprocessing"])
    with pytest.raises(ValueError, match=r"large\.safetensors: the network's output is NaN or infinite"):
        Predictor.load(tmp_path / "large.safetensors")(stack((32, 32)))


def test_little_memory_means_tiles_with_nearly_the_same_result():
    model, image = build(name="unet", scale=(1, 1)), stack((200, 232))
    whole = Predictor(model)
    tiled = Predictor(model, memory=10 * 4 * 4 * 112**2)
    assert tiled.tile == 112 < 200 < whole.tile
    np.testing.assert_allclose(tiled(image), whole(image), atol=1e-5)


def test_it_says_what_is_missing(tmp_path):
    model = build()
    del model.meta["preprocessing"]
    with pytest.raises(ValueError, match="does not say how images were prepared"):
        Predictor(model)
    ts.checkpoint.save(tmp_path / "bare.safetensors", ts.models.build("sdunet", width=4, levels=3))
    with pytest.raises(ValueError, match="train_isbi.py"):
        Predictor.load(tmp_path / "bare.safetensors")


def test_images_with_other_channels_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", stack(), photometric="minisblack")
    other = pytest.raises(ValueError, match="has 1 channel, and the network takes 2")
    with open_image(tmp_path / "a.tif") as image, other:
        Predictor(build(in_channels=2)).look_at(image)


@pytest.mark.parametrize(
    ("preprocessing", "words"),
    [
        ({"scale": "x", "standardize": "section"}, "at scale"), ({"scale": [1], "standardize": "section"}, "at scale"),
        ({"scale": 1, "standardize": "mean"}, "Invalid enum value 'mean' at standardize"),
        ({"scale": float("nan"), "standardize": "unit"}, "scale must be from 0.001 to 1000"),
        ({"scale": [1, -1], "standardize": "unit"}, "scale must be from 0.001 to 1000"),
        ({"kind": "brain", "size": "big"}, "at size"), ({"kind": "brain", "how": "cut"}, "how 'crop' or 'resize'"),
        ({"kind": "brain", "modalities": 4}, '"modalities" do not fit'),
    ],
)  # fmt: skip
def test_preprocessing_of_another_shape_gets_a_sentence_with_the_files_name(preprocessing, words, tmp_path):
    model = ts.models.build("sdunet", width=4, levels=3)
    ts.checkpoint.save(tmp_path / "a.safetensors", model, preprocessing=preprocessing)
    with pytest.raises(ValueError, match=rf"a\.safetensors: .*{words}"):
        Predictor.load(tmp_path / "a.safetensors")


def test_there_is_a_name_for_each_class():
    with pytest.raises(ValueError, match="The network has 1 classes, and names for 2"):
        Predictor(build(classes=["a", "b"]))


def test_a_network_with_a_weight_that_is_not_finite_is_refused_with_its_name():
    model = build(name="unet_dw_bn")
    model.encoder[0].norm.running_var[1] = np.nan
    with pytest.raises(ValueError, match="encoder.0.norm.running_var of the network holds NaN or infinity"):
        Predictor(model)
