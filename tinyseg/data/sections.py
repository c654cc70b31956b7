"""Sections and their masks in memory: splitting and resampling them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tinyseg.data.class_masks import Classes
from tinyseg.data.files import list_names
from tinyseg.data.fingerprint import fingerprint
from tinyseg.data.memory import refuse_beyond_memory
from tinyseg.data.resample import nearest, resample


@dataclass
class Sections:
    """Sections, their masks and their names.

    Attributes
    ----------
    images : ndarray, (S, H, W)
        Grey values as stored: bool, an integer type, or float32.
    labels : ndarray of bool or int16, (S, H, W), or None
        True inside a cell (white), False on membranes and all else (black); or, if there are `classes`, their numbers,
        and -1 where nothing is to be learned.
    names : list of str
        The name of each section: ``"train-volume.tif[3]"`` for page 3 of a stack (from 0), or the file's name.
    classes : Classes or None
        What the numbers in `labels` stand for.
    objects : ndarray of int, (S, H, W), or None
        The number of the object to which each pixel belongs, 0 for none, if the masks number their objects.
    """

    images: np.ndarray
    labels: np.ndarray | None
    names: list[str]
    classes: Classes | None = None
    objects: np.ndarray | None = field(default=None, repr=False)
    _fingerprints: list[str] | None = field(default=None, repr=False, compare=False)  # once they have been asked for

    def __post_init__(self) -> None:
        if self.images.ndim != 3 or len(self.images) != len(self.names):
            raise ValueError(
                "images must be (S, H, W), with a name for each section: "
                f"found shape {self.images.shape} and {len(self.names)} names."
            )
        for name in ("labels", "objects"):
            given = getattr(self, name)
            if given is not None and given.shape != self.images.shape:
                raise ValueError(f"{name} {given.shape} must have the shape of images {self.images.shape}.")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a section."""
        return self.images.shape[1:]

    def fingerprints(self) -> list[str]:
        """Return the fingerprint of each image, by which it is known again in other files.

        It is the same in another type (8 bits, 16 bits, floats in [0, 1]), inverted, mirrored or turned by 90 degrees.
        """
        if self._fingerprints is None:
            self._fingerprints = [_fingerprint(image) for image in self.images]
        return list(self._fingerprints)

    def take(self, index: Sequence[int] | np.ndarray) -> "Sections":
        """Return the sections with these numbers."""
        labels = None if self.labels is None else self.labels[index]
        known = None if self._fingerprints is None else [self._fingerprints[i] for i in index]
        objects = None if self.objects is None else self.objects[index]
        names = [self.names[i] for i in index]
        return Sections(self.images[index], labels, names, self.classes, objects, known)

    def split(self, val_sections: int | str) -> tuple["Sections", "Sections"]:
        """Split into training and validation sections. The validation sections are neighbours.

        Neighbouring sections look alike: if they were chosen at random, most of them would lie beside training sections
        and look like these.

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
            `val_sections` has another form, or leaves no section for training or for validation.
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
            possible = f"Give a number from 1 to {n - 1}, or a:b with 0 <= a < b <= {n}, but not all."
            raise ValueError(
                f"validation sections {val_sections!r} of {n}: both training and validation need at least one section. "
                f"{possible if n > 1 else 'Add some.'}"
            )
        validation = np.arange(start, stop)
        return self.take(np.delete(np.arange(n), validation)), self.take(validation)

    def resized(self, size: int | tuple[int, int]) -> "Sections":
        """Resample all sections, so that images and labels stay aligned: see `tinyseg.data.resample`.

        Parameters
        ----------
        size : int or (int, int)
            New height and width in pixels; one number means a square.

        Returns
        -------
        Sections
            Images keep their type. `self` if the sections have this size already.
        """
        sides = tuple(size) if isinstance(size, (tuple, list, np.ndarray)) else (size, size)
        if len(sides) != 2 or not all(isinstance(side, (int, np.integer)) and side > 0 for side in sides):
            raise ValueError(f"size must be a positive whole number of pixels, or (height, width): found {size!r}.")
        height, width = sides
        if (height, width) == self.images.shape[1:]:
            return self
        what = f"{len(self)} sections of {height} × {width} pixels would take"
        each = self.images.itemsize + 5 + (0 if self.objects is None else self.objects.itemsize)
        needed = len(self) * height * width * each  # with labels, and the images as float32
        refuse_beyond_memory(needed, what, "memory", "give a smaller size, or fewer sections")
        labels = None if self.labels is None else np.stack([nearest(x, (height, width)) for x in self.labels])
        objects = None if self.objects is None else np.stack([nearest(x, (height, width)) for x in self.objects])
        images = np.stack([resample(x, (height, width)) for x in self.images])
        return Sections(images, labels, list(self.names), self.classes, objects)


def describe_copies(train, val):
    """Say which validation sections are training sections too, perhaps mirrored, turned or inverted; "" if none is.

    Sections of one grey value are alike without being copies, and are not looked at.
    """
    known = dict(zip(train.fingerprints(), train.names, strict=True))
    each = zip(val.fingerprints(), val.names, val.images, strict=True)
    copies = [f"{name} of {known[key]}" for key, name, image in each if key in known and image.min() < image.max()]
    if not copies:
        return ""
    return (
        f"WARNING: {len(copies)} of {len(val)} validation sections are copies of training sections, as they are or "
        f"mirrored, turned or inverted ({list_names(copies)}): scores will be too good. Leave the copies out."
    )


def _fingerprint(image):
    """Return the least of the fingerprints of an image (H, W) in 256 levels, mirrored, turned and inverted."""
    low, high = np.float64(image.min()), np.float64(image.max())
    share = (image.astype(np.float64) - low) / max(high - low, 1e-300)  # 0 to 1
    # Without the 0.37 the levels of 8 bits would lie where rounding decides between two.
    levels = [np.floor(255 * x + 0.37).astype(np.uint8) for x in (share, 1 - share)]
    turned = [np.rot90(x, k) for x in levels for k in range(4)]
    return min(fingerprint(x) for y in turned for x in (y, y.T))
