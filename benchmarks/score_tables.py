"""The ISBI-2012 score beside scikit-image's: the tables of docs/isbi_score.md.

python -m benchmarks.claims --parts isbi_score --data ISBI_DIR
"""

import numpy as np
from scipy import ndimage
from skimage.metrics import adapted_rand_error, variation_of_information

from tinyseg.data import isbi
from tinyseg.metrics.isbi import label_scores, thin

PAIRS = (  # truth and labels: a digit is a pixel's label, rows are separated by /
    ("1122/1122", "1111/1111"),
    ("1111/1111", "1122/1122"),
    ("1102/1102", "1112/1112"),
    ("1112/1112", "1102/1102"),
    ("11122/11122/11122", "11112/11202/33332"),
    ("11110/11110/00000/22220", "11011/11011/00000/22222"),
    ("1122/1122", "0000/0000"),
)


def small():
    """Return the rows of the table of small label images."""
    rows = {}
    for words in PAIRS:
        truth, labels = (np.array([list(map(int, row)) for row in text.split("/")]) for text in words)
        rows[f"T {words[0]}, S {words[1]}"] = compare(truth, labels)
    return rows


def swapped():
    """Return scikit-image's "precision" and "recall" of the first pair, where all is merged."""
    truth, labels = (np.array([list(map(int, row)) for row in text.split("/")]) for text in PAIRS[0])
    _, precision, recall = _rand_error(truth, labels)
    return {"precision": float(precision), "recall": float(recall)}


def real(folder):
    """Return the rows of the table of the real labels: sections 0 to 2, eroded twice or dilated once."""
    sections = isbi.load(folder, labels="required").labels[:3]
    changes = {"eroded": lambda mask: ndimage.binary_erosion(mask, iterations=2), "dilated": ndimage.binary_dilation}
    rows = {}
    for name, change in changes.items():
        found = []
        for section in sections:
            mask, truth = change(section), ndimage.label(section)[0]
            raw = compare(truth, ndimage.label(mask)[0])
            row = compare(truth, thin(mask))
            row |= {f"{key}, not thinned": raw[key] for key in ("1 − error", "VI, foreground")}
            found.append(row)
        rows[name] = {key: float(np.mean([row[key] for row in found])) for key in found[0]}
    return rows


def compare(truth, labels):
    """Return the scores of one image of labels, ours and those of scikit-image."""
    ours, apart = label_scores(labels, truth), labels.copy()
    lines = labels == 0
    apart[lines] = labels.max() + 1 + np.arange(lines.sum())  # each pixel on a line is a segment of its own
    return {
        "V^Rand": float(ours.rand),
        "1 − error": float(1 - _rand_error(truth, labels)[0]),
        "lines apart": float(1 - _rand_error(truth, apart)[0]),
        "V^Info": float(ours.info),
        "VI": float(sum(variation_of_information(truth, labels))),
        "VI, foreground": float(sum(variation_of_information(truth, labels, ignore_labels=(0,)))),
    }


def _rand_error(truth, labels):
    with np.errstate(invalid="ignore"):  # recall may be 0/0
        return adapted_rand_error(truth, labels)
