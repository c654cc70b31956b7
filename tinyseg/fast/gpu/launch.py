"""Loading and launching our CUDA kernels: what all files of `tinyseg.fast.gpu` share.

``common.cuh`` is put before every kernel file: indices and sums over a block. Every launch goes through `launch`, which
checks what a kernel cannot check for itself: contiguous arrays, types of the arguments, sizes that an int can count.

A kernel that says ``real`` is compiled for activations of float32 and of float16; see `tinyseg.backend.half`.

A kernel declines what it does not take in one place: types and sizes of its arrays in ``supports(*arrays)``, other
arguments and sizes of results at the top of the function (``return NotImplemented``). The dispatcher then takes the
maths.
"""

import functools
import math
import pathlib

import numpy as np

from tinyseg.backend import devices

LIMIT = 2**31  # kernels count elements with an int; larger arrays take the maths path
THREADS = 256  # a block; `block_sum` needs a power of two
SLICE = 4096  # elements that a block adds up: enough work for it, and enough blocks for the GPU
OPTIONS = ("--std=c++17",)  # of the compiler, NVRTC
REAL = {np.dtype("float32"): "float", np.dtype("float16"): "half"}  # what `real` is in the kernels
COMMON = pathlib.Path(__file__).with_name("common.cuh")


def supports(*arrays):
    """Whether kernels take these arrays: float32, not empty, and of a number of elements that an int holds."""
    return all(a.dtype == np.float32 and 0 < a.size < LIMIT for a in arrays)


def supports_real(*activations):
    """Whether kernels of ``real`` arrays take these: all float32 or all float16, otherwise as `supports`."""
    dtype = activations[0].dtype
    return dtype in REAL and all(a.dtype == dtype and 0 < a.size < LIMIT for a in activations)


def fits(*shapes):
    """Whether arrays of these shapes have a number of elements that an int holds."""
    return all(math.prod(shape) < LIMIT for shape in shapes)


def load(python_file):
    """Return the kernels of the ``.cu`` file that lies beside a Python file.

    They are compiled at first use, and kept on disk by CuPy.

    Returns
    -------
    callable
        ``kernel(name, dtype="float32")``: the kernel of that name, for activations of that type.
    """
    path = pathlib.Path(python_file).with_suffix(".cu")

    @functools.cache
    def module(cp, real):
        code = COMMON.read_text(encoding="utf-8") + path.read_text(encoding="utf-8")
        return cp.RawModule(code=code, options=(*OPTIONS, f"-DREAL={real}"))

    return lambda name, dtype="float32": module(devices.cp, REAL[np.dtype(dtype)]).get_function(name)


def launch(kernel, blocks, *args, threads=THREADS):
    """Start a kernel.

    Parameters
    ----------
    kernel : cupy.RawKernel
        From `load`.
    blocks : int or tuple of int
        Of the grid, along x, y, z.
    *args
        Of the kernel: arrays of the GPU, None for a missing array, ints (C's int), floats (C's float),
        bools (C's bool) and NumPy's uint32 (C's unsigned).
    threads : int
        In a block.

    Raises
    ------
    ValueError
        If an array is not C-contiguous, or a size does not fit an int.
    """
    grid = blocks if isinstance(blocks, tuple) else (blocks,)
    if min(grid) > 0:  # CUDA refuses an empty grid
        kernel(grid, (threads,), tuple(_argument(a, k) for k, a in enumerate(args)))


def blocks_for(size, threads=THREADS):
    """Return the number of blocks in which each of `size` elements has a thread."""
    return -(-size // threads)


def cut(P):
    """Return how kernels that call ``my_slice`` go through planes of `P` elements: slices a plane, threads a block."""
    return blocks_for(P, SLICE), threads_for(min(P, SLICE) // 4)


def threads_for(size):
    """Return the threads of a block for `size` tasks: a power of two, at least a warp and at most THREADS."""
    return min(THREADS, max(32, 1 << (size - 1).bit_length()))


def contiguous(*arrays):
    """Return the arrays in C order, copied only where they are not."""
    found = tuple(devices.cp.ascontiguousarray(a) for a in arrays)
    return found if len(found) > 1 else found[0]


def floats(*arrays):
    """Return parameters or statistics as the kernels want them: float32, in C order; copied only if they are not."""
    found = tuple(devices.cp.ascontiguousarray(a, dtype=np.float32) for a in arrays)
    return found if len(found) > 1 else found[0]


def _argument(a, k):
    if a is None:
        return np.uintp(0)
    if isinstance(a, bool):
        return np.bool_(a)
    if isinstance(a, np.uint32):
        return a
    if isinstance(a, (int, np.integer)):
        if not -LIMIT <= a < LIMIT:
            raise ValueError(f"argument {k} of a kernel is {a}: it must fit an int of 32 bits.")
        return np.int32(a)
    if isinstance(a, (float, np.floating)):
        return np.float32(a)
    if not a.flags.c_contiguous:
        raise ValueError(f"argument {k} of a kernel is an array of shape {a.shape} that is not C-contiguous.")
    if a.size >= LIMIT:
        raise ValueError(f"argument {k} of a kernel has {a.size} elements; kernels count up to {LIMIT - 1}.")
    return a
