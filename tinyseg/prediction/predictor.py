"""Prediction with a checkpoint: from images as they are stored to probabilities at their own pixels.

The steps: resample to the pixels of the training, standardize, run the network, interpolate back to the image's pixels.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Self

import msgspec
import numpy as np

from tinyseg.autograd.arrays import describe
from tinyseg.backend import check_number, need_fast
from tinyseg.data.brain import Preparation
from tinyseg.data.class_masks import LARGEST, Classes
from tinyseg.data.isbi import standardize
from tinyseg.data.json_files import check_shape
from tinyseg.data.memory import refuse_beyond_memory
from tinyseg.data.resample import resample, restore, scaled
from tinyseg.data.writing import FilePath
from tinyseg.models import UNet, checkpoint
from tinyseg.prediction.components import drop_small_components
from tinyseg.prediction.tiles import Transforms, check_images, predict, tile_within

SCALES = 1e-3, 1e3  # the least and the largest size of the network's image over that of the stored one


class Predictor:
    """Probabilities for images as they are stored, at their own resolution.

    Parameters
    ----------
    model : UNet
        With the attribute ``meta`` that `checkpoint.load` sets. ``meta["preprocessing"]`` says how images were
        prepared: ``scale`` (rows, columns) is the size of the network's image over that of the stored image, and for
        ``standardize`` see `tinyseg.data.standardize`. If its ``kind`` is "brain", it holds the fields of
        `tinyseg.data.brain.Preparation` instead. ``meta["classes"]`` holds the names of the classes.
    memory : int
        Bytes for activations; images that need more go through the network in tiles.
    transforms : {"none", "flips", "all"}
        See `tinyseg.prediction.predict`.
    scale : float or (float, float), optional
        Replaces the checkpoint's scale, for images whose pixels have another size than those of the training.
    cuda_graph : bool
        On a GPU, launch the network as one CUDA graph for each shape that comes often, such as that of tiles.
    forward : callable, optional
        Runs instead of the network, such as a `tinyseg.export.onnx.runtime.OnnxFile`; see `predict_logits`.

    Attributes
    ----------
    preparation : Preparation, or an object with the same methods
        How a section is prepared for the network.
    classes : list of str
        One name for each channel of the probabilities.
    foreground : {"white", "black"} or None
        How the masks of the training stored the class of a network of one class, if the checkpoint says it.
    masks : Classes or None
        Which values the masks of the training had, of a network of several classes, if the checkpoint says it.
    modalities : list of str or None
        Names of the channels that the network takes, if the checkpoint has them.
    name : str
        The checkpoint's file, for messages.
    tile : int
        Largest height and width, in the network's pixels, that go through it at once.
    min_component : float in [0, 1]
        Parts of a volume's foreground that are smaller than this share of the largest are background, see
        `drop_small_components`; as the checkpoint says, or 0, which keeps all.
    border : float in [0, 1] or None
        For `find_instances`, if the checkpoint says it.

    Raises
    ------
    ValueError
        The checkpoint does not say how images were prepared, or not in a way that this version knows; a weight is NaN
        or infinite; or a CUDA graph is asked for on the CPU.
    """

    def __init__(
        self,
        model: UNet,
        memory: float = 2 << 30,
        transforms: Transforms = "none",
        scale: float | tuple[float, float] | None = None,
        cuda_graph: bool = False,
        forward: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.model, self.transforms, self.name = model, transforms, "this model"
        self.forward = need_fast("gpu.graphs", "cuda_graph").Inference(model) if cuda_graph else forward
        meta = getattr(model, "meta", {})
        _refuse_nonfinite(model)
        options = dict(meta.get("preprocessing") or {})
        self.modalities = options.pop("modalities", None)
        check_shape(self.modalities, list[str] | None, 'The checkpoint\'s "modalities" do not fit')
        self.foreground = options.pop("foreground", None)
        values, ignore = options.pop("values", None), options.pop("ignore", None)
        self.preparation = _make_preparation(options, scale)
        self.classes = meta.get("classes") or [f"class {k}" for k in range(model.num_classes)]
        if len(self.classes) != model.num_classes:
            raise ValueError(f"The network has {model.num_classes} classes, and names for {len(self.classes)}.")
        self.masks = _read_values(self.classes, values, ignore)
        after = meta.get("postprocessing") or {}
        self.min_component = check_number(
            'The checkpoint\'s "min_component"', after.get("min_component", 0.0), "[0, 1]"
        )
        border = after.get("border")
        self.border = border if border is None else check_number('The checkpoint\'s "border"', border, "[0, 1]")
        self.tile = tile_within(model, memory)
        self._statistics = None

    @classmethod
    def load(cls, path: FilePath, device: str = "cpu", **options: Any) -> Self:
        """Read a checkpoint; raises as `checkpoint.load`, and as the constructor with the name of the file."""
        model = checkpoint.load(path, device)
        try:
            predictor = cls(model, **options)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        predictor.name = str(path)
        return predictor

    @property
    def standardizes_stacks(self) -> bool:
        """Whether mean and deviation are those of a whole stack of sections (not of a volume of a brain)."""
        return getattr(self.preparation, "standardize", None) == "stack"

    def look_at(self, image: Any, statistics: Any = None) -> None:
        """Take the statistics of a whole open image, see `take_statistics`.

        Every section is read once, unless each is standardized by itself or the `statistics` are given, of the stack
        that the image is a part of (`tinyseg.prediction.stacks`). An image with another number of channels than the
        network takes is a ValueError.
        """
        if image.channels != self.model.in_channels:
            channels = "1 channel" if image.channels == 1 else f"{image.channels} channels"
            raise ValueError(
                f"{image.path} has {channels}, and the network takes {self.model.in_channels}: give it the images it "
                "was trained for, or another checkpoint."
            )
        self._refuse_large(image.shape, image.path)
        if statistics is None:
            self.take_statistics(image.section(k) for k in range(len(image)))
        else:
            self._statistics = statistics

    def take_statistics(self, sections: Iterable[np.ndarray]) -> None:
        """Measure mean and deviation over all sections (C, H, W) of an image, if the preparation needs them."""
        self._statistics = self.preparation.statistics(sections)

    def __call__(self, section: np.ndarray) -> np.ndarray:
        """Return the probability of each class at each pixel of one section.

        Parameters
        ----------
        section : ndarray, shape (C, H, W) or (H, W)
            As stored: integers of any type, or floats.

        Returns
        -------
        float32 ndarray, shape (classes, H, W), in [0, 1]
            A network of one class gives the probability of the foreground. Those of several classes sum to 1.

        Raises
        ------
        TypeError, ValueError
            The section is no such array, is masked, has other channels than the network takes, or values too large to
            be told apart; or the network's output is not finite.
        """
        x = self.prepare(section)
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # `predict` says it if the output is not finite
                p = predict(self.model, x[None], tile=self.tile, transforms=self.transforms, forward=self.forward)[0]
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error
        return self.preparation.restore(np.clip(p, 0, 1).astype(np.float32), section.shape[-2:])

    def prepare(self, section: np.ndarray) -> np.ndarray:
        """Return a section as the network takes it, float32 (C, h, w); arguments and errors are those of a call."""
        self._check(section, (2, 3), "a section (C, H, W) or (H, W)")
        section = section[None] if section.ndim == 2 else section
        self._refuse_large(section.shape[1:])
        return self.preparation.prepare(section, self._statistics)

    def _check(self, image, axes, what):
        """Raise unless the image is an array that the network can be given; its channels come first, if it has any."""
        channels = self.model.in_channels
        expected = f"{self.name} takes {what} with C = {channels}, an array of integers or floats"
        check_images(image, axes, expected)
        if channels != (image.shape[0] if image.ndim == max(axes) else 1):
            raise ValueError(f"{expected}, but found {describe(image)}. Give several sections one by one.")
        if image.dtype.kind in "iu" and max(int(image.max()), -int(image.min())) > 2**53:
            raise ValueError(
                f"{expected}, but found integers beyond 2**53, which floats cannot tell apart: subtract the least."
            )

    def _refuse_large(self, shape, name="an image"):
        """Raise a ValueError if predicting a section of `shape` would take more than this computer's memory."""
        H, W = map(int, self.preparation.target(shape))
        arrays = self.model.in_channels + 3 * self.model.num_classes + 1  # the image, logits with a sum, probabilities
        what = f"{name} of {H} × {W} pixels for the network would take"
        refuse_beyond_memory(4 * arrays * H * W, what, "memory", "cut it into parts, or make it smaller")

    def volume(self, volume: np.ndarray, threshold: float = 0.5) -> np.ndarray:
        """Return the class of each voxel of a whole volume, on its own grid, without components that are too small.

        Parameters
        ----------
        volume : ndarray, shape (C, X, Y, Z)
            As stored.
        threshold : float
            See `labels`.

        Returns
        -------
        uint8 ndarray, shape (X, Y, Z)

        Raises
        ------
        TypeError, ValueError
            As of a section; or the threshold is not from 0 to 1.
        """
        self._check(volume, (4,), "a volume (C, X, Y, Z)")
        check_number("threshold", threshold, "[0, 1]")
        sections = np.moveaxis(volume, 3, 0)
        self.take_statistics(sections)
        found = np.stack([labels(self(section), threshold) for section in sections], axis=2)
        return drop_small_components(found, self.min_component)


def labels(probabilities: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Return the class of each pixel, uint8 (H, W), from probabilities (classes, H, W).

    It is the class with the highest probability. If there is only one class, it is 1 where the probability is above
    `threshold`, and 0 elsewhere.
    """
    check_number("threshold", threshold, "(-inf, inf)")  # of logits too
    if len(probabilities) > 1:
        return probabilities.argmax(axis=0).astype(np.uint8)
    return (probabilities[0] > threshold).astype(np.uint8)


class _OfSections(msgspec.Struct):
    """What a checkpoint says of the preparation of grey sections."""

    scale: float | Annotated[list[float], msgspec.Meta(min_length=2, max_length=2)]
    standardize: Literal["section", "stack", "unit"]


def _make_preparation(options, scale):
    """Return the preparation that a checkpoint describes; `scale` replaces the checkpoint's unless it is None."""
    sentence = 'The checkpoint\'s "preprocessing" does not fit'
    if options.pop("kind", None) == "brain":
        if scale is not None:
            raise ValueError("The network was trained on brain slices of one size: it takes no scale.")
        return check_shape(options, Preparation, sentence)
    if not {"scale", "standardize"} <= options.keys():
        raise ValueError(
            'The checkpoint does not say how images were prepared for it ("preprocessing" with scale and '
            f"standardize, found {sorted(options)}). Train it with examples/train_isbi.py, or save it with "
            'checkpoint.save(path, model, preprocessing={"scale": [1, 1], "standardize": "section"}).'
        )
    about = check_shape(options, _OfSections, sentence)
    return _SectionPreparation(about.scale if scale is None else scale, about.standardize)


def _read_values(names, values, ignore):
    """Return the classes of masks from what a checkpoint says of their values; None if it says nothing."""
    if values is None:
        return None
    for value, shape in ((values, list[int]), (ignore, int | None)):
        check_shape(value, shape, 'The checkpoint\'s "values" of masks do not fit')
    known = [*values, *([] if ignore is None else [ignore])]
    if len(values) != len(names) or len(set(known)) < len(known) or min(known) < 0 or max(known) > LARGEST:
        raise ValueError(f"The checkpoint's values of masks do not fit its classes: {values} for {list(names)}.")
    return Classes(tuple(names), tuple(values), ignore, "the network's training")


def _refuse_nonfinite(model):
    """Raise a ValueError if a weight is NaN or infinite: what such a network gives looks like "nothing found"."""
    for name, array in model.state_dict().items():
        if not np.isfinite(array).all():
            raise ValueError(
                f"{name} of the network holds NaN or infinity: the file is damaged, or the training had diverged. Use "
                "another checkpoint."
            )


class _SectionPreparation:
    """Preparation of grey sections: its methods do what those of `tinyseg.data.brain.Preparation` do for brains."""

    def __init__(self, scale, standardize):
        self.scale, self.standardize = np.broadcast_to(scale, 2), standardize
        if not ((self.scale >= SCALES[0]) & (self.scale <= SCALES[1])).all():
            raise ValueError(f"scale must be from {SCALES[0]:g} to {SCALES[1]:g}, but is {scale}.")

    def statistics(self, sections):
        if self.standardize != "stack":
            return None
        count, mean, squares = 0, 0.0, 0.0  # joined section by section, after Chan et al. 1983
        for section in sections:
            x = self.resampled(section).astype(np.float64)
            gap, n = x.mean() - mean, count + x.size
            squares += ((x - x.mean()) ** 2).sum() + gap**2 * count * x.size / n
            mean, count = mean + gap * x.size / n, n
        return mean, (squares / max(count, 1)) ** 0.5

    def prepare(self, section, statistics=None):
        x = self.resampled(section)
        if statistics is None:
            return standardize(x, self.standardize)
        mean, deviation = statistics
        return ((x - mean) / (deviation or 1)).astype(np.float32)

    def restore(self, probabilities, shape):
        return restore(probabilities, shape)

    def target(self, shape):
        return scaled(shape, self.scale)

    def resampled(self, section):
        return np.stack([resample(channel, self.target(section.shape[1:])) for channel in section])
