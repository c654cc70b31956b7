"""Fill the numbers of README and docs in from JSON: `make numbers`; ``python docs/fill.py --check`` only compares.

A measured number stands in a page between two comments, which no reader of the page sees:

    takes <!-- n: cpu/networks/sdunet/training/least/ratio:.2f -->0.73<!-- /n --> of the time

The name is a file of `SOURCES`, then a path through it; what follows the colon is a format of Python. A name that ends
in ``table`` gives a whole table, one that ends in ``origin`` the sentence that says where the numbers beside it were
measured. A table, which has several lines, stands between lines of its own; in a line of text something must stand
before the comment, since a line that begins with one is not read as text.
"""

import functools
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)] if str(ROOT) not in sys.path else []
from benchmarks.summary import summarize  # noqa: E402
from reproduction.tables import figures, table  # noqa: E402
from tests.campaigns import frame  # noqa: E402

SOURCES = {  # what a name begins with: the file, and what makes the numbers that pages quote of its content
    "cpu": ("benchmarks/results/cpu.json", summarize),
    "claims": ("benchmarks/results/claims.json", dict),
    "browser": ("benchmarks/results/browser.json", dict),
    "results": ("docs/results.json", dict),
    "reproduction": ("docs/reproduction.json", figures),
} | {
    campaign: (f"tests/campaigns/results/{campaign}.json", frame.figures)
    for campaign in ("kill", "neighbours", "fuzz", "environment")
}  # fmt: skip
MARKED = re.compile(r"<!-- n: ([^:>]+?)(?::(\S+))? -->(.*?)<!-- /n -->", re.S)


def pages():
    """Return the pages that may hold numbers: README and everything under docs that is written by hand."""
    written = sorted(page for page in (ROOT / "docs").rglob("*.md") if not {"_build", "source"} & set(page.parts))
    return [ROOT / "README.md", *written, *sorted((ROOT / "docs" / "notebooks").glob("[0-9]*.py"))]


def fill(text):
    """Return a page with every number as it is in the JSON.

    Raises
    ------
    ValueError
        A marker names nothing; the message says what there is.
    """

    def filled(marker):
        name, form, _ = marker.groups()
        new = look_up(name, form)
        new = f"\n{new.strip()}\n" if "\n" in new else new
        return f"<!-- n: {name}{':' + form if form else ''} -->{new}<!-- /n -->"

    return MARKED.sub(filled, text)


def look_up(name, form=None):
    """Return what a marker names, as text."""
    source, *path = name.split("/")
    if source not in SOURCES:
        raise ValueError(f"{name} names nothing: it must begin with one of {', '.join(SOURCES)}.")
    value = _content(source)
    for key in path:
        has = value if isinstance(value, dict) else {}
        if key in has:
            value = has[key]
        elif key == "origin" and "measured" in has:
            value = _origin(**has["measured"])
        elif key == "table" and "columns" in has:
            value = _table(has["columns"], has["rows"])
        else:
            raise ValueError(f'{name} names nothing: {SOURCES[source][0]} has no "{key}" there, but {", ".join(has)}.')
    if isinstance(value, dict):
        raise ValueError(f"{name} names no number but {', '.join(value)}.")
    return format(value, form or "")


@functools.cache
def _content(source):
    path, make = SOURCES[source]
    return make(json.loads((ROOT / path).read_text(encoding="utf-8")))


def _origin(commit, date, machine, command=None, how=None):
    """Say where numbers were measured, and by which command or in which other way."""
    return f"Measured on {date} at commit {commit}, on {machine}: {how or f'`{command}`'}."


def _table(columns, rows):
    """Make a table: `columns` has the format of each, `rows` the numbers (or texts) of each; the paper's in italics."""
    lines = []
    for title, row in rows.items():
        texts = [title, *(format(row[key], form) if key in row else "" for key, form in columns.items())]
        lines.append([f"*{text}*" if text and title.startswith("paper") else text for text in texts])
    return table(["", *columns], lines)


def stale(write=False):
    """Return the pages whose numbers are not what the JSON says; fill them in if `write`."""
    found = []
    for page in pages():
        text, name = page.read_text(encoding="utf-8"), page.relative_to(ROOT)
        try:
            new = fill(text)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if new != text:
            found.append(str(name))
            if write:
                page.write_text(new, encoding="utf-8")
    return found


def check():
    """Raise a ValueError if a number on a page is not what the JSON says."""
    if found := stale():
        raise ValueError(f"Not what the JSON says: {', '.join(found)}. `make numbers` fills the numbers in.")


if __name__ == "__main__":
    try:
        if "--check" in sys.argv:
            check()
        else:
            print("Filled in:", ", ".join(stale(write=True)) or "nothing new")
    except ValueError as error:
        sys.exit(str(error))
