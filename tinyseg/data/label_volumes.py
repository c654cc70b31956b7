"""Label volumes of brain tumours: predictions of predict.py, read together with the true labels.

Each case is read with its prediction:

    cases = find_labels("Task01_BrainTumour")                       # or a folder of label volumes, or one file
    for case in cases:
        predicted, truth, voxel = read_pair(find_prediction("masks", case.name), case, cases.classes)
"""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from tinyseg.data.brats import DECATHLON, NAMINGS, REGIONS, Case, Cases, find_cases, read_label, unchanged_labels
from tinyseg.data.files import find_files, find_volumes, list_contents, volume_name
from tinyseg.data.images import NIFTI_SUFFIXES
from tinyseg.data.scans import same_grid


def holds_volumes(path):
    """Return whether a path is a NIfTI file, or a folder with NIfTI files, a ``dataset.json``, or BraTS cases."""
    path = Path(path)
    if path.is_file():
        return path.name.lower().endswith(NIFTI_SUFFIXES)
    return (path / "dataset.json").is_file() or any(find_volumes(p) for p in (path, *path.glob("*/")))


def find_labels(path, classes=DECATHLON):
    """List label volumes.

    Parameters
    ----------
    path : str or Path
        What `tinyseg.data.brats.find_cases` takes; or a folder of label volumes, or one label volume. If names in such
        a folder end in ``_seg`` or ``-seg``, only these files are read, and their labels have BraTS's numbers.
    classes : sequence of str
        Names of the labels 0, 1, 2 … in other label volumes.

    Returns
    -------
    Cases
        Cases of label volumes alone have no images and no modalities.
    """
    path = Path(path)
    if path.is_dir() and ((path / "dataset.json").is_file() or not find_volumes(path)):
        return find_cases(path)
    files = {volume_name(p): p for p in find_files(path, NIFTI_SUFFIXES, "labels")}
    brats = [
        Case(name.removesuffix(ending), (), file, tuple(recode.items()))
        for name, file in files.items()
        for _, ending, recode in NAMINGS
        if name.endswith(ending)
    ]
    if brats:
        return Cases((), DECATHLON, tuple(brats))
    recode = unchanged_labels(len(classes))
    return Cases((), tuple(classes), tuple(Case(name, (), file, recode) for name, file in files.items()))


def find_prediction(path, name):
    """Find the prediction of a case: the file `path`; or ``<name>_mask.nii.gz`` or ``<name>.nii.gz`` in this folder.

    The ending may also be ``.nii``. If there is none, a FileNotFoundError says which name was looked for.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist: expected a label volume, or a folder of them.")
    for ending in ("_mask.nii.gz", "_mask.nii", ".nii.gz", ".nii"):
        if (path / (name + ending)).is_file():
            return path / (name + ending)
    raise FileNotFoundError(
        f"there is no prediction of {name}: looked for {name}_mask.nii.gz in {path}. There is: {list_contents(path)}. "
        "Predict it, or choose others with --cases."
    )


def predicted_classes(path):
    """Return the classes that predict.py recorded in predictions.json beside its volumes, or None."""
    path = Path(path)
    record = (path if path.is_dir() else path.parent) / "predictions.json"
    if not record.is_file():
        return None
    about = json.loads(record.read_text(encoding="utf-8"))
    return about.get("classes") if path.is_dir() or path.name in about["files"] else None


def read_pair(prediction, case, classes):
    """Read a predicted and a true label volume.

    Parameters
    ----------
    prediction : Path
    case : Case
    classes : sequence of str
        Names of the labels 0, 1, 2 … that the prediction may hold.

    Returns
    -------
    predicted, truth : uint8 ndarray, (X, Y, Z)
    voxel : float
        Volume of a voxel, mm³.

    Raises
    ------
    ValueError
        A file is damaged or holds a label that is no class, or the two do not lie on one grid.
    """
    predicted = read_label(prediction, unchanged_labels(len(classes)))
    truth = read_label(case.label, case.recode)
    shapes, affines = (predicted.shape, truth.shape), (nib.load(prediction).affine, nib.load(case.label).affine)
    if not same_grid(shapes[0], affines[0], shapes[1], affines[1]):
        found = f"affine is {np.round(affines[0], 3).tolist()} and {np.round(affines[1], 3).tolist()}"
        if shapes[0] != shapes[1]:
            found = f"shape is {shapes[0]} and {shapes[1]}"
        raise ValueError(
            f"{prediction} and {case.label} do not lie on one grid: their {found}. "
            "Compare what was predicted from the images that belong to these labels."
        )
    return predicted, truth, voxel_volume(case.label)


def voxel_volume(path):
    """Return the volume of a voxel, mm³, from the zooms in the header of a NIfTI file."""
    return float(np.prod(nib.load(path).header.get_zooms()[:3]))


def regions_of(classes):
    """Return the regions to score beside the classes: BraTS's three for the Decathlon's classes, or the whole tumour.

    A region is a name and the labels that belong to it.
    """
    if same_classes(classes, DECATHLON):
        return REGIONS
    return {"whole tumour": tuple(range(1, max(2, len(classes))))}  # a single class is the tumour: label 1


def same_classes(one, other):
    """Return whether two lists of classes are the same, in British or American spelling."""
    one, other = ([name.casefold().replace("tumor", "tumour") for name in names] for names in (one, other))
    return one == other
