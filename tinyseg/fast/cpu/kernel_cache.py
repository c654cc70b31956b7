"""Compiled kernels on disk: `njit` is numba's, with a cache that is never out of date and never stops a program.

A kernel contains the functions of other files that it calls, but numba compares what it has compiled with the kernel's
own file alone. It ends a program with an exception if a file of its cache is damaged, or if no folder can be written.
Here the name of a compiled kernel contains a digest of all sources in this folder, so that a kernel of other sources is
not found; each file begins with a digest of the rest, so that a damaged one is not used; and where nothing can be
written, kernels are compiled for this process alone.

A *subroutine* (`tinyseg.fast.cpu.kernels`) is compiled once for all kernels that call it. The file of a kernel
names those that it calls, and they are loaded before it.
"""

import contextlib
import functools
import hashlib
import logging
import os
import pathlib
import pickle
import sys
import time
import uuid

import numba
from numba.core.caching import FunctionCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from tinyseg.fast.cpu.kernels import Kernel, Subroutine, called_by, load

HERE = pathlib.Path(__file__).parent
BESIDE = HERE / "__pycache__"  # kernels are read from there even if none can be written there
DIGEST = 32  # bytes of a SHA-256


OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True}
SUBROUTINE = {**OPTIONS, "subroutine": True}
FAST = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}}  # sums in any order; NaN stays NaN


def njit(cache=False, subroutine=False, attribute="", **options):
    """Return numba's decorator `njit` with these options.

    With `cache`, compiled kernels are kept by `KernelCache`. With `subroutine`, the function is a `Subroutine`, to be
    found in its module under its own name, or as an attribute of what has that name.
    """

    def decorate(function):
        kernel = Subroutine(function, options, attribute) if subroutine else Kernel(function, options)
        if cache:
            kernel._cache = KernelCache(function)
        return kernel

    return decorate


class KernelCache(FunctionCache):
    """The compiled versions of one kernel, a file each; numba calls `load_overload` and `save_overload`."""

    def __init__(self, py_func):
        self._py_func, self._name = py_func, f"{py_func.__module__.rpartition('.')[2]}.{py_func.__qualname__}"
        self._cache_path = str(folder())
        self.enable()

    def _path(self, signature, codegen):
        """Return the file of a signature on this kind of processor, with these versions of Python and numba."""
        key = (signature, self._index_key(signature, codegen)[1:], numba.__version__, sys.version_info[:3])
        name = self._name.replace("<", "").replace(">", "")
        return folder() / f"{name}-{sources()[:12]}-{hashlib.sha256(repr(key).encode()).hexdigest()[:20]}.nbc"

    def holds(self, signature, target_context):
        """Whether there is a file of this signature."""
        path = self._path(signature, target_context.codegen())
        return path.exists() or (BESIDE / path.name).exists()

    def load_overload(self, sig, target_context):
        """Return the compiled kernel; None if there is no file, or only a damaged one."""
        target_context.refresh()
        path = self._path(sig, target_context.codegen())
        for place in (path, BESIDE / path.name):
            content = b""
            with contextlib.suppress(OSError):
                content = place.read_bytes()
            data = content[DIGEST:]
            if data and hashlib.sha256(data).digest() == content[:DIGEST]:
                called, kernel = pickle.loads(data)
                load(called)
                return CompileResult._rebuild(target_context, *kernel)
        return None

    def save_overload(self, sig, data):
        """Write a compiled kernel, whole or not at all. Where that is impossible, one line in the log says so."""
        if data.library.has_dynamic_globals or any(not lifted.can_cache for lifted in data.lifted):
            return
        called = called_by(data.library)
        if called is None:
            return
        path, content = self._path(sig, data.codegen), dumps((called, data._reduce()))
        unfinished = path.with_suffix(f".nbc.{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _drop_other_sources(path.parent)
            unfinished.write_bytes(hashlib.sha256(content).digest() + content)
            os.replace(unfinished, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            if not path.exists():  # on Windows one that another process has written, and has open, cannot be replaced
                _warn(path.parent, error.strerror)

    def flush(self):
        """Delete all compiled versions of this kernel; numba's `recompile` calls this."""
        for path in folder().glob(f"{self._name.replace('<', '').replace('>', '')}-*.nb*"):
            path.unlink(missing_ok=True)


@functools.cache
def folder():
    """Return the folder of the compiled kernels.

    It is the one that numba would take: in NUMBA_CACHE_DIR, `__pycache__` beside this file, or the user's cache folder,
    whichever can be written. If none can, it is `__pycache__` all the same.
    """
    try:
        return pathlib.Path(FunctionCache(njit).cache_path)
    except (RuntimeError, OSError):  # numba: "cannot cache function … no locator available"
        return BESIDE


@functools.cache
def sources():
    """Return a digest of all that may be compiled into a kernel: the sources in this folder."""
    digest = hashlib.sha256()
    for path in sorted(HERE.glob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


@functools.cache  # once in a process
def _drop_other_sources(where):
    """Delete what was compiled from other sources than these, and what a process began to write that was killed."""
    hour_ago = time.time() - 3600
    for path in where.glob("*.nb*"):
        with contextlib.suppress(OSError):  # another process deletes it at the same time, or has it open
            if f"-{sources()[:12]}-" not in path.name or (path.suffix != ".nbc" and path.stat().st_mtime < hour_ago):
                path.unlink()


@functools.cache  # once in a process
def _warn(where, why):
    logging.getLogger("tinyseg").warning(
        f"Compiled kernels cannot be kept in {where} ({why}): every program compiles them anew, which takes minutes. "
        "Set the environment variable NUMBA_CACHE_DIR to a folder that can be written."
    )
