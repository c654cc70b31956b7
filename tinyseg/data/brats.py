"""Brain tumours in MRI: cases of the Medical Segmentation Decathlon and of BraTS folders, and how they are prepared.

A case is one patient's scan: M modalities (FLAIR, T1, T1 with gadolinium, T2) of X × Y × Z voxels on one grid, with a
label a voxel. Number and order of the modalities and the meaning of the labels come from the data, never from here:
the Decathlon says them in ``dataset.json``; BraTS folders say the modality in the file's name, and their labels
(1 necrosis and non-enhancing, 2 edema, 4 or, from 2023, 3 enhancing) are renumbered as the Decathlon did (1 edema,
2 non-enhancing, 3 enhancing).

    cases = find_cases("Task01_BrainTumour")
    train, val, test = split(cases, (406, 32, 46), seed=0)          # by patient, the paper's proportions
    volume, label = read_case(train[0])                             # (M, X, Y, Z) and (X, Y, Z)

The data: Antonelli et al. 2022, Nat. Commun. 13:4128; Menze et al. 2015, IEEE TMI 34:1993. The protocol: Gadosey et al.
2020, Section 3.4.2.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from tinyseg.data.stacks import listing

DECATHLON = ("background", "edema", "non-enhancing tumour", "enhancing tumour")
REGIONS = {"whole tumour": (1, 2, 3), "tumour core": (2, 3), "enhancing": (3,)}  # in the Decathlon's numbers
# What files of a BraTS folder end in, in the order that the Decathlon has its modalities, and their labels in its.
NAMINGS = (
    (("_flair", "_t1", "_t1ce", "_t2"), "_seg", {0: 0, 1: 2, 2: 1, 4: 3}),
    (("-t2f", "-t1n", "-t1c", "-t2w"), "-seg", {0: 0, 1: 2, 2: 1, 3: 3}),
)
MODALITIES = ("FLAIR", "T1w", "T1gd", "T2w")


@dataclass(frozen=True)
class Case:
    """One patient's files.

    Attributes
    ----------
    name : str
    images : tuple of Path
        One file (X, Y, Z, M), or one (X, Y, Z) for each modality.
    label : Path or None
    recode : tuple of (int, int)
        Label in the file, label here.
    """

    name: str
    images: tuple
    label: Path | None
    recode: tuple

    @property
    def patient(self):
        """The name without the number of the scan that BraTS 2023 ends it with (BraTS-GLI-00001-000)."""
        return re.sub(r"^(BraTS-\w+-\d+)-\d{3}$", r"\1", self.name)


@dataclass(frozen=True)
class Cases:
    """All labelled cases of a folder: a sequence of `Case`.

    Attributes
    ----------
    modalities, classes : tuple of str
        Names in order; class 0 is the background.
    cases : tuple of Case
        In natural order of their names.
    """

    modalities: tuple
    classes: tuple
    cases: tuple

    def __len__(self):
        return len(self.cases)

    def __iter__(self):
        return iter(self.cases)


def find_cases(folder):
    """List the labelled cases of a folder.

    Parameters
    ----------
    folder : str or Path
        With ``dataset.json``, ``imagesTr`` and ``labelsTr`` as in the Decathlon; or with one folder a case, named as in
        BraTS 2017 to 2021 (``<case>_flair.nii.gz``, ``_t1``, ``_t1ce``, ``_t2``, ``_seg``) or from 2023 on
        (``<case>-t2f.nii.gz``, ``-t1n``, ``-t1c``, ``-t2w``, ``-seg``). Hidden files (``._*``) are left out.

    Returns
    -------
    Cases

    Raises
    ------
    FileNotFoundError
        Neither layout is there, or a file that should be; the message lists what there is.
    ValueError
        ``dataset.json`` is not what it should be, or two cases are one patient's.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: expected one with dataset.json, or with BraTS cases.")
    found = _decathlon(folder) if (folder / "dataset.json").is_file() else _brats(folder)
    counts = Counter(case.patient for case in found)
    twice = [case.name for case in found if counts[case.patient] > 1]
    if twice:
        raise ValueError(
            f"{', '.join(twice[:6])} in {folder} are cases of one patient: in training and validation at once they "
            "would make the scores too good. Keep one of each patient."
        )
    return found


def describe(folder):
    """Read what ``dataset.json`` of a Decathlon folder says.

    Returns
    -------
    modalities, classes : tuple of str
    listed : list of (str, str)
        Image and label of each training case, below the folder.
    """
    path = folder / "dataset.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        modalities = _in_order(about.get("modality") or about["channel_names"])
        labels = about["labels"]
        labels = labels if all(str(k).isdigit() for k in labels) else {v: k for k, v in labels.items()}
        numbers = sorted(int(k) for k in labels)
        classes = tuple(str(labels.get(str(k), labels.get(k))) for k in numbers)
        listed = [(entry["image"], entry["label"]) for entry in about["training"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a description of a Decathlon task ({type(error).__name__}: {error}): expected JSON with "
            '"modality", "labels" and "training", a list of {"image": …, "label": …}.'
        ) from None
    if numbers != list(range(len(numbers))):
        raise ValueError(f"{path} numbers its labels {numbers}: expected 0, 1, 2 … without gaps.")
    return modalities, classes, listed


def _decathlon(folder):
    modalities, classes, listed = describe(folder)
    cases, recode = [], tuple((k, k) for k in range(len(classes)))
    for image, label in listed:
        if Path(image).name.startswith("."):
            continue
        image, label = folder / image, folder / label
        for file in (image, label):
            if not file.is_file():
                there = listing(file.parent) if file.parent.is_dir() else f"no folder {file.parent}"
                raise FileNotFoundError(
                    f"{folder / 'dataset.json'} lists {file}, which is not there. There is: {there}."
                )
        cases.append(Case(image.name.removesuffix(".gz").removesuffix(".nii"), (image,), label, recode))
    if not cases:
        raise FileNotFoundError(f"{folder / 'dataset.json'} lists no training cases.")
    return Cases(modalities, classes, tuple(sorted(cases, key=lambda c: _natural(c.name))))


def _in_order(names):
    return tuple(str(names[k]) for k in sorted(names, key=int))


def _brats(folder):
    cases = []
    for inner in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        files = {p.name.removesuffix(".gz").removesuffix(".nii"): p for p in inner.glob("[!.]*.nii*")}
        for endings, ending, recode in NAMINGS:
            stems = {name.removesuffix(e) for name in files for e in (*endings, ending) if name.endswith(e)}
            for stem in sorted(stems):
                missing = [stem + e for e in (*endings, ending) if stem + e not in files]
                if missing:
                    raise FileNotFoundError(
                        f"{inner} has no {', '.join(missing)} (.nii.gz). There is: {listing(inner)}."
                    )
                images = tuple(files[stem + e] for e in endings)
                cases.append(Case(stem, images, files[stem + ending], tuple(recode.items())))
    if not cases:
        raise FileNotFoundError(
            f"no cases in {folder}: looked for dataset.json (Medical Segmentation Decathlon), or for folders with "
            f"<case>_flair.nii.gz, _t1, _t1ce, _t2 and _seg (BraTS). There is: {listing(folder)}."
        )
    return Cases(MODALITIES, DECATHLON, tuple(sorted(cases, key=lambda c: _natural(c.name))))


def _natural(name):
    return [int(part) if i % 2 else part.casefold() for i, part in enumerate(re.split(r"(\d+)", name))]


def split(cases, shares=(406, 32, 46), seed=0):
    """Split cases by patient into training, validation and test.

    Parameters
    ----------
    cases : Cases, or any sequence
    shares : three non-negative numbers
        In what proportion; the paper's 484 cases went 406 : 32 : 46. Every share above 0 gets at least one case.
    seed : int

    Returns
    -------
    train, val, test : lists
        In the order of `cases`.

    Raises
    ------
    ValueError
        There are fewer cases than shares above 0.
    """
    cases, shares = list(cases), np.asarray(shares, float)
    if shares.shape != (3,) or (shares < 0).any() or len(cases) < (shares > 0).sum() or not shares.any():
        raise ValueError(
            f"{len(cases)} cases cannot be split into shares of {shares.tolist()}: give three numbers, training, "
            "validation and test, of which no more are above 0 than there are cases."
        )
    exact = len(cases) * shares / shares.sum()
    counts = np.maximum(np.floor(exact).astype(int), shares > 0)
    while counts.sum() > len(cases):
        counts[np.argmax(counts)] -= 1
    for k in np.argsort(counts - exact, kind="stable")[: len(cases) - counts.sum()]:  # largest remainders first
        counts[k] += 1
    order = np.random.default_rng(seed).permutation(len(cases))
    parts = np.split(order, np.cumsum(counts)[:2])
    return tuple([cases[i] for i in np.sort(part)] for part in parts)


# ----- one case --------------------------------------------------------------------
def read_case(case):
    """Read a case as it is stored.

    Returns
    -------
    volume : ndarray, (M, X, Y, Z)
        In the type it was stored in (int16, as a rule); float32 if the files scale their values.
    label : uint8 ndarray, (X, Y, Z), or None
        Renumbered by ``case.recode``.

    Raises
    ------
    ValueError
        A file is damaged or not NIfTI, the grids differ, a modality holds NaN or one value only, or a label
        is not among those that ``case.recode`` knows.
    """
    volumes = [_voxels(path) for path in case.images]
    for path, v in zip(case.images, volumes, strict=True):
        if v.shape[:3] != volumes[0].shape[:3]:
            raise ValueError(f"{path} has {v.shape[:3]} voxels, {case.images[0]} {volumes[0].shape[:3]}: not one grid.")
    if len(volumes) == 1:
        volume = np.moveaxis(volumes[0] if volumes[0].ndim == 4 else volumes[0][..., None], 3, 0)
    else:
        volume = np.stack(volumes)
    for m, v in enumerate(volume):
        low, high = v.min(), v.max()
        if not np.isfinite([low, high]).all():
            raise ValueError(f"{case.name}: modality {m} holds NaN or infinity; replace them or leave the case out.")
        if low == high:
            raise ValueError(f"{case.name}: modality {m} is {low} everywhere, so there is nothing to see in it.")
    if case.label is None:
        return volume, None
    label = read_label(case.label, case.recode)
    if label.shape != volume.shape[1:]:
        raise ValueError(f"{case.label} has {label.shape} voxels, its images {volume.shape[1:]}: not one grid.")
    return volume, label


def read_label(path, recode):
    """Read a label volume, renumbered: uint8 (X, Y, Z).

    Parameters
    ----------
    path : Path
    recode : iterable of (int, int)
        Label in the file, label here.

    Raises
    ------
    ValueError
        The file is damaged or not NIfTI, or holds a label that `recode` does not know.
    """
    label, known = _voxels(path), dict(recode)
    strange = sorted(set(np.unique(label).tolist()) - known.keys())
    if strange:
        few = f"[{', '.join(f'{value:g}' for value in strange[:6])}{', …' * (len(strange) > 6)}]"
        raise ValueError(f"{path} holds the labels {few}: expected only {sorted(known)}.")
    table = np.zeros(256, np.uint8)
    table[list(known)] = list(known.values())
    return table[label.astype(np.uint8)]


def _voxels(path):
    try:
        image = nib.load(path)
        voxels = np.asanyarray(image.dataobj)  # not get_fdata, which makes float64 of everything
    except (MemoryError, PermissionError, FileNotFoundError):
        raise
    except Exception as error:  # nibabel and zlib raise what they meet
        with open(path, "rb") as file:
            start = file.read(64)
        page = any(tag in start.lower() for tag in (b"<html", b"<!doc"))
        what = "a web page saved under this name" if page else "a damaged file, one cut short or of another kind"
        raise ValueError(
            f"{path} cannot be read: expected NIfTI, found {what} ({type(error).__name__}: {error}). "
            "Download or export it again."
        ) from None
    if voxels.ndim not in (3, 4):
        raise ValueError(f"{path} has shape {voxels.shape}: expected (X, Y, Z) or (X, Y, Z, modalities).")
    return voxels.astype(np.float32) if voxels.dtype == np.float64 else voxels
