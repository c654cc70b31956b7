"""The figures of the notebooks: a module for each notebook, a function for each figure.

A notebook computes; ``draw.matrices(standard, depthwise, pointwise)`` then draws what it has found. The docstring of
such a function says what its figure shows, for readers who cannot see it: it travels in the picture, and a page or a
slide takes it from there.
"""

import functools
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import PIL.Image
from matplotlib import pyplot as plt
from matplotlib.figure import Figure


class Film(NamedTuple):
    """A figure that moves: ``draw(k)`` draws frame k of ``frames`` into it, and each is shown for ``seconds``."""

    figure: Figure
    draw: Callable[[int], Any]
    frames: int
    seconds: float = 0.4


def figure(draw: Callable[..., Figure | Film]) -> Callable[..., Any]:
    """Make a function that draws one whose result a notebook shows as a picture.

    Parameters
    ----------
    draw : callable
        Returns a `matplotlib.figure.Figure`, or a `Film`. Its docstring describes the picture.

    Returns
    -------
    callable
        Returns a `picture`, which holds its name, "notebook_02.matrices", and its description.
    """
    name = f"{draw.__module__.rpartition('.')[2]}.{draw.__name__}"
    words = " ".join((draw.__doc__ or "").split())

    return functools.wraps(draw)(lambda *args, **kwargs: picture(draw(*args, **kwargs), words, name))


def picture(drawn: Figure | Film, words: str, name: str = "") -> Any:
    """Make a picture of a figure, for a notebook to show, and close it; ``words`` say what it shows.

    Returns
    -------
    IPython.display.Image
        A PNG, or of a film a GIF that repeats without end.
    """
    from IPython.display import Image

    data = _gif(drawn, name, words) if isinstance(drawn, Film) else _png(drawn, name, words)
    plt.close(drawn.figure)
    return Image(data, format="gif" if isinstance(drawn, Film) else "png", alt=words)


def show_images(axes: Any, images: Any, titles: Any = (), **how: Any) -> None:
    """Show images, (H, W) or (H, W, 3), each in its axes and without scales, with the titles there are."""
    for ax, image in zip(axes, images, strict=True):
        ax.imshow(image, **how)
        ax.set_axis_off()
    for ax, title in zip(axes, titles, strict=False):
        ax.set_title(title)


def describe(file: Any) -> dict[str, str]:
    """Return the "name" and "words" of a picture that a function of this package has drawn; none of another's."""
    with PIL.Image.open(file) as opened:
        info = opened.info
    name, _, words = info.get("comment", b"").decode(errors="replace").partition("\n")  # of a GIF
    found = {"name": info.get("Title", name), "words": info.get("Description", words)}
    return {key: value for key, value in found.items() if value}


def _png(figure, name, words):
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight", metadata={"Title": name, "Description": words})
    return file.getvalue()


def _gif(film, name, words):
    film.draw(0)
    film.figure.canvas.draw()  # computes the layout, once for all frames
    film.figure.set_layout_engine("none")  # a new layout in each frame would move the axes
    pictures = []
    for k in range(film.frames):
        film.draw(k)
        file = io.BytesIO()
        film.figure.savefig(file, format="png", dpi=90)
        pictures.append(PIL.Image.open(file))
    file, milliseconds = io.BytesIO(), round(1000 * film.seconds)
    pictures[0].save(
        file,
        "GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=milliseconds,
        loop=0,
        comment=f"{name}\n{words}".encode(),
    )
    return file.getvalue()
