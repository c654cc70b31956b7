"""Which mask belongs to which image: pairs are made by names, never by order.

    match_names(["a.png", "a_2.png"], ["a_2_mask.png", "a_mask.png"])     # ["a_mask.png", "a_2_mask.png"]

A name without its ending is read as words and numbers: ``Cell-07_mask`` is cell, 07, mask. Capitals, separators and the
ending do not count. These rules are tried one after the other. The first that gives every name one partner is taken.

1. The names without their endings are the same.
2. Words and numbers are the same without words that say what a file is (`KINDS`): ``mask``, ``img``, ``probability`` …
3. The same, and leading zeros of numbers do not count: ``img_1`` and ``mask_01``.
4. Rules 2 and 3, also without the words that say which part of a data set it is (`SETS`, `PLACES`): ``train``,
   ``slice`` … Such words stay if both lists have them, or if each has others: ``train_1`` is no partner of
   ``test_1_mask``.
5. Each name of one list is only a number, and the names of the other list differ in a single number.

If no rule does, a ValueError says which names have no partner, or several.
"""

import re
import unicodedata
from collections import Counter

from tinyseg.data.files import list_names

# fmt: off
LABELS = {
    "mask", "masks", "label", "labels", "seg", "segs", "segmentation", "segmentations", "gt", "groundtruth", "truth",
    "annotation", "annotations", "annot", "manual", "man", "instance", "instances",
}
SUBJECTS = {"target", "targets", "membrane", "membranes"}  # kinds too, unless something else is shown in the other list
PROBABILITIES = {"probability", "probabilities", "prob", "probs"}
PREDICTIONS = PROBABILITIES | {
    "pred", "preds", "prediction", "predictions", "submission", "cp", "predict", "predicted", "output", "outputs",
}
KINDS = LABELS | SUBJECTS | PREDICTIONS | {"image", "images", "img", "imgs", "im", "raw", "input", "inputs"}
SETS, PLACES = {"train", "test", "validation"}, {"volume", "slice", "frame"}
PARTS = KINDS | SETS | PLACES
SYNONYMS = {
    "training": "train", "testing": "test", "val": "validation", "valid": "validation", "volumes": "volume",
    "slices": "slice", "section": "slice", "sections": "slice", "page": "slice", "pages": "slice", "frames": "frame",
    "t": "frame",  # t000.tif and man_seg000.tif in the Cell Tracking Challenge
}
# fmt: on


def match_names(names, others, what=("images", "labels"), spare=False):
    """Return the partner of each name.

    Parameters
    ----------
    names, others : sequence of str
        Names of files, with their endings.
    what : (str, str)
        What the two lists are, for messages.
    spare : bool
        Whether `others` may hold more names than have a partner.

    Returns
    -------
    list of str
        For each of `names` its partner among `others`.

    Raises
    ------
    ValueError
        A name has no partner, or two names could be the partner of one. All such names are listed.
    """
    attempts = [
        _Attempt(names, others, keys, other_keys) for keys, other_keys in _rules(*_without_channel(names, others))
    ]
    for attempt in attempts:
        if not attempt.left and not attempt.alike and (spare or not attempt.other_left):
            partner = dict(zip(attempt.other_keys, others, strict=True))
            return [partner[key] for key in attempt.keys]
    raise ValueError(min(attempts, key=lambda a: len(a.left) + len(a.other_left)).problem(what, spare))


def split_masks(names, predictions=False):
    """Return the names of images and those of masks, if a folder holds both: ``a.png`` beside ``a_masks.png``.

    The second list is empty if no mask goes with an image by its name. With `predictions`, those of other programs are
    masks too: ``a_predict.png``.
    """
    others = PREDICTIONS if predictions else set()
    words = {name: set(_parts(_stem(name))) for name in names}
    for labels in (LABELS | SUBJECTS | others, LABELS | others):
        masks, images = [n for n in names if words[n] & labels], [n for n in names if not words[n] & labels]
        keys = {_key(_stem(name), PARTS, int) for name in images}
        if any(_key(_stem(name), PARTS, int) in keys for name in masks):
            return images, masks
    return list(names), []


def is_probability(name):
    """Return whether a file's name says that it holds probabilities."""
    return bool(PROBABILITIES & set(_parts(_stem(name))))


def prefer_probabilities(names):
    """Return the names to score: of several files of one image one kind, the best of which every image has a file.

    Probabilities are better than a submission, that is better than instances, these are better than masks, and masks
    better than all else, such as the image itself. Where no kind is there for every image, the best of each is taken.
    """
    images = {}
    for name in names:
        words = set(_parts(_stem(name)))
        kinds = PROBABILITIES, {"submission"}, {"instance", "instances"}, LABELS | SUBJECTS | PREDICTIONS
        rank = next((k for k, kind in enumerate(kinds) if words & kind), len(kinds))
        images.setdefault(_key(_stem(name), KINDS, str), {}).setdefault(rank, []).append(name)
    common = set.intersection(*map(set, images.values())) if images else ()
    kept = {name for ranks in images.values() for name in ranks[min(common or ranks)]}
    return [name for name in names if name in kept]


def page_order(names):
    """Return the order in which files are the pages of a stack, a list of indices, or None if names do not say it.

    They say it if they differ in one number, which counts from 0 or from 1 without a gap.
    """
    numbers = _only_numbers([_stem(name) for name in names], PARTS)
    if numbers is None or sorted(numbers) not in (list(range(len(names))), list(range(1, len(names) + 1))):
        return None
    return sorted(range(len(names)), key=lambda i: numbers[i])


class _Attempt:
    """What one rule makes of two lists: a key for each name; names with equal keys are partners."""

    def __init__(self, names, others, keys, other_keys):
        self.keys, self.other_keys = keys, other_keys
        count, other_count = Counter(keys), Counter(other_keys)
        self.left = [name for name, key in zip(names, keys, strict=True) if key not in other_count]
        self.other_left = [name for name, key in zip(others, other_keys, strict=True) if key not in count]
        self.alike = []  # groups of names that could be partners of the same name
        for list_, list_keys, counted, across in (
            (names, keys, count, other_count), (others, other_keys, other_count, count),
        ):  # fmt: skip
            for key in across:
                if counted[key] > 1:
                    self.alike.append([name for name, k in zip(list_, list_keys, strict=True) if k == key])

    def problem(self, what, spare):
        """Say in a sentence why not all names have one partner."""
        found = []
        if self.left:
            found.append(f"no {what[1]} for {list_names(self.left)}")
        if self.other_left and not spare:
            found.append(f"no {what[0]} for {list_names(self.other_left)}")
        found += [f"{' and '.join(group[:12])} could belong to the same file" for group in self.alike[:6]]
        return (
            f"{what[0]} and {what[1]} are paired by their names, and some have not exactly one partner: "
            f"{'; '.join(found)}. Name both alike, as in cell_07.png and cell_07_mask.png, or move the odd ones away."
        )


def _rules(stems, other_stems):
    """Yield, for each rule, the keys of the names of both lists."""
    lists = stems, other_stems
    yield lists
    parts = PARTS - _telling_words(lists)
    for words in (KINDS, parts):
        for number in (str, int):
            yield tuple([_key(stem, words, number) for stem in list_] for list_ in lists)
    numbers = [_only_numbers(list_, parts) for list_ in lists]
    if all(numbers) and any(_are_numbers(list_, parts - SUBJECTS) for list_ in lists):
        yield numbers


def _telling_words(lists):
    """Return the words of `SETS` and `PLACES` that tell files apart: both lists have them, or each has others."""
    telling = set()
    for group in (SETS, PLACES):
        one, other = ({part for stem in stems for part in _parts(stem)} & group for stems in lists)
        telling |= one | other if one - other and other - one else one & other
    return telling


def _stem(name):
    """Return a name without its ending, which may be ``.nii.gz`` or ``.ome.tif``."""
    name = unicodedata.normalize("NFC", name)  # a Mac stores an accent by itself
    return re.sub(r"(?i)(\.nii\.gz|\.ome\.tiff?|\.[^.]*)$", "", name)


def _without_channel(names, others):
    """Return the stems of both lists; nnU-Net's ``_0000`` is dropped if all names of one list alone end in it."""
    lists = [[_stem(name) for name in list_] for list_ in (names, others)]
    channel = [all(stem.endswith("_0000") for stem in stems) for stems in lists]
    if channel[0] != channel[1]:
        lists = [
            [s.removesuffix("_0000") for s in stems] if has else stems
            for stems, has in zip(lists, channel, strict=True)
        ]
    return lists


def _parts(stem):
    """Return the words, in small letters, and the numbers of a stem."""
    stem = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", stem)  # cellMask: cell, mask
    return [SYNONYMS.get(part, part) for part in re.findall(r"^-\d+|[^\W\d_]+|\d+", stem.casefold())]  # -2: below 0


def _key(stem, words, number):
    """Return the parts of a stem without certain words, its numbers as `number` makes them."""
    return tuple(number(part) if part.isdecimal() else part for part in _parts(stem) if part not in words)


def _are_numbers(stems, words):
    return all([type(part) for part in _key(stem, words, int)] == [int] for stem in stems)


def _only_numbers(stems, words):
    """Return the number in which stems differ, if they differ in nothing else but these words, or None."""
    keys = [_key(stem, words, int) for stem in stems]
    if len({tuple(map(type, key)) for key in keys}) != 1:
        return None
    columns = list(zip(*keys, strict=True))
    differ = [column for column in columns if len(set(column)) > 1]
    if len(keys) == 1:  # nothing differs: the number, if there is one alone
        differ = [column for column in columns if isinstance(column[0], int)]
    return list(differ[0]) if len(differ) == 1 and isinstance(differ[0][0], int) else None
