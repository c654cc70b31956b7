"""examples/evaluate.py as a user meets it: the same figures as the functions give, and sentences for what cannot be."""

import json

import numpy as np
import pytest
import tifffile
from matplotlib.text import Text
from PIL import Image
from scipy.ndimage import binary_erosion
from scripts import REAL, run_example

import tinyseg as ts
from tinyseg.data import Sections, em_sections, isbi
from tinyseg.metrics import accuracy, dice, iou, mean_iou, sensitivity, specificity
from tinyseg.metrics.isbi import v_info, v_rand
from tinyseg.prediction.predictor import Predictor
from tinyseg.report import plots

pytestmark = pytest.mark.slow


def write(path, stack):
    tifffile.imwrite(path, stack, photometric="minisblack")
    return path


@pytest.fixture(scope="module")
def sections():
    return em_sections(num_sections=4, size=64, seed=1)


@pytest.fixture
def data(sections, tmp_path):
    """A folder like the challenge's, and probabilities that are right more often than not."""
    images, labels = (a.copy() for a in sections)
    write(tmp_path / "train-volume.tif", images)
    write(tmp_path / "train-labels.tif", np.where(labels, 255, 0).astype(np.uint8))
    noise = np.random.default_rng(0).random(labels.shape)
    probability = np.where(labels, 0.55 + 0.45 * noise, 0.75 * noise).astype(np.float32)
    write(tmp_path / "probability.tif", probability)
    return tmp_path, labels, probability


def evaluate(*arguments, code=0):
    return run_example("evaluate.py", *arguments, code=code)


def test_predictions_get_the_scores_of_the_library(data):
    folder, labels, probability = data
    out, _ = evaluate(
        "--predictions", folder / "probability.tif", "--labels", folder / "train-labels.tif", "--images",
        folder / "train-volume.tif", "--out", folder / "scores.json", "--threshold", "0.6",
    )  # fmt: skip
    report = json.loads((folder / "scores.json").read_text())
    mask = probability > 0.6
    expected = {f.__name__: f(mask, labels) for f in (accuracy, dice, iou, mean_iou, sensitivity, specificity)}
    expected |= {"v_rand": v_rand(probability, labels), "v_info": v_info(probability, labels)}
    expected |= {"membrane_iou": iou(~mask, ~labels), "membrane_dice": dice(~mask, ~labels)}
    assert report["metrics"] == pytest.approx(expected)
    per_section = [dice(m, t) for m, t in zip(mask, labels, strict=True)]
    assert [s["dice"] for s in report["sections"]] == pytest.approx(per_section)
    mean = report["mean_over_sections"]["dice"]
    assert mean["mean"] == pytest.approx(np.mean(per_section)) and mean["sections"] == 4
    assert min(per_section) <= mean["interval"][0] < mean["mean"] < mean["interval"][1] <= max(per_section)
    assert np.mean([s["v_rand"] for s in report["sections"]]) == pytest.approx(report["metrics"]["v_rand"])
    assert report["settings"]["threshold"] == 0.6 and len(report["isbi"]["thresholds"]) == 11
    with Image.open(folder / "scores.worst.png") as picture:
        assert min(picture.size) > 300
    lines = {line.split("  ")[0].strip(): line for line in out.partition("Objects:")[0].splitlines()}
    assert (
        f"{expected['v_rand']:.4f}" in lines["all pixels"] and f"{per_section[2]:.4f}" in lines["train-volume.tif[2]"]
    )


def test_a_checkpoint_is_scored_on_the_chosen_sections(data, no_pictures):
    folder, labels, _ = data
    model = ts.models.build("sdunet", width=4, levels=3)
    ts.checkpoint.save(folder / "net.safetensors", model, preprocessing={"scale": [0.5, 0.5], "standardize": "section"})
    evaluate(
        "--checkpoint", folder / "net.safetensors", "--images", folder, "--sections", "1:3", "--out",
        folder / "new" / "scores.json", "--worst", "1", "--device", "cpu",
    )  # fmt: skip
    report = json.loads((folder / "new" / "scores.json").read_text())
    predictor = Predictor.load(folder / "net.safetensors")
    images = tifffile.imread(folder / "train-volume.tif")[1:3]
    mask = np.stack([predictor(image)[0] for image in images]) > 0.5
    assert report["metrics"]["accuracy"] == pytest.approx(accuracy(mask, labels[1:3]))
    assert [s["name"] for s in report["sections"]] == ["train-volume.tif[1]", "train-volume.tif[2]"]


def test_masks_are_scored_as_they_are(data, no_pictures):
    folder, labels, _ = data
    mask = np.stack([binary_erosion(x) for x in labels])
    write(folder / "mask.tif", np.where(mask, 255, 0).astype(np.uint8))
    arguments = "--labels", folder / "train-labels.tif", "--sections", "2", "--out", folder / "s.json"
    evaluate("--predictions", folder / "mask.tif", *arguments)
    report = json.loads((folder / "s.json").read_text())
    assert report["metrics"]["dice"] == pytest.approx(dice(mask[2:], labels[2:]))
    assert report["metrics"]["v_rand"] == pytest.approx(v_rand(mask[2:], labels[2:]))


def test_a_section_where_nothing_is_to_be_found(data, no_pictures):
    folder, labels, probability = data
    labels[1], probability[1] = True, 0.9  # no membrane, and none found
    write(folder / "train-labels.tif", np.where(labels, 255, 0).astype(np.uint8))
    write(folder / "probability.tif", probability)
    given = "--predictions", folder / "probability.tif", "--labels", folder / "train-labels.tif"
    given += "--out", folder / "s.json"
    out, _ = evaluate(*given)
    report = json.loads((folder / "s.json").read_text())
    assert report["sections"][1]["membrane_iou"] is None and report["sections"][1]["v_info"] == 0
    assert report["mean_over_sections"]["membrane_iou"]["undefined"] == 1 and "0/0" in out
    evaluate(*given, "--empty", "one", "--degenerate", "one")
    report = json.loads((folder / "s.json").read_text())
    assert report["sections"][1]["membrane_iou"] == 1 and report["sections"][1]["v_info"] == 1


def test_what_cannot_be_compared_gets_a_sentence(data):
    folder, labels, probability = data
    fewer, grey, logits = folder / "fewer.tif", folder / "grey.tif", folder / "logits.tif"
    write(fewer, np.where(labels[:3], 255, 0).astype(np.uint8))
    write(grey, (probability * 4095).astype(np.uint16))
    write(logits, probability * 10 - 5)
    good, true = folder / "probability.tif", folder / "train-labels.tif"
    for predictions, other, words in (
        (good, fewer, "4 sections of 64×64.*3 sections of 64×64"), (grey, true, "Divide by the largest value"),
        (logits, true, r"floats in \[0, 1\]"), (good, folder / "none.tif", "not exist"), (good, grey, "two values"),
    ):  # fmt: skip
        with pytest.raises(AssertionError, match=words):  # the message is in it
            evaluate("--predictions", predictions, "--labels", other, "--out", folder / "s.json")
        assert not (folder / "s.json").exists()
    predictions, checkpoint = ("--predictions", good), ("--checkpoint", good)
    for arguments in ((), predictions, checkpoint, (*predictions, *checkpoint)):
        evaluate(*arguments, code=2)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("memory", "-1"), ("memory", "inf"), ("threshold", "nan"), ("threshold", "2"), ("worst", "-1"), ("small", "-5"),
        ("small", "inf"), ("sections", "0"), ("sections", "3:1"), ("out", ""), ("images", ""),
    ],
)  # fmt: skip
def test_options_out_of_their_range(option, value):
    _, err = evaluate("--checkpoint", "net", "--images", "folder", f"--{option}={value}", code=2)
    assert f"argument --{option}: expected" in err


# ----- what the checkpoint knows ---------------------------------------------------
def trained(folder, **more):
    """A checkpoint that train_isbi.py could have left: the first three sections were trained on, the last held out."""
    images = isbi.load(folder).images
    parts = Sections(images, None, list("abcd")).split("1")
    config = {"sections": {name: part.fingerprints() for name, part in zip(("train", "val"), parts, strict=True)}}
    preprocessing = {"scale": [0.5, 0.5], "standardize": "section"} | more.pop("preprocessing", {})
    model = ts.models.build("sdunet", width=4, levels=3)
    ts.checkpoint.save(folder / "net.safetensors", model, preprocessing=preprocessing, config=config, **more)
    return "--checkpoint", folder / "net.safetensors", "--device", "cpu"


def scored(path):
    return [section["name"] for section in json.loads(path.read_text())["sections"]]


def test_a_network_is_scored_on_what_it_was_not_trained_on(data, no_pictures):
    folder, labels, _ = data
    network, out = trained(folder), ("--out", folder / "s.json")
    said, _ = evaluate(*network, "--images", folder, *out)
    assert "1 of 4 sections: those of the validation, on which the best epoch was chosen (--sections all" in said
    assert scored(folder / "s.json") == ["train-volume.tif[3]"]
    said, _ = evaluate(*network, "--images", folder, *out, "--sections", "all")
    assert "WARNING: the network was trained on 3 of them" in said and len(scored(folder / "s.json")) == 4
    said, _ = evaluate(*network, "--images", folder, *out, "--sections", "2")
    assert "WARNING: the network was trained on 1 of them" in said and len(scored(folder / "s.json")) == 2


def test_sections_are_known_when_they_were_saved_again_in_another_order(data, no_pictures):
    folder, labels, _ = data
    network, images = trained(folder), tifffile.imread(folder / "train-volume.tif")
    new = folder / "new"
    for name in ("images", "labels"):
        (new / name).mkdir(parents=True)
    for k in (0, 1, 2):
        tifffile.imwrite(new / "images" / f"{k}.tif", images[[3, 0, 2][k]].astype(np.uint16))
        tifffile.imwrite(new / "labels" / f"{k}.tif", labels[[3, 0, 2][k]].astype(np.uint8))
    evaluate(*network, "--images", new, "--out", folder / "s.json")
    assert scored(folder / "s.json") == ["0.tif"]
    for name in ("images", "labels"):
        (new / name / "0.tif").unlink()
    said, _ = evaluate(*network, "--images", new, "--out", folder / "s.json")
    assert "2 sections. WARNING: the network was trained on 2 of them" in said
    for k in (1, 2):
        tifffile.imwrite(new / "images" / f"{k}.tif", images[k] // 2)
    said, _ = evaluate(*network, "--images", new, "--out", folder / "s.json")
    assert "2 sections, none known from the training\n" in said


@pytest.mark.parametrize(
    "change",
    [
        lambda x: 257 * x.astype(np.uint16), lambda x: (x / 255).astype(np.float32), lambda x: 255 - x,
        lambda x: x[:, ::-1], lambda x: np.rot90(x, axes=(1, 2)),
    ],
    ids=["16 bits", "floats", "inverted", "mirrored", "turned"],
)  # fmt: skip
def test_sections_are_known_when_they_were_saved_in_another_way(data, no_pictures, change):
    folder, labels, _ = data
    network, images = trained(folder), tifffile.imread(folder / "train-volume.tif")
    changed = change(images)
    tifffile.imwrite(folder / "again.tif", changed, photometric="minisblack")
    labels = np.resize(labels, changed.shape).astype(np.uint8)
    tifffile.imwrite(folder / "again-labels.tif", labels, photometric="minisblack")
    _, _ = evaluate(
        *network, "--images", folder / "again.tif", "--labels", folder / "again-labels.tif", "--out", folder / "s.json"
    )
    assert scored(folder / "s.json") == ["again.tif[3]"]


def test_a_checkpoint_that_does_not_say_what_it_was_trained_on(data, no_pictures):
    folder, _, _ = data
    ts.checkpoint.save(
        folder / "n.safetensors", ts.models.build("sdunet", width=4, levels=3),
        preprocessing={"scale": [1, 1], "standardize": "section"},
    )  # fmt: skip
    said, _ = evaluate("--checkpoint", folder / "n.safetensors", "--images", folder)
    assert "4 sections; the checkpoint does not say which sections it was trained on" in said


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"config": {"sections": [1]}}, '"sections" do not fit'),
        ({"config": {"foreground": "blue"}}, "foreground is 'blue'"),
    ],
)
def test_a_checkpoint_whose_record_of_the_training_is_damaged(data, more, words):
    path = data[0] / "n.safetensors"
    preprocessing = {"scale": [0.5, 0.5], "standardize": "section"}
    ts.checkpoint.save(path, ts.models.build("sdunet", width=4, levels=3), preprocessing=preprocessing, **more)
    _, err = evaluate("--checkpoint", path, "--images", data[0], "--device", "cpu", code=1)
    assert f"{path} is damaged: " in err and words in err


@pytest.mark.filterwarnings("ignore:only .* is foreground")
def test_labels_are_read_as_in_the_training(data, no_pictures):
    folder, labels, _ = data
    network = trained(folder, preprocessing={"foreground": "black"})
    evaluate(*network, "--images", folder, "--sections", "all", "--out", folder / "s.json")
    found = json.loads((folder / "s.json").read_text())
    predictor = Predictor.load(folder / "net.safetensors")
    mask = np.stack([predictor(image)[0] for image in isbi.load(folder).images]) > 0.5
    assert found["metrics"]["accuracy"] == pytest.approx(accuracy(mask, ~labels))
    assert found["settings"]["foreground"] == "black"
    _, err = evaluate(*network, "--images", folder, "--foreground", "white", code=1)
    assert "was trained with --foreground black, and now it is white" in err


def test_words_follow_the_checkpoints_class(data, monkeypatch):
    folder, drawn = data[0], []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.extend(figure.findobj(Text)))
    said, _ = evaluate(*trained(folder, classes=["nucleus"]), "--images", folder, "--out", folder / "s.json")
    assert "Scores of: nucleus" in said and "rest's IoU" in said and "embrane" not in said
    words = " ".join(text.get_text() for text in drawn)
    assert "missed: nucleus" in words and "white is\nnucleus" in words and "embrane" not in words


# ----- what was computed is kept ---------------------------------------------------
def masks(folder, *more):
    return "--predictions", folder / "train-labels.tif", "--labels", folder / "train-labels.tif", *more


def test_scores_are_there_though_nothing_can_be_printed_or_drawn(data, monkeypatch):
    folder, _, _ = data

    def fails(*args, **options):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(plots, "predictions", fails)
    with pytest.warns(UserWarning, match="s.worst.png could not be drawn .RuntimeError: no fonts"):
        out, _ = evaluate(*masks(folder, "--out", folder / "s.json"))
    assert f"wrote {folder / 's.json'}\n" in out and scored(folder / "s.json")
    monkeypatch.setattr("tinyseg.commands.evaluate.print_table", fails)
    evaluate(*masks(folder, "--out", folder / "t.json"), code=1)
    assert scored(folder / "t.json")


def test_what_was_written_is_said_without_a_picture(data):
    out, _ = evaluate(*masks(data[0], "--worst", "0", "--out", data[0] / "s.json"))
    assert "is given as predictions and as labels: the scores say nothing" in out
    assert f"wrote {data[0] / 's.json'}\n" in out


def test_a_place_where_nothing_can_be_written_is_refused_at_the_start(data, monkeypatch):
    monkeypatch.setattr("tinyseg.commands.evaluate.evaluate_membranes", None)  # it is not reached
    for out in (data[0], "/dev/null", data[0] / "train-labels.tif" / "s.json", "/proc/here/s.json"):
        _, err = evaluate(*masks(data[0], "--out", out), code=1)
        assert "give the name of a JSON file" in err or "could not be written" in err


def test_predictions_labels_and_images_in_folders_are_paired_by_name(data, no_pictures):
    folder, labels, probability = data
    images = tifffile.imread(folder / "train-volume.tif")
    names = ["a", "a_2", "b", "b_2"]  # a_2_mask.png sorts before a_mask.png
    for place, suffix, stack in (
        ("images", ".png", images), ("labels", "_mask.png", np.where(labels, 255, 0).astype(np.uint8)),
        ("predicted", "_probability.png", np.rint(probability * 65535).astype(np.uint16)),
    ):  # fmt: skip
        (folder / place).mkdir()
        for name, section in zip(names, stack, strict=True):
            Image.fromarray(section).save(folder / place / (name + suffix))
    given = "--labels", folder / "labels", "--out", folder / "s.json"
    evaluate("--predictions", folder / "predicted", *given, "--images", folder / "images")
    report = json.loads((folder / "s.json").read_text())
    mask = probability > 0.5
    expected = {f"{name}.png": dice(m, t) for name, m, t in zip(names, mask, labels, strict=True)}
    assert {row["name"]: row["dice"] for row in report["sections"]} == pytest.approx(expected)
    (folder / "predicted" / "b_probability.png").rename(folder / "predicted" / "c_probability.png")
    with pytest.raises(AssertionError, match=r"no labels for c_probability\.png; no predictions for b_mask\.png"):
        evaluate("--predictions", folder / "predicted", *given)


@pytest.mark.skipif(not REAL.exists(), reason="the real data are not here")
def test_the_real_labels_against_themselves(tmp_path, no_pictures):
    labels = REAL / "isbi2012" / "train-labels.tif"
    evaluate("--predictions", labels, "--labels", labels, "--sections", "2", "--out", tmp_path / "s.json")
    metrics = json.loads((tmp_path / "s.json").read_text())["metrics"]
    assert metrics["dice"] == metrics["accuracy"] == 1 and metrics["v_rand"] > 0.99 and metrics["v_info"] > 0.99
