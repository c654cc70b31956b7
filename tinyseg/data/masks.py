"""Masks as people save them: two values, values that differ from file to file, or a number for each object.

inside = binarize_labels(stack, "labels.tif")              # bool, True on the foreground
"""

import warnings

import numpy as np
import scipy
import skimage

WHITES = (1, 255, 65535)  # what programs write for white, beside 0 for black
MOST_CLASSES = 10  # numbers up to this may be classes


def binarize_labels(stack, name, foreground="white"):
    """Turn masks into bool, True on the foreground.

    Parameters
    ----------
    stack : ndarray, (S, H, W)
        One of

        - two values in all, such as 0 and 255; the larger one is white
        - 0 and one of 1, 255 and 65535 in each section, not the same in all; 0 is black
        - labels of objects: 0 for the background, and a number for each object, as cellpose and StarDist write them.
          The foreground is what belongs to an object and does not touch another one, diagonally neither. A warning says
          so.
    name : str or sequence of str
        Name of the stack, or of each section, for messages.
    foreground : "white" or "black"
        Which of two values is the foreground: the inside of cells, say.

    Returns
    -------
    ndarray of bool, (S, H, W)

    Raises
    ------
    ValueError
        The stack has other values or a single one, or `foreground` is something else, or black for labels of objects.

    Warns
    -----
    UserWarning
        The foreground is less than half of the pixels, as in an inverted mask; or labels of objects were found.
    """
    if foreground not in ("white", "black"):
        raise ValueError(f'foreground must be "white" or "black", found {foreground!r}.')
    names = [f"{name}[{i}]" for i in range(len(stack))] if isinstance(name, str) else list(name)
    what = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
    values = [np.unique(section) for section in stack]
    found = np.unique(np.concatenate(values))
    if len(found) < 2:
        raise ValueError(
            f"a mask must have exactly two values, such as 0 and 255: found only {found.tolist()} in all of {what}. "
            "Is this the right file, and is anything drawn in it?"
        )
    if found[0] < 0 and found[-1] <= 0:  # 255 in a signed type is -1
        raise ValueError(
            f"a mask must have exactly two values, such as 0 and 255: found {found[:6].tolist()} in {what}, and it is "
            "not known which of them is white. Save it in an unsigned type, such as uint8."
        )
    if len(found) > 2:
        if have_own_white(values):
            stack = stack > 0
        elif (objects := count_objects(stack)) is not None:
            if foreground == "black":
                raise ValueError(
                    f'{what} has labels of {objects} objects, with 0 as background: leave out foreground "black".'
                )
            said = (
                f"labels of {objects} objects, and not masks of two values, in {what}: the foreground is what belongs "
                "to an object and does not touch another."
            )
            if stack.max() <= MOST_CLASSES:
                said += " If they are classes, name them (--class-names, or classes.json beside the masks)."
            warnings.warn(said, stacklevel=2)
            return inside_of_objects(stack)
        else:
            raise ValueError(_too_many_values(values, names))
    white = stack == stack.max()
    labels, other = (white, "black") if foreground == "white" else (~white, "white")
    share = labels.mean()
    if share < 0.5:
        warnings.warn(
            f"only {share:.0%} of {what} is foreground ({foreground}). If the mask is inverted, give "
            f'--foreground {other} (in Python: foreground="{other}").',
            stacklevel=2,
        )
    return labels


def as_probabilities(stack, name):
    """Turn predictions of the foreground, as people save them, into probabilities.

    Parameters
    ----------
    stack : ndarray, (S, H, W)
        One of

        - masks: 0, and 1, 255 or 65535 where the foreground is; or 0 and one other number above 1
        - floats in [0, 1]
        - integers of 16 bits, as predict.py writes pictures of probabilities, or of 8 bits: the largest number that the
          type holds, 65535 or 255, is 1. A warning says that 8 bits were understood so.
        - labels of objects, see `binarize_labels`
    name : str or Path
        Name of the stack, for messages.

    Returns
    -------
    ndarray of float32, (S, H, W)

    Raises
    ------
    ValueError
        The stack has other values.
    """
    each = [np.unique(section) for section in stack]
    if have_own_white(each, constant=True):
        return (stack > 0).astype(np.float32)
    if stack.dtype.kind == "f" and 0 <= stack.min() <= stack.max() <= 1:
        return stack.astype(np.float32)
    values = np.unique(np.concatenate(each))
    if len(values) == 2 and values[0] == 0:
        return (stack > 0).astype(np.float32)
    if len(values) > 1 and count_objects(stack) is not None:
        warnings.warn(f"{name} holds labels of objects: pixels are scored by whether they belong to one.", stacklevel=2)
        return inside_of_objects(stack).astype(np.float32)
    limit = np.iinfo(stack.dtype).max if stack.dtype in (np.uint8, np.uint16) else np.inf
    # Grey values of another range, as no network is so unsure everywhere; or percent.
    if stack.max() < limit / 10 or (limit == 255 and stack.max() <= 100):
        raise ValueError(
            f"{name} must hold probabilities of the foreground or masks of 0 and 255: floats in [0, 1], or integers of "
            f"8 or 16 bits whose largest number stands for 1. Its values run from {stack.min()} to {stack.max()} "
            f"({stack.dtype}). Divide by the largest value that there can be."
        )
    if limit == 255:
        warnings.warn(f"{name} has 8 bits and more than two values: taken as probabilities, 255 for 1.", stacklevel=2)
    return stack.astype(np.float32) / np.float32(limit)


def have_own_white(values, constant=False):
    """Return whether each section is black and white, but white may not be the same number in all.

    Parameters
    ----------
    values : list of ndarray
        The sorted values of each section.
    constant : bool
        Whether all may be white.
    """
    each = all(set(found[found != 0].tolist()) <= set(WHITES) and np.count_nonzero(found) <= 1 for found in values)
    return each and (constant or any(0 in found for found in values))


def numbered_objects(stack):
    """Return labels (S, H, W) as integers if they number objects, None if they are masks or grey values."""
    each = [np.unique(section) for section in stack]
    if have_own_white(each, constant=True) or len(np.unique(np.concatenate(each))) < 3 or count_objects(stack) is None:
        return None
    return stack if stack.dtype.kind in "iu" else stack.astype(np.int64)


def count_objects(stack):
    """Count the objects of labels (S, H, W), or return None if the values number no objects.

    Labels are whole numbers from 0. Nearly each of them is one region in its section, and most of these are more than
    thin lines: unlike grey values, classes, and the values that JPEG or interpolation leave along edges. Few lie within
    another one, unlike a nucleus in its cell, or all objects in a background that is not 0. And the sections do not
    all have the same few numbers of 8 bits, as classes do of which each is one region, such as layers of a tissue.
    """
    if stack.dtype == np.uint8 and len(stack) > 1 and stack.max() <= MOST_CLASSES:
        first = np.unique(stack[0])
        if all(np.array_equal(np.unique(section), first) for section in stack):
            return None
    if stack.min() < 0 or (stack != np.rint(stack)).any():
        return None
    objects = regions = thick = nested = 0
    for section in stack:
        section = section.astype(np.int64)
        objects += np.count_nonzero(np.unique(section))
        regions += int(skimage.measure.label(section, connectivity=2).max())
        if regions > 1.5 * objects:  # grey values: there is no need to look further
            return None
        core = (scipy.ndimage.maximum_filter(section, 3) == scipy.ndimage.minimum_filter(section, 3)) & (section > 0)
        thick += len(np.unique(section[core]))
        nested += _count_nested(section)
    looks_like_mask = stack.max() == 255 and objects < 128 * len(stack)  # 0, 128 and 255 are no objects
    return objects if thick > objects / 2 and nested <= objects / 10 and not looks_like_mask else None


def _count_nested(section):
    """Count the labels of a section (H, W) that one other label, which is not 0, surrounds."""
    framed = np.pad(section, 1)  # with 0, so that nothing surrounds what lies at the border
    sides = [(framed[1:], framed[:-1]), (framed[:, 1:], framed[:, :-1])]
    pairs = np.concatenate(
        [np.stack([a[a != b], b[a != b]]) for one, other in sides for a, b in ((one, other), (other, one))], 1
    )
    pairs = np.unique(pairs, axis=1)
    labels, neighbours = np.unique(pairs[0], return_counts=True)
    alone = np.isin(pairs[0], labels[neighbours == 1])
    return np.count_nonzero(alone & (pairs[0] > 0) & (pairs[1] > 0))


def inside_of_objects(stack):
    """Return where labels (S, H, W) are of an object and none of the eight neighbours is of another."""
    largest = np.stack([scipy.ndimage.maximum_filter(section, 3) for section in stack])
    highest = stack.max() + 1
    smallest = np.stack(
        [scipy.ndimage.minimum_filter(np.where(section > 0, section, highest), 3) for section in stack.astype(np.int64)]
    )
    return (stack > 0) & (largest == stack) & (smallest == stack)


def _too_many_values(values, names):
    """Say which values a mask has beside two."""
    upto = next(k for k in range(len(values)) if len(np.unique(np.concatenate(values[: k + 1]))) > 2)
    found = np.unique(np.concatenate(values[: upto + 1]))
    shown = ", ".join(map(str, found[:6])) + (", ..." if len(found) > 6 else "")
    return (
        f"a mask must have exactly two values, such as 0 and 255, or number its objects: found {len(found)} ({shown}) "
        f"up to {names[upto]}. Was it saved as JPEG, or resized with interpolation? Threshold it, and save it as PNG "
        "or TIFF. Or are these classes? Name them: --class-names, or classes.json beside the masks."
    )
