"""Numbers that a CUDA graph must not freeze.

A captured step is a list of launches with their arguments. A replay sees new numbers only where a kernel reads them
from memory. The `Recording` of a step is that memory, one array of the device. It holds numbers that change from step
to step (the keys of dropout, Adam's rate), written anew before each replay, and constants from the host (tables of
addresses), written once after the capture. A function that launches such a kernel asks `recording()` whether there is
a `Recording`, and puts the numbers there.
"""

import contextlib
import threading

import numpy as np

from tinyseg.backend import devices
from tinyseg.fast.gpu.upload import pinned

ROOM = 1 << 20  # bytes of a Recording: 48 for each parameter (Adam's table), 8 for each dropout
CHANGING = 1 << 14  # bytes of these, for numbers that change
WORKSPACE = 32 << 20  # bytes for cuBLAS, which must not allocate during a capture: as many as it takes by itself
_thread = threading.local()


def recording():
    """Return the `Recording` of the step that this thread records; None if it records none."""
    return getattr(_thread, "current", None)


class Recording:
    """Numbers of one captured step, on the device.

    Attributes
    ----------
    wrong, go : int32 arrays, shape (1,)
        `wrong` is 1 after a step that found wrong class numbers, `go` if the step was allowed to change the weights.
    factor : float32 array, shape ()
        The number by which the step scaled its gradients.
    workspace : uint8 array
        Memory for cuBLAS.
    checks_classes : bool
        Whether the step checks class numbers, so that `wrong` must be read after it.
    changing : list
        What describes the numbers that change; empty if none do.
    """

    def __init__(self):
        cp = devices.cp
        self.memory = cp.zeros(ROOM // 4, "uint32")
        self.workspace = cp.empty(WORKSPACE, "uint8")
        self.wrong, self.go = (self.memory[k : k + 1].view("int32") for k in (0, 1))
        self.factor = self.memory[2:3].view("float32").reshape(())
        self.checks_classes, self.changing = False, []
        self._host, self._advances = pinned(np.zeros(CHANGING // 4, np.uint32)), []

    @contextlib.contextmanager
    def record(self, capturing):
        """Record what the block launches. If it is not `capturing`, the launches run, with the numbers of this step."""
        self.checks_classes, self._capturing = False, capturing
        self.changing, self._constants, self._counters = [], [], {}
        self._used, self._next = 4, CHANGING // 4  # where the next changing number and the next constant go
        if not capturing:
            self.memory[:4] = 0
        _thread.current = self
        try:
            yield self
        finally:
            _thread.current = None
            self._advances = [(counter, counter - start) for counter, start in self._counters.values()]

    # ----- for kernels ---------------------------------------------------------------
    def put_changing(self, make, dtype):
        """Return an array of the numbers, of 32 bits each, that ``make()`` returns: in every step the new ones."""
        values = np.asarray(make(), dtype)
        start, self._used = self._used, self._used + values.size
        if self._used > CHANGING // 4:
            raise RuntimeError(f"A captured step has room for {CHANGING // 4} numbers that change, and needs more.")
        self.changing.append((start, self._used, dtype, make))
        return self._put(start, values)

    def put_constant(self, values):
        """Return an array with these numbers, copied from the host: after a capture, which may not do that itself."""
        start, self._next = self._next, self._next + 2 * -(-values.nbytes // 8)  # aligned to 8 bytes
        if self._next > ROOM // 4:
            raise RuntimeError(f"A captured step has room for {ROOM} bytes of constants, and needs more.")
        return self._put(start, values)

    def _put(self, start, values):
        array = self.memory[start : start + values.nbytes // 4].view(values.dtype).reshape(values.shape)
        if self._capturing:
            self._constants.append((array, values))
        else:
            array.set(values, stream=devices.cp.cuda.get_current_stream())
        return array

    def track_counter(self, counter):
        """Return a function that gives what `counter` will hold at this point of each replay.

        Parameters
        ----------
        counter : integer ndarray
            Its owner counts it up after this call, by as much in every step.

        Raises
        ------
        ValueError
            If it is not an array: a plain number would be the same in every replay.
        """
        if not isinstance(counter, np.ndarray):
            raise ValueError(
                "Dropout in a step that is captured as a CUDA graph needs for a seed an array that is counted up, as "
                f"nn.Dropout has, but got {counter!r}, with which every replay would draw the same mask."
            )
        start = self._counters.setdefault(id(counter), (counter, counter.copy()))[1]
        ahead = counter - start
        return lambda: counter + ahead

    # ----- for the graph -------------------------------------------------------------
    def finish_capture(self):
        """Write the constants, and rewind the counters: the capture computed nothing."""
        stream = devices.cp.cuda.get_current_stream()
        for array, values in self._constants:
            array.set(values, stream=stream)
        self.rewind_counters()

    def write_changes(self):
        """Write the numbers of the next replay, and count the counters up. The last replay must be over."""
        for start, stop, dtype, make in self.changing:
            self._host[start:stop] = np.asarray(make(), dtype).view(np.uint32)
        self.memory[: self._used].set(self._host[: self._used], stream=devices.cp.cuda.get_current_stream())
        for counter, advance in self._advances:
            counter += advance

    def rewind_counters(self):
        """Put the counters back to where they were before the last step."""
        for counter, advance in self._advances:
            counter -= advance
