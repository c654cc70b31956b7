"""Pictures of objects: each in a colour of its own over the image, with its outline."""

import math
from collections.abc import Sequence

import numpy as np
import skimage

from tinyseg.report.colours import DPI
from tinyseg.report.load_matplotlib import load_matplotlib
from tinyseg.report.plots import to_grey
from tinyseg.report.saving import FilePath, save

OPACITY = 0.35  # of a colour inside of an object; its outline is not transparent
SIDE = 1024, 400  # pixels of the picture of a section: at most, at least
GOLDEN = (5**0.5 - 1) / 2  # hues that follow each other at this distance are all unlike


def paint_objects(image: np.ndarray, labels: np.ndarray, thickness: int = 1) -> np.ndarray:
    """Paint objects onto their section.

    Parameters
    ----------
    image : ndarray, (H, W)
        Grey levels: uint8 stays as it is; of any other dtype, smallest to largest value are stretched to 0–255.
    labels : ndarray of int, (H, W)
        0 on the background, and a number for each object, which decides its colour.
    thickness : int
        Pixels of the outlines, which lie inside of the objects.

    Returns
    -------
    ndarray of uint8, (H, W, 3)

    Raises
    ------
    ValueError
        The shapes differ or are not two-dimensional.
    """
    if image.ndim != 2 or image.shape != labels.shape:
        raise ValueError(
            f"image and labels must have one shape (H, W), found {image.shape} and {labels.shape}: give one section "
            "of each."
        )
    grey = np.repeat(to_grey(image)[..., None], 3, axis=2)
    hues = np.arange(labels.max() + 1) * GOLDEN % 1
    colours = skimage.color.hsv2rgb(np.stack([hues, np.full_like(hues, 0.85), np.ones_like(hues)], axis=-1))
    colour = np.rint(255 * colours)[labels]  # (H, W, 3)
    edges = skimage.segmentation.find_boundaries(labels, mode="inner", background=0)
    if thickness > 1:
        edges = skimage.morphology.dilation(edges, np.ones((thickness, thickness), bool)) & (labels > 0)
    opacity = np.where(edges, 1, OPACITY * (labels > 0))[..., None]
    return np.rint(opacity * colour + (1 - opacity) * grey).astype(np.uint8)


def draw_objects(
    images: Sequence[np.ndarray], labels: Sequence[np.ndarray], names: Sequence[str], path: FilePath
) -> None:
    """Draw the objects of sections, side by side, with the name of each section and how many objects it has.

    Parameters
    ----------
    images, labels : sequence of ndarray, (H, W)
        See `paint_objects`.
    names : sequence of str
        One for each section.
    path : str or path-like
        File to write; its ending says the format (``.png``, ``.pdf``, ``.svg``; PNG without one).
    """
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    H, W = images[0].shape
    scale = min(SIDE[0] / max(H, W), max(1, SIDE[1] / max(H, W)))  # drawn pixels for each of the image
    size = columns * (W * scale / DPI + 0.1), rows * (H * scale / DPI + 0.35)  # inches, with room for titles
    figure = load_matplotlib().Figure(figsize=size, dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in grid:
        ax.set_axis_off()
    for ax, image, found, name in zip(grid, images, labels, names, strict=False):
        ax.imshow(paint_objects(image, found, thickness=max(1, round(1 / scale))))
        ax.set_title(f"{name}: {len(np.unique(found[found > 0]))} objects", fontsize=9)
    save(figure, path)
