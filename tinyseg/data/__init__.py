"""Data: reading stacks of sections, augmentation, and batches prepared in the background.

- `isbi`: images and masks of sections, read from folders and stacks (`stacks`); `pairs`: which mask belongs to which
  image; `masks`: what their values mean, and `class_masks`, where they are several classes
- `sections`: such sections in memory, split and resampled
- `synthetic`: a stack of synthetic sections, for use without data
- `augment`: one random transform for an image and its mask
- `loader`: a data set of arrays, and a loader of reproducible batches
- `download`, `download_brats`: the public ISBI 2012 files, and the Decathlon's brain tumours
- `images`, `image_writers`: any image read section by section, and results written in its format; `image_file`,
  `pictures`, `tiffs` and `ome`: its readers
- `resample`: images, labels and predictions at another size, aligned
- `brats`, `brain`, `slices`, `synthetic_brain`: brain tumours in MRI, their slices prepared and kept on disk
- `scans`, `label_volumes`: images to predict, of one or more modalities; predicted labels and the true ones
- `files`: files found in natural order, and files written whole or not at all
- `predictions_json`: the record that predict.py keeps beside its files
- `json_files`: JSON, checked against a declared shape; `fingerprint`: what a run was begun with
"""

from tinyseg.data import isbi
from tinyseg.data.augment import Augment
from tinyseg.data.download import fetch_isbi
from tinyseg.data.isbi import standardize
from tinyseg.data.loader import Loader, SegmentationDataset
from tinyseg.data.sections import Sections
from tinyseg.data.stacks import load_stack
from tinyseg.data.synthetic import em_sections

__all__ = [
    "Augment",
    "Loader",
    "Sections",
    "SegmentationDataset",
    "em_sections",
    "fetch_isbi",
    "isbi",
    "load_stack",
    "standardize",
]
