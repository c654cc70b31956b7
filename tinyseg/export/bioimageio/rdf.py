"""The description in a package of bioimage.io, ``rdf.yaml``: https://bioimage.io/docs/#/bioimageio_model_spec.

It says 0.5.4, and covers and documentation are plain names of files: programs that were written for that version read
it, and newer ones convert it. Programs in Java take a field that is missing for an error or for another value. So there
are a nickname, an id for every axis, and an offset of 0. They also take the `scale` of an axis for the factor by which
the network enlarges an image, and divide the halo by it: the size of a pixel is not written there.
"""

import hashlib
import keyword
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyseg.data.brain import Preparation
from tinyseg.export.onnx.file import IMAGE
from tinyseg.export.onnx.runtime import PROBABILITIES

FORMAT, OPSET = "0.5.4", 17
NETWORKS = {
    "unet": "U-Net", "unet_gn": "U-Net with GroupNorm", "unet_dw_bn": "U-Net of depthwise separable convolutions",
    "unet_dw_gn": "U-Net of depthwise separable convolutions", "sdunet_bn": "SD-UNet with BatchNorm",
    "sdunet": "SD-UNet",
}  # fmt: skip
PAPERS = (
    {"text": "Gadosey et al. 2020, SD-UNet: Stripping down U-Net for Segmentation of Biomedical Images on Platforms "
     "with Low Computational Budgets", "doi": "10.3390/diagnostics10020110"},
    {"text": "Ronneberger et al. 2015, U-Net: Convolutional Networks for Biomedical Image Segmentation",
     "doi": "10.1007/978-3-319-24574-4_28"},
)  # fmt: skip
ISBI_PAPERS = (
    {"text": "Arganda-Carreras et al. 2015, Crowdsourcing the creation of image segmentation algorithms for "
     "connectomics (the ISBI 2012 challenge)", "doi": "10.3389/fnana.2015.00142"},
    {"text": "Cardona et al. 2010, An integrated micro- and macroarchitectural analysis of the Drosophila brain by "
     "computer-assisted serial section electron microscopy (the images)", "doi": "10.1371/journal.pbio.1000502"},
)  # fmt: skip
ISBI_PIXEL = 0.004, 0.004  # micrometres
FIRST_ISBI_SECTION = "06edbdd1c76ea36005f7d51a95070c438e949805"  # its fingerprint, see `tinyseg.data.Sections`


@dataclass(frozen=True)
class Tensors:
    """What goes into the network and how: sizes in its pixels.

    Height and width are `least`, or more by a multiple of `step`. `halo` pixels at the border depend on what lies
    beyond it. `scale` (rows, columns) is the size of such an image over that of the stored one.
    """

    channels: list[str]
    classes: list[str]
    least: int
    step: int
    halo: int
    scale: tuple[float, float]
    prepared_in_graph: bool


def describe_tensors(predictor, network) -> Tensors:
    """Return what a package says of the input and the output of a network."""
    modalities = predictor.modalities or []
    if len(modalities) != network.in_channels:
        modalities = ["grey"] if network.in_channels == 1 else [f"channel {k}" for k in range(network.in_channels)]
    channels, classes = _identifiers(modalities), _identifiers(predictor.classes)
    multiple = network.multiple
    if isinstance(predictor.preparation, Preparation):  # the graph takes any size; a part has another middle
        return Tensors(channels, classes, multiple, 1, 0, (1.0, 1.0), True)
    # What lies in the outer half of the receptive field hardly counts, and a halo costs computation on all sides.
    halo = -(-predictor.model.receptive_radius // 2 // multiple) * multiple
    scale = float(predictor.preparation.scale[0]), float(predictor.preparation.scale[1])
    least = 2 * halo + multiple  # bioimageio.core refuses smaller images
    return Tensors(channels, classes, least, multiple, halo, scale, False)


def describe(predictor, network, given, spec, timestamp, dtype, files) -> dict[str, Any]:
    """Return the content of ``rdf.yaml``; `dtype` is the type of the test section, `files` holds those with a hash."""
    config = predictor.model.config
    kind = NETWORKS.get(config["name"], config["name"])
    name = given.name or _default_name(kind, predictor.classes)
    meta = getattr(predictor.model, "meta", {})
    known = trained_on_isbi(meta)
    tags = ["segmentation", "semantic-segmentation", "unet", "unet2d", "2d", "tinyseg"]
    tags += ["electron-microscopy", "cell-membrane"] if known else []
    tags += ["mri", "brain"] if spec.prepared_in_graph else []
    cite = [entry | {"url": f"https://doi.org/{entry['doi']}"} for entry in (*PAPERS, *(ISBI_PAPERS if known else ()))]
    own = {"scale": list(spec.scale), "receptive_radius": predictor.model.receptive_radius}
    own |= {"classes": [printable(c) for c in predictor.classes], "foreground": predictor.foreground}
    pixel_size = given.pixel_size or (ISBI_PIXEL if known else None)
    if pixel_size:
        # YAML 1.1 reads 4e-05 as a text; lengths in nanometres are not that small.
        own["nanometres_per_pixel"] = [1e3 * n / s for n, s in zip(pixel_size, spec.scale, strict=True)]
    about_zoo = {
        "nickname": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"),
        "architecture_type": "2D U-Net",
        "task": "semantic segmentation",
        "target_structure": own["classes"],
        "model_parameter_count": sum(array.data.size for array in predictor.model.parameters()),
    }
    return {
        "type": "model",
        "format_version": FORMAT,
        "name": name,
        "description": given.description or _default_description(kind, predictor, spec),
        "version": "0.1.0",
        "timestamp": timestamp,
        "authors": given.authors,
        "license": given.license,
        "cite": cite + given.cite,
        "tags": list(dict.fromkeys([*tags, *given.tags])),
        "documentation": "README.md",
        "covers": ["cover.png"],
        "inputs": [_describe_input(predictor, spec, dtype, files)],
        "outputs": [_describe_output(spec, files)],
        "weights": {"onnx": {**_file("weights.onnx", files), "opset_version": OPSET}},
        "config": {"bioimageio": about_zoo, "tinyseg": own},
    }


def trained_on_isbi(meta) -> bool:
    """Whether the checkpoint's training has read the sections of the ISBI 2012 challenge."""
    config = meta.get("config")
    sections = config.get("sections") if isinstance(config, dict) else None
    return isinstance(sections, dict) and any(FIRST_ISBI_SECTION in (part or ()) for part in sections.values())


def stored_type(dtype) -> np.dtype:
    """Return the type that the format has for an array's type."""
    dtype = np.dtype(dtype).newbyteorder("=")
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    return np.dtype(np.float32) if dtype.kind == "f" else dtype


def printable(text: str) -> str:
    """Return a text in one line, with spaces in place of what cannot be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _describe_input(predictor, spec, dtype, files):
    size = {"min": spec.least, "step": spec.step}
    return {
        "id": IMAGE,
        "description": "Brain slices as they are stored" if spec.prepared_in_graph else "Grey values, as stored",
        "axes": [
            {"type": "batch", "id": "batch"},
            {"type": "channel", "id": "channel", "channel_names": spec.channels},
            *({"type": "space", "id": axis, "size": size} for axis in "yx"),
        ],
        "data": {"type": dtype.name},
        "test_tensor": _file("test_input.npy", files),
        "sample_tensor": _file("sample_input.tif", files),
        "preprocessing": _preprocessing(predictor.preparation, dtype),
    }


def _describe_output(spec, files):
    halo = {"halo": spec.halo} if spec.halo else {}
    return {
        "id": PROBABILITIES,
        "description": "Probability of each class",
        "axes": [
            {"type": "batch", "id": "batch"},
            {"type": "channel", "id": "channel", "channel_names": spec.classes},
            *(
                {"type": "space", "id": axis, "size": {"tensor_id": IMAGE, "axis_id": axis, "offset": 0}, **halo}
                for axis in "yx"
            ),
        ],
        "data": {"type": "float32", "range": [0.0, 1.0]},
        "test_tensor": _file("test_output.npy", files),
        "sample_tensor": _file("sample_output.tif", files),
    }


def _preprocessing(preparation, dtype):
    """Return the steps of the format that do what `preparation` does to an image of this type, but for resampling."""
    as_float = {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}
    if isinstance(preparation, Preparation):
        return [as_float]
    if preparation.standardize == "unit":
        if dtype.kind == "f":
            return [as_float]
        limits = np.iinfo(dtype)
        gain = 1 / (limits.max - limits.min)
        step = {"id": "scale_linear", "kwargs": {"gain": gain, "offset": -limits.min * gain}}
    else:
        # With "batch" among them, mean and deviation are those of all images that a program is given.
        axes = ["y", "x"] if preparation.standardize == "section" else ["batch", "channel", "y", "x"]
        step = {"id": "zero_mean_unit_variance", "kwargs": {"axes": axes}}
    return [as_float, step, as_float]


def _file(name, files):
    return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}


def _default_name(kind, classes):
    what = re.sub(r"[^A-Za-z0-9_+\- ()]+", " ", classes[0] if len(classes) == 1 else f"{len(classes)} classes")
    return f"{kind} for {what}"[:64].strip() if what.strip() else kind


def _default_description(kind, predictor, spec):
    what = " and ".join(
        filter(None, [", ".join(map(printable, predictor.classes[:-1])), printable(predictor.classes[-1])])
    )
    if spec.prepared_in_graph:
        text = f"{kind} for slices of brain MRI ({', '.join(spec.channels)}). It gives the probability of {what}."
    else:
        text = f"{kind} for grey sections. It gives the probability of {what}."
    if spec.scale != (1.0, 1.0):
        rows, columns = spec.scale
        text += f" Images must first be resized to {rows:.4g} of their height and {columns:.4g} of their width."
    return f"{text} Trained with tinyseg."[:1024]


def _identifiers(names):
    """Return names as the format wants those of channels: different Python identifiers."""
    found: list[str] = []
    for name in names:
        word = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "channel"
        word = f"_{word}" if word[0].isdigit() or keyword.iskeyword(word) else word
        count = 2
        unique = word
        while unique in found:
            unique, count = f"{word}_{count}", count + 1
        found.append(unique)
    return found
