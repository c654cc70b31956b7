"""Names of the classes of a label volume, and the regions that are scored beside them.

The names become keys of reports, columns of the log and captions of pictures. They must differ from each other and from
what stands there already, so `check_classes` looks at them before anything is read.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

DECATHLON = ("background", "edema", "non-enhancing tumour", "enhancing tumour")
REGIONS: dict[str, tuple[int, ...]] = {
    "whole tumour": (1, 2, 3),
    "tumour core": (2, 3),
    "enhancing": (3,),
}  # in the Decathlon's numbers

# What a report has beside the scores of classes and regions.
REPORTED = (
    "name", "tumour_mm3", "accuracy", "sensitivity", "specificity", "loss", "dice", "small", "large", "epoch", "step",
    "small_below_mm3", "empty", "patients",
)  # fmt: skip


def regions_of(classes: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the regions to score beside the classes: BraTS's three for the Decathlon's classes, or the whole tumour.

    A region is a name and the labels that belong to it.
    """
    if same_classes(classes, DECATHLON):
        return REGIONS
    return {"whole tumour": tuple(range(1, max(2, len(classes))))}  # a single class is the tumour: label 1


def same_classes(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether two lists of classes are the same, in British or American spelling."""
    return [_spelled(name) for name in one] == [_spelled(name) for name in other]


def check_classes(classes: Sequence[str], where: str | Path) -> None:
    """Raise a ValueError unless the names of classes can stand beside each other, the regions and a report's figures.

    Parameters
    ----------
    classes : sequence of str
        From the background on.
    where : str or Path
        The file or folder that names them, for the message.
    """
    check_names(classes, where)
    regions = {_spelled(name): members for name, members in regions_of(classes).items()}
    for k, name in enumerate(classes):
        spelled = _spelled(name)
        if k and (spelled in map(_spelled, REPORTED) or regions.get(spelled, (k,)) != (k,)):
            raise ValueError(
                f"{where} calls class {k} {name!r}, but reports have something else of this name: give it another one."
            )


def check_names(classes: Sequence[str], where: str | Path, most: int = 256) -> None:
    """Raise a ValueError unless classes, from the background on, have names that can stand beside each other.

    `where` names them, for the message; there may be `most` of them.
    """
    counts = Counter(_spelled(name) for name in classes)
    twice = [name for name in classes if counts[_spelled(name)] > 1]
    if twice:
        raise ValueError(f"{where} gives several classes one name ({', '.join(twice)}): give each class its own name.")
    if not 2 <= len(classes) <= most:
        raise ValueError(f"{where} names {len(classes)} classes: expected 2 to {most}, the background among them.")
    for k, name in enumerate(classes):
        if not name.strip() or not name.isprintable():
            raise ValueError(f"{where} calls class {k} {name!r}: expected a name of printable characters.")


def _spelled(name):
    """Return a name as a column of the log would have it, in British spelling."""
    return re.sub(r"[\s_-]+", "_", name.strip().casefold()).replace("tumor", "tumour")
