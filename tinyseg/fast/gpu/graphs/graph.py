"""CUDA graphs: a whole forward pass or training step launched at once.

A network launches hundreds of kernels from Python, one by one; a small one waits for Python more than for the GPU.
Captured as a CUDA graph the same launches, with the same arguments, are one call. That asks for arrays that stay where
they are (inputs are copied into them; what is computed in between lies in memory that belongs to the graph), for
shapes that stay, and for no look at a result on the way: `tinyseg.fast.gpu.graphs.recording` has the numbers that change all the same.

    run = graphs.capture(lambda x: model(x).data, x)        # inference, under no_grad
    y = run(x)

`Inference` does that for images of several shapes; `tinyseg.fast.gpu.graphs.training_step` is the step of `tinyseg.training.fit`.
"""

import collections
import contextlib
import weakref

import numpy as np

from tinyseg import backend
from tinyseg.autograd import no_grad
from tinyseg.backend import devices
from tinyseg.fast.gpu.graphs.recording import Recording, recording

WARM_UP = 2  # runs before a capture: compiling and loading kernels, and cuBLAS's first time, are not allowed in one
SHAPES = 4  # for which `Inference` keeps a graph
OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
_pools, _left = set(), set()  # of living graphs, and of others: those in which arrays still lie


def capture(function, *examples):
    """Run a function twice, capture what it launches, and return a function that replays that.

    Parameters
    ----------
    function : callable
        Of CuPy arrays, returns one. It must launch the same every time, look at no result on the way, and leave no
        graph of `autograd` behind (``with no_grad()``).
    *examples : CuPy or NumPy arrays
        Give the shapes and dtypes.

    Returns
    -------
    callable
        ``run(*arrays)``, for CuPy or NumPy arrays. Returns the graph's own array: the next call writes over it. Arrays
        of other shapes or dtypes go through `function` as it is.

    Raises
    ------
    ValueError
        If there is no GPU to capture on, or the function draws random numbers, steps an optimizer or checks labels:
        `tinyseg.fast.gpu.graphs.training_step.TrainingStep` does.
    RuntimeError
        If it does what cannot be captured.
    """
    if devices.cp is None:
        raise ValueError("CUDA graphs are for a GPU, and CuPy is not installed: call the function itself.")
    return _Captured(function, [devices.cp.array(a) for a in examples])


# ----- memory ------------------------------------------------------------------------
def taken():
    """Return how many bytes lie in the pools of graphs, free blocks and arrays that outlive their graph included."""
    _tidy()
    return sum(pool.total_bytes() for pool in (*_pools, *_left))


def _more(size):
    """Allocate for the pool of a graph; what the default pool and all graphs have counts against the limit.

    A pool that is told of cudaErrorMemoryAllocation gives back its free blocks and asks again. During a capture these
    are memory that the graph will use, so then a MemoryError is raised, which the pool lets through.
    """
    cp, everything = devices.cp, devices.cp.get_default_memory_pool()
    try:
        if 0 < everything.get_limit() < everything.total_bytes() + taken():  # in which the pool counts `size` already
            raise cp.cuda.runtime.CUDARuntimeError(OUT_OF_MEMORY)
        return cp.cuda.MemoryPointer(cp.cuda.Memory(size), 0)
    except cp.cuda.runtime.CUDARuntimeError as error:
        if backend.is_out_of_memory(error) and cp.cuda.get_current_stream().is_capturing():
            raise MemoryError(
                f"GPU memory ran short while a CUDA graph was captured, which asked for {size:,} bytes more: take "
                "smaller batches or tiles, allow more memory, or go without graphs."
            ) from error
        raise


def _give_up(pool):
    """Free the memory of a graph that is no more: a pool that is dropped would keep its free blocks for good."""
    _pools.discard(pool)
    _left.add(pool)
    _tidy()


def _tidy():
    for pool in tuple(_left) if recording() is None else ():  # a capture is not disturbed
        pool.free_all_blocks()  # which waits for replays
        if not pool.total_bytes():
            _left.discard(pool)


# ----- graphs ------------------------------------------------------------------------
class Graph:
    """A stream to capture on, memory that only what is captured uses, and in the end the graph."""

    def __init__(self):
        cp = devices.cp
        self.stream, self.pool, self.graph = cp.cuda.Stream(non_blocking=True), cp.cuda.MemoryPool(_more), None
        _pools.add(self.pool)
        weakref.finalize(self, _give_up, self.pool).atexit = False  # CUDA may be gone before
        self.recording = Recording()

    @contextlib.contextmanager
    def there(self, capturing=False):
        """Launch on the stream, and take memory from the pool; what was launched before and after stays so."""
        cp, current = devices.cp, devices.cp.cuda.get_current_stream()
        if not self.pool.total_bytes():  # the first run: what ordinary ones left, the graph may have
            _tidy()
            cp.get_default_memory_pool().free_all_blocks()
        self.stream.wait_event(current.record())
        try:
            with self.stream, cp.cuda.using_allocator(self.pool.malloc), self.recording.on(capturing):
                yield
        finally:
            current.wait_event(self.stream.record())

    def capture(self, function):
        """Capture what `function` launches; returns what it returns."""
        try:
            with self.there(capturing=True):
                self.stream.begin_capture()
                try:
                    result = function()
                except BaseException:
                    with contextlib.suppress(Exception):  # it says again that the capture has failed
                        self.stream.end_capture()
                    raise
                self.graph = self.stream.end_capture()
        except Exception as error:
            self.recording.back()
            if backend.is_out_of_memory(error) or isinstance(error, (TypeError, ValueError)):
                raise
            raise RuntimeError(
                f"This cannot be captured as a CUDA graph: {error}. Leave out what reads results on the way, or copies "
                "from the host; or go without graphs."
            ) from error
        self.recording.settle()
        return result

    def launch(self):
        """Replay, on the current stream."""
        if self.recording.changes:
            self.recording.write()
        self.graph.launch()


class _Captured:
    """What `capture` returns."""

    def __init__(self, function, inputs):
        self.function, self.inputs, self.graph = function, inputs, Graph()
        for _ in range(WARM_UP):
            with self.graph.there():
                function(*inputs)
        self.result = self.graph.capture(lambda: function(*inputs))
        record = self.graph.recording
        if record.changes or record.checked:
            raise ValueError(
                "capture() is for inference, but the function draws random numbers, steps an optimizer or checks class "
                "numbers: put the model into evaluation mode, or use TrainingStep."
            )

    def __call__(self, *arrays):
        if kind(arrays) != kind(self.inputs):
            return self.function(*(devices.cp.asarray(a) for a in arrays))
        copy_in(arrays, self.inputs)
        self.graph.launch()
        return self.result


class Inference:
    """Logits of a model, from NumPy array to NumPy array; a shape that comes for the third time is captured.

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
        self._forget()

    def _forget(self):
        self.seen, self.graphs, self.held = collections.Counter(), {}, self.slots.held()

    def __call__(self, x):
        if not self.slots.hold(self.held):
            self._forget()  # weights lie elsewhere
        key = kind((x,))
        self.seen[key] += 1
        with no_grad():
            if self.model.training:
                raise ValueError("Inference is for a model in evaluation mode: call model.eval() before.")
            if key not in self.graphs and self.seen[key] > WARM_UP and len(self.graphs) < SHAPES:
                self.graphs[key] = capture(lambda a: self.model(a).data, x)
            run = self.graphs.get(key, lambda a: self.model(backend.to_device(a, "gpu")).data)
            return backend.to_numpy(run(x))


class Slots:
    """Where a model has its parameters and buffers, and what lies there: a graph knows the addresses."""

    def __init__(self, model):
        self.where = list(model.slots().values())

    def held(self):
        return [getattr(*where) for where in self.where]

    def hold(self, arrays):
        return all(getattr(*where) is a for where, a in zip(self.where, arrays, strict=True))


def need_gpu(model):
    """Raise a ValueError if a model is on the CPU."""
    if backend.device_of(model.parameters()[0].data) == "cpu":
        raise ValueError("CUDA graphs are for a GPU, but the model is on the CPU: move it, or go without graphs.")


def kind(arrays):
    """Return shapes and dtypes, which a graph is made for."""
    return tuple((a.shape, a.dtype) for a in arrays)


def copy_in(arrays, inputs):
    """Copy arrays of the host or the GPU into those that a graph reads."""
    for a, own in zip(arrays, inputs, strict=True):
        if isinstance(a, np.ndarray):
            own.set(np.ascontiguousarray(a), stream=devices.cp.cuda.get_current_stream())
        else:
            own[...] = a
