"""Cases of brain tumours predicted, or read, as whole volumes beside the truth, and pictures of them.

Predictions that come one after the other are held one at a time; of each patient a slice is kept to be drawn.
"""

import numpy as np

from tinyseg.data.brats import read_case
from tinyseg.data.label_volumes import find_prediction, read_pair, voxel_volume
from tinyseg.data.scans import channels_of
from tinyseg.report import plots


def choose(cases, names, where):
    """Return the cases of some names, all if None; a ValueError names those that are not there, in `where`."""
    there = {case.name: case for case in cases}
    unknown = [name for name in names or () if name not in there]
    if unknown:
        listed = ", ".join(list(there)[:12]) + f", and {len(there) - 12} more" * (len(there) > 12)
        raise ValueError(f"{where} has no case {', '.join(unknown)}. There is: {listed}.")
    return [there[name] for name in (there if names is None else names)]


def held_out(cases, patients):
    """Return the names of the cases that a network was not trained on, and what they are, in words.

    Parameters
    ----------
    cases : Cases
    patients : dict of str to list of str
        Names of the "train", "val" and "test" patients, as train_brats.py leaves them in its checkpoints; or empty.
    """
    here = [case.name for case in cases]
    for part, what in (("test", "of the test"), ("val", "of the validation, on which the best epoch was chosen")):
        names = [name for name in here if name in patients.get(part, ())]
        if names:
            missing = len(patients[part]) - len(names)
            return names, f"those {what}, not trained on" + f"; {missing} more of them are not here" * bool(missing)
    if not patients:
        return here, "the checkpoint does not say which it was trained on"
    others = [name for name in here if name not in patients["train"]]
    return (others, "those not trained on") if others else (here, "there are no others than those trained on")


def predict_cases(predictor, cases, modalities, threshold=0.5):
    """Predict labelled cases, one after the other.

    Parameters
    ----------
    predictor : Predictor
    cases : sequence of Case
    modalities : sequence of str
        Of the cases' images; the network gets its own, in its own order.
    threshold : float
        For a network of one class.

    Yields
    ------
    predicted, truth : uint8 ndarray, (X, Y, Z)
    voxel : float
        Volume of a voxel, mm³.
    """
    order = list(channels_of(predictor.modalities or modalities, modalities, "The data"))
    for case in cases:
        volume, truth = read_case(case)
        yield predictor.volume(volume[order], threshold), truth, voxel_volume(case.label)


def read_predictions(path, cases, classes):
    """Read the predictions of cases, as `predict_cases` would make them.

    Parameters
    ----------
    path : Path
        Folder of label volumes, or the one of a single case.
    cases : sequence of Case
    classes : sequence of str
        See `tinyseg.data.label_volumes.read_pair`.

    Returns
    -------
    iterator of (predicted, truth, voxel)

    Raises
    ------
    FileNotFoundError
        There is no prediction of a case; before any is read.
    ValueError
        One volume is given for several cases.
    """
    if path.is_file() and len(cases) > 1:
        raise ValueError(f"{path} is one volume, and there are {len(cases)} cases: choose one of them.")
    files = [find_prediction(path, case.name) for case in cases]
    return (read_pair(file, case, classes) for file, case in zip(files, cases, strict=True))


def most_tumour(predicted, truth):
    """Return the slice with most tumour: its number, prediction and truth (X, Y)."""
    z = int(np.count_nonzero(truth if truth.any() else predicted, axis=(0, 1)).argmax())
    return z, predicted[:, :, z].copy(), truth[:, :, z].copy()


def draw_slices(shown, path, modalities, classes):
    """Draw a slice of each of some patients, one a row; on black where the labels came without images.

    Parameters
    ----------
    shown : sequence of (Case, (int, ndarray, ndarray), float)
        The case, its slice from `most_tumour`, and its Dice.
    path : path-like
    modalities, classes : sequence of str
        See `tinyseg.report.plots.tumours`.
    """
    shape = np.max([truth.shape for _, (_, _, truth), _ in shown], axis=0)

    def filled(planes):
        more = [(0, n - m) for n, m in zip(shape, planes.shape[-2:], strict=True)]
        return np.pad(planes, [(0, 0)] * (planes.ndim - 2) + more)

    images, labels, predictions, captions = [], [], [], []
    for case, (z, predicted, truth), dice in shown:
        images.append(filled(read_case(case)[0][..., z] if case.images else np.zeros((1, *truth.shape), np.uint8)))
        labels.append(filled(truth > 0 if len(classes) == 1 else truth))
        predictions.append(filled(predicted > 0 if len(classes) == 1 else predicted))
        captions.append(f"{case.name}\nDice {dice:.3f}, slice {z}")
    stacks = map(np.stack, (images, labels, predictions))
    plots.tumours(*stacks, captions, path, modalities or ["no images"], classes)
