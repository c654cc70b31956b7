"""Grey sections from TIFF stacks and pictures (PNG, JPEG, BMP): one by one, or whole stacks in memory.

A stack has shape (S, H, W): S sections of H rows and W columns. Anything else (colour, damaged or truncated files,
sections of different shapes, NaN) is refused with an error that names the file.
"""

import contextlib
import math
import re
import struct
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageMode

from tinyseg.data.files import find_files


def load_stack(path):
    """Read a TIFF stack, or a folder of sections in natural order (2 before 10).

    Parameters
    ----------
    path : str or Path
        A TIFF with one or more pages, one image file, or a folder of them. Grey of any integer or float
        type; colour only if it is grey saved as RGB(A).

    Returns
    -------
    stack : ndarray, (S, H, W)
        In the type it was stored in; float64 and float16 become float32.
    names : list of str
        ``"name.tif[page]"``, or the file's name if it holds one section.

    Raises
    ------
    FileNotFoundError
        There is no such file or folder, or no section in the folder.
    ValueError
        A file is damaged or of another kind, is in colour, or holds NaN or infinity; sections differ in shape or type;
        or the folder holds images and labels.
    """
    path = Path(path)
    files = find_files(path, (*TiffImage.suffixes, *PictureImage.suffixes), "sections")
    if path.is_dir() and {"train-volume", "train-labels"} <= {p.stem.casefold() for p in files}:
        raise ValueError(f"{path} holds images and labels: give one file of it, such as train-volume.tif.")
    sections, names = [], []
    for file in files:
        reader = TiffImage if file.suffix.lower() in TiffImage.suffixes else PictureImage
        with reader(file) as image:
            sections += [section[0] for section in image]
            names += map(image.name, range(len(image)))
    _refuse_mixed(files[0].parent, names, [(section.shape, section.dtype) for section in sections])
    return np.stack(sections), names


def shape_in_words(stack):
    """Describe the shape of a stack (S, H, W): "24 sections of 512×512"."""
    S, H, W = stack.shape
    return f"1 section of {H}×{W}" if S == 1 else f"{S} sections of {H}×{W}"


def returned_type(stored):
    """Return the type of the sections of a file: float32 for floats, any other type as it is stored."""
    return np.dtype(np.float32) if np.dtype(stored).kind == "f" else np.dtype(stored).newbyteorder("=")


class ImageFile:
    """An open file of sections; `tinyseg.data.images.open_image` lists its attributes.

    A subclass sets `kind`, `suffixes` and `expected`. Its `_read_header` sets `shape`, `dtype` and `_count`, and its
    `_read` returns a section as it is stored.
    """

    channels = 1

    def __init__(self, path):
        self.path = Path(path)
        with contextlib.ExitStack() as self._closing:  # closes the file if one of these steps fails
            with decoding(self.path, self.expected):
                if self.path.stat().st_size == 0:
                    raise EOFError("it is empty, 0 bytes")
                self._read_header()
            self._check()
            self._closing = self._closing.pop_all()

    def _check(self):
        """Raise an error if the file can be read but its headers say that it cannot be used."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Close the file."""
        self._closing.close()

    def __len__(self):
        return self._count

    def __iter__(self):
        return map(self.section, range(len(self)))

    def name(self, k):
        """Name a section: ``"name.tif[k]"``, or the file's name if it holds only one."""
        return self.path.name if len(self) == 1 else f"{self.path.name}[{k}]"

    def section(self, k):
        """Read section k, counted from 0: (channels, H, W)."""
        if not 0 <= k < len(self):
            raise IndexError(f"{self.path} has sections 0 to {len(self) - 1}: there is no section {k}.")
        name = f"{self.name(k)} in {self.path.parent}"
        with decoding(self.path, self.expected):
            section = self._read(k)
        section = self._in_grey(section, name)
        with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinity, and is refused
            section = section.astype(returned_type(section.dtype), copy=False)
        if section.dtype.kind == "f" and not np.isfinite(section).all():
            raise ValueError(
                f"{name} holds NaN or infinity: expected finite grey values. Replace them or leave the section out."
            )
        return section

    def _in_grey(self, section, name):
        """Return a section, which may be grey saved as RGB(A) with its channels last, as (1, H, W)."""
        if section.dtype.kind not in "biuf":
            raise ValueError(f"{name} has values of type {section.dtype}: expected grey integers or floats.")
        if section.ndim == 3 and section.shape[-1] in (2, 4) and np.ptp(section[..., -1]) == 0:
            section = section[..., :-1]  # the last channel is an opacity, the same everywhere
        if section.ndim == 3 and (section == section[..., :1]).all():
            section = section[..., 0]
        if section.ndim != 2:
            raise ValueError(
                f"{name} is in colour or has several channels (shape {section.shape}): expected grey. "
                "Convert it to grey (in Fiji: Image > Type > 8-bit), or save the one channel to use."
            )
        return section[None]


@contextlib.contextmanager
def decoding(path, expected):
    """Turn what decoders raise into a ValueError that names the file; `expected` says what it should be."""
    try:
        yield
    except (MemoryError, PermissionError, FileNotFoundError):
        raise
    except Exception as error:  # decoders raise whatever they meet: struct.error, zlib.error, KeyError, ...
        if "imagecodecs" in str(error):
            raise ValueError(
                f"{path} is compressed in a way that needs one more package: pip install imagecodecs, or "
                f"save it without compression. ({error})"
            ) from error
        with open(path, "rb") as file:
            start = file.read(64).lower()
        found = "a damaged file, one cut short or of another kind"
        if b"<html" in start or b"<!doc" in start:
            found = "a web page saved under this name"
        raise ValueError(
            f"{path} cannot be read: expected {expected}, found {found} ({type(error).__name__}: {error}). "
            "Copy or export it again."
        ) from error


class PictureImage(ImageFile):
    """A picture, which is one section. `dpi` is (x, y), or None if the file does not say it."""

    kind, suffixes = "picture", (".png", ".jpg", ".jpeg", ".bmp")
    expected = f"a picture ({', '.join(suffixes)})"
    _count = 1

    def _read_header(self):
        with Image.open(self.path) as picture:
            mode = "RGBA" if picture.mode == "P" else picture.mode
            self.shape, self.dpi = picture.size[::-1], picture.info.get("dpi")
        self.dtype = returned_type(ImageMode.getmode(mode).typestr)

    def _read(self, k):
        with Image.open(self.path) as picture:
            return np.array(picture.convert("RGBA") if picture.mode == "P" else picture)


class TiffImage(ImageFile):
    """The pages of a TIFF. `tags` says how large a pixel of the first page is; `description` is its text."""

    kind, suffixes = "tiff", (".tif", ".tiff")
    expected = f"a TIFF ({', '.join(suffixes)})"

    def _read_header(self):
        tif = self._closing.enter_context(tifffile.TiffFile(self.path))
        if _is_cut_short(tif):
            raise EOFError("the file ends before its last page")
        first = tif.pages[0]
        names = ("XResolution", "YResolution", "ResolutionUnit")
        self.tags = {name: first.tags[name].value for name in names if name in first.tags}
        self.description = first.description
        # Pages that belong together are one series. If there are several series, the pages were written one by one.
        parts = [_TiffPart(source) for source in (tif.series if len(tif.series) == 1 else tif.pages)]
        ends = [part.end for part in parts] + [_end(page) for page in tif.pages]
        images = re.match(r"(?s)ImageJ=.*?\nimages=(\d+)", first.description)
        if images and len(tif.pages) == 1 and first.is_contiguous:
            # One page for all sections. If the file is cut short, tifffile finds one section only.
            ends.append(first.dataoffsets[0] + int(images[1]) * first.nbytes)
        if max(ends) > tif.filehandle.size:
            raise EOFError("the file ends before its last section")
        self._sections = [(part, k) for part in parts for k in range(part.count)]
        self._count = len(self._sections)
        self.shape, self.dtype = parts[0].shape, parts[0].dtype

    def _check(self):
        found = [(part.shape, part.dtype) for part, _ in self._sections]
        _refuse_mixed(self.path.parent, list(map(self.name, range(len(self)))), found)

    def _read(self, k):
        part, k = self._sections[k]
        return part.section(k)


class _TiffPart:
    """The sections of a TIFF series or page, read from the file one at a time."""

    def __init__(self, source):
        axes, shape, page = source.axes, source.shape, source.keyframe
        if len(axes) == 3 and "C" in axes and shape[axes.index("C")] > 4:
            axes = axes.replace("C", "I")  # what tifffile's ImageJ format makes of a bare (S, H, W) array
        # The place of each axis in a section (H, W, channels); -1 for an axis that counts sections (I, Z, T, ...).
        places = ["YXSC".find(axis) for axis in axes]
        self.counts = [size for size, place in zip(shape, places, strict=True) if place == -1]
        self.count = math.prod(self.counts)
        self.shape, self.dtype = tuple(shape[axes.index(axis)] for axis in "YX"), returned_type(source.dtype)
        self.source, self.places, self.whole = source, places, None
        is_series = isinstance(source, tifffile.TiffPageSeries)
        plain = not (is_series and source.transform)
        # 1. The sections are one block of the file. It may have a single page: ImageJ writes more than 4 GB like this.
        self.in_one_block = is_series and plain and source.dataoffset is not None
        self.end = source.dataoffset + math.prod(shape) * source.dtype.itemsize if self.in_one_block else 0
        # 2. They are pages: the first n axes count the pages, the others are those of a page.
        # 3. They are neither, as in bricks of several sections: then the whole source is read.
        self.pages, n = source if is_series else [source], len(shape) - len(page.shape)
        by_page = plain and shape[n:] == page.shape and min(places[n:]) >= 0 and set(places[:n]) <= {-1, 2, 3}
        by_page = by_page and math.prod(shape[:n]) == len(self.pages)
        self.numbers = np.arange(len(self.pages)).reshape(shape[:n]) if by_page else None

    def section(self, k):
        """Return section k, (H, W) or (H, W, channels), in which white is the larger value."""
        along = iter(np.unravel_index(k, self.counts))
        index = tuple(next(along) if place == -1 else slice(None) for place in self.places)
        if self.in_one_block:
            # The file is mapped again for each section: with one map, all that was read would stay in memory.
            pixels = np.array(self.source.asarray(out="memmap")[index])
        elif self.numbers is not None:
            numbers = np.asarray(self.numbers[index[: self.numbers.ndim]])
            pages = [self.pages[int(i)] for i in numbers.flat]
            if None in pages:
                raise EOFError(f"a page of section {k} is missing")
            pixels = np.stack([page.asarray() for page in pages])
            pixels = pixels.reshape(*numbers.shape, *pixels.shape[1:])
        else:
            if self.whole is None:
                self.whole = self.source.asarray()
            pixels = self.whole[index]
        # ImageJ stores masks with an inverting lookup table like this; tifffile does not apply it.
        if self.source.keyframe.photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype.kind in "bu":
            pixels = ~pixels
        return pixels.transpose(np.argsort([place for place in self.places if place >= 0], kind="stable"))


def _is_cut_short(tif):
    """Return whether the last page that tifffile found is followed by another, beyond the end of the file."""
    # Behind its tags a page holds the offset of the next page, and the last page holds 0. If an offset lies beyond the
    # end of the file, tifffile writes a log message and goes on.
    file, layout = tif.filehandle, tif.tiff
    start = tif.pages[-1].offset
    file.seek(start)
    (tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    file.seek(start + layout.tagnosize + tags * layout.tagsize)
    return file.read(layout.offsetsize) != bytes(layout.offsetsize)


def _end(page):
    """Return where the pixels of a page end in the file."""
    if page.is_contiguous:  # its byte counts may be rounded up
        return page.dataoffsets[0] + page.nbytes
    return max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)


def _refuse_mixed(folder, names, found):
    """Raise an error if the sections differ in shape or type; `found` holds (shape, type) of each."""
    for name, (shape, dtype) in zip(names, found, strict=True):
        if (shape, dtype) != found[0]:
            (H, W), first = found[0]
            raise ValueError(
                f"all sections must have one shape and type: in {folder}, {names[0]} is {H}×{W} {first} and {name} is "
                f"{shape[0]}×{shape[1]} {dtype}. Crop, resize or convert them alike, or move the odd ones elsewhere."
            )
