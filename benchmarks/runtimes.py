"""How long a section takes in tinyseg, as an ONNX file in onnxruntime and OpenVINO, and as C, beside PyTorch.

    python -m benchmarks.claims --parts runtimes

A section of 256 x 256, the full width, all cores (C: one); each runtime in a process of its own, in interleaved rounds.
"""

import contextlib
import ctypes
import pathlib
import subprocess
import tempfile
import time

import numpy as np

from benchmarks import models, worker
from benchmarks.worker import WorkerError

SHAPE = (1, 1, 256, 256)
NETWORKS = {"sdunet": "SD-UNet", "unet": "U-Net"}
OTHERS = {
    "onnxruntime": {"runtime": "onnxruntime"}, "onnxruntime, 8 bits": {"runtime": "onnxruntime", "int8": True},
    "OpenVINO": {"runtime": "openvino"}, "OpenVINO, 8 bits": {"runtime": "openvino", "int8": True},
    "C, one core": {"runtime": "c"}, "C, one core, -march=native": {"runtime": "c", "options": ["-march=native"]},
}  # fmt: skip
COLUMNS = dict.fromkeys(["tinyseg", "PyTorch", *OTHERS], ".0f")


# ----- in the workers ----------------------------------------------------------------
def prepare(key, network, runtime, int8=False, options=()):
    """Put a network as an ONNX file, or as C, into this worker."""
    import tinyseg as ts
    from tinyseg.export.network import describe
    from tinyseg.export.onnx.file import write_onnx
    from tinyseg.export.onnx.int8 import write_onnx_int8

    x = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    described = describe(ts.models.build(network))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.onnx"
        if runtime == "c":
            step = _c(described, x, pathlib.Path(folder), options)
        else:
            write_onnx(path, described)
            if int8:
                write_onnx_int8(path, path, x)
            step = {"onnxruntime": _onnxruntime, "openvino": _openvino}[runtime](path, x)

    def once():
        start = time.perf_counter()
        step()
        return {"time": time.perf_counter() - start}

    worker.cases[key] = once


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


def _c(network, x, folder, options):
    from tinyseg.export.c import program as c_program
    from tinyseg.export.c.weights import pack

    library = folder / "network.so"
    source = pathlib.Path(c_program.__file__).parent / "network.c"
    words = [*c_program.find_compiler(), "-O3", *options, "-shared", "-fPIC", source, "-o", library, "-lm"]
    subprocess.run(words, check=True)
    calls = ctypes.CDLL(str(library))
    calls.network_memory.restype = ctypes.c_double
    weights, opened, (H, W) = np.frombuffer(pack(network), np.uint8).copy(), ctypes.create_string_buffer(256), SHAPE[2:]
    if calls.network_open(opened, _address(weights), ctypes.c_size_t(weights.size)):
        raise RuntimeError("network.c does not take the weights")
    image, logits = x.reshape(H, W, 1), np.empty((H, W, network.num_classes), np.float32)
    memory = np.empty(int(calls.network_memory(opened, H, W)) // 4, np.float32)
    arrays = [_address(image), _address(logits), H, W, _address(memory)]
    kept = weights, image, logits, memory  # the addresses do not keep them
    return lambda: (calls.network_run(opened, *arrays), kept)


def _address(array):
    return array.ctypes.data_as(ctypes.c_void_p)


# ----- in the parent -------------------------------------------------------------------
def run(budget=60):
    """Time all runtimes; return the table, and why one is not in it."""
    models.compile_kernels(list(NETWORKS))
    rows, left_out = {}, {}
    for network, title in NETWORKS.items():
        turns, case = {}, models.Case(network, SHAPE, 1, "inference")
        with contextlib.ExitStack() as stack:
            for variant in [models.OURS, *models.TORCH]:
                process = stack.enter_context(models.start(variant))
                models.prepare_in(process, "case", case, variant)
                turns[variant.name] = process, "case"
            for name, options in OTHERS.items():
                process = stack.enter_context(worker.Worker("tinyseg"))
                try:
                    process.call("benchmarks.runtimes:prepare", key="case", network=network, **options)
                    turns[name] = process, "case"
                except WorkerError as error:
                    left_out[name] = str(error)
            times, failed = worker.measure(turns, warm_up=3, budget=budget)
        left_out |= failed
        medians = {name: 1e3 * found["time"]["median"] for name, found in times.items()}
        torch = [medians.pop(variant.name) for variant in models.TORCH if variant.name in medians]
        rows[title] = medians | ({"PyTorch": min(torch)} if torch else {})
        print(title, rows[title], left_out, flush=True)
    return {"columns": COLUMNS, "rows": rows, "left out": left_out}
