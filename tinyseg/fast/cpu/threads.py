"""Settings for the thread pools and matrix products under NumPy, made before NumPy is loaded; a user's own stay.

Nothing here matters to results, only to speed. If NumPy was imported before tinyseg, the settings come too late for
it. The numba kernels do not use NumPy's matrix products.
"""

import contextlib
import functools
import logging
import os
import platform
import sys
import threading

LAYERS = "default", "safe", "threadsafe", "forksafe", "omp", "tbb", "workqueue"  # what numba's threads can be made of
_turn, _none = threading.RLock(), contextlib.nullcontext()
_known = None  # what the threads are made of, see `_layer`
_lost = False  # whether this process was forked from one whose kernels had run, see `check_fork`


def set_environment():
    """Set the environment variables that OpenBLAS, OpenMP and numba read when they are loaded."""
    _leave_out("NUMBA_NUM_THREADS", lambda text: int(text) > 0, "no number of threads")
    _leave_out("NUMBA_THREADING_LAYER", LAYERS.__contains__, f"none of {', '.join(LAYERS)}")
    # Threads that have nothing to do wait a moment for the next loop and then sleep, instead of spinning on the cores
    # that the other pool, or another program, needs.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # OpenBLAS up to 0.3.31 does not see that AMD processors have AVX-512, and multiplies at half the speed.
    if _is_amd_with_avx512(_cpuinfo()):
        os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")


def _leave_out(name, fits, what):
    """Remove a variable that does not fit, with which numba would stop the program or print a traceback."""
    text = os.environ.get(name)
    fitting = text is None
    with contextlib.suppress(ValueError):
        fitting = fitting or fits(text)
    if not fitting:
        del os.environ[name]
        logging.getLogger("tinyseg").warning(f"{name} is {text!r}, which is {what}: it is left out.")


def _cpuinfo():
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        return file.read(1 << 14).partition("\n\n")[0]
    return ""


def _is_amd_with_avx512(cpuinfo):
    """Whether this is a Zen 5 or later (Zen 4 has the instructions, at half the width): family 26 and up."""
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in cpuinfo.splitlines())}
    needed = {"avx512f", "avx512cd", "avx512dq", "avx512bw", "avx512vl"}  # what the kernels of that name use
    return (
        platform.machine() in ("x86_64", "AMD64")  # an emulator of another processor may show this file of its host
        and fields.get("vendor_id") == "AuthenticAMD"
        and int(fields.get("cpu family", 0)) >= 26
        and needed <= set(fields.get("flags", "").split())
    )


def check_fork():
    """Raise a RuntimeError if the kernels cannot run in this process, because it was forked after they had run.

    Their threads are not in the child. GNU's OpenMP kills a child that uses them.
    """
    if _lost:
        raise RuntimeError(
            "tinyseg's numba kernels have run in the process that this one was forked from, and cannot run here: their "
            "threads are not there. Start processes by multiprocessing.get_context('spawn'), or compute inside "
            "tinyseg.using(kernels='reference')."
        )


@functools.cache  # once in a process, unless it fails
def check_limit():
    """Raise a RuntimeError if the threads of the kernels cannot be started: GNU's OpenMP would end the process."""
    import numba

    others, end = numba.config.NUMBA_NUM_THREADS - 1, threading.Event()
    started = []
    try:
        for _ in range(others):
            started.append(threading.Thread(target=end.wait, daemon=True))
            started[-1].start()
    except RuntimeError:
        raise RuntimeError(
            f"The kernels compute in {others + 1} threads, and this process can start only {len(started) - 1} more "
            "(see ulimit -u, or the limit of the container): set the environment variable NUMBA_NUM_THREADS to less."
        ) from None
    finally:
        end.set()
        for thread in started:
            with contextlib.suppress(RuntimeError):  # the last one may not have been started
                thread.join()


def turn():
    """Return a context manager for the call of a kernel.

    Where numba has neither OpenMP nor TBB, as often on a Mac, two threads that call kernels at the same time would end
    the process: they take turns. It is not known before the first kernel has run.
    """
    return _turn if _layer() in (None, "workqueue") else _none


def _layer():
    """Return what the threads of numba's kernels are made of; None as long as there are none."""
    global _known
    if _known is None and "numba" in sys.modules:
        with contextlib.suppress(ValueError):  # no kernel has run yet
            _known = sys.modules["numba"].threading_layer()
    return _known


def _note_fork():
    global _lost, _turn, _known
    _turn = threading.RLock()  # another thread, which is not there, may have held it
    _lost, _known = _layer() == "omp", None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
