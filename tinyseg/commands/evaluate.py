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
from tinyseg.commands.predict_instances import OPTIONS, add_instance_options
from tinyseg.commands.score_objects import print_objects, score_objects
from tinyseg.commands.scores import draw_worst, hold_out, write_scores
from tinyseg.commands.script import run_script
from tinyseg.commands.settings import KEPT
from tinyseg.commands.tables import average_sections, interval_of, mean_rows, table
from tinyseg.data.brain import Preparation
from tinyseg.data.brats import find_cases
from tinyseg.data.classes import DECATHLON, regions_of, same_classes
from tinyseg.data.files import list_names, refuse_missing
from tinyseg.data.json_files import check_shape
from tinyseg.data.label_volumes import find_labels, holds_volumes, predicted_classes
from tinyseg.data.load_tqdm import tqdm
from tinyseg.data.split import patient_of
from tinyseg.metrics import BinaryScores, sensitivity, specificity
from tinyseg.metrics.isbi import isbi_scores
from tinyseg.metrics.patients import EMPTY, PatientScores
from tinyseg.prediction import volumes
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
    refuse_given(args, ("cases", "whole", "small"), "this is for volumes of brain tumours: leave it out")
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


# ===== tumours ===================================================================
def evaluate_tumours(args, predictor):
    args.empty = args.empty or EMPTY
    refuse_given(args, ("sections",), "volumes of brain tumours are chosen with --cases, not --sections")
    refuse_given(args, ("foreground", "degenerate", *OPTIONS), "this is for sections, not for volumes of brain tumours")
    if args.threshold != 0.5 and (predictor is None or len(predictor.classes) > 1):
        print("Label volumes, and networks of several classes, have no use for --threshold.")
    if args.labels if predictor else args.images:
        raise ValueError(
            "images and labels of brain tumours are in one folder: give --checkpoint with --images, or --predictions "
            "with --labels."
        )

    # ----- what is compared ------------------------------------------------------
    names = [name for each in args.cases or () for name in each.split(",")]  # A,B as of train_brats.py, or A B
    names = None if names in ([], ["all"]) else names
    if predictor:
        cases, classes = find_cases(args.images), predictor.classes
        patients = (predictor.model.meta.get("config") or {}).get("patients") or {}
        check_shape(patients, KEPT["patients"], f"{args.checkpoint} is damaged: patients in its metadata does not fit")
        if args.cases is None:
            names, what = volumes.held_out(cases, patients)
            print(f"{len(names)} of {len(cases)} patients in {args.images}: {what} (--cases all takes all)")
        scored = volumes.select_cases(cases, names, args.images)
        trained_on = set(map(patient_of, patients.get("train", ())))
        trained = [case.name for case in scored if case.patient in trained_on]
        if trained:
            print(
                f"The network was trained on {len(trained)} of these {len(scored)} patients ({list_names(trained)}): "
                "expect too good a score."
            )
        pairs = volumes.predict_cases(predictor, scored, cases.modalities, args.threshold)
    else:
        known = predicted_classes(args.predictions) or []
        cases = find_labels(args.labels, known if len(known) > 1 else DECATHLON)
        classes = known or list(cases.classes)
        scored = volumes.select_cases(cases, names, args.labels)
        pairs = volumes.read_predictions(args.predictions, scored, cases.classes)
        leftovers = volumes.list_leftovers(args.predictions, scored) if names is None else []
        if leftovers:
            print(f"There are no labels for {list_names(leftovers)} in {args.predictions}: not scored.")
        print(f"labels: {', '.join(f'{k} {name}' for k, name in enumerate(cases.classes))}")
    classes = ["whole tumour"] if args.whole or len(classes) == 1 else classes
    if len(classes) > 1 and not same_classes(classes, cases.classes):
        raise ValueError(
            f"the classes of {args.checkpoint or args.predictions} are {', '.join(classes)}, and those of the labels "
            f"in {args.labels or args.images} {', '.join(cases.classes)}: they cannot be compared. Use a network that "
            "was trained on such labels."
        )

    # ----- scores ----------------------------------------------------------------
    regions = regions_of(classes)
    scores, slices = PatientScores(classes, regions, args.empty), []
    bar = tqdm(zip(scored, pairs, strict=True), desc="scoring", unit="patient", total=len(scored))
    for case, (predicted, truth, voxel) in bar:
        scores.add(case.name, predicted, truth, voxel)
        slices.append(volumes.most_tumour(predicted, truth))
    report = scores.report(args.small)
    means = report["regions"] | report["classes"] | {name: report[name] for name in ("sensitivity", "specificity")}
    for name, mean in means.items():
        mean |= interval_of([patient[name] for patient in report["patients"]])

    # ----- table and files -------------------------------------------------------
    metrics = {name: report[name] for name in ("dice", "accuracy")} | {n: mean["mean"] for n, mean in means.items()}
    content = {"metrics": metrics, "mean_over_patients": means, "classes": classes, "regions": regions}
    content |= {name: report[name] for name in ("small", "large", "small_below_mm3", "empty", "patients")}
    write_scores(args, content)
    print_patients(report, means, regions)
    whole_tumour = [patient["whole tumour"] for patient in report["patients"]]

    def draw(worst, path):
        volumes.draw_slices([(scored[k], slices[k], whole_tumour[k]) for k in worst], path, cases.modalities, classes)

    draw_worst(args, whole_tumour, draw)


def print_patients(report, means, regions):
    """Print a line for each patient: Dice by region and class, and the whole tumour's scores and volume; then means."""
    patients = report["patients"]
    # A class that is a region by itself has its column already.
    structures = [*regions, *(name for k, name in enumerate(report["classes"], 1) if (k,) not in regions.values())]
    columns = [*structures, "sensitivity", "specificity"]
    rows = [(p["name"], [*(f"{p[c]:.4f}" for c in columns), f"{p['tumour_mm3']:,.0f}"]) for p in patients]
    rows += [(name, [*cells, ""]) for name, cells in mean_rows("mean over patients", [means[c] for c in columns])]
    print(table([*columns, "tumour mm³"], rows))
    groups = [(size, report[size]["dice"], report[size]["patients"]) for size in ("small", "large")]
    sizes = [f"{dice:.4f} of {number} {size}" for size, dice, number in groups if number]
    print(f"Dice of the whole tumour: {', '.join(sizes)} (small: below {report['small_below_mm3']:,.0f} mm³).")
    meaning = {"one": "is 1, as in BraTS", "zero": "is 0", "nan": "is left out of the means"}[report["empty"]]
    empty = [f"{name} in {means[name]['empty']}" for name in structures if means[name]["empty"]]
    print(
        f"Dice of what neither truth nor prediction has {meaning} (--empty {report['empty']}): "
        f"{', '.join(empty) or 'in none'} of {len(patients)} patients."
    )
    nowhere = [name for name in structures if means[name]["empty"] == len(patients)]
    if nowhere and report["empty"] == "one":
        print(
            f"WARNING: no volume has {list_names(nowhere)}, which counts as Dice 1. Give --whole if labels only tell "
            "tumour or not, or --empty nan to leave it out of means."
        )


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
        of_networks = ("min_component", "transforms", "memory", "runtime", "gpu_memory", "tf32", "cuda_graph")
        refuse_given(args, of_networks, "this is for a network, and --predictions runs none: leave it out")
    if args.out is None and args.worst:
        refuse_given(args, ("worst",), "the picture goes beside the JSON file, so give --out too")
    return args
