"""Objects in a section: from the probability of "inside of a cell" to a number for each cell.

    labels = find_instances(probability)                     # (H, W): 0 is background, 1, 2, 3 … are cells
    rows = measure_instances(labels)                         # area, centroid, … of each

Five steps, in the letters of the code; t is `threshold`:

1. *Core*: pixels with p > `seed_threshold`, where the network is sure. d is the distance of each to the nearest pixel
   outside of the core (Euclidean, in pixels).
2. *Seeds*: a core is cut at its necks. Two parts have a seed each if, on every way from one to the other, d somewhere
   falls below `neck` times the largest d of the smaller part: a gap that a network leaves in a membrane is narrow
   beside the two cells that it joins, and so is the place where two round nuclei touch. What is cut too much is joined
   by step 4. In the terms of morphology: the maxima of the reconstruction of d from `neck` · d, that is the h-maxima of
   log d with h = −log `neck`.
3. *Watershed* of −p from the seeds: they grow over the whole section, the highest p first, until they meet where p is
   lowest.
4. *Borders*: two of these parts are one cell if the mean of m along their common border is above `border`, where m is
   the least p of a pixel and its neighbours. Those with the highest mean are joined first, and then have one border
   with each neighbour. A few pixels at which a membrane is missed, or found where there is none, decide nothing.
5. *Size*: a cell has the pixels with p > t of the regions in which it has a seed. The seeds of cells of fewer than
   `min_size` pixels are taken out, and step 3 is done again: a fragment goes to the cell that it touches, and what
   touches none becomes background. To `grow`, a cell keeps all that step 3 gave it.

Neighbours are those at the four sides, as in the ISBI-2012 score. The necks are relative to the cells' sizes, so that
the defaults do not depend on the size of a pixel; `min_size` does. How they were chosen: docs/object_scores.md.

Sources: L. Vincent & P. Soille, IEEE TPAMI 13(6), 1991 (watershed); L. Vincent, IEEE TIP 2(2), 1993 (reconstruction);
J. Nunez-Iglesias et al., PLoS ONE 8(8), 2013 (joining by the mean of a border); all by scikit-image.
"""

import math

import numpy as np
import scipy
import skimage
from numpy.typing import ArrayLike

from tinyseg.backend import check_number

SEED_THRESHOLD, NECK, BORDER, MIN_SIZE = 0.8, 0.6, 0.45, 30
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)  # a pixel and the four at its sides


def find_instances(
    probability: ArrayLike,
    threshold: float = 0.5,
    seed_threshold: float = SEED_THRESHOLD,
    neck: float = NECK,
    border: float = BORDER,
    min_size: int = MIN_SIZE,
    grow: bool = False,
) -> np.ndarray:
    """Give each object of a section a number.

    Parameters
    ----------
    probability : array_like of float in [0, 1], (H, W)
        Probability of the inside of a cell, of the whole section; or a mask of bool, or of 0 and 1.
    threshold : float in [0, 1]
        Objects lie where the probability is above.
    seed_threshold : float in [0, 1]
        An object must somewhere have a probability above this; one that is below `threshold` stands for `threshold`.
    neck : float in [0, 1)
        Where a core becomes narrower than this part of the smaller of two parts, these are two objects. 0 never cuts
        a core; more cuts more, and leaves more to `border`.
    border : float in [0, 1]
        Two parts are one object if the mean probability along their common border is above. 1 joins none: then the
        shape alone decides. Of a network whose loss weighs the classes: `weigh_border`.
    min_size : int
        Pixels of the smallest object, before it grows.
    grow : bool
        Whether objects grow over what lies between them (membranes, background) until they meet.

    Returns
    -------
    ndarray of int32, (H, W)
        0 on the background, 1 to n on n objects, numbered by their seeds' first pixels, row by row.

    Raises
    ------
    ValueError
        The probability is no section, has no pixels, is NaN or outside of [0, 1]; or an option is out of its range.
    """
    p = _check_section(probability)
    check_number("threshold", threshold, "[0, 1]")
    check_number("seed_threshold", seed_threshold, "[0, 1]")
    check_number("neck", neck, "[0, 1)")
    check_number("border", border, "[0, 1]")
    check_number("min_size", min_size, "[0, inf)", integer=True)

    seeds = _find_seeds(p > max(threshold, seed_threshold), neck)
    cells = _join_parts(p, _watershed(p, seeds), border)
    regions = scipy.ndimage.label(p > threshold, CROSS, output=np.int32)[0]
    labels = _keep_seeded(cells, regions, seeds)
    small = np.bincount(labels.ravel()) < min_size
    small[0] = False
    if small[labels].any():
        seeds = np.where(small[cells], 0, seeds)
        cells = _watershed(p, np.where(seeds > 0, cells, 0))
        labels = _keep_seeded(cells, regions, seeds)
    numbers, labels = np.unique(cells if grow else labels, return_inverse=True)  # 1, 2, 3, … without gaps
    return (labels.reshape(p.shape) + (numbers[0] > 0)).astype(np.int32)


def weigh_border(background: float, foreground: float, border: float = BORDER) -> float:
    """Return the `border` for a network whose loss weighs the pixels of background and of foreground.

    A loss that weighs the background b and the foreground f is least at p / (1 - p) = f/b · q / (1 - q), where q is the
    probability that the pixel is foreground: if membranes, the background, weigh more, p is below q.

    Parameters
    ----------
    background, foreground : float
        Weights of the classes, above 0.
    border : float in [0, 1]
        For a network whose loss does not weigh them: q.

    Returns
    -------
    float in [0, 1]
        p.
    """
    return foreground * border / (foreground * border + background * (1 - border))


def measure_instances(labels: np.ndarray, pixel_size: tuple[float, float] | None = None) -> list[dict[str, float]]:
    """Measure the objects of a section.

    Parameters
    ----------
    labels : ndarray of int, (H, W)
        0 on the background, and a number for each object.
    pixel_size : (float, float), optional
        Height and width of a pixel in micrometres.

    Returns
    -------
    list of dict
        One for each object, in the order of their numbers, with

        - ``label``: its number
        - ``area``: its pixels
        - ``centroid_row``, ``centroid_column``: mean of its pixels' rows and columns, counted from 0
        - ``top``, ``left``, ``bottom``, ``right``: its first row and column, and those behind its last ones
        - ``equivalent_diameter``: that of a circle of the same area, in pixels
        - with a `pixel_size`: ``area_um2`` in µm², ``equivalent_diameter_um`` in µm
    """
    names = {
        "label": "label", "area": "area", "centroid-0": "centroid_row", "centroid-1": "centroid_column",
        "bbox-0": "top", "bbox-1": "left", "bbox-2": "bottom", "bbox-3": "right",
        "equivalent_diameter_area": "equivalent_diameter",
    }  # fmt: skip
    asked = ("label", "area", "centroid", "bbox", "equivalent_diameter_area")
    columns = skimage.measure.regionprops_table(labels, properties=asked)
    columns = {name: columns[key] for key, name in names.items()}
    columns["area"] = columns["area"].astype(np.int64)
    if pixel_size is not None:
        columns["area_um2"] = columns["area"] * (pixel_size[0] * pixel_size[1])
        columns["equivalent_diameter_um"] = np.sqrt(columns["area_um2"] * (4 / math.pi))
    return [dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]


def _find_seeds(core, neck):
    """Return a number for each part of the core (H, W) of bool, 0 elsewhere."""
    if neck == 0 or core.all():  # SciPy does not say what the distance is without a pixel outside
        return scipy.ndimage.label(core, output=np.int32)[0]
    d = scipy.ndimage.distance_transform_edt(core).astype(np.float32)  # with float64 the next line takes twice as long
    tops = skimage.morphology.reconstruction(np.float32(neck) * d, d, footprint=CROSS)
    return scipy.ndimage.label(skimage.morphology.local_maxima(tops, CROSS) & core, output=np.int32)[0]


def _watershed(p, seeds):
    return skimage.segmentation.watershed(-p, seeds, connectivity=CROSS)


def _join_parts(p, parts, border):
    """Return parts (H, W), those of a cell with one number: the lowest, which is that of its first seed."""
    if border == 1 or parts.max() < 2:
        return parts
    m = scipy.ndimage.minimum_filter(p, footprint=CROSS)
    graph = skimage.graph.rag_boundary(parts, 1 - m.astype(np.float64), connectivity=1)
    # merge_hierarchical joins what has a low weight: here the mean of 1 - m.
    cells = skimage.graph.merge_hierarchical(
        parts, graph, 1 - border, rag_copy=False, in_place_merge=True,
        merge_func=lambda graph, source, target: None, weight_func=_weigh_common_border,
    )  # fmt: skip
    first = np.full(cells.max() + 1, parts.max())
    np.minimum.at(first, cells, parts)
    return first[cells]


def _weigh_common_border(graph, source, target, neighbour):
    """Return mean and length of the border that a neighbour has with two parts which become one."""
    nothing = {"weight": 0.0, "count": 0}
    two = [graph[part].get(neighbour, nothing) for part in (source, target)]
    count = sum(edge["count"] for edge in two)
    return {"weight": sum(edge["weight"] * edge["count"] for edge in two) / count, "count": count}


def _keep_seeded(cells, regions, seeds):
    """Return cells (H, W) in the regions that have a seed, 0 elsewhere. No seed lies outside of all regions."""
    return np.where(np.isin(regions, regions[seeds > 0]), cells, 0)


def _check_section(probability):
    """Return a probability (H, W) as float32, or raise a ValueError."""
    p = np.asarray(probability)
    if p.ndim != 2 or not p.size or p.dtype.kind not in "biuf":
        raise ValueError(
            f"probability must be one section (H, W) of numbers, found {p.dtype} {p.shape}: give the sections of a "
            "stack one by one."
        )
    rounded = p.astype(np.float32)  # a filter in float64 may give 1 + 2e-16
    if not ((rounded >= 0) & (rounded <= 1)).all():  # NaN fails the comparison
        raise ValueError(
            f"probability must be in [0, 1], 1 inside of a cell, found values from {p.min()} to {p.max()}: divide "
            "integers by the largest possible value, apply the sigmoid to logits."
        )
    return rounded
