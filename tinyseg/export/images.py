"""Images to run an exported network on beside tinyseg, and what the network is given for them."""

import pathlib
import re
from collections.abc import Sequence

import numpy as np

from tinyseg.data import em_sections
from tinyseg.data.brain import Preparation
from tinyseg.data.files import refuse_missing
from tinyseg.data.isbi import find_images_and_labels
from tinyseg.data.pairs import split_masks
from tinyseg.data.scans import Scan, find_scans, open_scan
from tinyseg.data.synthetic_brain import brain
from tinyseg.data.writing import FilePath
from tinyseg.prediction.predictor import Predictor
from tinyseg.prediction.tiles import mirror_to, mirror_to_multiple

MOST, LARGEST = 2, 768  # sections to check with, and pixels of a side for the network: each goes through every format


def find_check_images(predictor: Predictor, path: FilePath | None = None) -> tuple[np.ndarray, str]:
    """Return sections to check an export on, and a sentence's part that says which they are.

    Parameters
    ----------
    predictor : Predictor
        Takes the statistics of these sections, if its network standardizes whole stacks or volumes.
    path : path-like, optional
        An image, a stack, a volume or a folder of them. By default the data of the training, of which the checkpoint
        knows the place: the sections that were held out. A network that was trained on synthetic data gets new ones.

    Returns
    -------
    ndarray, shape (S, C, H, W)
        One or two sections, as stored.
    str

    Raises
    ------
    FileNotFoundError
        There is nothing at the path, or no image.
    ValueError
        The data of the training are not there any more, and no path is given; or the images do not fit the network.
    """
    config = predictor.model.meta.get("config") or {}
    of_volumes = isinstance(predictor.preparation, Preparation)
    if path is None and config.get("data") is None and "seed" in config:
        sections, what = _draw_synthetic(config, of_volumes), "new synthetic sections"
    else:
        if path is not None:
            refuse_missing(pathlib.Path(path), "an image to check with, or a folder of images")
        path = path or config.get("data")
        if path is None or not pathlib.Path(path).exists():
            where = (
                f" were in {path}, which is not there" if path else ", of which the checkpoint does not know the place"
            )
            raise ValueError(
                "An exported network is run on real sections beside tinyseg, and those of the training"
                f"{where}: give an image with --check IMAGE."
            )
        sections, what = _read(predictor, pathlib.Path(path), config)
        middle = _middle(predictor, sections.shape[2:])
        if sections[:, :, *middle].shape != sections.shape:
            sections = np.ascontiguousarray(sections[:, :, *middle])
            what += f", the middle {sections.shape[2]} × {sections.shape[3]} pixels"
    predictor.take_statistics(sections)
    return sections, what


def as_pixels(predictor: Predictor, sections: np.ndarray) -> np.ndarray:
    """Return sections of any type as uint8 or uint16, which every file of pictures holds."""
    if sections.dtype in (np.uint8, np.uint16):
        return sections
    low, high = sections.min(), sections.max()
    if getattr(predictor.preparation, "standardize", None) == "unit":
        low, high = (
            (0, 1) if sections.dtype.kind == "f" else (np.iinfo(sections.dtype).min, np.iinfo(sections.dtype).max)
        )
    shares = (sections.astype(np.float64) - low) / (float(high) - float(low) or 1)
    return np.rint(shares * 65535).astype(np.uint16)


def _middle(predictor, shape):
    """Return the slices of the middle of a section that goes through the network at once."""
    sides = [min(n, int(n * LARGEST / m)) for n, m in zip(shape, predictor.preparation.target(shape), strict=True)]
    return [slice((n - side) // 2, (n - side) // 2 + side) for n, side in zip(shape, sides, strict=True)]


def fit(x: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Cut an image (C, H, W) to a size, or continue it at the bottom and right by its mirror image."""
    return mirror_to(x[:, : size[0], : size[1]], size)


def network_inputs(
    predictor: Predictor, sections: Sequence[np.ndarray], size: Sequence[int] | None = None
) -> list[np.ndarray]:
    """Prepare sections, (C, H, W) each, for the network.

    Returns float32 arrays (C, h, w) of a size that it takes, or of `size`. If it standardizes whole stacks or volumes,
    the sections are one.
    """
    statistics = predictor.preparation.statistics(sections)
    inputs = [predictor.preparation.prepare(section, statistics) for section in sections]
    return [fit(x, size) if size else mirror_to_multiple(x, predictor.model.multiple) for x in inputs]


def _draw_synthetic(config, of_volumes):
    if of_volumes:
        volume = brain(shape=(160, 160, 32), seed=1000)[0]
        return np.stack([volume[..., k] for k in (15, 16)])
    return em_sections(num_sections=MOST, size=int(config.get("size", 256)), seed=1000)[0][:, None]


def _read(predictor, path, config):
    """Read sections at a path: of the training's data those that were held out, of volumes the middle."""
    of_volumes = isinstance(predictor.preparation, Preparation)
    is_training = path.is_dir() and not of_volumes and str(path) == config.get("data")
    held_out = str(config.get("val_sections", "")) if is_training else ""
    if is_training:
        found = find_images_and_labels(path, None)[0]
        files = found if isinstance(found, list) else [found]
        scans = [Scan(file.name, (file,)) for file in files if file.is_file()] or find_scans(files[0])
    else:
        scans = find_scans(path, predictor.modalities)
        images = split_masks([scan.name for scan in scans], predictions=True)[0]
        scans = [scan for scan in scans if scan.name in images]
    if of_volumes:  # of one patient, whom the network was not trained on if there is such a one
        trained = (config.get("patients") or {}).get("train", ())
        scans = ([scan for scan in scans if scan.name.split(".")[0] not in trained] or scans)[:1]
    if len(scans) > 1:
        chosen = _choose(len(scans), held_out)
        return np.stack([_sections_of(predictor, scans[k], [0])[0] for k in chosen]), f"{len(chosen)} images of {path}"
    with open_scan(scans[0], for_network=of_volumes) as image:
        middle = max(len(image) // 2 - 1, 0)
        chosen = range(middle, min(middle + MOST, len(image))) if of_volumes else _choose(len(image), held_out)
    number = f"section {chosen[0]}" if len(chosen) == 1 else f"sections {', '.join(map(str, chosen))}"
    return _sections_of(predictor, scans[0], chosen), f"{number} of {scans[0].name}"


def _choose(n, held_out):
    """Return the numbers of the sections: the first of those that were held out, or the first of all."""
    given = re.fullmatch(r"(?:(\d+):)?(\d+)", held_out)
    start = 0 if given is None else n - int(given[2]) if given[1] is None else int(given[1])
    return range(max(start, 0), min(max(start, 0) + MOST, n))


def _sections_of(predictor, scan, chosen):
    """Return sections (S, C, H, W) of a scan; a ValueError if it has not the network's channels."""
    with open_scan(scan, for_network=isinstance(predictor.preparation, Preparation)) as image:
        predictor.look_at(image, statistics=(0, 1))  # which are taken of the chosen sections later
        return np.stack([image.section(k) for k in chosen])
