"""What a network of train_isbi.py is trained for: to find a foreground, or to tell classes apart.

`choose_task` takes the one that the masks show. A task knows the loss, the scores of the validation, what the
checkpoint says of the masks, and the report; the rest of the training is the same.
"""

import numpy as np

from tinyseg import ops
from tinyseg.commands.numbers import read_class_weights, refuse_given
from tinyseg.commands.tables import table
from tinyseg.data.class_masks import IGNORED, looks_void
from tinyseg.data.files import list_names
from tinyseg.data.fingerprint import fingerprint
from tinyseg.prediction.evaluation import evaluate, evaluate_classes, summarize_classes
from tinyseg.prediction.instances import weigh_border
from tinyseg.report import class_plots, plots
from tinyseg.training.losses import dice_and_cross_entropy, weighted_cross_entropy

TOGETHER = ("loss", "accuracy", "dice", "mean_iou")  # the scores of all classes together
EACH = ("dice", "iou")  # of each class


def choose_task(args, train, val):
    """Return the task of the sections to train on and of those held out, resized; say what the classes are."""
    if train.classes is None:
        return FindForeground(args, train)
    refuse_given(args, ("foreground", "target"), "this is for masks of two values, and these have several classes")
    return TellClassesApart(args, train, val)


class FindForeground:
    """Masks of two values: a network of one class, the foreground."""

    def __init__(self, args, train):
        self.names, self.channels = [args.target], 1
        self.masks = {"foreground": args.foreground}  # what the checkpoint says of how masks store the classes
        self.fingerprints = {}  # what a resumed run must find as it was, beside images and masks
        counts, asked = count_pixels(train.labels, 2), args.class_weights
        alone = asked == "balanced" and not counts.all()  # nothing to weigh the one class against
        weights = choose_weights("none" if alone else asked, counts, ["background", args.target])
        if weights and 0 in weights:
            raise ValueError(
                f"--class-weights {asked}: of two classes both need a weight above 0, or there is nothing to learn."
            )
        self.loss = weighted_cross_entropy(*weights) if weights else ops.binary_cross_entropy_with_logits
        self.postprocessing = {"border": weigh_border(*weights or (1, 1))}

    def score(self, model, x, labels, tile):
        """Return the scores of a model on held-out sections, dict of str to float, and what `draw` takes.

        Larger sections than `tile` go through the network in tiles.
        """
        return evaluate(model, x, labels, tile=tile, loss=self.loss)

    def nest(self, scores):
        """Return scores as summary.json has them."""
        return scores

    def print_scores(self, epochs):
        """Print the scores of some epochs, {name: scores}."""
        for name, scores in epochs.items():
            print(f"  {name}: {in_words(scores)}")

    def draw(self, sections, found, path):
        plots.predictions(sections.images, sections.labels, found, path, names=sections.names, what=self.names[0])


class TellClassesApart:
    """Masks of several values: a network with a channel for each class, the background among them."""

    def __init__(self, args, train, val):
        self.classes = train.classes
        self.names, self.channels = list(self.classes.names), len(self.classes.names)
        self.masks = {"values": list(self.classes.values), "ignore": self.classes.ignore}
        self.fingerprints = {"classes": fingerprint(self.classes.describe())}
        counts, held_out = (count_pixels(part.labels, self.channels) for part in (train, val))
        print(f"masks of {self.channels} classes: {self.classes.describe()}")
        if looks_void(self.classes):
            print("If 255 marks pixels to leave out, name it so: --class-names background=0,…,ignore=255")
        self._refuse_unseen(counts, held_out, args)
        weights = choose_weights(args.class_weights, counts, self.names)
        ignored = IGNORED if self.classes.ignore is not None else None
        self.loss = dice_and_cross_entropy(class_weights=weights, ignore_index=ignored)
        self.postprocessing = {}

    def _refuse_unseen(self, counts, held_out, args):
        """Raise a ValueError if a class has pixels in the held-out masks alone; say which have none anywhere."""
        unseen = [name for name, n, m in zip(self.names, counts, held_out, strict=True) if n == 0 and m > 0]
        if unseen:
            raise ValueError(
                f"the masks to train on have no pixel of {list_names(unseen)}, and those held out do: a network cannot "
                f"learn what it does not see. Hold out other sections than --val-sections {args.val_sections}."
            )
        for part, number in (("to train on", counts), ("held out", held_out)):
            missing = [name for name, n in zip(self.names, number, strict=True) if n == 0]
            if missing:
                print(f"WARNING: the masks {part}, as resized, have no pixel of {list_names(missing)}.")

    def score(self, model, x, labels, tile):
        """Return the scores of a model on held-out sections, dict of str to float, and what `draw` takes.

        Larger sections than `tile` go through the network in tiles. Beside the scores of all classes together, there is
        a ``dice_<name>`` and an ``iou_<name>`` for each class.
        """
        loss, scores, predicted = evaluate_classes(model, x, labels, self.names, self.loss, tile=tile)
        pooled = scores.pooled()
        each = {f"{key}_{name}": of[key] for key in EACH for name, of in pooled["classes"].items()}
        return {"loss": loss} | summarize_classes(pooled) | each, predicted

    def nest(self, scores):
        """Return scores as summary.json has them, those of each class by its name."""
        each = {name: {key: scores[f"{key}_{name}"] for key in EACH} for name in self.names}
        return {key: scores[key] for key in TOGETHER} | {"classes": each}

    def print_scores(self, epochs):
        """Print the scores of some epochs, {name: scores}, and a table of the classes in the first of them."""
        for name, scores in epochs.items():
            print(f"  {name}: {in_words({key: scores[key] for key in TOGETHER})}")
        first, scores = next(iter(epochs.items()))
        rows = [(name, [f"{scores[f'{key}_{name}']:.4f}" for key in EACH]) for name in self.names]
        print(f"Classes ({first}; dice is the mean without {self.names[0]}, mean_iou that of all):")
        print(table(["Dice", "IoU"], rows))

    def draw(self, sections, found, path):
        class_plots.classes(sections.images, sections.labels, found, self.names, sections.names, path)


def in_words(scores):
    """Return scores, {name: number}, as a line."""
    return ", ".join(f"{key} {value:.4f}" for key, value in scores.items())


def count_pixels(labels, number):
    """Return how many pixels each of a number of classes has in labels (S, H, W); those of -1 do not count."""
    return np.bincount(labels[labels >= 0], minlength=number)


def choose_weights(text, counts, names):
    """Return the weights of the classes that --class-weights asks for, and say which they are; or None.

    ``balanced`` weighs a class by 1 / √(its number of pixels), and so that the mean weight of a pixel is 1. A class
    without a pixel has weight 0. With 1 / number, by which all classes count alike, the measured Dice is lower: too
    many pixels are taken for the rare ones.
    """
    if text == "none":
        return None
    if text != "balanced":
        weights = read_class_weights(text, names)
    else:
        shares = np.where(counts > 0, 1 / np.sqrt(np.maximum(counts, 1)), 0)
        weights = (shares / (shares @ counts) * counts.sum()).tolist()
    print(f"class weights: {', '.join(f'{name} {w:.3g}' for name, w in zip(names, weights, strict=True))}")
    return weights
