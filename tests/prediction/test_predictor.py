"""From images as stored to probabilities at their own resolution."""

import numpy as np
import pytest
import tifffile

import tinyseg as ts
from tinyseg.data import Sections, memory, standardize
from tinyseg.data.images import open_image
from tinyseg.prediction import predict
from tinyseg.prediction.predictor import Predictor, labels


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


@pytest.mark.parametrize(
    ("postprocessing", "words"),
    [
        (4, "postprocessing"),
        ({"min_component": 2}, '"min_component"'),
        ({"min_component": "a"}, '"min_component"'),
        ({"border": -1}, '"border"'),
        ({"border": "0.3"}, '"border"'),
    ],
)
def test_postprocessing_that_does_not_fit_gets_a_sentence_with_the_files_name(postprocessing, words, tmp_path):
    model, path = ts.models.build("sdunet", width=4, levels=3), tmp_path / "a.safetensors"
    ts.checkpoint.save(path, model, preprocessing={"kind": "brain"}, postprocessing=postprocessing)
    with pytest.raises(ValueError, match=rf"a\.safetensors.*{words}"):
        Predictor.load(path)


def test_there_is_a_name_for_each_class():
    with pytest.raises(ValueError, match="The network has 1 classes, and names for 2"):
        Predictor(build(classes=["a", "b"]))


def test_a_network_with_a_weight_that_is_not_finite_is_refused_with_its_name():
    model = build(name="unet_dw_bn")
    model.encoder[0].norm.running_var[1] = np.nan
    with pytest.raises(ValueError, match="encoder.0.norm.running_var of the network holds NaN or infinity"):
        Predictor(model)


SECTION = stack((24, 32))
NO_ARRAYS = {
    "a list": (SECTION.tolist(), "found a list"), "a path": ("stack.tif", "found a str"),
    "None": (None, "found a NoneType"),
    "a Tensor": (ts.Tensor(SECTION[None] / 255), r"found a Tensor: give .* x\.data of a Tensor"),
    "masked": (np.ma.masked_greater(SECTION, 99), r"found a MaskedArray: give .* x\.filled\(value\)"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "words"), NO_ARRAYS.values(), ids=NO_ARRAYS)
def test_a_section_or_a_volume_that_is_no_array_is_refused_with_its_type(given, words):
    predictor = Predictor(build())
    with pytest.raises(TypeError, match=r"this model takes a section \(C, H, W\) or \(H, W\) with C = 1, .*" + words):
        predictor(given)
    with pytest.raises(TypeError, match=r"this model takes a volume \(C, X, Y, Z\) with C = 1, .*" + words):
        predictor.volume(given)


@pytest.mark.parametrize("how", ["section", "stack", "unit"])
@pytest.mark.parametrize(
    ("section", "words"),
    [
        (SECTION[0], r"uint8 numpy array of shape \(32,\)"), (SECTION[None, None], r"of shape \(1, 1, 24, 32\)"),
        (stack(), r"of shape \(3, 40, 56\)\. Give several sections one by one"), (SECTION[:0], r"shape \(0, 32\)"),
        (SECTION.astype(complex), "complex128 numpy"), (SECTION.astype(object), "object numpy"),
        (SECTION * 1e300, r"values up to 2\.\d+e\+302, beyond float32"),
        (SECTION.astype(np.uint64) + 2**63, r"integers beyond 2\*\*53"),
        (SECTION.astype(np.int64) - 2**62, r"integers beyond 2\*\*53"),
    ],
    ids=["one axis", "four axes", "a stack", "empty", "complex", "objects", "1e300", "uint64", "int64"],
)  # fmt: skip
def test_a_section_that_the_network_cannot_be_given_is_refused(section, words, how):
    with pytest.raises(ValueError, match=r"this model takes a section .* integers or floats, but found .*" + words):
        Predictor(build(how=how))(section)


def test_a_volume_of_other_axes_or_channels_is_refused_before_it_is_read():
    for volume in (stack(), stack((2, 8, 8, 3))):
        with pytest.raises(ValueError, match=r"takes a volume \(C, X, Y, Z\) with C = 1, .* found uint8 numpy array"):
            Predictor(build()).volume(volume)


@pytest.mark.parametrize("threshold", ["0.5", None, np.nan, 127])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(ValueError, match=r"threshold must be a number in the interval \[0, 1\]"):
        Predictor(build()).volume(stack((1, 8, 8, 3)), threshold)


def test_labels_at_a_threshold_that_is_no_number_are_refused():
    with pytest.raises(ValueError, match="threshold must be a number .*'0.5'"):
        labels(np.zeros((1, 4, 4), np.float32), "0.5")


def test_sections_of_any_type_of_numbers_give_the_same_answer():
    predictor, image = Predictor(build(scale=(1, 1))), SECTION
    for dtype in ("u2", ">i4", "u8", "i8", "f2", "f4", ">f8"):
        np.testing.assert_allclose(predictor(image.astype(dtype)), predictor(image), atol=1e-5)
    assert predictor(image > 100).shape == (1, 24, 32)
