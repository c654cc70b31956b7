"""Images as they come, a section at a time: TIFF stacks, pictures (PNG, JPEG, BMP) and NIfTI volumes.

    with open_image("cells.tif") as image, write_like(image, output_name(image)) as out:
        for section in image:                             # (1, H, W)
            out.write(255 * (section[0] > 100).astype(np.uint8))

Opening reads headers only, and reading forwards keeps a few sections in memory: a stack may be larger than memory.
"""

import gzip
import math
from pathlib import Path

import numpy as np

from tinyseg.data import stacks
from tinyseg.data.image_writers import write_like
from tinyseg.data.stacks import PICTURE_SUFFIXES, TIFF_SUFFIXES, ImageFile, PictureImage, TiffImage, returned_type

__all__ = ["find_images", "open_image", "output_name", "write_like"]

NIFTI_SUFFIXES = (".nii", ".nii.gz")
KINDS = {"tiff": TIFF_SUFFIXES, "picture": PICTURE_SUFFIXES, "nifti": NIFTI_SUFFIXES}
SUFFIXES = sum(KINDS.values(), ())


def find_images(path):
    """List the images of a folder in natural order (2 before 10), or the one file that `path` is.

    Parameters
    ----------
    path : str or Path
        Hidden files in a folder are left out: archives made on a Mac hold a ``._name`` beside each name.

    Returns
    -------
    list of Path

    Raises
    ------
    FileNotFoundError
        There is no such file or folder, or no image in the folder; the message lists what there is.
    """
    return stacks.find_files(path, SUFFIXES, "images")


def open_image(path):
    """Open an image, to be read section by section; reads its headers only.

    Parameters
    ----------
    path : str or Path
        A TIFF with one or more pages, a picture (PNG, JPEG, BMP) or a NIfTI volume. Grey, of any integer or float
        type; colour only if it is grey saved as RGB(A).

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
        What only the pixels tell (colour, NaN, damage further on) is raised by ``section``.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected an image ({', '.join(SUFFIXES)}).")
    return {"tiff": TiffImage, "picture": PictureImage, "nifti": NiftiImage}[_kind(path)](path)


def output_name(image, suffix="_mask"):
    """Name a result after its image: ``cells_mask.tif``, ``case_mask.nii.gz``, ``a_mask.png`` for ``a.jpg``.

    Parameters
    ----------
    image : ImageFile, str or Path
    suffix : str
        Put before the ending.

    Returns
    -------
    str
        A file name without folder. Of a picture it ends in ``.png``, which loses nothing.
    """
    path = Path(getattr(image, "path", image))
    kind = _kind(path)
    ending = path.name[-7:] if path.name.lower().endswith(".nii.gz") else path.suffix
    return path.name.removesuffix(ending) + suffix + (".png" if kind == "picture" else ending)


class NiftiImage(ImageFile):
    """A volume, by its axial sections: section k is ``array[:, :, k]``, a fourth axis its channels.

    A 3-D volume, gzipped or not, is read forwards through one open file; a gzipped one is read again from
    its beginning if sections are asked for backwards. Of a 4-D volume the channels of a section lie far apart: that
    costs nothing in a plain ``.nii``, but a gzipped one is loaded as a whole, once, in its stored type.

    `header` is nibabel's, `affine` (4, 4) float64, `ndim` the number of axes: 2, 3 or 4; `gzipped` a bool.
    """

    kind = "nifti"
    expected = f"a NIfTI volume ({', '.join(NIFTI_SUFFIXES)})"

    def _read_header(self):
        import nibabel  # here, not above: it takes as long to import as the rest of this package

        volume = nibabel.load(self.path)
        stored, self._array_shape = volume.dataobj, volume.shape
        self.header, self.affine, self.ndim = volume.header, volume.affine, len(volume.shape)
        self.shape, (self._count, self.channels) = volume.shape[:2], (*volume.shape[2:], 1, 1)[:2]
        self._scaling = None if (stored.slope, stored.inter) == (1, 0) else (stored.slope, stored.inter)
        self.dtype = np.dtype(np.float32) if self._scaling else returned_type(stored.dtype)
        self._offset, self._stored, self._planes = stored.offset, stored.dtype, None
        self.gzipped = self.path.name.lower().endswith(".gz")
        self._file = self._closing.enter_context((gzip.open if self.gzipped else open)(self.path, "rb"))
        size = self._offset + math.prod(volume.shape) * stored.dtype.itemsize
        if not self.gzipped and size > (found := self.path.stat().st_size):
            raise EOFError(f"it has {found} bytes where its header asks for {size}")

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
            if self._planes is None:
                planes = np.empty((self._count * self.channels, *self.shape), self._stored)
                for i in range(len(planes)):
                    planes[i] = self._plane(i)
                self._planes = planes
            section = self._planes[k :: self._count].copy()
        else:
            section = np.stack([self._plane(i) for i in range(k, self._count * self.channels, self._count)])
        if self._scaling:
            slope, intercept = self._scaling
            section = (section * np.float64(slope) + intercept).astype(np.float32)
        return section

    def _plane(self, i):
        """The i-th two-dimensional array of the file, which is in Fortran's order: X runs fastest, channels slowest."""
        size = math.prod(self.shape) * self._stored.itemsize
        self._file.seek(self._offset + i * size)
        content = self._file.read(size)
        if len(content) < size:
            raise EOFError(f"it ends in section {i % self._count} of {self._count}")
        if self.gzipped and i == self._count * self.channels - 1:
            while self._file.read(2**20):  # on to the checksum at the end, which gzip compares
                pass
        return np.frombuffer(content, self._stored).reshape(self.shape, order="F")

    def _in_grey(self, section, name):
        return section


def _kind(path):
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give one image of it, or list them with find_images.")
    for kind, suffixes in KINDS.items():
        if path.name.lower().endswith(suffixes):
            return kind
    raise ValueError(f"{path} is of a kind that is not read: expected a file ending in {', '.join(SUFFIXES)}.")
