"""Names of users in pictures: drawn as they are, and never at the cost of a run."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from tinyseg.report import plots
from tinyseg.report.saving import drawing, save, shorten

NAMES = ("a$_$x_{1", "$$", "\\alpha^_{", "n" * 300, "two\nlines\n" * 20, "切片", "\ud800\x1b[31m\0", "")


@pytest.mark.parametrize("name", NAMES)
def test_any_name_can_be_drawn(name, tmp_path):
    images = np.random.default_rng(0).random((1, 24, 32))
    plots.predictions(images, images > 0.5, images, tmp_path / "a.png", [name], what=name)
    planes, labels = images[:, None], (images > 0.5).astype(np.uint8)
    plots.tumours(planes, labels, labels, [name], tmp_path / "b.png", [name], ["background", name])
    assert min((tmp_path / f).stat().st_size for f in ("a.png", "b.png")) > 1000


def test_names_are_drawn_letter_by_letter(tmp_path):
    figure = Figure()
    axes = figure.subplots()
    axes.set(ylabel="a$_$b", yscale="log", ylim=(1, 1000))
    save(figure, tmp_path / "a.png")
    texts = {text.get_text(): text for text in figure.findobj(Text)}
    assert not texts["a$_$b"].get_parse_math()
    assert texts["$\\mathdefault{10^{2}}$"].get_parse_math()  # the numbers at the ticks are ours


def test_long_texts_are_shortened_in_the_middle():
    assert shorten("short\nname") == "short\nname"
    scores = "accuracy 0.474, Dice 0.583, membrane IoU 0.118"
    assert shorten(scores) == scores
    found = shorten("begin" + "x" * 300 + "end\nDice 0.5")
    assert found.startswith("begin") and found.endswith("end\nDice 0.5") and len(found) < 60
    assert shorten("a\nb\nc\nd\ne\nscore") == "a\nb\n…\nscore"


def test_a_picture_that_fails_is_a_warning_with_its_name():
    with pytest.warns(UserWarning, match="curves.png could not be drawn .ZeroDivisionError"), drawing("curves.png"):
        1 / 0
    with pytest.raises(KeyboardInterrupt), drawing("curves.png"):
        raise KeyboardInterrupt
