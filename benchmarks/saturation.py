"""Do integer convolutions give the same on processors of another kind? The table of docs/quantization.md.

    python -m benchmarks.claims --parts saturation --data DIR

x86 processors with AVX2 and without VNNI add products of 8 bits in pairs, in 16 bits: 2 · 255 · 127 does not fit. Here
they are emulated (qemu-user), with the trained networks of `benchmarks.quantization` and one held-out section.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np

import tinyseg as ts
from benchmarks import quantization
from tinyseg.data import standardize
from tinyseg.export.calibration import quantize
from tinyseg.export.describing import describe
from tinyseg.export.onnx.file import make_onnx, write_onnx
from tinyseg.export.onnx.runtime import OnnxFile

PROCESSORS = {"here": [], "Haswell": ["-cpu", "Haswell"]}
KERNELS = {"8 bits": 8, "7 bits": 7}
COLUMNS = dict.fromkeys(PROCESSORS, ".2f")
RUN = (
    "import sys, numpy as np, onnxruntime\n"
    "options = onnxruntime.SessionOptions()\n"
    "options.log_severity_level = 3\n"
    "session = onnxruntime.InferenceSession(sys.argv[1], options, providers=['CPUExecutionProvider'])\n"
    "np.save(sys.argv[3], session.run(None, {'image': np.load(sys.argv[2])})[0])\n"
)


def run(data):
    """Return the table: per cent of the pixels that have another class than with floats, for each processor."""
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        raise ValueError("This runs a program for other processors: install qemu-user, which has qemu-x86_64.")
    train, held_out = quantization.load_sections(data)
    _, _, path = next(quantization.train_all(data))
    rows = {title: {} for title in KERNELS}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        after, x, y = (folder / name for name in ("int8.onnx", "x.npy", "y.npy"))
        images = standardize(held_out.images)[:1, None]
        np.save(x, images)
        network = describe(ts.checkpoint.load(path))
        mask = OnnxFile("a network", content=make_onnx(network))(images) > 0
        for title, bits in KERNELS.items():
            write_onnx(after, quantize(network, standardize(train.images)[:, None], kernel_bits=bits))
            for processor, options in PROCESSORS.items():
                words = [emulator, *options] if options else []
                subprocess.run([*words, sys.executable, "-c", RUN, after, x, y], check=True, stderr=subprocess.DEVNULL)
                rows[title][processor] = 100 * float(np.mean((np.load(y) > 0) != mask))
            print(title, rows[title], flush=True)
    return {"columns": COLUMNS, "rows": rows}
