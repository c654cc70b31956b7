"""Every page of docs/ops has its one figure, which is what docs/op_figures draws today."""

import html
import importlib
import pathlib
import re
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted({page.stem for page in (ROOT / "docs" / "ops").glob("*.md")} - {"index", "gradients"})
IMAGE = r"!\[([^\]]*)\]\(([^)]*)\)"
KIBIBYTES = 72


@pytest.fixture(scope="module")
def figures():
    sys.path.insert(0, str(ROOT / "docs"))
    yield importlib.import_module("op_figures")
    sys.path.remove(str(ROOT / "docs"))


def words(svg):
    """All text of a figure, in order: matplotlib writes it beside the outlines of the letters, as comments."""
    return [html.unescape(text) for text in re.findall(r"<!-- (.*?) -->", svg, flags=re.S)]


def page_of(name):
    return (ROOT / "docs" / "ops" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_one_figure_and_says_in_words_what_it_shows(page):
    ((alt, target),) = re.findall(IMAGE, page_of(page))
    assert target == f"../images/ops/{page}.svg" and (ROOT / "docs" / "ops" / target).is_file()
    assert len(alt) >= 40 and alt.endswith(".")


def test_the_other_pages_have_none():
    assert [name for name in ("index", "gradients") if re.findall(IMAGE, page_of(name))] == []


def test_there_is_a_figure_for_each_page_and_for_no_other(figures):
    assert sorted(figures.FIGURES) == PAGES
    assert sorted(file.name for file in figures.FOLDER.iterdir()) == [f"{page}.svg" for page in PAGES]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_figure_in_the_repository_says_what_is_drawn_today(page, figures):
    kept = (figures.FOLDER / f"{page}.svg").read_text(encoding="utf-8")
    drawn = figures.svg(figures.FIGURES[page])
    assert len(words(kept)) > 10
    assert words(drawn) == words(kept), "run `python docs/op_figures`"


def test_a_figure_is_small_white_and_without_a_date(figures):
    for page in PAGES:
        svg = (figures.FOLDER / f"{page}.svg").read_text(encoding="utf-8")
        assert len(svg) < KIBIBYTES * 1024, page
        assert "fill: #ffffff" in svg.split('<g id="axes_1">')[0], page  # the background, for a dark page
        assert "dc:date" not in svg and "<image" not in svg and "<text" not in svg, page


@pytest.mark.slow
def test_drawn_twice_a_figure_is_the_same_to_the_last_byte(figures):
    for page in ("conv2d", "activation"):
        assert figures.svg(figures.FIGURES[page]) == figures.svg(figures.FIGURES[page])


def test_a_figure_of_few_numbers_says_what_is_drawn_today(figures):  # the other ones are drawn by the slow tests
    kept = (figures.FOLDER / "pool.svg").read_text(encoding="utf-8")
    assert words(figures.svg(figures.FIGURES["pool"])) == words(kept), "run `python docs/op_figures`"


def test_a_wrong_number_would_be_seen(figures, monkeypatch):
    before = words(figures.svg(figures.FIGURES["pool"]))
    monkeypatch.setattr("tinyseg.ops.pool.avg_forward", lambda x, kernel, stride, pads, out: np.full((1, 1, 2, 2), 7.0))
    assert words(figures.svg(figures.FIGURES["pool"])) != before
