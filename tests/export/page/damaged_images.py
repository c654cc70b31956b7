"""Damaged images for the page: files as tifffile, Pillow and nibabel write them, changed at random places."""

import nibabel as nib
import numpy as np
import tifffile
from PIL import Image

from tests.export.page.page_images import pixels

EXTREMES = (0, 1, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x10000)


def write_bases(folder):
    """Write an image of each kind; return their paths."""
    tiffs = {
        "plain": {}, "zlib": {"compression": "zlib", "predictor": 2, "rowsperstrip": 7}, "big": {"bigtiff": True},
        "lzw": {"compression": "lzw", "rowsperstrip": 9}, "packbits": {"compression": "packbits"},
        "tiles": {"tile": (16, 16), "compression": "lzw"}, "imagej": {"imagej": True, "truncate": True},
        "ome": {"ome": True, "metadata": {"axes": "ZYX"}}, "white": {"photometric": "miniswhite", "byteorder": ">"},
        "palette": {"photometric": "palette", "colormap": np.stack([np.arange(256)[::-1] * 257] * 3).astype(np.uint16)},
    }  # fmt: skip
    for name, options in tiffs.items():
        kind = {"photometric": "minisblack"} if name != "imagej" else {}
        tifffile.imwrite(folder / f"{name}.tif", pixels(3, 37, 53), **kind | options)
    floats = {"compression": "zlib", "predictor": 3, "photometric": "minisblack"}
    tifffile.imwrite(folder / "floats.tif", pixels(2, 37, 53, dtype=np.float32), **floats)
    tifffile.imwrite(folder / "rgb.tif", np.stack([pixels(37, 53)] * 3, -1), photometric="rgb", compression="zlib")
    for mode, x in {
        "L": pixels(37, 53),
        "I;16": pixels(37, 53, dtype=np.uint16),
        "1": pixels(37, 53, dtype=bool),
    }.items():
        Image.fromarray(x).save(folder / f"{mode.replace(';', '')}.png")
    Image.fromarray(pixels(37, 53)).convert("P").save(folder / "P.png")
    Image.fromarray(np.dstack([pixels(37, 53)] * 3)).save(folder / "RGB.png")
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    volume = nib.Nifti1Image(pixels(5, 13, 11, dtype=np.int16).T, np.diag([1, 2, 3, 1]), header)
    nib.save(volume, folder / "plain.nii")
    nib.save(volume, folder / "packed.nii.gz")
    return sorted(folder.iterdir())


def damage(content, rng):
    """Return bytes changed in one of several ways: cut, single bytes, numbers of a header, blocks moved or blanked."""
    content, n = bytearray(content), len(content)
    how = rng.integers(6)
    if how == 0:
        return bytes(content[: rng.integers(n)])
    for _ in range(rng.integers(1, 6)):
        # Headers are at the beginning or at the end.
        at = int(rng.choice([rng.integers(n), rng.integers(min(n, 600)), n - 1 - rng.integers(min(n, 600))]))
        if how == 1:
            content[at] = rng.integers(256)
        elif how == 2:
            content[at] ^= 1 << rng.integers(8)
        elif how == 3:
            size, order = int(rng.choice([2, 4, 8])), str(rng.choice(["little", "big"]))
            number = int(rng.choice(EXTREMES)) % 256**size
            content[at : at + size] = number.to_bytes(size, order)
        elif how == 4:
            to, size = rng.integers(n), rng.integers(1, 100)
            content[to : to + size] = content[at : at + size]
        else:
            content[at : at + rng.integers(1, 100)] = bytes(rng.integers(1, 100))
    return bytes(content)
