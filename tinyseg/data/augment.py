"""Augmentation: a random transform of an image and its mask together, drawn anew for each sample.

Flips and quarter turns rearrange pixels and are exact. All other movements together are one map about the centre
c = ((H-1)/2, (W-1)/2). For each output pixel p = (row, column) it gives the input point q that this pixel shows,

    q(p) = c + R(-θ) (p - c - t) / z + u(p)

    θ  ~ U[-rotation, rotation]     the content turns by θ, counter-clockwise as seen
    z  ~ U[1 - zoom, 1 + zoom]      and grows by z
    t  ~ U[-shift, shift]² (H, W)   and then moves by t
    u(p)                            smooth random displacement, standard deviation `elastic` pixels

The image is interpolated linearly at q; the mask takes the value of the pixel nearest to q. Beyond the border both are
mirrored (d c b a | a b c d | d c b a). Each component of u is a sum of Gaussians with random weights n(k, l) on a grid
of knots: row x_k, column x_l,

    u(i, j) = elastic · Σ_kl A(i, k) n(k, l) A(j, l),   n ~ N(0, 1),   A(i, k) ∝ exp(-(i - x_k)² / 2σ²)

with σ = `elastic_sigma`. The rows of A are scaled to Σ_k A(i, k)² = 1, so that u has standard deviation `elastic` at
every pixel.

Then the grey values of the image change, one after the other, with m and s their mean and standard deviation:

    x ← m + k (x - m) + b s     k ~ U[1 - contrast, 1 + contrast],  b ~ U[-brightness, brightness]
    x ← ((x - min) / (max - min))^γ, brought back to m and s        log γ ~ U[-log(1 + gamma), log(1 + gamma)]
    x ← x blurred by a Gaussian                                     of standard deviation ~ U[0, blur] pixels
    x ← x + white noise                                             of standard deviation s · U[0, noise]

each of the last three in one sample of three only: sharp images without noise should stay what is seen most.
"""

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

import numpy as np
import scipy

_COMMAND_NAMES = {"hflip": "horizontal_flip", "vflip": "vertical_flip", "turns": "quarter_turns"}


@dataclass(frozen=True)
class Augment:
    """A random transform of an image and its mask; the module's docstring has the formulas.

    Parameters
    ----------
    horizontal_flip, vertical_flip : bool
        Mirror left and right, or top and bottom, each with probability 1/2.
    quarter_turns : bool
        Turn by 0, 90, 180 or 270 degrees; an image that is not square, by 0 or 180 only.
    rotation : float
        Largest angle, in degrees, from 0 to 180.
    zoom : float
        The content grows by a factor drawn from [1 - zoom, 1 + zoom]; below 1.
    shift : float
        Largest shift, as a fraction of the height and of the width; below 1.
    elastic : float
        Standard deviation of the elastic displacement, in pixels; 0 is off.
    elastic_sigma : float
        Width σ of the Gaussians of the elastic displacement, in pixels. If it is below about twice `elastic`, the
        image folds over itself.
    brightness : float
        Most that is added to or taken from an image, in its standard deviations.
    contrast : float
        The differences of an image from its mean are scaled by a factor drawn from [1 - contrast, 1 + contrast];
        below 1.
    gamma : float
        Bright or dark grey values are drawn apart, by an exponent from 1 / (1 + gamma) to 1 + gamma.
    blur : float
        Largest standard deviation of a Gaussian blur, in pixels.
    noise : float
        Largest standard deviation of white noise, in standard deviations of the image.
    """

    horizontal_flip: bool = False
    vertical_flip: bool = False
    quarter_turns: bool = False
    rotation: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    elastic: float = 0.0
    elastic_sigma: float = 24.0
    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0
    blur: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        below_one = math.nextafter(1, 0)  # the largest number below 1
        ranges = {"rotation": (0, 180), "zoom": (0, below_one), "shift": (0, below_one), "contrast": (0, below_one)}
        ranges |= {"elastic": (0, 1000), "elastic_sigma": (1, 1000), "brightness": (0, 1000)}
        ranges |= {"gamma": (0, 10), "blur": (0, 100), "noise": (0, 1000)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                bounds = "and below 1" if high == below_one else f"and at most {high}"
                raise ValueError(f"augmentation {name}={value:g}: expected at least {low} {bounds}.")

    @classmethod
    def none(cls) -> Self:
        """Return a transform that changes nothing."""
        return cls()

    @classmethod
    def paper(cls) -> Self:
        """Return the transform of the SD-UNet paper: horizontal flip, zoom range, height and width shift.

        The paper gives no values; these come from the well-known Keras U-Net code for the same data.
        """
        return cls(horizontal_flip=True, zoom=0.05, shift=0.05)

    @classmethod
    def default(cls) -> Self:
        """Return a transform for images without a preferred direction and of uneven quality.

        Flips, turns, rotation, zoom and elastic deformation; brightness, contrast, gamma, blur and noise. What each is
        worth on real sections: docs/results.md.
        """
        moved = cls(True, True, True, rotation=45.0, zoom=0.25, shift=0.05, elastic=8.0)
        return replace(moved, brightness=0.3, contrast=0.3, gamma=0.5, blur=1.5, noise=0.3)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Build a transform from text such as ``"hflip,vflip,rotation=15,zoom=0.1"`` or ``"paper,elastic=8"``.

        Parameters
        ----------
        text : str
            Items with commas between them: optionally a preset (none, paper, default), then flags (hflip, vflip,
            turns) and name=number for the other fields. A ValueError lists the known names.
        """
        presets = {"none": cls.none, "paper": cls.paper, "default": cls.default}
        numbers = [f.name for f in fields(cls) if f.name not in _COMMAND_NAMES.values()]
        known = (
            f"Known: a preset ({', '.join(presets)}), then flags ({', '.join(_COMMAND_NAMES)}) "
            f"and numbers ({', '.join(f'{name}=...' for name in numbers)}), separated by commas."
        )
        augment = cls.none()
        for position, item in enumerate(part.strip() for part in text.split(",")):
            name, equals, value = (part.strip() for part in item.partition("="))
            if item in _COMMAND_NAMES:
                change: dict[str, Any] = {_COMMAND_NAMES[item]: True}
            elif item in presets and position == 0:
                change = asdict(presets[item]())
            elif equals and name in numbers:
                try:
                    change = {name: float(value)}
                except ValueError:
                    raise ValueError(f"augmentation {item!r}: {value!r} is not a number. {known}") from None
            elif name in numbers:
                raise ValueError(f"augmentation {item!r} needs a number, as in {name}=... {known}")
            elif name in presets:
                raise ValueError(f"augmentation {item!r} is a preset, and goes first, without a value. {known}")
            elif name in _COMMAND_NAMES:
                raise ValueError(f"augmentation {item!r}: {name} takes no value. {known}")
            else:
                raise ValueError(f"augmentation {item!r} is not known. {known}")
            augment = replace(augment, **change)
        return augment

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict, for a JSON file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build a transform from the dict of `to_dict`; an unknown field is a ValueError."""
        names = [f.name for f in fields(cls)]
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise ValueError(f"unknown augmentation {', '.join(unknown)}: expected {', '.join(names)}.")
        return cls(**values)

    def __call__(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator, crop: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Transform one image and its mask alike.

        Parameters
        ----------
        image : ndarray of float, (C, H, W)
        label : ndarray of bool or int, (H, W)
        rng : numpy.random.Generator
        crop : (int, int), optional
            Height and width of a window at a random place, at most those of the image. Only the window is computed; the
            map is about its centre, and what it moves into the window comes from the image around it.

        Returns
        -------
        image, label
            New C-contiguous arrays of the same types, and of the same shapes or that of the crop; the mask has no new
            values.
        """
        if image.ndim != 3 or image.dtype.kind != "f" or label.shape != image.shape[1:]:
            raise ValueError(
                "augmentation expects a float image (C, H, W) and its mask (H, W): "
                f"found {image.dtype} {image.shape} and {label.dtype} {label.shape}."
            )
        height, width = crop or label.shape
        # All numbers are drawn, used or not, so that switching on one kind does not change the others.
        mirrored_h, mirrored_v = rng.random(2) < 0.5
        turns = int(rng.integers(4))
        angle, zoom, down, right, brightness, contrast = rng.uniform(-1, 1, 6).tolist()
        place = rng.random(2).tolist()

        if self.horizontal_flip and mirrored_h:
            image, label = image[:, :, ::-1], label[:, ::-1]
        if self.vertical_flip and mirrored_v:
            image, label = image[:, ::-1], label[::-1]
        if self.quarter_turns:
            if height != width:
                turns -= turns % 2
            image, label = np.rot90(image, turns, axes=(1, 2)), np.rot90(label, turns)

        top, left = (int(f * (n - m + 1)) for f, n, m in zip(place, label.shape, (height, width), strict=True))
        if self.rotation or self.zoom or self.shift or self.elastic:
            q = source_points(
                (height, width),
                angle=self.rotation * angle,
                zoom=1 + self.zoom * zoom,
                shift=(self.shift * height * down, self.shift * width * right),
            )
            q += np.array([top, left])[:, None, None]
            if self.elastic:
                q += self.elastic * smooth_noise((height, width), self.elastic_sigma, rng)
            image = np.stack([scipy.ndimage.map_coordinates(channel, q, order=1, mode="reflect") for channel in image])
            label = scipy.ndimage.map_coordinates(label, q, order=0, mode="reflect")
        else:
            window = slice(top, top + height), slice(left, left + width)
            image, label = image[:, *window], label[window]

        dtype = image.dtype
        if self.brightness or self.contrast:
            mean, std = image.mean(axis=(1, 2), keepdims=True), image.std(axis=(1, 2), keepdims=True)
            image = mean + (1 + self.contrast * contrast) * (image - mean) + self.brightness * brightness * std
        if self.gamma or self.blur or self.noise:
            image = self._degrade(image, rng)
        # astype copies: without it the result could be a view of the caller's arrays.
        return image.astype(dtype, order="C"), label.astype(label.dtype, order="C")

    def _degrade(self, image, rng):
        """Change the contrast of bright against dark, blur, and add noise, each in one image of three."""
        chosen, (power, sigma, noise) = rng.random(3) < 1 / 3, rng.uniform(0, 1, 3).tolist()
        if self.gamma and chosen[0]:
            image = np.stack([_bend(channel, (1 + self.gamma) ** (2 * power - 1)) for channel in image])
        if self.blur and chosen[1]:
            image = scipy.ndimage.gaussian_filter(image, (0, self.blur * sigma, self.blur * sigma), mode="reflect")
        if self.noise and chosen[2]:
            std = image.std(axis=(1, 2), keepdims=True)
            image = image + self.noise * noise * std * rng.standard_normal(image.shape)
        return image


def _bend(x, power):
    """Return a channel whose grey values went through a power between their least and largest; mean and deviation stay.

    A channel of one grey value stays as it is.
    """
    low, high = x.min(), x.max()
    if low == high:
        return x
    bent = ((x.astype(np.float64) - low) / (high - low)) ** power
    return (bent - bent.mean()) / bent.std() * x.std() + x.mean()


def source_points(
    shape: tuple[int, int], angle: float = 0.0, zoom: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """Return the points q(p) of the input that the output's pixels show, without the elastic part.

    Parameters
    ----------
    shape : (int, int)
        H and W.
    angle : float
        Degrees, counter-clockwise as seen with row 0 at the top.
    zoom : float
        Above 1 enlarges the content.
    shift : (float, float)
        Pixels down and to the right.

    Returns
    -------
    ndarray of float64, (2, H, W)
        Row and column, in pixels.
    """
    centre_i, centre_j = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    di = (np.arange(shape[0]) - centre_i - shift[0])[:, None] / zoom  # (H, 1)
    dj = (np.arange(shape[1]) - centre_j - shift[1])[None, :] / zoom  # (1, W)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # Rows grow downwards: turning the content by +θ as seen looks up the input at -θ.
    return np.stack([centre_i + cos * di + sin * dj, centre_j - sin * di + cos * dj])


def smooth_noise(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Draw two smooth random fields (2, H, W), with mean 0 and standard deviation 1 at every pixel.

    They are sums of Gaussians with the width `sigma`, in pixels.
    """
    rows, columns = _gaussians(shape[0], sigma), _gaussians(shape[1], sigma)
    weights = rng.standard_normal((2, rows.shape[1], columns.shape[1]))
    # Without `optimize`, einsum does not call BLAS, whose threads would compete with the loader's.
    return np.einsum("nil,jl->nij", np.einsum("ik,nkl->nil", rows, weights), columns)


def _gaussians(size, sigma):
    """Return A (size, knots): Gaussians at knots σ/2 apart, from 3σ before the first pixel to 3σ after the last."""
    knots = np.arange(-3 * sigma, size - 1 + 3.5 * sigma, sigma / 2)
    a = np.exp(-0.5 * ((np.arange(size)[:, None] - knots) / sigma) ** 2)
    return a / np.linalg.norm(a, axis=1, keepdims=True)
