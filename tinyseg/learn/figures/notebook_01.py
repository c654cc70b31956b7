"""Figures of notebook 1, autograd on one page."""

from matplotlib import pyplot as plt

from tinyseg.learn.figures import Film, figure
from tinyseg.report.colours import BLUE, GREY, ORANGE


@figure
def loss_graph(picture):
    """The graph of the loss.

    Leaves w = 3 and x = 2 at the left feed Multiply, u = 6; then Subtract, e = 2; then Power. A long arrow leads from w
    to a second Power. Both Powers feed Add, L = 13.
    """
    return picture.figure


@figure
def gradients_flow(picture, visits):
    """Five nodes are visited from right to left and send numbers back.

    To w come 8 from Multiply and 6 from Power.
    """
    frames = len(visits) + 4  # the last picture stays on
    return Film(picture.figure, lambda k: picture.draw(visits[:k]), frames, seconds=1.2)


@figure
def memory(curves):
    """Memory in use against the operation.

    For sigmoid it rises by one mebibyte with each of twelve operations and falls again at the same rate in the backward
    pass. For an addition it stays flat.
    """
    drawn, ax = plt.subplots()
    for (label, curve), colour in zip(curves.items(), (ORANGE, BLUE), strict=True):
        ax.plot(curve, ".-", color=colour)
        ax.annotate(label, (6, curve[6] + 0.5), ha="right", va="bottom")
    ax.axvline(12.5, color=GREY, lw=1, ls=":")
    ax.annotate("forward    backward", (12.5, 14), ha="center", va="center", color=GREY)
    ax.set(xlabel="operations done, there and back", ylabel="MiB above the start", ylim=(-0.5, 15))
    ax.set_title("A graph costs what its nodes save, until they have been visited")
    return drawn


@figure
def cut_graph(picture):
    """The graph of y = s x with s a constant: x = 2 and one Multiply, y = 8."""
    return picture.figure
