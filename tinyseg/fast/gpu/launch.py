"""Loading and launching our CUDA kernels: what all files of `tinyseg.fast.gpu` share.

``common.cuh`` is put before every kernel file: indices and sums over a block. Every launch goes through `launch`, which
checks what a kernel cannot check for itself: contiguous arrays, types of the arguments, sizes that an int can count.

A kernel that says ``real`` is compiled for activations of float32 and of float16; see `tinyseg.backend.half`.

A namesake says what it does not take in two places: types and sizes of its arrays in ``supports(*arrays)``, other
arguments and sizes of results at the top of the function (``return NotImplemented``). The dispatcher then takes the
maths.
"""

import functools
import math
import pathlib

import numpy as np

from tinyseg.backend import devices

LIMIT = 2**31  # kernels count elements with an int; larger arrays take the maths path
THREADS = 256  # of a block, at most; `block_sum` needs a power of two
# Elements that a block adds up: enough work for it, and enough blocks for the GPU. It is compiled into the kernels.
SLICE = 4096
OPTIONS = ("--std=c++17", f"-DSLICE={SLICE}")  # of the compiler, NVRTC
REAL = {np.dtype("float32"): "float", np.dtype("float16"): "half"}  # what `real` is in the kernels
COMMON = pathlib.Path(__file__).with_name("common.cuh")


def float32(*arrays):
    """Whether all arrays are float32, not empty, and of a number of elements that an int holds."""
    return all(a.dtype == np.float32 and 0 < a.size < LIMIT for a in arrays)


def float32_or_16(*activations):
    """Whether all arrays are float32, or all float16; not empty, and of a number of elements that an int holds."""
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
    blocks : int
        The number of blocks.
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
    if blocks > 0:  # CUDA refuses an empty grid
        kernel((blocks,), (threads,), tuple(_argument(a, k) for k, a in enumerate(args)))


def blocks_for(size, threads=THREADS):
    """Return the number of blocks in which each of `size` elements has a thread: size / threads, rounded up."""
    return -(-size // threads)


def threads_for(size):
    """Return the threads of a block for `size` tasks: a power of two, at least a warp and at most THREADS."""
    return min(THREADS, max(32, 1 << (size - 1).bit_length()))


def slices_of(P):
    """Return the number of slices of a plane of `P` elements."""
    return blocks_for(P, SLICE)


def launch_slices(kernel, planes, P, *args):
    """Start a kernel that calls `my_slice`: a block for each slice of `planes` planes. Its last argument is `P`."""
    launch(kernel, planes * slices_of(P), *args, P, threads=threads_for(min(P, SLICE) // 4))


def contiguous(*arrays, dtype=None):
    """Return the arrays in C order, and of a dtype if it is given; copied only where they are not."""
    found = tuple(devices.cp.ascontiguousarray(a, dtype=dtype) for a in arrays)
    return found if len(found) > 1 else found[0]


def floats(*arrays):
    """Return parameters or statistics as the kernels want them: float32, in C order; copied only if they are not."""
    return contiguous(*arrays, dtype=np.float32)


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
