"""Stacks of grey sections from files: TIFF with one or more pages, PNG, folders of them.

A stack has shape (S, H, W): S sections of H rows and W columns. Everything that is not that (colour, damaged or
truncated files, sections of different shapes, NaN) is refused with a sentence that names the file.
"""

import re
import struct
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

TIFF_SUFFIXES = (".tif", ".tiff")
SUFFIXES = (*TIFF_SUFFIXES, ".png", ".jpg", ".jpeg", ".bmp")


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
        A file is damaged or of another kind, is in colour, holds NaN or infinity; or sections differ in
        shape or type.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    sections, names = [], []
    for file in _section_files(path):
        pages = _read(file)
        sections += pages
        names += [file.name] if len(pages) == 1 else [f"{file.name}[{i}]" for i in range(len(pages))]
    sections = [_grey(section, f"{name} in {folder}") for section, name in zip(sections, names, strict=True)]
    for section, name in zip(sections, names, strict=True):
        if (section.shape, section.dtype) != (sections[0].shape, sections[0].dtype):
            raise ValueError(
                f"all sections must have one shape and type: in {folder}, {names[0]} is "
                f"{shape_in_words(sections[0])} {sections[0].dtype} and {name} is "
                f"{shape_in_words(section)} {section.dtype}. "
                "Crop, resize or convert them alike, or move the odd ones to another folder."
            )
        if section.dtype.kind == "f" and not np.isfinite(section).all():
            raise ValueError(
                f"{name} in {folder} holds NaN or infinity: expected finite grey values. "
                "Replace them or leave the section out."
            )
    dtype = np.float32 if sections[0].dtype.kind == "f" else sections[0].dtype
    return np.stack(sections, dtype=dtype, casting="same_kind"), names


def listing(folder):
    """Name what a folder holds, for a message."""
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    return ", ".join(names[:12]) + (f", and {len(names) - 12} more" if len(names) > 12 else "") or "nothing"


def _section_files(path):
    if path.is_file():
        return [path]
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected a TIFF stack or a folder of sections.")
    # Hidden files are left out: archives made on a Mac hold a "._name" beside each name.
    files = [p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    if not files:
        raise FileNotFoundError(
            f"no sections in {path}: looked for files ending in {', '.join(SUFFIXES)}. There is: {listing(path)}."
        )
    if {"train-volume", "train-labels"} <= {p.stem.casefold() for p in files}:
        raise ValueError(f"{path} holds images and labels: give one file of it, such as train-volume.tif.")
    return sorted(files, key=_natural)


def _natural(path):
    parts = re.split(r"(\d+)", path.name)  # text and digits take turns, text first
    return [int(part) if i % 2 else part.casefold() for i, part in enumerate(parts)]


def _read(path):
    """The sections of one file: a list of (H, W) or (H, W, channels) arrays."""
    try:
        if path.suffix.lower() not in TIFF_SUFFIXES:
            with Image.open(path) as image:
                return [np.asarray(image.convert("RGBA") if image.mode == "P" else image)]
        with tifffile.TiffFile(path) as tif:
            if _is_cut_short(tif):
                raise EOFError("the file ends before its last page")
            if len(tif.series) == 1:
                return _upright(tif.series[0])
            return [section for page in tif.pages for section in _upright(page)]  # written one by one
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # decoders raise whatever they meet: struct.error, zlib.error, KeyError, ...
        if "imagecodecs" in str(error):
            raise ValueError(
                f"{path} is compressed in a way that needs one more package: pip install imagecodecs, or "
                f"save it without compression. ({error})"
            ) from error
        raise ValueError(
            f"{path} cannot be read: expected an image ({', '.join(SUFFIXES)}), found a damaged file, one "
            f"cut short or of another kind ({type(error).__name__}: {error}). Copy or export it again."
        ) from error


def _is_cut_short(tif):
    """Whether the last page that tifffile found names a further one, beyond the end of the file.

    The end of a chain of pages is an offset of 0. tifffile only logs an offset that leads nowhere, and
    returns the pages before it.
    """
    file, layout = tif.filehandle, tif.tiff
    start = tif.pages[-1].offset
    file.seek(start)
    (tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    file.seek(start + layout.tagnosize + tags * layout.tagsize)
    return file.read(layout.offsetsize) != bytes(layout.offsetsize)


def _upright(source):
    """The sections of a TIFF page or series, channels last, white being the larger value."""
    pixels = source.asarray()
    # ImageJ stores masks with an inverting lookup table like this; tifffile does not apply it.
    if source.keyframe.photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype.kind in "bu":
        pixels = ~pixels
    axes = source.axes
    if pixels.ndim == 3 and "C" in axes and pixels.shape[axes.index("C")] > 4:
        axes = axes.replace("C", "I")  # what tifffile's ImageJ format makes of a bare (S, H, W) array
    rank = ["YXSC".find(axis) for axis in axes]  # -1: an axis of sections (I, Z, T, ...)
    pixels = pixels.transpose(np.argsort(rank, kind="stable"))
    return list(pixels.reshape(-1, *pixels.shape[rank.count(-1) :]))


def _grey(section, name):
    """(H, W) of a section that may be grey saved as RGB(A)."""
    if section.dtype.kind not in "biuf":
        raise ValueError(f"{name} has values of type {section.dtype}: expected grey integers or floats.")
    if section.ndim == 3 and section.shape[-1] in (2, 4):
        opacity = section[..., -1]
        section = section[..., :-1] if opacity.min() == opacity.max() else section
    if section.ndim == 3 and (section == section[..., :1]).all():
        section = section[..., 0]
    if section.ndim != 2:
        raise ValueError(
            f"{name} is in colour or has several channels (shape {section.shape}): expected grey. "
            "Convert it to grey (in Fiji: Image > Type > 8-bit), or save the one channel to use."
        )
    return section


def shape_in_words(x):
    """Say a shape in words: '24 sections of 512×512' or '512×512'."""
    size = f"{x.shape[-2]}×{x.shape[-1]}"
    return size if x.ndim == 2 else f"{len(x)} section{'s' * (len(x) != 1)} of {size}"
