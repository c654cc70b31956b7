"""evaluate.py with predictions as people keep them: several kinds in a folder, masks, one image, other folders."""

import json
import os

import numpy as np
import pytest
import tifffile
from PIL import Image
from scripts import run_example

import tinyseg as ts
from tinyseg.data import em_sections
from tinyseg.metrics import dice
from tinyseg.metrics.isbi import v_rand

pytestmark = pytest.mark.slow


def write(path, stack):
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, stack, photometric="minisblack")
    return path


@pytest.fixture(scope="module")
def arrays():
    images, labels = em_sections(num_sections=4, size=64, seed=1)
    noise = np.random.default_rng(0).random(labels.shape)
    return images, labels, np.where(labels, 0.55 + 0.45 * noise, 0.75 * noise).astype(np.float32)


@pytest.fixture
def folder(arrays, tmp_path):
    """A folder with labels.tif, probability.tif and masks.tif."""
    images, labels, probability = arrays
    write(tmp_path / "labels.tif", labels.astype(np.uint8) * 255)
    write(tmp_path / "probability.tif", probability)
    write(tmp_path / "masks.tif", (probability > 0.5).astype(np.uint8) * 255)
    return tmp_path


def evaluate(predictions, labels, *more, code=0):
    """Return what is printed, and the report."""
    out = predictions.parent / "scores.json"
    out.unlink(missing_ok=True)
    given = "--predictions", predictions, "--labels", labels, "--out", out
    said = "".join(run_example("evaluate.py", *given, *more, code=code))
    return said, json.loads(out.read_text()) if code == 0 else None


# ----- several kinds of files in one folder ----------------------------------------
def test_a_folder_of_probabilities_and_masks_of_the_same_stack(folder, arrays, no_pictures):
    predicted, labels = folder / "predicted", folder / "labels.tif"
    for kind in ("probability", "submission", "mask"):
        write(
            predicted / f"x_{kind}.tif", tifffile.imread(folder / f"{'masks' if kind == 'mask' else 'probability'}.tif")
        )
    said, report = evaluate(predicted, labels)
    assert "scored are x_probability.tif, and left out x_mask.tif, x_submission.tif. To score others, move them" in said
    assert report["metrics"]["v_rand"] == pytest.approx(v_rand(arrays[2], arrays[1]))
    (predicted / "x_probability.tif").unlink()
    assert "scored are x_submission.tif, and left out x_mask.tif" in evaluate(predicted, labels)[0]
    (predicted / "x_submission.tif").unlink()
    assert "left out" not in evaluate(predicted, labels)[0]


def test_a_folder_of_probabilities_and_masks_of_each_section(folder, arrays, no_pictures):
    images, labels, probability = arrays
    for k in range(4):
        write(folder / "predicted" / f"{k}_probability.tif", probability[k])
        write(folder / "predicted" / f"{k}_mask.tif", (probability[k] > 0.5).astype(np.uint8) * 255)
        write(folder / "labels" / f"{k}.tif", labels[k].astype(np.uint8) * 255)
    for where in (folder / "labels", folder / "labels.tif"):
        said, report = evaluate(folder / "predicted", where)
        assert "3_probability.tif, and left out 0_mask.tif" in said
        assert report["metrics"]["v_rand"] == pytest.approx(v_rand(probability, labels))
    (folder / "predicted" / "2_probability.tif").unlink()  # predict.py was interrupted
    said, report = evaluate(folder / "predicted", folder / "labels")
    assert "3_mask.tif, and left out 0_probability.tif" in said
    assert report["metrics"]["v_rand"] == pytest.approx(v_rand(probability > 0.5, labels))


def test_predicted_masks_beside_the_images(folder, arrays, no_pictures):
    images, labels, probability = arrays
    for k in range(4):
        write(folder / "all" / f"{k}.tif", images[k])
        write(folder / "all" / f"{k}_mask.tif", (probability[k] > 0.5).astype(np.uint8) * 255)
    said, report = evaluate(folder / "all", folder / "labels.tif")
    assert "3_mask.tif, and left out 0.tif, 1.tif, 2.tif, 3.tif" in said
    assert report["metrics"]["dice"] == pytest.approx(dice(probability > 0.5, labels))


def test_scores_written_into_the_folder_of_predictions_do_not_count_as_predictions(folder):
    write(folder / "predicted" / "x.tif", tifffile.imread(folder / "probability.tif"))
    for out in ("scores.json", "scores"):
        given = "--predictions", folder / "predicted", "--labels", folder / "labels.tif", "--worst", 1
        for _ in range(2):
            said, _ = run_example("evaluate.py", *given, "--out", folder / "predicted" / out)
        assert "scored are x.tif, and left out scores.worst.png.\n" in said
    (folder / "predicted" / "x.tif").unlink()
    said, _ = evaluate(folder / "predicted", folder / "labels.tif", code=1)
    assert "there is only what was drawn of them, scores.worst.png" in said


# ----- labels and images in a folder of their own data set -------------------------
def test_labels_in_a_folder_that_has_images_too(folder, arrays, no_pictures):
    images, labels, probability = arrays
    challenge, side, parts = folder / "isbi2012", folder / "side", folder / "parts"
    write(challenge / "train-volume.tif", images)
    write(challenge / "train-labels.tif", labels.astype(np.uint8) * 255)
    parts.mkdir()
    for k in range(4):
        for place in (side / f"{k}.tif", parts / "images" / f"{k}.tif"):
            write(place, images[k])
        for place in (side / f"{k}_mask.tif", parts / "labels" / f"{k}.tif"):
            write(place, labels[k].astype(np.uint8) * 255)
        write(folder / "images" / f"{k}.tif", images[k])
        write(folder / "predicted" / f"{k}.tif", probability[k])
    network = folder / "net.safetensors"
    preprocessing = {"scale": [0.5, 0.5], "standardize": "section"}
    ts.checkpoint.save(network, ts.models.build("sdunet", width=4, levels=3), preprocessing=preprocessing)
    given = "--checkpoint", network, "--device", "cpu", "--images", folder / "images", "--out", folder / "n.json"
    found = []
    for predictions, place in (
        (folder / "probability.tif", challenge), (folder / "predicted", side), (folder / "predicted", parts),
    ):  # fmt: skip
        report = evaluate(predictions, place, "--images", place)[1]
        assert report["metrics"]["v_rand"] == pytest.approx(v_rand(probability, labels))
        run_example("evaluate.py", *given, "--labels", place)
        found.append(json.loads((folder / "n.json").read_text())["metrics"])
    assert found[0] == found[1] == found[2]
    said, _ = evaluate(
        folder / "probability.tif", folder / "labels.tif", "--images", write(folder / "i.tif", images[:3]), code=1
    )
    assert "i.tif has 3 sections of 64×64" in said and "Give the images of these labels" in said


# ----- options ---------------------------------------------------------------------
@pytest.mark.parametrize("threshold", [0, 0.3, 1])
def test_masks_have_no_use_for_a_threshold(folder, arrays, no_pictures, threshold):
    said, report = evaluate(folder / "masks.tif", folder / "labels.tif", "--threshold", threshold)
    assert report["metrics"]["dice"] == pytest.approx(dice(arrays[2] > 0.5, arrays[1]))
    assert "holds masks, which have no use for --threshold" in said


def test_thresholds_at_both_ends_of_probabilities(folder, no_pictures):
    given = folder / "probability.tif", folder / "labels.tif"
    assert evaluate(*given, "--threshold", 0)[1]["metrics"]["sensitivity"] == 1
    assert evaluate(*given, "--threshold", 1)[1]["metrics"]["sensitivity"] == 0


def test_sections_that_are_not_there(folder, no_pictures):
    given = folder / "probability.tif", folder / "labels.tif"
    for chosen in ("5", "3:9"):
        said, _ = evaluate(*given, "--sections", chosen, code=1)
        assert f"--sections {chosen} does not fit: there are 4 sections. Give a number from 1 to 4" in said
    for chosen in ("4", "0:4", "all"):
        assert len(evaluate(*given, "--sections", chosen)[1]["sections"]) == 4
    said, _ = evaluate(*one_section(folder), "--sections", "2", code=1)
    assert "--sections 2 does not fit: there is 1 section" in said


def one_section(folder):
    return [
        write(folder / f"1{name}.tif", tifffile.imread(folder / f"{name}.tif")[0]) for name in ("probability", "labels")
    ]


def test_a_single_section_has_no_interval(folder, no_pictures):
    said, report = evaluate(*one_section(folder))
    assert "mean over sections" in said and "95%" not in said
    assert "interval" not in report["mean_over_sections"]["dice"]
    assert report["mean_over_sections"]["dice"]["mean"] == report["metrics"]["dice"]


@pytest.mark.parametrize("option", [["--transforms", "all"], ["--tf32"], ["--cuda-graph"]])
def test_options_of_networks_with_predictions(folder, option):
    said, _ = evaluate(folder / "probability.tif", folder / "labels.tif", *option, code=1)
    assert f"{option[0]}: this is for a network, and --predictions runs none: leave it out" in said


def test_predictions_or_labels_that_are_inverted(folder, arrays, no_pictures):
    given = folder / "probability.tif", folder / "labels.tif"
    assert "WARNING" not in evaluate(*given)[0]
    write(folder / "probability.tif", 1 - arrays[2])
    assert "agree much less than by chance. Is one of them inverted? --foreground says" in evaluate(*given)[0]
    for constant in (0, 1):  # as good as chance
        write(folder / "probability.tif", np.full_like(arrays[2], constant))
        assert "WARNING" not in evaluate(*given)[0]


# ----- the JSON file ---------------------------------------------------------------
def test_out_does_not_replace_what_holds_no_scores(folder, no_pictures):
    given = "--predictions", folder / "probability.tif", "--labels", folder / "labels.tif", "--out"
    (folder / "notes.json").write_text('{"a": 1}')
    for name in ("probability.tif", "labels.tif", "notes.json"):
        before = (folder / name).read_bytes()
        said = run_example("evaluate.py", *given, folder / name, code=1)[1]
        assert "is there already and holds no scores of evaluate.py" in said
        assert (folder / name).read_bytes() == before
    (folder / "new.json").touch()
    for _ in range(2):
        run_example("evaluate.py", *given, folder / "new.json")
    assert json.loads((folder / "new.json").read_text())["metrics"]


@pytest.mark.parametrize("there", ["a picture", "a folder", "a link to nothing"])
def test_a_picture_of_the_users_own_has_the_name_of_the_worst(folder, monkeypatch, there):
    own = folder / "new.worst.png"
    if there == "a picture":
        own.write_bytes(b"mine")
    elif there == "a folder":
        own.mkdir()
    else:
        own.symlink_to(folder / "nowhere.png")
    monkeypatch.setattr("tinyseg.commands.evaluate.evaluate_membranes", None)  # it is not reached
    given = "--predictions", folder / "probability.tif", "--labels", folder / "labels.tif", "--worst", 0
    said = run_example("evaluate.py", *given, "--out", folder / "new.json", code=1)[1]
    assert f"needs the name {own} for a picture, and something else is there: give another name" in said
    assert os.path.lexists(own) and not (folder / "new.json").exists()
    assert there != "a picture" or own.read_bytes() == b"mine"


def test_pictures_of_scores_whose_names_have_a_point(folder):
    given = "--predictions", folder / "probability.tif", "--labels", folder / "labels.tif", "--worst", 1
    for threshold in (0.5, 0.6):
        run_example("evaluate.py", *given, "--threshold", threshold, "--out", folder / f"at_{threshold}")
    for name in ("at_0.5.worst.png", "at_0.6.worst.png"):
        with Image.open(folder / name) as picture:
            assert picture.size
