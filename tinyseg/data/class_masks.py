"""Masks of several classes: which value of a mask is which class, and what the classes are called.

    classes = parse_class_names("background=0,nucleus=85,membrane=170,ignore=255")
    numbers = classes.number(masks, names)          # int16: 0, 1, 2, and -1 where the mask says "ignore"
    classes.write(numbers)                          # 0, 85, 170, and 255 again

A network has a channel for each class, in the order of `Classes.names`: the background first, then by the values.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from tinyseg.data.classes import check_names
from tinyseg.data.files import list_names
from tinyseg.data.json_files import check_shape, read_json
from tinyseg.data.masks import MOST_CLASSES, count_objects, have_own_white

IGNORED = -1  # stands for pixels that nothing is learned from, and that are not scored
FOUND = "what the masks hold"  # names classes that nobody has named
IGNORE, BACKGROUND = "ignore", "background"
FILE, DATASET = "classes.json", "dataset.json"
MOST_NAMED = 255
LARGEST = 65535  # a value of 16 bits
NUMBERS = 2 * MOST_CLASSES  # values up to this are numbers of classes, and larger ones grey values
VOID = 255  # what data sets such as Pascal VOC and Cityscapes write where nothing is to be learned


@dataclass(frozen=True)
class Classes:
    """The classes of masks.

    Attributes
    ----------
    names : tuple of str
        From the background on.
    values : tuple of int, or None
        The value of each class in the masks; None if the names belong to the values of the masks in their order.
    ignore : int or None
        The value of pixels that nothing is learned from.
    where : str
        What names the classes, for messages.
    """

    names: tuple[str, ...]
    values: tuple[int, ...] | None = None
    ignore: int | None = None
    where: str = field(default="the classes", compare=False)

    def number(self, masks: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Return the number of each pixel's class.

        Parameters
        ----------
        masks : ndarray, (S, H, W)
            Values as stored.
        names : sequence of str
            Of the sections, for messages.

        Returns
        -------
        ndarray of int16, (S, H, W)
            0 to ``len(self.names) - 1``, and -1 where the value is `ignore`.

        Raises
        ------
        ValueError
            A mask has a value that is of no class.
        """
        values = self.values or ()
        known = [*values, *([] if self.ignore is None else [self.ignore])]
        numbers = [*range(len(values)), *([] if self.ignore is None else [IGNORED])]
        for mask, name in zip(masks, names, strict=True):
            others = np.setdiff1d(mask, known)
            if len(others):
                shown = ", ".join(f"{value:g}" for value in others[:6]) + (", …" if len(others) > 6 else "")
                raise ValueError(
                    f"{name} has pixels of {shown}, and {self.where} has {self.describe()}: give each value of the "
                    f'masks a name, or leave its pixels out with the name "{IGNORE}".'
                )
        order = np.argsort(known)
        places = np.searchsorted(np.asarray(known)[order], masks)
        return np.asarray(numbers, np.int16)[order][places]

    def write(self, numbers: np.ndarray) -> np.ndarray:
        """Return masks with the values of the classes, uint8, or uint16 if one is above 255; -1 becomes `ignore`."""
        values = np.array([*(self.values or range(len(self.names))), self.ignore or 0])
        return values.astype(np.uint8 if values.max() < 256 else np.uint16)[numbers]

    def describe(self) -> str:
        """Return the names with their values: "background (0), nucleus (85), ignore (255)"."""
        values = self.values or range(len(self.names))
        parts = [f"{name} ({value})" for name, value in zip(self.names, values, strict=True)]
        return ", ".join(parts if self.ignore is None else [*parts, f"{IGNORE} ({self.ignore})"])


def parse_class_names(text: str) -> Classes:
    """Read the option --class-names: ``background,nucleus``, or with values ``background=0,nucleus=85,ignore=255``.

    Names without values belong to the values of the masks, from the least on. A ValueError says what does not fit.
    """
    where, parts = "--class-names", [part.strip() for part in text.split(",")]
    pairs = [part.rpartition("=") for part in parts]
    if not any(equals for _, equals, _ in pairs):
        if IGNORE in map(str.casefold, parts):
            raise ValueError(f'{where} {text}: say which value "{IGNORE}" is, and give all others theirs: {EXAMPLE}')
        return _checked(parts, None, None, where)
    if not all(equals and value.strip().isdecimal() for _, equals, value in pairs):
        raise ValueError(f"{where} {text}: expected a value for each name, as in {EXAMPLE}, or for none.")
    return _with_values([(name.strip(), int(value)) for name, _, value in pairs], where)


EXAMPLE = "background=0,nucleus=85,ignore=255"


def find_class_names(*folders: Path) -> Classes | None:
    """Read the classes from the first classes.json that one of the folders holds, or from a dataset.json of nnU-Net.

    ``{"background": 0, "nucleus": 85, "ignore": 255}``, or the other way round, ``{"0": "background", …}``; a
    dataset.json has that as "labels", and counts if it names three classes or more.

    Raises
    ------
    ValueError
        The file is no such JSON, or its names or values do not fit.
    """
    for folder in folders:
        if (folder / FILE).is_file():
            path = folder / FILE
            return _of_json(read_json(path, dict[str, Any], "a file of classes"), path)
    for folder in folders:
        if (folder / DATASET).is_file():
            path = folder / DATASET
            about = read_json(path, dict[str, Any], "a description of a data set").get("labels")
            if isinstance(about, dict) and len(about) > 2:
                classes = _of_json(about, path)
                return classes if len(classes.names) > 2 else None
    return None


def find_classes(masks: np.ndarray, given: Classes | None = None) -> Classes | None:
    """Return the classes of masks, with their values; None if they have a foreground, or numbers of objects.

    Parameters
    ----------
    masks : ndarray, (S, H, W)
        Values as stored.
    given : Classes, optional
        What somebody says that they are, perhaps without the values. Otherwise masks have classes if all together have
        at least 3 values and at most `MOST_CLASSES` and a background, which are whole numbers, which number no objects
        (`tinyseg.data.masks.count_objects`), and which interpolation has not left along the edges of two others.

    Raises
    ------
    ValueError
        There are names without values, and not as many as the masks have values.
    """
    if given is not None and given.values is not None:
        return given
    found = np.unique(np.concatenate([np.unique(mask) for mask in masks]))
    if given is None:
        if not _may_be_classes(masks, found):
            return None
        values = tuple(map(int, found))
        names = tuple(f"class {value}" for value in values[1:])
        return Classes((BACKGROUND, *names), values, None, FOUND)
    if len(found) != len(given.names) or not _are_values(found):
        shown = ", ".join(f"{value:g}" for value in found[:12]) + (", …" if len(found) > 12 else "")
        raise ValueError(
            f"{given.where} names {len(given.names)} classes ({list_names(given.names)}), and the masks have "
            f"{len(found)} values ({shown}): give a name for each, from the least value on, or say which value each "
            f"class has, as in {EXAMPLE}."
        )
    return _sorted(replace(given, values=tuple(map(int, found))))


def looks_void(classes: Classes) -> bool:
    """Return whether the last of the classes that nobody has named is probably what data sets call void, 255."""
    values = classes.values or ()
    return classes.where == FOUND and values[-1] == VOID and values[:-1] == tuple(range(len(values) - 1))


def _may_be_classes(masks, found):
    if not 3 <= len(found) <= MOST_CLASSES + 1 or not _are_values(found):
        return False
    if have_own_white([np.unique(mask) for mask in masks]) or count_objects(masks) is not None:
        return False
    numbers = found[:-1] if found[-1] == VOID else found
    return numbers[-1] <= NUMBERS or not _is_smeared(masks, found.astype(np.int64))


def _are_values(found):
    return bool((found == np.rint(found)).all() and found[0] >= 0 and found[-1] <= LARGEST)


def _is_smeared(masks, found):
    """Return whether grey values look like what JPEG or interpolation leaves along the edges of two others.

    Two of them are close to each other, or one of them lies almost only between pixels that are darker and brighter.
    """
    if np.diff(found).min() < (found[-1] - found[0]) / (4 * (len(found) - 1)):
        return True
    pixels, between = np.zeros(len(found)), np.zeros(len(found))
    for mask in masks:
        edge = (scipy.ndimage.minimum_filter(mask, 3) < mask) & (mask < scipy.ndimage.maximum_filter(mask, 3))
        place = np.searchsorted(found, mask)
        pixels += np.bincount(place.ravel(), minlength=len(found))
        between += np.bincount(place[edge], minlength=len(found))
    return bool((between > 0.9 * pixels).any())


def _of_json(content, path):
    """Return the classes of {name: value} or {value: name}."""
    if content and all(key.isdecimal() for key in content) and all(isinstance(v, str) for v in content.values()):
        return _with_values([(name, int(value)) for value, name in content.items()], str(path))
    expected = 'expected {"background": 0, "nucleus": 1, …}, a whole number for each name'
    try:
        check_shape(content, dict[str, int], "")
    except ValueError as error:
        raise ValueError(f"{path} does not name classes: {expected}; {str(error).strip(': ')}") from None
    return _with_values(list(content.items()), str(path))


def _with_values(pairs, where):
    """Return the classes of (name, value) pairs."""
    ignored = [value for name, value in pairs if name.casefold() == IGNORE]
    rest = [(name, value) for name, value in pairs if name.casefold() != IGNORE]
    values = [value for _, value in pairs]
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{where} gives several classes the value {', '.join(map(str, twice))}: give each its own.")
    if not all(0 <= value <= LARGEST for value in values):
        raise ValueError(f"{where} has values from {min(values)} to {max(values)}: expected 0 to {LARGEST}.")
    return _checked([name for name, _ in rest], tuple(v for _, v in rest), ignored[0] if ignored else None, where)


def _checked(names, values, ignore, where):
    check_names(names, where, MOST_NAMED)
    classes = Classes(tuple(names), values, ignore, where)
    return classes if values is None else _sorted(classes)


def _sorted(classes):
    """Return the classes in the order of their values, but the one that is called background first."""
    pairs = sorted(
        zip(classes.names, classes.values, strict=True), key=lambda pair: (pair[0].casefold() != BACKGROUND, pair[1])
    )
    names, values = zip(*pairs, strict=True)
    return replace(classes, names=names, values=values)
