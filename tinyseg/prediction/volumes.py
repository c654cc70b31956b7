"""Whole volumes of brain tumours: choose cases, predict them or read their predictions, and draw them.

One slice of each patient is kept for the picture.
"""

import numpy as np

from tinyseg.data.brats import grid_of_case, read_case
from tinyseg.data.files import find_volumes, list_names
from tinyseg.data.label_volumes import PROBABILITIES, find_prediction
from tinyseg.data.scans import channels_of
from tinyseg.data.split import patient_of
from tinyseg.report import plots


def select_cases(cases, names, where):
    """Return the cases with the given names, or all if None.

    A name is that of a case, or of a patient with all of his cases. Blanks around it do not count, and a name that is
    given twice counts once. A ValueError lists names that `where` does not have, or says that no name is given.
    """
    if names is None:
        return list(cases)
    chosen = {}
    wanted = [name.strip() for name in names if name.strip()]
    unknown = [name for name in wanted if all(name not in (case.name, case.patient) for case in cases)]
    if unknown or not wanted:
        found = f"has no case {', '.join(unknown)}" if unknown else "has cases, but no name of one is given"
        raise ValueError(f"{where} {found}. There is: {list_names([case.name for case in cases])}.")
    for name in wanted:
        chosen |= {case.name: case for case in cases if name in (case.name, case.patient)}
    return list(chosen.values())


def held_out(cases, patients):
    """Return the names of the cases that a network was not trained on, and a description of them.

    `patients` is a dict of the names of the "train", "val" and "test" patients, as train_brats.py saves it in its
    checkpoints, or an empty one.
    """
    present = [case.name for case in cases]
    for part, what in (("test", "of the test"), ("val", "of the validation, on which the best epoch was chosen")):
        names = [name for name in present if name in patients.get(part, ())]
        if names:
            missing = len(patients[part]) - len(names)
            more = f"; {missing} more of them are not here" if missing else ""
            return names, f"those {what}, not trained on{more}"
    if not patients:
        return present, "the checkpoint does not say which it was trained on"
    trained = set(map(patient_of, patients.get("train", ())))
    others = [name for name in present if patient_of(name) not in trained]
    if not others:
        return present, "there are no others than those trained on"
    return others, "those not trained on"


def predict_case(predictor, modalities, threshold, case):
    """Predict a case, and read its labels.

    Parameters
    ----------
    predictor : Predictor
    modalities : sequence of str
        Modalities of the case; the network gets those that it takes, in its order.
    threshold : float
        Of the probability, for a network of one class.
    case : Case

    Returns
    -------
    predicted, truth : uint8 ndarray, (X, Y, Z)
    voxel : float
        Volume of a voxel, mm³.
    """
    order = list(channels_of(predictor.modalities or modalities, modalities, f"The data for {predictor.name}"))
    volume, truth = read_case(case)
    return predictor.volume(volume[order], threshold), truth, grid_of_case(case).voxel


def find_predictions(path, cases):
    """Return the file of each case's prediction, by the case's name; a FileNotFoundError says which has none.

    `path` is a folder of label volumes, or the label volume of a single case.
    """
    if path.is_file() and len(cases) > 1:
        raise ValueError(f"{path} is one volume, and there are {len(cases)} cases: choose one of them.")
    return {case.name: find_prediction(path, case.name) for case in cases}


def list_leftovers(path, cases):
    """Return the names of the volumes in a folder that belong to none of these cases, as labels or probabilities."""
    if path.is_file():
        return []
    taken = {find_prediction(path, case.name) for case in cases}
    probabilities = {case.name + PROBABILITIES for case in cases}
    volumes = find_volumes(path).items()
    return [file.name for name, file in volumes if file not in taken and name not in probabilities]


def most_tumour(predicted, truth):
    """Return the number of the slice with most tumour, its prediction and its truth, both (X, Y).

    If the truth has no tumour, it is the slice with most predicted tumour.
    """
    z = int(np.count_nonzero(truth if truth.any() else predicted, axis=(0, 1)).argmax())
    return z, predicted[:, :, z].copy(), truth[:, :, z].copy()


def draw_slices(shown, path, modalities, classes):
    """Draw a slice of each patient in a row of its own, on black if the case has no images.

    Parameters
    ----------
    shown : sequence of (Case, (int, ndarray, ndarray), float)
        The case, its slice from `most_tumour`, and its Dice.
    path : path-like
    modalities, classes : sequence of str
        See `tinyseg.report.plots.tumours`.
    """
    shape = np.max([truth.shape for _, (_, _, truth), _ in shown], axis=0)

    def pad(planes):
        missing = [(0, n - m) for n, m in zip(shape, planes.shape[-2:], strict=True)]
        return np.pad(planes, [(0, 0)] * (planes.ndim - 2) + missing)

    images, labels, predictions, captions = [], [], [], []
    for case, (z, predicted, truth), dice in shown:
        if len(classes) == 1:
            predicted, truth = predicted > 0, truth > 0
        images.append(pad(read_case(case)[0][..., z] if case.images else np.zeros((1, *truth.shape), np.uint8)))
        labels.append(pad(truth))
        predictions.append(pad(predicted))
        captions.append(f"{case.name}\nDice {dice:.3f}, slice {z}")
    stacks = map(np.stack, (images, labels, predictions))
    plots.tumours(*stacks, captions, path, modalities or ["no images"], classes)
