"""Devices: which array module owns an array, moving arrays between CPU and GPU, and setting the GPU up.

There is no current device. The type of an array decides: NumPy arrays are computed on the CPU, CuPy arrays on the GPU.
"""

import contextlib
import os
import platform
import sys
from types import ModuleType
from typing import Any, Literal, TypeAlias

import numpy as np

from tinyseg.autograd import Array, plain_array

Device: TypeAlias = Literal["cpu", "gpu"]

_cupy_error = None  # why CuPy is installed but cannot be loaded, e.g. because its CUDA libraries are missing
try:
    import cupy as cp
except ImportError as error:
    cp, _cupy_error = None, None if error.name == "cupy" else error


def xp_of(*arrays: Any) -> ModuleType:
    """Return the array module, `numpy` or `cupy`, that owns these arrays."""
    return cp.get_array_module(*arrays) if cp is not None else np


def parse_device(name: str) -> Device:
    """Return the device that a user asked for, if it is there.

    Parameters
    ----------
    name : {"auto", "cpu", "gpu"}
        "auto" is the GPU if CuPy and a CUDA device are there, else the CPU. "cuda" means "gpu".

    Returns
    -------
    {"cpu", "gpu"}

    Raises
    ------
    RuntimeError
        If a GPU is asked for and CuPy or the CUDA device is missing; the message says which, and what to do.
    ValueError
        If there is no device of that name.
    """
    if name not in ("auto", "cpu", "gpu", "cuda"):
        raise ValueError(f"Unknown device {name!r}: choose 'auto', 'cpu' or 'gpu'.")
    if name == "cpu":
        return "cpu"
    missing = _why_no_gpu()
    if missing is None:
        return "gpu"
    if name == "auto":
        return "cpu"
    raise RuntimeError(f"Device 'gpu' was asked for, but {missing}")


def _why_no_gpu():
    if _cupy_error is not None:
        return f"CuPy is installed but cannot be loaded ({_cupy_error}). Mend that installation, or use --device cpu."
    if cp is None:
        return (
            "CuPy is not installed. Install the build for your CUDA driver: pip install cupy-cuda12x (CUDA 12) or "
            "pip install cupy-cuda13x (CUDA 13). Or use --device cpu."
        )
    try:
        count = cp.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy raises several types for 'no driver', 'driver too old', 'no device'
        return f"CuPy {cp.__version__} finds no CUDA device ({error}). Check `nvidia-smi`, or use --device cpu."
    if count == 0:
        return f"CuPy {cp.__version__} finds no CUDA device. Check `nvidia-smi`, or use --device cpu."
    return None


def device_of(array: Any) -> Device:
    """Return "gpu" for a CuPy array, "cpu" for anything else."""
    return "cpu" if xp_of(array) is np else "gpu"


def to_device(array: Any, device: str) -> Array:
    """Return `array` on `device` ("cpu" or "gpu"); copy it only if it is on the other one."""
    if device not in ("cpu", "gpu", "cuda"):
        raise ValueError(f"Unknown device {device!r}: choose 'cpu' or 'gpu' (parse_device finds out which for 'auto').")
    if device == "cpu":
        return to_numpy(array)
    if device_of(array) == "cpu":
        parse_device("gpu")  # raises with the reason if there is none
    return cp.asarray(array)


def to_numpy(array: Any) -> np.ndarray:
    """Return `array` as a NumPy array; copy it from the GPU if it is there."""
    return plain_array(array) if xp_of(array) is np else cp.asnumpy(array)


def device_name(device: str) -> str:
    """Describe a device for reports, e.g. ``"gpu: NVIDIA H100"`` or ``"cpu: x86_64, 2 cores"``."""
    if device == "gpu":
        return f"gpu: {cp.cuda.runtime.getDeviceProperties(cp.cuda.Device().id)['name'].decode()}"
    return f"cpu: {platform.machine()}, {cores()} cores"


def cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(number: int) -> None:
    """Let numba's kernels compute in so many threads in this process, unless NUMBA_NUM_THREADS says how many."""
    if "NUMBA_NUM_THREADS" in os.environ:
        return
    with contextlib.suppress(KeyError):
        sys.modules["numba"].set_num_threads(number)  # numba has been loaded
        return
    os.environ["NUMBA_NUM_THREADS"] = str(number)


def synchronize(device: str) -> None:
    """Wait until the GPU has finished its work. On the CPU there is nothing to wait for."""
    if device == "gpu":
        cp.cuda.Device().synchronize()


def set_up_gpu(memory: float | None = None, tf32: bool = False) -> None:
    """Limit the GPU memory of this process, and let matrix products round their inputs to TF32.

    Call it before any other work on the GPU: CuPy decides on TF32 at its first product of float32 matrices.

    Parameters
    ----------
    memory : float, optional
        GiB that arrays may take, including the memory that CuPy keeps for later arrays.
    tf32 : bool
        Whether products of two float32 matrices, and with them all convolutions except the depthwise ones, may use the
        tensor cores of Ampere and later GPUs: inputs are rounded to 10 bits of mantissa (relative error 5e-4), sums
        stay float32. False changes nothing: TF32 is off, unless the environment variable CUPY_TF32 switches it on.

    Raises
    ------
    RuntimeError
        If there is no GPU.
    ValueError
        If `memory` is not positive.
    """
    parse_device("gpu")
    if memory is not None:
        if not memory > 0:
            raise ValueError(f"The GPU memory limit is in GiB and must be positive, but is {memory}.")
        cp.get_default_memory_pool().set_limit(size=int(memory * 2**30))
    if tf32:
        os.environ["CUPY_TF32"] = "1"  # the switch that CuPy documents


def versions() -> dict[str, str]:
    """Return the versions that identical bits depend on: tinyseg, Python, NumPy, and numba or CuPy where installed."""
    names = ("tinyseg", "numpy", "numba", "cupy")
    found = {name: getattr(sys.modules.get(name), "__version__", None) for name in names}
    return {"python": platform.python_version()} | {name: v for name, v in found.items() if v is not None}


def processor():
    """Return the processor's name, such as "AMD EPYC 9R45", or its architecture where it is not known.

    Of a computer with an ARM processor, Linux names the board at best: "Raspberry Pi 5 Model B Rev 1.0".
    """
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(("model name", "Model\t")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# The status of cudaErrorMemoryAllocation, CUDA_ERROR_OUT_OF_MEMORY and CUBLAS_STATUS_ALLOC_FAILED.
_OUT_OF_MEMORY = {"CUDARuntimeError": 2, "CUDADriverError": 2, "CUBLASError": 3}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that there was not enough memory, on the computer or on the GPU."""
    if isinstance(error, MemoryError):
        return True
    expected = _OUT_OF_MEMORY.get(type(error).__name__)
    return expected is not None and getattr(error, "status", None) == expected
