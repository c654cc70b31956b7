"""What `tinyseg predict --instances` writes of an image: its objects as numbers, a table of them, and a picture.

``cells_instances.tif`` has 0 on the background and 1, 2, 3 … on the objects of each section, ``cells_instances.csv`` a
line for each object, and ``cells_instances_overlay.png`` shows some sections with their objects in colour. The TIFF
comes last: when it is there, all are.
"""

import csv
import io

import numpy as np

from tinyseg.commands.numbers import PROBABILITY, Number
from tinyseg.commands.workers import at_work
from tinyseg.data.load_tqdm import tqdm
from tinyseg.data.pixel_size import pixel_size
from tinyseg.data.scans import write_scan
from tinyseg.data.writing import write_atomically
from tinyseg.prediction.instances import BORDER, MIN_SIZE, NECK, SEED_THRESHOLD, find_instances, measure_instances
from tinyseg.report.objects import draw_objects
from tinyseg.report.saving import drawing

OVERLAY = "_overlay.png"
OPTIONS = ("seed_threshold", "neck", "border", "min_size", "grow")
MOST_SHOWN = 4  # sections in the picture


def add_instance_options(parser):
    """Add the options of `find_instances`, for `instance_options`. What --border is left out for, the network says."""
    add = parser.add_argument
    add(
        "--seed-threshold", type=PROBABILITY, default=SEED_THRESHOLD,
        help=f"probability that an object must somewhere exceed (default: {SEED_THRESHOLD})",
    )  # fmt: skip
    add(
        "--neck", type=Number(float, 0, 1, below=True), default=NECK,
        help=f"objects are parted where narrower than this part of their width; 0: never (default: {NECK})",
    )  # fmt: skip
    add(
        "--border", type=PROBABILITY,
        help="parts are one object if their common border has a higher mean probability; 1: never (default: as the "
        f"network was trained, or {BORDER})",
    )  # fmt: skip
    add(
        "--min-size", type=Number(int, 0, 10**9), default=MIN_SIZE,
        help=f"pixels of the smallest object (default: {MIN_SIZE})",
    )  # fmt: skip
    add("--grow", action="store_true", help="let objects grow over membranes and background until they meet")


def instance_options(args):
    """Return the arguments of `find_instances` that the options ask for."""
    options = {"threshold": args.threshold} | {name: getattr(args, name) for name in OPTIONS}
    return options | {"border": BORDER if args.border is None else args.border}


def refuse_instances(predictor, scans):
    """Raise a ValueError if objects of these scans cannot be numbered."""
    if len(predictor.classes) > 1:
        raise ValueError(
            f"--instances is for a network of one class, and this one has {len(predictor.classes)}: predict class "
            "numbers without it, and number the regions of each class (scipy.ndimage.label)."
        )
    volume = next((scan.name for scan in scans if scan.name.lower().endswith((".nii", ".nii.gz"))), None)
    if volume:
        raise ValueError(
            f"--instances numbers the objects of each section by itself, and those of a volume such as {volume} go "
            "through several: predict masks without it, and number their regions in 3-D (scipy.ndimage.label)."
        )


def files_of(target):
    """Return the files that are written of an image: the TIFF, the table and the picture."""
    return target, target.with_suffix(".csv"), target.with_name(target.stem + OVERLAY)


def write_instances(predictor, image, target, args, overwrite):
    """Find the objects of an open image, section by section, and write the three files."""
    try:
        _write_instances(predictor, image, target, args, overwrite, np.uint16)
    except OverflowError:  # more than 65535 in a section
        _write_instances(predictor, image, target, args, overwrite, np.uint32)


def sections_of(image, name):
    """Return the numbers of the sections of an image, with a bar if there are several and nobody else shows one."""
    hidden = len(image) == 1 or at_work()
    return tqdm(range(len(image)), desc=name, unit="section", disable=hidden, leave=None)


def _write_instances(predictor, image, target, args, overwrite, dtype):
    _, table, picture = files_of(target)
    size = pixel_size(image)
    chosen = np.linspace(0, len(image) - 1, min(MOST_SHOWN, len(image))).round().astype(int).tolist()
    rows, shown = [], []
    sections = sections_of(image, image.path.name)
    with write_scan(image, target, dtype=dtype, overwrite=overwrite, as_tiff=True) as out, sections:
        for k in sections:
            section = image.section(k)
            labels = find_instances(predictor(section)[0], **instance_options(args))
            if labels.max() > np.iinfo(dtype).max:
                raise OverflowError
            out.write(labels.astype(dtype))
            rows += [{"image": image.path.name, "section": k} | row for row in measure_instances(labels, size)]
            if k in chosen:
                shown.append((section[0], labels, image.name(k)))
        columns = ["image", "section", *measure_instances(np.ones((1, 1), int), size)[0]]
        write_atomically(table, write_csv(columns, rows))
        with drawing(picture) as path:
            draw_objects(*zip(*shown, strict=True), path)
    tqdm.write(f"wrote {target} ({len(rows)} objects), {table.name} and {picture.name}")


def write_csv(columns, rows):
    """Return a table as CSV; numbers have eight digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{value:.8g}" if isinstance(value, float) else value for k, value in row.items()})
    return text.getvalue()
