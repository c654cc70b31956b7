"""Streams that are captured, pools of memory and graphs, for the stand-in for CuPy (fake_cupy.py).

While a stream is captured nothing is computed: what would be launched is noted, with the addresses and the scalars that
it has then, and `Graph.launch` does it. Results that are not there yet are NaN (or -1). What CUDA or CuPy refuse during
a capture raises here too: reading results, copying from the host, products by CuPy, memory that is not the graph's own.

Memory is as in CuPy: what an array leaves in a pool the next one of that size gets, during a capture as well; a pool
that is short of memory frees what it keeps, and one that is dropped does not. Arrays that a graph uses and that lie in
no pool must live as long as it, and so must the blocks of its pool, or `launch` raises.
"""

import ctypes
import math
import weakref

import numpy as np

NOT_PERMITTED, INVALIDATED = 900, 901  # cudaErrorStreamCaptureUnsupported, cudaErrorStreamCaptureInvalidated
OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
capture = None  # the Graph that is being captured
allocator = None  # of `using_allocator`


class CUDARuntimeError(RuntimeError):
    def __init__(self, status, message="as CUDA says it"):
        super().__init__(message)
        self.status = status


def forbid(what):
    """Raise if a stream is being captured, whose capture is then lost."""
    if capture is not None:
        capture.lost = True
        raise CUDARuntimeError(NOT_PERMITTED, f"operation not permitted when stream is capturing: {what}")


# ----- memory ------------------------------------------------------------------------
capacity = 1 << 40  # bytes
device = set()  # the `Memory` of all pools that was not freed: it stays, even where its pool is gone


def mem_get_info():
    """Bytes that are free, and all."""
    return capacity - sum(memory.size for memory in device), capacity


class Memory:
    """As `cupy.cuda.Memory`, but what frees it is its pool."""

    def __init__(self, size):
        if size > mem_get_info()[0]:
            raise CUDARuntimeError(OUT_OF_MEMORY)
        self.size, self.block = size, np.empty(size, np.uint8)
        device.add(self)

    def has(self, address):
        return self.block.ctypes.data <= address < self.block.ctypes.data + self.size


class MemoryPointer:
    def __init__(self, mem, offset):
        self.mem = mem


class MemoryPool:
    """As much of `cupy.cuda.MemoryPool` as tinyseg uses, but blocks are not split."""

    def __init__(self, allocator=None):
        self._allocator = allocator or (lambda size: MemoryPointer(Memory(size), 0))
        self._blocks, self._free, self._total, self._limit = set(), {}, 0, 0

    def malloc(self, size):
        size = 512 * max(1, -(-size // 512))
        if not self._free.get(size):
            memory = self._try_malloc(size)
            self._blocks.add(memory)
        else:
            memory = self._free[size].pop()
        return _Lent(self, memory)

    def _try_malloc(self, size):
        """CuPy's rule: where memory runs short, free what is kept, and try again."""
        for _ in range(3):
            memory, self._total = None, self._total + size
            try:
                if 0 < self._limit < self._total:
                    raise CUDARuntimeError(OUT_OF_MEMORY)
                memory = self._allocator(size).mem
                return memory
            except CUDARuntimeError as error:
                if error.status != OUT_OF_MEMORY:
                    raise
            finally:
                self._total -= size if memory is None else 0
            self.free_all_blocks()
        raise MemoryError(f"Out of memory allocating {size:,} bytes (allocated so far: {self._total:,} bytes).")

    def free_all_blocks(self):
        for memory in (m for kept in self._free.values() for m in kept):
            self._blocks.remove(memory)
            device.remove(memory)
            self._total -= memory.size
        self._free = {}

    def total_bytes(self):
        return self._total

    def set_limit(self, size):
        self._limit = size


class _Lent:
    def __init__(self, pool, memory):
        self.pool, self.memory = pool, memory


def _give_back(pool, memory):
    if pool() is not None:
        pool()._free.setdefault(memory.size, []).append(memory)


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
        lent = allocator(size)
        buffer = (ctypes.c_char * size).from_address(lent.memory.block.ctypes.data)
        host = np.ndarray(shape, dtype, buffer=buffer)  # its views keep it alive, and it the block
        weakref.finalize(host, _give_back, weakref.ref(lent.pool), lent.memory)
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
        memory = next((m for m in pool._blocks if m.has(self.address)), None) if pool is not None else None
        self.needed = [weakref.ref(a) for a in ([root(host)] if memory is None else [pool, memory])]

    def check(self):
        if any(needed() is None for needed in self.needed):
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
