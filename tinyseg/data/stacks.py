"""Grey sections in memory: TIFF stacks, pictures (PNG, JPEG, BMP), folders of them, and their masks, paired by name.

A stack has shape (S, H, W): S sections of H rows and W columns. Anything else (colour, damaged or truncated files,
sections of different shapes, NaN) is refused with an error that names the file.
"""

import math
import warnings
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from tinyseg.data.files import find_files, folders_in, list_names, with_ending
from tinyseg.data.memory import refuse_too_large
from tinyseg.data.other_kinds import how_to_convert
from tinyseg.data.pairs import match_names, page_order, split_masks
from tinyseg.data.pictures import PictureImage
from tinyseg.data.predictions_json import refuse_predictions
from tinyseg.data.tiffs import TiffImage, refuse_mixed
from tinyseg.data.writing import FilePath

Palettes: TypeAlias = Literal["colours", "numbers", "auto"]
READERS = (TiffImage, PictureImage)
SUFFIXES = tuple(suffix for reader in READERS for suffix in reader.suffixes)


def load_stack(
    path: FilePath | list[Path], masks: bool = False, palettes: Palettes = "colours"
) -> tuple[np.ndarray, list[str]]:
    """Read a TIFF stack, or a folder of sections in natural order (2 before 10).

    Parameters
    ----------
    path : str or Path, or list of Path
        A TIFF with one or more pages, one image file, a folder of them, or a list of files in the order wanted. Grey of
        any integer or float type; colour only if it is grey saved as RGB(A).
    masks : bool
        Whether these are masks: their files may differ in type, and may have two colours, one of them black or white.
    palettes : {"colours", "numbers", "auto"}
        What masks with a palette of colours hold: these, or the numbers of the colours. "auto": the numbers, unless all
        masks together have only two.

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
        the folder holds images and labels; or the stack is larger than this computer's memory.
    """
    files = find_sections(path)
    stack, names, _, _ = _read(files, masks, palettes)
    return stack, names


def load_pairs(
    path: FilePath | list[Path],
    label_path: FilePath | list[Path],
    what: tuple[str, str] = ("images", "labels"),
    palettes: Palettes = "colours",
) -> tuple[np.ndarray, list[str], np.ndarray, list[str]]:
    """Read sections and their masks, or predictions of them; `pair_files` says which belong together.

    Parameters
    ----------
    path, label_path : str or Path, or list of Path
        See `load_stack`.
    what : (str, str)
        What the two are, for messages.
    palettes : {"colours", "numbers", "auto"}
        Of the masks, see `load_stack`.

    Returns
    -------
    stack : ndarray, (S, H, W)
    names : list of str
    masks : ndarray, (S, H, W)
    mask_names : list of str

    Raises
    ------
    FileNotFoundError, ValueError
        What `load_stack` and `pair_files` raise; partners differ in their numbers of sections, or in shape; or masks
        are predictions of predict.py.
    """
    files, label_files = pair_files(path, label_path, what)
    refuse_predictions(label_files)
    stack, names, counts, axes = _read(files, masks=False)
    masks, mask_names, mask_counts, mask_axes = _read(label_files, masks=True, palettes=palettes)
    if len(files) == len(label_files):
        for file, label, one, other in zip(files, label_files, axes, mask_axes, strict=True):
            if min(len(one), len(other)) > 1 and list(one.items()) != list(other.items()):
                in_words = [", ".join(f"{axis} {size}" for axis, size in each.items()) for each in (one, other)]
                raise ValueError(
                    f"{what[0]} and {what[1]} are paired page by page, and the pages of {file} are counted by "
                    f"{in_words[0]}, those of {label} by {in_words[1]}. Save both with their axes in one order."
                )
    if len(files) == len(label_files) > 1:
        for file, label, n, m in zip(files, label_files, counts, mask_counts, strict=True):
            if n != m:
                raise ValueError(
                    f"{what[0]} and {what[1]} must be the same sections: {file} has {n} and {label} has {m}. "
                    "Give each section one mask."
                )
    if stack.shape != masks.shape:
        raise ValueError(
            f"{what[0]} and {what[1]} must be the same sections: {_place(path)} has {shape_in_words(stack)}, "
            f"{_place(label_path)} has {shape_in_words(masks)}. Give each section one mask of its own size."
        )
    return stack, names, masks, mask_names


def find_sections(path):
    """List the files of a folder of sections in natural order; or the one file that `path` is; a list is returned.

    A folder that holds images and their masks is a ValueError, and one without sections a FileNotFoundError.
    """
    if isinstance(path, list):
        return path
    files = find_files(path, SUFFIXES, "sections")
    inner = [p.name for p in (folders_in(Path(path)) if Path(path).is_dir() else ()) if pictures_in(p)]
    if inner:
        said = (
            f"{path} holds folders of pictures, which are left out: {list_names(inner)}. Move theirs up if they belong."
        )
        warnings.warn(said, stacklevel=4)
    images, masks = split_masks([file.name for file in files])
    if masks:
        raise ValueError(
            f"{path} holds images and labels: give one file of it, such as {images[0]}, or move the labels "
            f"({list_names(masks)}) to a folder of their own."
        )
    return files


def pair_files(path, other_path, what=("images", "labels")):
    """List the files of two places so that partners stand at the same index.

    - Two files are partners, whatever their names; their pages belong together in order.
    - Files of two folders are paired by their names, see `tinyseg.data.pairs`; so are the stacks of two folders.
    - The files of a folder belong to the pages of one stack if the numbers in their names count the pages.

    Parameters
    ----------
    path, other_path : str or Path, or list of Path
        See `load_stack`. Files in a list are paired by their names.
    what : (str, str)
        What the two are, for messages.

    Returns
    -------
    files, others : list of Path
        In natural order of the first, or of the numbers.

    Raises
    ------
    ValueError
        A file has no partner or several, or numbers do not count the pages.
    """
    files, others = find_sections(path), find_sections(other_path)
    one_given = any(not isinstance(p, list) and Path(p).is_file() for p in (path, other_path))
    if one_given and len(files) == len(others) == 1:
        return files, others
    if 1 in (len(files), len(others)) and len(files) != len(others):
        stack, folder = (files[0], others) if len(files) == 1 else (others[0], files)
        with reader_of(stack)(stack) as image:
            pages = len(image)
        order = page_order([file.name for file in folder]) if pages == len(folder) else None
        if order is not None:
            folder = [folder[k] for k in order]
            return (files, folder) if len(files) == 1 else (folder, others)
        if one_given or pages > 1:
            raise ValueError(
                f"{what[0]} and {what[1]} cannot be paired: pages have no names, so the files of {folder[0].parent} "
                f"must be numbered from 0 or 1 and be as many as the pages of {stack}, which has {pages}. There is: "
                f"{list_names([file.name for file in folder])}. Give the one that belongs to it by itself; or "
                "save both as stacks, or both as files of one name."
            )
    by_name = {file.name: file for file in others}
    return files, [by_name[name] for name in match_names([file.name for file in files], list(by_name), what)]


def pictures_in(folder: Path) -> list[str]:
    """Return the names of the files in a folder that are named as pictures or stacks; hidden ones do not count."""
    return [path.name for path in with_ending(folder.iterdir(), SUFFIXES)]


def reader_of(path, readers=READERS):
    """Return the class among `readers` that reads a file, by the ending of its name; else raise a ValueError."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give one image of it, or list them with find_images.")
    for reader in readers:
        if path.name.lower().endswith(reader.suffixes):
            return reader
    suffixes = ", ".join(suffix for reader in readers for suffix in reader.suffixes)
    raise ValueError(
        f"{path} is of a kind that is not read: expected a file ending in {suffixes}.{how_to_convert([path])}"
    )


def shape_in_words(stack):
    """Describe the shape of a stack (S, H, W): "24 sections of 512×512"."""
    S, H, W = stack.shape
    return f"1 section of {H}×{W}" if S == 1 else f"{S} sections of {H}×{W}"


def _read(files, masks, palettes="colours"):
    """Return the sections of files as a stack, their names, and how many each file has, in all and along its axes."""
    sections, names, counts, axes, size = [], [], [], [], 0
    for file in files:
        with reader_of(file)(file) as image:
            image.palette_numbers = palettes != "colours"
            size += len(image) * math.prod(image.shape) * image.dtype.itemsize
            refuse_too_large(size, f"the stack of {files[0]}{' and others' * (len(files) > 1)}")
            sections += [section[0] for section in (image.section(k, two_colours=masks) for k in range(len(image)))]
            names += map(image.name, range(len(image)))
            counts.append(len(image))
            axes.append(image.axes)
    found = [(section.shape, sections[0].dtype if masks else section.dtype) for section in sections]
    refuse_mixed(files[0].parent, names, found)
    stack = np.stack(sections)
    if palettes == "auto" and len(np.unique(np.concatenate([np.unique(section) for section in stack]))) <= 2:
        return _read(files, masks)  # two colours, of which the brighter one is white whatever their numbers
    return stack, names, counts, axes


def _place(path):
    """Return where files are, for a message."""
    return path[0].parent if isinstance(path, list) else path
