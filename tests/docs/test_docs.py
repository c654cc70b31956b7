"""What the site's pages show is run here: every ``pycon`` block; links and pictures are there."""

import doctest
import os
import pathlib
import re

import numpy as np
import pytest

from tinyseg import Tensor, ops

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [page for page in sorted((ROOT / "docs").rglob("*.md")) if not {"_build", "source"} & set(page.parts)]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("[0-9]*.py"))
AMERICAN = r"colors?|neighbors?|neighboring|tumors?|behavior|centers?|centered|labeled|modeled"
OTHER_S = r"(?:normal|standard|optim|initial|general|minim|maxim|recogn|organ|visual)is(?:e[ds]?|ing|ation|er)"
EXAMPLES = {page: re.findall(r"^```pycon\n(.*?)^```", page.read_text(), re.S | re.M) for page in PAGES}


def words(page):
    """What a page says; of a notebook without its code."""
    lines = page.read_text().splitlines()
    return "\n".join(lines if page.suffix == ".md" else [line[2:] for line in lines if line.startswith("# ")])


@pytest.mark.parametrize("page", [page for page in PAGES if EXAMPLES[page]], ids=lambda page: page.stem)
def test_the_examples_print_what_the_page_says(page):
    known = {"np": np, "Tensor": Tensor, "ops": ops}
    test = doctest.DocTestParser().get_doctest("\n".join(EXAMPLES[page]), known, page.name, str(page), 0)
    said = []
    with np.printoptions(precision=4, suppress=True):
        doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=said.append)
    assert test.examples and not said, "".join(said)


def test_every_op_has_a_page_with_an_example():
    files = {getattr(ops, name).__module__.rpartition(".")[2] for name in ops.__all__}
    pages = {page.stem: len(blocks) for page, blocks in EXAMPLES.items() if page.parent.name == "ops"}
    together = {"fused_conv": "separable_conv"}  # one page for both
    for file in files:
        assert pages.get(together.get(file, file)), f"docs/ops/{file}.md has no example that runs"


def test_every_op_is_on_the_sheet_of_gradients():
    sheet = (ROOT / "docs" / "ops" / "gradients.md").read_text(encoding="utf-8")
    ops_pages = {page.name for page in PAGES if page.parent.name == "ops"} - {"index.md", "gradients.md"}
    assert len(ops_pages) > 15 and ops_pages <= set(re.findall(r"\]\(([a-z0-9_]+\.md)\)", sheet))


def test_every_op_is_in_the_reference():
    listed = (ROOT / "docs" / "api.md").read_text().split()
    assert {getattr(ops, name).__module__ for name in ops.__all__} - set(listed) == set()


@pytest.mark.parametrize("page", PAGES + NOTEBOOKS, ids=lambda page: page.stem)
def test_links_and_pictures_are_there(page):
    text = words(page) if page.parent.name != "slides" else words(page).replace("![](", "")  # figures: test_slides.py
    for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text):
        path = pathlib.Path(os.path.normpath(page.parent / target))
        assert path.exists(), f"{target} on {page.name}"


@pytest.mark.parametrize(
    "page", [*PAGES, *NOTEBOOKS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem
)
def test_spelling_is_british_with_ize(page):
    text = words(page)
    prose = re.sub(r"```.*?```|`[^`]*`|\"[^\"]*\"|\]\([^)]*\)", "", text, flags=re.S)
    prose = re.sub(r"\*[^*]+\*", "", prose) if page.stem == "references" else prose  # titles are their authors'
    assert re.findall(rf"\b(?:(?i:{AMERICAN}|{OTHER_S})|gray)\b", prose) == []


@pytest.mark.parametrize(
    "page",
    [*PAGES, *NOTEBOOKS, ROOT / "README.md", *sorted((ROOT / "tinyseg" / "learn" / "course" / "pages").glob("*.md"))],
    ids=lambda page: page.stem,
)
def test_a_work_that_is_cited_is_linked_and_stands_among_the_references(page):
    listed = (ROOT / "docs" / "references.md").read_text(encoding="utf-8")
    cited = r"[A-Z][\w-]+(?:\s+et\s+al\.|\s+(?:&|and)\s+[A-Z][\w-]+),?\s+\(?(?:19|20)\d\d"
    text = words(page)
    for work in re.finditer(cited, text):
        link = re.compile(r"[^\]\[]*\]\(([^)]+)\)").match(text, work.end())
        assert "[" in text[max(0, work.start() - 30) : work.start()] and link, f"{work[0]} is not linked"
        assert link[1] in listed, f"{work[0]} is not among the references"
