"""Every notebook has the form that a reader can rely on. That it runs is shown by `make docs`, which executes it."""

import ast
import importlib
import json
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.py"))


def cells(path):
    """Header and text of every cell."""
    parts = re.split(r"^# %%(.*)\n", path.read_text(encoding="utf-8"), flags=re.M)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def test_all_are_listed_in_order():
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    assert len(NOTEBOOKS) == 11
    for number, path in enumerate(NOTEBOOKS, 1):
        title = re.search(r"^# # (.*)$", path.read_text(encoding="utf-8"), re.M)[1]
        assert title.startswith(f"{number}. ") and f"[{title}]({path.name})" in index
        assert re.search(rf"^{path.stem}$", index, re.M), f"{path.stem} is not in the table of contents"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_three_exercises_with_tested_solutions_folded_away(path):
    found = cells(path)
    exercises = found[next(k for k, (_, text) in enumerate(found) if "# ## Exercises" in text) :]
    solutions = [(header, text) for header, text in exercises if "Solution" in header]
    assert [re.search(r"Solution (\d)", header)[1] for header, _ in solutions] == ["1", "2", "3"]
    for header, text in solutions:
        assert "hide-cell" in header and '"source_hidden": true' in header
        assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(text))), f"{header} tests nothing"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_pictures_have_words_for_those_who_cannot_see_them(path):
    pictures = 0
    for header, text in cells(path):
        if "markdown" not in header and "Solution" not in header:
            drawn = "plt.subplots(" in text or "plt.figure(" in text
            pictures += drawn
            assert not drawn or "alt" in header + text, f"no alt text: {header or text[:60]}"
    assert pictures, "a notebook draws pictures"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_imports_only_what_the_docs_extra_installs(path):
    allowed = {"tinyseg", "numpy", "scipy", "skimage", "matplotlib", "numba", "IPython"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) <= allowed


def test_the_tables_that_notebook_10_reads_are_the_papers(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    paper = importlib.import_module("reproduction.paper")
    tree = ast.parse(NOTEBOOKS[9].read_text(encoding="utf-8"))
    tables = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign) and node.lineno < 80}
    assert ast.literal_eval(tables["ROWS"]) == paper.ROWS
    assert ast.literal_eval(tables["TABLE_1"]) == paper.TABLE_1
    for name, row in ast.literal_eval(tables["TABLE_2"]).items():
        assert row and row.items() <= paper.TABLE_2[name].items()


def test_a_downloaded_notebook_names_files_and_folds_what_draws(tmp_path, monkeypatch):
    pytest.importorskip("jupytext")
    monkeypatch.syspath_prepend(FOLDER.parent)
    convert = importlib.import_module("convert").convert
    named = set()
    for path in NOTEBOOKS:
        cells = json.loads(convert(path, tmp_path, beside_docs=False).read_text(encoding="utf-8"))["cells"]
        prose = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        assert re.findall(r"\]\((?!\w+:|#)([^)]+)\)", prose) == []
        named |= set(re.findall(r"\(((?:docs|tinyseg|reproduction|benchmarks|examples)/[^)\s]+)\)", prose))
        drawing = [cell for cell in cells if "hide-input" in cell["metadata"].get("tags", ())]
        assert drawing and all(cell["metadata"]["jupyter"]["source_hidden"] for cell in drawing)
    assert len(named) > 20 and [name for name in named if not (ROOT / name).exists()] == []


def test_links_of_the_ipynb_files_work_beside_docs(tmp_path, monkeypatch):
    pytest.importorskip("jupytext")
    monkeypatch.syspath_prepend(FOLDER.parent)
    convert = importlib.import_module("convert").convert
    for path in NOTEBOOKS:
        cells = json.loads(convert(path, tmp_path).read_text(encoding="utf-8"))["cells"]
        prose = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", prose)
        assert links
        for target in links:
            beside = target.endswith(".ipynb") and (FOLDER / target).with_suffix(".py").exists()
            assert beside or (ROOT / "notebooks" / target).resolve().exists(), f"{target} in {path.name}"
