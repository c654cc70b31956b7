"""Writing a figure to a file: whole or not at all, with names drawn as they are, and never at the cost of the work."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from tinyseg.data.writing import FilePath, write_atomically
from tinyseg.report.load_matplotlib import default_style, load_matplotlib

Place = TypeVar("Place", bound=FilePath)

CREATOR = "tinyseg"  # stands in every PNG, by which a picture of this library is known
LONGEST = 48  # letters of a line that are drawn: more do not fit beside a picture or below it
MOST_LINES = 4


@contextlib.contextmanager
def drawing(path: Place) -> Iterator[Place]:
    """Draw a picture of something that is worth more than the picture: an error becomes a warning with its name.

    with drawing(run.path / "curves.png") as picture:
        plots.curves(history, picture)

    It is drawn in Matplotlib's own style.
    """
    try:
        with contextlib.ExitStack() as style:
            with contextlib.suppress(Exception):  # if Matplotlib cannot be loaded, the picture will say why
                style.enter_context(default_style())
            yield path
    except Exception as error:  # whatever a name, a font or a full disk makes of it
        warnings.warn(f"{path} could not be drawn ({type(error).__name__}: {error}).", stacklevel=3)


def save(figure: Any, path: FilePath) -> None:
    """Write a figure, whole or not at all, in the format that the path's ending says (PNG without one).

    Texts are drawn as they are, never as TeX (``a$_$b``); long ones are shortened.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Cannot write {path}: there is no folder {path.parent}. Make it first.")
    _show_names_as_they_are(figure)
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # the font lacks a letter: a box is drawn
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        warnings.filterwarnings("ignore", "constrained_layout not applied", UserWarning)  # small pictures, long names
        kind = path.suffix.lstrip(".") or "png"
        metadata = {"Creator": CREATOR} if kind == "png" else None  # Matplotlib refuses it for some other formats
        figure.savefig(picture, format=kind, metadata=metadata)
    write_atomically(path, picture.getvalue())


def is_own_picture(path):
    """Return whether a file is a PNG that `save` wrote."""
    with open(path, "rb") as file:
        return f"Creator\0{CREATOR}".encode() in file.read(4096)


def _show_names_as_they_are(figure):
    """Take every text of a figure literally and shorten it, except for the numbers at the ticks of its axes."""
    Text = load_matplotlib().Text
    axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = {id(text) for axis in axes for text in axis.findobj(Text) if text is not axis.label}
    for text in figure.findobj(Text):
        if id(text) not in ticks:
            text.set_parse_math(False)
            text.set_text(shorten(text.get_text()))


def shorten(text):
    """Return a text with lines short enough for a picture, and without letters that cannot be drawn."""
    lines = ["".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line) for line in text.split("\n")]
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 2], "…", lines[-1]]  # the last line is a score
    half = LONGEST // 2
    return "\n".join(line if len(line) <= LONGEST else f"{line[:half]}…{line[-half + 1 :]}" for line in lines)
