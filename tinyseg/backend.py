"""The whole device story: which array module an array uses, and which kernels compute an op on it.

Nothing else in tinyseg knows about devices. An array's own type decides: NumPy arrays are computed on the CPU,
CuPy arrays on the GPU. Each op has a maths file that runs on both; a *fast sibling* beside it
(``<op>_numba.py`` for NumPy arrays, ``<op>_cuda.py`` for CuPy arrays) exports the same names and
signatures. `kernels` picks between them, `using` switches by hand.
"""

import contextlib
import ctypes
import functools
import importlib
import importlib.util
import os
import platform
import sys

import numpy as np

from tinyseg.half import SINGLE, in_float32, is_half

_cupy_error = None  # why CuPy, though installed, cannot be loaded, e.g. for want of its CUDA libraries
try:
    import cupy as cp
except ImportError as error:
    cp, _cupy_error = None, None if error.name == "cupy" else error


class config:
    """Options that `using` sets."""

    kernels = "fast"  # "fast": the sibling where there is one; "reference": always the maths file
    winograd = True  # whether fast 3x3 convolutions may use Winograd's method (1e-5 relative error, not 3e-7)


@contextlib.contextmanager
def using(**options):
    """Set options for a block, in all threads, and put the old ones back: ``with using(kernels="reference"): ...``.

    Parameters
    ----------
    kernels : {"fast", "reference"}
        Whether ops use their fast sibling where there is one, or always the maths file.
    winograd : bool
        Whether fast 3x3 convolutions may use Winograd's method: up to three times as fast, with float32 errors of
        about 1e-5 of the largest output instead of 3e-7.
    """
    allowed = {"kernels": ("fast", "reference"), "winograd": (True, False)}
    for name, value in options.items():
        if value not in allowed.get(name, ()):
            raise ValueError(f"using({name}={value!r}): known options are {allowed}.")
    old = {name: getattr(config, name) for name in options}
    try:
        for name, value in options.items():
            setattr(config, name, value)
        yield
    finally:
        for name, value in old.items():
            setattr(config, name, value)


def xp_of(*arrays):
    """Return the array module, `numpy` or `cupy`, that owns these arrays."""
    return cp.get_array_module(*arrays) if cp is not None else np


def kernels(op, *arrays):
    """Return the module that computes `op` (the `__name__` of its maths file) for these arrays.

    The fast sibling is used where it exists, can be imported and says that it takes these arrays
    (``supports(*arrays)``, if it has that function); otherwise the maths file itself. float16 arrays that the
    sibling does not take are computed as float32 would be, from copies (`tinyseg.half`), unless the maths file says
    that it only moves or adds single numbers (``takes_half``). An exception inside a kernel is never caught.
    """
    maths = sys.modules[op]
    if config.kernels == "fast":
        sibling = _sibling(op, "numba" if xp_of(*arrays) is np else "cuda")
        if sibling is not None and getattr(sibling, "supports", _always)(*arrays):
            return sibling
    if not getattr(maths, "takes_half", False) and any(map(is_half, arrays)):
        return in_float32(kernels(op, *(_as_float32(a) if is_half(a) else a for a in arrays)))
    return maths


def _as_float32(a):
    """Something float32 of the shape of `a`, to choose kernels by: a single 0, repeated."""
    xp = xp_of(a)
    return xp.broadcast_to(xp.zeros((), SINGLE), a.shape)


@functools.cache
def _sibling(op, kind):
    """Import ``<op>_<kind>`` if the file is there and what it is compiled with (numba, CuPy) is installed."""
    tool = {"numba": "numba", "cuda": "cupy"}[kind]
    name = f"{op}_{kind}"
    if importlib.util.find_spec(tool) is None or importlib.util.find_spec(name) is None:
        return None
    return importlib.import_module(name)


def _always(*arrays):
    return True


def kernels_in_use(device="cpu"):
    """Name, in a few words, the kernels that arrays on `device` get: for the line that scripts print."""
    if config.kernels == "reference":
        return "reference (maths files)"
    if device == "gpu":
        return "CuPy + CUDA" + ", TF32" * (int(os.environ.get("CUPY_TF32", "0")) > 0)
    return "NumPy + numba" if importlib.util.find_spec("numba") else "NumPy (install tinyseg[fast] for numba kernels)"


# ----- devices ---------------------------------------------------------------
def parse_device(name):
    """Turn what a user asked for into a device that is there.

    Parameters
    ----------
    name : {"auto", "cpu", "gpu"}
        "auto" is the GPU if CuPy and a CUDA device are there, else the CPU. "cuda" is understood as "gpu".

    Returns
    -------
    {"cpu", "gpu"}

    Raises
    ------
    RuntimeError
        If a GPU is asked for and CuPy or the CUDA device is missing; the message says which, and what to do.
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
    if cp is None and _cupy_error is not None:
        return f"CuPy is installed but cannot be loaded ({_cupy_error}). Mend that installation, or use --device cpu."
    if cp is None:
        return (
            "CuPy is not installed. Install the build for your CUDA driver: pip install 'tinyseg[gpu]' "
            "(cupy-cuda12x) or pip install 'tinyseg[gpu13]' (cupy-cuda13x). Or use --device cpu."
        )
    try:
        count = cp.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy raises several types for 'no driver', 'driver too old', 'no device'
        return f"CuPy {cp.__version__} finds no CUDA device ({error}). Check `nvidia-smi`, or use --device cpu."
    if count == 0:
        return f"CuPy {cp.__version__} finds no CUDA device. Check `nvidia-smi`, or use --device cpu."
    return None


def device_of(array):
    """Return "gpu" for a CuPy array, "cpu" for anything else."""
    return "cpu" if xp_of(array) is np else "gpu"


def to_device(array, device):
    """Return `array` on `device` ("cpu" or "gpu"), copied only if it is elsewhere."""
    if device not in ("cpu", "gpu", "cuda"):
        raise ValueError(f"Unknown device {device!r}: choose 'cpu' or 'gpu' (parse_device finds out which for 'auto').")
    if device == "cpu":
        return to_numpy(array)
    if device_of(array) == "cpu":
        parse_device("gpu")  # raises with the reason if there is none
    return cp.asarray(array)


def to_numpy(array):
    """Return `array` as a NumPy array, copied from the GPU if it lives there."""
    return array if xp_of(array) is np else cp.asnumpy(array)


def device_name(device):
    """Describe a device for reports, e.g. ``"gpu: NVIDIA H100"`` or ``"cpu: x86_64, 2 cores"``."""
    if device == "gpu":
        return f"gpu: {cp.cuda.runtime.getDeviceProperties(cp.cuda.Device().id)['name'].decode()}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"cpu: {platform.machine()}, {cores} cores"


def synchronize(device):
    """Wait until the device has done what it was told; at once on the CPU."""
    if device == "gpu":
        cp.cuda.Device().synchronize()


def set_up_gpu(memory=None, tf32=False):
    """Limit the GPU memory of this process, and let matrix products round their inputs to TF32.

    Call it before anything else is done on the GPU: CuPy decides on TF32 at its first product of float32 matrices.

    Parameters
    ----------
    memory : float, optional
        GiB that arrays may take, memory that CuPy keeps for the next ones included.
    tf32 : bool
        Whether products of two float32 matrices, and so our convolutions but the depthwise ones, may use the tensor
        cores of Ampere and later: inputs are rounded to 10 bits of mantissa (relative error 5e-4), sums stay float32.
        False leaves it as it is: off, unless the environment variable CUPY_TF32 says otherwise.

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


def versions():
    """Return the versions that identical bits depend on: tinyseg, Python, NumPy, and numba or CuPy where installed."""
    names = ("tinyseg", "numpy", "numba", "cupy")
    found = {name: getattr(sys.modules.get(name), "__version__", None) for name in names}
    return {"python": platform.python_version()} | {name: v for name, v in found.items() if v is not None}


# ----- memory ------------------------------------------------------------------
# What CUDA calls cudaErrorMemoryAllocation, CUDA_ERROR_OUT_OF_MEMORY and CUBLAS_STATUS_ALLOC_FAILED.
_OUT_OF_MEMORY = {"CUDARuntimeError": 2, "CUDADriverError": 2, "CUBLASError": 3}


def is_out_of_memory(error):
    """Whether an exception says that memory did not suffice, the computer's or the GPU's."""
    expected = _OUT_OF_MEMORY.get(type(error).__name__)
    return isinstance(error, MemoryError) or (expected is not None and getattr(error, "status", None) == expected)


@functools.cache
def reuse_memory():
    """Let the C library keep the memory of freed arrays for the next ones, for the rest of the process.

    By default glibc returns every large array to the operating system and asks for it again, and each new array
    is paid for page by page. Measured on a training step of SD-UNet (256 x 256, batch 2, two cores): 1.65 s with this,
    2.75 s without; peak memory 1.4 GiB both times. Does nothing where the C library is not glibc.

    Returns
    -------
    bool
        Whether it could be arranged.
    """
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(M_TOP_PAD, 2**26))
