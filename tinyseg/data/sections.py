"""Sections and their masks in memory: splitting them, and resampling both alike."""

import re
from dataclasses import dataclass

import numpy as np

from tinyseg.data.resample import nearest, resample


@dataclass
class Sections:
    """Sections, their masks, and what to call them.

    Attributes
    ----------
    images : ndarray, (S, H, W)
        Grey values as they were stored: bool, an integer type, or float32.
    labels : ndarray of bool, (S, H, W), or None
        True inside of a cell (white), False on membrane.
    names : list of str
        One a section: ``"train-volume.tif[3]"`` for a page of a stack (from 0), or the file's name.

    Raises
    ------
    ValueError
        Images, labels and names differ in number or shape.
    """

    images: np.ndarray
    labels: np.ndarray | None
    names: list[str]

    def __post_init__(self):
        if self.images.ndim != 3 or len(self.images) != len(self.names):
            raise ValueError(
                f"images must be (S, H, W) with one name a section: "
                f"found shape {self.images.shape} and {len(self.names)} names."
            )
        if self.labels is not None and self.labels.shape != self.images.shape:
            raise ValueError(f"labels {self.labels.shape} must have the shape of images {self.images.shape}.")

    def __len__(self):
        return len(self.images)

    def _select(self, index):
        labels = None if self.labels is None else self.labels[index]
        return Sections(self.images[index], labels, [self.names[i] for i in index])

    def split(self, val_sections):
        """Split into training and validation sections, the latter contiguous.

        Neighbouring sections look alike, so that a random choice would leak training into validation.

        Parameters
        ----------
        val_sections : int or str
            k > 0 holds out the last k sections; ``"a:b"`` holds out sections a, a+1, ..., b-1 (from 0).

        Returns
        -------
        train, val : Sections

        Raises
        ------
        ValueError
            Something else is given, or nothing is left on one side.
        """
        n = len(self)
        given = re.fullmatch(r"(?:(\d+):)?(\d+)", str(val_sections))
        if given is None:
            raise ValueError(
                f"validation sections {val_sections!r}: expected a number k > 0 (the last k sections) "
                'or "a:b" (sections a to b-1, counted from 0).'
            )
        start, stop = (n - int(given[2]), n) if given[1] is None else (int(given[1]), int(given[2]))
        if not 0 <= start < stop <= n or stop - start == n:
            raise ValueError(
                f"validation sections {val_sections!r} of {n}: both training and validation need at least "
                f"one section. Give a number from 1 to {n - 1}, or a:b with 0 <= a < b <= {n}, but not all."
            )
        index = np.arange(n)
        held_out = (index >= start) & (index < stop)
        return self._select(index[~held_out]), self._select(index[held_out])

    def resized(self, size):
        """Resample every section: images smoothed, labels nearest neighbour.

        Both are read at the same source pixels, see `tinyseg.data.resample`.

        Parameters
        ----------
        size : int or (int, int)
            New height and width in pixels; one number means a square.

        Returns
        -------
        Sections
            Integer images are rounded to their own type. `self` where the size is that already.

        Raises
        ------
        ValueError
            The size is not positive.
        """
        height, width = (size, size) if np.isscalar(size) else size
        if not (height > 0 and width > 0):
            raise ValueError(f"size must be a positive number of pixels, or (height, width): found {size!r}.")
        if (height, width) == self.images.shape[1:]:
            return self
        labels = None if self.labels is None else np.stack([nearest(x, (height, width)) for x in self.labels])
        return Sections(np.stack([resample(x, (height, width)) for x in self.images]), labels, list(self.names))
