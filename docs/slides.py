"""Slides, one deck a lesson, as a page and as a PDF: ``python docs/slides.py SITE FOLDER``, for `make slides`.

docs/slides/02_convolution_cost.md is a deck in the Markdown of Marp (https://marp.app): slides are parted by ``---``,
and a comment holds notes for whoever speaks. ``![](matrices)`` stands for the figure of that name which notebook 2 has
drawn for the site. Pictures go into the page itself; in a PDF a film shows its last frame. Needs Node.js, and for the
PDF a browser.
"""

import base64
import html
import io
import pathlib
import re
import subprocess
import sys
import tempfile

import PIL.Image

from tinyseg.learn import figures

DECKS = pathlib.Path(__file__).parent / "slides"
MARP = (
    "npx",
    "--yes",
    "@marp-team/marp-cli@4.5.1",
    "--html",
    "--no-config-file",
    "--theme",
    str(DECKS / "tinyseg.css"),
)
HEAD = """---
marp: true
theme: tinyseg
paginate: true
math: mathjax
title: {title}
footer: tinyseg, notebook {number}
---

"""


def write_decks(decks, pictures_of, folder, kinds=("html", "pdf")):
    """Write each deck as files of some kinds.

    Parameters
    ----------
    decks : sequence of pathlib.Path
        Files of docs/slides.
    pictures_of : callable
        Returns {name: path of a PNG or GIF} for the stem of a deck.
    folder : path
    kinds : sequence of {"html", "pdf"}
    """
    for kind in kinds:
        with tempfile.TemporaryDirectory() as work:
            for deck in decks:
                text = filled(deck, pictures_of(deck.stem), still=kind == "pdf")
                (pathlib.Path(work) / deck.name).write_text(text, encoding="utf-8")
            subprocess.run([*MARP, f"--{kind}", "--input-dir", work, "--output", str(folder)], check=True)


def filled(deck, pictures, still=False):
    """Return a deck as Marp takes it: with a head, and with pictures, described in words, for their names."""

    def picture(match):
        path = pictures.get(match[1])
        if path is None:
            known = ", ".join(sorted(pictures)) or "none: build the site first"
            raise SystemExit(f"{deck} shows a figure {match[1]!r}; its notebook draws {known}")
        kind, data = path.suffix[1:], path.read_bytes()
        if still and kind == "gif":
            kind, data = "png", last_frame(data)
        words = html.escape(figures.describe(path).get("words", ""))
        return f'<figure><img alt="{words}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}"></figure>'

    text = deck.read_text(encoding="utf-8")
    title = re.match(r"# (\d+)\. (.*)", text)
    return HEAD.format(number=title[1], title=title[2]) + re.sub(r"!\[\]\((\w+)\)", picture, text)


def last_frame(gif):
    """Return the last picture of a film as a PNG."""
    file = io.BytesIO()
    with PIL.Image.open(io.BytesIO(gif)) as film:
        film.seek(film.n_frames - 1)
        film.convert("RGB").save(file, format="png")
    return file.getvalue()


def pictures_of_the_site(site):
    """Return a function from a notebook to the pictures that its page in a built site shows, by name."""

    def pictures(stem):
        page = pathlib.Path(site) / "notebooks" / f"{stem}.html"
        found = [page.parent / source for source in re.findall(r'<img[^>]* src="([^"]+)"', page.read_text("utf-8"))]
        named = {figures.describe(path).get("name", ""): path for path in found if path.suffix in (".png", ".gif")}
        return {name.rpartition(".")[2]: path for name, path in named.items() if name}

    return pictures


if __name__ == "__main__":
    site, folder = sys.argv[1:]
    write_decks(sorted(DECKS.glob("[0-9]*.md")), pictures_of_the_site(site), folder)
