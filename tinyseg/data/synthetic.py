r"""A synthetic stack of serial-section electron microscopy, for use without data.

The tissue is a Laguerre (power) tessellation of a random packing of spheres, the usual model of foams and grains: with
centres :math:`c_i` and radii :math:`r_i`, a point :math:`q` belongs to the cell with the least power :math:`s_i = |q -
c_i|^2 - r_i^2`.  Neighbours :math:`i, j` share a plane. Within a section, which is a plane of constant z, the distance
of a pixel from the shared plane is

.. math:: d = \frac{s_j - s_i}{2\,|c_i - c_j|_{xy}}

The look of a membrane depends on the slope of its plane against the section,
:math:`t = |c_i - c_j|_z / |c_i - c_j|_{xy}`: a section has a thickness, so a steep membrane is a thin dark line
and an oblique one a wide grey smear.  Sections cut the same spheres at different z, so they change slowly, as
real ones do.  A smooth warp of space makes borders wavy and stretches some of the cells into neurites.

The unit of length is 1/256 of the side of a square field (8 nm in the ISBI-2012 stack): a larger ``size`` is the same
tissue at a finer resolution.  Grey levels, sizes and spectra were fitted to the ISBI-2012 training stack by eye and by
histogram; no pixel of it is used.
"""

import io
import math
import pathlib
from typing import NamedTuple

import numpy as np
import scipy
import tifffile

from tinyseg.data.memory import refuse_beyond_memory
from tinyseg.data.writing import FilePath, write_atomically

SECTION_STEP = 3.0  # distance between sections
BLOCK_SECTIONS = 24  # sections in a block; cells are drawn block by block, because a section needs only those near it
MARGIN = 45.0  # cells are drawn this far outside of the field
LABEL_HALF_WIDTH = 1.4  # half the width of a steep membrane in the label
MEMBRANE_HALF_WIDTH = 1.35  # half the width of a steep membrane in the image
MEMBRANE_GREY = 56.0  # grey level of a fully stained membrane
CORNER = 0.8  # the corners of cells are rounded with about this radius


def em_sections(
    num_sections: int = 30, size: int | tuple[int, int] = 256, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a stack of sections through synthetic neural tissue, with its membranes labelled.

    Parameters
    ----------
    num_sections : int
        Number of sections, S >= 1. Section k is the same for every S.
    size : int or (int, int)
        Height and width H, W in pixels, 16 or more. The field always has the area of one ISBI-2012 section
        (2 µm × 2 µm), so thickness and grain grow with ``size`` as in a resized section. At 256 a membrane
        is 3 to 5 pixels wide, below 128 it has gaps. For a small example, crop sections of 256.
    seed : int
        Seed of the random numbers, 0 or more; equal arguments give equal stacks.

    Returns
    -------
    images : ndarray of uint8, shape (S, H, W)
        Grey levels: membranes and organelles are dark.
    labels : ndarray of bool, shape (S, H, W)
        True inside of a cell (organelles included), False on membrane, which is about 22 % of the pixels.

    Examples
    --------
    >>> images, labels = em_sections(num_sections=2, size=(64, 96))
    >>> images.shape, labels.dtype
    ((2, 64, 96), dtype('bool'))
    """
    shape = tuple(size) if isinstance(size, (tuple, list, np.ndarray)) else (size, size)
    if num_sections < 1 or len(shape) != 2 or min(shape) < 16 or seed < 0:
        raise ValueError(
            "em_sections needs num_sections >= 1, size = pixels or (height, width) of at least 16, and "
            f"seed >= 0, but found num_sections={num_sections}, size={size}, seed={seed}."
        )
    what = f"{num_sections} sections of {shape[0]} × {shape[1]} pixels would take"
    needed = 2 * num_sections * math.prod(map(int, shape)) + 8 * 8 * math.prod(map(int, shape))  # and a field or eight
    refuse_beyond_memory(needed, what, "memory", "give a smaller size")
    tissue = _Tissue(*shape, seed)
    images, labels = zip(*(tissue.section(k) for k in range(num_sections)), strict=True)
    return np.stack(images), np.stack(labels)


def write_sections(
    folder: FilePath, num_sections: int = 30, size: int | tuple[int, int] = 256, seed: int = 0
) -> pathlib.Path:
    """Write a stack in the layout of the ISBI-2012 challenge.

    Parameters
    ----------
    folder : str or Path
        Gets ``train-volume.tif`` and ``train-labels.tif``, each as a whole. If both are there already, they are kept.
    num_sections, size, seed
        As for `em_sections`.

    Returns
    -------
    Path
        The folder, for `tinyseg.data.isbi.load`.
    """
    folder = pathlib.Path(folder)
    files = [folder / name for name in ("train-volume.tif", "train-labels.tif")]
    if not all(file.exists() for file in files):
        folder.mkdir(parents=True, exist_ok=True)
        images, labels = em_sections(num_sections, size, seed)
        for file, stack in zip(files, (images, np.where(labels, np.uint8(255), np.uint8(0))), strict=True):
            content = io.BytesIO()
            tifffile.imwrite(content, stack, photometric="minisblack")
            write_atomically(file, content.getvalue())
    return folder


class _Cells(NamedTuple):
    """Geometry and look of N cells."""

    centre: np.ndarray  # (N, 3) as y, x, z
    radius: np.ndarray  # (N,)
    grey: np.ndarray  # (N,) level of the cytoplasm
    mottle: np.ndarray  # (N,) strength of the granular texture
    vesicles: np.ndarray  # (N,) strength of the vesicles
    mito_centre: np.ndarray  # (N, 3)
    mito_radius: np.ndarray  # (N,) half the long axis of the mitochondrion, 0 for none
    mito_angle: np.ndarray  # (N,) direction of that axis in the section
    key: np.ndarray  # (N,) random integers; the sum of two keys names a junction


class _Waves:
    """A smooth random field of (y, x, z) with unit variance: a sum of plane waves."""

    def __init__(self, rng, wavelength, num_waves=8):
        direction = rng.normal(size=(num_waves, 3))
        direction /= np.linalg.norm(direction[:, :2], axis=1, keepdims=True) + 0.3
        self.k = 2 * np.pi * direction / (wavelength * rng.uniform(0.7, 1.4, size=(num_waves, 1)))
        self.phase = rng.uniform(0, 2 * np.pi, num_waves)

    def __call__(self, y, x, z):
        """Return the field (H, W) on the grid y (H, 1), x (1, W) at depth z: the outer product Re(e^{iky} e^{ikx})."""
        rows = np.exp(1j * (self.k[:, :1] * y.ravel() + self.k[:, 2:] * z + self.phase[:, None]))  # (K, H)
        columns = np.exp(1j * self.k[:, 1:2] * x.ravel())  # (K, W)
        return (rows.T @ columns).real * np.sqrt(2 / len(self.k))  # (H, W)


class _Tissue:
    """The cells of a field of view, and how to cut sections through them."""

    def __init__(self, height, width, seed):
        self.seed = seed
        self.unit = np.sqrt(height * width) / 256  # pixels
        self.y = (np.arange(height)[:, None] + 0.5) / self.unit
        self.x = (np.arange(width)[None, :] + 0.5) / self.unit
        self.extent = np.array([height, width]) / self.unit
        rng = np.random.default_rng([seed, 0])
        scales = (190, 20.0), (60, 3.0), (20, 1.0)  # wavelength, amplitude
        self.warp = [(_Waves(rng, length), _Waves(rng, length), amplitude) for length, amplitude in scales]
        self.patches = _Waves(rng, 35)  # where membranes fade, and where a synapse may be
        self.junction = rng.random(997)  # how strongly stained each junction is
        self.blocks = {}

    def block(self, b):
        """Return the cells of block b: spheres that do not overlap much, the largest placed first."""
        if b in self.blocks:
            return self.blocks[b]
        rng = np.random.default_rng([self.seed, 1, b + 2])
        depth = BLOCK_SECTIONS * SECTION_STEP
        low = np.array([-MARGIN, -MARGIN, b * depth])
        span = np.array([*(self.extent + 2 * MARGIN), depth])
        tries = int(2.2e-4 * span.prod())
        radius = np.sort(np.clip(7.4 * np.exp(0.74 * rng.normal(size=tries)), 3.2, 40))[::-1]
        centre = low + span * rng.random((tries, 3))
        n = 0  # spheres that fit; they are moved to the front
        for i in range(tries):
            gap = ((centre[:n] - centre[i]) ** 2).sum(1) - (0.86 * (radius[:n] + radius[i])) ** 2
            if (gap > 0).all():
                centre[n], radius[n] = centre[i], radius[i]
                n += 1
        centre, radius = centre[:n], radius[:n]
        glia = rng.random(n) < 0.1
        has_mito = rng.random(n) < np.clip((radius - 9) / 25, 0, 0.5)
        size = np.where(has_mito, np.clip(radius * rng.uniform(0.5, 0.9, n), 6, 20), 0)
        offset = rng.normal(size=(n, 3)) * (0.25 * np.maximum(radius - size, 0))[:, None]
        self.blocks[b] = _Cells(
            centre, radius,
            grey=rng.normal(154, 8, n) - 38 * glia,
            mottle=rng.gamma(4.0, 0.24, n) + 1.5 * glia,
            vesicles=(rng.random(n) < 0.6) * rng.uniform(0.3, 1.0, n),
            mito_centre=centre + offset, mito_radius=size, mito_angle=rng.uniform(0, np.pi, n),
            key=rng.integers(0, 2**30, n),
        )  # fmt: skip
        return self.blocks[b]

    def cells(self, z):
        """Return all cells that a section at depth z can cut: those of its block and of the two beside it."""
        b = int(z // (BLOCK_SECTIONS * SECTION_STEP))
        blocks = [self.block(i) for i in (b - 1, b, b + 1)]
        return _Cells(*map(np.concatenate, zip(*blocks, strict=True)))

    def section(self, k):
        """Draw section k: image (H, W) uint8 and label (H, W) bool."""
        rng = np.random.default_rng([self.seed, 2, k])
        y, x, z = self.y, self.x, k * SECTION_STEP + rng.uniform(-1, 1)
        shift = rng.normal(0, 0.9, 2)  # real sections are aligned by hand, not exactly
        wy = y + shift[0] + sum(a * w(y, x, z) for w, _, a in self.warp)
        wx = x + shift[1] + sum(a * w(y, x, z) for _, w, a in self.warp)
        points = np.stack([wy, wx, np.full_like(wy, z)], -1)  # (H, W, 3)
        cells = self.cells(z)
        cell, distance, tilt, strength = self._find_membranes(points, cells)
        patches = self.patches(y, x, z)
        synapse = (strength > 0.94) * _step(patches - 0.6, 0.2)

        label = distance > LABEL_HALF_WIDTH + 0.2 * tilt + 2.5 * synapse
        image = self._draw_cytoplasm(points, cell, cells, distance, rng)
        image = _stain(image, distance, tilt, strength, synapse, patches)
        return self._photograph(image, rng), label

    def _find_membranes(self, points, cells):
        """Return the cell, the distance to its membrane, the membrane's tilt and its strength, each (H, W)."""
        lift = np.sqrt(cells.radius.max() ** 2 - cells.radius**2)  # the power is a distance in four dimensions
        tree = scipy.spatial.cKDTree(np.column_stack([cells.centre, lift]))
        shape = points.shape[:2]
        lifted = np.concatenate([points, np.zeros((*shape, 1))], -1).reshape(-1, 4)
        root, index = tree.query(lifted, k=3)  # (H*W, 3)
        centre = cells.centre[index]
        across = centre[:, 1:] - centre[:, :1]  # (H*W, 2, 3)
        flat = np.hypot(across[..., 0], across[..., 1]) + 1e-3
        distance = (root[:, 1:] ** 2 - root[:, :1] ** 2) / (2 * flat)
        tilt = np.minimum(np.abs(across[..., 2]) / flat, 3.0)
        nearest = np.argmin(distance - 0.5 * tilt, axis=1)[:, None]
        pair = cells.key[index[:, :1]] + cells.key[np.take_along_axis(index, nearest + 1, 1)]
        strength = self.junction[pair % len(self.junction)]
        tilt = np.take_along_axis(tilt, nearest, 1)
        distance = -CORNER * np.logaddexp(*-distance.T / CORNER)  # a soft minimum rounds the corners
        return tuple(a.reshape(shape) for a in (index[:, 0], distance, tilt, strength))

    def _draw_cytoplasm(self, points, cell, cells, distance, rng):
        """Draw the inside of the cells: granular texture, vesicles and microtubules, mitochondria."""
        shape = cell.shape
        fine, coarse = (self._speckle(rng, shape, sigma) for sigma in (1.3, 3.5))
        image = cells.grey[cell] + cells.mottle[cell] * (9 * fine + 5 * coarse)
        tubules = self._bump(self._seeds(rng, shape, 0.013), 0.95)
        seeds = self._seeds(rng, shape, 0.02)
        rings = np.minimum(self._bump(seeds, 1.9) - 0.75 * self._bump(seeds, 1.0), 0.55)
        image -= 60 * np.minimum(tubules, 1.2) + 100 * cells.vesicles[cell] * rings

        across = points - cells.mito_centre[cell]  # (H, W, 3)
        angle, radius = cells.mito_angle[cell], cells.mito_radius[cell]
        along = np.cos(angle) * across[..., 1] + np.sin(angle) * across[..., 0]
        aside = np.cos(angle) * across[..., 0] - np.sin(angle) * across[..., 1]
        rho = np.sqrt(along**2 + 1.7 * aside**2 + 0.8 * across[..., 2] ** 2) / np.maximum(radius, 1e-3)
        inside = _step((1 - rho) * radius, 0.8) * _step(distance - 4, 0.8) * (radius > 0)
        cristae = np.sin(2 * np.pi * along / 4.6 + 1.5 * coarse)
        return image * (1 - inside) + inside * (80 + 17 * cristae + 8 * fine - 18 * (rho > 0.88))

    def _photograph(self, image, rng):
        """Add drift of contrast, blur and grain, and round to uint8."""
        image = (image - 120) * rng.uniform(1.02, 1.22) + 127 + rng.normal(0, 10)
        image = image + 6 * _Waves(rng, 300)(self.y, self.x, 0)
        blur = 0.5 + (rng.random() < 0.15) * rng.uniform(0.3, 0.8)
        image = scipy.ndimage.gaussian_filter(image, blur * self.unit)
        return np.clip(np.rint(image + self._grain(rng, image.shape)), 0, 255).astype(np.uint8)

    def _grain(self, rng, shape):
        """Draw noise with the power spectrum of the real sections' cytoplasm."""
        f = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
        f = np.minimum(f * self.unit, 1.0)  # cycles a unit
        power = 10 ** (3.3 - 3.2 * f + 1.2 * f**2 - 5 * np.maximum(f - 0.45, 0))
        white = np.fft.rfft2(rng.standard_normal(shape))
        return np.fft.irfft2(white * np.sqrt(power) * self.unit, s=shape)

    def _speckle(self, rng, shape, sigma):
        """Draw smooth noise of unit variance with a grain of about sigma units."""
        noise = scipy.ndimage.gaussian_filter(rng.standard_normal(shape), sigma * self.unit)
        return noise / noise.std()

    def _seeds(self, rng, shape, density):
        """Draw an image of random points; `density` is their number per square unit."""
        return (rng.random(shape) < density / self.unit**2).astype(float)

    def _bump(self, seeds, sigma):
        """Draw a Gaussian of height 1 and sigma units at each of the seeds."""
        sigma = sigma * self.unit
        return scipy.ndimage.gaussian_filter(seeds, sigma) * (2 * np.pi * sigma**2)


def _stain(image, distance, tilt, strength, synapse, patches):
    """Darken the membranes: oblique ones are wide and faint; a synapse has a dark cloud around it."""
    half = MEMBRANE_HALF_WIDTH + 0.4 * tilt
    depth = (0.75 + 0.35 * strength) / (1 + 0.35 * tilt) * np.clip(1 + 0.2 * patches, 0.2, 1.2)
    wall = np.minimum(depth * _step(half - distance, 0.35 + 0.25 * tilt), 1)
    outside = np.maximum(distance, 0)
    cloud, halo = 0.75 * synapse * np.exp(-outside / 5), 0.1 * np.exp(-outside / 3)
    stain = 1 - (1 - wall) * (1 - cloud) * (1 - halo)
    return image + stain * (MEMBRANE_GREY - image)


def _step(a, softness):
    """Return a smooth step from 0 (a << 0) to 1 (a >> 0)."""
    return 1 / (1 + np.exp(-np.clip(a / softness, -30, 30)))
