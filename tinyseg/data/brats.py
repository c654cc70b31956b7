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

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tinyseg.data.brats_folders import MODALITIES, NAMINGS, brats_files, case_folders
from tinyseg.data.classes import DECATHLON, check_classes
from tinyseg.data.dataset_json import describe
from tinyseg.data.files import find_volumes, list_contents, list_names, natural_order, volume_name
from tinyseg.data.nifti import Grid, Volume, common_grid, open_volume
from tinyseg.data.nnunet import numbered_by_channel
from tinyseg.data.other_kinds import how_to_convert
from tinyseg.data.predictions_json import refuse_predictions
from tinyseg.data.split import patient_of
from tinyseg.data.writing import FilePath


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
    images: tuple[Path, ...]
    label: Path | None
    recode: tuple[tuple[int, int], ...]

    @property
    def patient(self) -> str:
        """Name of the patient, see `patient_of`."""
        return patient_of(self.name)

    @property
    def files(self) -> tuple[Path, ...]:
        """All its files: the images, then the labels."""
        return self.images if self.label is None else (*self.images, self.label)


@dataclass(frozen=True)
class Cases:
    """All labelled cases of a folder. Iterating gives each `Case`.

    Attributes
    ----------
    modalities, classes : tuple of str
        Names in order; class 0 is the background.
    cases : tuple of Case
        In natural order of their names.
    skipped : dict of str to str
        Names of cases that lack a file, with the reason.
    """

    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    cases: tuple[Case, ...]
    skipped: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)


def find_cases(folder: FilePath, skip_bad: bool = False) -> Cases:
    """List the labelled cases of a folder.

    Parameters
    ----------
    folder : str or Path
        It has ``dataset.json``, ``imagesTr`` and ``labelsTr`` as in the Decathlon or nnU-Net. Or it has a folder for
        each case, which may lie in further folders such as ``HGG`` and ``LGG``, with files named as in BraTS 2017 to
        2021 (``<case>_flair.nii.gz``, ``_t1``, ``_t1ce``, ``_t2``, ``_seg``) or from 2023 on (``<case>-t2f.nii.gz``,
        ``-t1n``, ``-t1c``, ``-t2w``, ``-seg``). Hidden files (``._*``) are left out.
    skip_bad : bool
        Leave out cases that lack a file and list them in ``skipped``, instead of raising an error.

    Returns
    -------
    Cases

    Raises
    ------
    FileNotFoundError
        The folder has neither layout, or a file is missing.
    ValueError
        ``dataset.json`` does not describe a Decathlon task, or two cases have one name or one file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not a folder: expected one with dataset.json, or with BraTS cases.{how_to_convert([folder])}"
        )
    if (folder / "dataset.json").is_file():
        modalities, classes, listed = describe(folder)
        check_classes(classes, folder / "dataset.json")
        cases, missing = _decathlon_cases(folder, listed, len(classes))
    else:
        modalities, classes, (cases, missing) = MODALITIES, DECATHLON, _brats_cases(folder)
    if missing and not skip_bad:
        raise FileNotFoundError(next(iter(missing.values())))
    if not cases:
        raise FileNotFoundError(f"no case in {folder} can be used: {'; '.join(list(missing.values())[:3])}")
    refuse_repeated(cases)
    refuse_predictions(case.label for case in cases)
    cases = sorted(cases, key=lambda case: natural_order(case.name))
    return Cases(modalities, classes, tuple(cases), missing)


def unchanged_labels(num_classes):
    """Return the `recode` of labels that keep their numbers."""
    return tuple((k, k) for k in range(num_classes))


def _decathlon_cases(folder, listed, num_classes):
    """Return the cases that ``dataset.json`` lists, and a dict of those that lack a file."""
    description, cases, missing = folder / "dataset.json", [], {}
    listed = [(images, label) for images, label in listed if not images[0].name.startswith(".")]
    for name, (images, label) in zip(listed_names(listed), listed, strict=True):
        absent = next((file for file in (*images, label) if not file.is_file()), None)
        if absent is None:
            cases.append(Case(name, images, label, unchanged_labels(num_classes)))
        else:
            there = list_contents(absent.parent) if absent.parent.is_dir() else f"no folder {absent.parent}"
            missing[name] = f"{description} lists {absent}, which is not there. There is: {there}."
    if not cases and not missing:
        raise FileNotFoundError(f"{description} lists no training cases.")
    return cases, missing


def listed_names(listed):
    """Return the name of each case that ``dataset.json`` lists.

    It is the name of the image, or, if each modality has a file or nnU-Net's names, that of the labels without ``_seg``
    or ``-seg``. If each case has a folder in which the files have the same names, it is the name of the folder.
    """
    names = [
        re.sub("[_-]seg$", "", volume_name(label))
        if len(images) > 1 or numbered_by_channel(images, label)
        else volume_name(images[0])
        for images, label in listed
    ]
    folders = [images[0].parent.name for images, _ in listed]
    return folders if len(set(names)) < len(names) == len(set(folders)) else names


def _brats_cases(folder):
    """Return the cases of a folder of BraTS folders, and a dict of those that lack a file."""
    cases, missing = [], {}
    for inner in case_folders(folder):
        try:
            volumes = find_volumes(inner)
            found = [brats_files(volumes, (*endings, label_ending)) for endings, label_ending, _ in NAMINGS]
        except ValueError as error:  # two files of one name
            missing[inner.name] = str(error)
            continue
        for (endings, label_ending, recode), of_naming in zip(NAMINGS, found, strict=True):
            for name, files in of_naming.items():
                absent = [name + e for e in (*endings, label_ending) if e not in files]
                if absent:
                    missing[name] = (
                        f"{inner} has no {', '.join(absent)} (.nii.gz). There is: {list_contents(inner)}. If one of "
                        "these is it, give it that name."
                    )
                    continue
                images = tuple(files[e] for e in endings)
                cases.append(Case(name, images, files[label_ending], tuple(recode.items())))
    if not cases and not missing:
        described = [f" Give {path.parent} by itself." for path in sorted(folder.glob("*/dataset.json"))]
        raise FileNotFoundError(
            f"no cases in {folder}: looked for dataset.json (Medical Segmentation Decathlon), or for folders with "
            f"<case>_flair.nii.gz, _t1, _t1ce, _t2 and _seg (BraTS). There is: {list_contents(folder)}."
            f"{described[0] if described else ''}"
            f"{how_to_convert(path for inner in (folder, *folder.glob('*/')) for path in inner.iterdir())}"
        )
    return cases, missing


def refuse_repeated(cases):
    """Refuse two cases of one name, which may differ in capitals, and one file in two cases."""
    names, files = {}, {}
    for case in cases:
        other = names.setdefault(case.name.casefold(), case)
        if other is not case:
            both = f"{other.files[0]} and {case.files[0]}"
            raise ValueError(f"{both} are two cases named {case.name}: a patient must count once. Leave one out.")
        for file in case.files:
            other = files.setdefault(file.resolve(), case)
            if other is not case or case.files.count(file) > 1:
                raise ValueError(f"{file} is listed twice, for {other.name} and {case.name}: leave one of them out.")


def grid_of_case(case: Case, num_modalities: int | None = None) -> Grid:
    """Return the grid on which a case lies, in the order of axes in which `read_case` reads it, from headers alone.

    Raises
    ------
    ValueError
        A file is damaged or not NIfTI, the grids differ, or the case has another number of modalities.
    """
    volumes = _open(case)
    channels = len(case.images) if len(case.images) > 1 else volumes[0].channels
    if num_modalities not in (None, channels):
        raise ValueError(f"{case.images[0]} has {channels} modalities: expected {num_modalities}, which the data name.")
    return common_grid(volumes)


def read_case(case: Case) -> tuple[np.ndarray, np.ndarray | None]:
    """Read the voxels and the labels of a case.

    They come in the order of axes in which a network sees them, see `tinyseg.data.nifti`: as they are stored in BraTS
    and in the Decathlon, and turned to it where a file is stored in another.

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
    volumes = _open(case)
    orientation = common_grid(volumes).orientation
    images = [volume.read(orientation) for volume in volumes[: len(case.images)]]
    if len(images) > 1:
        volume = np.stack(images)
    else:  # a view: the volume is read from the file only where it is used
        volume = np.moveaxis(images[0], 3, 0) if images[0].ndim == 4 else images[0][None]
    for m, v in enumerate(volume):
        file = case.images[m if len(case.images) > 1 else 0]
        low, high = v.min(), v.max()
        if not np.isfinite([low, high]).all():
            raise ValueError(f"{file}: modality {m} holds NaN or infinity; replace them or leave the case out.")
        if low == high:
            raise ValueError(f"{file}: modality {m} is {low} everywhere; replace it or leave the case out.")
    return volume, None if case.label is None else read_label(volumes[-1], case.recode, orientation)


def _open(case):
    volumes = [open_volume(path) for path in case.files]
    single = volumes if len(case.images) != 1 else volumes[1:]  # one image file may hold all modalities
    several = next((volume for volume in single if volume.channels > 1), None)
    if several is not None:
        raise ValueError(f"{several.path} has {several.channels} channels: expected one volume (X, Y, Z).")
    return volumes


def read_label(file, recode, orientation=None):
    """Read a label volume, uint8 (X, Y, Z).

    Parameters
    ----------
    file : Path or Volume
        A volume of `tinyseg.data.nifti.open_volume` may have got the affine of another, see `common_grid`.
    recode : sequence of (int, int)
        Pairs of a label in the file and the number that it gets.
    orientation : str, optional
        See `tinyseg.data.nifti.Volume.read`; left out, as it is stored.

    Raises
    ------
    ValueError
        The file is damaged, or holds another label. Floats are labels if they are within 0.001 of one, as a file that
        scales its values has them.
    """
    volume = file if isinstance(file, Volume) else open_volume(file)
    label, known, path = volume.read(orientation), dict(recode), volume.path
    if label.ndim != 3:
        raise ValueError(f"{path} has {label.shape[3]} channels: expected one volume of labels (X, Y, Z).")
    with np.errstate(invalid="ignore"):
        nearest = np.rint(label) if label.dtype.kind == "f" else label
        wrong = ~(np.isin(nearest, list(known)) & (np.abs(label - nearest) <= 1e-3))
    if wrong.any():
        strange = [f"{value:g}" for value in np.unique(label[wrong])]
        raise ValueError(f"{path} holds the labels [{list_names(strange)}]: expected only {sorted(known)}.")
    table = np.zeros(256, np.uint8)
    table[list(known)] = list(known.values())
    return table[nearest.astype(np.uint8)]
