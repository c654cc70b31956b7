"""What --runtime asks for: tinyseg's kernels with integers of 8 bits, or onnxruntime."""

import argparse
import pathlib

import numpy as np

from tinyseg.commands.warm import compile_for
from tinyseg.export.describing import describe
from tinyseg.export.int8_file import load_int8
from tinyseg.export.onnx.file import make_onnx, metadata_of
from tinyseg.export.onnx.runtime import OnnxFile
from tinyseg.training.run import command_line

NAMES = "tinyseg", "onnx", "int8"
INT8 = "model_int8.safetensors"  # as tinyseg export names it


def runtime_name(text):
    """Return --runtime, one of `NAMES` or the path of an ONNX file."""
    if text in NAMES:
        return text
    if text.lower().endswith(".onnx"):
        return pathlib.Path(text)
    raise argparse.ArgumentTypeError(f"expected {', '.join(NAMES)}, or a file that ends in .onnx, found {text!r}")


def find_runtime_file(runtime, checkpoint):
    """Return the file that --runtime asks for, or None: the network of the checkpoint, as float.

    Integers of 8 bits lie beside the checkpoint, or in a folder ``export`` there. A FileNotFoundError says how to make
    them.
    """
    if isinstance(runtime, pathlib.Path):
        return runtime
    if runtime != "int8":
        return None
    folder = pathlib.Path(checkpoint).parent
    places = [folder / INT8, folder / "export" / INT8]
    for place in places:
        if place.is_file():
            return place
    command = command_line(["tinyseg", "export", str(checkpoint), "--out", str(places[1].parent)])
    raise FileNotFoundError(
        f"there is no {' and no '.join(map(str, places))}, which --runtime int8 runs. Make it, from some of your "
        f"images: {command} --int8 FOLDER_OF_IMAGES."
    )


def open_runtime(runtime, checkpoint, model):
    """Return what runs instead of a network, for `tinyseg.prediction.predictor.Predictor`.

    Parameters
    ----------
    runtime : {"onnx", "int8"} or Path
    checkpoint : Path
    model : UNet
        Loaded from it.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is of another network, or takes images that are not prepared.
    RuntimeError
        A package is not there.
    """
    path = find_runtime_file(runtime, checkpoint)
    if runtime == "int8":
        network = load_int8(path, describe(model), metadata_of(model)["weights"])
        empty = np.zeros((1, model.in_channels, model.multiple, model.multiple), np.float32)
        compile_for(lambda: network(empty), "cpu")
        return network
    if path is None:
        return OnnxFile(checkpoint, content=make_onnx(describe(model), metadata=metadata_of(model))).logits
    network = OnnxFile(path)
    if network.metadata.get("prepared_in_graph"):
        raise ValueError(
            f"{path} prepares images itself, and tinyseg would do it twice: give a file that was exported without "
            "--with-preprocessing."
        )
    if network.metadata.get("weights") != metadata_of(model)["weights"]:
        raise ValueError(
            f"{path} was not exported from {checkpoint}: give the checkpoint that it belongs to, or export it again."
        )
    return network.logits
