"""Show what tinyseg runs on: versions, device, kernels and folders. It belongs into every report of a bug.

    tinyseg info
    tinyseg info > report.txt
    python -m tinyseg info               # where the command is not found

Nothing is sent anywhere.
"""

import importlib.metadata
import platform

import numpy as np

import tinyseg as ts
from tinyseg import backend
from tinyseg.commands.numbers import make_parser
from tinyseg.commands.script import run_script
from tinyseg.data.slices import default_folder

PACKAGES = (
    "numpy", "numba", "llvmlite", "scipy", "scikit-image", "tifffile", "pillow", "nibabel", "matplotlib", "safetensors",
    "imagecodecs", "cupy-cuda12x", "cupy-cuda13x",
)  # fmt: skip


def main():
    run_script(show, out_of_memory="close other programs")


def show():
    build_parser().parse_args()
    computer = backend.describe_computer("cpu")
    facts = {
        "tinyseg": ts.__version__,
        "where": ts.__path__[0],
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": platform.platform(),
        "processor": computer["processor"],
        "kernels": computer["kernels"],
        "threads": str(backend.count_threads()),
    }
    if computer["kernels"] == backend.dispatch.NUMBA:
        facts |= describe_kernels()
    facts |= {"gpu": describe_gpu(), "prepared slices": str(default_folder())}
    facts |= {name: version for name in PACKAGES if (version := find_version(name))}
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {value}")


def build_parser():
    return make_parser(__doc__)


def describe_kernels():
    """Return what is known of the kernels in numba: a dict of texts."""
    import numba

    simd, cache = (backend.fast(f"cpu.{name}") for name in ("simd", "kernel_cache"))
    ts.ops.relu(ts.Tensor(np.zeros((1, 1, 8, 8), np.float32)))  # the first kernel starts the threads
    return {
        "vectors": f"{simd.LANES} × 32 bits, {simd.REGISTERS} registers",
        "threading layer": numba.threading_layer(),
        "compiled kernels": str(cache.folder()),
    }


def describe_gpu():
    """Return the name of the GPU, or why there is none."""
    try:
        backend.parse_device("gpu")
    except RuntimeError as error:
        return f"none: {str(error).partition('but ')[2]}"
    return backend.device_name("gpu")


def find_version(package):
    """Return the version of a package, or None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
