"""Capturing: what a function launches on the GPU becomes a CUDA graph, which is launched as a whole.

A network launches hundreds of kernels from Python, one by one; a small network waits for Python longer than for the
GPU. Captured as a CUDA graph, the same launches with the same arguments are one call. That needs arrays that stay where
they are (inputs are copied into them; what is computed in between lies in memory that belongs to the graph), shapes
that stay the same, and a function that reads no result on the way. Numbers that must change are in `recording.py`.

    run = graphs.capture(lambda x: model(x).data, x)        # inference, under no_grad
    y = run(x)

`Inference` does that for images of several shapes; the training step is in `training_step.py`.
"""

import collections
import contextlib
import weakref

import numpy as np

from tinyseg import backend
from tinyseg.autograd import no_grad
from tinyseg.backend import devices
from tinyseg.fast.gpu.graphs.recording import Recording, recording

WARM_UP = 2  # runs before a capture, which may neither compile and load kernels nor set cuBLAS up
SHAPES = 4  # for which `Inference` keeps a graph
OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
_living_pools = set()  # memory pools of graphs that exist
_leftover_pools = set()  # memory pools of graphs that are gone, where there are still arrays in them


def capture(function, *examples):
    """Run a function twice, capture what it launches, and return a function that replays that.

    Parameters
    ----------
    function : callable
        Takes CuPy arrays, returns one. It must launch the same every time, read no result on the way, and keep
        nothing for a backward pass (``with no_grad()``).
    *examples : CuPy or NumPy arrays
        Inputs of the shapes and dtypes to capture.

    Returns
    -------
    callable
        ``run(*arrays)``, for CuPy or NumPy arrays. Returns the graph's own array: the next call writes over it. Arrays
        of other shapes or dtypes go through `function` as it is.

    Raises
    ------
    ValueError
        If there is no GPU to capture on, or the function draws random numbers, steps an optimizer or checks labels:
        `tinyseg.fast.gpu.graphs.training_step.CapturedStep` does.
    RuntimeError
        If it does what cannot be captured.
    """
    if devices.cp is None:
        raise ValueError("CUDA graphs are for a GPU, and CuPy is not installed: call the function itself.")
    graph, inputs = Graph(), [devices.cp.array(a) for a in examples]
    for _ in range(WARM_UP):
        with graph.on_its_stream():
            function(*inputs)
    result = graph.capture(lambda: function(*inputs))
    if graph.recording.changing or graph.recording.checks_classes:
        raise ValueError(
            "capture() is for inference, but the function draws random numbers, steps an optimizer or checks class "
            "numbers: put the model into evaluation mode, or use CapturedStep."
        )

    def run(*arrays):
        if signature(arrays) != signature(inputs):
            return function(*(devices.cp.asarray(a) for a in arrays))
        copy_in(arrays, inputs)
        graph.launch()
        return result

    return run


# ----- memory ------------------------------------------------------------------------
def bytes_in_pools():
    """Return how many bytes the pools of graphs hold: arrays, also those that outlive their graph, and free blocks."""
    _free_leftover_pools()
    return sum(pool.total_bytes() for pool in (*_living_pools, *_leftover_pools))


def _allocate(size):
    """Allocate for the pool of a graph. The limit is for the default pool and the pools of all graphs together.

    A pool whose allocator raises cudaErrorMemoryAllocation gives back its free blocks and asks again. During a capture
    the graph will use these blocks. Therefore a MemoryError is raised then, which the pool does not catch.
    """
    cp, default = devices.cp, devices.cp.get_default_memory_pool()
    try:
        limit = default.get_limit()
        if 0 < limit < default.total_bytes() + bytes_in_pools():  # which counts `size` already
            raise cp.cuda.runtime.CUDARuntimeError(OUT_OF_MEMORY)
        return cp.cuda.MemoryPointer(cp.cuda.Memory(size), 0)
    except cp.cuda.runtime.CUDARuntimeError as error:
        if backend.is_out_of_memory(error) and cp.cuda.get_current_stream().is_capturing():
            raise MemoryError(
                f"GPU memory ran short while a CUDA graph was captured, which asked for {size:,} bytes more: take "
                "smaller batches or tiles, allow more memory, or go without graphs."
            ) from error
        raise


def _release_pool(pool):
    """Free the memory of a graph that is gone. Without this the free blocks of its pool would never be given back."""
    _living_pools.discard(pool)
    _leftover_pools.add(pool)
    _free_leftover_pools()


def _free_leftover_pools():
    if recording() is not None:  # a capture must not be disturbed
        return
    for pool in tuple(_leftover_pools):
        pool.free_all_blocks()  # waits for replays
        if not pool.total_bytes():
            _leftover_pools.discard(pool)


# ----- graphs ------------------------------------------------------------------------
class Graph:
    """A stream to capture on, memory that only the captured launches use, and after `capture` the CUDA graph."""

    def __init__(self):
        cp = devices.cp
        self.stream, self.pool, self.graph = cp.cuda.Stream(non_blocking=True), cp.cuda.MemoryPool(_allocate), None
        _living_pools.add(self.pool)
        weakref.finalize(self, _release_pool, self.pool).atexit = False  # at exit CUDA may be gone already
        self.recording = Recording()

    @contextlib.contextmanager
    def on_its_stream(self, capturing=False):
        """Launch on the graph's stream, with memory from its pool, after earlier launches and before later ones."""
        cp, current = devices.cp, devices.cp.cuda.get_current_stream()
        if not self.pool.total_bytes():  # the first run: give it the memory that ordinary runs no longer use
            _free_leftover_pools()
            cp.get_default_memory_pool().free_all_blocks()
        self.stream.wait_event(current.record())
        try:
            with self.stream, cp.cuda.using_allocator(self.pool.malloc), self.recording.record(capturing):
                yield
        finally:
            current.wait_event(self.stream.record())

    def capture(self, function):
        """Capture what `function` launches; return what it returns."""
        try:
            with self.on_its_stream(capturing=True):
                self.stream.begin_capture()
                try:
                    result = function()
                except BaseException:
                    with contextlib.suppress(Exception):  # CUDA only says again that the capture has failed
                        self.stream.end_capture()
                    raise
                self.graph = self.stream.end_capture()
        except Exception as error:
            self.recording.rewind_counters()
            if backend.is_out_of_memory(error) or isinstance(error, (TypeError, ValueError)):
                raise
            raise RuntimeError(
                f"This cannot be captured as a CUDA graph: {error}. Leave out what reads results on the way or copies "
                "from the host, or go without graphs."
            ) from error
        self.recording.finish_capture()
        return result

    def launch(self):
        """Replay what was captured, on the current stream."""
        if self.recording.changing:
            self.recording.write_changes()
        self.graph.launch()


class Inference:
    """Logits of a model, from NumPy array to NumPy array. A shape that comes for the third time is captured.

    Parameters
    ----------
    model : UNet
        On the GPU.

    Raises
    ------
    ValueError
        If it is on the CPU.
    """

    def __init__(self, model):
        need_gpu(model)
        self.model, self.slots = model, Slots(model)
        self._forget_graphs()

    def _forget_graphs(self):
        self.seen, self.graphs, self.weights = collections.Counter(), {}, self.slots.arrays()

    def __call__(self, x):
        if not self.slots.unchanged(self.weights):
            self._forget_graphs()
        key = signature((x,))
        self.seen[key] += 1
        with no_grad():
            if self.model.training:
                raise ValueError("Inference is for a model in evaluation mode: call model.eval() before.")
            if key not in self.graphs and self.seen[key] > WARM_UP and len(self.graphs) < SHAPES:
                self.graphs[key] = capture(lambda a: self.model(a).data, x)
            run = self.graphs.get(key, lambda a: self.model(backend.to_device(a, "gpu")).data)
            return backend.to_numpy(run(x))


# ----- what a graph is made for --------------------------------------------------------
class Slots:
    """The attributes in which a model keeps its parameters and buffers; a graph knows the addresses of their arrays."""

    def __init__(self, model):
        self.slots = list(model.slots().values())

    def arrays(self):
        """Return the arrays that they hold now."""
        return [getattr(*slot) for slot in self.slots]

    def unchanged(self, arrays):
        """Return whether they still hold these arrays."""
        return all(a is b for a, b in zip(self.arrays(), arrays, strict=True))


def need_gpu(model):
    """Raise a ValueError if a model is on the CPU."""
    if backend.device_of(model.parameters()[0].data) == "cpu":
        raise ValueError("CUDA graphs are for a GPU, but the model is on the CPU: move it, or go without graphs.")


def signature(arrays):
    """Return the shapes and dtypes of the arrays: a graph is made for these."""
    return tuple((a.shape, a.dtype) for a in arrays)


def copy_in(arrays, inputs):
    """Copy arrays of the host or the GPU into those that a graph reads."""
    for a, own in zip(arrays, inputs, strict=True):
        if isinstance(a, np.ndarray):
            own.set(np.ascontiguousarray(a), stream=devices.cp.cuda.get_current_stream())
        else:
            own[...] = a
