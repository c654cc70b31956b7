"""NIfTI volumes and the places of their voxels: grids compared, and volumes brought into one order of axes.

A grid is a shape with an affine, which says where each voxel lies in the scanner. The same voxels can be stored in 48
orders (from left to right or right to left, the third axis first, and so on). A network has no use for the scanner's
coordinates, but must see every patient in the same order. This library takes BraTS's: the first axis runs to the left
of the patient, the second to the back (posterior), the third up (superior), in short LPS. Axial slices go through the
third.

    volumes = [open_volume(path) for path in ("t1.nii.gz", "labels.nii.gz")]       # reads headers only
    grid = common_grid(volumes)                                                    # or a ValueError says what differs
    t1, labels = (volume.read(grid.orientation) for volume in volumes)

Two kinds of files do not say how the patient lies in them. Without codes (qform_code and sform_code 0) a file has no
affine at all. And an affine that is exactly the identity is what programs write when they know none: all volumes of the
Decathlon's brain tumours have it, and are stored in LPS though it would mean RAS. Both are taken in the order in which
they are stored, and a label without codes in that of its image.
"""

import gzip
import itertools
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from tinyseg.data.files import refuse_missing
from tinyseg.data.image_file import decoding, read_to_the_end
from tinyseg.data.memory import DEFLATE, refuse_impossible, refuse_too_large

ORIENTATION = "LPS"
VOXELS = 1e-30, 1e30  # the smallest and the largest volume of a voxel, mm³
EXTENSIONS = 1 << 24  # the largest place of the first voxel: nibabel unpacks and parses what stands before it
MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}  # in a metre, mm and micron, by the code of the unit; without one it is mm


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume lie.

    Attributes
    ----------
    path : Path
        The file, for messages.
    shape : (int, int, int)
    affine : float64 ndarray (4, 4), or None
        From indices to mm; None if the file has no codes.
    voxel : float
        Volume of a voxel, mm³.
    """

    path: Path
    shape: tuple
    affine: np.ndarray | None
    voxel: float

    @property
    def orientation(self):
        """Where the axes run to, such as "LPS"; None without an affine."""
        return None if self.affine is None else "".join(nib.aff2axcodes(self.affine))

    @property
    def for_network(self):
        """The order of axes in which a network sees the volume; None is as it is stored."""
        states_nothing = self.affine is None or np.array_equal(self.affine, np.eye(4))
        return self.orientation if states_nothing else ORIENTATION

    def turned(self, orientation):
        """Return the grid of the same voxels in another order of axes."""
        if orientation == self.orientation or None in (orientation, self.orientation):
            return self
        change = _change(self.orientation, orientation)
        shape = tuple(self.shape[i] for i in np.argsort(change[:, 0]))
        return Grid(self.path, shape, self.affine @ nib.orientations.inv_ornt_aff(change, self.shape), self.voxel)


def turn(voxels, orientation, target):
    """Return voxels (X, Y, Z, ...) that are stored in one order of axes in another, as a view; None is no change."""
    if orientation == target or None in (orientation, target):
        return voxels
    return nib.orientations.apply_orientation(voxels, _change(orientation, target))


def _change(orientation, target):
    return nib.orientations.ornt_transform(*map(nib.orientations.axcodes2ornt, (orientation, target)))


def without_empty_axes(shape):
    """Return the shape of a file without the axes of size 1 after the third, such as the time of a single volume."""
    return (*shape[:3], *(n for n in shape[3:] if n != 1))


def grid_of(path, header, affine):
    """Return the `Grid` of a NIfTI header and its affine. A ValueError is raised if its voxels have no size."""
    unit = MILLIMETRES.get(int(header["xyzt_units"]) % 8, 1.0)
    shape = (*header.get_data_shape()[:3], 1, 1)[:3]
    if header["qform_code"] == 0 and header["sform_code"] == 0:
        affine, voxel = None, math.prod(float(zoom) * unit for zoom in header.get_zooms()[:3])
    else:
        with np.errstate(all="ignore"):
            affine = np.diag([unit, unit, unit, 1.0]) @ np.asarray(affine, np.float64)
            voxel = abs(float(np.linalg.det(affine[:3, :3]))) if np.isfinite(affine).all() else math.nan
            if VOXELS[0] <= voxel <= VOXELS[1] and None in nib.aff2axcodes(affine):
                voxel = 0.0  # its axes lie in one plane, but for rounding
    if not VOXELS[0] <= voxel <= VOXELS[1]:
        raise ValueError(
            f"{path} has voxels of {voxel:g} mm³ by its header (affine and zooms): expected a size above 0. "
            "Export it again, or correct its header."
        )
    return Grid(path, shape, affine, voxel)


def same_grid(shape, affine, other_shape, other_affine):
    """Return whether the voxels (X, Y, Z) of two volumes are in the same places, to a tenth of a voxel."""
    if tuple(shape[:3]) != tuple(other_shape[:3]):
        return False
    corners = np.array(list(itertools.product(*((0, n - 1) for n in shape[:3]), (1,))))  # (8, 4)
    apart = np.linalg.norm((corners @ (affine - other_affine).T)[:, :3], axis=1).max()
    return bool(apart < 0.1 * np.linalg.norm(affine[:3, :3], axis=0).min())


def common_grid(volumes):
    """Return the one grid on which volumes lie, in the order of axes in which a network sees it.

    Parameters
    ----------
    volumes : sequence of objects with an attribute ``grid``

    Returns
    -------
    Grid
        Of the first volume. Its `orientation` is that in which all are to be read. If the first file has no affine,
        only shapes are compared and all are taken as they are stored: then it is None. Another file without an affine
        is taken to be stored as the first is, and the `grid` of its volume is set so.

    Raises
    ------
    ValueError
        Their voxels lie in different places; the message names two files and what differs.
    """
    first = volumes[0].grid
    for volume in volumes:
        if volume.grid.affine is None or first.affine is None:
            volume.grid = replace(volume.grid, affine=first.affine)
    grids = [volume.grid.turned(first.for_network) for volume in volumes]
    for grid in grids[1:]:
        found = _difference(grid, grids[0])
        if found:
            raise ValueError(
                f"{grid.path} and {first.path} do not lie on one grid: {found}. "
                "Give volumes of one scan, resampled onto the same voxels."
            )
    return grids[0]


def _difference(one, other):
    """Say in words how two grids of one orientation differ; None if they do not."""
    if one.shape != other.shape:
        return f"their shape is {one.shape} and {other.shape}"
    if one.affine is None or same_grid(one.shape, one.affine, other.shape, other.affine):
        return None
    spacings = [np.linalg.norm(grid.affine[:3, :3], axis=0) for grid in (one, other)]
    if not np.allclose(*spacings, rtol=0.01):
        in_words = [" × ".join(f"{size:.4g}" for size in spacing) for spacing in spacings]
        return f"their spacing is {in_words[0]} mm and {in_words[1]} mm"
    directions = [grid.affine[:3, :3] / spacing for grid, spacing in zip((one, other), spacings, strict=True)]
    angle = np.degrees(np.arccos(np.clip((directions[0] * directions[1]).sum(axis=0), -1, 1))).max()
    middle = [*((n - 1) / 2 for n in one.shape), 1]
    shift = np.round((one.affine - other.affine) @ middle, 2)[:3] + 0.0
    turned = f", and their orientation by {angle:.1f} degrees" if angle > 0.1 else ""
    return f"their origin differs by {tuple(shift.tolist())} mm at the middle{turned}"


class Volume:
    """A NIfTI file of which only the header has been read; see `open_volume`.

    Attributes
    ----------
    path : Path
    grid : Grid
        As stored.
    channels : int
        Size of the fourth axis, 1 if there is none.
    """

    def __init__(self, path, image):
        self.path, self._image = Path(path), image
        self._shape = without_empty_axes(image.shape)
        if len(self._shape) not in (3, 4) or 0 in self._shape:
            raise ValueError(
                f"{path} has shape {image.shape}: expected (X, Y, Z) or (X, Y, Z, modalities). "
                "Save slices as one volume."
            )
        self.channels = (*self._shape, 1)[3]
        self.grid = grid_of(self.path, image.header, image.affine)
        if image.get_data_dtype().kind not in "biuf":
            raise ValueError(
                f"{path} has voxels of type {image.header.get_value_label('datatype')}: expected integers or floats, "
                "one number a voxel. Save one component."
            )

    def read(self, orientation=None):
        """Read the voxels: (X, Y, Z), or (X, Y, Z, channels) if there are several, in this order of axes.

        In the type in which they are stored, mostly int16; float32 if they are floats of more bits, or if the file
        scales its values.
        """
        stored = self._image.dataobj
        itemsize = stored.dtype.itemsize if (stored.slope, stored.inter) == (1, 0) else 8  # float64
        refuse_too_large(math.prod(self._shape) * itemsize, f"{self.path}, a volume of {self._shape} voxels,")
        with decoding(self.path, "NIfTI"):
            voxels = np.asanyarray(self._unpacked().dataobj)  # get_fdata would convert everything to float64
        voxels = voxels.reshape(self._shape if self.channels > 1 else self._shape[:3])
        with np.errstate(over="ignore"):  # infinity is refused by whoever takes intensities, and is no label
            voxels = voxels.astype(np.float32) if voxels.dtype.kind == "f" and voxels.itemsize > 4 else voxels
        return turn(voxels, self.grid.orientation, orientation)

    def _unpacked(self):
        """Return the image with its file unpacked to the end, where gzip has a checksum of all of it."""
        stored, gzipped = self._image.dataobj, self.path.name.lower().endswith(".nii.gz")
        size = stored.offset + math.prod(self._image.shape) * stored.dtype.itemsize
        refuse_impossible(size, self.path.stat().st_size, DEFLATE if gzipped else 1, "it")
        if not gzipped:
            return self._image
        with gzip.open(self.path) as file:
            content = file.read(size)
            if len(content) < size:
                raise EOFError(f"it holds {len(content)} bytes, fewer than its header asks for")
            read_to_the_end(file)
        return type(self._image).from_bytes(content)


def load(path):
    """Read the header of a file with nibabel, unless it asks for much to be read before its voxels.

    Returns
    -------
    image : nibabel.Nifti1Image, or another of nibabel's if the file is no NIfTI
    stored : nibabel.Nifti1Header, or whatever the image has
        Of a NIfTI file as it is stored, where nibabel makes zooms of 0 to 1.

    Raises
    ------
    Exception
        Whatever nibabel raises: see `tinyseg.data.image_file.decoding`.
    """
    for ending in re.findall(r"\.nii(?:\.gz)?$", path.name, re.IGNORECASE):
        if not ending.startswith((".nii", ".NII")):  # nibabel would look for another file
            raise ValueError(f"its name ends in {ending}: rename it, so that it ends in {ending.lower()}")
    with nib.openers.ImageOpener(path) as file:
        start = file.read(nib.Nifti2Header.sizeof_hdr)
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        if kind.may_contain_header(start):
            stored = kind(start[: kind.sizeof_hdr], check=False)
            offset, least = float(stored["vox_offset"]), kind.single_vox_offset
            if stored["magic"] != kind.single_magic:
                raise ValueError("it is one half of a pair of files, .hdr and .img, by its header")
            if not least <= offset <= EXTENSIONS:
                raise ValueError(f"its voxels begin at byte {offset:,.0f}: expected {least} to {EXTENSIONS:,}")
            return nib.load(path), stored
    image = nib.load(path)
    return image, image.header


def open_volume(path):
    """Read the header of a NIfTI file.

    Returns
    -------
    Volume

    Raises
    ------
    FileNotFoundError
        There is no such file, or it is a link to none.
    ValueError
        The file is damaged, is not NIfTI, has another number of axes, complex numbers or colours, or voxels of size 0.
    """
    path = Path(path)
    refuse_missing(path, "a NIfTI file")
    if not path.is_file():
        raise ValueError(f"{path} is a folder, or no regular file: expected a NIfTI file.")
    with decoding(path, "NIfTI"):
        image, stored = load(path)
    if not isinstance(image, nib.Nifti1Image):  # two files, .hdr and .img, are another class
        raise ValueError(f"{path} is {type(image).__name__}: expected NIfTI in one file (.nii, .nii.gz). Convert it.")
    zooms = stored["pixdim"][1:4].tolist()
    if 0 in zooms and stored["sform_code"] == 0:
        raise ValueError(f"{path} has zooms of {zooms}: expected the size of a voxel. Correct its header.")
    return Volume(path, image)
