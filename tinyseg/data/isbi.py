"""Sections of electron microscopy and their masks, from TIFF stacks or folders of images.

A stack has shape (S, H, W): S sections of H rows and W columns. Masks follow the ISBI 2012 challenge:
white (True) is the inside of a cell, the foreground; black (False) is membrane and everything else.
The usual way from a folder to what a network takes:

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

# Names of images and labels in a folder, of which the first that exists is taken: files of the challenge, or
# sub-folders of sections.
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
        A folder laid out like the challenge (``train-volume.tif``, ``train-labels.tif``), or with a
        sub-folder of images and one of labels (PNG or TIFF, paired in natural order: 2 before 10).
        If `labels` is None or a path, it may also be a TIFF stack or a folder of sections.
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
        The folder does not hold what was looked for; the message lists both.
    ValueError
        A file cannot be read, is not what it should be, or images and labels do not match.
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
        Name of the stack, or of each section, in messages.
    foreground : "white" or "black"
        Which of the two is the inside of cells.

    Returns
    -------
    ndarray of bool, (S, H, W)

    Raises
    ------
    ValueError
        There are not exactly two values in the stack.

    Warns
    -----
    UserWarning
        The foreground is less than half of the pixels, as in a mask stored the other way round.
    """
    if foreground not in ("white", "black"):
        raise ValueError(f'foreground must be "white" or "black", found {foreground!r}.')
    names = [f"{name}[{i}]" for i in range(len(stack))] if isinstance(name, str) else list(name)
    values = np.array([], stack.dtype)
    for section, section_name in zip(stack, names, strict=True):
        values = np.union1d(values, section)
        if len(values) > 2:
            shown = ", ".join([*map(str, values[:6]), *(["..."] if len(values) > 6 else [])])
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
    labels = stack == values[1 if foreground == "white" else 0]
    share = labels.mean()
    if share < 0.5:
        other = "black" if foreground == "white" else "white"
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
        Mean 0 and variance 1 in each section, or over the stack; or "unit": the range of the integer
        type to [0, 1] (255 to 1 for 8 bits), and floats, which must be in [0, 1] already, unchanged.

    Returns
    -------
    ndarray of float32, (S, H, W)
        Zeros where "section" or "stack" meets only one grey value.

    Raises
    ------
    ValueError
        Another `how`, or floats outside [0, 1] for "unit".
    """
    if how == "section":
        return np.stack([_normalize(section) for section in images])
    if how == "stack":
        return _normalize(images)
    if how != "unit":
        raise ValueError(f'how must be "section", "stack" or "unit", found {how!r}.')
    if images.dtype.kind in "iu":
        low, high = np.iinfo(images.dtype).min, np.iinfo(images.dtype).max
        return ((images.astype(np.float64) - low) / (high - low)).astype(np.float32)
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
    automatic = labels in ("auto", "required")
    given = None if automatic or labels is None else Path(labels)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected a folder with train-volume.tif or a stack.")
    if path.is_file():
        if labels == "required":
            raise ValueError(f"{path} is one file: give the folder that holds images and labels.")
        return path, given
    entries = {p.name.casefold(): p for p in path.iterdir()}
    for image_names, label_names in LAYOUTS:
        image = next((entries[name] for name in image_names if name in entries), None)
        if image is None:
            continue
        if not automatic:
            return image, given
        label = next((entries[name] for name in label_names if name in entries), None)
        if label is None and labels == "required":
            raise FileNotFoundError(
                f"no labels in {path}: looked for {', '.join(label_names)} to go with {image.name}. "
                f"There is: {list_contents(path)}."
            )
        return image, label
    if not automatic:
        return path, given
    raise FileNotFoundError(
        f"no images in {path}: looked for train-volume.tif and train-labels.tif (or .tiff), or for a "
        f"sub-folder of images ({', '.join(LAYOUTS[1][0])}) and one of labels ({', '.join(LAYOUTS[1][1])}). "
        f"There is: {list_contents(path)}."
    )
