"""A package of bioimage.io: a zip archive with a network, what it takes, and an example to test it with.

ilastik, deepImageJ, QuPath and other programs of microscopists read such packages. Inside are ``rdf.yaml``, the
description (JSON, which is YAML too), the network as ``weights.onnx``, a section and its probabilities for programs
(``test_input.npy``, ``test_output.npy``) and for people (``sample_input.tif``, ``sample_output.tif``), ``README.md``
and ``cover.png``.

The format states how grey values are standardized. It does not know of resampling: the package takes images whose
pixels have the size of the training's, and its description, its README and ``config.tinyseg.scale`` say what that means
for images as they are stored. The preparation of brain slices is a part of the network's graph.
"""

import datetime
import io
import json
import os
import pathlib
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
import tifffile

from tinyseg.data.brain import Preparation
from tinyseg.data.files import refuse_missing
from tinyseg.data.resample import resample, restore, scaled
from tinyseg.data.writing import FilePath, replacing
from tinyseg.export.bioimageio import rdf
from tinyseg.export.bioimageio.given import Given
from tinyseg.export.bioimageio.readme import draw_cover, write_readme
from tinyseg.export.describing import as_predictor
from tinyseg.export.network import Network, refuse_undescribed
from tinyseg.export.onnx.file import make_onnx, metadata_of
from tinyseg.export.onnx.preparation import check_preparation
from tinyseg.export.onnx.runtime import OnnxFile
from tinyseg.models import UNet
from tinyseg.prediction.predictor import Predictor
from tinyseg.prediction.tiles import check_images, mirror_to

LARGEST = 512  # rows and columns of the test section
WITHOUT_TILES = 1 << 40  # bytes: so that the section goes through the network at once, as in the package
DOS_EPOCH, DOS_END = 315532800, 4354819198  # seconds from 1970 to 1980 and to 2107: what a zip archive can say


def write_bioimageio(
    path: FilePath,
    predictor: Predictor | UNet,
    network: Network,
    image: np.ndarray,
    *,
    license: str,
    authors: Sequence[str | Mapping[str, str]],
    name: str | None = None,
    description: str | None = None,
    scores: Mapping[str, float] | None = None,
    cite: Sequence[Mapping[str, str]] = (),
    tags: Sequence[str] = (),
    pixel_size: float | tuple[float, float] | None = None,
) -> None:
    """Write a trained network as a package of bioimage.io, model description 0.5.

    Equal arguments give equal bytes: the time in the package is SOURCE_DATE_EPOCH of the environment, if it is set, and
    otherwise that of the checkpoint's file.

    Parameters
    ----------
    path : path-like
        Ends with ".zip"; its folder must exist.
    predictor : Predictor or UNet
        Of the checkpoint. What the training left in it (scores, options, data) goes into the README.
    network : Network
        Of ``describe(predictor.model)``.
    image : ndarray, shape (H, W) or (C, H, W)
        A section as it is stored, to test the package with and for the cover. Best is one that the network has not been
        trained on. Of a network that was trained with "unit" its type counts: the package takes images of this type.
    license : str
        SPDX identifier of the license under which the network is given away, such as "CC-BY-4.0".
    authors : list of str or dict
        Names, or dicts with ``name`` and any of ``affiliation``, ``email``, ``github_user`` and ``orcid``.
    name : str, optional
        5 to 128 ASCII letters, digits, spaces and ``_+-()``.
    description : str, optional
        At most 1024 characters.
    scores : dict of str to float, optional
        For the README's section "Validation". Default: those that the training left in the checkpoint.
    cite : list of dict
        With ``text`` and ``doi`` or ``url``: of the data, above all. The papers of the networks, and of the ISBI 2012
        data if the network was trained on them, are there already.
    tags : list of str
        Besides those that are known.
    pixel_size : float or (float, float), optional
        Micrometres of a row and a column of the images as they are stored.

    Raises
    ------
    ValueError
        The format cannot say how images were prepared (volumes of a brain standardized as a whole, resampled slices);
        or an argument is not what it should be.
    TypeError
        The image is no array.
    RuntimeError
        The package onnx is not there.
    OSError
        The file cannot be written.

    Warns
    -----
    UserWarning
        The license is none of the common ones, and was not checked.
    """
    path = pathlib.Path(path)
    if path.suffix != ".zip":
        raise ValueError(f"A package of bioimage.io is a file whose name ends with .zip, but it is to be {path}.")
    predictor = as_predictor(predictor)
    refuse_undescribed(network)
    _refuse_preparation(predictor.preparation)
    given = Given(license, authors, name, description, cite, tags, pixel_size)
    spec = rdf.describe_tensors(predictor, network)
    x = _test_section(predictor, image, spec)
    p = _probabilities(predictor, x)
    seconds = _seconds(predictor)
    files = {"weights.onnx": _onnx(predictor, network, spec)}
    files |= {"test_input.npy": _npy(x[None]), "test_output.npy": _npy(p[None])}
    files |= {"sample_input.tif": _tiff(x), "sample_output.tif": _tiff(p)}
    about = rdf.describe(predictor, network, given, spec, _timestamp(seconds), x.dtype, files)
    files["cover.png"] = draw_cover(x, p)
    files["README.md"] = write_readme(about, predictor, network, spec, scores).encode()
    files["rdf.yaml"] = (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode()
    with replacing(path, sum(map(len, files.values()))) as file:
        _write_zip(file, files, seconds)


def run_bioimageio(path: FilePath, image: np.ndarray) -> np.ndarray:
    """Return the probabilities that a package gives for a section or a stack, prepared as the package itself says.

    Parameters
    ----------
    path : path-like
        What `write_bioimageio` has written, or the folder into which it was unpacked.
    image : ndarray, shape (H, W), (C, H, W) or (S, C, H, W)
        As stored. It is resampled by the factors that the package's README asks for, and the probabilities back.
        Sections that are given together have one mean and deviation if the network was trained on whole stacks.

    Returns
    -------
    float32 ndarray, shape (classes, H, W) or (S, classes, H, W)

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is no package that tinyseg has written, or the network does not take such an image.
    RuntimeError
        The package onnxruntime is not there.
    """
    refuse_missing(pathlib.Path(path), "a package of bioimage.io")
    about, weights = _read_package(pathlib.Path(path))
    tensor = about["inputs"][0]
    stack = image.reshape(-1, *image.shape[-3:]) if image.ndim > 2 else image[None, None]
    size = scaled(stack.shape[2:], about["config"]["tinyseg"]["scale"])
    x = np.stack([[resample(channel, size) for channel in section] for section in stack])
    for step in tensor["preprocessing"]:
        x = _apply(step["id"], step["kwargs"], x)
    rows, columns = (n + -n % axis["size"]["step"] for n, axis in zip(size, tensor["axes"][2:], strict=True))
    x = mirror_to(x, (rows, columns))
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "weights.onnx")
        file.write_bytes(weights)
        network = OnnxFile(file)
        p = np.concatenate([network(section[None]) for section in x])[:, :, : size[0], : size[1]]
    p = np.stack([restore(np.clip(each, 0, 1), stack.shape[2:]) for each in p])
    return p if image.ndim == 4 else p[0]


def _apply(step, kwargs, x):
    """Apply a step of the preprocessing to sections (S, C, H, W), as the format defines it."""
    if step == "ensure_dtype":
        return x.astype(kwargs["dtype"])
    if step == "scale_linear":
        return x * kwargs["gain"] + kwargs["offset"]
    if step == "zero_mean_unit_variance":
        axes = tuple({"batch": 0, "channel": 1, "y": 2, "x": 3}[axis] for axis in kwargs["axes"])
        y = x.astype(np.float64)
        return (y - y.mean(axes, keepdims=True)) / (y.std(axes, keepdims=True) + kwargs.get("eps", 1e-6))
    raise ValueError(f"The package asks for the preprocessing {step!r}, which tinyseg never writes.")


def _read_package(path):
    """Return the description and the weights of a package, a zip archive or a folder."""
    try:
        if path.is_dir():
            about = json.loads((path / "rdf.yaml").read_text(encoding="utf-8"))
            return about, (path / about["weights"]["onnx"]["source"]).read_bytes()
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read("rdf.yaml"))
            return about, archive.read(about["weights"]["onnx"]["source"])
    except (zipfile.BadZipFile, KeyError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is no package that tinyseg has written, or is damaged ({error}): write it again."
        ) from error


def _refuse_preparation(preparation):
    """Raise a ValueError if a package cannot prepare images as the network needs them."""
    if not isinstance(preparation, Preparation):
        return  # a stack's mean and deviation are what the format calls those of a dataset
    try:
        check_preparation(preparation)
    except ValueError as error:
        raise ValueError(f"A package of bioimage.io cannot be made. {error}") from None


def _test_section(predictor, image, spec):
    """Return the middle of an image at the network's pixels, (C, H, W), of a size and a type that the package takes."""
    channels = predictor.model.in_channels
    expected = f"image must be a section (C, H, W) or (H, W) with C = {channels}, an array of integers or floats"
    check_images(image, (2, 3), expected)
    image = image[None] if image.ndim == 2 else image
    if len(image) != channels:
        raise ValueError(f"{expected}, but has {len(image)} channels.")
    size = scaled(image.shape[1:], spec.scale)
    x = np.stack([resample(channel, size) for channel in image])
    for axis, n in ((1, size[0]), (2, size[1])):
        wanted = max(spec.least, min(n, LARGEST) // spec.step * spec.step)
        missing = max(wanted - n, 0)
        x = np.pad(x, [(missing // 2, missing - missing // 2) if k == axis else (0, 0) for k in range(3)], "symmetric")
        start = (x.shape[axis] - wanted) // 2
        x = x.take(range(start, start + wanted), axis)
    unit = getattr(predictor.preparation, "standardize", None) == "unit"
    return np.ascontiguousarray(x.astype(rdf.stored_type(x.dtype) if unit else np.float32))


def _probabilities(predictor, x):
    """Return what tinyseg itself gives for a section at the network's pixels."""
    brain = isinstance(predictor.preparation, Preparation)
    return Predictor(predictor.model, memory=WITHOUT_TILES, scale=None if brain else 1)(x)


def _onnx(predictor, network, spec):
    return make_onnx(
        network, probabilities=True, opset=rdf.OPSET, metadata=metadata_of(predictor.model),
        preparation=predictor.preparation if spec.prepared_in_graph else None,
    )  # fmt: skip


def _npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _tiff(planes):
    file = io.BytesIO()
    tifffile.imwrite(file, planes, photometric="minisblack", metadata=None, software=False)
    return file.getvalue()


def _seconds(predictor):
    """Return the time that the package bears, in seconds since 1970."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is not None:
        if not given.isdecimal() or int(given) > DOS_END:
            raise ValueError(f"SOURCE_DATE_EPOCH must be seconds since 1970, a whole number, but is {given!r}.")
        return int(given)
    file = pathlib.Path(predictor.name)
    return int(file.stat().st_mtime if file.is_file() else time.time())


def _timestamp(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat().replace("+00:00", "Z")


def _write_zip(file, files, seconds):
    """Write files into an archive, each with this time: equal files give equal bytes on every system."""
    seconds = min(max(seconds, DOS_EPOCH), DOS_END)
    when = datetime.datetime.fromtimestamp(seconds, datetime.UTC).timetuple()[:6]
    with zipfile.ZipFile(file, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, when)
            entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
            archive.writestr(entry, files[name])
