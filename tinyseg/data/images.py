"""Images as they come, a section at a time: TIFF stacks, pictures (PNG, JPEG, BMP) and NIfTI volumes.

    with open_image("cells.tif") as image, write_like(image, output_name(image)) as out:
        for section in image:                             # (1, H, W)
            out.write(255 * (section[0] > 100).astype(np.uint8))

Opening reads headers only, and reading forwards keeps a few sections in memory: a stack may be larger than memory.
"""

import functools
import gzip
import math
from pathlib import Path

import numpy as np

from tinyseg.data import isbi
from tinyseg.data.files import find_files, refuse_missing, with_ending
from tinyseg.data.image_file import ImageFile, read_to_the_end, returned_type
from tinyseg.data.image_writers import write_like
from tinyseg.data.memory import DEFLATE, refuse_impossible, refuse_too_large
from tinyseg.data.pictures import PictureImage
from tinyseg.data.stacks import READERS, reader_of
from tinyseg.data.stacks import SUFFIXES as PICTURE_SUFFIXES
from tinyseg.data.writing import FilePath

__all__ = ["find_images", "open_image", "output_name", "write_like"]

NIFTI_SUFFIXES = (".nii", ".nii.gz")
SUFFIXES = (*PICTURE_SUFFIXES, *NIFTI_SUFFIXES)


def find_images(path: FilePath) -> list[Path]:
    """List the images of a folder in natural order (2 before 10), or the one file that `path` is.

    If a folder has none, but a sub-folder ``images`` (or another name that `tinyseg.data.isbi.load` knows), they are
    those in there. Hidden files are left out: archives made on a Mac hold a ``._name`` beside each name. If there is no
    image, a FileNotFoundError lists what there is.
    """
    place = Path(path)
    if place.is_dir() and not with_ending(place.iterdir(), SUFFIXES):
        return find_files(isbi.find_images_and_labels(place, None)[0], SUFFIXES, "images")
    return find_files(place, SUFFIXES, "images")


def open_image(path: FilePath) -> ImageFile:
    """Open an image to read it section by section; only its headers are read now.

    Parameters
    ----------
    path : str or Path
        A TIFF with one or more pages, a picture (PNG, JPEG, BMP) or a NIfTI volume. Grey, of any integer or float
        type; RGB(A) only if all its colours are grey.

    Returns
    -------
    TiffImage, PictureImage or NiftiImage
        A context manager with

        - ``path``, and ``kind``: ``"tiff"``, ``"picture"`` or ``"nifti"``
        - ``len(image)``: the number of sections: pages of a TIFF, axial slices of a NIfTI (its third axis)
        - ``shape``: (H, W) of a section; of a NIfTI (X, Y), the first two axes of its array
        - ``channels``: 1, or the size of a NIfTI's fourth axis
        - ``dtype`` of the sections: as stored, but float32 for floats and for a NIfTI with a scale (slope, intercept)
        - ``section(k)``: section k, (channels, H, W); iterating gives one after the other
        - ``name(k)``: ``"name.tif[k]"``, or the file's name if it holds one section

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is empty, damaged, cut short, or of a kind that is not read; or its sections differ in shape or type.
        ``section`` raises it for what only the pixels show: colour, NaN, damage further on.
    """
    path = Path(path)
    refuse_missing(path, f"an image ({', '.join(SUFFIXES)})")
    return reader_of(path, (*READERS, NiftiImage))(path)


def output_name(image: ImageFile | FilePath, suffix: str = "_mask", channels: int = 1) -> str:
    """Name a result after its image: ``cells_mask.tif``, ``case_mask.nii.gz``, ``a_mask.png`` for ``a.jpg``.

    `image` is an open image or a path. `suffix` goes before the ending. The result of a picture is a ``.png``, a format
    that loses nothing; with several `channels` it is a ``.tif``.
    """
    path = image.path if isinstance(image, ImageFile) else Path(image)
    reader = reader_of(path, (*READERS, NiftiImage))
    ending = path.name[-7:] if path.name.lower().endswith(".nii.gz") else path.suffix
    if reader is PictureImage:
        return path.name.removesuffix(ending) + suffix + (".png" if channels == 1 else ".tif")
    return path.name.removesuffix(ending) + suffix + ending


class NiftiImage(ImageFile):
    """A volume as its axial sections: section k is ``array[:, :, k]``, and a fourth axis holds its channels.

    A 3-D volume is read forwards through one open file. If a gzipped file is read backwards, it is unpacked again from
    its beginning. The channels of a section of a 4-D volume lie far apart in the file: that costs nothing in a plain
    ``.nii``, but a gzipped one is loaded as a whole, once, in its stored type.

    `header` is nibabel's, `affine` (4, 4) float64, `grid` a `tinyseg.data.nifti.Grid`, `ndim` the number of axes (2, 3
    or 4), `gzipped` a bool.
    """

    kind, suffixes = "nifti", NIFTI_SUFFIXES
    expected = f"a NIfTI volume ({', '.join(NIFTI_SUFFIXES)})"

    def _read_header(self):
        # Not at the top: importing nibabel takes as long as the rest of this package.
        from tinyseg.data.nifti import load, without_empty_axes

        volume, _ = load(self.path)
        stored, self._array_shape = volume.dataobj, volume.shape
        shape = without_empty_axes(volume.shape)
        self.header, self.affine, self.ndim = volume.header, volume.affine, len(shape)
        self.shape, (self._count, self.channels) = shape[:2], (*shape[2:], 1, 1)[:2]
        self._scaling = None if (stored.slope, stored.inter) == (1, 0) else (stored.slope, stored.inter)
        self.dtype = np.dtype(np.float32) if self._scaling else returned_type(stored.dtype)
        self._offset, self._stored, self._whole = stored.offset, stored.dtype, None
        self.gzipped = self.path.name.lower().endswith(".gz")
        self._file = self._closing.enter_context((gzip.open if self.gzipped else open)(self.path, "rb"))
        size = self._offset + math.prod(volume.shape) * stored.dtype.itemsize
        refuse_impossible(size, self.path.stat().st_size, DEFLATE if self.gzipped else 1, "it")

    @functools.cached_property
    def grid(self):
        from tinyseg.data.nifti import grid_of

        return grid_of(self.path, self.header, self.affine)

    def _check(self):
        if self.ndim not in (2, 3, 4) or 0 in self._array_shape:
            raise ValueError(
                f"{self.path} has shape {self._array_shape}: expected (X, Y), (X, Y, Z), or (X, Y, Z, channels). "
                "Take out the volume to use and save it by itself."
            )
        if self._stored.kind not in "biuf":
            raise ValueError(
                f"{self.path} has values of type {self._stored}: expected grey integers or floats. Save one component."
            )

    def _read(self, k):
        if self.gzipped and self.channels > 1:
            if self._whole is None:
                size = math.prod(self._array_shape) * self._stored.itemsize
                refuse_too_large(size, f"{self.path}, a volume of {self._array_shape} voxels,")
                self._whole = self._planes(0, self._count * self.channels)
            section = self._whole[k :: self._count].copy()
        else:
            section = np.stack([self._planes(k + c * self._count, 1)[0] for c in range(self.channels)])
        if self._scaling:
            slope, intercept = self._scaling
            with np.errstate(over="ignore", invalid="ignore"):  # `section` refuses what is not finite
                section = (section * np.float64(slope) + intercept).astype(np.float32)
        return section

    def _planes(self, i, n):
        """Read n planes (n, X, Y), beginning with plane i. In the file X runs fastest, then Y, sections, channels."""
        size = math.prod(self.shape) * self._stored.itemsize
        self._file.seek(self._offset + i * size)
        content = self._file.read(n * size)
        if len(content) < n * size:
            raise EOFError(f"it ends in section {(i + len(content) // size) % self._count} of {self._count}")
        if self.gzipped and i + n == self._count * self.channels:
            read_to_the_end(self._file)
        return np.frombuffer(content, self._stored).reshape(n, *self.shape[::-1]).transpose(0, 2, 1)

    def _in_grey(self, section, name, two_colours):
        return section
