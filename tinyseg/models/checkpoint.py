"""Checkpoints: safetensors files with the weights, the optimizer and the position in the run, to resume or to predict.

A file holds arrays named ``model.<parameter>`` and ``optimizer.<state>``; also ``training.<parameter>``, the weights to
train on, if those of the model are a mean of such weights. Its metadata holds one JSON text:
``{"tinyseg": <format>, "model": {name and options for models.build}, …whatever the caller adds}``. Nothing is ever
unpickled. A file is written under another name, flushed to disk and then renamed, so a checkpoint is always complete.
"""

import json
import pathlib
from typing import Annotated, Any

import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from tinyseg import models
from tinyseg.backend import compare_states
from tinyseg.data.json_files import check_shape, parse_json
from tinyseg.data.writing import FilePath, write_atomically
from tinyseg.nn import Module

FORMAT = 1


class NewerError(ValueError):
    """A checkpoint was written by a newer tinyseg."""


class Format(msgspec.Struct):
    """What the metadata of every version has: the number of its format."""

    tinyseg: Annotated[int, msgspec.Meta(ge=1)]


class Model(msgspec.Struct):
    """What the metadata says of the network: its name, beside the options of `models.build`."""

    name: str


class _Metadata(Format):
    """The shape of the metadata. Whoever uses a part checks what is in it."""

    model: Model
    classes: list[str] | None = None
    preprocessing: dict[str, Any] | None = None
    postprocessing: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    training: dict[str, Any] | None = None


def save(path: FilePath, model: Module, optimizer: Any = None, average: Any = None, **meta: Any) -> None:
    """Write model, optimizer and `meta` to one file, atomically.

    Parameters
    ----------
    path : path-like
        Its folder must exist.
    model : Module
        Made by `models.build` (its `config` goes into the file).
    optimizer : Optimizer, optional
    average : WeightAverage, optional
        Its mean is saved as the model. With an optimizer, the model's own weights are saved too, to train on.
    **meta
        Anything that JSON can hold: preprocessing, class names, epoch, history …, by any name but "tinyseg".

    Raises
    ------
    ValueError
        The model was not made by `models.build`, or `meta` has the name "tinyseg".
    TypeError
        JSON cannot hold a value of `meta`.
    """
    if "tinyseg" in meta:
        raise ValueError("tinyseg is a name that the checkpoint itself uses: give what you keep another name.")
    if not hasattr(model, "config"):
        raise ValueError("A checkpoint stores how to build the model: make it with tinyseg.models.build(name, …).")
    arrays = {f"model.{name}": array for name, array in (average or model).state_dict().items()}
    if optimizer is not None and average is not None:
        arrays |= {f"training.{name}": array for name, array in model.state_dict().items()}
    if optimizer is not None:
        arrays |= {f"optimizer.{name}": array for name, array in optimizer.state_dict().items()}
    arrays = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in arrays.items()}  # 0-d stays 0-d
    for key, value in meta.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(
                f"{key} must be what JSON can hold (None, numbers, text, lists, dicts), but is not: {error}. Make "
                "NumPy's values Python's with .item() or .tolist()."
            ) from None
    text = json.dumps({"tinyseg": FORMAT, "model": model.config, **meta})
    write_atomically(path, to_bytes(arrays, metadata={"tinyseg": text}))


def load(path: FilePath, device: str = "cpu") -> models.UNet:
    """Read a checkpoint: the model with its weights, in evaluation mode.

    Parameters
    ----------
    path : path-like
    device : {"cpu", "gpu"}

    Returns
    -------
    UNet
        With the file's metadata (a dict) as its `meta` attribute. Or the class that was registered for the network.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, not a safetensors file, not tinyseg's, or made by a newer version.
    """
    arrays, meta = read(path)
    model = _build(path, meta["model"], arrays)
    _fill(path, model, _part(arrays, "model."))
    model.meta = meta
    return model.to(device).eval()


def _build(path, config, arrays):
    """Build the network that a checkpoint describes, unless it would have more weights than the file holds."""
    stored = sum(a.size for name, a in arrays.items() if name.startswith("model."))
    limits = dict.fromkeys(("in_channels", "num_classes", "width", "stem_layers", "bottleneck_layers"), stored)
    for name, limit in (limits | {"levels": stored.bit_length()}).items():
        size = config.get(name, 1)
        if isinstance(size, int | float) and not 1 <= size <= limit:
            raise ValueError(
                f"{path} is damaged: it describes a network with {name}={size!r}, and has {stored} weights."
            )
    try:
        needed = models.fewest_weights(**config)
        if needed is not None and needed > 4 * stored:  # of fewer, `_fill` says what differs
            raise ValueError(f"it would have {needed} weights, and the file has {stored}")
        return models.build(**config)
    except Exception as error:  # options of any type are handed to a network of any class
        raise ValueError(f"{path} describes a network that cannot be built: {error or type(error).__name__}") from error


def _fill(path, owner, state):
    """Load the state of a model or an optimizer; the error for one that does not fit names the file."""
    for name, array in owner.state_dict().items():
        found = state.get(name, array).dtype
        if found.kind != array.dtype.kind:
            raise ValueError(f"{path} is damaged: {name} is {found}, and should be {array.dtype}.")
    try:
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinity, which `Predictor` refuses
            owner.load_state_dict(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def restore(path: FilePath, model: Module, optimizer: Any = None, average: Any = None) -> dict[str, Any]:
    """Copy the state in a checkpoint into an existing model, optimizer and mean, to train on; return the metadata.

    Besides what `read` refuses, it is a ValueError if the state does not fit, or is not finite.
    """
    arrays, meta = read(path)
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{path} is damaged: {name} holds NaN or infinity, so the training cannot go on from it.")
    _refuse_other(path, meta, model)
    if average is not None:
        _fill(path, average, _part(arrays, "model."))
    _fill(path, model, _part(arrays, "model." if average is None else "training."))
    if optimizer is not None:
        state = _part(arrays, "optimizer.")
        if not state:
            raise ValueError(
                f"{path} holds weights and no state of an optimizer, so the training cannot go on from it: give the "
                "latest checkpoint of the run (checkpoint.safetensors), and not a copy of its best.safetensors."
            )
        _fill(path, optimizer, state)
    return meta


def check(path: FilePath, model: Module) -> dict[str, Any]:
    """Return the metadata of a checkpoint that `restore` could read into a model, and leave the model as it is.

    It raises as `read`, and a ValueError if the file holds another model, or other arrays than the model has.
    """
    arrays, meta = read(path)
    _refuse_other(path, meta, model)
    problems = compare_states(model.state_dict(), _part(arrays, "model."))
    if problems:
        raise ValueError(f"{path} is damaged: {problems}")
    return meta


def _refuse_other(path, meta, model):
    """Raise a ValueError if the metadata describes another model."""
    mine = getattr(model, "config", None)
    if mine != meta["model"]:
        raise ValueError(f"{path} holds the model {meta['model']}, but this run builds {mine}.")


def read(path: FilePath) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return (arrays by name, metadata) of a checkpoint; raises as `load` does."""
    path = pathlib.Path(path)
    if not path.is_file():
        inside = [path / name for name in ("best.safetensors", "checkpoint.safetensors") if (path / name).is_file()]
        hint = f"give {' or '.join(map(str, inside))}" if inside else "give a file that ends in .safetensors"
        folder = f" {path.absolute()} is a folder: {hint}." if path.is_dir() else ""
        raise FileNotFoundError(f"There is no checkpoint {path}.{folder}")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("tinyseg")
            arrays = {name: _array(path, file, name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is not a readable checkpoint: it is truncated, damaged or not a "
            f"safetensors file ({error}). Copy it again from where it came, or use another checkpoint."
        ) from None
    if text is None:
        raise ValueError(f"{path} is a safetensors file, but not one of tinyseg's: it does not name a model to build.")
    what = "a checkpoint of tinyseg, by its metadata"
    meta = parse_json(text, dict[str, Any], path, what)
    found = check_shape(meta, Format, f"{path} is not {what}").tinyseg
    if found > FORMAT:
        raise NewerError(f"{path} was written by a newer tinyseg (format {found}). Update tinyseg.")
    check_shape(meta, _Metadata, f"{path} is not {what}")
    return arrays, meta


def _array(path, file, name):
    """Return an array of an open safetensors file; one that NumPy cannot hold is a ValueError."""
    try:
        array = file.get_tensor(name)
        if array.dtype.kind not in "biufc":  # a type that another package, such as onnx, has taught NumPy
            raise TypeError(f"{array.dtype} is none of its own")
    except (TypeError, AttributeError, ValueError) as error:  # it has no such type, or not as many axes
        stored = file.get_slice(name)
        raise ValueError(
            f"{path}: {name} is stored as {stored.get_dtype()} with {len(stored.get_shape())} axes, which NumPy does "
            f"not have ({error}). Expected an array of float32: convert it."
        ) from None
    return array


def _part(arrays, prefix):
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
