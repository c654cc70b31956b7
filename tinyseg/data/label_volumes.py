"""Label volumes of brain tumours: predictions of predict.py, read together with the true labels.

Each case is read with its prediction:

    cases = find_labels("Task01_BrainTumour")                       # or a folder of label volumes, or one file
    for case in cases:
        predicted, truth, voxel = read_pair(find_prediction("masks", case.name), case, cases.classes)
"""

from pathlib import Path

from tinyseg.data.brats import Case, Cases, find_cases, read_label, refuse_repeated, unchanged_labels
from tinyseg.data.brats_folders import NAMINGS, case_folders
from tinyseg.data.classes import DECATHLON, check_classes
from tinyseg.data.dataset_json import describe_classes
from tinyseg.data.files import find_files, find_volumes, list_contents, natural_order, volume_name
from tinyseg.data.images import NIFTI_SUFFIXES
from tinyseg.data.json_files import read_json
from tinyseg.data.nifti import common_grid, open_volume
from tinyseg.data.predictions_json import NAME, Content, refuse_predictions

PREDICTED = ("_mask", "", "_pred", "_seg", "-seg")  # endings of the names of predictions
PROBABILITIES = "_probability"  # ending of what predict.py writes with --probabilities, which is not scored


def holds_volumes(path):
    """Return whether a path is a NIfTI file, or a folder with NIfTI files, a ``dataset.json``, or BraTS cases."""
    path = Path(path)
    if path.is_file():
        return path.name.lower().endswith(NIFTI_SUFFIXES)
    if not path.is_dir():
        return False
    if (path / "dataset.json").is_file() or any(find_volumes(folder) for folder in (path, *path.glob("*/"))):
        return True
    return any(find_volumes(folder) for folder in case_folders(path))


def find_labels(path, classes=DECATHLON):
    """List label volumes.

    Parameters
    ----------
    path : str or Path
        What `tinyseg.data.brats.find_cases` takes; or a folder of label volumes, or one label volume. If names in such
        a folder end in ``_seg`` or ``-seg``, only these files are read, and their labels have BraTS's numbers.
    classes : sequence of str
        Names of the labels 0, 1, 2 … in other label volumes, unless a ``dataset.json`` beside their folder names them.

    Returns
    -------
    Cases
        Cases of label volumes alone have no images and no modalities.
    """
    path = Path(path)
    if path.is_dir() and ((path / "dataset.json").is_file() or not find_volumes(path)):
        return find_cases(path)
    if path.is_dir():
        files = find_volumes(path)
    else:
        files = {volume_name(p): p for p in find_files(path, NIFTI_SUFFIXES, "labels")}
    brats = [
        Case(name[: -len(ending)], (), file, tuple(recode.items()))
        for name, file in files.items()
        for _, ending, recode in NAMINGS
        if name.casefold().endswith(ending)
    ]
    if brats:
        classes, cases = DECATHLON, brats
    else:
        folder = (path if path.is_dir() else path.parent).absolute()
        if (folder.parent / "dataset.json").is_file():
            classes = describe_classes(folder.parent) or classes
            check_classes(classes, folder.parent / "dataset.json")
        recode = unchanged_labels(len(classes))
        cases = [Case(name, (), file, recode) for name, file in files.items()]
    refuse_repeated(cases)
    refuse_predictions(case.label for case in cases)
    return Cases((), tuple(classes), tuple(sorted(cases, key=lambda case: natural_order(case.name))))


def find_prediction(path, name):
    """Find the prediction of a case: the file `path`; or in this folder the one whose name is the case's.

    The name may end in ``_mask`` (predict.py's), ``_pred``, ``_seg`` or ``-seg``, before ``.nii.gz`` or ``.nii``. In a
    file that is named as BraTS names the true labels, and compared with such labels, the labels have BraTS's numbers.

    Raises
    ------
    FileNotFoundError
        There is none; the message says which name was looked for.
    ValueError
        There are several.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist: expected a label volume, or a folder of them.")
    volumes = find_volumes(path)
    found = [volumes[name + ending] for ending in PREDICTED if name + ending in volumes]
    if len(found) > 1:
        raise ValueError(
            f"{' and '.join(file.name for file in found)} in {path} may all be the prediction of {name}: keep one."
        )
    if not found:
        what = "" if name + PROBABILITIES not in volumes else " without --probabilities, because labels are scored"
        raise FileNotFoundError(
            f"there is no prediction of {name}: looked for {name}_mask.nii.gz in {path}. There is: "
            f"{list_contents(path)}. Predict it{what}, or choose others with --cases."
        )
    return found[0]


def predicted_classes(path):
    """Return the classes that predict.py recorded in predictions.json beside its volumes, or None."""
    path = Path(path)
    record = (path if path.is_dir() else path.parent) / NAME
    if not record.is_file():
        return None
    about = read_json(record, Content, "a record of predict.py: move it away if another program wrote it")
    if len(about.classes) > 1:
        check_classes(about.classes, record)
    return about.classes if path.is_dir() or path.name in about.files else None


def _recode_of(prediction, case, classes):
    """Return which label in a prediction is which class.

    A prediction that is named as BraTS names the true labels (``-seg``) has BraTS's numbers as they do, unless
    predict.py wrote it.
    """
    endings = [ending for _, ending, recode in NAMINGS if tuple(recode.items()) == tuple(case.recode)]
    name = volume_name(prediction).casefold()
    if any(name.endswith(ending) for ending in endings) and predicted_classes(prediction) is None:
        return case.recode
    return unchanged_labels(len(classes))


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
    opened = [open_volume(path) for path in (*case.files, prediction)]
    grid = common_grid(opened)
    truth = read_label(opened[-2], case.recode, grid.orientation)
    predicted = read_label(opened[-1], _recode_of(prediction, case, classes), grid.orientation)
    return predicted, truth, grid.voxel
