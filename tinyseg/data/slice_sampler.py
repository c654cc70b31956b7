"""A data set of prepared slices for `tinyseg.data.Loader`: which slices are drawn, and how often."""

from collections.abc import Callable, Sequence

import numpy as np

from tinyseg.data.augment import Augment
from tinyseg.data.loader import Sample
from tinyseg.data.slices import SliceCache


class SliceSampler:
    """A data set for `tinyseg.data.Loader`: slices drawn at random, the same number in each epoch.

    Parameters
    ----------
    cache : SliceCache
    names : sequence of str
        The cases to draw from.
    length : int
        Samples in an epoch, drawn with replacement.
    empty : float, optional
        Share of the samples without tumour, in [0, 1]. Left out, each slice is as likely as any other, or, if
        `balanced`, all samples have tumour.
    balanced : bool
        For samples with tumour: draw a class first, each with the same probability, then a slice that has it.
    whole_tumour : bool
        Labels are a mask of any tumour instead of classes.
    augment : callable, optional
        ``augment(image (C, H, W), label (H, W), rng) -> (image, label)``, such as `Augment`. It is given slices as they
        are looked at: left and right of the patient are left and right of the image. If there is a crop, it is given as
        ``crop=(height, width)``, and the results have its size.
    seed : int
    crop : (int, int), optional
        A sample is a window of this size, along X and Y, at a random place of a slice; at most the whole slice.

    Raises
    ------
    ValueError
        The options ask for slices with or without tumour, and there are none.
    """

    def __init__(
        self,
        cache: SliceCache,
        names: Sequence[str],
        length: int,
        empty: float | None = None,
        balanced: bool = False,
        whole_tumour: bool = False,
        augment: Callable[[np.ndarray, np.ndarray, np.random.Generator], Sample] | None = None,
        seed: int = 0,
        crop: tuple[int, int] | None = None,
    ) -> None:
        self.length, self.balanced, self.whole_tumour = length, balanced, whole_tumour
        self.augment = Augment.none() if augment is None and crop else augment
        self.seed, self.crop = seed, crop
        arrays = [(cache.images(name), cache.labels(name)) for name in names]
        self.slices = [(images, labels, z) for images, labels in arrays for z in range(len(labels))]
        counts = np.concatenate([cache.entries[name].counts for name in names])  # (slices, classes)
        present = counts[:, 1:] > 0
        self.with_class = [np.flatnonzero(column) for column in present.T if column.any()]  # for each class that occurs
        self.tumour, self.without = np.flatnonzero(present.any(axis=1)), np.flatnonzero(~present.any(axis=1))
        if empty is not None and not 0 <= empty <= 1:
            raise ValueError(f"empty is a share of the samples, in [0, 1], but is {empty}.")
        self.share = 0 if empty is None and balanced else empty
        needs_tumour, needs_empty = self.share not in (None, 1), self.share not in (None, 0)
        if (needs_tumour and not len(self.tumour)) or (needs_empty and not len(self.without)):
            raise ValueError(
                f"there are {len(self.tumour)} slices with tumour and {len(self.without)} without, and the options ask "
                "for slices of a kind that is missing: change the share of empty slices, or give more cases."
            )

    def __len__(self) -> int:
        return self.length

    def sample(self, index: int, epoch: int) -> Sample:
        """Draw a slice: x float32 (M, h, w), and y int64 (h, w), or float32 (1, h, w) of 0 and 1 if `whole_tumour`."""
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, epoch, index), spawn_key=(2,)))
        images, labels, z = self.slices[self._draw(rng)]
        x, label = images[z].astype(np.float32), np.asarray(labels[z])
        if self.augment is not None:
            # As it is looked at, X runs along the columns.
            x, label = self.augment(x.swapaxes(1, 2), label.T, rng, **({"crop": self.crop[::-1]} if self.crop else {}))
            x, label = np.ascontiguousarray(x.swapaxes(1, 2)), np.ascontiguousarray(label.T)
        y = (label > 0)[None].astype(np.float32) if self.whole_tumour else label.astype(np.int64)
        return x, y

    def _draw(self, rng):
        if self.share is None:
            return rng.integers(len(self.slices))
        if rng.random() < self.share:
            return rng.choice(self.without)
        if self.balanced:
            return rng.choice(self.with_class[rng.integers(len(self.with_class))])
        return rng.choice(self.tumour)
