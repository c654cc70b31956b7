"""Slides: each notebook has a deck of its own figures; in a browser nothing is cut off at the edge of a slide."""

import importlib
import pathlib
import re
import shutil

import pytest
from matplotlib import pyplot as plt
from PIL import Image

from tests.export.page.browsers import ChromiumPage
from tinyseg.learn import figures

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("[0-9]*.py"))
DECKS = [ROOT / "docs" / "slides" / f"{path.stem}.md" for path in NOTEBOOKS]

SIZES = """JSON.stringify([...document.querySelectorAll('section')]
    .map((s, k) => [k + 1, s.scrollHeight, s.clientHeight, s.scrollWidth, s.clientWidth])
    .filter(([k, h, H, w, W]) => CONDITION))"""


@pytest.fixture
def slides(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("slides")


@figures.figure
def wide():
    """A wide picture."""
    return plt.subplots(figsize=(8.6, 2.5))[0]


@figures.figure
def moving():
    """A film of 2 frames."""
    drawn, ax = plt.subplots(figsize=(2, 1))
    return figures.Film(drawn, lambda k: ax.set_facecolor("bw"[k] if k else "white"), frames=2)


@pytest.mark.parametrize("deck", DECKS, ids=lambda path: path.stem)
def test_a_deck_shows_what_its_notebook_draws_and_is_no_essay(deck):
    text = deck.read_text(encoding="utf-8")
    notebook = (ROOT / "docs" / "notebooks" / f"{deck.stem}.py").read_text(encoding="utf-8")
    title = re.search("^# # (.*)$", notebook, re.M)[1]
    assert text.startswith(f"# {title}\n")
    cells = [cell for cell in notebook.split("# %%") if "Solution" not in cell.partition("\n")[0]]
    drawn = re.findall(r"\bdraw\.(\w+)", "".join(cells))
    assert sorted(re.findall(r"!\[\]\((\w+)\)", text)) == sorted(drawn)
    parts = text.split("\n---\n")
    assert 8 <= len(parts) <= 20
    for part in parts:
        said = re.sub(r"<!--.*?-->|\$\$.*?\$\$|```.*?```|!\[\]\(\w+\)", "", part, flags=re.S)
        assert len(said.split()) <= 75, part


def test_a_deck_with_a_figure_that_no_notebook_draws(slides, tmp_path):
    deck = tmp_path / "deck.md"
    deck.write_text("# 2. Costs\n\n![](matrixes)\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="'matrixes'; its notebook draws matrices, savings"):
        slides.filled(deck, {"savings": None, "matrices": None})


def test_pictures_are_in_the_page_with_their_words_and_a_film_stands_still_in_a_pdf(slides, tmp_path):
    (tmp_path / "a.png").write_bytes(wide().data)
    (tmp_path / "b.gif").write_bytes(moving().data)
    deck = tmp_path / "deck.md"
    deck.write_text("# 2. Costs\n\n![](a)\n\n![](b)\n", encoding="utf-8")
    pictures = {"a": tmp_path / "a.png", "b": tmp_path / "b.gif"}
    text = slides.filled(deck, pictures)
    assert text.count('<img alt="A wide picture." src="data:image/png;base64,') == 1
    assert text.count('<img alt="A film of 2 frames." src="data:image/gif;base64,') == 1
    assert slides.filled(deck, pictures, still=True).count("data:image/png") == 2


def test_pictures_of_a_site_are_known_by_their_names(slides, tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "02_x.html").write_text('<img alt="" src="../a.png" /> <img src="../c.png">', "utf-8")
    (tmp_path / "a.png").write_bytes(wide().data)
    Image.new("L", (2, 2)).save(tmp_path / "c.png")
    assert slides.pictures_of_the_site(tmp_path)("02_x") == {"wide": tmp_path / "notebooks" / "../a.png"}


@pytest.mark.slow
def test_nothing_is_cut_off_at_the_edge_of_a_slide(slides, tmp_path, monkeypatch):
    if shutil.which("npx") is None:
        pytest.skip("npx (Node.js) is not installed")
    (tmp_path / "wide.png").write_bytes(wide().data)

    class Every(dict):
        def get(self, name):
            return tmp_path / "wide.png"

    slides.write_decks(DECKS, lambda stem: Every(), tmp_path / "out", kinds=["html"])
    (tmp_path / "chromium").mkdir()
    page = ChromiumPage(tmp_path / "chromium")
    try:
        page.resize(1280, 720)
        for deck in DECKS:
            page.open((tmp_path / "out" / f"{deck.stem}.html").as_uri())
            assert page.evaluate(SIZES.replace("CONDITION", "h > 500")) != "[]"  # slides are laid out, seen or not
            least = page.evaluate("Math.min(...[...document.querySelectorAll('figure')].map((f) => f.clientHeight))")
            assert least >= 200, f"{deck.name}: words leave a picture {least} of the 720 pixels of a slide's height"
            cut = page.evaluate(SIZES.replace("CONDITION", "h > H + 1 || w > W + 1"))
            assert cut == "[]", f"{deck.name}: number, height of what is on it and its own, width and its own: {cut}"
    finally:
        page.close()
