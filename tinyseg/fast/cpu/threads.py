"""Settings for the thread pools and matrix products under NumPy, made before NumPy is loaded; a user's own stay.

Nothing here matters to results, only to speed. If NumPy was imported before tinyseg, the settings come too late for
it. The numba kernels do not use NumPy's matrix products.
"""

import contextlib
import os


def set_environment():
    """Set the environment variables that OpenBLAS and OpenMP read when they are loaded."""
    # Threads that have nothing to do wait a moment for the next loop and then sleep, instead of spinning on the cores
    # that the other pool, or another program, needs.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # OpenBLAS up to 0.3.31 does not see that AMD processors have AVX-512, and multiplies at half the speed.
    if _is_amd_with_avx512(_cpuinfo()):
        os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")


def _cpuinfo():
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        return file.read(1 << 14).partition("\n\n")[0]
    return ""


def _is_amd_with_avx512(cpuinfo):
    """Whether this is a Zen 5 or later (Zen 4 has the instructions, at half the width): family 26 and up."""
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in cpuinfo.splitlines())}
    needed = {"avx512f", "avx512cd", "avx512dq", "avx512bw", "avx512vl"}  # what the kernels of that name use
    return (
        fields.get("vendor_id") == "AuthenticAMD"
        and int(fields.get("cpu family", 0)) >= 26
        and needed <= set(fields.get("flags", "").split())
    )
