"""The pictures are read back: format, size, colours at known errors, and what is left behind."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import matplotlib
import matplotlib.axes
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from tinyseg.report import colours, learning_curves, plots
from tinyseg.report.plots import FALSE_MEMBRANE, MISSED_MEMBRANE, curves, error_overlay, predictions

H, W = 24, 40


@pytest.fixture
def stack():
    rng = np.random.default_rng(0)
    labels = np.ones((6, H, W), bool)
    labels[:, :, 18:22] = False
    images = rng.integers(0, 256, size=labels.shape, dtype=np.uint8)
    return images, labels, np.clip(labels + 0.3 * rng.normal(size=labels.shape), 0, 1)


@pytest.fixture
def figures(monkeypatch):
    """The figures that would be written, without writing any."""
    found = []
    for module in (plots, learning_curves):
        monkeypatch.setattr(module, "save", lambda figure, path: found.append(figure))
    return found


def history(epochs):
    keys = ["train_loss", "val_loss", "val_dice", "val_accuracy", "val_mean_iou", "val_membrane_iou", "lr"]
    return [{"epoch": e} | dict.fromkeys(keys, 0.5 + 0.01 * e) for e in range(1, epochs + 1)]


def share_of(path, color):
    """Fraction of the picture's pixels with this very colour."""
    pixels = np.rint(imread(path)[..., :3] * 255).astype(int)
    return (pixels == color).all(-1).mean()


def rgb(hexadecimal):
    return tuple(int(hexadecimal[i : i + 2], 16) for i in (1, 3, 5))


def read_png(path, width, height):
    """Picture, once its first bytes say PNG and its size is about what was expected."""
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    picture = imread(path)
    assert picture.shape[0] == pytest.approx(height, rel=0.1)
    assert picture.shape[1] == pytest.approx(width, rel=0.1)
    return picture


def test_overlay_has_the_documented_colours_exactly_at_the_errors():
    image = np.arange(15, dtype=np.uint8).reshape(3, 5)
    label, prediction = np.ones((3, 5), bool), np.ones((3, 5), bool)
    label[0, 1] = prediction[0, 1] = False  # membrane, found
    prediction[2, 3] = False  # false membrane
    label[1, 4] = False  # missed membrane
    expected = np.stack([image] * 3, axis=-1)
    expected[2, 3] = (230, 159, 0)
    expected[1, 4] = (0, 114, 178)
    overlay = error_overlay(image, label, prediction)
    assert overlay.dtype == np.uint8
    np.testing.assert_array_equal(overlay, expected)
    np.testing.assert_array_equal(image, np.arange(15).reshape(3, 5))


@pytest.mark.parametrize(("image", "grey"), [([[-1.0, 0.0, 4.0]], [[0, 51, 255]]), ([[7.0, 7.0, 7.0]], [[0, 0, 0]])])
def test_overlay_stretches_floats(image, grey):
    mask = np.ones((1, 3), bool)
    np.testing.assert_array_equal(error_overlay(np.array(image), mask, mask)[..., 1], grey)


def test_overlay_refuses_what_is_not_one_section_of_masks():
    image, mask = np.zeros((3, 5)), np.ones((3, 5), bool)
    with pytest.raises(ValueError, match=r"\(3, 5\).*\(5, 3\)"):
        error_overlay(image, mask.T, mask)
    with pytest.raises(ValueError, match="boolean.*float64"):
        error_overlay(image, mask, mask.astype(float))


def test_predictions_draws_rows_and_errors(tmp_path, stack):
    images, labels, probabilities = stack
    path = tmp_path / "predictions.png"
    predictions(images, labels, probabilities, path, max_rows=2)
    inches = 2 * (3.1 * H / W + 0.25) + 0.8
    read_png(path, width=12.8 * colours.DPI, height=inches * colours.DPI)
    assert share_of(path, FALSE_MEMBRANE) > 1e-3
    assert share_of(path, MISSED_MEMBRANE) > 1e-3
    flawless = tmp_path / "flawless.png"
    predictions(images, labels, labels.astype(float), flawless, max_rows=2)
    assert 0 < share_of(flawless, FALSE_MEMBRANE) < 0.5 * share_of(path, FALSE_MEMBRANE)  # the legend alone


def test_predictions_takes_rows_from_first_to_last(tmp_path, stack, monkeypatch, figures):
    drawn = []
    monkeypatch.setattr(plots, "_draw_row", lambda axes, image, label, p, name, *rest: drawn.append(name))
    predictions(*stack, tmp_path / "a.png", names=list("abcdef"), max_rows=3)
    predictions(*stack, tmp_path / "b.png", max_rows=99)
    assert [len(figure.axes) for figure in figures] == [3 * 4, 6 * 4]
    assert drawn == ["a", "c", "f"] + [f"section {i}" for i in range(6)]


@pytest.mark.parametrize("flat", [False, True])
def test_predictions_without_labels_draws_outlines(tmp_path, stack, flat):
    images, _, probabilities = stack
    path = tmp_path / "predictions.png"
    predictions(images * 0.1, None, np.full_like(probabilities, 0.9) if flat else probabilities, path, max_rows=1)
    read_png(path, width=9.7 * colours.DPI, height=(3.1 * H / W + 0.08 + 0.5) * colours.DPI)
    assert (share_of(path, rgb(colours.ORANGE)) > 0) is not flat


def test_predictions_refuses_stacks_that_do_not_belong_together(tmp_path, stack):
    images, labels, probabilities = stack
    path = tmp_path / "predictions.png"
    with pytest.raises(ValueError, match=r"labels must have the images' shape \(6, 24, 40\)"):
        predictions(images, labels[:2], probabilities, path)
    with pytest.raises(ValueError, match="names must name each of the 6 sections"):
        predictions(images, labels, probabilities, path, names=["a"])
    with pytest.raises(ValueError, match=r"\(S, H, W\)"):
        predictions(images[0], labels[0], probabilities[0], path)
    with pytest.raises(ValueError, match="apply the sigmoid"):
        predictions(images, None, probabilities * 3, path)
    with pytest.raises(ValueError, match="target must be a mask"):
        predictions(images, labels.astype(np.uint8) * 255, probabilities, path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("epochs", [1, 60])  # with markers, without
def test_curves_draws_every_line(tmp_path, epochs):
    path = tmp_path / "curves.png"
    curves(history(epochs), path)
    read_png(path, width=11 * colours.DPI, height=4.2 * colours.DPI)
    for color in (colours.ORANGE, colours.BLUE, colours.GREEN, colours.PURPLE):
        assert share_of(path, rgb(color)) > 0


def test_curves_forgives_gaps(tmp_path):
    path = tmp_path / "curves.png"
    gappy = [{"train_loss": 1.0}, {"train_loss": float("nan"), "val_dice": None}, {"val_loss": 0.4}]
    curves(gappy, path)
    assert share_of(path, rgb(colours.ORANGE)) > 0
    assert share_of(path, rgb(colours.PURPLE)) == 0
    curves([{"epoch": 1, "train_loss": float("nan")}], path)
    assert share_of(path, rgb(colours.ORANGE)) == 0


def test_curves_reads_the_text_of_a_csv_file(tmp_path, figures):
    text = "epoch,train_loss,val_dice,lr\n1,0.7,,1e-4\n2,0.5,0.9,1e-4\n"
    curves(csv.DictReader(io.StringIO(text)), tmp_path / "text.png")
    numbers = [{"epoch": 1, "train_loss": 0.7, "lr": 1e-4}]
    numbers.append({"epoch": 2, "train_loss": 0.5, "val_dice": 0.9, "lr": 1e-4})
    curves(numbers, tmp_path / "numbers.png")
    text, numbers = (
        [(line.get_label(), line.get_xydata().tolist()) for axes in figure.axes for line in axes.lines]
        for figure in figures
    )
    assert str(text) == str(numbers) and len(text) == 5  # three series, and the best epoch in both panels


def test_curves_marks_the_best_epoch(tmp_path, monkeypatch, figures):
    marked = []
    monkeypatch.setattr(matplotlib.axes.Axes, "axvline", lambda axes, x, **style: marked.append(x))
    records = history(5)
    records[2]["val_dice"], records[3]["val_loss"], records[4]["val_dice"] = 0.9, 0.1, float("nan")
    curves(records, tmp_path / "dice.png")
    curves(records, tmp_path / "loss.png", best="val_loss")
    assert marked == [3, 3, 4, 4]  # in both panels


def test_curves_draws_a_line_for_each_class(tmp_path, figures):
    scores = [{"val_dice": 0.5, "val_dice_background": 0.9, "val_dice_nucleus": 0.4, "val_dice_a_b": 0.6}] * 2
    curves(scores, tmp_path / "curves.png")
    lines = {line.get_label(): line for line in figures[0].axes[1].lines}
    assert {"Dice 0.500", "Dice of nucleus 0.400", "Dice of a_b 0.600"} <= lines.keys()
    assert not any("background" in label for label in lines)
    nucleus = lines["Dice of nucleus 0.400"]
    assert nucleus.get_linestyle() == "--" and nucleus.get_color() == tuple(colours.class_colours(2)[0])


def test_curves_needs_an_epoch(tmp_path):
    with pytest.raises(ValueError, match="at least one epoch"):
        curves([], tmp_path / "curves.png")


def test_files_are_replaced_whole(tmp_path, monkeypatch):
    path, figure = tmp_path / "curves.png", Figure(figsize=(1, 1))
    path.write_bytes(b"old")

    def fail_half_way(figure, file, **kwargs):
        file.write(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", fail_half_way)
        with pytest.raises(OSError, match="disk full"):
            plots.save(figure, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    plots.save(figure, path)
    assert path.read_bytes() != b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere"):
        curves(history(2), tmp_path / "nowhere" / "curves.png")


def test_the_ending_is_the_format(tmp_path):
    plots.save(Figure(figsize=(1, 1)), tmp_path / "curves.svg")
    assert b"<svg" in (tmp_path / "curves.svg").read_bytes()


def test_nothing_global_changes(tmp_path):
    script = """
import sys
import matplotlib
import numpy as np
def settings():  # but for the backend: to read it is to choose one, which imports pyplot
    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}
before = settings()
from tinyseg.report.plots import curves, predictions
curves([{"train_loss": 1.0}], sys.argv[1] + "/curves.png")
predictions(np.eye(9)[None], None, np.eye(9)[None], sys.argv[1] + "/predictions.png")
print("matplotlib.pyplot" in sys.modules, settings() == before)
"""
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(plots.__file__).parents[2])
    assert (done.stdout, done.stderr) == ("False True\n", "")
