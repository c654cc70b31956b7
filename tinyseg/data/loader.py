"""A data set of arrays, and a loader that prepares its batches in background threads.

What a batch holds depends on (seed, epoch, position) only, never on how many threads made it or where the
epoch was entered: a run that stopped inside an epoch goes on with the very batches it would have had.
Threads are enough: NumPy and SciPy release Python's lock in the loops that take the time.
"""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np


class SegmentationDataset:
    """Images and labels in memory, augmented as they are asked for.

    Parameters
    ----------
    images : ndarray of float32, (S, H, W) or (S, C, H, W)
        Standardized already.
    labels : ndarray, (S, H, W)
        bool for a binary mask, integers for a map of classes.
    augment : callable, optional
        ``augment(image (C, H, W), label (H, W), rng) -> (image, label)``, such as `Augment`.
    seed : int
        Of the augmentation, at least 0.

    Raises
    ------
    ValueError
        Types or shapes are not these, or there are no sections.
    """

    def __init__(self, images, labels, augment=None, seed=0):
        if images.dtype != np.float32 or images.ndim not in (3, 4) or len(images) == 0:
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

    def __len__(self):
        return len(self.images)

    def sample(self, index, epoch):
        """One section as the network takes it, in this epoch's augmentation.

        Parameters
        ----------
        index : int
            From 0 to ``len(self) - 1``.
        epoch : int
            At least 0. The same index and epoch give the same sample, in any order and thread.

        Returns
        -------
        x : ndarray of float32, (C, H, W)
        y : ndarray
            float32 (1, H, W) of 0 and 1 if the labels are bool, int64 (H, W) if they are classes.
        """
        x, label = self.images[index], self.labels[index]
        if self.augment is not None:
            rng = np.random.default_rng(np.random.SeedSequence((self.seed, epoch, index)))
            x, label = self.augment(x, label, rng)
        if label.dtype == bool:
            return x, label[None].astype(np.float32)
        return x, label.astype(np.int64)


class Loader:
    """Batches of a data set, in an order that depends on the seed and the epoch only.

    Parameters
    ----------
    dataset
        Has ``len()`` and ``sample(index, epoch) -> (x, y)``, such as `SegmentationDataset`. Samples are
        asked for from several threads at once.
    batch_size : int
        The last batch of an epoch may be smaller.
    shuffle : bool
        A new random order each epoch; otherwise 0, 1, 2, ...
    seed : int
        Of the order, at least 0.
    workers : int
        Threads that prepare batches; 0 prepares each one in the calling thread when it is asked for.
    prefetch : int
        Batches prepared ahead at most, at least 1.
    drop_last : bool
        Leave the last batch out where it is smaller.

    Raises
    ------
    ValueError
        A number is out of range, or there would be no batch at all.
    """

    def __init__(self, dataset, batch_size, shuffle=True, seed=0, workers=2, prefetch=4, drop_last=False):
        self.dataset, self.shuffle, self.drop_last = dataset, shuffle, drop_last
        self.batch_size = _at_least("batch_size", batch_size, 1)
        self.seed = _at_least("seed", seed, 0)
        self.workers = _at_least("workers", workers, 0)
        self.prefetch = _at_least("prefetch", prefetch, 1)
        if len(self) == 0:
            raise ValueError(
                f"{len(dataset)} samples make no batch of {batch_size} (drop_last={drop_last}): "
                "give more samples or a smaller batch_size."
            )

    def __len__(self):
        """Batches in a whole epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def epoch(self, e, start=0):
        """Go through epoch `e`.

        Parameters
        ----------
        e : int
            Number of the epoch, at least 0.
        start : int
            Batch to begin with, from 0 to ``len(self)`` (which leaves none).

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
            What the data set raised, with a note that names the sample.
        """
        if not 0 <= start <= len(self):
            raise ValueError(f"start must be from 0 to {len(self)}, the batches of an epoch: found {start}.")
        order = np.arange(len(self.dataset))
        if self.shuffle:
            # The spawn key keeps this stream apart from the samples' own: entropy is padded with zeros,
            # so that (seed, epoch) alone would be the stream of sample (seed, epoch, 0).
            rng = np.random.default_rng(np.random.SeedSequence((self.seed, e), spawn_key=(1,)))
            rng.shuffle(order)
        batches = [order[b * self.batch_size : (b + 1) * self.batch_size] for b in range(start, len(self))]
        return self._prepared_ahead(batches, e) if self.workers else (self._batch(b, e) for b in batches)

    def _batch(self, indices, epoch):
        samples = []
        for index in indices.tolist():
            try:
                samples.append(self.dataset.sample(index, epoch))
            except Exception as error:
                error.add_note(f"while preparing sample {index} of epoch {epoch}")
                raise
        xs, ys = zip(*samples, strict=True)
        return np.stack(xs), np.stack(ys)

    def _prepared_ahead(self, batches, epoch):
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="tinyseg-loader")
        try:
            waiting = deque(pool.submit(self._batch, b, epoch) for b in batches[: self.prefetch])
            for following in [*batches[self.prefetch :], *[None] * len(waiting)]:
                batch = waiting.popleft().result()  # raises what the worker raised
                if following is not None:
                    waiting.append(pool.submit(self._batch, following, epoch))
                yield batch
        finally:  # also when the caller leaves the loop early, which closes this generator
            pool.shutdown(wait=True, cancel_futures=True)


def _at_least(name, value, least):
    if value < least:
        raise ValueError(f"{name} must be at least {least}, found {value}.")
    return int(value)
