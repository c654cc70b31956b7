"""The pictures of the lessons: one style, one size, and a file that appears whole."""

import contextlib
import pathlib

from matplotlib import pyplot as plt

from tinyseg.learn.teaching import style


@contextlib.contextmanager
def figure(path, title, columns=2):
    """Yield the axes of a picture beside each other, one or a list of them, and save it at the end.

    Parameters
    ----------
    path : path-like
        PNG.
    title : str
    columns : int
    """
    style()
    picture, axes = plt.subplots(1, columns, figsize=(max(6.5, 2.3 * columns if columns > 2 else 9.0 * columns / 2), 3))
    picture.suptitle(title, fontsize=12)
    yield axes
    save(picture, path)


def save(picture, path):
    """Write a figure as PNG and close it."""
    unfinished = pathlib.Path(path).with_suffix(".unfinished")
    picture.savefig(unfinished, format="png", dpi=130)
    plt.close(picture)
    unfinished.replace(path)
