"""What evaluate.py compares: sections with their labels, and the probabilities of a network or a user's predictions.

A folder of predictions may hold several files of one image, as predict.py leaves them when it is run with and without
--probabilities, and the pictures that evaluate.py drew. Of these the probabilities are taken, because V^Rand and V^Info
need them, then numbers of objects, and then masks; what is left out is printed.
"""

import numpy as np

from tinyseg.commands.predict_instances import OVERLAY
from tinyseg.data import Sections, isbi, load_stack
from tinyseg.data.files import find_files, list_names
from tinyseg.data.load_tqdm import tqdm
from tinyseg.data.masks import as_probabilities, binarize_labels, numbered_objects
from tinyseg.data.pairs import is_probability, prefer_probabilities
from tinyseg.data.stacks import SUFFIXES, load_pairs, pair_files, shape_in_words
from tinyseg.prediction.held_out import choose_sections, leave_out_trained
from tinyseg.report.saving import is_own_picture

PICTURE = ".worst.png"  # ending of what evaluate.py draws beside its JSON file


def predict_sections(args, predictor):
    """Return sections with labels, and the network's probabilities for them at their own resolution; None last.

    The None stands where `read_sections` has the numbers of objects.
    """
    if len(predictor.classes) > 1:
        raise ValueError(f"{args.checkpoint} has {len(predictor.classes)} classes: this scores networks of one.")
    labels = find_masks(args.labels) if args.labels else "required"
    sections, predicted = predict_chosen(isbi.load(args.images, labels, args.foreground), args, predictor)
    return sections, np.stack([p[0] for p in predicted]), None


def predict_chosen(everything, args, predictor):
    """Return the sections to score, and an iterator of their probabilities, each (classes, H, W).

    They are those of --sections, or those that the network was not trained on; a line says which.
    """
    chosen = choose_sections(everything, args.sections)
    try:
        sections, said = leave_out_trained(chosen, predictor.model.meta.get("config"), bool(args.sections))
    except ValueError as error:
        raise ValueError(f"{args.checkpoint} is damaged: {error}") from error
    print(f"{args.images}: {said}")
    predictor.take_statistics(everything.images[:, None])  # the whole stack's, not those of the chosen sections
    return sections, map(predictor, tqdm(sections.images, desc="predicting", unit="section"))


def read_sections(args):
    """Return sections with labels, the predictions that the user brings for them, and these as numbers of objects.

    The last is None if they are masks or probabilities.
    """
    predictions, mask_place = find_predictions(args.predictions), find_masks(args.labels)
    what = "predictions", "labels"
    stack, names, labels, label_names = load_pairs(predictions, mask_place, what)
    objects = numbered_objects(labels)
    labels = binarize_labels(labels, [f"{name} in {args.labels}" for name in label_names], args.foreground)
    probabilities = as_probabilities(stack, args.predictions)
    if args.images:
        images, names = read_images(args, predictions, mask_place, labels)
    else:
        images = np.rint(255 * probabilities).astype(np.uint8)
    predicted = choose_sections(Sections(probabilities, labels, names, objects=numbered_objects(stack)), args.sections)
    sections = choose_sections(Sections(images, labels, names, objects=objects), args.sections)
    return sections, predicted.images, predicted.objects


def read_images(args, predictions, masks, labels):
    """Return the images of --images that belong to predictions and their masks, and their names.

    `predictions` and `masks` are places of files, and `labels` (S, H, W) what the masks hold.
    """
    files = pair_files(predictions, masks, ("predictions", "labels"))[1]
    place = find_images(args.images)
    images, names = load_stack(pair_files(files if len(files) > 1 else masks, place, ("labels", "images"))[1])
    if images.shape != labels.shape:
        found = f"{args.images} has {shape_in_words(images)}, {args.labels} has {shape_in_words(labels)}"
        raise ValueError(f"images and labels must be the same sections: {found}. Give the images of these labels.")
    return images, names


def find_predictions(path, of_classes=False):
    """Return the path of predictions, or, of a folder, the files to score: one of each image, of probabilities if any.

    Of several classes it is their masks that are scored, and not their probabilities. What is left out of the folder
    is printed.
    """
    if not path.is_dir():
        return path
    files = {file.name: file for file in find_files(path, SUFFIXES, "predictions")}
    drawn = [name for name in files if _is_drawn(path / name)]
    names = [name for name in files if name not in drawn]
    if of_classes:
        names = [name for name in names if not is_probability(name)] or names
    kept = prefer_probabilities(names)
    if not kept:
        raise FileNotFoundError(f"no predictions in {path}: there is only what was drawn of them, {list_names(drawn)}.")
    left = [name for name in files if name not in kept]
    if left:
        others = "" if left == drawn else " To score others, move them to a folder of their own."
        print(f"{path}: scored are {list_names(kept)}, and left out {list_names(left)}.{others}")
    return [files[name] for name in kept] if left else path


def _is_drawn(file):
    """Return whether a file is a picture that predict.py drew of objects, or evaluate.py beside its scores."""
    if file.name.endswith(OVERLAY):
        return is_own_picture(file)
    return file.name.endswith(PICTURE) and _scores_of(file)


def _scores_of(picture):
    """Return whether the scores are there that evaluate.py drew a picture beside."""
    name = picture.name.removesuffix(PICTURE)
    return any(picture.with_name(name + ending).is_file() for ending in (".json", ""))


def find_masks(path):
    """Return where masks are: in a folder that has images, too, those of the masks; otherwise the path itself."""
    found = _find_both(path)
    return found[1] if found else path


def find_images(path):
    """Return where images are: as `find_masks`, those of the images."""
    return (_find_both(path) or isbi.find_images_and_labels(path, None))[0]


def _find_both(path):
    """Return where images and labels are in a folder that holds both, or None."""
    try:
        return isbi.find_images_and_labels(path, "required") if path.is_dir() else None
    except FileNotFoundError:
        return None
