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

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from tinyseg.data.stacks import listing, load_stack, shape_in_words

# What images and labels are called in a folder, the first that is there being taken: files of the
# challenge, or sub-folders of sections.
LAYOUTS = (
    (("train-volume.tif", "train-volume.tiff"), ("train-labels.tif", "train-labels.tiff")),
    (
        ("images", "image", "imgs", "img", "volume", "raw", "train"),
        ("labels", "label", "masks", "mask", "membranes", "membrane", "gt"),
    ),
)


@dataclass
class Sections:
    """Sections, their masks, and what to call them.

    Attributes
    ----------
    images : ndarray, (S, H, W)
        Grey values as they were stored: bool, an integer type, or float32.
    labels : ndarray of bool, (S, H, W), or None
        True inside of a cell (white), False on membrane.
    names : list of str
        One a section: ``"train-volume.tif[3]"`` for a page of a stack (from 0), or the file's name.

    Raises
    ------
    ValueError
        Images, labels and names differ in number or shape.
    """

    images: np.ndarray
    labels: np.ndarray | None
    names: list[str]

    def __post_init__(self):
        if self.images.ndim != 3 or len(self.images) != len(self.names):
            raise ValueError(
                f"images must be (S, H, W) with one name a section: "
                f"found shape {self.images.shape} and {len(self.names)} names."
            )
        if self.labels is not None and self.labels.shape != self.images.shape:
            raise ValueError(f"labels {self.labels.shape} must have the shape of images {self.images.shape}.")

    def __len__(self):
        return len(self.images)

    def _select(self, index):
        labels = None if self.labels is None else self.labels[index]
        return Sections(self.images[index], labels, [self.names[i] for i in index])

    def split(self, val_sections):
        """Split into training and validation sections, the latter contiguous.

        Neighbouring sections look alike, so that a random choice would leak training into validation.

        Parameters
        ----------
        val_sections : int or str
            k > 0 holds out the last k sections; ``"a:b"`` holds out sections a, a+1, ..., b-1 (from 0).

        Returns
        -------
        train, val : Sections

        Raises
        ------
        ValueError
            Something else is given, or nothing is left on one side.
        """
        n = len(self)
        given = re.fullmatch(r"(?:(\d+):)?(\d+)", str(val_sections))
        if given is None:
            raise ValueError(
                f"validation sections {val_sections!r}: expected a number k > 0 (the last k sections) "
                'or "a:b" (sections a to b-1, counted from 0).'
            )
        start, stop = (n - int(given[2]), n) if given[1] is None else (int(given[1]), int(given[2]))
        if not 0 <= start < stop <= n or stop - start == n:
            raise ValueError(
                f"validation sections {val_sections!r} of {n}: both training and validation need at least "
                f"one section. Give a number from 1 to {n - 1}, or a:b with 0 <= a < b <= {n}, but not all."
            )
        index = np.arange(n)
        held_out = (index >= start) & (index < stop)
        return self._select(index[~held_out]), self._select(index[held_out])

    def resized(self, size):
        """Resample every section: images smoothed, labels nearest neighbour.

        When shrinking, both are read at the same source pixels (the image after a Gaussian that keeps finer detail
        from aliasing). Reading the image between the pixels, as resizing usually does, would put the labels a
        quarter of a pixel to one side at 512 -> 256, and to the other side once a sample is flipped.

        Parameters
        ----------
        size : int or (int, int)
            New height and width in pixels; one number means a square.

        Returns
        -------
        Sections
            Integer images are rounded to their own type. `self` where the size is that already.

        Raises
        ------
        ValueError
            The size is not positive.
        """
        height, width = (size, size) if np.isscalar(size) else size
        if not (height > 0 and width > 0):
            raise ValueError(f"size must be a positive number of pixels, or (height, width): found {size!r}.")
        H, W = self.images.shape[1:]
        if (height, width) == (H, W):
            return self
        rows, columns = _positions(H, height), _positions(W, width)
        grid = np.meshgrid(rows, columns, indexing="ij")
        sigma = _antialiasing(H, height), _antialiasing(W, width)

        def image(x):
            y = map_coordinates(gaussian_filter(x.astype(np.float64), sigma), grid, order=1, mode="nearest")
            return (y if x.dtype.kind == "f" else np.rint(y)).astype(x.dtype)

        nearest = np.ix_(*(np.floor(c + 0.5).astype(int) for c in (rows, columns)))
        labels = None if self.labels is None else np.stack([x[nearest] for x in self.labels])
        return Sections(np.stack([image(x) for x in self.images]), labels, list(self.names))


def _positions(source, target):
    """Where each of `target` pixels lies among `source` pixels: at the nearest one when shrinking."""
    centres = (np.arange(target) + 0.5) * source / target - 0.5
    return np.floor(centres + 0.5) if target < source else np.clip(centres, 0, source - 1)


def _antialiasing(source, target):
    """Deviation of the Gaussian that takes a pixel's blur, 0.5, to that of a pixel source/target times as large."""
    return 0.5 * np.sqrt(max((source / target) ** 2 - 1, 0))


def load(path, labels="auto", foreground="white"):
    """Read sections and, where there are any, their masks.

    Parameters
    ----------
    path : str or Path
        A folder laid out like the challenge (``train-volume.tif``, ``train-labels.tif``), or with a
        sub-folder of images and one of labels (PNG or TIFF, paired in natural order: 2 before 10).
        If `labels` is None or a path: also a TIFF stack or a folder of sections.
    labels : str, Path or None
        ``"auto"``: the labels in that folder, if they are there. ``"required"``: they must be.
        None: images only. Otherwise the path of the labels: a TIFF stack or a folder of sections.
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
        What to call the stack, or each section, in messages.
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
    """Where the images and the labels are: (path, path or None)."""
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
                f"There is: {listing(path)}."
            )
        return image, label
    if not automatic:
        return path, given
    raise FileNotFoundError(
        f"no images in {path}: looked for train-volume.tif and train-labels.tif (or .tiff), or for a "
        f"sub-folder of images ({', '.join(LAYOUTS[1][0])}) and one of labels ({', '.join(LAYOUTS[1][1])}). "
        f"There is: {listing(path)}."
    )
