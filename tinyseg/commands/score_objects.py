"""What evaluate.py says of objects: how many of them are found, and whether they are kept apart.

The true objects have the numbers of the labels; where labels are masks, they are the regions inside. The predicted ones
have the numbers of the predictions, as `tinyseg predict --instances` writes them; of masks they are the regions, and of
probabilities those that `--instances` would find with the same options.
"""

import numpy as np
import scipy

from tinyseg.commands.numbers import refuse_given
from tinyseg.commands.predict_instances import OPTIONS, instance_options
from tinyseg.commands.tables import average_sections, mean_rows, table
from tinyseg.data.load_tqdm import tqdm
from tinyseg.data.masks import inside_of_objects
from tinyseg.metrics.instances import THRESHOLDS, adapted_rand_error, match_objects, variation_of_information
from tinyseg.metrics.isbi import isbi_scores
from tinyseg.prediction.instances import find_instances

# The challenge's scores, each with its parts.
PARTS = [(name, f"{name}_split", f"{name}_merge") for name in ("v_rand", "v_info")]
CHALLENGE = [name for parts in PARTS for name in parts]
# Scores of a section, and how the table calls them.
COLUMNS = {
    "adapted_rand_error": "Rand error", "vi_split": "VI split", "vi_merge": "VI merge", "ap_50": "AP 0.5",
    "ap_75": "AP 0.75", "ap": "AP 0.5-0.95",
}  # fmt: skip


def score_objects(sections, probabilities, numbers, args):
    """Return the scores of the objects of sections, for the JSON file and for `print_objects`.

    Parameters
    ----------
    sections : Sections
        With labels, and with the numbers of their objects if the labels have them.
    probabilities : ndarray, (S, H, W)
    numbers : ndarray of int, (S, H, W), or None
        Numbers of the predicted objects, if the predictions have them.
    args : argparse.Namespace
        With ``empty``, which says what the average precision of nothing is, and the options of `find_instances`.
    """
    masks = numbers is None and np.isin(probabilities, (0, 1)).all()
    if numbers is not None or masks:
        kind = "masks" if masks else "numbers of objects"
        refuse_given(args, OPTIONS, f"this is for probabilities, and the predictions are {kind}: leave it out")
    options = instance_options(args)
    if numbers is not None:
        found, how = numbers, "those that the predictions number"
    elif masks:
        found, how = list(map(_number_regions, probabilities)), "the regions of the predicted masks"
    else:
        found = [find_instances(p, **options) for p in probabilities]
        how = "found as by predict --instances with " + ", ".join(
            f"--{name.replace('_', '-')} {value:g}" for name, value in options.items() if name != "grow"
        )
        how += ", --grow" if args.grow else ""
    true = sections.objects if sections.objects is not None else map(_number_regions, sections.labels)
    against = "the regions of the labels" if sections.objects is None else "those that the labels number"
    challenge = isbi_scores(inside_of_objects(np.stack(found)), sections.labels, empty=args.degenerate)
    of_masks = {name: getattr(challenge, name) for name in CHALLENGE}
    about = {"objects_found": how, "true_objects": against, "isbi": of_masks}
    return report_objects(true, found, sections.names, args.empty) | about


def report_objects(true, found, names, empty):
    """Return the scores of true and found objects, two sequences of sections (H, W) of numbers."""
    rows, matches = [], []
    each = tqdm(zip(names, true, found, strict=True), desc="objects", unit="section", total=len(names))
    for name, truth, prediction in each:
        split, merge = variation_of_information(truth, prediction)
        matches.append(match_objects(truth, prediction))
        scores = {"adapted_rand_error": adapted_rand_error(truth, prediction), "vi_split": split, "vi_merge": merge}
        rows.append({"name": name} | _counts(matches[-1], empty) | scores)
    means = {key: average_sections([row[key] for row in rows]) for key in COLUMNS}
    pooled = _counts(sum(matches[1:], start=matches[0]), empty)
    return {"iou_thresholds": list(THRESHOLDS), "all": pooled, "mean_over_sections": means, "sections": rows}


def print_objects(report):
    """Print a line for each section; below, the mean with its 95% interval, and the objects of all sections together.

    Scores that are of a section as a whole are left out of the last line.
    """
    titles = ["true", "found", *COLUMNS.values()]
    rows = [(row["name"], _cells(row)) for row in report["sections"]]
    means = mean_rows("mean over sections", [report["mean_over_sections"][key] for key in COLUMNS])
    rows += [(name, ["", "", *cells]) for name, cells in means]
    rows += [("all objects", _cells(report["all"]))]
    print(f"Objects: {report['objects_found']}; true ones: {report['true_objects']}")
    print(table(titles, rows))
    rand, info = ("{:.4f} (split {:.4f}, merge {:.4f})".format(*(report["isbi"][k] for k in of)) for of in PARTS)
    print(f"As masks with lines between the objects: V^Rand {rand}, V^Info {info}.")
    print("Rand error (adapted) and VI (bits): 0 is perfect. AP: TP / (TP + FP + FN) of objects, at a least IoU.")


def _cells(scores):
    return [str(scores["true"]), str(scores["found"]), *(f"{scores[k]:.4f}" if k in scores else "" for k in COLUMNS)]


def _counts(matches, empty):
    """Return how many objects there are and their average precision, at two thresholds, on the mean, and at all."""
    ap = [float(value) for value in matches.average_precision(empty)]
    at = dict(zip(THRESHOLDS, ap, strict=True))
    counts = {"true": matches.true, "found": matches.predicted}
    return counts | {"ap_50": at[0.5], "ap_75": at[0.75], "ap": float(np.mean(ap)), "average_precision": ap}


def _number_regions(mask):
    """Return a number for each region of a mask (H, W) of bool, or of 0 and 1; pixels meet at their sides."""
    return scipy.ndimage.label(mask > 0, output=np.int32)[0]
