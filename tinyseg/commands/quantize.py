"""Quantize a network with a user's images, and show what that costs on them: what `tinyseg export --int8` does.

Reads top to bottom: which images, with masks if there are any; the two networks on them; the table.
"""

import pathlib
from dataclasses import dataclass

import numpy as np

from tinyseg.commands.predict import find_inputs
from tinyseg.commands.tables import table
from tinyseg.data import isbi
from tinyseg.data.brain import Preparation
from tinyseg.data.brats import find_cases, read_case
from tinyseg.data.files import refuse_missing
from tinyseg.data.load_tqdm import tqdm
from tinyseg.data.scans import channels_of, open_scan
from tinyseg.export.calibration import AT_MOST
from tinyseg.export.calibration import quantize as choose_integers
from tinyseg.export.describing import describe
from tinyseg.metrics import SegmentationScores
from tinyseg.prediction import predict
from tinyseg.prediction.predictor import labels
from tinyseg.prediction.stacks import stacks_of, statistics_of
from tinyseg.prediction.tiles import mirror_to_multiple

AT_LEAST = 20  # images; with fewer, ranges depend much on which they are


@dataclass(frozen=True)
class Example:
    """An image to calibrate with.

    Attributes
    ----------
    section : ndarray, shape (C, H, W)
        As stored.
    prepared : float32 ndarray, shape (C, h, w)
        As the network takes it.
    truth : ndarray, shape (H, W), or None
        The class of each pixel, -1 where it is not scored; with one class 1 or True is the foreground.
    """

    section: np.ndarray
    prepared: np.ndarray
    truth: np.ndarray | None = None


def quantize(predictor, folder, foreground=None):
    """Choose the integers of a network with 8 bits, and print what it loses on the images.

    Parameters
    ----------
    predictor : Predictor
        Of the network.
    folder : Path
        Images, as `tinyseg predict` takes them; with masks, as `tinyseg evaluate --images` takes them.
    foreground : {"white", "black"}, optional
        How masks store the class of a network of one class (default: as in the training, or white).

    Returns
    -------
    network : Int8Network
    found : dict
        What `compare` returns.

    Raises
    ------
    FileNotFoundError, ValueError
        There are no such images, or files; the sentence names them.
    """
    examples = read_examples(predictor, folder, foreground or predictor.foreground or "white")
    shown = tqdm(examples, desc="calibrating", unit="image")
    multiple = predictor.model.multiple
    network = choose_integers(
        describe(predictor.model), (mirror_to_multiple(each.prepared, multiple) for each in shown)
    )
    found = compare(predictor, network, examples)
    print_comparison(found, predictor.classes)
    return network, found


# ----- images ----------------------------------------------------------------------
def read_examples(predictor, folder, foreground="white", at_most=AT_MOST):
    """Read images evenly spread over a folder, a stack or a volume, with their masks if there are any.

    Returns
    -------
    list of Example
    """
    folder = pathlib.Path(folder)
    refuse_missing(folder, "images to calibrate with")
    brains = isinstance(predictor.preparation, Preparation)
    read = _labelled_slices if brains else _labelled_sections
    known = brains or predictor.masks or len(predictor.classes) == 1  # what the values of masks mean
    examples = read(predictor, folder, foreground, at_most) if known else []
    examples = examples or _images(predictor, folder, at_most)
    masks = "with masks" if examples[0].truth is not None else "without masks"
    if not known:
        masks = "(masks are not scored: the checkpoint does not say which value is which class)"
    few = "" if len(examples) >= AT_LEAST else f": the ranges of numbers are surer with {AT_LEAST} to {AT_MOST}"
    print(f"{folder}: {_count(len(examples))} {masks}{few}")
    return examples


def _labelled_sections(predictor, folder, foreground, at_most):
    if folder.is_file():
        return []
    try:
        sections = isbi.load(folder, "required", foreground, classes=predictor.masks)
    except FileNotFoundError:  # no masks
        return []
    predictor.take_statistics(sections.images[:, None])
    chosen = _spread(len(sections), at_most)
    return [Example(x[None], predictor.prepare(x), sections.labels[k]) for k in chosen for x in [sections.images[k]]]


def _labelled_slices(predictor, folder, foreground, at_most):
    try:
        cases = find_cases(folder)
    except FileNotFoundError:  # no labels
        return []
    order = list(channels_of(predictor.modalities or cases.modalities, cases.modalities, f"The data in {folder}"))
    chosen = [list(cases)[k] for k in _spread(len(cases), at_most)]
    examples = []
    for case in chosen:
        volume, truth = read_case(case)
        volume = volume[order]
        sections = np.moveaxis(volume, 3, 0)
        predictor.take_statistics(sections)
        with_brain = np.flatnonzero((volume != 0).any(axis=(0, 1, 2)))
        for k in with_brain[_spread(len(with_brain), max(1, at_most // len(chosen)))]:
            classes = truth[..., k] > 0 if len(predictor.classes) == 1 else truth[..., k]
            examples.append(Example(sections[k], predictor.prepare(sections[k]), classes))
    return examples


def _images(predictor, folder, at_most):
    """Read images without masks: whatever `tinyseg predict` takes."""
    scans, found, examples = find_inputs(folder, predictor.modalities), [], []
    stacks = stacks_of({folder: scans}) if predictor.standardizes_stacks else {}
    for_network = isinstance(predictor.preparation, Preparation)
    for scan in scans:
        with open_scan(scan, for_network) as image:
            found += [(scan, k) for k in range(len(image))]
    wanted = [found[k] for k in _spread(len(found), at_most)]
    for scan in dict.fromkeys(scan for scan, _ in wanted):
        with open_scan(scan, for_network) as image:
            predictor.look_at(image, statistics_of(predictor, stacks[scan]) if scan in stacks else None)
            sections = [image.section(k) for each, k in wanted if each is scan]
            examples += [Example(section, predictor.prepare(section)) for section in sections]
    return examples


def _count(images):
    return f"{images} image{'' if images == 1 else 's'}"


def _spread(n, at_most):
    """Return at most so many of the numbers below n, at equal distances."""
    return np.unique(np.linspace(0, n - 1, min(n, at_most)).round().astype(int))


# ----- the two networks on them ------------------------------------------------------
def compare(predictor, forward, examples):
    """Return what a network and another form of it give on images.

    Parameters
    ----------
    predictor : Predictor
        Of the network, as float.
    forward : callable
        Images (N, C, H, W) to logits, float32: the network with 8 bits.
    examples : sequence of Example

    Returns
    -------
    dict
        ``images``, ``changed`` (share of the pixels whose class is another), ``largest`` and ``mean`` (differences of
        the probability); with masks also ``float`` and ``int8``, each with ``accuracy`` and, for each class but the
        background, a list of ``dice`` and ``iou``, over the pixels of all images; NaN if it is nowhere.
    """
    scores = {name: SegmentationScores(max(2, len(predictor.classes))) for name in ("float", "int8")}
    changed = pixels = largest = total = 0
    for example in tqdm(examples, desc="comparing", unit="image"):
        p, q = (_probabilities(predictor, each, example) for each in (None, forward))
        a, b = labels(p), labels(q)
        changed, pixels = changed + np.count_nonzero(a != b), pixels + a.size
        largest, total = max(largest, float(np.abs(p - q).max())), total + float(np.abs(p - q).mean()) * a.size
        if example.truth is not None:
            scored = example.truth >= 0  # -1: pixels to ignore
            for name, mask in (("float", a), ("int8", b)):
                scores[name].update(mask[scored][None, None], example.truth[scored][None, None].astype(np.uint8))
    found = {"images": len(examples), "changed": float(changed / pixels), "largest": largest, "mean": total / pixels}
    if examples[0].truth is None:
        return found
    return found | {name: _without_background(each.pooled()) for name, each in scores.items()}


def _probabilities(predictor, forward, example):
    """Return the probabilities (classes, H, W) of an example, by a function instead of the network if one is given."""
    p = predict(predictor.model, example.prepared[None], tile=predictor.tile, forward=forward)[0]
    shape = example.section.shape[1:]
    return p if p.shape[1:] == shape else predictor.preparation.restore(p, shape)


def _without_background(scores):
    """Return accuracy, and Dice and IoU of each class but the background, as lists."""
    classes = list(scores["classes"].values())[1:]
    return {"accuracy": scores["accuracy"]} | {name: [each[name] for each in classes] for name in ("dice", "iou")}


# ----- the table -----------------------------------------------------------------------
def print_comparison(found, classes):
    """Print the scores of both networks if there are masks, and how far they agree."""
    if "float" in found:
        names = classes[1:] if len(classes) > 1 else classes
        titles = ["accuracy", *(f"{score}, {name}" for name in names for score in ("Dice", "IoU"))]
        rows = []
        for key, title in (("float", "float"), ("int8", "8 bits")):
            of_class = zip(found[key]["dice"], found[key]["iou"], strict=True)
            numbers = [found[key]["accuracy"], *(score for both in of_class for score in both)]
            rows.append((title, [f"{number:.4f}" for number in numbers]))
        print(table(titles, rows))
    print(
        f"With 8 bits {found['changed']:.2%} of the pixels change their class on {_count(found['images'])}; the "
        f"probability differs by {found['mean']:.4f} on average and by {found['largest']:.2f} at most."
    )
