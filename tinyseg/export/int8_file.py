"""The integers of a network with 8 bits on disk: a safetensors file beside the checkpoint that they were made from.

For each convolution but the last it holds ``<name>.kernel`` (int8), ``.scale`` (float32) and ``.bias`` (int32), and
``.x`` and ``.y``, float32 (2,), the scale and the zero point of what goes in and comes out. The norms and the last
convolution, which stay float, are the checkpoint's. The metadata hold the number of the format and the fingerprint of
the checkpoint's weights.
"""

import pathlib

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from tinyseg.backend import compare_states
from tinyseg.data.files import refuse_missing
from tinyseg.data.writing import FilePath, write_atomically
from tinyseg.export.int8 import Int8Network, IntegerConvolution, Quantizer
from tinyseg.export.network import Network

FORMAT = "1"


def save_int8(path: FilePath, network: Int8Network, weights: str) -> None:
    """Write the integers of a network, atomically.

    Parameters
    ----------
    path : path-like
        Its folder must exist.
    network : Int8Network
    weights : str
        The fingerprint of the weights that they were made from: ``metadata_of(model)["weights"]``.
    """
    arrays = {f"{name}.{key}": a for name, each in network.convolutions.items() for key, a in _arrays_of(each).items()}
    write_atomically(path, to_bytes(arrays, metadata={"tinyseg_int8": FORMAT, "weights": weights}))


def load_int8(path: FilePath, network: Network, weights: str) -> Int8Network:
    """Read the integers of a network.

    Parameters
    ----------
    path : path-like
        What `save_int8` has written.
    network : Network
        Of `tinyseg.export.describing.describe`: that of the checkpoint.
    weights : str
        The fingerprint of the checkpoint's weights.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is no such file, is damaged, of a newer version, or was made from other weights.
    """
    path = pathlib.Path(path)
    refuse_missing(path, "integers of a network, written by tinyseg export --int8")
    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as integers of a network: {error}. Export it again.") from error
    if "tinyseg_int8" not in about:
        raise ValueError(f"{path} holds no integers of a network: give what tinyseg export --int8 has written.")
    if about["tinyseg_int8"] != FORMAT:
        raise ValueError(f"{path} was written by a newer tinyseg: install that, or export the network again.")
    if about.get("weights") != weights:
        raise ValueError(
            f"{path} was not exported from these weights: give the checkpoint that it belongs to, or export it again."
        )
    *parts, _ = network.parts
    expected = {name: array for part in parts for name, array in _arrays_like(part).items()}
    problems = compare_states(expected, arrays)
    if not problems:
        odd = [name for name, a in arrays.items() if a.dtype != expected[name].dtype or not np.isfinite(a).all()]
        problems = f"{odd[0]} is of another type, or holds NaN or infinity." if odd else ""
    if problems:
        raise ValueError(f"{path} is damaged: {problems} Export it again.")
    return Int8Network(network, {part.name: _convolution_of(part, arrays) for part in parts})


def _arrays_of(convolution):
    quantizers = {"x": convolution.x, "y": convolution.y}
    found = {key: np.array([q.scale, q.zero_point], np.float32) for key, q in quantizers.items()}
    return {key: getattr(convolution, key) for key in ("kernel", "scale", "bias")} | found


def _arrays_like(part):
    """Return arrays of the shapes and types that a part has in a file."""
    K, pair = len(part.kernel), np.zeros(2, np.float32)
    arrays = {"kernel": part.kernel.astype(np.int8), "scale": np.zeros(K, np.float32), "bias": np.zeros(K, np.int32)}
    return {f"{part.name}.{key}": array for key, array in (arrays | {"x": pair, "y": pair}).items()}


def _convolution_of(part, arrays):
    kernel, scale, bias, *pairs = (arrays[f"{part.name}.{key}"] for key in ("kernel", "scale", "bias", "x", "y"))
    quantizers = [Quantizer(pair[0], int(pair[1])) for pair in pairs]
    return IntegerConvolution(kernel, scale, bias, *quantizers, part.depthwise)
