"""The style of the notebooks' figures, and animations that are read back."""

import io

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from tinyseg.learn.teaching import BLUE, ORANGE, animate, style


def test_style_sets_the_order_of_colours_and_letters_that_can_be_read():
    style()
    cycle = [entry["color"] for entry in matplotlib.rcParams["axes.prop_cycle"]]
    assert cycle[:2] == [BLUE, ORANGE]
    for text in ("font.size", "axes.titlesize"):
        assert matplotlib.rcParams[text] >= 9
    figure, axes = plt.subplots()
    assert figure.get_layout_engine() is not None
    assert not axes.spines["top"].get_visible()


def test_animate_makes_a_gif_with_each_frame_that_repeats():
    style()
    figure, axes = plt.subplots(figsize=(2, 1))
    drawn = []

    def draw(k):
        drawn.append(k)
        axes.clear()
        axes.barh(0, k + 1)
        axes.set_xlim(0, 3)

    shown = animate(figure, draw, 3, seconds=0.2, alt="A bar grows.")
    assert shown._repr_mimebundle_()[1]["image/gif"]["alt"] == "A bar grows."
    film = Image.open(io.BytesIO(shown.data))
    assert (film.format, film.n_frames, film.info["loop"], film.info["duration"]) == ("GIF", 3, 0, 200)
    assert film.size == (180, 90)
    dark = []
    for k in range(3):
        film.seek(k)
        dark.append((np.asarray(film.convert("L")) < 128).sum())
    assert dark[0] < dark[1] < dark[2]
    assert drawn == [0, 0, 1, 2]  # the first once more, to lay it out
    assert not plt.fignum_exists(figure.number)
