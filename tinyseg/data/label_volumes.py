"""Label volumes of brain tumours: those that predict.py wrote beside the true ones.

In short:

    cases = find_labels("Task01_BrainTumour")           # or a folder of label volumes, or one file
    for case in cases:
        predicted, truth, voxel = read_pair(find_prediction("masks", case.name), case, cases.classes)
"""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from tinyseg.data.brats import DECATHLON, NAMINGS, REGIONS, Case, Cases, find_cases, read_label
from tinyseg.data.images import NIFTI_SUFFIXES
from tinyseg.data.scans import same_grid
from tinyseg.data.stacks import find_files, listing


def holds_volumes(path):
    """Whether a path is a NIfTI file, or a folder with NIfTI files, a ``dataset.json``, or BraTS cases."""
    path = Path(path)
    if path.is_file():
        return path.name.lower().endswith(NIFTI_SUFFIXES)
    return (path / "dataset.json").is_file() or any(next(path.glob(p), None) for p in ("[!.]*.nii*", "*/[!.]*.nii*"))


def find_labels(path, classes=DECATHLON):
    """List label volumes.

    Parameters
    ----------
    path : str or Path
        What `tinyseg.data.brats.find_cases` takes; or a folder of label volumes, or one of them. In such a folder that
        has files ending in ``_seg`` or ``-seg``, these are the labels, in BraTS's numbers.
    classes : sequence of str
        What the numbers in a bare label volume mean, in order.

    Returns
    -------
    Cases
        Those of bare label volumes have no images and no modalities.

    Raises
    ------
    FileNotFoundError, ValueError
        As `find_cases`.
    """
    path = Path(path)
    if path.is_dir() and ((path / "dataset.json").is_file() or not any(path.glob("[!.]*.nii*"))):
        return find_cases(path)
    files = {p.name.removesuffix(".gz").removesuffix(".nii"): p for p in find_files(path, NIFTI_SUFFIXES, "labels")}
    brats = [
        Case(name.removesuffix(ending), (), file, tuple(recode.items()))
        for name, file in files.items()
        for _, ending, recode in NAMINGS
        if name.endswith(ending)
    ]
    if brats:
        return Cases((), DECATHLON, tuple(brats))
    same = tuple((k, k) for k in range(len(classes)))
    return Cases((), tuple(classes), tuple(Case(name, (), file, same) for name, file in files.items()))


def find_prediction(path, name):
    """Find the prediction of a case: `path` itself, or in this folder ``<name>_mask.nii.gz``, or ``<name>.nii.gz``.

    Raises
    ------
    FileNotFoundError
        It is not there; the message names it.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist: expected a label volume, or a folder of them.")
    names = [name + part + ending for part in ("_mask", "") for ending in (".nii.gz", ".nii")]
    for file in (path / n for n in names):
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"there is no prediction of {name}: looked for {names[0]} in {path}. There is: {listing(path)}. "
        "Predict it, or choose others with --cases."
    )


def predicted_classes(path):
    """Return the classes of what predict.py wrote, as its record beside the volumes says; None where there is none."""
    path = Path(path)
    record = (path if path.is_dir() else path.parent) / "predictions.json"
    if not record.is_file():
        return None
    about = json.loads(record.read_text(encoding="utf-8"))
    known = path.is_dir() or path.name in about["files"]
    return about.get("classes") if known else None


def read_pair(prediction, case, classes):
    """Read a predicted and a true label volume.

    Parameters
    ----------
    prediction : Path
    case : Case
    classes : sequence of str
        Those that a prediction may hold, by their numbers.

    Returns
    -------
    predicted, truth : uint8 ndarray, (X, Y, Z)
    voxel : float
        Volume of a voxel, mm³.

    Raises
    ------
    ValueError
        A file is damaged, holds a label that is no class, or the two do not lie on one grid.
    """
    predicted = read_label(prediction, [(k, k) for k in range(len(classes))])
    truth = read_label(case.label, case.recode)
    mine, true = nib.load(prediction).affine, nib.load(case.label).affine
    if not same_grid(predicted.shape, mine, truth.shape, true):
        what, found = "affine", [np.round(affine, 3).tolist() for affine in (mine, true)]
        if predicted.shape != truth.shape:
            what, found = "shape", [predicted.shape, truth.shape]
        raise ValueError(
            f"{prediction} and {case.label} do not lie on one grid: their {what} is {found[0]} and {found[1]}. "
            "Compare what was predicted from the images that belong to these labels."
        )
    return predicted, truth, voxel_volume(case.label)


def voxel_volume(path):
    """Volume of a voxel, mm³, by the zooms in a NIfTI's header."""
    return float(np.prod(nib.load(path).header.get_zooms()[:3]))


def regions_of(classes):
    """Regions to score beside the classes: BraTS's three for the Decathlon's classes, else the whole tumour.

    One class only is tumour or not.
    """
    return REGIONS if same_classes(classes, DECATHLON) else {"whole tumour": tuple(range(1, max(2, len(classes))))}


def same_classes(one, other):
    """Whether two lists of classes are the same, in British or American spelling."""
    one, other = ([name.casefold().replace("tumor", "tumour") for name in names] for names in (one, other))
    return one == other
