"""Prepared slices of many volumes, kept on disk: made once and read through memory maps.

The folder holds three files for each case: its images (float16), its labels (uint8) and a description with the options
and the names, sizes, times and hashes of the sources. The description is written last. A case is prepared again if one
of its files is missing or damaged, or if the options or the sources have changed. In this way an interrupted build
continues.

    slices = SliceCache.build(find_cases("Task01_BrainTumour"), "cache", Preparation())
    x, y = slices.images("BRATS_001")[77], slices.labels("BRATS_001")[77]       # (M, h, w) and (h, w)
"""

import hashlib
import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from tqdm import tqdm

from tinyseg.data.brats import read_case
from tinyseg.data.files import write_atomically
from tinyseg.data.label_volumes import voxel_volume


class Entry(NamedTuple):
    """What the cache knows of a case without opening its arrays.

    Attributes
    ----------
    counts : int ndarray, (Z, classes)
        Voxels of each class in each prepared slice.
    outside : int ndarray, (classes,)
        Voxels of each class that the preparation cut off.
    voxel : float
        Volume of a voxel of the source, mm³.
    sha1 : str
        Hash of the first image file.
    """

    counts: np.ndarray
    outside: np.ndarray
    voxel: float
    sha1: str


class SliceCache:
    """Slices of several cases; `build` makes them.

    Attributes
    ----------
    folder : Path
    modalities, classes : tuple of str
    entries : dict of str to Entry
        In the order of the cases.
    skipped : dict of str to str
        Cases that cannot be used, with the reason.
    """

    def __init__(self, folder, modalities, classes, entries, skipped):
        self.folder, self.modalities, self.classes = Path(folder), modalities, classes
        self.entries, self.skipped = entries, skipped

    @classmethod
    def build(cls, cases, folder, preparation, workers=2, skip_bad=False, progress=True):
        """Prepare the cases that are not in the folder yet.

        Parameters
        ----------
        cases : Cases
        folder : str or Path
            Made if it does not exist. Cases in it that were prepared with other options are replaced.
        preparation : Preparation
        workers : int
            Cases prepared at the same time; each takes about 0.5 GiB for 240 × 240 × 155 voxels of 4 modalities.
        skip_bad : bool
            Leave out cases that cannot be read and list them in `skipped`, instead of raising an error.
        progress : bool
            Show a progress bar.

        Returns
        -------
        SliceCache

        Raises
        ------
        ValueError
            A case cannot be read, or two cases hold the same scan; the message names the files.
        OSError
            The disk has too little room.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"cannot keep slices in {folder} ({error.strerror}): choose another cache folder.") from None
        entries, skipped = {case.name: _read_entry(folder, case, preparation) for case in cases}, {}
        missing = [case for case in cases if entries[case.name] is None]
        _check_room(folder, missing, preparation)
        pool = ThreadPoolExecutor(workers, thread_name_prefix="tinyseg-cases")
        bar = tqdm(total=len(missing), desc="preparing", unit="case", disable=not progress or not missing)
        try:
            work = {pool.submit(_make, folder, case, preparation, len(cases.classes)): case for case in missing}
            for future in as_completed(work):
                case = work[future]
                try:
                    entries[case.name] = future.result()
                except (ValueError, FileNotFoundError) as error:
                    if not skip_bad:
                        raise
                    skipped[case.name] = str(error)
                    entries.pop(case.name, None)
                bar.update()
        finally:  # after an error, the cases that are waiting are not prepared
            pool.shutdown(cancel_futures=True)
            bar.close()
        for name, sentence in _find_duplicates(cases, entries).items():
            if not skip_bad:
                raise ValueError(sentence)
            skipped[name] = sentence
            del entries[name]
        if not entries:
            raise ValueError(f"none of {len(cases)} cases can be used: {'; '.join(list(skipped.values())[:3])}")
        return cls(folder, cases.modalities, cases.classes, entries, skipped)

    def images(self, name):
        """Return the slices of a case, float16 (Z, M, h, w), mapped from the file."""
        return np.load(self.folder / f"{name}.images.npy", mmap_mode="r")

    def labels(self, name):
        """Return the labels of a case, uint8 (Z, h, w), mapped from the file."""
        return np.load(self.folder / f"{name}.labels.npy", mmap_mode="r")


def _make(folder, case, preparation, num_classes):
    """Prepare one case, write its three files, and return its entry."""
    volume, label = read_case(case)
    planes = np.moveaxis(volume, 3, 0)  # (Z, M, X, Y)
    statistics = preparation.statistics(planes)
    images = np.stack([preparation.prepare(x, statistics).astype(np.float16) for x in planes])
    labels = np.ascontiguousarray(preparation.fit(np.moveaxis(label, 2, 0)))
    counts = np.stack([np.bincount(plane.ravel(), minlength=num_classes) for plane in labels])
    outside = np.zeros(num_classes, int)
    if preparation.how == "crop":
        outside = np.bincount(label.ravel(), minlength=num_classes) - counts.sum(axis=0)
    sources = [_fingerprint(path) for path in (*case.images, case.label)]
    about = _options(case, preparation) | {
        "sources": sources, "counts": counts.tolist(), "outside": outside.tolist(),
        "voxel": voxel_volume(case.images[0]),
    }  # fmt: skip
    for part, array in (("images", images), ("labels", labels)):
        buffer = io.BytesIO()
        np.save(buffer, array)
        write_atomically(folder / f"{case.name}.{part}.npy", buffer.getbuffer())
    write_atomically(folder / f"{case.name}.json", json.dumps(about))
    return _entry(about)


def _entry(about):
    """Return the entry of a description."""
    counts, outside = np.array(about["counts"]), np.array(about["outside"])
    return Entry(counts, outside, about["voxel"], about["sources"][0]["sha1"])


def _read_entry(folder, case, preparation):
    """Return the entry of a case whose files fit. Otherwise delete its description and return None."""
    path = folder / f"{case.name}.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        fits = all(about[key] == value for key, value in _options(case, preparation).items())
        sources = zip((*case.images, case.label), about["sources"], strict=True)
        fits = fits and all(_unchanged(file, before) for file, before in sources)
        if fits and all((folder / f"{case.name}.{part}.npy").is_file() for part in ("images", "labels")):
            return _entry(about)
    except (OSError, ValueError, KeyError):
        pass
    path.unlink(missing_ok=True)  # before its arrays are replaced
    return None


def _options(case, preparation):
    recode = [list(pair) for pair in case.recode]  # lists, as JSON gives them back
    return {"format": 1, "preparation": preparation.as_dict(), "recode": recode}


def _fingerprint(path):
    status = path.stat()
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha1").hexdigest()
    return {"name": path.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha1": digest}


def _unchanged(path, before):
    """Return whether a source has the same size and time; if only the time differs, whether it has the same hash."""
    status = path.stat()
    if path.name != before["name"] or status.st_size != before["size"]:
        return False
    return status.st_mtime_ns == before["mtime_ns"] or _fingerprint(path)["sha1"] == before["sha1"]


def _find_duplicates(cases, entries):
    """Return a sentence for each case whose first image file has the hash of that of an earlier case, by name."""
    first, found = {}, {}
    for case in cases:
        if case.name in entries:
            other = first.setdefault(entries[case.name].sha1, case)
            if other is not case:
                found[case.name] = f"{case.images[0]} and {other.images[0]} are the same scan: leave one of them out."
    return found


def _check_room(folder, cases, preparation):
    """Raise an error before the work begins if the slices will not fit on the disk."""
    needed = 0
    for case in cases:
        try:
            shape = nib.load(case.images[0]).shape
        except Exception:  # noqa: BLE001, S112 (_make says what is wrong with the file)
            continue
        modalities = max(len(case.images), shape[3] if len(shape) > 3 else 1)
        h, w = preparation.target(shape[:2])
        needed += shape[2] * h * w * (2 * modalities + 1)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"the slices of {len(cases)} cases take {needed / 2**30:.1f} GiB, and {folder} has {free / 2**30:.1f} GiB "
            "free: choose another cache folder, or a smaller size."
        )


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
        ``augment(image (C, H, W), label (H, W), rng) -> (image, label)``, such as `Augment`.
    seed : int

    Raises
    ------
    ValueError
        The options ask for slices with or without tumour, and there are none.
    """

    def __init__(self, cache, names, length, empty=None, balanced=False, whole_tumour=False, augment=None, seed=0):
        self.length, self.balanced, self.whole_tumour = length, balanced, whole_tumour
        self.augment, self.seed = augment, seed
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

    def __len__(self):
        return self.length

    def sample(self, index, epoch):
        """Draw a slice: x float32 (M, h, w), and y int64 (h, w), or float32 (1, h, w) of 0 and 1 if `whole_tumour`."""
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, epoch, index), spawn_key=(2,)))
        images, labels, z = self.slices[self._draw(rng)]
        x, label = images[z].astype(np.float32), np.asarray(labels[z])
        if self.augment is not None:
            x, label = self.augment(x, label, rng)
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
