"""Kernels that run in all threads: `parallel` makes one of a function that computes one part of the result.

    @parallel
    def add(block, a, b, y):            # one part: the block of that number
        for i in range(block * 4096, min(len(y), (block + 1) * 4096)):
            y[i] = a[i] + b[i]

    add(-(-len(y) // 4096), a, b, y)    # all parts: the number of blocks comes first

numba's own way is a loop over `prange` around the parts. It optimizes what is inside such a loop three times, which
takes three times as long. Here the part is a subroutine, compiled once, and the loop does nothing but call it.
"""

import inspect

from numba import prange

from tinyseg.fast.cpu.kernel_cache import OPTIONS, SUBROUTINE, njit

LOOP = {**OPTIONS, "parallel": {"prange": True, "setitem": False, "numpy": False, "reduction": False, "fusion": False}}


def parallel(part=None, **options):
    """Return the kernel ``kernel(n, …)``, which calls ``part(k, …)`` for k = 0 … n - 1, in any order and many at once.

    ``@parallel(**FAST)`` compiles the part with further options of numba's.
    """
    if part is None:
        return lambda part: parallel(part, **options)
    k, *others = inspect.signature(part).parameters
    others = ", ".join(others)
    names = {"prange": prange, "_part": njit(**SUBROUTINE, **options, attribute="part")(part)}
    exec(f"def _loop(_n, {others}):\n    for {k} in prange(_n):\n        _part({k}, {others})\n", names)
    loop = names["_loop"]
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(loop, name, getattr(part, name))
    kernel = njit(**LOOP)(loop)
    kernel.part = names["_part"]
    return kernel
