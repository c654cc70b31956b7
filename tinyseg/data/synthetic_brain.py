"""Synthetic brain scans with tumours, for use without data: NIfTI files in the Decathlon's layout.

A brain is an ellipsoid with a wavy surface; outside of it every voxel is 0, as after skull stripping. Inside, a smooth
random field folds grey matter into white, and two ventricles hold fluid. A tumour is a wavy ball: a core that does not
enhance, a rim that does, and edema around both, which spreads farther in white matter than in grey. Each tissue has its
own brightness in each modality. A smooth bias field, like that of a receive coil, multiplies the image, and noise is
added. The volumes of tumours differ by a factor of ten and more, and one tumour in six has no rim.
"""

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import scipy

from tinyseg.data.brats import MODALITIES
from tinyseg.data.classes import DECATHLON
from tinyseg.data.writing import FilePath, remove_stale, write_atomically

#                 fluid  grey  white edema core  rim       (brightness, by eye from published scans)
BRIGHTNESS = {
    "FLAIR": (0.20, 0.55, 0.45, 0.85, 0.55, 0.70),
    "T1w": (0.25, 0.50, 0.70, 0.45, 0.38, 0.50),
    "T1gd": (0.25, 0.50, 0.70, 0.45, 0.35, 1.20),
    "T2w": (1.00, 0.60, 0.45, 0.85, 0.75, 0.65),
}
FLUID, GREY, WHITE, EDEMA, CORE, RIM = range(6)
LABELS = np.array([0, 0, 0, 1, 2, 3], np.uint8)  # the Decathlon's number of each tissue


def brain(
    shape: tuple[int, int, int] = (160, 160, 32), seed: int | tuple[int, ...] = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one case.

    Parameters
    ----------
    shape : (int, int, int)
        Voxels along X, Y and Z, each at least 16.
    seed : int, or tuple of int
        Equal arguments give equal cases.

    Returns
    -------
    volume : int16 ndarray, (4, X, Y, Z)
        FLAIR, T1w, T1gd, T2w; about 0 to 1200, 0 outside of the brain.
    label : uint8 ndarray, (X, Y, Z)
        0 background, 1 edema, 2 non-enhancing tumour, 3 enhancing tumour.
    """
    if len(shape) != 3 or min(shape) < 16:
        raise ValueError(f"brain needs a shape of three numbers of at least 16, but got {shape}.")
    rng = np.random.default_rng(seed)
    x, y, z = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    x, y, z = x[:, None, None], y[None, :, None], z[None, None, :]

    def waves(length):
        """Draw a smooth random field of deviation 1; `length` is in units of the half axes."""
        field = scipy.ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), [length * n / 2 for n in shape])
        return field / field.std()

    radius = np.sqrt((x / 0.66) ** 2 + (y / 0.8) ** 2 + (z / 1.15) ** 2) + 0.02 * waves(0.12)
    inside = radius < 1
    tissue = np.where(radius + 0.12 * waves(0.06) > 0.82, GREY, WHITE)
    for side in (-1, 1):
        ventricle = ((x - 0.14 * side) / 0.09) ** 2 + ((y + 0.05) / 0.3) ** 2 + (z / 0.5) ** 2 + 0.2 * waves(0.1)
        tissue[ventricle < 1] = FLUID

    size = rng.uniform(0.12, 0.36)  # of the edema
    middle = rng.uniform(-1, 1, 3) * (0.36, 0.5, 0.4)
    aspect = rng.uniform(0.8, 1.25, 3)
    away = [(axis - m) / a for axis, m, a in zip((x, y, z), middle, aspect, strict=True)]
    distance = np.sqrt(sum(d**2 for d in away)) / size + 0.12 * waves(0.1)
    tissue[(distance + 0.35 * (tissue == GREY) < 1) & (tissue != FLUID)] = EDEMA
    core = rng.uniform(0.45, 0.65)
    tissue[distance < core] = CORE
    if rng.random() > 1 / 6:
        tissue[(distance < core) & (distance > core - rng.uniform(0.15, 0.35))] = RIM

    bias = np.exp(0.12 * waves(0.7))
    volume = np.empty((4, *shape), np.int16)
    for out, name in zip(volume, MODALITIES, strict=True):
        bright = np.take(np.array(BRIGHTNESS[name], np.float32), tissue)
        bright = scipy.ndimage.gaussian_filter(bright, 0.6)  # a voxel holds several tissues
        bright = bright * bias * rng.uniform(0.85, 1.15) + rng.normal(0, 0.04, shape)
        out[...] = np.where(inside, np.clip(1000 * bright, 1, 32767), 0)
    return volume, np.where(inside, LABELS[tissue], 0).astype(np.uint8)


def write_brains(
    folder: FilePath, num_cases: int = 12, shape: tuple[int, int, int] = (160, 160, 32), seed: int = 0
) -> Path:
    """Write cases in the layout of the Medical Segmentation Decathlon.

    Parameters
    ----------
    folder : str or Path
        Gets ``dataset.json``, ``imagesTr`` and ``labelsTr``. Cases that are there already are kept.
    num_cases : int
    shape : (int, int, int)
    seed : int
        Case k is drawn with the seed ``(seed, k)`` and is the same for every `num_cases`.

    Returns
    -------
    Path
        The folder, for `tinyseg.data.brats.find_cases`.
    """
    folder, listed = Path(folder), []
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        remove_stale(folder / part)
    for k in range(num_cases):
        image, label = (folder / part / f"SYNTHETIC_{k:03}.nii.gz" for part in ("imagesTr", "labelsTr"))
        if not (image.exists() and label.exists()):
            volume, classes = brain(shape, (seed, k))
            for path, voxels in ((image, np.moveaxis(volume, 0, 3)), (label, classes)):
                content = nib.Nifti1Image(voxels, affine).to_bytes()
                write_atomically(path, gzip.compress(content, 1, mtime=0))  # the same bytes each time
        listed.append({"image": f"./imagesTr/{image.name}", "label": f"./labelsTr/{label.name}"})
    about = {
        "name": "synthetic brain tumours", "tensorImageSize": "4D",
        "modality": {str(i): name for i, name in enumerate(MODALITIES)},
        "labels": {str(i): name for i, name in enumerate(DECATHLON)},
        "numTraining": num_cases, "training": listed, "test": [],
    }  # fmt: skip
    file, text = folder / "dataset.json", json.dumps(about, indent=1)
    if not file.exists() or file.read_text(encoding="utf-8") != text:  # with all there, nothing need be written
        write_atomically(file, text)
    return folder
