"""Whether files are whole, and whether two folders hold the same results."""

import csv
import gzip
import json

import nibabel as nib
import numpy as np
import tifffile
from PIL import Image
from safetensors import safe_open

# What measures time differs between two runs of one command, and so does what is drawn from it.
VARIES = ("seconds_per_step", "measured")
ASIDE = ("curves.png", "predictions.png", "sources.json")


def read(path, folder=None):
    """Return the content of a file in a form that can be compared; an exception if the file is not whole.

    The name of `folder` in a text becomes ".", so that what was made in two folders can be compared.
    """
    name = path.name

    def load(text):
        return _steady(json.loads(text.replace(str(folder), ".") if folder else text))

    if name.endswith(".safetensors"):
        with safe_open(path, "numpy") as file:
            meta = load(file.metadata()["tinyseg"])
            return {key: file.get_tensor(key).tobytes() for key in file.keys()} | {"": meta}  # noqa: SIM118
    if name.endswith(".json"):
        return load(path.read_text())
    if name.endswith(".csv"):
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows or any(None in row or None in row.values() for row in rows):
            raise ValueError("a row is not whole")
        return [_steady(row) for row in rows]
    if name.endswith(".png"):
        with Image.open(path) as image:
            return np.asarray(image).tobytes()
    if name.endswith((".tif", ".tiff")):
        return tifffile.imread(path).tobytes()
    if name.endswith((".nii", ".nii.gz")):
        image = nib.load(path)
        content = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
        np.asarray(image.dataobj)
        return content
    if name.endswith(".npy"):
        return np.load(path).tobytes()
    content = path.read_bytes()
    return content.replace(str(folder).encode(), b".") if folder else content


def _steady(content):
    """Return JSON without what varies between two runs."""
    if isinstance(content, dict):
        return {key: _steady(value) for key, value in content.items() if key not in VARIES}
    if isinstance(content, list):
        return [_steady(value) for value in content]
    return content


def is_temporary(path):
    """Whether a file, or a folder that it is in, has the name of one that is still being written."""
    inside = any(part.startswith(".download-") for part in path.parts)
    return inside or path.name.endswith((".tmp", ".lock")) or path.name.startswith("tmp")


def files_of(folder):
    """Return the files and the empty folders in a folder, however deep, as a dict by name."""
    found = sorted(path for path in folder.rglob("*") if not path.is_dir() or not any(path.iterdir()))
    return {str(path.relative_to(folder)): path for path in found}


def broken(folder):
    """Return a sentence for each file of a final name that is not whole."""
    found = []
    for name, path in files_of(folder).items():
        if path.is_file() and not is_temporary(path) and not name.endswith((".part", ".part.version")):
            try:
                read(path)
            except Exception as error:
                found.append(f"{name} is not whole ({type(error).__name__}: {error})")
    return found


def differences(expected, folder, aside=()):
    """Return a sentence for each file in which two folders differ; the content of those named `aside` may."""
    one, two = files_of(expected), files_of(folder)
    found = [f"{name} is missing" for name in one.keys() - two.keys()]
    found += [f"{name} stayed behind" for name in two.keys() - one.keys()]
    for name in sorted(one.keys() & two.keys()):
        if one[name].name in (*ASIDE, *aside) or one[name].is_dir():
            continue
        try:
            if read(one[name], expected) != read(two[name], folder):
                found.append(f"{name} is not what an undisturbed command writes")
        except Exception as error:
            found.append(f"{name} is not whole ({type(error).__name__}: {error})")
    return found
