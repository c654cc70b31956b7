"""Sections of electron microscopy and their masks, from TIFF stacks or folders of images.

A stack has shape (S, H, W): S sections of H rows and W columns. Masks follow the ISBI 2012 challenge: white (True) is
the inside of a cell, the foreground; black (False) is membrane and everything else. From a folder to a network's input:

    sections = isbi.load("isbi2012").resized(256)
    train, val = sections.split(6)                  # the last six sections are for validation
    x = isbi.standardize(train.images)              # float32, mean 0 and variance 1 in each section

The challenge: Arganda-Carreras et al. 2015, Front. Neuroanat. 9:142. The images: Cardona et al. 2010,
PLoS Biol. 8:e1000502.
"""

import warnings
from pathlib import Path

import numpy as np

from tinyseg.data.files import list_contents
from tinyseg.data.sections import Sections
from tinyseg.data.stacks import load_stack, shape_in_words

# Names of the images and of the labels in a folder, first for files of the challenge, then for sub-folders of sections.
# The first name that exists is taken.
LAYOUTS = (
    (("train-volume.tif", "train-volume.tiff"), ("train-labels.tif", "train-labels.tiff")),
    (
        ("images", "image", "imgs", "img", "volume", "raw", "train"),
        ("labels", "label", "masks", "mask", "membranes", "membrane", "gt"),
    ),
)


def load(path, labels="auto", foreground="white"):
    """Read sections and their masks, if there are any.

    Parameters
    ----------
    path : str or Path
        A folder with the challenge's files (``train-volume.tif``, ``train-labels.tif``), or with a sub-folder of
        images and one of labels (PNG or TIFF, paired in natural order: 2 before 10). It may also be a TIFF stack,
        unless `labels` is "required", and a folder of sections if `labels` is None or a path.
    labels : str, Path or None
        ``"auto"``: the labels in that folder, if there are any. ``"required"``: the same, but without labels it is
        an error. None: images only. Otherwise the path of the labels, a TIFF stack or a folder of sections.
    foreground : "white" or "black"
        How the inside of cells is stored in the masks.

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
    image_path, label_path = _find(Path(path), labels)
    images, names = load_stack(image_path)
    if label_path is None:
        return Sections(images, None, names)
    masks, mask_names = load_stack(label_path)
    if masks.shape != images.shape:
        raise ValueError(
            f"images and labels must be the same sections: {image_path} has {shape_in_words(images)}, "
            f"{label_path} has {shape_in_words(masks)}. Give each section one mask of its own size."
        )
    masks = binarize_labels(masks, [f"{name} in {label_path}" for name in mask_names], foreground)
    return Sections(images, masks, names)


def binarize_labels(stack, name, foreground="white"):
    """Turn masks of two values into bool, True on the foreground.

    Parameters
    ----------
    stack : ndarray, (S, H, W)
        Any two values, such as 0 and 255; the larger one is white.
    name : str or sequence of str
        Name of the stack, or of each section, for messages.
    foreground : "white" or "black"
        Which of the two values is the inside of cells.

    Returns
    -------
    ndarray of bool, (S, H, W)

    Raises
    ------
    ValueError
        The stack does not have exactly two values, or `foreground` is something else.

    Warns
    -----
    UserWarning
        The foreground is less than half of the pixels, as in an inverted mask.
    """
    if foreground not in ("white", "black"):
        raise ValueError(f'foreground must be "white" or "black", found {foreground!r}.')
    names = [f"{name}[{i}]" for i in range(len(stack))] if isinstance(name, str) else list(name)
    values = np.array([], stack.dtype)
    for section, section_name in zip(stack, names, strict=True):
        values = np.union1d(values, section)
        if len(values) > 2:
            shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
            raise ValueError(
                f"a mask must have exactly two values, such as 0 and 255: found {len(values)} ({shown}) "
                f"up to {section_name}. Was it saved as JPEG, or resized with interpolation? Threshold it, "
                "and save it as PNG or TIFF."
            )
    if len(values) != 2:
        raise ValueError(
            f"a mask must have exactly two values, such as 0 and 255: found only {values.tolist()} in all of "
            f"{names[0]} to {names[-1]}. Is this the right file, and does it hold the drawn membranes?"
        )
    black, white = values
    labels, other = (stack == white, "black") if foreground == "white" else (stack == black, "white")
    share = labels.mean()
    if share < 0.5:
        warnings.warn(
            f"only {share:.0%} of {names[0]} to {names[-1]} is foreground (inside of cells), and in electron "
            f'microscopy it is most of the area. If the mask is inverted, use foreground="{other}".',
            stacklevel=2,
        )
    return labels


def standardize(images, how="section"):
    """Scale grey values to what a network takes.

    Parameters
    ----------
    images : ndarray, (S, H, W)
        Integers or floats.
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
        `how` is something else, or floats are outside of [0, 1] for "unit".
    """
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


def _normalize(x):
    if x.min() == x.max():  # a blank section; its rounded variance may not be exactly 0
        return np.zeros(x.shape, np.float32)
    x = x.astype(np.float64)
    return ((x - x.mean()) / x.std()).astype(np.float32)


def _find(path, labels):
    """Return the path of the images, and the path of the labels or None."""
    search = labels in ("auto", "required")
    given = None if search or labels is None else Path(labels)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected a folder with train-volume.tif or a stack.")
    if path.is_file():
        if labels == "required":
            raise ValueError(f"{path} is one file: give the folder that holds images and labels.")
        return path, given
    entries = _entries(path)
    for image_names, label_names in LAYOUTS:
        image, label = (_first(entries, names) for names in (image_names, label_names))
        if image and labels == "required" and not label:
            raise FileNotFoundError(
                f"no labels in {path}: looked for {', '.join(label_names)} to go with {image.name}. "
                f"There is: {list_contents(path)}."
            )
        if image:
            return image, label if search else given
    if not search:
        return path, given
    raise FileNotFoundError(
        f"no images in {path}: looked for train-volume.tif and train-labels.tif (or .tiff), or for a "
        f"sub-folder of images ({', '.join(LAYOUTS[1][0])}) and one of labels ({', '.join(LAYOUTS[1][1])}). "
        f"There is: {list_contents(path)}."
    )


def holds_sections(folder):
    """Whether a folder has images under one of the names that `load` looks for."""
    entries = _entries(Path(folder))
    return any(_first(entries, image_names) for image_names, _ in LAYOUTS)


def _entries(folder):
    """Return the paths of what a folder holds, by their names in small letters."""
    return {p.name.casefold(): p for p in folder.iterdir()}


def _first(entries, names):
    return next((entries[name] for name in names if name in entries), None)
