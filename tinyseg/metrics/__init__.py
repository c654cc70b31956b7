"""Scores of a segmentation: how much of a prediction is right, in several ways.

- `binary`: foreground and background. `accuracy`, `dice`, `iou`, `mean_iou`, `sensitivity`, `specificity` of two
  masks, and `BinaryScores`, pooled over many
- `multiclass`: K classes. `confusion_matrix`, and `SegmentationScores`: scores of each class and of regions (unions
  of classes), of each image, averaged over images, and pooled
- `ratios`: the equations that both share; `arrays`: what is an array of numbers
- `isbi`: cell membranes. V^Rand and V^Info of the ISBI-2012 challenge
- `instances`: objects, such as cells and nuclei. Average precision, adapted Rand error, variation of information
- `patients`: whole patients, each scored as one volume
- `intervals`: how sure a mean over few images is

A score may be 0/0, such as the Dice of a class that neither prediction nor target has.  That case is called
empty, and the caller chooses what the score is then:

- ``empty="nan"``, the default: undefined.  A mean over images leaves the image out.
- ``empty="one"``: 1, because there was nothing to find and nothing was missed.
- ``empty="zero"``: 0.

The choice matters: where images have no tumour, "one" makes a mean Dice look better and "zero" worse.  Therefore
`SegmentationScores` reports how many scores were empty, whatever the choice.  A score that is a plain 0, such as the
Dice of an empty target with a prediction that is not empty, always counts.

Two modules have their own default, after their challenges: "one" in `patients` (BraTS), and "challenge" in `isbi`,
which has no "nan".

Everything here takes NumPy arrays; bring CuPy arrays over with ``cupy.asnumpy`` first.
"""

from tinyseg.metrics.binary import (
    BinaryScores,
    accuracy,
    confusion_counts,
    dice,
    iou,
    mean_iou,
    sensitivity,
    specificity,
)
from tinyseg.metrics.intervals import mean_interval
from tinyseg.metrics.multiclass import SegmentationScores, confusion_matrix

__all__ = [
    "BinaryScores",
    "SegmentationScores",
    "accuracy",
    "confusion_counts",
    "confusion_matrix",
    "dice",
    "iou",
    "mean_interval",
    "mean_iou",
    "sensitivity",
    "specificity",
]
