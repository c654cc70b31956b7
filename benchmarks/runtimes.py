"""Other runtimes of the same network: an ONNX file in ONNX Runtime or OpenVINO, and the C program on one core.

What `tinyseg export` writes goes through a temporary folder. Each function here is called in a worker.
"""

import ctypes
import pathlib
import subprocess
import tempfile

import numpy as np

from benchmarks import worker


def open_network(model, x, variant):
    """Return a function that runs a network.

    Parameters
    ----------
    model : tinyseg.models.UNet
    x : ndarray of float32, (N, C, H, W)
        What it runs on; 8 bits are calibrated on it.
    variant : benchmarks.models.Variant
        Its framework is "onnxruntime", "openvino" or "c".

    Returns
    -------
    function of () -> ndarray of float32, (N, K, H, W)
    """
    from tinyseg.export.calibration import quantize
    from tinyseg.export.describing import describe
    from tinyseg.export.onnx.file import write_onnx

    network = describe(model)
    with tempfile.TemporaryDirectory() as folder:
        if variant.framework == "c":
            return _c(network, x, pathlib.Path(folder), variant.flags)
        path = pathlib.Path(folder) / "model.onnx"
        write_onnx(path, quantize(network, x) if variant.dtype == "int8" else network)
        return {"onnxruntime": _onnxruntime, "openvino": _openvino}[variant.framework](path, x)


def _onnxruntime(path, x):
    from tinyseg.export.onnx.runtime import OnnxFile

    network = OnnxFile(path, threads=worker.cores())
    return lambda: network(x)


def _openvino(path, x):
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": worker.cores()}
    network = core.compile_model(core.read_model(path), "CPU", options)
    return lambda: network(x)[0]


def _c(network, x, folder, flags):
    from tinyseg.export.c import program as c_program
    from tinyseg.export.c.weights import pack

    library = folder / "network.so"
    source = pathlib.Path(c_program.__file__).parent / "network.c"
    words = [*c_program.find_compiler(), "-O3", *flags, "-shared", "-fPIC", source, "-o", library, "-lm"]
    subprocess.run(words, check=True)
    calls = ctypes.CDLL(str(library))
    calls.network_memory.restype = ctypes.c_double
    weights, opened = np.frombuffer(pack(network), np.uint8).copy(), ctypes.create_string_buffer(256)
    if calls.network_open(opened, _address(weights), ctypes.c_size_t(weights.size)):
        raise RuntimeError("network.c does not take the weights")
    _, _, H, W = x.shape
    image, logits = x[0].transpose(1, 2, 0).copy(), np.empty((H, W, network.num_classes), np.float32)
    memory = np.empty(int(calls.network_memory(opened, H, W)) // 4, np.float32)

    def run():
        calls.network_run(opened, _address(image), _address(logits), H, W, _address(memory))
        return logits.transpose(2, 0, 1)[None]

    run.kept = weights  # `opened` has only its address
    return run


def _address(array):
    return array.ctypes.data_as(ctypes.c_void_p)
