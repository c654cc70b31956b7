"""Figures of the reproduction: what is in them."""

import numpy as np
import pytest

from reproduction import figures
from tinyseg.report import plots


@pytest.fixture
def drawn(monkeypatch):
    """Figures that were to be saved."""
    kept = []
    monkeypatch.setattr(plots, "save", lambda figure, path: kept.append(figure))
    return kept


def history(*losses):
    return [{"step": 10 * (k + 1), "train_loss": loss, "val_dice": 1 - loss} for k, loss in enumerate(losses)]


def test_curves_are_means_over_seeds_up_to_the_shortest(drawn):
    histories = {"A": [history(1.0, 0.5, 0.2), history(0.5, 0.25)], "B": [history(0.4, 0.3)]}
    figures.curves(histories, "unused.png")
    loss, dice = drawn[0].axes
    a, b = loss.get_lines()
    np.testing.assert_array_equal(a.get_xydata(), [[10, 0.75], [20, 0.375]])
    np.testing.assert_array_equal(b.get_ydata(), [0.4, 0.3])
    np.testing.assert_array_equal(dice.get_lines()[1].get_ydata(), [0.6, 0.7])
    assert len(loss.collections) == 1  # a band for A's two seeds, none for B
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["A", "B"]


def test_sections_side_by_side(drawn):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (2, 12, 20), np.uint8)
    labels = rng.random((2, 12, 20)) > 0.5
    found = {"U-Net": labels.astype(float), "SD-UNet": np.where(labels, 0.9, 0.6)}
    figures.sections_side_by_side(images, labels, found, {"": ["first", "second"], "SD-UNet": ["a", "b"]}, "unused.png")
    grid = np.array(drawn[0].axes).reshape(2, 4)
    assert [ax.get_title() for ax in grid[0]] == ["image", "truth", "U-Net", "SD-UNet"]
    assert grid[1, 0].get_ylabel() == "second" and grid[1, 3].get_xlabel() == "b"
    perfect, wrong = (ax.get_images()[0].get_array() for ax in grid[0, 2:])
    np.testing.assert_array_equal(perfect, np.repeat(images[0][..., None], 3, axis=2))
    assert (wrong[~labels[0]] == plots.MISSED_MEMBRANE).all()
    np.testing.assert_array_equal(wrong[labels[0]], perfect[labels[0]])


def test_tumours_side_by_side(drawn):
    images = np.random.default_rng(0).random((1, 10, 16))
    labels = np.zeros((1, 10, 16), int)
    labels[0, 2:6, 3:9] = 1
    labels[0, 3:5, 4:7] = 2
    found = {"U-Net": np.zeros_like(labels), "SD-UNet": labels}
    classes = ("background", "edema", "core")
    figures.tumours_side_by_side(images, labels, found, {"": ["slice 3"]}, "unused.png", classes)
    image, truth, unet, sdunet = drawn[0].axes
    assert [len(ax.collections) for ax in (image, truth, unet, sdunet)] == [0, 2, 0, 2]
    assert image.get_images()[0].get_array().shape == (16, 10)  # the patient's front is up
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["edema", "core"]


def test_pictures_are_written(tmp_path):
    figures.curves({"A": [history(1.0, 0.5)]}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
