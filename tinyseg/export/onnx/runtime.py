"""Running an ONNX file in onnxruntime, on the CPU."""

import json
import pathlib
from typing import Any

import numpy as np

from tinyseg.data.files import refuse_missing
from tinyseg.data.writing import FilePath
from tinyseg.export.onnx.packages import load_package

PROBABILITIES = "probabilities"  # name of the output of a file that gives them
EPSILON = np.float32(2**-25)  # where a probability is 1 in float32
ERRORS_ONLY = 3  # onnxruntime's number of how much it prints


class OnnxFile:
    """A network in an ONNX file: call it with images.

    Parameters
    ----------
    path : path-like
        What `write_onnx` has written, or another network with one input and one output.
    threads : int, optional
        Default: what onnxruntime takes, one for each core.
    content : bytes, optional
        The file's content if it is not to be read; `path` then only names it in sentences.

    Attributes
    ----------
    path : Path
    output : str
        Name of what it gives, "logits" or "probabilities".
    metadata : dict
        What the file keeps as ``tinyseg.<name>``, see `tinyseg.export.onnx.file`.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is not there, is no ONNX file, or onnxruntime cannot run it; the sentence names it.
    RuntimeError
        The package onnxruntime is not there.
    """

    def __init__(self, path: FilePath, threads: int | None = None, content: bytes | None = None) -> None:
        onnxruntime = load_package("onnxruntime", "An ONNX file is run")
        self.path = path = pathlib.Path(path)
        if content is None:
            refuse_missing(path, "an ONNX file")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.intra_op_num_threads = threads or 0
        try:
            self._session = onnxruntime.InferenceSession(
                content or str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions have no class in common but this
            raise ValueError(f"{path} cannot be run by onnxruntime: {_first_line(error)}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) != 4:
            raise ValueError(
                f"{path} has {len(inputs)} inputs and {len(outputs)} outputs: expected one of each, for "
                "images (N, C, H, W)."
            )
        self._input, self.output = inputs[0], outputs[0].name
        kept = self._session.get_modelmeta().custom_metadata_map
        prefix = "tinyseg."
        self.metadata: dict[str, Any] = {
            name.removeprefix(prefix): json.loads(text) for name, text in kept.items() if name.startswith(prefix)
        }

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return what the network gives for images, float32 (N, C, H, W): float32 (N, classes, H, W).

        Raises
        ------
        ValueError
            The network does not take such images.
        """
        images = np.ascontiguousarray(images, np.float32)
        channels = self._input.shape[1]
        if images.ndim != 4 or (isinstance(channels, int) and images.shape[1] != channels):
            raise ValueError(f"{self.path} takes images (N, {channels}, H, W), but found {images.shape}.")
        size = [self._input.shape[axis] for axis in (2, 3)]
        if all(isinstance(n, int) for n in size) and list(images.shape[2:]) != size:
            raise ValueError(
                f"{self.path} was exported with --size {size[0]} {size[1]}, and takes images of this size alone, but "
                f"found {images.shape[2]} x {images.shape[3]}: export it without --size."
            )
        try:
            return self._session.run(None, {self._input.name: images})[0]
        except Exception as error:
            multiple = self.metadata.get("multiple", 1)
            raise ValueError(
                f"{self.path} could not be run on images {images.shape}, where height and width must be multiples of "
                f"{multiple}: {_first_line(error)}"
            ) from error

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return logits, also of a file that gives probabilities: what `tinyseg.prediction.predict` takes."""
        y = self(images)
        if self.output != PROBABILITIES:
            return y
        y = np.maximum(y, np.finfo(np.float32).tiny)
        return np.log(y) - np.log(np.maximum(1 - y, EPSILON)) if y.shape[1] == 1 else np.log(y)


def run_onnx(path: FilePath, images: np.ndarray, threads: int | None = None) -> np.ndarray:
    """Run an ONNX file once on images, float32 (N, C, H, W): the logits or probabilities, float32 (N, classes, H, W).

    Parameters and errors are those of `OnnxFile`.
    """
    return OnnxFile(path, threads)(images)


def _first_line(error):
    return str(error).splitlines()[0] if str(error) else type(error).__name__
