"""Streams that are captured, pools of memory and graphs, for the stand-in for CuPy (fake_cupy.py).

While a stream is captured nothing is computed: what would be launched is noted, with the addresses and the scalars that
it has then, and `Graph.launch` does it. Results that are not there yet are NaN (or -1). What CUDA or CuPy refuse during
a capture raises here too: reading results, copying from the host, products by CuPy, memory that is not the graph's own.

Memory is as in CuPy: what an array leaves in a pool the next one of that size gets, during a capture as well. Arrays
that a graph uses and that lie in no pool must live as long as it, or `launch` raises.
"""

import ctypes
import math
import weakref

import numpy as np

NOT_PERMITTED, INVALIDATED = 900, 901  # cudaErrorStreamCaptureUnsupported, cudaErrorStreamCaptureInvalidated
capture = None  # the Graph that is being captured
allocator = None  # of `using_allocator`


class CUDARuntimeError(RuntimeError):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


def forbid(what):
    """Raise if a stream is being captured, whose capture is then lost."""
    if capture is not None:
        capture.lost = True
        raise CUDARuntimeError(NOT_PERMITTED, f"operation not permitted when stream is capturing: {what}")


# ----- memory ------------------------------------------------------------------------
class MemoryPool:
    """As much of `cupy.cuda.MemoryPool` as tinyseg uses."""

    def __init__(self):
        self._blocks, self._free, self._limit = [], {}, 0

    def malloc(self, size):
        size = 512 * max(1, -(-size // 512))
        if not self._free.setdefault(size, []):
            self._blocks.append(np.empty(size, np.uint8))
            self._free[size].append(self._blocks[-1])
        return _Memory(self, self._free[size].pop())

    def set_limit(self, size):
        self._limit = size

    def get_limit(self):
        return self._limit

    def _has(self, address):
        return any(b.ctypes.data <= address < b.ctypes.data + b.size for b in self._blocks)


class _Memory:
    def __init__(self, pool, block):
        self.pool, self.block = pool, block


def _give_back(pool, block):
    if pool() is not None:
        pool()._free[block.size].append(block)


class using_allocator:
    def __init__(self, malloc):
        self.malloc = malloc

    def __enter__(self):
        global allocator
        self.before, allocator = allocator, self.malloc

    def __exit__(self, *exception):
        global allocator
        allocator = self.before


def empty(shape, dtype):
    """Fresh memory: not zeros, as it often is by chance, but NaN or -1."""
    shape, dtype = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape), np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if allocator is None and capture is not None:
        forbid("memory from outside the graph's pool")
    if allocator is None or size == 0:
        host = np.empty(shape, dtype)
    else:
        memory = allocator(size)
        buffer = (ctypes.c_char * size).from_address(memory.block.ctypes.data)
        host = np.ndarray(shape, dtype, buffer=buffer)  # its views keep it alive, and it the block
        weakref.finalize(host, _give_back, weakref.ref(memory.pool), memory.block)
    host.reshape(-1).view(np.uint8)[...] = 0xFF
    return host


def root(host):
    """The array that has the memory of a view."""
    while isinstance(host.base, np.ndarray):
        host = host.base
    return host


# ----- what is launched --------------------------------------------------------------
def compute(function, *args, **options):
    """Compute something new, or note down to do so. Arguments are arrays of the host, or lists of them."""
    with np.errstate(all="ignore" if capture is not None else None):
        result = function(*args, **options)  # during a capture only for its shape
    if isinstance(result, (list, tuple)):  # views, of `split`
        return result
    given = [a for a in _flat(args) if isinstance(a, np.ndarray)]
    if isinstance(result, np.ndarray) and any(np.may_share_memory(result, a) for a in given):
        return result
    result = np.asarray(result)
    if allocator is None and capture is None:
        return result
    made = empty(result.shape, result.dtype)
    if made.size and result.flags.f_contiguous and not result.flags.c_contiguous:
        made = made.reshape(-1).reshape(result.T.shape).T  # as it lies
    change(lambda out, *a, **o: np.copyto(out, function(*a, **o)), made, *args, **options)
    return made


def change(function, *args, **options):
    """Do something to arrays in place, or note it down."""
    if capture is None:
        function(*args, **options)
        return
    args, options = _frozen(args), {name: _frozen(value) for name, value in options.items()}
    capture.work.append(lambda: function(*_thawed(args), **{name: _thawed(value) for name, value in options.items()}))


def _flat(args):
    for a in args:
        if isinstance(a, (list, tuple)):
            yield from _flat(a)
        else:
            yield a


def _frozen(a):
    if isinstance(a, np.ndarray):
        return Frozen(a)
    return type(a)(_frozen(item) for item in a) if isinstance(a, (list, tuple)) else a


def _thawed(a):
    if isinstance(a, Frozen):
        return a.thaw()
    return type(a)(_thawed(item) for item in a) if isinstance(a, (list, tuple)) else a


class Frozen:
    """An array as a graph knows it: by its address."""

    def __init__(self, host):
        self.address, self.layout = host.ctypes.data, (host.shape, host.dtype, host.strides)
        pool = allocator.__self__ if allocator is not None else None
        mine = pool is not None and pool._has(self.address)
        self.alive = weakref.ref(pool) if mine else weakref.ref(root(host))

    def check(self):
        if self.alive() is None:
            raise AssertionError("a graph uses memory that was given back")

    def thaw(self):
        self.check()
        shape, dtype, strides = self.layout
        if 0 in shape:
            return np.empty(shape, dtype)
        low = sum(min(0, (n - 1) * s) for n, s in zip(shape, strides, strict=True))
        high = sum(max(0, (n - 1) * s) for n, s in zip(shape, strides, strict=True)) + dtype.itemsize
        buffer = (ctypes.c_char * (high - low)).from_address(self.address + low)
        return np.ndarray(shape, dtype, buffer=buffer, offset=-low, strides=strides)


class Graph:
    """As much of `cupy.cuda.Graph` as tinyseg uses."""

    def __init__(self):
        self.work, self.lost, self.launches = [], False, 0
        self.kept = []  # arrays of which only the address came in

    def launch(self, stream=None):
        forbid("launching a graph")
        self.launches += 1
        for work in self.work:
            work()

    def upload(self, stream=None):
        pass


def begin():
    global capture
    if capture is not None:
        raise CUDARuntimeError(NOT_PERMITTED, "a stream is being captured already")
    capture = Graph()


def end():
    global capture
    graph, capture = capture, None
    if graph.lost:
        raise CUDARuntimeError(INVALIDATED, "operation failed due to a previous error during capture")
    return graph
