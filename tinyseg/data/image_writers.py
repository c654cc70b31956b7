"""Results written in the format of the image they were made from: section by section, and whole or not at all.

The file grows under a hidden temporary name in the same folder; only when it is complete and on the disk does it get
its own. After an error nothing is left behind, and a file that was there before is as it was.
"""

import contextlib
import errno
import gzip
import io
import json
import math
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

CLASSIC_TIFF = 2**32 - 2**25  # bytes of pixels that surely fit, with their tags, into a TIFF that is not a BigTIFF


def write_like(image, out_path, dtype=np.uint8, channels=1, overwrite=False):
    """Write sections in the format of `image`, with its resolution, affine and header.

    - TIFF: integers compressed (zlib), floats plain; pages of one series. What ImageJ's text says about units and
      spacing is kept, and then nothing is compressed: ImageJ itself could not read that. Several channels are
      pages of their own, axes ZCYX. BigTIFF if the pixels take over 4 GB.
    - Picture: a PNG with its dots per inch. Floats are probabilities: 16 bits, 0 to 65535 for 0 to 1.
    - NIfTI: channels last; gzipped if `out_path` ends in ``.gz``, or if the image is and it does not end in ``.nii``.
      Several channels, gzipped, wait uncompressed in an unnamed temporary file in the folder of `out_path`.

    Parameters
    ----------
    image : TiffImage, PictureImage or NiftiImage
        From `open_image`; may be closed already.
    out_path : str or Path
        The format does not depend on its ending.
    dtype : uint8, uint16 or float32
        Of the values in the file (a picture of float32 is written with 16 bits).
    channels : int
        Of each section; a picture takes one.
    overwrite : bool
        Whether a file may be replaced.

    Returns
    -------
    context manager with ``write(section)``
        To be called ``len(image)`` times, in order, with an array (channels, H, W), or (H, W) for one channel, of
        `dtype` or one that converts to it without loss (also float64 to float32). The file appears at the end of
        the with-block, if no exception passes through it.

    Raises
    ------
    FileExistsError
        `out_path` is there already and `overwrite` is false.
    ValueError
        The type is none of these, a picture is to have several channels, or `out_path` is the image itself. From
        ``write`` and the end of the block: sections of another shape or type, too many or too few; NaN or infinity.
    OSError
        The folder is not there (FileNotFoundError), nothing may be written to it (PermissionError), the disk is full.
        The message says so in a sentence, ``errno`` is set.
    """
    return {"tiff": _TiffOutput, "picture": _PngOutput, "nifti": _NiftiOutput}[image.kind](
        image, Path(out_path), np.dtype(dtype), channels, overwrite
    )


class _Output:
    """What all formats share; each says how to begin, to add a section (channels, H, W), and to finish."""

    def __init__(self, image, path, dtype, channels, overwrite):
        if dtype not in (np.uint8, np.uint16, np.float32):
            raise ValueError(f"results are written as uint8, uint16 or float32, not as {dtype}: convert them.")
        self.image, self.path, self.dtype, self.channels, self.overwrite = image, path, dtype, channels, overwrite
        self.shape = (channels, *image.shape)
        self.size = len(image) * math.prod(self.shape) * dtype.itemsize
        self.temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self.written, self.file = 0, None
        self._may_replace()

    def _may_replace(self):
        if self.path.is_dir():
            raise IsADirectoryError(f"{self.path} is a folder: expected the name of a file to write.")
        if not self.path.exists():
            return
        if not self.overwrite:
            raise FileExistsError(f"{self.path} already exists: pass overwrite=True or choose another name.")
        if self.image.path.exists() and self.path.samefile(self.image.path):
            raise ValueError(f"{self.path} is the image itself: choose another name for what is made from it.")

    def __enter__(self):
        try:
            with self._explaining():
                self.file = open(self.temporary, "wb")
                self._begin()
        except BaseException:
            self._discard()
            raise
        return self

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
        with self._explaining():
            self._add(np.ascontiguousarray(section.reshape(self.shape), self.dtype))
        self.written += 1

    def __exit__(self, kind, error, trace):
        try:
            if kind is None:
                self._commit()
        finally:
            self._discard()

    def _commit(self):
        if self.written < len(self.image):
            raise ValueError(
                f"{self.path} is to have {len(self.image)} sections, as its image: only {self.written} were written."
            )
        with self._explaining():
            self._finish()
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
        self._may_replace()  # things may have changed in the meantime
        with self._explaining():
            os.replace(self.temporary, self.path)

    def _discard(self):
        if self.file is not None:
            with contextlib.suppress(OSError):  # a full disk, once more
                self.file.close()
            self.temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explaining(self):
        """Turn the system's errors into sentences, of the same class and number."""
        try:
            yield
        except OSError as error:
            folder = self.path.parent
            hint = {
                errno.ENOENT: f"The folder {folder} does not exist: make it first.",
                errno.ENOSPC: f"Up to {self.size / 2**20:.1f} MiB are needed in {folder}: make room or choose another.",
            }
            hint[errno.EDQUOT] = hint[errno.ENOSPC]
            hint[errno.EACCES] = f"Files in {folder} may not be created: choose another folder or ask for permission."
            hint[errno.EPERM] = hint[errno.EROFS] = hint[errno.EACCES]
            what = f"{self.path} could not be written: {error.strerror or error}."
            explained = type(error)(f"{what} {hint.get(error.errno, '')}".rstrip())
            explained.errno = error.errno
            raise explained from error

    def _begin(self):
        pass

    def _finish(self):
        pass


class _TiffOutput(_Output):
    def _begin(self):
        self.tags = {}
        sizes = [self.image.tags.get(name) for name in ("XResolution", "YResolution")]
        if all(isinstance(size, tuple) and len(size) == 2 and all(size) for size in sizes):  # a fraction, not 0/0
            unit = self.image.tags.get("ResolutionUnit")
            self.tags = {"resolution": sizes, "resolutionunit": unit if unit in (1, 2, 3) else 2}  # 2: inch, by default
        self.compressed = self.dtype.kind != "f"
        self.description = None
        sections = len(self.image)
        if self.image.description.startswith("ImageJ="):
            self.compressed, self.description = False, self._imagej()
        elif self.channels > 1:
            self.description = json.dumps({"shape": [sections, *self.shape], "axes": "ZCYX"})
        self.tiff = tifffile.TiffWriter(self.file, bigtiff=self.size > CLASSIC_TIFF, ome=False, shaped=False)

    def _imagej(self):
        """ImageJ's own text: a line for each number or unit."""
        old = dict(line.split("=", 1) for line in self.image.description.splitlines() if "=" in line)
        numbers = {key: int(old[key]) for key in ("slices", "frames") if old.get(key, "").isdigit()}
        if math.prod(numbers.values()) != len(self.image):
            numbers = {"slices": len(self.image)}
        new = {"ImageJ": old["ImageJ"], "images": len(self.image) * self.channels}
        new |= {"channels": self.channels} if self.channels > 1 else {}
        new |= numbers | {"hyperstack": "true", "mode": "grayscale"}
        kept = ("unit", "yunit", "zunit", "spacing", "xorigin", "yorigin", "zorigin", "finterval", "tunit", "loop")
        new |= {key: old[key] for key in kept if key in old}
        new |= {"min": 0.0, "max": 1.0} if self.dtype.kind == "f" else {}  # what is shown as black and white
        text = "".join(f"{key}={value}\n" for key, value in new.items())
        return re.sub(r"[^\x00-\x7f]", lambda found: f"\\u{ord(found[0]):04X}", text)  # as ImageJ writes µm

    def _add(self, section):
        for page in section:
            self.tiff.write(
                page,
                photometric="minisblack",
                compression="zlib" if self.compressed else None,
                contiguous=not self.compressed,  # the tags of all pages then follow at the end
                metadata=None,
                description=self.description,
                **self.tags,
            )
            self.description = None  # on the first page only

    def _finish(self):
        self.tiff.close()


class _PngOutput(_Output):
    def __init__(self, image, path, dtype, channels, overwrite):
        if channels != 1:
            raise ValueError(
                f"a picture holds one channel, not {channels}: write each to a file of its own, or labels."
            )
        super().__init__(image, path, dtype, channels, overwrite)

    def _add(self, section):
        if self.dtype.kind == "f":
            if section.min() < 0 or section.max() > 1:
                raise ValueError(
                    f"{self.path} is a picture of probabilities from 0 to 1, found {section.min()} to {section.max()}."
                )
            section = np.rint(section * np.float32(65535)).astype(np.uint16)
        dpi = self.image.dpi
        Image.fromarray(section[0]).save(self.file, "PNG", **({"dpi": dpi} if dpi and all(dpi) else {}))


class _NiftiOutput(_Output):
    def _begin(self):
        name = self.path.name.lower()
        self.gzipped = name.endswith(".gz") or (self.image.gzipped and not name.endswith(".nii"))
        header = self.image.header.copy()
        header.set_data_dtype(self.dtype)
        H, W = self.image.shape
        plane = (H, W) if self.image.ndim == 2 and self.channels == 1 else (H, W, len(self.image))
        header.set_data_shape(plane if self.channels == 1 else (*plane, self.channels))
        header["pixdim"][:4] = self.image.header["pixdim"][
            :4
        ]  # of which nibabel resets what a 2-D image has no axis for
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = header["vox_offset"] = 0  # the last: to be set by what is written
        start = io.BytesIO()
        header.write_to(start)
        start.write(bytes(int(header["vox_offset"]) - start.tell()))
        self.stored = self.dtype.newbyteorder(header.endianness)
        self.data = self.raw = self.file
        if self.gzipped:
            level = 1 if self.dtype.kind == "f" else 6  # floats hardly get smaller
            self.data = gzip.GzipFile("", "wb", level, self.file, mtime=0)
            self.raw = self.data
            if self.channels > 1:
                self.raw = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115 (closed by _discard)
        self.data.write(start.getvalue())
        self.start = 0 if self.raw is not self.file else len(start.getvalue())

    def _add(self, section):
        for channel, plane in enumerate(section.astype(self.stored, copy=False)):
            if self.channels > 1:  # all sections of a channel lie together
                self.raw.seek(self.start + (channel * len(self.image) + self.written) * plane.nbytes)
            self.raw.write(plane.tobytes(order="F"))

    def _finish(self):
        if self.gzipped:
            if self.raw is not self.data:
                self.raw.seek(0)
                shutil.copyfileobj(self.raw, self.data)
            self.data.close()

    def _discard(self):
        for file in (getattr(self, "raw", None), getattr(self, "data", None)):
            if file is not None:
                with contextlib.suppress(OSError, ValueError):  # closed, or a full disk
                    file.close()
        super()._discard()
