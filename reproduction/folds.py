"""Cross-validation over a stack: every section is scored by a network that has not seen it, nor its neighbours.

    python -m reproduction.folds --data ISBI_DIR --out runs/folds
    python -m reproduction.folds --data ISBI_DIR --out runs/unet -- --model unet --epochs 50

The sections are cut into folds of neighbours, because a section looks like the ones beside it. For each fold a network
is trained on all the others (`tinyseg train-isbi`, with the options that follow ``--``) and, at its last epoch, scored
on the fold at the sections' own size: from a single view, and as the mean over eight flips and turns.

All scores are of all sections together. V^Rand and V^Info are so at one threshold for the whole stack, which is
stricter than the best one of each fold. The threshold that is best for the sections that a network was trained on is
given too, and the scores there: nothing was chosen on the sections that are scored. What a network reaches on the
sections that it was trained on says how much of the rest is for want of data, and how much for want of fit. Beside the
probabilities, the objects that `tinyseg predict --instances --grow` makes of them are scored, as masks with lines
between them.

Run again after an interruption it goes on. Leaves the run of each fold, and scores.json.
"""

import itertools
import pathlib

import numpy as np

from benchmarks.machine import how_measured
from reproduction.study import Run
from tinyseg.commands import train_isbi
from tinyseg.commands.numbers import Number, make_parser
from tinyseg.commands.options import a_path
from tinyseg.commands.script import run_script
from tinyseg.commands.tables import table
from tinyseg.data import isbi
from tinyseg.data.json_files import write_json
from tinyseg.data.load_tqdm import tqdm
from tinyseg.data.locks import locked
from tinyseg.data.masks import inside_of_objects
from tinyseg.metrics import BinaryScores
from tinyseg.metrics.intervals import mean_interval
from tinyseg.metrics.isbi import THRESHOLDS, isbi_scores
from tinyseg.prediction.instances import find_instances
from tinyseg.prediction.predictor import Predictor

EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / "examples"
VIEWS = {"one view": "none", "mean of eight views": "all"}
SCORES = "v_rand", "v_info"
# Between the challenge's thresholds there are few where a network is nearly sure, and its best is often there.
FINE = (*THRESHOLDS[1:-1], 0.95, 0.97, 0.99)


def main():
    run_script(cross_validate, out_of_memory="try a smaller --crop or --width")


def cross_validate():
    args = parse_arguments()
    sections = isbi.load(args.data, "required")
    with locked(args.out, "a cross-validation"):
        cuts = enumerate(cut(len(sections), args.folds))
        folds = [score_fold(make_run(args, k, fold), sections, fold) for k, fold in cuts]
        report = {view: join([fold[view] for fold in folds], sections) for view in VIEWS}
        words = ["python -m reproduction.folds --data DIR --folds", str(args.folds)]
        command = " ".join([*words, "--", *args.training] if args.training else words)
        minutes = [fold["minutes"] for fold in folds]
        write_json(args.out / "scores.json", report | {"minutes": minutes, "measured": how_measured(command)})
    print_report(report)
    print(f"wrote {args.out / 'scores.json'}; trainings took {', '.join(f'{m:.0f}' for m in minutes)} minutes")


def cut(count, folds):
    """Return the first and the last section, exclusive, of folds that differ by one section at most."""
    if not 2 <= folds <= count:
        raise ValueError(f"--folds {folds} of {count} sections: give a number from 2 to {count}.")
    edges = [count * k // folds for k in range(folds + 1)]
    return list(itertools.pairwise(edges))


def make_run(args, number, fold):
    """Make the training that holds a fold out."""
    held_out = "{}:{}".format(*fold)
    train = [EXAMPLES / "train_isbi.py", "--data", args.data.resolve(), "--val-sections", held_out, *args.training]
    return Run(args.out / f"fold-{number}", train, [], [], train_isbi.DEFAULTS)


def score_fold(run, sections, fold):
    """Train, if that has not been done, and predict the sections of a fold.

    Returns
    -------
    dict
        ``minutes`` of the training's steps, and for each view the ``probabilities`` (S, H, W) of the fold's sections,
        the ``border`` of their objects, the ``thresholds`` of `FINE` that are best on the training sections, for V^Rand
        and V^Info, and what these ``seen`` sections then score.
    """
    summary, _ = run.train_whole()
    result = {"minutes": summary["steps"] * summary["seconds_per_step"] / 60}
    inside = np.arange(*fold)
    seen = np.delete(np.arange(len(sections)), inside)
    for view, transforms in VIEWS.items():
        predictor = Predictor.load(run.latest, transforms=transforms)
        predictor.take_statistics(sections.images[:, None])
        predicted = [predictor(section)[0] for section in tqdm(sections.images, desc=f"{run.folder.name}, {view}")]
        probabilities = np.stack(predicted)
        own = isbi_scores(probabilities[seen], sections.labels[seen], FINE)
        thresholds = own.v_rand_threshold, own.v_info_threshold
        result[view] = {
            "sections": inside, "probabilities": probabilities[inside], "border": predictor.border,
            "thresholds": thresholds, "seen": (own.v_rand, own.v_info),
        }  # fmt: skip
    return result


def join(folds, sections):
    """Return the scores of all sections of all folds together, for one view: a dict for JSON."""
    probabilities = np.concatenate([fold["probabilities"] for fold in folds])
    labels = sections.labels
    challenge, pixels = isbi_scores(probabilities, labels), BinaryScores()
    pixels.update(probabilities, labels)
    borders = [fold["border"] for fold in folds for _ in fold["probabilities"]]
    each = tqdm(zip(probabilities, borders, strict=True), desc="objects", total=len(borders))
    cells = np.stack([find_instances(p, border=border, grow=True) for p, border in each])
    objects = isbi_scores(inside_of_objects(cells), labels)
    report = {"pixels": {k: float(v) for k, v in pixels.compute().items()}, "isbi": challenge.summary()}
    report["objects"] = objects.summary()
    pairs = [(fold["probabilities"], labels[fold["sections"]]) for fold in folds]
    of_folds = [isbi_scores(p, t) for p, t in pairs]
    for k, name in enumerate(SCORES):
        for part, scores in ((report, challenge), (report["objects"], objects)):
            part[f"{name}_interval"] = mean_interval(getattr(scores, f"{name}_sections"))
        report[f"{name}_folds"] = [getattr(scores, name) for scores in of_folds]
        report[f"{name}_seen"] = [fold["seen"][k] for fold in folds]
        chosen = [fold["thresholds"][k] for fold in folds]
        there = [isbi_scores(p, t, [threshold]) for (p, t), threshold in zip(pairs, chosen, strict=True)]
        each = np.concatenate([getattr(scores, f"{name}_sections") for scores in there])
        report[f"{name}_chosen"] = {
            "thresholds": chosen, "mean": float(each.mean()), "sections": each.tolist(),
            "interval": mean_interval(each),
        }  # fmt: skip
    return report


def print_report(report):
    rows = []
    for view, scores in report.items():
        rows.append((view, [cell for name in SCORES for cell in cells_of(scores["isbi"] | scores, name)]))
        rows.append((f"{view}, objects", [cell for name in SCORES for cell in cells_of(scores["objects"], name)]))
    titles = ["95%", "split", "merge", "chosen before"]
    print(table(["V^Rand", *titles, "V^Info", *titles], rows))
    seen = [np.mean(report["one view"][f"{name}_seen"]) for name in SCORES]
    print("On the sections that they were trained on the networks reach {:.4f} and {:.4f} from one view.".format(*seen))


def cells_of(scores, name):
    """Return the cells of a table for one score: itself, its interval and parts, and with a threshold chosen before."""
    low, high = scores[f"{name}_interval"]
    chosen = scores.get(f"{name}_chosen")
    parts = [f"{scores[f'{name}_{part}']:.4f}" for part in ("split", "merge")]
    return [f"{scores[name]:.4f}", f"{low:.3f} to {high:.3f}", *parts, f"{chosen['mean']:.4f}" if chosen else ""]


def build_parser():
    parser = make_parser(__doc__, "[-- TRAINING OPTIONS]")
    add = parser.add_argument
    add("--data", required=True, type=a_path, help="folder with train-volume.tif and train-labels.tif")
    add("--folds", type=Number(int, 2, 1000), default=4, help="(default: 4)")
    add("--out", type=a_path, default=pathlib.Path("runs/folds"), help="folder (default: runs/folds)")
    add("training", nargs="*", metavar="TRAINING OPTIONS", help="options of tinyseg train-isbi, after --")
    return parser


def parse_arguments():
    return build_parser().parse_args()


if __name__ == "__main__":
    main()
