"""The notebooks of docs/notebooks as .ipynb files: ``python docs/convert.py FOLDER``, for `make notebooks`.

Their links to pages and files are turned so that they work from a folder beside docs/.
"""

import pathlib
import re
import sys

import jupytext

NOTEBOOKS = pathlib.Path(__file__).parent / "notebooks"


def convert(source, folder):
    """Write one notebook, without outputs, into a folder; returns its path."""
    book = jupytext.read(source, fmt="py:percent")
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = turned(cell.source, _moved)
    path = pathlib.Path(folder) / f"{source.stem}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    jupytext.write(book, path, fmt="ipynb")
    return path


def turned(markdown, moved):
    """Return a text in which every link but those to the web and within the page goes to ``moved(target)``."""
    return re.sub(r"\]\((?!\w+:|#)([^)\s]+)\)", lambda link: f"]({moved(link[1])})", markdown)


def _moved(target):
    if target.startswith("../../"):
        return target.removeprefix("../")
    if target.startswith("../"):
        return target.replace("../", "../docs/", 1)
    return re.sub(r"\.py\b", ".ipynb", target)


if __name__ == "__main__":
    for notebook in sorted(NOTEBOOKS.glob("[0-9]*.py")):
        convert(notebook, sys.argv[1])
