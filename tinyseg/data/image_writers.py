"""Writing results section by section, in the format of the image from which they were made.

The file grows under a hidden temporary name in the same folder and gets its own name when it is complete
(`tinyseg.data.writing.replacing`). After an error an older file of that name is unchanged.
"""

import contextlib
import gzip
import io
import json
import math
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from tinyseg.data.os_errors import explaining
from tinyseg.data.pixel_size import CENTIMETRE, pixel_size
from tinyseg.data.writing import close_quietly, replacing

CLASSIC_TIFF = 2**32 - 2**25  # bytes of pixels that fit, with their tags, into a TIFF that is not a BigTIFF


def write_like(image, out_path, dtype=np.uint8, channels=1, overwrite=False, as_tiff=False):
    """Write sections in the format of `image`, or as TIFF, with its resolution, affine and header.

    - TIFF: integers are compressed (zlib), floats are not; all pages are one series. The size of a pixel that OME says
      becomes pixels in a centimetre. If ImageJ wrote the image, its text about units and spacing is kept and nothing is
      compressed, because ImageJ could not read that. Each channel is a page, axes ZCYX. If the pixels take over 4 GB,
      the file is a BigTIFF.
    - Picture: a PNG with the dots per inch of the image. Floats are probabilities: 16 bits, 0 to 65535 for 0 to 1. With
      several channels, a TIFF.
    - NIfTI: channels come last. The file is gzipped if `out_path` ends in ``.gz``, or if the image is gzipped and
      `out_path` does not end in ``.nii``. Before several channels are gzipped, they are collected, uncompressed, in
      an unnamed temporary file in the folder of `out_path`.

    Parameters
    ----------
    image : TiffImage, PictureImage or NiftiImage
        From `open_image`; it may be closed already.
    out_path : str or Path
        Its ending does not decide the format.
    dtype : uint8, uint16, uint32 or float32
        Type of the values in the file; a PNG of float32 gets 16 bits, and one of uint32 is refused.
    channels : int
        Channels of each section.
    overwrite : bool
        Whether an existing file may be replaced.
    as_tiff : bool
        Whether a picture is written as TIFF, too: numbers of objects, which a viewer of PNG would show as near black.

    Returns
    -------
    context manager with ``write(section)``
        Call ``write`` ``len(image)`` times, in order, with an array (channels, H, W), or (H, W) for one channel, of
        `dtype` or a type that converts to it without loss (or float64 to float32). The file appears at the end of
        the with-block, unless the block raises an exception.

    Raises
    ------
    FileExistsError
        `out_path` exists and `overwrite` is false.
    ValueError
        `dtype` is another type, or a PNG is to have 32 bits, or `out_path` is the image itself. ``write`` and the end
        of the block raise it for sections of another shape or type, too many or too few sections, NaN and infinity, and
        probabilities for a picture that are not from 0 to 1.
    OSError
        `out_path` is a folder (IsADirectoryError); its folder does not exist (FileNotFoundError) or may not be written
        to (PermissionError); or the disk is full. In the last three cases ``errno`` is set.
    """
    kind = "tiff" if image.kind == "picture" and (as_tiff or channels > 1) else image.kind
    if kind == "picture" and np.dtype(dtype) == np.uint32:
        raise ValueError("a PNG holds 8 or 16 bits, not uint32: write a TIFF, as_tiff=True.")
    output = {"tiff": _TiffOutput, "picture": _PngOutput, "nifti": _NiftiOutput}[kind]
    return output(image, Path(out_path), np.dtype(dtype), channels, overwrite).opened()


class _Output:
    """What all formats share. A subclass defines `_begin`, `_add` for a section (channels, H, W), and `_finish`."""

    def __init__(self, image, path, dtype, channels, overwrite):
        if dtype not in (np.uint8, np.uint16, np.uint32, np.float32):
            raise ValueError(f"results are written as uint8, uint16, uint32 or float32, not as {dtype}: convert them.")
        self.image, self.path, self.dtype, self.channels, self.overwrite = image, path, dtype, channels, overwrite
        self.shape = (channels, *image.shape)
        self.size = len(image) * math.prod(self.shape) * dtype.itemsize
        self.written = 0
        self._check_target()

    def _check_target(self):
        """Raise an error if the file may not be written."""
        if self.path.is_dir():
            raise IsADirectoryError(f"{self.path} is a folder: expected the name of a file to write.")
        if not self.path.exists():
            return
        if not self.overwrite:
            raise FileExistsError(f"{self.path} already exists: pass overwrite=True or choose another name.")
        if self.image.path.exists() and self.path.samefile(self.image.path):
            raise ValueError(f"{self.path} is the image itself: choose another name for what is made from it.")

    @contextlib.contextmanager
    def opened(self):
        """Begin the file, let the caller write all sections, and put the whole file into place."""
        with contextlib.ExitStack() as self.cleanup:
            self.file = self.cleanup.enter_context(replacing(self.path, self.size))
            with explaining(self.path, self.size):
                self._begin()
            yield self
            if self.written < len(self.image):
                raise ValueError(
                    f"{self.path} is to have {len(self.image)} sections, as its image: "
                    f"only {self.written} were written."
                )
            with explaining(self.path, self.size):
                self._finish()
            self._check_target()  # again: another program may have written the file meanwhile

    def write(self, section):
        """Add the next section: (channels, H, W), or (H, W) for one channel."""
        section = np.asarray(section)
        if self.written == len(self.image):
            raise ValueError(f"{self.path} is to have {len(self.image)} sections, as its image: one more was written.")
        if section.shape != self.shape and (1, *section.shape) != self.shape:
            raise ValueError(
                f"sections of {self.path} have shape {self.shape} (channels, H, W), found {section.shape}: "
                "give one section of the size of the image."
            )
        if not np.can_cast(section.dtype, self.dtype, "same_kind" if section.dtype.kind == "f" else "safe"):
            raise ValueError(f"{self.path} is written as {self.dtype}, found a section of {section.dtype}: convert it.")
        if section.dtype.kind == "f" and not np.isfinite(section).all():
            raise ValueError(f"section {self.written} for {self.path} holds NaN or infinity: expected finite values.")
        with explaining(self.path, self.size):
            self._add(np.ascontiguousarray(section.reshape(self.shape), self.dtype))
        self.written += 1

    def _begin(self):
        pass

    def _finish(self):
        pass


class _TiffOutput(_Output):
    def _begin(self):
        self.text = getattr(self.image, "description", "")
        by_imagej = self.text.startswith("ImageJ=")
        options = {"photometric": "minisblack", "metadata": None} | self._resolution(by_imagej)
        if self.dtype.kind == "f" or by_imagej:
            options["contiguous"] = True  # one block of pixels; the tags of all pages are at the end
        else:
            options["compression"] = "zlib"
        self.options, self.description = options, None
        if by_imagej:
            self.description = self._imagej_text()
        elif self.channels > 1:
            self.description = json.dumps({"shape": [len(self.image), *self.shape], "axes": "ZCYX"})
        self.tiff = tifffile.TiffWriter(self.file, bigtiff=self.size > CLASSIC_TIFF, ome=False, shaped=False)

    def _resolution(self, by_imagej):
        """Return the options of tifffile for the tags of the resolution: as in the image, or the size that OME says."""
        tags = getattr(self.image, "tags", {})
        sizes, unit = [tags.get(name) for name in ("XResolution", "YResolution")], tags.get("ResolutionUnit")
        said = None if by_imagej or unit == CENTIMETRE else _pixels_per_centimetre(self.image)
        if said:
            return {"resolution": said, "resolutionunit": CENTIMETRE}
        if all(map(_is_fraction, sizes)):
            return {"resolution": sizes, "resolutionunit": unit if unit in (1, 2, 3) else 2}  # 2: inch, by default
        dpi = _dots_per_inch(self.image)
        return {"resolution": dpi, "resolutionunit": 2} if dpi else {}

    def _imagej_text(self):
        """Return ImageJ's text for the result: a line for each number or unit."""
        old = dict(line.split("=", 1) for line in self.text.splitlines() if "=" in line)
        numbers = {key: int(old[key]) for key in ("slices", "frames") if old.get(key, "").isdigit()}
        if math.prod(numbers.values()) != len(self.image):
            numbers = {"slices": len(self.image)}
        new = {"ImageJ": old["ImageJ"], "images": len(self.image) * self.channels}
        if self.channels > 1:
            new["channels"] = self.channels
        new |= numbers | {"hyperstack": "true", "mode": "grayscale"}
        kept = ("unit", "yunit", "zunit", "spacing", "xorigin", "yorigin", "zorigin", "finterval", "tunit", "loop")
        new |= {key: old[key] for key in kept if key in old}
        if self.dtype.kind == "f":
            new |= {"min": 0.0, "max": 1.0}  # the values that ImageJ shows as black and white
        text = "".join(f"{key}={value}\n" for key, value in new.items())
        return re.sub(r"[^\x00-\x7f]", lambda found: f"\\u{ord(found[0]):04X}", text)  # as ImageJ writes µm

    def _add(self, section):
        for page in section:
            self.tiff.write(page, description=self.description, **self.options)
            self.description = None  # on the first page only

    def _finish(self):
        self.tiff.close()


def _is_fraction(size):
    """Whether the tag of a TIFF says the size of a pixel as a fraction of two numbers that can be written again."""
    parts = size if isinstance(size, tuple) and len(size) == 2 else (0, 0)
    return all(isinstance(n, int) and 0 < n < 2**32 for n in parts)


def _pixels_per_centimetre(image):
    """Return columns and rows in a centimetre, None if the image does not say so or they do not fit into 32 bits."""
    height, width = pixel_size(image) or (math.inf, math.inf)
    found = 1e4 / width, 1e4 / height
    return found if all(1e-3 < each < 1e9 for each in found) else None


def _dots_per_inch(image):
    """Return the dots per inch of a picture, None if it has none or they do not fit into the 32 bits of a file."""
    dpi = getattr(image, "dpi", None)
    return dpi if dpi and all(1e-2 < each < 1e7 for each in dpi) else None


class _PngOutput(_Output):
    def _add(self, section):
        if self.dtype.kind == "f":
            if section.min() < 0 or section.max() > 1:
                raise ValueError(
                    f"{self.path} is a picture of probabilities from 0 to 1, found {section.min()} to {section.max()}."
                )
            section = np.rint(section * np.float32(65535)).astype(np.uint16)
        dpi = _dots_per_inch(self.image)
        options = {"dpi": dpi} if dpi else {}
        Image.fromarray(section[0]).save(self.file, "PNG", **options)


class _NiftiOutput(_Output):
    def _begin(self):
        name = self.path.name.lower()
        self.gzipped = name.endswith(".gz") or (self.image.gzipped and not name.endswith(".nii"))
        header = self.image.header.copy()
        header.set_data_dtype(self.dtype)
        H, W = self.image.shape
        plane = (H, W) if self.image.ndim == 2 and self.channels == 1 else (H, W, len(self.image))
        header.set_data_shape(plane if self.channels == 1 else (*plane, self.channels))
        # nibabel has reset the zooms of axes that a 2-D image does not have.
        header["pixdim"][:4] = self.image.header["pixdim"][:4]
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = header["vox_offset"] = 0  # write_to sets vox_offset
        start = io.BytesIO()
        header.write_to(start)
        start.write(bytes(int(header["vox_offset"]) - start.tell()))
        self.stored = self.dtype.newbyteorder(header.endianness)
        # `volume` takes the header, then the pixels. `pixels` takes the pixels, from `start` on: mostly it is `volume`.
        self.volume = self.pixels = self.file
        self.start = len(start.getvalue())
        if self.gzipped:
            level = 1 if self.dtype.kind == "f" else 6  # floats hardly get smaller
            self.volume = self.pixels = gzip.GzipFile("", "wb", level, self.file, mtime=0)
            self.cleanup.callback(close_quietly, self.volume)
            if self.channels > 1:
                self.pixels = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115 (closed by the clean-up)
                self.cleanup.callback(close_quietly, self.pixels)
                self.start = 0
        self.volume.write(start.getvalue())

    def _add(self, section):
        for channel, plane in enumerate(section.astype(self.stored, copy=False)):
            if self.channels > 1:  # the file holds all sections of a channel, then those of the next
                self.pixels.seek(self.start + (channel * len(self.image) + self.written) * plane.nbytes)
            self.pixels.write(plane.tobytes(order="F"))

    def _finish(self):
        if self.gzipped:
            if self.pixels is not self.volume:
                self.pixels.seek(0)
                shutil.copyfileobj(self.pixels, self.volume)
            self.volume.close()
