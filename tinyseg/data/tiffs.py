"""TIFF stacks: the pages of a file as sections, read as they are shown."""

import contextlib
import math
import re
import struct
import warnings

import numpy as np
import tifffile

from tinyseg.data import ome
from tinyseg.data.files import list_names
from tinyseg.data.image_file import ImageFile, oriented, returned_type
from tinyseg.data.memory import DEFLATE, refuse_impossible

KINDS = tifffile.PHOTOMETRIC  # what the values of a page are
GDAL_NODATA = 42113  # the tag in which GeoTIFF says which value stands for no data
# How many times as many bytes these kinds of packing can make at most; others are not known.
PACKINGS = tifffile.COMPRESSION
FACTORS = {
    PACKINGS.NONE: 1, PACKINGS.PACKBITS: 64, PACKINGS.LZW: 3000, PACKINGS.ADOBE_DEFLATE: DEFLATE,
    PACKINGS.DEFLATE: DEFLATE, PACKINGS.LZMA: 10_000, PACKINGS.ZSTD: 40_000,
}  # fmt: skip
GREY_OR_RGB = (KINDS.MINISWHITE, KINDS.MINISBLACK, KINDS.RGB, KINDS.PALETTE, KINDS.YCBCR)  # YCbCr is decoded to RGB


class TiffImage(ImageFile):
    """The pages of a TIFF. `tags` says how large a pixel of the first page is; `description` is its text.

    `axes` says which axes count the sections, such as time and depth, and how many each has, from the slowest on.
    """

    kind, suffixes = "tiff", (".tif", ".tiff")
    expected = f"a TIFF ({', '.join(suffixes)})"

    def _read_header(self):
        tif = self._closing.enter_context(tifffile.TiffFile(self.path))
        if _is_cut_short(tif):
            raise EOFError("the file ends before its last page")
        pages = list(tif.pages)  # once, since tifffile reads the tags of all pages again each time
        first = pages[0]
        for page in pages:
            _refuse_short(page)
        if all(page.keyframe.compression in FACTORS for page in pages):  # pages may share what they are unpacked from
            refuse_impossible(
                sum(map(_unpacked_size, pages)),
                tif.filehandle.size,
                max(FACTORS[p.keyframe.compression] for p in pages),
                "it",
            )
        text = ome.read_text(tif)
        ome.refuse_claims(text, len(pages))
        self._others = ome.other_files(tif, text)
        names = ("XResolution", "YResolution", "ResolutionUnit")
        self.tags = {name: first.tags[name].value for name in names if name in first.tags}
        self.description = first.description
        parts = [_TiffPart(source) for source in _sources(tif, pages, self._others)]
        ends = [part.end for part in parts] + [_end(page) for page in pages]
        images = re.match(r"(?s)ImageJ=.*?\nimages=(\d+)", first.description)
        if images and len(pages) == 1 and first.is_contiguous:
            # One page for all sections. If the file is cut short, tifffile finds one section only.
            ends.append(first.dataoffsets[0] + int(images[1]) * first.nbytes)
        if max(ends) > tif.filehandle.size:
            raise EOFError("the file ends before its last section")
        self._sections = [(part, k) for part in parts for k in range(part.count)]
        self.axes = parts[0].axes if len(parts) == 1 else {}
        self._count = len(self._sections)
        self.shape, self.dtype, self.samples = parts[0].shape, parts[0].dtype, parts[0].samples
        if parts[0].orientation >= 5:  # rows become columns
            x, y = self.tags.get("XResolution"), self.tags.get("YResolution")
            self.tags |= {"XResolution": y, "YResolution": x}
        self._bare, self._colour = any(part.bare for part in parts), first.photometric
        self._no_data = _no_data(first)
        self._boolean = parts[0].white_is_zero and first.bitspersample == 1 and bool(first.is_shaped)

    def _check(self):
        if self._colour not in GREY_OR_RGB:
            name = getattr(self._colour, "name", self._colour)
            raise ValueError(f"{self.path} is in colour ({name}): expected grey. Convert it to grey (Fiji: 8-bit).")
        if self._boolean:
            raise ValueError(
                f"{self.path} is a boolean array of tifffile, and the file says that True is black: what is meant is "
                'not known. Save integers, 255 for white: tifffile.imwrite(path, 255 * mask.astype("uint8")).'
            )
        if self._bare:
            warnings.warn(
                f"{self.path} is read as a stack of {len(self)} sections, and not as one picture in colour: tifffile "
                'writes both alike. Write stacks with photometric="minisblack" to make that clear.',
                stacklevel=4,
            )
        if self._others:
            warnings.warn(
                f"{self.path} is one file of several that belong together: its own {len(self)} sections are read, and "
                f"no others ({list_names(self._others)}).",
                stacklevel=4,
            )
        self._refuse_channels_last()
        found = [(part.shape, part.dtype) for part, _ in self._sections]
        refuse_mixed(self.path.parent, list(map(self.name, range(len(self)))), found)

    def _refuse_channels_last(self):
        """Raise an error, or warn, if the sections look like an array (H, W, sections) or (H, W, channels)."""
        H, W = self.shape
        if min(H, len(self)) <= 2 * W:
            return
        said = (
            f"{self.path} is a stack of {len(self)} sections of {H}×{W} pixels. If its last axis counts sections or "
            "channels, save it with that axis first: numpy.moveaxis(array, -1, 0)."
        )
        if W <= 4:
            raise ValueError(said)
        warnings.warn(said, stacklevel=5)

    def _read(self, k):
        part, k = self._sections[k]
        self.opacity = part.opacity
        return part.section(k, self.palette_numbers)

    def _in_grey(self, section, name, two_colours):
        if self._no_data is not None and (share := (section == self._no_data).mean()):
            raise ValueError(
                f"{name} holds {self._no_data:g} in {share:.1%} of its pixels, which stands for no data (GDAL_NODATA): "
                "expected grey values. Cut these parts off, or give them a grey value."
            )
        return super()._in_grey(section, name, two_colours)


def _sources(tif, pages, others):
    """Return the series or the pages of a TIFF that hold its sections; those of other files are not looked for."""
    # 1 and 4: a smaller copy of another page, and its transparency.
    full = [page for page in pages if not page.keyframe.subfiletype & (1 | 4)] or pages
    if others:  # before `tif.series`, which opens them
        return [page.aspage() for page in full]
    # Pages that belong together are one series. If there are several series, the pages were written one by one, unless
    # a microscope's software says which of them are channels (OME, LSM, ...).
    plain = tif.series[0].kind in ("shaped", "uniform", "generic")
    if plain and len(pages) > 1 and any(map(_has_own_look, pages)):
        return [page.aspage() for page in full]  # each may have its own colours, and be turned in its own way
    # tifffile takes a page of half the size for a copy of the page before it, even if the file does not say so.
    if not plain or len(tif.series) == 1 and len({page.keyframe.shape for page in full}) == 1:
        return tif.series
    return full


def _has_own_look(page):
    """Return whether a page has a colour map or an orientation; a TiffFrame has what the first page has."""
    return isinstance(page, tifffile.TiffPage) and (page.photometric == KINDS.PALETTE or "Orientation" in page.tags)


class _TiffPart:
    """The sections of a TIFF series or page, read from the file one at a time."""

    def __init__(self, source):
        axes, shape, page = source.axes, source.shape, source.keyframe
        if len(axes) == 3 and "C" in axes and shape[axes.index("C")] > 4:
            axes = axes.replace("C", "I")  # what tifffile's ImageJ format makes of a bare (S, H, W) array
        self.bare = _is_bare_stack(source)
        if self.bare:
            axes = axes.replace("S", "I")
        # The place of each axis in a section (H, W, channels); -1 for an axis that counts sections (I, Z, T, ...).
        places = ["YXSC".find(axis) for axis in axes]
        self.counts = [size for size, place in zip(shape, places, strict=True) if place == -1]
        self.count = math.prod(self.counts)
        counted = zip(axes, shape, places, strict=True)
        self.axes = {axis: size for axis, size, place in counted if place == -1 and size > 1}
        self.shape = tuple(shape[axes.index(axis)] for axis in "YX")
        self.samples = math.prod(size for size, place in zip(shape, places, strict=True) if place > 1)
        self.opacity = "S" in axes and page.extrasamples[-1:] in ((1,), (2,))  # associated or not
        self.orientation = page.tags["Orientation"].value if "Orientation" in page.tags else 1
        if self.orientation in (5, 6, 7, 8):
            self.shape = self.shape[::-1]
        self.colours = _colour_map(page)
        # Without the tag, tifffile says the same.
        self.white_is_zero = page.photometric == KINDS.MINISWHITE and "PhotometricInterpretation" in page.tags
        self.dtype = returned_type(source.dtype if self.colours is None else self.colours.dtype)
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

    def section(self, k, palette_numbers=False):
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
        pixels = pixels.transpose(np.argsort([place for place in self.places if place >= 0], kind="stable"))
        if self.colours is not None and not (palette_numbers and np.ptp(self.colours, axis=1).any()):
            pixels = self.colours[pixels.view(np.uint8) if pixels.dtype == bool else pixels]
        # ImageJ stores masks with an inverting lookup table like this; tifffile does not apply it.
        elif self.white_is_zero:
            pixels = _mirrored(pixels, self.source.keyframe.bitspersample)
        return oriented(pixels, self.orientation)


def _mirrored(pixels, bits):
    """Exchange dark and bright: in the range of `bits` bits, or, of floats, by the sign."""
    if pixels.dtype.kind == "u":
        return np.array(2**bits - 1, pixels.dtype) - pixels
    return -pixels if pixels.dtype.kind == "f" else ~pixels


def _colour_map(page):
    """Return the colours of a page's values, (values, 3) uint8 or uint16, or None if it has no colour map."""
    if page.photometric != KINDS.PALETTE or page.colormap is None:
        return None
    colours = np.asarray(page.colormap).T  # 16 bits for each of red, green, blue
    if colours.max() < 256 or (colours % 257).any() and (colours % 256).any():
        # Some programs write numbers of 8 bits; others use all 16.
        return colours.astype(np.uint8 if colours.max() < 256 else np.uint16)
    return (colours >> 8).astype(np.uint8)


def _no_data(page):
    """Return the value that stands for no data in a GeoTIFF; None if it is 0, which is black, or not given."""
    with contextlib.suppress(ValueError, KeyError, OverflowError):
        value = float(str(page.tags[GDAL_NODATA].value).strip(" \0"))
        with np.errstate(over="ignore"):  # written with more digits than float32 has
            value = float(page.dtype.type(value)) if page.dtype.kind == "f" else value
        return value if value and math.isfinite(value) else None
    return None


def _is_bare_stack(source):
    """Return whether a series is an array (3 or 4, H, W), or (1, 3, H, W) and the like, taken for planes of colours.

    tifffile does so, with a warning, unless it is told that the array is grey.
    """
    page = source.keyframe
    if getattr(source, "kind", "") != "shaped" or source.axes[-3:] != "SYX" or page.planarconfig != 2:
        return False
    if math.prod(source.shape[:-3]) > 1:
        return False
    return f'"shape": {list(source.shape)}' in page.description and '"axes"' not in page.description


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


def _refuse_short(page):
    """Raise an EOFError if a page has fewer strips than its pixels need, or too few bytes in them."""
    parts, wanted = len(page.dataoffsets), math.prod(page.keyframe.chunked)
    if parts < wanted:
        raise EOFError(f"a page has {parts} of {wanted} strips or tiles")
    if page.keyframe.compression in FACTORS and not page.is_contiguous:
        refuse_impossible(_unpacked_size(page), sum(page.databytecounts), FACTORS[page.keyframe.compression], "a page")


def _unpacked_size(page):
    """Return the bytes of a page's pixels when they are unpacked."""
    return page.keyframe.size * page.keyframe.bitspersample // 8


def _end(page):
    """Return where the pixels of a page end in the file."""
    if page.is_contiguous:  # its byte counts may be rounded up
        return page.dataoffsets[0] + page.nbytes
    return max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)


def refuse_mixed(folder, names, found):
    """Raise an error if the sections differ in shape or type; `found` holds (shape, type) of each."""
    for name, (shape, dtype) in zip(names, found, strict=True):
        if (shape, dtype) != found[0]:
            (H, W), first = found[0]
            raise ValueError(
                f"all sections must have one shape and type: in {folder}, {names[0]} is {H}×{W} {first} and {name} is "
                f"{shape[0]}×{shape[1]} {dtype}. Crop, resize or convert them alike, or move the odd ones elsewhere."
            )
