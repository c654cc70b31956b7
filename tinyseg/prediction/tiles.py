r"""Probabilities from a model for images of any size: padding, tiles, and the mean over flips and turns.

An image that is too large for the memory goes through the network in overlapping tiles. Where they overlap, their
logits are averaged,

    y(p) = sum_t g_t(p) y_t(p) / sum_t g_t(p),     g_t = a Gaussian about the middle of tile t

with g_t = 0 within r pixels of the tile's inner sides, where r is the network's receptive radius: there the output
depends on pixels outside of the tile. The result equals that of the whole image, to rounding, with two exceptions:
GroupNorm takes its mean and variance over the tile instead of the image, and in tiles of less than 4 r the margin is
only a quarter of the side.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from tinyseg import nn, ops
from tinyseg.autograd import Array, Tensor, no_grad
from tinyseg.autograd.arrays import describe
from tinyseg.backend import device_of, to_device, to_numpy, xp_of

Transforms: TypeAlias = Literal["none", "flips", "all"]
TRANSFORMS = {"none": 1, "flips": 4, "all": 8}  # how many of the eight symmetries of a square, see `_turn`
ARRAYS = 10  # memory of inference, in float32 arrays as large as the first level's output (measured: docs/results.md)


def predict_logits(
    model: nn.Module,
    images: Array,
    batch_size: int = 1,
    tile: int | None = None,
    forward: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Run a model over images of any size: pad them to a size that the network takes, and crop its output.

    Padding mirrors the image about its border pixels at the bottom and right. The model runs in evaluation mode
    (`tinyseg.nn.evaluation`), whatever mode it is in otherwise.

    Parameters
    ----------
    model : UNet
    images : ndarray, shape (N, C, H, W) or (N, H, W) for one channel
        Preprocessed as for training; converted to the dtype of the model's parameters.
    batch_size : int
        Images that go through the network together.
    tile : int, optional
        Largest height and width that go through the network at once; a multiple of ``model.multiple``.
    forward : callable, optional
        Runs instead of the model, from NumPy array to NumPy array, such as `tinyseg.fast.gpu.graphs.Inference`.

    Returns
    -------
    float NumPy array, shape (N, num_classes, H, W)

    Raises
    ------
    TypeError, ValueError
        The images are no such array, see `check_images`, or the tile does not fit.
    """
    weights = model.parameters()[0].data
    expected = "images must be an array of integers or floats, (N, C, H, W), or (N, H, W) for one channel, N at least 1"
    check_images(images, (3, 4), expected, weights.dtype)
    images = images[:, None] if images.ndim == 3 else images
    if tile is not None and (tile < 1 or tile % model.multiple):
        raise ValueError(f"tile must be a positive multiple of {model.multiple}, but is {tile}.")
    H, W = images.shape[2:]
    logits = []

    def run(x):
        x = np.ascontiguousarray(x)
        return forward(x) if forward else to_numpy(model(to_device(x, device_of(weights))).data)

    with no_grad(), nn.evaluation():
        for start in range(0, len(images), batch_size):
            x = np.asarray(to_numpy(images[start : start + batch_size]), weights.dtype)
            x = mirror_to_multiple(x, model.multiple)
            y = run(x) if tile is None or max(x.shape[2:]) <= tile else _in_tiles(run, x, tile, model)
            logits.append(y[:, :, :H, :W])
    return np.concatenate(logits)


def predict(
    model: nn.Module,
    images: Array,
    batch_size: int = 1,
    tile: int | None = None,
    transforms: Transforms = "none",
    forward: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Return the probability of each class at each pixel: as `predict_logits`, then sigmoid (one class) or softmax.

    Parameters
    ----------
    model, images, batch_size, tile, forward
        As for `predict_logits`.
    transforms : {"none", "flips", "all"}
        Average the probabilities of the image and its mirror images (4 runs of the network), or of these and the same
        turned by 90° (8 runs). Each result is turned back first. "none" takes the image alone.

    Returns
    -------
    float NumPy array, shape (N, num_classes, H, W), in [0, 1]

    Raises
    ------
    TypeError, ValueError
        As `predict_logits`; or the network's output is not finite: compared with a threshold, NaN would look like
        background.
    """
    if transforms not in TRANSFORMS:
        raise ValueError(f"transforms must be one of {', '.join(TRANSFORMS)}, but is {transforms!r}.")
    mean: Any = 0
    for k in range(TRANSFORMS[transforms]):
        logits = predict_logits(model, _turn(images, k), batch_size, tile, forward)
        if not np.isfinite(logits).all():
            raise ValueError(
                "the network's output is NaN or infinite: its weights are damaged or very large, or the images hold "
                "values far outside of those of the training. Use another checkpoint, or check the images."
            )
        mean = mean + _turn_back(to_probabilities(logits).data, k)
    return mean / TRANSFORMS[transforms]


def mirror_to_multiple(images: np.ndarray, multiple: int) -> np.ndarray:
    """Continue images (..., H, W) as `mirror_to` does, to a height and width that are multiples of a number."""
    H, W = images.shape[-2:]
    return mirror_to(images, (H + -H % multiple, W + -W % multiple))


def mirror_to(images: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Continue images (..., H, W) to a size (height, width) that is not smaller.

    They are mirrored about their last row and column; where a side is 1, these are repeated.
    """
    missing = [(0, n - m) for n, m in zip(size, images.shape[-2:], strict=True)]
    kept = [(0, 0)] * (images.ndim - 2)
    return np.pad(images, [*kept, *missing], mode="reflect" if min(images.shape[-2:]) > 1 else "edge")


def to_probabilities(logits: Tensor | Array) -> Tensor:
    """Return the probability of each class from logits (N, K, H, W): sigmoid if there is one class, else softmax."""
    return ops.sigmoid(logits) if logits.shape[1] == 1 else ops.softmax(logits)


def tile_within(model: nn.Module, memory: float) -> int:
    """Return the side of the largest square tile that needs about `memory` bytes.

    Parameters
    ----------
    model : UNet
    memory : int
        Bytes for activations, without weights and images.

    Returns
    -------
    int
        A multiple of ``model.multiple``, at least 64 pixels.
    """
    pixels = memory / (ARRAYS * 4 * model.config["width"])
    return max(int(pixels**0.5), 64) // model.multiple * model.multiple


def normalizes_over_space(model: nn.Module) -> bool:
    """Return whether each output pixel depends on the whole image, because a GroupNorm takes its mean and variance."""
    return any(isinstance(module, nn.GroupNorm) for _, module in model.named_modules())


def check_images(images, axes, expected, dtype=np.float32):
    """Raise unless images are an array of integers or floats that has pixels, and no mask.

    Parameters
    ----------
    images : object
    axes : tuple of int
        How many axes they may have.
    expected : str
        How the sentence begins: "images must be an array …".
    dtype : dtype
        What they will be converted to: larger values are refused, NaN is not.

    Raises
    ------
    TypeError
        They are no array, such as a list, a path or a Tensor, or a masked one.
    ValueError
        The array does not fit.
    """
    if isinstance(images, np.ma.MaskedArray) or not isinstance(images, (np.ndarray, xp_of(images).ndarray)):
        raise TypeError(
            f"{expected}, but found a {type(images).__name__}: give an array, which is np.asarray(x) of a list, x.data "
            "of a Tensor, x.filled(value) of a masked array; tinyseg.data.load_stack reads files."
        )
    if images.dtype.kind not in "biuf" or images.ndim not in axes or images.size == 0:
        raise ValueError(
            f"{expected}, but found {describe(images)}: x[0] takes an axis away, x[None] adds one, x.real and x.astype "
            "convert."
        )
    if images.dtype.kind == "f" and images.dtype.itemsize > np.dtype(dtype).itemsize:
        largest = float(abs(images).max())
        if largest > float(np.finfo(dtype).max):
            raise ValueError(
                f"{expected}, but found values up to {largest:g}, beyond {np.dtype(dtype)}: replace or divide them."
            )


def _in_tiles(run, x, tile, model):
    """Return the logits of padded images x (N, C, H, W), computed tile by tile."""
    margin = min(model.receptive_radius, tile // 4)
    total = weight = None
    for rows, row_weight in _spans(x.shape[2], tile, margin, model.multiple):
        for columns, column_weight in _spans(x.shape[3], tile, margin, model.multiple):
            y = run(x[:, :, rows, columns])
            g = np.outer(row_weight, column_weight).astype(y.dtype)
            if total is None:
                total = np.zeros((*y.shape[:2], *x.shape[2:]), y.dtype)
                weight = np.zeros(x.shape[2:], y.dtype)
            total[:, :, rows, columns] += g * y
            weight[rows, columns] += g
    total /= weight
    return total


def _spans(n, tile, margin, multiple):
    """Cut an axis of n pixels into tiles: yield the slice of each tile and its weights along the axis."""
    tile = min(tile, n)
    step = max((tile - 2 * margin - tile // 8) // multiple, 1) * multiple  # an eighth of the tile is blended
    margin = min(margin, (tile - step) // 2)  # tiles that are hardly larger than `multiple` leave no room for margins
    starts = [*range(0, n - tile, step), n - tile]
    position = np.arange(tile)
    for start in starts:
        weight = np.exp(-0.5 * ((position - (tile - 1) / 2) / (tile / 4)) ** 2)
        if start > 0:
            weight[:margin] = 0
        if start < n - tile:
            weight[tile - margin :] = 0
        yield slice(start, start + tile), weight


def _turn(x, k):
    """Apply the k-th symmetry of a square: k & 1 mirrors the columns, k & 2 the rows, k & 4 swaps the two."""
    x = x[..., ::-1] if k & 1 else x
    x = x[..., ::-1, :] if k & 2 else x
    return x.swapaxes(-1, -2) if k & 4 else x


def _turn_back(x, k):
    x = x.swapaxes(-1, -2) if k & 4 else x
    return _turn(x, k & 3)
