"""Scores of brain tumours, for `tinyseg evaluate`: every patient as one volume, of a network or of a user's files.

Reads top to bottom: what is compared, scores, table and files; each patient.
"""

import contextlib
import functools
import sys
import uuid

from tinyseg.commands.jobs import WorkerLost, run_jobs
from tinyseg.commands.numbers import refuse_given
from tinyseg.commands.options import load_predictor
from tinyseg.commands.predict_instances import OPTIONS
from tinyseg.commands.scores import draw_worst, write_scores
from tinyseg.commands.settings import KEPT
from tinyseg.commands.tables import interval_of, mean_rows, table
from tinyseg.commands.workers import load_once, workers_of
from tinyseg.data.brats import find_cases
from tinyseg.data.classes import DECATHLON, regions_of, same_classes
from tinyseg.data.files import list_names
from tinyseg.data.json_files import check_shape
from tinyseg.data.label_volumes import find_labels, predicted_classes, read_pair
from tinyseg.data.load_tqdm import tqdm
from tinyseg.data.split import patient_of
from tinyseg.metrics.patients import EMPTY, PatientScores
from tinyseg.prediction import volumes

OF_VOLUMES = "cases", "whole", "small", "jobs", "dask"  # options of `tinyseg evaluate` that are for volumes alone


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
        workers = workers_of(args)
        here = functools.partial(volumes.predict_case, predictor, cases.modalities, args.threshold)
        in_process = functools.partial(predict_in_process, uuid.uuid4().hex, args, cases.modalities)
        read = in_process if workers else here
    else:
        known = predicted_classes(args.predictions) or []
        cases = find_labels(args.labels, known if len(known) > 1 else DECATHLON)
        classes = known or list(cases.classes)
        scored = volumes.select_cases(cases, names, args.labels)
        files = volumes.find_predictions(args.predictions, scored)
        workers, read = None, lambda case: read_pair(files[case.name], case, cases.classes)
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
    found, lost = {}, []
    work = functools.partial(score_job, read, (classes, regions, args.empty))
    with contextlib.closing(run_jobs(work, enumerate(scored), workers)) as done:
        for (k, _), result, error in tqdm(done, desc="scoring", unit="patient", total=len(scored)):
            if isinstance(error, WorkerLost):
                tqdm.write(f"{scored[k].name}: {error}", file=sys.stderr)
                lost.append(scored[k].name)
            elif error is not None:
                raise error
            else:
                found[k] = result
    if not found:
        raise ValueError(f"none of {len(scored)} patients could be scored: see above. Give fewer --jobs.")
    scored, parts, slices = zip(*((scored[k], *found[k]) for k in sorted(found)), strict=True)
    scores = PatientScores(classes, regions, args.empty)
    for part in parts:
        scores.join(part)
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
    if lost:
        sys.exit(f"{len(lost)} of {len(lost) + len(scored)} patients are not among these scores: {', '.join(lost)}")


# ----- each patient --------------------------------------------------------------
def score_job(read, options, job):
    """Return the scores of one patient and the slice with most tumour; the job is a number and the case.

    ``read(case)`` returns prediction, truth and the volume of a voxel; `options` are those of `PatientScores`.
    """
    _, case = job
    predicted, truth, voxel = read(case)
    scores = PatientScores(*options)
    scores.add(case.name, predicted, truth, voxel)
    return scores, volumes.most_tumour(predicted, truth)


def predict_in_process(command, args, modalities, case):
    """Predict a case in a process that does jobs of `command`, see `tinyseg.prediction.volumes.predict_case`."""
    predictor = load_once(command, lambda: load_predictor(args))
    return volumes.predict_case(predictor, modalities, args.threshold, case)


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
