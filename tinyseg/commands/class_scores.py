"""What evaluate.py does with masks of several classes: Dice and IoU of each class, and what is taken for what.

Reads top to bottom: whether there are classes, what is compared, scores, tables and files.
"""

import numpy as np

from tinyseg.commands.compared import find_masks, find_predictions, predict_chosen, read_images
from tinyseg.commands.numbers import refuse_given
from tinyseg.commands.score_volumes import OF_VOLUMES
from tinyseg.commands.scores import draw_worst, write_scores
from tinyseg.commands.tables import average_sections, mean_rows, table
from tinyseg.data import Sections, isbi
from tinyseg.data.class_masks import Classes, find_class_names, find_classes, parse_class_names
from tinyseg.data.json_files import read_json
from tinyseg.data.predictions_json import NAME, Content
from tinyseg.data.stacks import load_pairs, load_stack
from tinyseg.prediction.evaluation import score_classes, summarize_classes
from tinyseg.prediction.held_out import choose_sections
from tinyseg.prediction.predictor import labels as labels_of
from tinyseg.report import class_plots

MOST_PRINTED = 10  # classes whose confusion is printed: more columns do not fit into a line


def has_classes(args, predictor):
    """Return whether several classes are to be scored: those of the network, or of the labels beside predictions."""
    if predictor:
        return len(predictor.classes) > 1
    if _named_classes(args):
        return True
    return find_classes(load_stack(find_masks(args.labels), masks=True, palettes="auto")[0]) is not None


def evaluate_classes(args, predictor):
    """Score a network, or predictions, on masks of several classes; print, and write what --out asks for."""
    refuse_given(args, OF_VOLUMES, "this is for volumes of brain tumours: leave it out")
    refuse_given(args, ("foreground", "degenerate", "threshold"), "this is for masks of two values: leave it out")
    args.empty = args.empty or "nan"
    sections, predicted = predict_classes(args, predictor) if predictor else read_classes(args)
    names = list(sections.classes.names)

    # ----- scores ----------------------------------------------------------------
    scores = score_classes(predicted, sections.labels, names, args.empty)
    pooled, each = scores.pooled(), scores.per_image()
    together = [summarize_classes(image) for image in each]
    means = {key: average_sections([image[key] for image in together]) for key in together[0]}
    of_classes = {
        name: {key: average_sections([image["classes"][name][key] for image in each]) for key in ("dice", "iou")}
        for name in names
    }
    confusion = scores.matrices.sum(axis=0)

    # ----- tables and files ------------------------------------------------------
    rows = [
        {"name": name} | figures | {"classes": image["classes"]}
        for name, figures, image in zip(sections.names, together, each, strict=True)
    ]
    report = {
        "metrics": summarize_classes(pooled) | {"classes": pooled["classes"]},
        "mean_over_sections": means | {"classes": of_classes}, "sections": rows,
        "confusion": {"rows": "truth", "columns": "prediction", "classes": names, "pixels": confusion.tolist()},
        "classes": names, "values": list(sections.classes.values),
    }  # fmt: skip
    write_scores(args, report)
    print_sections(sections.names, together, means, summarize_classes(pooled), names[0])
    print_classes(names, pooled["classes"], of_classes, confusion)

    def draw(worst, path):
        captions = [f"{sections.names[k]}\nDice {together[k]['dice']:.3f}" for k in worst]
        shown = sections.images[worst], sections.labels[worst], predicted[worst]
        class_plots.classes(*shown, names, captions, path, max_rows=len(worst))

    draw_worst(args, [image["dice"] for image in together], draw)


# ----- what is compared ------------------------------------------------------------
def predict_classes(args, predictor):
    """Return sections with numbers of classes as labels, and what the network gives, at their own resolution."""
    refuse_given(args, ("class_names",), "the checkpoint knows the names of its classes: leave it out")
    masks = predictor.masks or Classes(tuple(predictor.classes), tuple(range(len(predictor.classes))))
    everything = isbi.load(args.images, args.labels or "required", classes=masks)
    sections, predicted = predict_chosen(everything, args, predictor)
    return sections, np.stack([labels_of(p) for p in predicted])


def read_classes(args):
    """Return sections with numbers of classes as labels, and those that the user brings as predictions."""
    given, place = _named_classes(args), find_masks(args.labels)
    files = find_predictions(args.predictions, of_classes=True)
    what, palettes = ("predictions", "labels"), "numbers" if given else "auto"
    stack, names, labels, label_names = load_pairs(files, place, what, palettes)
    classes = find_classes(labels, given)
    labels = classes.number(labels, [f"{name} in {args.labels}" for name in label_names])
    predicted = classes.number(stack, [f"{name} in {args.predictions}" for name in names])
    if (predicted < 0).any():
        found = f"{args.predictions} has pixels of {classes.ignore}, which is no class"
        raise ValueError(f"{found}: expected predictions of {', '.join(classes.names)} alone.")
    images = classes.write(labels)
    if args.images:
        images = read_images(args, files, place, labels)[0]
    predicted = choose_sections(Sections(predicted, None, names), args.sections).images
    return choose_sections(Sections(images, labels, names, classes), args.sections), predicted


def _named_classes(args):
    """Return the classes that --class-names, classes.json beside the labels, or predict.py's record names, or None."""
    if args.class_names:
        return parse_class_names(args.class_names)
    folder = args.labels if args.labels.is_dir() else args.labels.parent
    above = [folder.absolute().parent] if args.labels.is_dir() else []
    return find_class_names(folder, *above) or _recorded(args.predictions)


def _recorded(predictions):
    """Return the classes that predict.py wrote down beside its masks, or None if there are not several."""
    path = (predictions if predictions.is_dir() else predictions.parent) / NAME
    if not path.is_file():
        return None
    about = read_json(path, Content, "a record of predict.py: move it away if another program wrote it")
    if len(about.classes) < 2 or not (predictions.is_dir() or predictions.name in about.files):
        return None
    return Classes(tuple(about.classes), tuple(about.values or range(len(about.classes))), about.ignore, str(path))


# ----- tables ----------------------------------------------------------------------
def print_sections(names, together, means, pooled, background):
    """Print a line for each section; below, the mean with its 95% interval, and the scores of all pixels together."""
    columns = {"accuracy": "accuracy", "dice": "Dice", "mean_iou": "mean IoU"}
    rows = [(name, [f"{image[key]:.4f}" for key in columns]) for name, image in zip(names, together, strict=True)]
    rows += mean_rows("mean over sections", [means[key] for key in columns])
    rows += [("all pixels", [f"{pooled[key]:.4f}" for key in columns])]
    print(table(list(columns.values()), rows))
    print(f"Dice is the mean of the classes without {background}, mean IoU that of all.")


def print_classes(names, pooled, of_classes, confusion):
    """Print a line for each class, and, of few classes, which part of each was taken for which."""
    total, rows = max(confusion.sum(), 1), []
    for k, name in enumerate(names):
        mean = of_classes[name]["dice"]
        low, high = mean.get("interval", (np.nan, np.nan))
        cells = [pooled[name]["dice"], pooled[name]["iou"], mean["mean"], low, high]
        rows.append((name, [*(f"{cell:.4f}" for cell in cells), f"{confusion[k].sum() / total:.2%}"]))
    print("Classes, all pixels together, and the mean Dice of the sections with its 95% interval:")
    print(table(["Dice", "IoU", "mean Dice", "from", "to", "of the pixels"], rows))
    undefined = sum(of_classes[name]["dice"]["undefined"] for name in names)
    if undefined:
        print(f"{undefined} scores are 0/0 (a class that neither has) and left out of the means: see --empty.")
    if len(names) <= MOST_PRINTED:
        shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
        print("Pixels of each true class (lines) that were taken for each class:")
        print(table(names, [(name, [f"{x:.1%}" for x in row]) for name, row in zip(names, shares, strict=True)]))
