"""Images to predict: any images, and brain scans with the modalities with which a network was trained.

    for scan in find_scans("Task01_BrainTumour", modalities=["FLAIR", "T1gd"]):
        with open_scan(scan) as image:                                       # as from open_image: 2 channels
            ...

A modality has several names: T1 with gadolinium is T1gd in the Decathlon, t1ce in BraTS until 2021, t1c from 2023 on.
"""

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyseg.data.brats import listed_names
from tinyseg.data.brats_folders import MODALITIES, NAMINGS, OTHER_ENDINGS, brats_files, case_folders
from tinyseg.data.dataset_json import describe
from tinyseg.data.files import find_files, find_volumes
from tinyseg.data.image_file import ImageFile
from tinyseg.data.images import NIFTI_SUFFIXES, find_images, open_image, write_like
from tinyseg.data.memory import refuse_too_large
from tinyseg.data.nifti import common_grid, turn
from tinyseg.data.nnunet import cases_to_predict, numbered_by_channel

# The number of a modality in MODALITIES, under each of its names.
_NUMBERS = {
    name.strip("_-").casefold(): m
    for names in (MODALITIES, *(endings for endings, _, _ in NAMINGS))
    for m, name in enumerate(names)
}
_NUMBERS |= {name.strip("_"): _NUMBERS[meant.strip("_")] for name, meant in OTHER_ENDINGS.items()}


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
        A folder with ``dataset.json`` (its ``imagesTs`` if that has files, else ``imagesTr``, or the training
        cases that it lists if each modality has a file), or its ``imagesTs`` or ``imagesTr``; a BraTS case, which is a
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
        return _described_scans(path, "imagesTs" if find_volumes(path / "imagesTs") else "imagesTr", modalities)
    if path.name in ("imagesTs", "imagesTr") and path.is_dir() and (path.parent / "dataset.json").is_file():
        return _described_scans(path.parent, path.name, modalities)
    scans = _brats_scans(path, modalities) if modalities and path.is_dir() else []
    return scans or [Scan(file.name, (file,)) for file in find_images(path)]


def _described_scans(folder, part, modalities):
    """List what is to be predicted of ``imagesTs`` or ``imagesTr`` of a folder with ``dataset.json``."""
    available, _, listed = describe(folder)
    channels = None if modalities is None else channels_of(modalities, available, folder)
    by_channel = bool(listed) and all(numbered_by_channel(*files) for files in listed)
    if not by_channel and (part == "imagesTs" or all(len(images) == 1 for images, _ in listed)):
        return [Scan(file.name, (file,), channels) for file in find_files(folder / part, NIFTI_SUFFIXES, "volumes")]
    # Each modality has a file.
    cases = dict(zip(listed_names(listed), (images for images, _ in listed), strict=True))
    if part == "imagesTs":
        cases = cases_to_predict(folder / part, len(available))
    order = range(len(available)) if channels is None else channels
    return [Scan(f"{name}.nii.gz", tuple(images[m] for m in order)) for name, images in cases.items()]


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
    for inner in dict.fromkeys([folder, *case_folders(folder)]):
        volumes = find_volumes(inner)
        for endings, _, _ in NAMINGS:
            for case, files in brats_files(volumes, endings).items():
                wanted = [endings[m] for m in channels_of(modalities, MODALITIES, inner)]
                paths = tuple(files.get(ending, inner / f"{case}{ending}.nii.gz") for ending in wanted)
                scans.append(Scan(f"{case}.nii.gz", paths))
    return scans


def open_scan(scan, for_network=False):
    """Open a scan to read it section by section, as `tinyseg.data.images.open_image` does, with the scan's channels.

    Parameters
    ----------
    scan : Scan
    for_network : bool
        Volumes are read in the order of axes of `tinyseg.data.nifti`, in which networks are trained, whichever it is in
        the file: the sections are axial slices. One that is stored in another order is loaded as a whole. Write what
        belongs to the sections with `write_scan`.

    Raises
    ------
    FileNotFoundError
        A modality is missing.
    ValueError
        The modalities do not lie on one grid.
    """
    missing = [file for file in scan.files if not file.exists()]
    if missing and len(scan.files) > 1:
        raise FileNotFoundError(
            f"{', '.join(map(str, missing))} is not there: the network takes {len(scan.files)} modalities of each "
            "case, a file each."
        )
    with contextlib.ExitStack() as opened:
        images = [opened.enter_context(open_image(file)) for file in scan.files]
        if any(image.kind != "nifti" for image in images) or not (len(images) > 1 or scan.channels or for_network):
            opened.pop_all()
            return images[0]
        grid = common_grid(images)
        wanted = grid.orientation if for_network else images[0].grid.orientation
        images = [_turned(image, wanted if grid.orientation else None) for image in images]
        image = images[0] if len(images) == 1 and scan.channels is None else _Modalities(scan, images)
        opened.pop_all()
        return image


@contextlib.contextmanager
def write_scan(image, out_path, **options):
    """Write sections of an image of `open_scan` as `tinyseg.data.images.write_like` does, in the file's own order."""
    stored = getattr(image, "stored", image)
    with write_like(stored, out_path, **options) as out:
        if stored is image:
            yield out
            return
        collected = _Collected()
        yield collected
        if len(collected.sections) != len(image):
            raise ValueError(f"{len(collected.sections)} sections were written to {out_path}: expected {len(image)}.")
        volume = turn(np.stack(collected.sections, axis=2), image.orientation, stored.grid.orientation)
        for k in range(len(stored)):
            out.write(np.moveaxis(volume[:, :, k], (0, 1), (-2, -1)))


class _Collected:
    """Takes the sections (H, W) or (channels, H, W) of a volume: `sections` are (H, W, ...)."""

    def __init__(self):
        self.sections = []

    def write(self, section):
        self.sections.append(np.moveaxis(section, (-2, -1), (0, 1)))


def _turned(image, orientation):
    """Return a NIfTI image in another order of axes; None is its own."""
    return image if orientation in (None, image.grid.orientation) else _Turned(image, orientation)


class _Wrapped(ImageFile):
    """Shows the sections of open NIfTI images in another way, with the header of the first."""

    kind = "nifti"

    def __init__(self, image):
        self.path, self.shape, self.ndim, self.gzipped = image.path, image.shape, image.ndim, image.gzipped
        self.header, self.affine, self.grid, self._count = image.header, image.affine, image.grid, len(image)
        self.channels = image.channels


class _Turned(_Wrapped):
    """A NIfTI volume in another order of axes, loaded as a whole. `stored` is the image as it is in the file."""

    def __init__(self, image, orientation):
        super().__init__(image)
        self.stored, self.orientation, self._whole = image, orientation, None
        *self.shape, self._count = image.grid.turned(orientation).shape

    def section(self, k):
        if self._whole is None:
            stored = self.stored
            size = len(stored) * stored.channels * math.prod(stored.shape) * stored.dtype.itemsize
            refuse_too_large(size, f"{self.path}, turned to {self.orientation},")
            whole = np.moveaxis(np.stack(list(self.stored)), (0, 1), (2, 3))  # (X, Y, Z, channels)
            self._whole = turn(whole, self.stored.grid.orientation, self.orientation)
        return np.ascontiguousarray(np.moveaxis(self._whole[:, :, k], 2, 0))

    def close(self):
        self.stored.close()


class _Modalities(_Wrapped):
    """Several NIfTI volumes on one grid as one image, with the header of the first; or some channels of one volume."""

    def __init__(self, scan, volumes):
        super().__init__(volumes[0])
        self._volumes = volumes
        if isinstance(volumes[0], _Turned):
            self.stored, self.orientation = volumes[0].stored, volumes[0].orientation
        count = sum(volume.channels for volume in volumes)
        self._order = list(range(count) if scan.channels is None else scan.channels)
        self.channels = len(self._order)
        if max(self._order) >= count:
            raise ValueError(f"{self.path} has {count} channels, fewer than its dataset.json says.")

    def section(self, k):
        return np.concatenate([volume.section(k) for volume in self._volumes])[self._order]

    def close(self):
        for volume in self._volumes:
            volume.close()
