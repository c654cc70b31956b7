"""What tinyseg evaluate says of objects: the figures of scikit-image and of a count by hand, on the user's files."""

import json
import math

import numpy as np
import pytest
import scipy
import skimage
import tifffile
from PIL import Image
from scripts import run_example

import tinyseg as ts
from tinyseg.data import Sections, em_sections
from tinyseg.metrics.isbi import isbi_scores
from tinyseg.prediction.instances import find_instances
from tinyseg.prediction.predictor import Predictor

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]


def write(path, stack):
    tifffile.imwrite(path, stack, photometric="minisblack")
    return path


def regions(mask):
    return skimage.measure.label(mask, connectivity=1)


def numbered(*shape, seed=0):
    """Sections of rectangles that touch, each with a number, and background."""
    rng = np.random.default_rng(seed)
    stack = np.zeros(shape, np.uint16)
    for section in stack:
        section[4:24, 5:17], section[4:24, 17:50], section[30:44, 8:40] = rng.permutation(300)[:3] + 1
    return stack


def scores(*arguments, code=0):
    return run_example("evaluate.py", *arguments, code=code)


def report(folder, predictions, labels, *more):
    out, _ = scores("--predictions", predictions, "--labels", labels, "--out", folder / "s.json", *more)
    return json.loads((folder / "s.json").read_text())["objects"], out


def by_hand(truth, found):
    """Adapted Rand error, both parts of the variation of information, and AP at 0.5."""
    error = skimage.metrics.adapted_rand_error(truth, found)[0]
    split, merge = skimage.metrics.variation_of_information(truth, found, ignore_labels=(0,))
    sets = [[labels == k for k in np.unique(labels[labels > 0])] for labels in (truth, found)]
    good = np.array([[2 * (a & b).sum() >= (a | b).sum() for b in sets[1]] for a in sets[0]])
    good = min(good.any(axis=0).sum(), good.any(axis=1).sum())  # of two halves one is a partner
    return error, split, merge, good / (len(sets[0]) + len(sets[1]) - good)


@pytest.fixture
def stack(tmp_path):
    """Labels of membranes, and probabilities that are right more often than not."""
    labels = em_sections(num_sections=3, size=96, seed=1)[1]
    blurred = scipy.ndimage.gaussian_filter(labels.astype(float), (0, 1, 1))
    noise = np.random.default_rng(0).normal(0, 0.1, labels.shape)
    probability = np.clip(blurred + scipy.ndimage.gaussian_filter(noise, (0, 2, 2)) * 4, 0, 1).astype(np.float32)
    write(tmp_path / "labels.tif", np.where(labels, 255, 0).astype(np.uint8))
    write(tmp_path / "probability.tif", probability)
    return labels, probability


@pytest.mark.parametrize(
    "options", [{}, {"threshold": 0.4, "seed_threshold": 0.7, "neck": 0.5, "border": 0.7, "min_size": 9}]
)
def test_probabilities(tmp_path, stack, options):
    labels, probability = stack
    given = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    objects, out = report(tmp_path, tmp_path / "probability.tif", tmp_path / "labels.tif", *given)
    assert f"--border {options.get('border', 0.45)}, --min-size" in out
    found = [find_instances(p, **options) for p in probability]
    names = "adapted_rand_error", "vi_split", "vi_merge", "ap_50"
    for k, row in enumerate(objects["sections"]):
        truth = regions(labels[k])
        assert [row[name] for name in names] == pytest.approx(by_hand(truth, found[k]))
        assert (row["true"], row["found"], row["name"]) == (truth.max(), found[k].max(), f"probability.tif[{k}]")
        assert row["average_precision"][0] == row["ap_50"] and row["average_precision"][5] == row["ap_75"]
        assert row["ap"] == pytest.approx(np.mean(row["average_precision"])) and 0 < row["ap"] < row["ap_50"] < 1
    for name in names:
        mean = np.mean([row[name] for row in objects["sections"]])
        assert objects["mean_over_sections"][name]["mean"] == pytest.approx(mean)
    assert objects["all"]["true"] == sum(row["true"] for row in objects["sections"])
    tp = sum(row["ap_50"] / (1 + row["ap_50"]) * (row["true"] + row["found"]) for row in objects["sections"])
    assert objects["all"]["ap_50"] == pytest.approx(tp / (objects["all"]["true"] + objects["all"]["found"] - tp))
    assert objects["iou_thresholds"] == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert f"--min-size {options.get('min_size', 30)}" in out and "true ones: the regions of the labels" in out
    last = next(line.split() for line in out.splitlines() if line.startswith("all objects"))
    assert last[2:5] == [str(objects["all"]["true"]), str(objects["all"]["found"]), f"{objects['all']['ap_50']:.4f}"]


def test_objects_that_grow(tmp_path, stack):
    labels, probability = stack
    objects, out = report(tmp_path, tmp_path / "probability.tif", tmp_path / "labels.tif", "--grow")
    error = by_hand(regions(labels[0]), find_instances(probability[0], grow=True))[0]
    assert objects["sections"][0]["adapted_rand_error"] == pytest.approx(error) and "--grow" in out


def test_the_challenge_scores_objects_as_masks_with_lines_between_them(tmp_path, stack):
    labels, probability = stack
    objects, out = report(tmp_path, tmp_path / "probability.tif", tmp_path / "labels.tif", "--grow")
    masks = np.zeros(labels.shape, bool)
    for k, p in enumerate(probability):
        padded = np.pad(find_instances(p, grow=True), 1, mode="edge")
        around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
        masks[k] = (around == around[:, :, 1:2, 1:2]).all(axis=(2, 3)) & (around[:, :, 1, 1] > 0)
    expected = isbi_scores(masks, labels)
    assert objects["isbi"]["v_rand"] == expected.v_rand != isbi_scores(probability, labels).v_rand
    assert objects["isbi"]["v_info_merge"] == expected.v_info_merge
    assert f"between the objects: V^Rand {expected.v_rand:.4f} (split {expected.v_rand_split:.4f}" in out


def test_masks_are_scored_by_their_regions(tmp_path, stack):
    labels, _ = stack
    objects, out = report(tmp_path, tmp_path / "labels.tif", write(tmp_path / "same.tif", 255 * labels.astype("u1")))
    assert objects["all"]["average_precision"] == [1] * 10 and "the regions of the predicted masks" in out
    assert objects["mean_over_sections"]["adapted_rand_error"]["mean"] == 0
    given = "--predictions", tmp_path / "same.tif", "--labels", tmp_path / "labels.tif", "--neck", 0.5, "--grow"
    _, err = scores(*given, code=1)
    assert "--neck and --grow: this is for probabilities, and the predictions are masks" in err


@pytest.mark.filterwarnings("ignore:.*labels of")
def test_numbers_of_labels_and_of_predictions_are_used(tmp_path):
    truth = numbered(2, 48, 61)
    found = truth.copy()
    found[1][truth[1] == truth[1, 4, 5]] = truth[1, 4, 20]  # two that touch are taken for one
    write(tmp_path / "truth.tif", truth)
    objects, out = report(tmp_path, write(tmp_path / "cells_instances.tif", found), tmp_path / "truth.tif")
    assert "those that the predictions number; true ones: those that the labels number" in out
    assert [row["true"] for row in objects["sections"]] == [3, 3]
    assert [row["found"] for row in objects["sections"]] == [3, 2]
    assert [row["ap_50"] for row in objects["sections"]] == [1, pytest.approx(2 / 3)]  # 660 of 900 pixels: IoU 0.73
    assert objects["sections"][0]["average_precision"] == [1] * 10  # the objects as they are numbered, to the pixel
    assert objects["sections"][1]["vi_split"] == 0 < objects["sections"][1]["vi_merge"]
    given = "--predictions", tmp_path / "cells_instances.tif", "--labels", tmp_path / "truth.tif", "--min-size", 3
    assert (
        "--min-size: this is for probabilities, and the predictions are numbers of objects" in scores(*given, code=1)[1]
    )


@pytest.mark.filterwarnings("ignore:.*labels of")
def test_a_network_is_scored_by_the_numbers_of_the_labels_of_the_chosen_sections(tmp_path, monkeypatch):
    truth = numbered(4, 48, 61)
    truth[2][truth[2] == truth[2, 30, 8]] = 0
    images = np.where(truth > 0, 250, 5).astype(np.uint8)
    images[:, :26, 16:18] = 5  # a gap, which the labels do not have
    monkeypatch.setattr(Predictor, "__call__", lambda self, image: image[None].astype(np.float32) / 255)
    for place, stack in (("images", images), ("labels", truth)):
        (tmp_path / place).mkdir()
        for k, section in enumerate(stack):
            Image.fromarray(section).save(tmp_path / place / f"{k}.png")
    model = ts.models.build("sdunet", width=4, levels=2)
    ts.checkpoint.save(tmp_path / "net.safetensors", model, preprocessing={"scale": [1, 1], "standardize": "section"})
    given = "--checkpoint", tmp_path / "net.safetensors", "--images", tmp_path, "--device", "cpu", "--sections", "1:3"
    scores(*given, "--out", tmp_path / "s.json")
    objects = json.loads((tmp_path / "s.json").read_text())["objects"]
    assert [(row["name"], row["true"]) for row in objects["sections"]] == [("1.png", 3), ("2.png", 2)]
    assert objects["true_objects"] == "those that the labels number"
    assert (objects["all"]["found"], objects["all"]["ap_50"]) == (5, 1)


@pytest.mark.filterwarnings("ignore:.*labels of")
def test_what_predict_wrote_is_scored_without_its_picture(tmp_path, stack):
    labels, probability = stack
    folder = tmp_path / "o"
    folder.mkdir()
    write(folder / "a_instances.tif", np.stack([find_instances(p) for p in probability]).astype(np.uint16))
    (folder / "a_instances.csv").write_text("image,section\n")
    from tinyseg.report.saving import CREATOR

    (folder / "a_instances_overlay.png").write_bytes(b"\x89PNG\r\n\x1a\n" + f"Creator\0{CREATOR}".encode())
    objects, out = report(tmp_path, folder, tmp_path / "labels.tif")
    assert "scored are a_instances.tif, and left out a_instances_overlay.png." in out
    truth = regions(labels[0])
    assert objects["sections"][0]["adapted_rand_error"] == pytest.approx(
        by_hand(truth, find_instances(probability[0]))[0]
    )


def test_sections_without_objects(tmp_path, stack):
    labels, probability = stack
    probability[0], probability[1] = 0, 0.1
    labels[0] = False
    write(tmp_path / "labels.tif", np.where(labels, 255, 0).astype(np.uint8))
    write(tmp_path / "probability.tif", probability)
    objects, out = report(tmp_path, tmp_path / "probability.tif", tmp_path / "labels.tif")
    first, second, _ = objects["sections"]
    assert first["ap"] is None and first["adapted_rand_error"] is None and second["ap"] == 0
    assert objects["mean_over_sections"]["ap"]["undefined"] == 1 and "nan" in out
    objects, _ = report(tmp_path, tmp_path / "probability.tif", tmp_path / "labels.tif", "--empty", "one")
    assert objects["sections"][0]["ap"] == 1 and objects["sections"][0]["adapted_rand_error"] is None


def test_options_of_objects_are_none_of_volumes(tmp_path, brains):
    _, err = scores("--predictions", brains / "labelsTr", "--labels", brains, "--neck", 0.5, code=1)
    assert "--neck: this is for sections, not for volumes of brain tumours" in err


def test_numbers_of_objects_go_with_their_sections():
    objects = numbered(3, 48, 61)
    sections = Sections(objects.astype(np.uint8), objects > 0, ["a", "b", "c"], objects=objects)
    np.testing.assert_array_equal(sections.take([2, 0]).objects, objects[[2, 0]])
    small = sections.resized((24, 30)).objects
    assert small.shape == (3, 24, 30) and set(np.unique(small)) <= set(np.unique(objects))
    assert not math.isclose((small > 0).mean(), 0) and sections.split(1)[1].objects.shape == (1, 48, 61)
    with pytest.raises(ValueError, match=r"objects \(3, 61, 48\) must have the shape of images \(3, 48, 61\)"):
        Sections(objects.astype(np.uint8), None, ["a", "b", "c"], objects=objects.transpose(0, 2, 1))
