"""Brain tumours in MRI: cases of the Medical Segmentation Decathlon and of BraTS folders, found, split and read.

A case is one patient's scan: M modalities (FLAIR, T1, T1 with gadolinium, T2) of X × Y × Z voxels on one grid, with one
label for each voxel. The data say how many modalities there are, in which order, and what the labels mean. The
Decathlon says it in ``dataset.json``. BraTS folders name the modality in the file's name, and their labels (1 necrosis
and non-enhancing, 2 edema, 4 or, from 2023, 3 enhancing) are renumbered as in the Decathlon (1 edema, 2 non-enhancing,
3 enhancing).

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

from tinyseg.data.files import find_volumes, folders_in, list_contents, list_names, natural_order, volume_name
from tinyseg.data.image_file import decoding

DECATHLON = ("background", "edema", "non-enhancing tumour", "enhancing tumour")
REGIONS = {"whole tumour": (1, 2, 3), "tumour core": (2, 3), "enhancing": (3,)}  # in the Decathlon's numbers
# How BraTS names the files of a case: endings of the modalities in the Decathlon's order, ending of the labels, and
# which number each label gets.
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
        Pairs of a label in the file and its number in this library.
    """

    name: str
    images: tuple
    label: Path | None
    recode: tuple

    @property
    def patient(self):
        """The name without the number of the scan, which BraTS 2023 puts at its end (BraTS-GLI-00001-000)."""
        return re.sub(r"^(BraTS-\w+-\d+)-\d{3}$", r"\1", self.name)


@dataclass(frozen=True)
class Cases:
    """All labelled cases of a folder. Iterating gives each `Case`.

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
        It has ``dataset.json``, ``imagesTr`` and ``labelsTr`` as in the Decathlon; or a folder for each case with files
        named as in BraTS 2017 to 2021 (``<case>_flair.nii.gz``, ``_t1``, ``_t1ce``, ``_t2``, ``_seg``) or from 2023 on
        (``<case>-t2f.nii.gz``, ``-t1n``, ``-t1c``, ``-t2w``, ``-seg``). Hidden files (``._*``) are left out.

    Returns
    -------
    Cases

    Raises
    ------
    FileNotFoundError
        The folder has neither layout, or a file is missing.
    ValueError
        ``dataset.json`` does not describe a Decathlon task, or two cases belong to one patient.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: expected one with dataset.json, or with BraTS cases.")
    if (folder / "dataset.json").is_file():
        modalities, classes, cases = _decathlon_cases(folder)
    else:
        modalities, classes, cases = MODALITIES, DECATHLON, _brats_cases(folder)
    cases = sorted(cases, key=lambda case: natural_order(case.name))
    counts = Counter(case.patient for case in cases)
    repeated = [case.name for case in cases if counts[case.patient] > 1]
    if repeated:
        raise ValueError(
            f"{list_names(repeated)} in {folder}: several cases of one patient, in training and validation at once, "
            "would make the scores too good. Keep one of each patient."
        )
    return Cases(modalities, classes, tuple(cases))


def describe(folder):
    """Read ``dataset.json`` of a Decathlon folder.

    Returns
    -------
    modalities, classes : tuple of str
    listed : list of (str, str)
        Paths of the image and the label of each training case, relative to the folder.

    Raises
    ------
    ValueError
        The file does not describe a Decathlon task.
    """
    path = folder / "dataset.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        channels = about.get("modality") or about["channel_names"]
        modalities = tuple(str(channels[k]) for k in sorted(channels, key=int))
        labels = about["labels"]
        if not all(str(number).isdigit() for number in labels):  # newer descriptions have the names first
            labels = {number: name for name, number in labels.items()}
        names = {int(number): str(name) for number, name in labels.items()}
        numbers = sorted(names)
        listed = [(entry["image"], entry["label"]) for entry in about["training"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a description of a Decathlon task ({type(error).__name__}: {error}): expected JSON with "
            '"modality", "labels" and "training", a list of {"image": …, "label": …}.'
        ) from None
    if numbers != list(range(len(numbers))):
        raise ValueError(f"{path} numbers its labels {numbers}: expected 0, 1, 2 … without gaps.")
    return modalities, tuple(names[number] for number in numbers), listed


def unchanged_labels(num_classes):
    """Return the `recode` of labels that keep their numbers."""
    return tuple((k, k) for k in range(num_classes))


def _decathlon_cases(folder):
    modalities, classes, listed = describe(folder)
    description, cases = folder / "dataset.json", []
    for image, label in listed:
        if Path(image).name.startswith("."):
            continue
        image, label = folder / image, folder / label
        for file in (image, label):
            if not file.is_file():
                there = list_contents(file.parent) if file.parent.is_dir() else f"no folder {file.parent}"
                raise FileNotFoundError(f"{description} lists {file}, which is not there. There is: {there}.")
        cases.append(Case(volume_name(image), (image,), label, unchanged_labels(len(classes))))
    if not cases:
        raise FileNotFoundError(f"{description} lists no training cases.")
    return modalities, classes, cases


def _brats_cases(folder):
    cases = []
    for inner in folders_in(folder):
        files = find_volumes(inner)
        for endings, label_ending, recode in NAMINGS:
            for name in case_names(files, (*endings, label_ending)):
                missing = [name + e for e in (*endings, label_ending) if name + e not in files]
                if missing:
                    there = list_contents(inner)
                    raise FileNotFoundError(f"{inner} has no {', '.join(missing)} (.nii.gz). There is: {there}.")
                images = tuple(files[name + e] for e in endings)
                cases.append(Case(name, images, files[name + label_ending], tuple(recode.items())))
    if not cases:
        raise FileNotFoundError(
            f"no cases in {folder}: looked for dataset.json (Medical Segmentation Decathlon), or for folders with "
            f"<case>_flair.nii.gz, _t1, _t1ce, _t2 and _seg (BraTS). There is: {list_contents(folder)}."
        )
    return cases


def case_names(names, endings):
    """Return the sorted names of BraTS cases, from names of files that end in one of `endings`."""
    return sorted({name.removesuffix(e) for name in names for e in endings if name.endswith(e)})


def split(cases, shares=(406, 32, 46), seed=0):
    """Split cases by patient into training, validation and test.

    Parameters
    ----------
    cases : Cases, or any sequence
    shares : three non-negative numbers
        Proportions of the three parts; the paper split its 484 cases 406 : 32 : 46. A share above 0 gets one case or
        more.
    seed : int

    Returns
    -------
    train, val, test : lists
        In the order of `cases`.

    Raises
    ------
    ValueError
        The shares are not three non-negative numbers, all are 0, or there are fewer cases than shares above 0.
    """
    cases, shares = list(cases), np.asarray(shares, float)
    if shares.shape != (3,) or (shares < 0).any() or len(cases) < (shares > 0).sum() or not shares.any():
        raise ValueError(
            f"{len(cases)} cases cannot be split into shares of {shares.tolist()}: give three numbers for training, "
            "validation and test, one or more of them above 0, but no more than there are cases."
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


def read_case(case):
    """Read the voxels and the labels of a case.

    Returns
    -------
    volume : ndarray, (M, X, Y, Z)
        In the type in which it is stored, mostly int16; float32 if the files scale their values.
    label : uint8 ndarray, (X, Y, Z), or None
        Renumbered by ``case.recode``; None if the case has no label file.

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
    if len(volumes) > 1:
        volume = np.stack(volumes)
    else:  # a view: the volume is read from the file only where it is used
        volume = np.moveaxis(volumes[0], 3, 0) if volumes[0].ndim == 4 else volumes[0][None]
    for m, v in enumerate(volume):
        low, high = v.min(), v.max()
        if not np.isfinite([low, high]).all():
            raise ValueError(f"{case.name}: modality {m} holds NaN or infinity; replace them or leave the case out.")
        if low == high:
            raise ValueError(f"{case.name}: modality {m} is {low} everywhere; replace it or leave the case out.")
    if case.label is None:
        return volume, None
    label = read_label(case.label, case.recode)
    if label.shape != volume.shape[1:]:
        raise ValueError(f"{case.label} has {label.shape} voxels, its images {volume.shape[1:]}: not one grid.")
    return volume, label


def read_label(path, recode):
    """Read a label volume, uint8 (X, Y, Z).

    `recode` holds pairs of a label in the file and the number that it gets. A ValueError is raised if the file is
    damaged, is not NIfTI, or holds another label.
    """
    label, known = _voxels(path), dict(recode)
    strange = [f"{value:g}" for value in np.unique(label) if value not in known]
    if strange:
        raise ValueError(f"{path} holds the labels [{list_names(strange)}]: expected only {sorted(known)}.")
    table = np.zeros(256, np.uint8)
    table[list(known)] = list(known.values())
    return table[label.astype(np.uint8)]


def _voxels(path):
    with decoding(path, "NIfTI"):
        voxels = np.asanyarray(nib.load(path).dataobj)  # get_fdata would convert everything to float64
    if voxels.ndim not in (3, 4):
        raise ValueError(f"{path} has shape {voxels.shape}: expected (X, Y, Z) or (X, Y, Z, modalities).")
    return voxels.astype(np.float32) if voxels.dtype == np.float64 else voxels
