"""Figures of notebook 11, what eight bits cost."""

import numpy as np
from matplotlib import pyplot as plt

from tinyseg.learn.figures import figure, show_images
from tinyseg.report.colours import BLUE, GREY, ORANGE


@figure
def ranges(left_out, curves):
    """Error against what is left out of the range.

    Both curves fall as less is clipped; the one with a speck rises steeply at the end.
    """
    drawn, axes = plt.subplots()
    for (name, values), colour in zip(curves.items(), (BLUE, ORANGE), strict=True):
        axes.loglog(left_out, values, color=colour, label=name)
    axes.set(xlabel="left out of the range, % of the values", ylabel="error (root mean square)")
    axes.invert_xaxis()
    axes.legend()
    return drawn


@figure
def scales(spreads, errors):
    """Relative error of a channel's kernel against how uneven channels are.

    With one scale it rises from 1 per cent to about 80, with a scale a channel it stays at 1 per cent.
    """
    drawn, axes = plt.subplots()
    for (name, values), colour in zip(errors.items(), (ORANGE, BLUE), strict=True):
        axes.plot(spreads, 100 * np.array(values), color=colour, label=name)
    axes.set(xlabel="how uneven: deviation of the logarithm of a channel's size", ylabel="error of a channel, %")
    axes.legend()
    return drawn


@figure
def masks(section, floats, eight, changed):
    """A section, its probability with floats and with 8 bits, and the pixels whose class changed.

    The two probabilities look the same; the pixels lie at the edges of membranes.
    """
    drawn, row = plt.subplots(1, 4, figsize=(9.6, 2.7))
    pictures = {"section": section, "floats": floats, "8 bits": eight, "another class": changed}
    show_images(row, [picture[60:188, 60:188] for picture in pictures.values()], pictures)
    return drawn


@figure
def fewer_bits(bits, changed, right, floats):
    """Against the bits of the kernels, from 2 to 7: pixels of another class, and pixels that are right.

    The share that changes its class falls from tens of per cent to less than one. The share that is right rises to that
    of floats.
    """
    drawn, (left, middle) = plt.subplots(1, 2, figsize=(8.4, 3.2))
    left.semilogy(bits, changed, "o-")
    left.set(xlabel="bits in kernels", ylabel="pixels of another class, %")
    middle.plot(bits, right, "o-")
    middle.axhline(floats, color=GREY, ls="--")
    middle.annotate("floats", (2, floats), (2, 2), textcoords="offset points", va="bottom")
    middle.set(xlabel="bits in kernels", ylabel="right, %")
    return drawn
