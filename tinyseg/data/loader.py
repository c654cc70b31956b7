"""A data set of arrays, and a loader that prepares its batches in background threads.

A batch depends on the seed, the epoch and its place in the epoch only, not on the number of threads or on the batch
with which the epoch began: a run that stopped inside an epoch goes on with the same batches. Threads are enough,
because NumPy and SciPy release Python's lock in the loops that take most of the time.
"""

import contextvars
import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np

from tinyseg.data.augment import Augment

Sample: TypeAlias = tuple[np.ndarray, np.ndarray]  # images and labels


class SegmentationDataset:
    """Images and labels in memory; a sample is augmented each time it is drawn.

    Parameters
    ----------
    images : ndarray of float32, (S, H, W) or (S, C, H, W)
        Standardized images.
    labels : ndarray, (S, H, W)
        bool for a binary mask, integers for a map of classes.
    augment : callable, optional
        ``augment(image (C, H, W), label (H, W), rng) -> (image, label)``, such as `Augment`. If there is a crop, it is
        given as ``crop=(height, width)``, and the results have its size.
    seed : int
        Seed of the augmentation, at least 0.
    crop : int or (int, int), optional
        A sample is a window of this height and width at a random place of a section; one number means a square. Where a
        section is smaller, it is the section's whole side. An epoch takes as many windows of each section as cover it.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        augment: Callable[[np.ndarray, np.ndarray, np.random.Generator], Sample] | None = None,
        seed: int = 0,
        crop: int | tuple[int, int] | None = None,
    ) -> None:
        if images.dtype != np.float32 or images.ndim not in (3, 4) or images.size == 0:
            raise ValueError(
                "images must be float32 (S, H, W) or (S, C, H, W) with at least one section: found "
                f"{images.dtype} {images.shape}. tinyseg.data.standardize makes them from grey values."
            )
        if labels.dtype.kind not in "biu":
            raise ValueError(f"labels must be bool (a mask) or integers (classes): found {labels.dtype}.")
        if labels.shape != (len(images), *images.shape[-2:]):
            raise ValueError(f"labels {labels.shape} must be (S, H, W) of the images {images.shape}.")
        self.images = images[:, None] if images.ndim == 3 else images  # (S, C, H, W)
        self.labels, self.augment, self.seed = labels, augment, _at_least("seed", seed, 0)
        self.crop, self.windows = None, 1  # of each section
        if crop is not None:
            sides = crop if isinstance(crop, tuple) else (crop, crop)
            shape = labels.shape[1:]
            self.crop = tuple(min(_at_least("crop", m, 1), n) for m, n in zip(sides, shape, strict=True))
            self.windows = math.prod(math.ceil(n / m) for m, n in zip(self.crop, shape, strict=True))
            self.augment = augment or Augment.none()

    def __len__(self) -> int:
        return len(self.images) * self.windows

    def sample(self, index: int, epoch: int) -> Sample:
        """Return a section, or a window of one, and its label as the network takes them, augmented for this epoch.

        Parameters
        ----------
        index : int
            From 0 to ``len(self) - 1``; ``index % S`` is the section.
        epoch : int
            At least 0. A sample depends on seed, index and epoch only, not on order or thread.

        Returns
        -------
        x : ndarray of float32, (C, H, W)
        y : ndarray
            float32 (1, H, W) of 0 and 1 if the labels are bool, int64 (H, W) if they are classes.
        """
        x, label = self.images[index % len(self.images)], self.labels[index % len(self.images)]
        if self.augment is not None:
            rng = np.random.default_rng(np.random.SeedSequence((self.seed, epoch, index)))
            x, label = self.augment(x, label, rng, **({"crop": self.crop} if self.crop else {}))
        if label.dtype == bool:
            return x, label[None].astype(np.float32)
        return x, label.astype(np.int64)


class Loader:
    """Batches of a data set in an order that depends on the seed and the epoch only.

    Parameters
    ----------
    dataset
        Has ``len()`` and ``sample(index, epoch) -> (x, y)``, such as `SegmentationDataset`. Several threads call
        ``sample`` at the same time.
    batch_size : int
        Samples in a batch. The last batch of an epoch may be smaller.
    shuffle : bool
        Whether to draw a new order for each epoch; otherwise the order is 0, 1, 2, ...
    seed : int
        Seed of the order, at least 0.
    workers : int
        Threads that prepare batches; 0 prepares each batch in the calling thread when it is needed.
    prefetch : int
        Most batches prepared ahead, at least 1.
    drop_last : bool
        Whether to leave out the last batch if it is smaller.
    part : (int, int)
        k and K, a power of two: yield part k of K of each batch alone (`samples_of_part`), as one of several processes
        that train together does. It may be empty.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        workers: int = 2,
        prefetch: int = 4,
        drop_last: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.dataset, self.shuffle, self.drop_last = dataset, shuffle, drop_last
        self.batch_size = _at_least("batch_size", batch_size, 1)
        self.seed = _at_least("seed", seed, 0)
        self.workers = _at_least("workers", workers, 0)
        self.prefetch = _at_least("prefetch", prefetch, 1)
        self.part = part
        if len(self) == 0:
            raise ValueError(
                f"{len(dataset)} samples make no batch of {batch_size} (drop_last={drop_last}): "
                "give more samples or a smaller batch_size."
            )

    def __len__(self) -> int:
        """Return the number of batches in a whole epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def epoch(self, e: int, start: int = 0) -> Iterator[Sample]:
        """Yield the batches of epoch `e`.

        Parameters
        ----------
        e : int
            Number of the epoch, at least 0.
        start : int
            First batch, from 0 to ``len(self)`` (no batch).

        Yields
        ------
        x : ndarray of float32, (N, C, H, W)
        y : ndarray
            The stacked labels of the samples: (N, 1, H, W) float32 or (N, H, W) int64.

        Raises
        ------
        ValueError
            `start` is out of range.
        Exception
            The data set raised it; a note names the sample.
        """
        if not 0 <= start <= len(self):
            raise ValueError(f"start must be from 0 to {len(self)}, the batches of an epoch: found {start}.")
        order = np.arange(len(self.dataset))
        if self.shuffle:
            # The spawn key separates this stream from those of the samples: NumPy pads the seeds with zeros, and
            # without the key (seed, epoch) would give the stream of the sample (seed, epoch, 0).
            rng = np.random.default_rng(np.random.SeedSequence((self.seed, e), spawn_key=(1,)))
            rng.shuffle(order)
        batches = [order[b * self.batch_size : (b + 1) * self.batch_size] for b in range(start, len(self))]
        return self._prepared_ahead(batches, e) if self.workers else (self._batch(b, e) for b in batches)

    def _batch(self, indices, epoch):
        mine, samples = indices[samples_of_part(len(indices), *self.part)], []
        for index in (mine if len(mine) else indices[:1]).tolist():  # an empty part needs the shapes of a sample
            try:
                samples.append(self.dataset.sample(index, epoch))
            except Exception as error:
                error.add_note(f"while preparing sample {index} of epoch {epoch}")
                raise
        xs, ys = zip(*samples, strict=True)
        return np.stack(xs)[: len(mine)], np.stack(ys)[: len(mine)]

    def _prepared_ahead(self, batches, epoch):
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="tinyseg-loader")

        def submit(batch):  # the thread sees what the caller has set by `using` and np.errstate
            return pool.submit(contextvars.copy_context().run, self._batch, batch, epoch)

        try:
            waiting = deque(submit(b) for b in batches[: self.prefetch])
            remaining = deque(batches[self.prefetch :])
            while waiting:
                batch = waiting.popleft().result()  # raises what the worker raised
                if remaining:
                    waiting.append(submit(remaining.popleft()))
                yield batch
        finally:  # also when the caller leaves the loop early, which closes this generator
            pool.shutdown(wait=True, cancel_futures=True)


def samples_of_part(number: int, part: int, parts: int) -> slice:
    """Return which of a number of samples belong to one of `parts` parts, a power of two.

    They are halved, and the halves halved again; the first half of an odd number has one less. So the parts of a part
    are the same, whether one process has it or several.
    """
    first, end = 0, number
    while parts > 1:
        parts //= 2
        middle = first + (end - first) // 2
        if part < parts:
            end = middle
        else:
            first, part = middle, part - parts
    return slice(first, end)


def _at_least(name, value, least):
    if not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be at least {least}, found {value!r}: give a whole number.")
    return int(value)
