"""The notebooks of docs/notebooks as .ipynb files: ``python docs/convert.py FOLDER``, for `make notebooks`.

Their links to pages and files are turned so that they work from a folder beside docs/.
"""

import pathlib
import posixpath
import re
import sys

import jupytext

NOTEBOOKS = pathlib.Path(__file__).parent / "notebooks"


def convert(source, folder, beside_docs=True):
    """Write one notebook, without outputs, into a folder; returns its path.

    Where the folder is not beside docs/, as that of a reader who downloads a notebook, links to pages and files become
    the names of these.
    """
    book = read(source.read_text(encoding="utf-8"))
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = turned(cell.source, _moved) if beside_docs else _named(cell.source)
    path = pathlib.Path(folder) / f"{source.stem}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    jupytext.write(book, path, fmt="ipynb")
    return path


def read(text):
    """Return the notebook of a Python file in percent format, for the kernel that every Jupyter has."""
    book = jupytext.reads(text, fmt="py:percent")
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return book


def turned(markdown, moved):
    """Return a text in which every link but those to the web and within the page goes to ``moved(target)``."""
    return re.sub(r"\]\((?!\w+:|#)([^)\s]+)\)", lambda link: f"]({moved(link[1])})", markdown)


def _named(markdown):
    """Return a text with the path of a page or file, from the root of the project, in the place of a link to it."""

    def name(link):
        words, target = link[1], link[2].partition("#")[0]
        path = posixpath.normpath(f"docs/notebooks/{target}")
        return words if path in words else f"{words} ({path})"

    return re.sub(r"\[([^\[\]]*)\]\((?!\w+:|#)([^)\s]+)\)", name, markdown)


def _moved(target):
    if target.startswith("../../"):
        return target.removeprefix("../")
    if target.startswith("../"):
        return target.replace("../", "../docs/", 1)
    return re.sub(r"\.py\b", ".ipynb", target)


if __name__ == "__main__":
    for notebook in sorted(NOTEBOOKS.glob("[0-9]*.py")):
        convert(notebook, sys.argv[1])
