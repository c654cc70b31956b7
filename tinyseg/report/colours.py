"""The colours and the resolution of all pictures.

The colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/), which colour-blind readers can tell apart. A class
has the same one in every picture. With more classes than colours, hues far from each other follow.
"""

import colorsys

import numpy as np

ORANGE, BLUE, GREEN, PURPLE, GREY = "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#767676"
DARK_ORANGE, DARK_GREY = "#8a5f00", "#555555"  # for words on white
CLASS_COLOURS = (GREEN, BLUE, ORANGE, PURPLE, "#56B4E9", "#D55E00", "#F0E442")  # of classes 1, 2, 3 …
DPI = 120


def class_colours(number: int) -> np.ndarray:
    """Return the colours of classes 1 to `number`, (number, 3) floats in [0, 1]."""
    known = [[int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)] for text in CLASS_COLOURS]
    more = [colorsys.hsv_to_rgb(0.618 * k % 1, 0.65, 0.9) for k in range(max(0, number - len(known)))]
    return np.array([*known, *more])[:number].reshape(-1, 3)
