"""Which module computes an op on given arrays.

Each op has a maths file in `tinyseg/ops`, which runs on NumPy and CuPy arrays. A namesake in `tinyseg/fast/cpu` (for
NumPy arrays) or `tinyseg/fast/gpu` (for CuPy arrays) may do the same faster, with functions of the same names and
signatures. `kernels` chooses between them; `using` lets the caller choose.

The maths file computes where ``supports(*arrays)`` of the namesake is False, and where a function of the namesake
returns NotImplemented, because of its other arguments. An exception in a kernel is never caught. Everything here works
without the folder `tinyseg/fast`.
"""

import contextlib
import contextvars
import functools
import importlib
import importlib.util
import os
import sys
import types
from typing import Any, Literal

import numpy as np

from tinyseg.autograd import Setting
from tinyseg.backend.devices import cores, device_name, processor, versions, xp_of
from tinyseg.backend.half import ROUNDED_ONCE, in_float32, is_half, like_float32


@functools.cache
def fast(name: str) -> types.ModuleType | None:
    """Import the module ``tinyseg.fast.<name>``; return None if it is not there.

    Parameters
    ----------
    name : str
        Such as "cpu.conv2d" or "gpu.graphs".

    Returns
    -------
    module or None
    """
    full = f"tinyseg.fast.{name}"
    try:
        found = importlib.util.find_spec(full)
    except ModuleNotFoundError:  # the folder is not there
        return None
    return importlib.import_module(full) if found else None


threads = fast("cpu.threads")
NUMBA = "NumPy + numba"  # `kernels_in_use` where numba computes


class Config:
    """The options that `using` has set here."""

    @property
    def kernels(self) -> Literal["fast", "reference"]:
        """Which files compute: see `using`."""
        return _options.get()["kernels"]

    @property
    def winograd(self) -> bool:
        """Whether convolutions may use Winograd's method."""
        return _options.get()["winograd"]


config = Config()
_options: contextvars.ContextVar[Any] = contextvars.ContextVar(
    "options", default=types.MappingProxyType({"kernels": "fast", "winograd": True})
)


def using(**options: str | bool) -> Setting:
    """Set options for a block, ``with using(kernels="reference"): ...``, or for a decorated function.

    They are set in this thread (and asyncio task) alone. tinyseg's own threads compute with the options of those who
    called them. A thread that you start begins with the defaults; ``contextvars.copy_context().run(function)`` in it
    hands yours on, if you call `copy_context` before you start it.

    Parameters
    ----------
    kernels : {"fast", "reference"}
        Whether ops use their fast namesake where there is one, or always the maths file.
    winograd : bool
        Whether fast 3x3 convolutions may use Winograd's method: up to three times as fast, with float32 errors of
        about 1e-5 of the largest output instead of 3e-7.
    """
    allowed = {"kernels": ("fast", "reference"), "winograd": (True, False)}
    for name, value in options.items():
        if value not in allowed.get(name, ()):
            raise ValueError(f"using({name}={value!r}): known options are {allowed}.")
    return Setting(_options, lambda old: {**old, **options})


def need_fast(name: str, option: str) -> types.ModuleType:
    """Import ``tinyseg.fast.<name>``, which `option` needs. Raise a ValueError if the folder is not there."""
    module = fast(name)
    if module is None:
        raise ValueError(f"{option} needs the folder tinyseg/fast, which is not there: leave it out.")
    return module


def kernels(op: str, *arrays: Any) -> Any:
    """Return an object with the functions that compute `op` (the `__name__` of its maths file) for these arrays.

    If no namesake takes these float16 arrays, the functions work on float32 copies (`tinyseg.backend.half`).
    """
    found = _namesake(op, arrays)
    if found is not None:
        return found
    if op not in ROUNDED_ONCE and any(map(is_half, arrays)):
        wide = [like_float32(a) if is_half(a) else a for a in arrays]
        return in_float32(_namesake(op, wide) or _maths(op, wide))
    return _maths(op, arrays)


class OrMaths:
    """The functions of a fast namesake. The maths file computes where one is missing or returns NotImplemented.

    Each call of a kernel is in a with-block of what `turn` returns.
    """

    def __init__(self, namesake, op, turn=contextlib.nullcontext):
        self.namesake, self.op, self.turn = namesake, op, turn

    def __getattr__(self, name):
        if not hasattr(self.namesake, name):
            return getattr(sys.modules[self.op], name)

        def call(*args):
            with self.turn():
                found = getattr(self.namesake, name)(*args)
            if found is not NotImplemented:
                return found
            arrays = [a for a in args if hasattr(a, "dtype")]
            return getattr(in_float32(_maths(self.op, arrays)), name)(*args)

        setattr(self, name, call)  # it is found without this function from now on
        return call


_or_maths = functools.cache(OrMaths)


def _namesake(op, arrays):
    """Return the fast namesake, as `OrMaths`, or None if it does not take these arrays."""
    if _options.get()["kernels"] == "reference":
        return None
    device, tool = ("cpu", "numba") if xp_of(*arrays) is np else ("gpu", "cupy")
    module = _module_of(op, device, tool)
    if module is None or not module.supports(*arrays):
        return None
    if device == "gpu" or threads is None:
        return _or_maths(module, op)
    threads.check_fork()
    threads.check_limit()
    return _or_maths(module, op, threads.turn)


def compiles(tool):
    """Whether `tool`, "numba" or "cupy", is installed and compiles kernels.

    With NUMBA_DISABLE_JIT, which is for debuggers, numba compiles nothing. The maths computes then: it is much faster
    than kernels as plain Python, which those that work on vectors cannot be.
    """
    if importlib.util.find_spec(tool) is None:
        return False
    if tool == "numba":
        import numba

        return not numba.config.DISABLE_JIT
    return True


@functools.cache
def _module_of(op, device, tool):
    """Import the namesake of `op`, if `op` is one of tinyseg's and `tool`, which compiles the kernels, is there."""
    package, _, name = op.rpartition(".")
    if package not in ("tinyseg", "tinyseg.export", "tinyseg.ops") or not compiles(tool):
        return None
    return fast(f"{device}.{name}")


def _maths(op, arrays):
    """Return the maths file. On the CPU its functions named in BY_CHANNEL take a few channels at a time."""
    maths = sys.modules[op]
    if "BY_CHANNEL" in vars(maths) and config.kernels == "fast" and xp_of(*arrays) is np:
        blocks = fast("cpu.by_channels")
        return blocks.in_blocks(maths) if blocks else maths
    return maths


def kernels_in_use(device: str = "cpu") -> str:
    """Name the kernels that compute arrays on `device`, in a few words, for scripts to print."""
    if config.kernels == "reference":
        return "reference (maths files)"
    if fast("cpu") is None:
        return f"{'CuPy' if device == 'gpu' else 'NumPy'} (tinyseg/fast is not there)"
    if device == "gpu":
        return "CuPy + CUDA" + (", TF32" if int(os.environ.get("CUPY_TF32", "0")) > 0 else "")
    if compiles("numba"):
        return NUMBA
    why = "NUMBA_DISABLE_JIT is set" if importlib.util.find_spec("numba") else "pip install numba for faster kernels"
    return f"NumPy ({why})"


def describe_computer(device: str = "cpu") -> dict[str, str]:
    """Return what the last bits of results depend on beside the options: a dict of texts, by name.

    It holds the processor (for "gpu" the GPU), the kernels and the versions; and the number of threads where NumPy's
    matrix products may depend on it. Those of numba's kernels do not.
    """
    where, kernels = device_name(device) if device == "gpu" else processor(), kernels_in_use(device)
    threads = {} if device == "gpu" or kernels == NUMBA else {"threads": str(count_threads(device))}
    return {"processor": where, "kernels": kernels} | threads | versions()


def count_threads(device: str = "cpu") -> int:
    """Return between how many threads numba's kernels divide their work; the processor's cores for other kernels."""
    if kernels_in_use(device) == NUMBA:
        return importlib.import_module("numba").get_num_threads()
    return cores()
