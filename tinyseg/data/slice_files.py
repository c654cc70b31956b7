"""The three files of a prepared case: images (float16), labels (uint8), and a description, which is written last.

So an interrupted preparation is made again. The description holds hashes of the two arrays, and one of itself: slices
that were damaged afterwards are made again, too. The names begin with a digest of all that the slices were made from
(`stem_of`).
"""

import io
import json
from typing import NamedTuple

import msgspec
import numpy as np

from tinyseg.data.brats import grid_of_case, read_case
from tinyseg.data.fingerprint import fingerprint
from tinyseg.data.json_files import read_sealed, write_sealed
from tinyseg.data.locks import locked
from tinyseg.data.sources import Sources
from tinyseg.data.writing import write_atomically

FORMAT = "2"  # another number if the slices of a case change
PARTS = ("images", "labels")


class Entry(NamedTuple):
    """What the cache knows of a case without opening its arrays.

    Attributes
    ----------
    counts : int ndarray, (Z, K)
        Voxels of each of K classes in each prepared slice.
    outside : int ndarray, (K,)
        Voxels of each class that the preparation cut off.
    voxel : float
        Volume of a voxel of the source, mm³.
    stem : str
        Beginning of the names of its files.
    sha1 : tuple of str
        Hashes of its sources: the images, then the labels.
    """

    counts: np.ndarray
    outside: np.ndarray
    voxel: float
    stem: str
    sha1: tuple


def stem_of(case, sha1, preparation, num_classes):
    """Return the beginning of the names of a case's files, which depends on all that its slices are made from."""
    options = {"format": FORMAT, "preparation": preparation.as_dict(), "recode": case.recode, "classes": num_classes}
    return f"{case.name[:40]}-{fingerprint(json.dumps(options), *sha1)[:20]}"


def make_once(folder, case, stem, sha1, preparation, num_classes, sources=None):
    """Prepare one case and return its entry. If another command is preparing it at this moment, wait and take that.

    Hashes are taken from `sources`, and noted there; in another process, which has none, from the record in the folder.
    """
    if sources is None:
        with Sources(folder) as sources:
            return make_once(folder, case, stem, sha1, preparation, num_classes, sources)
    with locked(folder, f"a command that prepares {case.name}", stem, wait=True):
        made = read_entry(folder, stem, sha1, num_classes, sources)
        return made or make(folder, case, stem, sha1, preparation, num_classes, sources)


def make(folder, case, stem, sha1, preparation, num_classes, sources):
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
    about = {
        "format": FORMAT, "preparation": preparation.as_dict(), "recode": case.recode,
        "voxel": grid_of_case(case).voxel,
        "sources": [{"name": path.name, "sha1": each} for path, each in zip(case.files, sha1, strict=True)],
        "counts": counts.tolist(), "outside": outside.tolist(),
    }  # fmt: skip
    for part, array in (("images", images), ("labels", labels)):
        buffer = io.BytesIO()
        np.save(buffer, array)
        write_atomically(folder / f"{stem}.{part}.npy", buffer.getbuffer())
        about[part] = sources.sha1(folder / f"{stem}.{part}.npy")
    write_sealed(folder / f"{stem}.json", about)
    return Entry(counts, outside, about["voxel"], stem, sha1)


class _Description(msgspec.Struct):
    counts: list[list[int]]
    outside: list[int]
    voxel: float
    images: str
    labels: str


def read_entry(folder, stem, sha1, num_classes, sources):
    """Return the entry of slices that are there as they were written; otherwise None."""
    try:
        about = read_sealed(folder / f"{stem}.json", _Description, "a description of slices")
        counts, outside = np.array(about.counts), np.array(about.outside)
        same = all(sources.sha1(folder / f"{stem}.{part}.npy") == getattr(about, part) for part in PARTS)
        if same and counts.shape[1:] == outside.shape == (num_classes,):
            return Entry(counts, outside, about.voxel, stem, sha1)
    except (OSError, ValueError):
        pass
    return None
