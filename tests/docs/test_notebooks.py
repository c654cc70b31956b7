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
    assert len(NOTEBOOKS) == 12
    for number, path in enumerate(NOTEBOOKS, 1):
        title = re.search(r"^# # (.*)$", path.read_text(encoding="utf-8"), re.M)[1]
        assert title.startswith(f"{number}. ") and f"[{title}]({path.name})" in index
        assert re.search(rf"^{path.stem}$", index, re.M), f"{path.stem} is not in the table of contents"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_three_exercises_whose_solutions_are_shown_on_demand_and_checked(path):
    found = cells(path)
    exercises = found[next(k for k, (_, text) in enumerate(found) if "# ## Exercises" in text) :]
    solutions = [(header, text) for header, text in exercises if "Solution" in header]
    assert [re.search(r"Solution (\d)", header)[1] for header, _ in solutions] == ["1", "2", "3"]
    for k, (header, text) in enumerate(solutions, 1):
        exercise = f"{int(path.name[:2])}.{k}"
        assert "hide-cell" in header and f'teaching.solution("{exercise}")' in text
        assert f'assert teaching.check("{exercise}", ' in text, "the solution is not checked"
        assert any("answer = ..." in text and f'teaching.check("{exercise}", answer)' in text for _, text in exercises)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_lesson_is_short_its_code_is_not_cut_and_it_says_what_for_and_how_long(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 300
    assert [line for line in lines if len(line) > 88 and not line.startswith("# ")] == []
    opening = cells(path)[0][1]
    assert "**Afterwards you can**" in opening and "**Time:**" in opening


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_figures_are_drawn_elsewhere_and_described_for_those_who_cannot_see_them(path):
    code = "".join(text for header, text in cells(path) if "markdown" not in header)
    assert not re.search(r"\bplt\.|pyplot|matplotlib", code), "code that draws stands in tinyseg/learn/figures"
    module = importlib.import_module(f"tinyseg.learn.figures.notebook_{path.name[:2]}")
    names = {name for name, each in vars(module).items() if hasattr(each, "__wrapped__")}
    assert names and names == set(re.findall(r"\bdraw\.(\w+)", code))
    for name in names:
        words = " ".join(getattr(module, name).__doc__.split())
        assert 40 <= len(words) <= 600, f"{name}: {words}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_imports_only_what_the_docs_extra_installs(path):
    allowed = {"tinyseg", "numpy", "scipy", "skimage", "numba"}
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


def test_a_downloaded_notebook_names_files_and_knows_its_kernel(tmp_path, monkeypatch):
    pytest.importorskip("jupytext")
    monkeypatch.syspath_prepend(FOLDER.parent)
    convert = importlib.import_module("convert").convert
    named = set()
    for path in NOTEBOOKS:
        book = json.loads(convert(path, tmp_path, beside_docs=False).read_text(encoding="utf-8"))
        assert book["metadata"]["kernelspec"]["name"] == "python3"
        cells = book["cells"]
        prose = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        assert re.findall(r"\]\((?!\w+:|#)([^)]+)\)", prose) == []
        named |= set(re.findall(r"\(((?:docs|tinyseg|reproduction|benchmarks|examples)/[^)\s]+)\)", prose))
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
