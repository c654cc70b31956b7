"""Compile kernels before they are needed, in several processes.

A run is rehearsed first (`tinyseg.fast.cpu.kernels.noting`): the kernels are noted in the order in which it calls them,
and none of them computes. This process then compiles in that order, and others from the end: they meet in the middle,
since what one of them has compiled the next one finds on disk.
"""

import contextlib
import os
import pathlib
import pickle
import subprocess
import sys
import threading
import time

from tinyseg.backend.devices import cores
from tinyseg.fast.cpu.kernel_cache import folder, sources
from tinyseg.fast.cpu.kernels import load

MOST = 3  # other processes; each needs about a quarter of a GiB
STALE = 300  # seconds after which a claim is one of a process that was killed


def missing(calls):
    """Return those of the calls (kernel, types of the arguments) whose kernels are not on disk."""
    return [call for call in calls if not call[0]._cache.holds(call[1], call[0].targetctx)]


def compile_calls(calls, processes=None):
    """Compile kernels for calls; yields each of them before it is compiled here.

    Parameters
    ----------
    calls : list of (Kernel, tuple of numba types)
    processes : int, optional
        How many may compile at once, this one included; by default as many as there are cores, and at most MOST + 1.
        There is one where the kernels cannot be kept, or another command has started such processes.
    """
    others = min(cores() - 1, MOST) if processes is None else processes - 1
    with _helped_by(others, calls[::-1]):
        for kernel, types in calls:
            yield kernel
            kernel.compile(types)


@contextlib.contextmanager
def _helped_by(others, calls):
    """Start processes that share the calls. They end when this process leaves the block, or itself ends."""
    started = []
    with _claim() as claimed:
        # Not every Python program runs as "python": inside another program this would start that one again.
        if claimed and pathlib.Path(sys.executable or "").name.startswith("python"):
            root = str(pathlib.Path(__file__).parents[3])
            path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
            names = [(k.py_func.__module__, k.py_func.__qualname__, types) for k, types in calls]
            with contextlib.suppress(OSError):  # no memory, or no more processes: this one does it alone
                for j in range(min(others, len(calls) - 1)):
                    helper = subprocess.Popen(
                        [sys.executable, "-c", f"from {__name__} import help_out; help_out()"], stdin=subprocess.PIPE,
                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": path},
                    )  # fmt: skip
                    started.append(helper)
                    pickle.dump(names[j::others], helper.stdin)
                    helper.stdin.flush()
        try:
            yield
        finally:
            for helper in started:
                with contextlib.suppress(OSError):
                    helper.stdin.close()
            for helper in started:
                helper.wait()  # for the kernel that it compiles at this moment


@contextlib.contextmanager
def _claim():
    """Yield whether this is the only process that compiles with others into the folder of the kernels."""
    path = folder() / f"compiling-{sources()[:12]}"
    try:
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - STALE:
                path.unlink()
        folder().mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)
    except OSError:  # it is there, or nothing can be written
        yield False
        return
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)


def help_out():
    """Compile the calls that another process writes to the standard input, until that is closed."""
    calls = pickle.load(sys.stdin.buffer)
    left = threading.Event()
    threading.Thread(target=lambda: (os.read(0, 1), left.set()), daemon=True).start()
    for call in calls:
        if left.is_set():
            break
        load([call])
