r"""Score a network, or predictions, against labels of cell membranes.

    python examples/evaluate.py --checkpoint best.safetensors --images train-volume.tif --labels train-labels.tif \
        --sections 4 --out scores.json                         # the last four sections
    python examples/evaluate.py --predictions probability.tif --labels labels.tif --out scores.json

Pixel scores at one threshold, and the ISBI-2012 challenge's V^Rand and V^Info at their best of eleven, for every
section and for all. Writes a table, with --out a JSON file, and beside it a picture of the worst sections.

Reads top to bottom: what is compared, scores, table and files, options.
"""

import argparse
import json
import math
import pathlib

import numpy as np
from scipy.stats import bootstrap
from tqdm import tqdm

import tinyseg as ts
from tinyseg.command_line import run_script
from tinyseg.data import Sections, isbi, load_stack
from tinyseg.data.stacks import shape_in_words
from tinyseg.files import write_atomically
from tinyseg.isbi_metrics import isbi_scores
from tinyseg.metrics import BinaryScores, sensitivity, specificity
from tinyseg.prediction import TRANSFORMS
from tinyseg.predictor import Predictor


def main():
    args = parse_arguments()

    # ----- what is compared ------------------------------------------------------
    sections, probabilities = (from_checkpoint if args.checkpoint else from_predictions)(args)
    labels, names = sections.labels, sections.names

    # ----- scores ----------------------------------------------------------------
    per_section = [pixel_scores(p, t, args) for p, t in zip(probabilities, labels, strict=True)]
    challenge = isbi_scores(probabilities, labels, degenerate=args.degenerate)
    for scores, rand, info in zip(per_section, challenge.v_rand_sections, challenge.v_info_sections, strict=True):
        scores |= {"v_rand": float(rand), "v_info": float(info)}
    pooled = pixel_scores(probabilities, labels, args) | {"v_rand": challenge.v_rand, "v_info": challenge.v_info}
    means = {key: mean_with_interval([scores[key] for scores in per_section]) for key in pooled}

    # ----- table and files -------------------------------------------------------
    print_table(names, per_section, pooled, means)
    print(
        f"Pixel scores at {args.threshold:g}. V^Rand at its best threshold, {challenge.v_rand_threshold:.1f}: split "
        f"{challenge.v_rand_split:.4f}, merge {challenge.v_rand_merge:.4f}. V^Info at {challenge.v_info_threshold:.1f}."
    )
    if args.out:
        report = {
            "metrics": pooled,
            "mean_over_sections": means,
            "sections": [{"name": name} | scores for name, scores in zip(names, per_section, strict=True)],
            "isbi": challenge.summary(),
            "settings": {name: str(v) if isinstance(v, pathlib.Path) else v for name, v in vars(args).items()},
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(args.out, json.dumps(nan_as_null(report), indent=1) + "\n")
        worst = np.argsort([scores["v_rand"] for scores in per_section], kind="stable")[: args.worst]
        if len(worst):
            picture = args.out.with_suffix(".worst.png")
            captions = [f"{names[k]}\nV^Rand {per_section[k]['v_rand']:.3f}" for k in worst]
            ts.plots.predictions(
                sections.images[worst], labels[worst], probabilities[worst], picture, captions, args.threshold,
                max_rows=len(worst),
            )  # fmt: skip
            print(f"wrote {args.out} and {picture}")


def from_checkpoint(args):
    """Sections with labels, and what the network says about them at their own resolution."""
    everything = isbi.load(args.images, args.labels or "required", args.foreground)
    sections = chosen(everything, args.sections)
    predictor = Predictor.load(
        args.checkpoint, ts.backend.parse_device(args.device), memory=int(args.memory * 2**30),
        transforms=args.transforms,
    )  # fmt: skip
    if len(predictor.classes) > 1:
        raise ValueError(f"{args.checkpoint} has {len(predictor.classes)} classes: this scores networks of one.")
    predictor.take_statistics(everything.images[:, None])  # the whole stack's, not those of the chosen sections
    rows = tqdm(sections.images, desc="predicting", unit="section")
    return sections, np.stack([predictor(section)[0] for section in rows])


def from_predictions(args):
    """Sections with labels, and the predictions that the user brings."""
    stack, names = load_stack(args.predictions)
    labels, label_names = load_stack(args.labels)
    if stack.shape != labels.shape:
        raise ValueError(
            f"predictions and labels must be the same sections: {args.predictions} has {shape_in_words(stack)}, "
            f"{args.labels} has {shape_in_words(labels)}."
        )
    labels = isbi.binarize_labels(labels, label_names, args.foreground)
    values = np.unique(stack) if stack.dtype.kind in "biu" else ()
    if stack.dtype.kind in "biu" and len(values) <= 2 and set(values.tolist()) <= {0, 1, 255}:
        stack = stack > 0
    elif stack.dtype.kind in "biu" or not 0 <= stack.min() <= stack.max() <= 1:
        raise ValueError(
            f"{args.predictions} must hold probabilities of the inside of a cell, floats in [0, 1], or masks of 0 and "
            f"255, but its values run from {stack.min()} to {stack.max()} ({stack.dtype}). Divide by the largest value."
        )
    probabilities = stack.astype(np.float32)
    if args.images:
        sections = isbi.load(args.images, labels=None)
        if sections.images.shape != labels.shape:
            raise ValueError(f"{args.images} has {shape_in_words(sections.images)}, labels {shape_in_words(labels)}.")
        images, names = sections.images, sections.names
    else:
        images = np.rint(255 * probabilities).astype(np.uint8)
    everything = Sections(images, labels, names)
    if args.sections is None:
        return everything, probabilities
    both = Sections(probabilities, labels, names)
    return chosen(everything, args.sections), chosen(both, args.sections).images


def chosen(sections, which):
    """The sections to score: all, the last k, or a to b-1."""
    if which is None or which in (str(len(sections)), f"0:{len(sections)}"):
        return sections
    return sections.split(which)[1]


def pixel_scores(probability, truth, args):
    """All scores of pixels at the threshold, of one section or pooled over a stack."""
    scores = BinaryScores(args.empty)
    scores.update(probability, truth, args.threshold)
    mask = probability > args.threshold
    return scores.compute() | {
        "sensitivity": sensitivity(mask, truth, args.empty), "specificity": specificity(mask, truth, args.empty),
    }  # fmt: skip


def mean_with_interval(values, level=0.95):
    """Mean over sections, and an interval of it by the bootstrap (Efron 1979, percentiles of 9999 resamples)."""
    values = np.array(values)
    kept = values[~np.isnan(values)]
    result = {"mean": float(kept.mean()) if len(kept) else math.nan, "sections": len(kept)}
    result["undefined"] = len(values) - len(kept)
    if len(kept) > 1:
        found = bootstrap((kept,), np.mean, confidence_level=level, method="percentile", rng=0).confidence_interval
        result["interval"] = [float(found.low), float(found.high)]
    return result


COLUMNS = {
    "accuracy": "accuracy", "dice": "Dice", "iou": "IoU", "mean_iou": "mean IoU", "membrane_iou": "membrane IoU",
    "v_rand": "V^Rand", "v_info": "V^Info",
}  # fmt: skip


def print_table(names, per_section, pooled, means):
    """One line a section; below, the mean with its 95% interval, and the score of all pixels together."""
    width = max(len("mean over sections"), *map(len, names))
    cell = max(map(len, COLUMNS.values())) + 2

    def line(name, cells):
        print(f"{name:{width}}" + "".join(f"{c:>{cell}}" for c in cells))

    line("", COLUMNS.values())
    for name, scores in zip(names, per_section, strict=True):
        line(name, [f"{scores[key]:.4f}" for key in COLUMNS])
    line("mean over sections", [f"{means[key]['mean']:.4f}" for key in COLUMNS])
    if len(names) > 1:
        bounds = [means[key].get("interval", [math.nan] * 2) for key in COLUMNS]
        line("  95% from", [f"{low:.4f}" for low, _ in bounds])
        line("       to", [f"{high:.4f}" for _, high in bounds])
    line("all pixels", [f"{pooled[key]:.4f}" for key in COLUMNS])
    undefined = sum(means[key]["undefined"] for key in COLUMNS)
    if undefined:
        print(f"{undefined} scores are 0/0 (a class that neither has) and left out of the means: see --empty.")


def nan_as_null(value):
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: nan_as_null(v) for key, v in value.items()}
    if isinstance(value, list):
        return [nan_as_null(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--checkpoint", type=pathlib.Path, help="network to score on --images")
    add("--predictions", type=pathlib.Path, help="instead: stack of probabilities (floats) or masks")
    add("--images", type=pathlib.Path, help="stack, or a folder with train-volume.tif and train-labels.tif")
    add("--labels", type=pathlib.Path, help="stack of masks (default: those in the folder of --images)")
    add("--sections", help="score only the last k, or a:b (a to b-1, from 0)")
    add("--foreground", choices=["white", "black"], default="white", help="the inside of cells in the labels")
    add("--threshold", type=float, default=0.5, help="of the pixel scores (default: 0.5)")
    add("--empty", choices=["nan", "one", "zero"], default="nan", help="what 0/0 is in a pixel score (default: nan)")
    add("--degenerate", choices=["challenge", "one"], default="challenge", help="V^Info of a section of one segment")
    add("--transforms", choices=list(TRANSFORMS), default="none", help="mean over flips, or flips and turns")
    add("--memory", type=float, default=2, help="GiB for activations; larger images in tiles (default: 2)")
    add("--device", choices=["auto", "cpu", "gpu"], default="auto")
    add("--worst", type=int, default=3, help="how many of the worst sections to picture (default: 3)")
    add("--out", type=pathlib.Path, help="JSON file; the picture goes beside it")
    args = parser.parse_args()
    if (args.checkpoint is None) == (args.predictions is None):
        parser.error("give --checkpoint with --images, or --predictions")
    if args.checkpoint and args.images is None:
        parser.error("--checkpoint needs --images to run on")
    if args.predictions and args.labels is None:
        parser.error("--predictions needs --labels to compare with")
    return args


if __name__ == "__main__":
    run_script(main, out_of_memory="give a smaller --memory, so that images go through in tiles")
