"""Images to predict: any images, and brain scans with the modalities with which a network was trained.

    for scan in find_scans("Task01_BrainTumour", modalities=["FLAIR", "T1gd"]):
        with open_scan(scan) as image:                                       # as from open_image: 2 channels
            ...

A modality has several names: T1 with gadolinium is T1gd in the Decathlon, t1ce in BraTS, and t1c there from 2023 on.
"""

import contextlib
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyseg.data.brats import MODALITIES, NAMINGS, case_names, describe
from tinyseg.data.files import find_files, find_volumes, folders_in
from tinyseg.data.images import NIFTI_SUFFIXES, find_images, open_image
from tinyseg.data.stacks import ImageFile

# Which of MODALITIES a name stands for.
NAMES = {
    name.strip("_-").casefold(): m for names in (MODALITIES, *(n[0] for n in NAMINGS)) for m, name in enumerate(names)
}


@dataclass(frozen=True)
class Scan:
    """One image to predict.

    Attributes
    ----------
    name : str
        Name of the file that holds the image; or that would hold it, if each modality has a file of its own.
    files : tuple of Path
        One image, or one NIfTI volume for each modality. They need not exist.
    channels : tuple of int, optional
        The channels of the file that the network takes, in its order; all of them if left out.
    """

    name: str
    files: tuple
    channels: tuple | None = None


def find_scans(path, modalities=None):
    """List the images to predict at a path.

    Parameters
    ----------
    path : str or Path
        A folder with ``dataset.json`` (its ``imagesTs`` if that has files, else ``imagesTr``); a BraTS case, which is a
        folder with files such as ``<case>_flair.nii.gz``, or a folder of such folders; else what
        `tinyseg.data.images.find_images` takes.
    modalities : sequence of str, optional
        Modalities with which the network was trained. Without them the files of a BraTS case are images of their own,
        and the channels of the Decathlon's volumes stay as they are.

    Returns
    -------
    list of Scan
        A BraTS case that lacks a modality is among them; `open_scan` raises an error for it.

    Raises
    ------
    FileNotFoundError
        There is no image; the message lists what there is.
    ValueError
        The folder does not have the network's modalities.
    """
    path = Path(path)
    if (path / "dataset.json").is_file():
        channels = None if modalities is None else channels_of(modalities, describe(path)[0], path)
        part = "imagesTs" if any((path / "imagesTs").glob("[!.]*.nii*")) else "imagesTr"
        return [Scan(file.name, (file,), channels) for file in find_files(path / part, NIFTI_SUFFIXES, "volumes")]
    scans = _brats_scans(path, modalities) if modalities and path.is_dir() else []
    return scans or [Scan(file.name, (file,)) for file in find_images(path)]


def channels_of(modalities, available, path):
    """Return the index of each modality among the `available` ones, under any of its names; `path` is for errors."""
    known = [NAMES.get(name.casefold(), name.casefold()) for name in available]
    wanted = [NAMES.get(name.casefold(), name.casefold()) for name in modalities]
    missing = [name for name, one in zip(modalities, wanted, strict=True) if one not in known]
    if missing:
        raise ValueError(
            f"{path} has the modalities {', '.join(available)}, but the network was trained with "
            f"{', '.join(modalities)}: there is no {', '.join(missing)}. Use another checkpoint."
        )
    return tuple(known.index(one) for one in wanted)


def _brats_scans(folder, modalities):
    """List the cases of a BraTS folder and of the folders in it, each with the path of every file that it needs."""
    scans = []
    for inner in (folder, *folders_in(folder)):
        files = find_volumes(inner)
        for endings, _, _ in NAMINGS:
            for case in case_names(files, endings):
                names = [case + endings[m] for m in channels_of(modalities, MODALITIES, inner)]
                paths = tuple(files.get(name, inner / f"{name}.nii.gz") for name in names)
                scans.append(Scan(f"{case}.nii.gz", paths))
    return scans


def open_scan(scan):
    """Open a scan to read it section by section, as `tinyseg.data.images.open_image` does, with the scan's channels.

    If a modality is missing, it raises a FileNotFoundError; if the modalities do not lie on one grid, a ValueError.
    """
    if len(scan.files) == 1 and scan.channels is None:
        return open_image(scan.files[0])
    return _Modalities(scan)


def same_grid(shape, affine, other_shape, other_affine):
    """Return whether the voxels (X, Y, Z) of two volumes are in the same places, to a tenth of a voxel."""
    if tuple(shape[:3]) != tuple(other_shape[:3]):
        return False
    corners = np.array(list(itertools.product(*((0, n - 1) for n in shape[:3]), (1,))))  # (8, 4)
    apart = np.linalg.norm((corners @ (affine - other_affine).T)[:, :3], axis=1).max()
    return bool(apart < 0.1 * np.linalg.norm(affine[:3, :3], axis=0).min())


class _Modalities(ImageFile):
    """One image of several NIfTI volumes on one grid, with the first's header; or of some channels of one volume."""

    kind = "nifti"

    def __init__(self, scan):
        missing = [file for file in scan.files if not file.exists()]
        if missing:
            raise FileNotFoundError(
                f"{', '.join(map(str, missing))} is not there: the network takes {len(scan.files)} modalities of each "
                "case, a file each."
            )
        with contextlib.ExitStack() as opened:
            self.parts = [opened.enter_context(open_image(file)) for file in scan.files]
            self._combine(scan)
            self._closing = opened.pop_all()

    def _combine(self, scan):
        first = self.parts[0]
        self.path, self.shape, self.ndim, self.gzipped = first.path, first.shape, first.ndim, first.gzipped
        self.header, self.affine, self._count = first.header, first.affine, len(first)
        for part in self.parts[1:]:
            if not same_grid((*first.shape, len(first)), first.affine, (*part.shape, len(part)), part.affine):
                raise ValueError(
                    f"{part.path} does not lie on the grid of {first.path}: {(*part.shape, len(part))} voxels and "
                    f"{(*first.shape, len(first))}, or another affine. Bring all modalities onto one grid first."
                )
        count = sum(part.channels for part in self.parts)
        self._order = list(range(count) if scan.channels is None else scan.channels)
        self.channels = len(self._order)
        if max(self._order) >= count:
            raise ValueError(f"{self.path} has {count} channels, fewer than its dataset.json says.")

    def section(self, k):
        return np.concatenate([part.section(k) for part in self.parts])[self._order]
