"""Images to predict: any images, and brain scans with the modalities with which a network was trained.

    for scan in find_scans("Task01_BrainTumour", modalities=["FLAIR", "T1gd"]):
        with open_scan(scan) as image:                                       # as from open_image: 2 channels
            ...

A modality has several names: T1 with gadolinium is T1gd in the Decathlon, t1ce in BraTS until 2021, t1c from 2023 on.
"""

import contextlib
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyseg.data.brats import MODALITIES, NAMINGS, case_names, describe
from tinyseg.data.files import find_files, find_volumes, folders_in
from tinyseg.data.image_file import ImageFile
from tinyseg.data.images import NIFTI_SUFFIXES, find_images, open_image

# The number of a modality in MODALITIES, under each of its names.
_NUMBERS = {
    name.strip("_-").casefold(): m
    for names in (MODALITIES, *(endings for endings, _, _ in NAMINGS))
    for m, name in enumerate(names)
}


@dataclass(frozen=True)
class Scan:
    """One image to predict.

    Attributes
    ----------
    name : str
        Name of the file that holds the image. If each modality has a file of its own: ``<case>.nii.gz``.
    files : tuple of Path
        One image, or one NIfTI volume for each modality. They need not exist.
    channels : tuple of int, optional
        Numbers of the channels that the network takes, in its order; if left out, it takes all channels.
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
        Modalities with which the network was trained. If left out, each file of a BraTS case is an image of its own,
        and the Decathlon's volumes keep all their channels.

    Returns
    -------
    list of Scan
        They include BraTS cases that lack a modality; `open_scan` raises an error for such a case.

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
        part = "imagesTs" if find_volumes(path / "imagesTs") else "imagesTr"
        return [Scan(file.name, (file,), channels) for file in find_files(path / part, NIFTI_SUFFIXES, "volumes")]
    scans = _brats_scans(path, modalities) if modalities and path.is_dir() else []
    return scans or [Scan(file.name, (file,)) for file in find_images(path)]


def channels_of(modalities, available, path):
    """Return the index of each modality among the `available` ones, under any of its names; `path` is for errors."""
    known = [_NUMBERS.get(name.casefold(), name.casefold()) for name in available]
    wanted = [_NUMBERS.get(name.casefold(), name.casefold()) for name in modalities]
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
    """Several NIfTI volumes on one grid as one image, with the header of the first; or some channels of one volume."""

    kind = "nifti"

    def __init__(self, scan):
        missing = [file for file in scan.files if not file.exists()]
        if missing:
            raise FileNotFoundError(
                f"{', '.join(map(str, missing))} is not there: the network takes {len(scan.files)} modalities of each "
                "case, a file each."
            )
        with contextlib.ExitStack() as opened:
            self._volumes = [opened.enter_context(open_image(file)) for file in scan.files]
            first = self._volumes[0]
            self.path, self.shape, self.ndim, self.gzipped = first.path, first.shape, first.ndim, first.gzipped
            self.header, self.affine, self._count = first.header, first.affine, len(first)
            voxels = (*first.shape, len(first))
            for other in self._volumes[1:]:
                other_voxels = (*other.shape, len(other))
                if not same_grid(voxels, first.affine, other_voxels, other.affine):
                    raise ValueError(
                        f"{other.path} does not lie on the grid of {first.path}: {other_voxels} voxels and {voxels}, "
                        "or another affine. Bring all modalities onto one grid first."
                    )
            count = sum(volume.channels for volume in self._volumes)
            self._order = list(range(count) if scan.channels is None else scan.channels)
            self.channels = len(self._order)
            if max(self._order) >= count:
                raise ValueError(f"{self.path} has {count} channels, fewer than its dataset.json says.")
            self._closing = opened.pop_all()

    def section(self, k):
        return np.concatenate([volume.section(k) for volume in self._volumes])[self._order]
