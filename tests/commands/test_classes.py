"""Several classes of one's own, the whole way: train, predict, evaluate, export."""

import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from matplotlib.text import Text
from PIL import Image
from scripts import SMALL_ISBI, run_command

import tinyseg as ts
from tinyseg.commands.tasks import choose_task, choose_weights
from tinyseg.data import Sections
from tinyseg.report import colours

pytestmark = pytest.mark.slow
VALUES = {"background": 0, "disc": 85, "rim": 170}
IGNORE = 255
TRAIN = ["train", *SMALL_ISBI, "--val-sections", 2, "--epochs", 1]


def discs(count=8, shape=(44, 56)):
    """Images, and masks with the values of `VALUES` and, in a corner, of `IGNORE`."""
    rng, (i, j) = np.random.default_rng(5), np.mgrid[: shape[0], : shape[1]]
    numbers = np.zeros((count, *shape), int)
    for mask in numbers:
        for x in (14, 40):
            distance = np.hypot(i - rng.uniform(14, 30), j - x - rng.uniform(-3, 3))
            mask[distance < 12] = 2
            mask[distance < 8] = 1
    images = np.array((60, 120, 220))[numbers] + 12 * rng.standard_normal(numbers.shape)
    masks = np.array(list(VALUES.values()))[numbers]
    masks[:, :6, :6] = IGNORE
    return images.clip(0, 255).astype(np.uint8), masks.astype(np.uint8)


def write(folder, images, masks):
    for part, stack in (("images", images), ("masks", masks)):
        (folder / part).mkdir(parents=True)
        for k, section in enumerate(stack):
            Image.fromarray(section).save(folder / part / f"cell_{k}.png")
    return folder


@pytest.fixture
def data(tmp_path):
    """A folder whose classes a classes.json names."""
    folder = write(tmp_path / "data", *discs())
    (folder / "classes.json").write_text(json.dumps(VALUES | {"ignore": IGNORE}))
    return folder


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """The same folder, the run of a network that has learned it, and what the training printed."""
    place = tmp_path_factory.mktemp("classes")
    folder = write(place / "data", *discs())
    (folder / "classes.json").write_text(json.dumps(VALUES | {"ignore": IGNORE}))
    words = [*TRAIN[:-1], 40, "--width", 8, "--lr", 0.01, "--augment", "hflip"]
    out, _ = run_command(*words, folder, "--out", place / "run")
    return folder, place / "run", out


def confusion(predicted, truth):
    """Count pixels by true and predicted value, those to ignore left out: {(true, predicted): pixels}."""
    pairs, counts = np.unique(
        np.stack([truth[truth != IGNORE], predicted[truth != IGNORE]]), axis=1, return_counts=True
    )
    return {(int(t), int(p)): int(n) for (t, p), n in zip(pairs.T, counts, strict=True)}


def dice_of(value, counted):
    both = counted.get((value, value), 0)
    return 2 * both / sum(n * ((t == value) + (p == value)) for (t, p), n in counted.items())


def test_a_training_finds_the_classes_and_scores_each(learned):
    folder, path, out = learned
    assert "masks of 3 classes: background (0), disc (85), rim (170), ignore (255)" in out
    assert "class weights: background 0." in out and "6 sections to train on, 2 held out" in out
    meta = ts.checkpoint.load(path / "best.safetensors").meta
    assert meta["classes"] == list(VALUES)
    assert meta["preprocessing"]["values"] == list(VALUES.values()) and meta["preprocessing"]["ignore"] == IGNORE
    with (path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        dice = [float(row[f"val_dice_{name}"]) for name in VALUES]
        assert float(row["val_dice"]) == pytest.approx(np.mean(dice[1:]))
        assert float(row["val_mean_iou"]) == pytest.approx(np.mean([d / (2 - d) for d in dice]))
    summary = json.loads((path / "summary.json").read_text())
    best = max(rows, key=lambda row: float(row["val_mean_iou"]))
    assert summary["best_epoch"] == int(best["epoch"]) and summary["val"]["dice"] == pytest.approx(
        float(best["val_dice"])
    )
    assert set(summary["val"]["classes"]) == set(VALUES) and summary["val"]["dice"] > 0.7
    assert f"rim         {float(best['val_dice_rim']):.4f}  {float(best['val_iou_rim']):.4f}" in out
    assert (path / "predictions.png").stat().st_size > 10_000


def test_predicted_masks_have_the_values_of_those_that_were_drawn(learned, tmp_path):
    folder, path, _ = learned
    weights = path / "best.safetensors"
    images, masks = discs()
    given = "--checkpoint", weights, "--device", "cpu"
    out, _ = run_command("predict", *given, folder / "images", "--out", tmp_path / "masks")
    assert "for background (0), disc (85), rim (170)" in out
    found = [np.asarray(Image.open(tmp_path / "masks" / f"cell_{k}_mask.png")) for k in range(len(images))]
    assert set(np.unique(found)) == set(VALUES.values())
    assert dice_of(170, confusion(np.stack(found), masks)) > 0.6

    tifffile.imwrite(tmp_path / "s.tif", images[:3], photometric="minisblack")
    for input in (tmp_path / "s.tif", folder / "images" / "cell_7.png"):
        run_command("predict", *given, input, "--probabilities", "--out", tmp_path / "p")
    p = tifffile.imread(tmp_path / "p" / "s_probability.tif")
    assert p.shape == (3, 3, 44, 56)  # sections, classes
    np.testing.assert_array_equal(np.array(list(VALUES.values()))[p.argmax(axis=1)], found[:3])
    of_picture = tifffile.imread(tmp_path / "p" / "cell_7_probability.tif")  # a picture has no room for three
    np.testing.assert_array_equal(np.array(list(VALUES.values()))[of_picture.squeeze().argmax(axis=0)], found[7])


def test_values_of_16_bits_come_back(tmp_path):
    model = ts.models.build("sdunet", 1, 3, width=4, levels=3, seed=2)
    how = {"scale": [1, 1], "standardize": "section", "values": [10, 300, 40000]}
    ts.checkpoint.save(tmp_path / "n.safetensors", model, classes=["a", "b", "c"], preprocessing=how)
    Image.fromarray(discs(1)[0][0]).save(tmp_path / "i.png")
    run_command("predict", "--checkpoint", tmp_path / "n.safetensors", tmp_path / "i.png", "--out", tmp_path / "o")
    found = np.asarray(Image.open(tmp_path / "o" / "i_mask.png"))
    assert found.dtype == np.uint16 and set(np.unique(found)) <= {10, 300, 40000} and len(np.unique(found)) > 1


@pytest.mark.parametrize(
    ("values", "ignore"), [([0, 1], None), ([0, 1, 1], None), ([0, 1, -2], None), ([0, 1, 2], 2), ("abc", None)]
)
def test_a_checkpoint_with_values_that_do_not_fit(tmp_path, values, ignore):
    how = {"scale": [1, 1], "standardize": "section", "values": values, "ignore": ignore}
    model = ts.models.build("sdunet", 1, 3, width=4, levels=3)
    ts.checkpoint.save(tmp_path / "n.safetensors", model, classes=["a", "b", "c"], preprocessing=how)
    _, err = run_command("predict", "--checkpoint", tmp_path / "n.safetensors", tmp_path, code=1)
    assert "n.safetensors: The checkpoint's " in err and "values" in err and "do not fit" in err


def test_a_network_and_its_written_masks_get_the_same_scores(learned, tmp_path, no_pictures):
    folder, path, _ = learned
    given, out = ("--checkpoint", path / "best.safetensors", "--device", "cpu"), ("--out", tmp_path / "s.json")
    said, _ = run_command("evaluate", *given, "--images", folder, *out)
    report = json.loads((tmp_path / "s.json").read_text())
    assert [row["name"] for row in report["sections"]] == ["cell_6.png", "cell_7.png"]  # those that were held out
    assert "rim" in said and "Pixels of each true class" in said and (tmp_path / "s.worst.png").is_file()

    run_command("predict", *given, folder / "images", "--out", tmp_path / "masks")
    found = np.stack([np.asarray(Image.open(tmp_path / "masks" / f"cell_{k}_mask.png")) for k in (6, 7)])
    counted = confusion(found, discs()[1][6:])
    for name, value in VALUES.items():
        assert report["metrics"]["classes"][name]["dice"] == pytest.approx(dice_of(value, counted))
    assert report["metrics"]["accuracy"] == pytest.approx(
        sum(n for (t, p), n in counted.items() if t == p) / sum(counted.values())
    )
    pixels = {(t, p): n for t, row in zip(VALUES.values(), report["confusion"]["pixels"], strict=True)
              for p, n in zip(VALUES.values(), row, strict=True) if n}  # fmt: skip
    assert pixels == counted

    (folder / "classes.json").rename(tmp_path / "kept.json")  # predictions.json knows the names, too
    try:
        words = "--predictions", tmp_path / "masks", "--labels", folder / "masks", "--sections", 2
        run_command("evaluate", *words, "--images", folder / "images", "--out", tmp_path / "t.json")
        (tmp_path / "masks" / "predictions.json").unlink()
        names = "background=0,disc=85,rim=170,ignore=255"
        run_command("evaluate", *words, "--class-names", names, "--out", tmp_path / "u.json")
    finally:
        (tmp_path / "kept.json").rename(folder / "classes.json")
    for name in "tu":
        again = json.loads((tmp_path / f"{name}.json").read_text())
        assert again["metrics"] == report["metrics"] and again["confusion"] == report["confusion"]


def test_an_own_network_of_several_classes_is_scored_by_its_numbers(tmp_path, no_pictures):
    images, masks = discs(3)
    folder = write(tmp_path / "data", images, np.select([masks == 85, masks == 170], [1, 2], 0).astype(np.uint8))
    model = ts.models.build("sdunet", 1, 3, width=4, levels=3, seed=1)
    how = {"scale": [1, 1], "standardize": "section"}
    ts.checkpoint.save(tmp_path / "n.safetensors", model, classes=["a", "b", "c"], preprocessing=how)
    said, _ = run_command("evaluate", "--checkpoint", tmp_path / "n.safetensors", "--images", folder, "--device", "cpu")
    assert "3 sections; the checkpoint does not say" in said and "all pixels" in said


def test_the_picture_names_the_classes_and_what_is_not_scored(learned, tmp_path, monkeypatch):
    folder, path, _ = learned
    drawn = []
    monkeypatch.setattr("tinyseg.report.class_plots.save", lambda figure, file: drawn.append(figure))
    given = "--checkpoint", path / "best.safetensors", "--device", "cpu", "--images", folder
    run_command("evaluate", *given, "--out", tmp_path / "s.json", "--worst", 1)
    words = {text.get_text() for text in drawn[0].findobj(Text)}
    assert {"disc", "rim", "not scored", "truth", "prediction"} <= words and len(drawn[0].axes) == 4
    green = [round(int(colours.GREEN[i : i + 2], 16) / 255, 3) for i in (1, 3, 5)]
    assert np.round(drawn[0].legends[0].get_patches()[1].get_facecolor()[:3], 3).tolist() == green


# ----- what fits, and what does not ------------------------------------------------
def test_names_at_the_shell_and_masks_without_names(data, tmp_path, no_pictures):
    (data / "classes.json").unlink()
    out, _ = run_command(*TRAIN, data, "--out", tmp_path / "a")
    assert "masks of 4 classes: background (0), class 85 (85), class 170 (170), class 255 (255)" in out
    out, _ = run_command(*TRAIN, data, "--class-names", "ground,disc,rim,corner", "--class-weights", "1,2,2,0",
                         "--out", tmp_path / "b")  # fmt: skip
    assert "ground (0), disc (85), rim (170), corner (255)" in out and "class weights: ground 1, disc 2" in out
    out, _ = run_command(*TRAIN, data, "--config", tmp_path / "b" / "config.json", "--out", tmp_path / "c")
    assert "ground (0), disc (85), rim (170), corner (255)" in out and "class weights: ground 1, disc 2" in out
    out, _ = run_command(*TRAIN, data, "--class-weights", "none", "--out", tmp_path / "d")
    assert "class weights" not in out


def test_numbers_with_255_are_asked_about(data, tmp_path, no_pictures):
    (data / "classes.json").unlink()
    for k, mask in enumerate(discs()[1]):
        numbers = np.select([mask == 85, mask == 170, mask == 255], [1, 2, 255], 0).astype(np.uint8)
        Image.fromarray(numbers).save(data / "masks" / f"cell_{k}.png")
    out, _ = run_command(*TRAIN, data, "--out", tmp_path / "a")
    assert "If 255 marks pixels to leave out, name it so: --class-names" in out


def test_a_resumed_run_asks_for_the_same_classes(data, tmp_path, no_pictures):
    run = tmp_path / "run"
    run_command(*TRAIN, data, "--out", run)
    run_command("train", "--resume", run, "--epochs", 2, "--device", "cpu")
    assert len((run / "log.csv").read_text().splitlines()) == 3
    (data / "classes.json").write_text(json.dumps({"background": 0, "rim": 85, "disc": 170, "ignore": IGNORE}))
    _, err = run_command("train", "--resume", run, "--epochs", 3, "--device", "cpu", code=1)
    assert "this is not the data that" in err and ": classes differ" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--class-weights", "1,1"], "--class-weights 1,1 do not fit: the classes are background, disc, rim"),
        (["--class-weights", "much"], "--class-weights: expected finite numbers"),
        (["--class-names", "a,b"], "names 2 classes (a, b), and the masks have 4 values (0, 85, 170, 255)"),
        (["--class-names", "a=0,b=85"], "cell_0.png in"), (["--class-names", "a,a"], "several classes one name"),
        (["--foreground", "black"], "--foreground: this is for masks of two values"),
        (["--target", "nucleus"], "--target: this is for masks of two values"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_the_classes(data, tmp_path, words, says):
    _, err = run_command(
        *TRAIN, data, *words, "--out", tmp_path / "run", code=2 if "expected" in says or "one name" in says else 1
    )
    assert says in err and not (tmp_path / "run" / "log.csv").exists()


def test_options_of_classes_for_masks_of_two_values(tmp_path):
    images, masks = discs()
    folder = write(tmp_path / "data", images, np.where(masks == 0, 255, 0).astype(np.uint8))
    _, err = run_command(*TRAIN, folder, "--class-weights", "1,2,3", "--out", tmp_path / "run", code=1)
    assert "the classes are background, foreground: give 2 numbers" in err
    _, err = run_command("train-isbi", "--class-names", "a,b", "--out", tmp_path / "run", code=2)
    assert "--class-names is for the masks in --data DIR, and none is given" in err


@pytest.mark.parametrize(("given", "weights"), [("3,1", (3, 1)), ("none", (1, 1)), ("balanced", None)])
def test_the_background_of_masks_of_two_values_has_a_weight(given, weights, capsys):
    """Balanced: 1 / √share, of shares 0.36 and 0.64 is 1/0.6 and 1/0.8; scaled so that a pixel weighs 1 on the mean."""
    labels = np.zeros((1, 10, 10), bool)
    labels.ravel()[:64] = True
    if given == "balanced":
        each = np.array([1 / 0.6, 1 / 0.8])
        weights = each / (each @ [0.36, 0.64])
    args = SimpleNamespace(class_weights=given, target="cell", foreground="white", given=set())
    task = choose_task(args, Sections(labels * 1.0, labels, ["a"]), None)
    logits = np.random.default_rng(0).standard_normal((1, 1, 10, 10))
    probability = 1 / (1 + np.exp(-logits[0]))
    expected = np.where(labels, -weights[1] * np.log(probability), -weights[0] * np.log(1 - probability)).mean()
    assert task.loss(logits, labels[:, None].astype(float)).item() == pytest.approx(expected)
    assert ("class weights: background" in capsys.readouterr().out) == (given != "none")


def test_sections_to_train_on_that_are_white_everywhere_and_a_weight_of_0():
    labels = np.ones((1, 6, 8), bool)
    args = SimpleNamespace(class_weights="balanced", target="cell", foreground="white", given=set())
    logits = np.full((1, 1, 6, 8), 0.5)
    task = choose_task(args, Sections(labels * 1.0, labels, ["a"]), None)
    assert task.loss(logits, labels[:, None].astype(float)).item() == pytest.approx(np.log1p(np.exp(-0.5)))
    for given in ("0,1", "1,0"):
        args.class_weights = given
        with pytest.raises(ValueError, match=f"--class-weights {given}: of two classes both need a weight above 0"):
            choose_task(args, Sections(labels * 1.0, labels, ["a"]), None)


def test_a_class_that_only_held_out_masks_have(data, tmp_path, no_pictures):
    for k in range(6):
        mask = discs()[1][k]
        Image.fromarray(np.where(mask == 170, 85, mask)).save(data / "masks" / f"cell_{k}.png")
    _, err = run_command(*TRAIN, data, "--out", tmp_path / "run", code=1)
    assert "the masks to train on have no pixel of rim, and those held out do" in err
    for k in (6, 7):
        shutil.copy(data / "masks" / "cell_0.png", data / "masks" / f"cell_{k}.png")
    out, _ = run_command(*TRAIN, data, "--out", tmp_path / "run")
    assert "WARNING: the masks to train on, as resized, have no pixel of rim" in out


def test_masks_and_predictions_with_other_values(learned, tmp_path, no_pictures):
    folder, path, _ = learned
    given = "--checkpoint", path / "best.safetensors", "--device", "cpu"
    other = shutil.copytree(folder, tmp_path / "other")
    Image.fromarray(np.full((44, 56), 86, np.uint8)).save(other / "masks" / "cell_7.png")
    _, err = run_command("evaluate", *given, "--images", other, code=1)
    assert (
        "cell_7.png in" in err and "has pixels of 86, and the network's training has background (0), disc (85)" in err
    )
    for words, says in (
        (["--threshold", 0.3], "--threshold: this is for masks of two values"),
        (["--class-names", "a,b,c"], "the checkpoint knows the names"), (["--whole"], "volumes of brain tumours"),
    ):  # fmt: skip
        _, err = run_command("evaluate", *given, "--images", folder, *words, code=1)
        assert says in err
    _, err = run_command("evaluate", "--predictions", folder / "masks", "--labels", folder / "masks", code=1)
    assert "has pixels of 255, which is no class" in err


def test_export_knows_the_classes(learned, tmp_path):
    _, path, _ = learned
    run_command("export", path / "best.safetensors", "--out", tmp_path / "e", "--format", "html")
    page = (tmp_path / "e" / "segment.html").read_text(encoding="utf-8")
    assert '["background", "disc", "rim"]' in page and "disc, rim" in page


def test_8_bits_are_scored_on_the_masks(learned, tmp_path):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    folder, path, _ = learned
    given = "--format", "onnx", "--int8", folder
    out, _ = run_command("export", path / "best.safetensors", "--out", tmp_path / "e", *given)
    assert "8 images with masks" in out and "Dice, rim" in out


def test_balanced_weights():
    counts = np.array([6400, 1600, 0, 4])
    weights = np.array(choose_weights("balanced", counts, list("abcd")))
    assert weights[1] / weights[0] == pytest.approx(2) and weights[3] / weights[0] == pytest.approx(40)
    assert weights[2] == 0 and (weights * counts).sum() == pytest.approx(counts.sum())
    assert choose_weights("none", counts, list("abcd")) is None
    assert choose_weights("1,2,3,0.5", counts, list("abcd")) == [1, 2, 3, 0.5]
