"""Sections of electron microscopy and their masks, from TIFF stacks or folders of images.

A stack has shape (S, H, W): S sections of H rows and W columns. Masks follow the ISBI 2012 challenge: white (True) is
the inside of a cell, the foreground; black (False) is membrane and everything else; `tinyseg.data.masks` says what else
is understood. From a folder to a network's input:

    sections = isbi.load("isbi2012").resized(256)
    train, val = sections.split(6)                  # the last six sections are for validation
    x = isbi.standardize(train.images)              # float32, mean 0 and variance 1 in each section

The challenge: Arganda-Carreras et al. 2015, Front. Neuroanat. 9:142. The images: Cardona et al. 2010,
PLoS Biol. 8:e1000502.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from tinyseg.data.class_masks import Classes, find_class_names, find_classes
from tinyseg.data.files import find_files, folders_in, list_contents, list_names, refuse_missing
from tinyseg.data.masks import binarize_labels, numbered_objects
from tinyseg.data.other_kinds import how_to_convert
from tinyseg.data.pairs import split_masks
from tinyseg.data.predictions_json import written_in
from tinyseg.data.sections import Sections
from tinyseg.data.stacks import SUFFIXES, load_pairs, load_stack, pictures_in
from tinyseg.data.writing import FilePath

# Names of the images and of the labels in a folder, first for files of the challenge, then for sub-folders of sections.
LAYOUTS = (
    (("train-volume.tif", "train-volume.tiff"), ("train-labels.tif", "train-labels.tiff")),
    (
        ("images", "image", "imgs", "img", "volume", "raw", "train", "imagestr"),
        ("labels", "label", "masks", "mask", "membranes", "membrane", "gt", "labelstr"),
    ),
)


def load(
    path: FilePath,
    labels: FilePath | list[Path] | None = "auto",
    foreground: Literal["white", "black"] = "white",
    classes: Classes | Literal["auto"] | None = None,
) -> Sections:
    """Read sections and their masks, if there are any.

    Parameters
    ----------
    path : str or Path
        A folder with the challenge's files (``train-volume.tif``, ``train-labels.tif``), with a sub-folder of images
        and one of labels (PNG or TIFF), or with images and their masks side by side (``a.png``, ``a_mask.png``). Files
        are paired by their names (`tinyseg.data.pairs`). It may also be a TIFF stack, unless `labels` is "required",
        and a folder of sections if `labels` is None or a path.
    labels : str, Path, list of Path or None
        ``"auto"``: the labels in that folder, if there are any. ``"required"``: the same, but without labels it is
        an error. None: images only. Otherwise the path of the labels, a TIFF stack or a folder of sections, or a list
        of their files.
    foreground : "white" or "black"
        How the inside of cells is stored in the masks.
    classes : Classes, "auto" or None
        None: masks have a foreground. "auto": they may have several classes (`tinyseg.data.class_masks.find_classes`),
        which a ``classes.json`` names that lies beside the masks, in the folder above, or in `path`. `Classes` says
        which they are. The labels then are numbers of classes, and have no foreground.

    Returns
    -------
    Sections

    Raises
    ------
    FileNotFoundError
        The path does not exist, or the folder has no images or no labels; the message lists what it has.
    ValueError
        A file cannot be read, is no section or no mask, or images and labels do not match.
    """
    image_path, label_path = find_images_and_labels(path, labels)
    if label_path is None:
        images, names = load_stack(image_path)
        return Sections(images, None, names)
    if classes == "auto":
        classes = find_class_names(*_folders_of(label_path), Path(path)) or "auto"
    palettes: Any = "colours" if classes is None else "auto" if classes == "auto" else "numbers"
    images, names, masks, mask_names = load_pairs(image_path, label_path, palettes=palettes)
    place = label_path[0].parent if isinstance(label_path, list) else label_path
    if np.array_equal(images, masks) and images.min() < images.max():
        raise ValueError(
            f"images and labels are the same pictures, {names[0]} and {mask_names[0]} in {place} among them: expected "
            "grey images and masks of them. Was one folder copied for the other?"
        )
    mask_names = [f"{name} in {place}" for name in mask_names]
    found = classes and find_classes(masks, None if classes == "auto" else classes)
    if found:
        return Sections(images, found.number(masks, mask_names), names, found)
    objects = numbered_objects(masks)
    return Sections(images, binarize_labels(masks, mask_names, foreground), names, objects=objects)


def _folders_of(label_path):
    """Return the folder of the masks, and the one above a folder of masks, for what names their classes."""
    if isinstance(label_path, list) or label_path.is_file():
        return ((label_path[0] if isinstance(label_path, list) else label_path).parent,)
    return label_path, label_path.absolute().parent


def standardize(images: ArrayLike, how: Literal["section", "stack", "unit"] = "section") -> np.ndarray:
    """Scale grey values to what a network takes.

    Parameters
    ----------
    images : array_like, (S, H, W)
        Integers or floats. A single image is ``image[None]``.
    how : "section", "stack" or "unit"
        "section", "stack": mean 0 and variance 1 in each section, or over the stack. "unit": the range of the integer
        type becomes [0, 1] (255 becomes 1 for 8 bits); floats must be in [0, 1] already and keep their values.

    Returns
    -------
    ndarray of float32, (S, H, W)
        Zeros if a section, or the stack, has only one grey value.

    Raises
    ------
    ValueError
        `how` is something else; `images` are no real numbers, or masked, or have other axes; there are no pixels, or
        some are NaN, infinity or beyond float32; or floats are outside of [0, 1] for "unit".
    """
    images = _as_stack(images)
    if how == "section":
        return np.stack([_normalize(section) for section in images])
    if how == "stack":
        return _normalize(images)
    if how != "unit":
        raise ValueError(f'how must be "section", "stack" or "unit", found {how!r}.')
    if images.dtype.kind in "iu":
        limits = np.iinfo(images.dtype)
        return ((images.astype(np.float64) - limits.min) / (limits.max - limits.min)).astype(np.float32)
    if images.size and not 0 <= images.min() <= images.max() <= 1:
        raise ValueError(
            f'how="unit" expects float images in [0, 1], found [{images.min():g}, {images.max():g}]. '
            'Divide by the largest possible value first, or use how="section".'
        )
    return images.astype(np.float32)


def _as_stack(images) -> np.ndarray:
    """Return images as an array of real numbers (S, H, W) that float32 can hold, or raise a ValueError."""
    try:
        given = np.ma.asarray(images)  # which keeps the masks in a list too
    except ValueError as error:
        raise ValueError(f"images must be an array (S, H, W), but cannot be made one: {error}.") from None
    if np.ma.is_masked(given):
        raise ValueError("images must be an array (S, H, W), but are masked: fill them first, images.filled(value).")
    found = np.ma.getdata(given)
    if found.dtype.kind not in "biuf" or found.ndim != 3:
        mend = "give a single image as image[None]" if found.ndim == 2 else "give a stack of grey sections, each (H, W)"
        raise ValueError(
            f"images must be an array (S, H, W) of integers or floats, but are {found.dtype} {found.shape}: {mend}."
        )
    limit = np.finfo(np.float32).max
    if found.size == 0 or not -limit <= found.min() <= found.max() <= limit:  # NaN fails the comparisons
        raise ValueError(
            "images must have pixels, and finite ones that float32 can hold, to be standardized: found "
            f"{found.dtype} {found.shape}. Leave such images out, or divide very large values."
        )
    return found


def _normalize(x):
    if x.min() == x.max():  # a blank section; its rounded variance may not be exactly 0
        return np.zeros(x.shape, np.float32)
    if x.dtype.kind in "iu" and x.itemsize == 8:  # beyond 2**53, floats would lose the differences
        x = (x - x.min()).view(np.uint64)  # which undoes where int64 has wrapped around
    x = x.astype(np.float64)
    return ((x - x.mean()) / x.std()).astype(np.float32)


def find_images_and_labels(
    path: FilePath, labels: FilePath | list[Path] | None = "auto"
) -> tuple[Path | list[Path], Path | list[Path] | None]:
    """Return where the images are that `load` would read, and where their labels are, or None.

    Each is a file, a folder, or a list of files.
    """
    path, search = Path(path), labels in ("auto", "required")
    given = labels if isinstance(labels, list) else None if search or labels is None else Path(labels)
    refuse_missing(path, "a folder with train-volume.tif or a stack")
    if path.is_file():
        if labels == "required":
            raise ValueError(f"{path} is one file: give the folder that holds images and labels, or its labels too.")
        return path, given
    for image_names, label_names in LAYOUTS:
        image = _find(path, image_names)
        label = _find(path, label_names) if image and search else None
        if image and labels == "required" and not label:
            raise FileNotFoundError(
                f"no labels in {path}: looked for {', '.join(label_names)} to go with {image.name}. "
                f"There is: {list_contents(path)}.{_further_in(path)}{how_to_convert(path.iterdir())}"
            )
        if image:
            return image, label if search else given
    if not search:
        return path, given
    if any(file.name.lower().endswith(SUFFIXES) for file in path.iterdir()):
        predicted = written_in(path)
        found = (file for file in find_files(path, SUFFIXES, "sections") if file.name not in predicted)
        files = {file.name: file for file in found}
        images, masks = ([files[name] for name in part] for part in split_masks(list(files)))
        if masks:
            return images, masks
    raise FileNotFoundError(
        f"no images in {path}: looked for train-volume.tif and train-labels.tif (or .tiff), for a "
        f"sub-folder of images ({', '.join(LAYOUTS[1][0])}) and one of labels ({', '.join(LAYOUTS[1][1])}), or for "
        f"images with masks beside them (cell.png, cell_mask.png). There is: {list_contents(path)}."
        f"{_further_in(path)}{how_to_convert(path.iterdir())}"
    )


def holds_sections(folder: FilePath) -> bool:
    """Whether a folder has images under one of the names that `load` looks for."""
    return any(_named(folder, image_names) for image_names, _ in LAYOUTS)


def holds_stack(folder: FilePath) -> bool:
    """Whether a folder has the challenge's images, which `load` reads without the other files in it."""
    return bool(_named(folder, LAYOUTS[0][0]))


def _named(folder, names):
    """Return the paths in a folder that have one of these names, capitals aside."""
    return sorted(path for path in Path(folder).iterdir() if path.name.casefold() in names)


def _find(folder, names):
    """Return the path in a folder that has one of these names, or None. Several that hold images are a ValueError."""
    found = _named(folder, names)
    full = [path for path in found if path.is_file() or (path.is_dir() and pictures_in(path))]
    if len(full) > 1:
        raise ValueError(
            f"{folder} has {' and '.join(path.name for path in full)}: expected one of them, as it is not known which "
            "is meant. Move the others elsewhere."
        )
    return next(iter(full or found), None)


def _further_in(path):
    """Return a sentence that names the folders in a folder that hold images and labels; without any, an empty text."""
    inner = [p for p in folders_in(path) if all(_named(p, n) for n in LAYOUTS[1]) or split_masks(pictures_in(p))[1]]
    if len(inner) == 1:
        return f" {inner[0]} holds images and labels: give that folder."
    if not inner:
        return ""
    names = list_names([p.name for p in inner])
    return (
        f" Folders in it hold images and labels of their own ({names}): give one of them, or gather all images in one "
        "folder and all labels in another; if an image has a mask for each object, join its masks."
    )
