"""A batch that is computed in parts, and losses that need a sum over all of it.

The gradient of a mean over images is the mean of the gradients of its parts. A few losses are no such means: their
denominators are sums over the batch, as of the weights of classes (`cross_entropy`), or of all pixels of a class
(pooled soft Dice). They ask for such a sum by `over_batch`:

    a(part) ← n(part) / n · Σ a(q)  over all parts q          n: number of images

Each part then computes as if the whole batch looked as it does, and the mean of the losses, and of their gradients,
over the parts, weighed by their images, is that of the whole batch.

`tinyseg.training.microbatches` computes in parts: it first asks each part what its loss adds up, and then computes
again with the sums. Where nothing computes in parts, `over_batch` returns what it is given.
"""

import contextvars

import numpy as np

from tinyseg.autograd import Array, Setting

_part: contextvars.ContextVar["Part | None"] = contextvars.ContextVar("part", default=None)


class Part:
    """A part of a batch, of which there are several.

    Parameters
    ----------
    number : int
        From 0; with it `tinyseg.nn.Dropout` draws a mask of its own for each part.
    share : float
        n(part) / n, once that is known.
    totals : list of ndarray, optional
        The sums over the whole batch, in the order in which the loss asks for them. Without them, the part only notes
        what it is asked for.

    Attributes
    ----------
    asked : list of ndarray
        What the loss has added up in this part.
    """

    def __init__(self, number: int, share: float = 1.0, totals: list[Array] | None = None) -> None:
        self.number, self.share, self.totals = number, share, totals
        self.asked: list[Array] = []

    def __call__(self) -> Setting:
        """Context manager under which this part is computed."""
        return Setting(_part, lambda _: self)


def over_batch(total):
    """Return a sum over the images at hand as it is over the whole batch, in proportion to these images.

    Parameters
    ----------
    total : ndarray, any shape
        A sum over all images, of a shape that does not depend on their number.
    """
    part = _part.get()
    if part is None:
        return total
    part.asked.append(total)
    if part.totals is None:
        return total
    return part.totals[len(part.asked) - 1] * total.dtype.type(part.share)  # a number of the type of the array


def ratio_over_batch(ratio, denominator, smooth):
    """Return a ratio (a + s) / (b + s) and its denominator as `over_batch` has a and b, where s counts once."""
    if _part.get() is None:
        return ratio, denominator
    a, b, smooth = over_batch(ratio * denominator - smooth), over_batch(denominator - smooth), smooth * share_of_batch()
    return (a + smooth) / (b + smooth), b + smooth


def share_of_batch():
    """Return n(part) / n, as a factor for what `over_batch` does not give; 1 where nothing computes in parts."""
    part = _part.get()
    if part is None:
        return 1.0
    part.asked.append(np.zeros(0, np.float32))  # so that the part gets to know its share
    return part.share


def number_of_part():
    """Return the number of the part of a batch that is computed; 0 where nothing computes in parts."""
    part = _part.get()
    return 0 if part is None else part.number
