"""Figures of the notebooks become pictures that hold their name and a description."""

import io

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from tinyseg.learn import figures
from tinyseg.learn.teaching import style


@figures.figure
def two_bars(heights):
    """Two bars.

    The second is
    higher.
    """
    drawn, axes = plt.subplots()
    axes.bar(range(2), heights)
    return drawn


@figures.figure
def growing_bar():
    """A bar grows."""
    drawn, axes = plt.subplots(figsize=(2, 1))

    def draw(k):
        axes.clear()
        axes.barh(0, k + 1)
        axes.set_xlim(0, 3)

    return figures.Film(drawn, draw, frames=3, seconds=0.2)


def test_a_figure_is_a_png_that_holds_its_name_and_its_description_and_is_closed():
    style()
    before = plt.get_fignums()
    shown = two_bars([1, 2])
    words = "Two bars. The second is higher."
    assert shown._repr_mimebundle_()[1]["image/png"]["alt"] == words
    assert figures.describe(io.BytesIO(shown.data)) == {"name": "test_figures.two_bars", "words": words}
    assert plt.get_fignums() == before


def test_a_film_is_a_gif_that_holds_its_description_and_repeats():
    style()
    shown = growing_bar()
    assert figures.describe(io.BytesIO(shown.data)) == {"name": "test_figures.growing_bar", "words": "A bar grows."}
    film = Image.open(io.BytesIO(shown.data))
    assert (film.format, film.n_frames, film.info["loop"], film.info["duration"]) == ("GIF", 3, 0, 200)


def test_nothing_is_said_of_a_picture_that_was_drawn_elsewhere():
    file = io.BytesIO()
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(file, format="png")
    assert figures.describe(file) == {}
