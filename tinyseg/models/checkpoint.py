"""Checkpoints: safetensors files with the weights, the optimizer and the position in the run, to resume or to predict.

A file holds arrays named ``model.<parameter>`` and ``optimizer.<state>``, and one JSON text in its metadata:
``{"tinyseg": <format>, "model": {name and options for models.build}, …whatever the caller adds}``. Nothing is ever
unpickled. A file is written under another name, flushed to disk and then renamed, so a checkpoint is always complete.
"""

import json
import pathlib

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from tinyseg import models
from tinyseg.data.files import write_atomically

FORMAT = 1


def save(path, model, optimizer=None, **meta):
    """Write model, optimizer and `meta` to one file, atomically.

    Parameters
    ----------
    path : path-like
        Its folder must exist.
    model : Module
        Made by `models.build` (its `config` goes into the file).
    optimizer : Optimizer, optional
    **meta
        Anything that JSON can hold: preprocessing, class names, epoch, history …
    """
    if not hasattr(model, "config"):
        raise ValueError("A checkpoint stores how to build the model: make it with tinyseg.models.build(name, …).")
    arrays = {f"model.{name}": array for name, array in model.state_dict().items()}
    if optimizer is not None:
        arrays |= {f"optimizer.{name}": array for name, array in optimizer.state_dict().items()}
    arrays = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in arrays.items()}  # 0-d stays 0-d
    text = json.dumps({"tinyseg": FORMAT, "model": model.config, **meta})
    write_atomically(path, to_bytes(arrays, metadata={"tinyseg": text}))


def load(path, device="cpu"):
    """Read a checkpoint: the model with its weights, in evaluation mode.

    Parameters
    ----------
    path : path-like
    device : {"cpu", "gpu"}

    Returns
    -------
    UNet
        With the file's metadata (a dict) as its `meta` attribute.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, not a safetensors file, not tinyseg's, or made by a newer version.
    """
    arrays, meta = read(path)
    model = models.build(**meta["model"])
    model.load_state_dict(_part(arrays, "model."))
    model.meta = meta
    return model.to(device).eval()


def restore(path, model, optimizer=None):
    """Copy the state in a checkpoint into an existing model and optimizer; return the metadata."""
    arrays, meta = read(path)
    if getattr(model, "config", None) != meta["model"]:
        raise ValueError(f"{path} holds the model {meta['model']}, but this run builds {model.config}.")
    model.load_state_dict(_part(arrays, "model."))
    if optimizer is not None:
        optimizer.load_state_dict(_part(arrays, "optimizer."))
    return meta


def read(path):
    """Return (arrays by name, metadata) of a checkpoint; raises as `load` does."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint {path}.")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("tinyseg")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is not a readable checkpoint: it is truncated, damaged or not a "
            f"safetensors file ({error}). Use another checkpoint of the run, such as best.safetensors."
        ) from None
    if text is None:
        raise ValueError(f"{path} is a safetensors file, but not one of tinyseg's: it does not name a model to build.")
    meta = json.loads(text)
    if meta["tinyseg"] > FORMAT:
        raise ValueError(f"{path} was written by a newer tinyseg (format {meta['tinyseg']}). Update tinyseg.")
    return arrays, meta


def _part(arrays, prefix):
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
