r"""Score a network, or predictions, against labels: of cell membranes, of several classes, or of brain tumours.

    tinyseg evaluate --checkpoint best.safetensors --images isbi2012 --out scores.json    # those held out
    tinyseg evaluate --checkpoint best.safetensors --images volume.tif --labels labels.tif --sections 4
    tinyseg evaluate --predictions probability.tif --labels labels.tif --out scores.json
    tinyseg evaluate --predictions cells_instances.tif --labels numbered.tif

    tinyseg evaluate --checkpoint runs/brats/best.safetensors --images Task01_BrainTumour --out scores.json
    tinyseg evaluate --predictions masks --labels Task01_BrainTumour --out scores.json

Membranes: pixel scores at one threshold, and the ISBI-2012 challenge's V^Rand and V^Info at their best of eleven, for
every section and for all; and of the objects, cells say, adapted Rand error, variation of information and average
precision. Several classes: accuracy, Dice and IoU of each class. Tumours (a checkpoint of train_brats.py, or NIfTI
volumes): Dice of each region and class of every patient as one volume. Writes a table, with --out a JSON file, and
beside it a picture of the worst.

Of a folder with probabilities and masks of the same sections the probabilities are scored.

Reads top to bottom: membranes, then tumours, each with what is compared, scores, table and files; options.
"""

import numpy as np

from tinyseg.commands.class_scores import evaluate_classes, has_classes
from tinyseg.commands.compared import predict_sections, read_sections
from tinyseg.commands.numbers import CHOSEN_SECTIONS, CLASS_NAMES, Number, make_parser, refuse_given
from tinyseg.commands.options import a_path, add_prediction_options, load_predictor
from tinyseg.commands.predict_instances import add_instance_options
from tinyseg.commands.score_objects import print_objects, score_objects
from tinyseg.commands.score_volumes import OF_VOLUMES, evaluate_tumours
from tinyseg.commands.scores import draw_worst, hold_out, write_scores
from tinyseg.commands.script import run_script
from tinyseg.commands.tables import average_sections, mean_rows, table
from tinyseg.commands.workers import add_worker_options, refuse_devices
from tinyseg.data.brain import Preparation
from tinyseg.data.files import refuse_missing
from tinyseg.data.label_volumes import holds_volumes
from tinyseg.metrics import BinaryScores, sensitivity, specificity
from tinyseg.metrics.isbi import isbi_scores
from tinyseg.report import plots


def main():
    run_script(evaluate, out_of_memory="give a smaller --memory, so that images go through in tiles")


def evaluate():
    args = parse_arguments()
    with hold_out(args.out):
        evaluate_what_is_given(args)


def evaluate_what_is_given(args):
    predictor = load_predictor(args) if args.checkpoint else None
    for name in ("images", "predictions", "labels"):
        if getattr(args, name):
            refuse_missing(getattr(args, name), name)
    if args.predictions and args.labels and args.predictions.samefile(args.labels):
        print(f"WARNING: {args.labels} is given as predictions and as labels: the scores say nothing.")
    brains = isinstance(predictor.preparation, Preparation) if predictor else holds_volumes(args.labels)
    if args.predictions and not brains and holds_volumes(args.predictions):
        raise ValueError(f"{args.predictions} holds NIfTI volumes and {args.labels} does not: give labels of one kind.")
    if brains:
        evaluate_tumours(args, predictor)
    elif has_classes(args, predictor):
        evaluate_classes(args, predictor)
    else:
        evaluate_membranes(args, predictor)


# ===== membranes =================================================================
def evaluate_membranes(args, predictor):
    refuse_given(args, OF_VOLUMES, "this is for volumes of brain tumours: leave it out")
    refuse_given(
        args, ("class_names",), "this is for masks of several classes, and these have two values: leave it out"
    )
    args.empty = args.empty or "nan"

    # ----- what is compared ------------------------------------------------------
    args.foreground, what = choose_foreground(args, predictor), plots.INSIDE
    if predictor and predictor.model.meta.get("classes"):
        what = predictor.classes[0]
    sections, probabilities, numbers = predict_sections(args, predictor) if predictor else read_sections(args)
    labels, names = sections.labels, sections.names
    if args.predictions and args.threshold != 0.5 and np.isin(probabilities, (0, 1)).all():
        print(f"{args.predictions} holds masks, which have no use for --threshold.")
        args.threshold = 0.5

    # ----- scores ----------------------------------------------------------------
    per_section = [score_pixels(p, t, args) for p, t in zip(probabilities, labels, strict=True)]
    challenge = isbi_scores(probabilities, labels, empty=args.degenerate)
    for scores, rand, info in zip(per_section, challenge.v_rand_sections, challenge.v_info_sections, strict=True):
        scores |= {"v_rand": float(rand), "v_info": float(info)}
    pooled = score_pixels(probabilities, labels, args) | {"v_rand": challenge.v_rand, "v_info": challenge.v_info}
    means = {key: average_sections([scores[key] for scores in per_section]) for key in pooled}
    objects = score_objects(sections, probabilities, numbers, args)

    # ----- table and files -------------------------------------------------------
    rows = [{"name": name} | scores for name, scores in zip(names, per_section, strict=True)]
    report = {"metrics": pooled, "mean_over_sections": means, "sections": rows, "isbi": challenge.summary()}
    write_scores(args, report | {"class": what, "objects": objects})
    print_table(names, per_section, pooled, means, what)
    print(
        f"Pixel scores at {args.threshold:g}. V^Rand at its best threshold, {challenge.v_rand_threshold:.1f}: split "
        f"{challenge.v_rand_split:.4f}, merge {challenge.v_rand_merge:.4f}. V^Info at {challenge.v_info_threshold:.1f}."
    )
    print_objects(objects)
    if pooled["sensitivity"] + pooled["specificity"] < 0.5:  # chance gives 1, whatever the share of the foreground
        print(
            "WARNING: predictions and labels agree much less than by chance. Is one of them inverted? --foreground "
            "says how labels store the inside of cells; predictions have it in white."
        )

    def draw(worst, path):
        captions = [f"{names[k]}\nV^Rand {per_section[k]['v_rand']:.3f}" for k in worst]
        shown = sections.images[worst], labels[worst], probabilities[worst]
        plots.predictions(*shown, path, captions, args.threshold, max_rows=len(worst), what=what)

    draw_worst(args, [scores["v_rand"] for scores in per_section], draw)


def choose_foreground(args, predictor):
    """Return how the labels store the inside of a cell: as in the training, or as --foreground says."""
    trained = predictor and (predictor.foreground or (predictor.model.meta.get("config") or {}).get("foreground"))
    if trained not in (None, "white", "black"):
        raise ValueError(f'{args.checkpoint} is damaged: its foreground is {trained!r}, and not "white" or "black".')
    if trained and args.foreground not in (None, trained):
        raise ValueError(
            f"{args.checkpoint} was trained with --foreground {trained}, and now it is {args.foreground}: the labels "
            "would be the other way round. Leave out --foreground."
        )
    return trained or args.foreground or "white"


def score_pixels(probability, truth, args):
    """Return all scores of pixels at the threshold, of one section or pooled over a stack."""
    scores = BinaryScores(args.empty)
    scores.update(probability, truth, args.threshold)
    mask = probability > args.threshold
    return scores.compute() | {
        "sensitivity": sensitivity(mask, truth, args.empty), "specificity": specificity(mask, truth, args.empty),
    }  # fmt: skip


# What is not the inside of a cell is membrane.
COLUMNS = {
    "accuracy": "accuracy", "dice": "Dice", "iou": "IoU", "mean_iou": "mean IoU", "membrane_iou": "membrane IoU",
    "v_rand": "V^Rand", "v_info": "V^Info",
}  # fmt: skip


def print_table(names, per_section, pooled, means, what):
    """Print a line for each section; below, the mean with its 95% interval, and the score of all pixels together."""
    titles = [title if what == plots.INSIDE else title.replace("membrane", "rest's") for title in COLUMNS.values()]
    longest = max(map(len, titles))
    rows = [(name, [f"{scores[key]:.4f}" for key in COLUMNS]) for name, scores in zip(names, per_section, strict=True)]
    rows += mean_rows("mean over sections", [means[key] for key in COLUMNS])
    rows += [("all pixels", [f"{pooled[key]:.4f}" for key in COLUMNS])]
    print(f"Scores of: {what}")
    print(table([f"{title:>{longest}}" for title in titles], rows))
    undefined = sum(means[key]["undefined"] for key in COLUMNS)
    if undefined:
        print(f"{undefined} scores are 0/0 (a class that neither has) and left out of the means: see --empty.")


# ===== options ===================================================================
def build_parser():
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--checkpoint", type=a_path, help="network to score on --images")
    add("--predictions", type=a_path, help="instead: stack of probabilities or masks; label volume, or a folder")
    add("--images", type=a_path, help="stack, or folder with train-volume.tif; Decathlon or BraTS folder")
    add("--labels", type=a_path, help="stack of masks (default: those in the folder of --images); for volumes a "
        "Decathlon or BraTS folder, a folder of label volumes, or one")  # fmt: skip
    add("--cases", nargs="+", action="extend", help="patients to score, or all (default: those that the network was "
        "not trained on)")  # fmt: skip
    add("--whole", action="store_true", help="score tumour or not, as of label volumes that tell no more")
    add(
        "--small", type=Number(float, 0, 10**9),
        help="tumours below so many mm³ are small (default: the patients' median)",
    )  # fmt: skip
    add("--sections", type=CHOSEN_SECTIONS, help="score the last k, a:b (a to b-1, from 0), or all (default: those "
        "that the network was not trained on)")  # fmt: skip
    add("--foreground", choices=["white", "black"], help="the inside of cells in the labels (default: as in the "
        "training, or white)")  # fmt: skip
    add("--class-names", type=CLASS_NAMES, help="with --predictions, of labels of several classes: as of tinyseg train")
    add("--empty", choices=["nan", "one", "zero"], help="what 0/0 is (default: nan; for tumours one, as in BraTS)")
    add("--degenerate", choices=["challenge", "one"], default="challenge", help="V^Info of a section of one segment")
    add_prediction_options(parser)
    add_instance_options(parser)
    add_worker_options(parser, "patients")
    add("--worst", type=Number(int, 0, 1000), default=3, help="how many of the worst to picture (default: 3)")
    add("--out", type=a_path, help="JSON file; the picture goes beside it")
    return parser


def parse_arguments():
    parser = build_parser()
    args = parser.parse_args()
    if (args.checkpoint is None) == (args.predictions is None):
        parser.error("give --checkpoint with --images, or --predictions")
    if args.checkpoint and args.images is None:
        parser.error("--checkpoint needs --images to run on")
    if args.predictions and args.labels is None:
        parser.error("--predictions needs --labels to compare with")
    if args.predictions:
        of_networks = (
            "min_component", "transforms", "memory", "runtime", "gpu_memory", "tf32", "cuda_graph", "jobs", "dask",
        )  # fmt: skip
        refuse_given(args, of_networks, "this is for a network, and --predictions runs none: leave it out")
    refuse_devices(parser, args)
    if args.out is None and args.worst:
        refuse_given(args, ("worst",), "the picture goes beside the JSON file, so give --out too")
    return args
