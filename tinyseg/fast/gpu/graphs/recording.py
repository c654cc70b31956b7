"""What a CUDA graph must not freeze, while a step is recorded for one: see `tinyseg.fast.gpu.graphs`.

A captured step is a list of launches with their arguments. Replayed, it sees new numbers only where a kernel reads them
from memory. The `Recording` of a step is that memory, one array of the device: numbers that change from step to step
(the keys of dropout, Adam's rate), written anew before each replay, and constants from the host (tables of addresses),
written once after the capture. Kernels that take part ask `recording()` where their numbers are to come from.
"""

import contextlib
import threading

import numpy as np

from tinyseg.backend import devices
from tinyseg.fast.gpu.upload import pinned

ROOM = 1 << 20  # bytes: 48 for each parameter (Adam's table), 8 for each dropout
CHANGING = 1 << 14  # of these, for numbers that change
WORKSPACE = 32 << 20  # bytes for cuBLAS, which must not allocate during a capture: as much as it takes by itself
_thread = threading.local()


def recording():
    """Return the `Recording` of the step that this thread records, as a rule None."""
    return getattr(_thread, "current", None)


class Recording:
    """Numbers of one captured step, on the device.

    Attributes
    ----------
    wrong, go : int32 arrays, shape (1,)
        1 after a step that found class numbers which are none; whether the step was allowed to change the weights.
    factor : float32 array, shape ()
        By which the step scaled its gradients.
    workspace : uint8 array
        For cuBLAS.
    """

    def __init__(self):
        cp = devices.cp
        self.memory = cp.zeros(ROOM // 4, "uint32")
        self.workspace = cp.empty(WORKSPACE, "uint8")
        self.wrong, self.go = (self.memory[k : k + 1].view("int32") for k in (0, 1))
        self.factor = self.memory[2:3].view("float32").reshape(())
        self._host, self._advances = pinned(np.zeros(CHANGING // 4, np.uint32)), []
        self._clear()

    def _clear(self):
        self.checked, self._capturing = False, False
        self._changing, self._constants, self._followed = [], [], {}
        self._used, self._next = 4, CHANGING // 4

    @contextlib.contextmanager
    def on(self, capturing):
        """Record what the block launches. Unless it is `capturing`, that runs, with the numbers of this one step."""
        self._clear()
        self._capturing = capturing
        if not capturing:
            self.memory[:4] = 0
        _thread.current = self
        try:
            yield self
        finally:
            _thread.current = None
            self._advances = [(counter, counter - start) for counter, start in self._followed.values()]

    # ----- for kernels ---------------------------------------------------------------
    def changing(self, make, dtype):
        """Return an array with the numbers that ``make()`` gives in every step, 32 bits each."""
        values = np.asarray(make(), dtype)
        start, self._used = self._used, self._used + values.size
        if self._used > CHANGING // 4:
            raise RuntimeError(f"A captured step has room for {CHANGING // 4} numbers that change, and needs more.")
        self._changing.append((start, self._used, dtype, make))
        return self._put(start, values)

    def constant(self, values):
        """Return an array with these numbers of the host, here because a capture must not copy from the host."""
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

    def follow(self, counter):
        """Return a function that gives what `counter` will hold at this point of each replay.

        Parameters
        ----------
        counter : integer ndarray
            Counted up by whoever owns it, after this call: by as much in every step.

        Raises
        ------
        ValueError
            If it is not an array, which could not be looked at again.
        """
        if not isinstance(counter, np.ndarray):
            raise ValueError(
                "Dropout in a step that is captured as a CUDA graph needs for a seed an array that is counted up, as "
                f"nn.Dropout has, but got {counter!r}, with which every replay would draw the same mask."
            )
        start = self._followed.setdefault(id(counter), (counter, counter.copy()))[1]
        ahead = counter - start
        return lambda: counter + ahead

    def check(self):
        """Say that `wrong` is to be looked at after the step."""
        self.checked = True

    # ----- for the graph -------------------------------------------------------------
    @property
    def changes(self):
        """Whether the step has numbers that change."""
        return bool(self._changing)

    def settle(self):
        """Write the constants, after the capture, and put counters back: it computed nothing."""
        stream = devices.cp.cuda.get_current_stream()
        for array, values in self._constants:
            array.set(values, stream=stream)
        self.back()

    def write(self):
        """Write the numbers of the next replay, and count the counters up. The last replay must be over."""
        for start, stop, dtype, make in self._changing:
            self._host[start:stop] = np.asarray(make(), dtype).view(np.uint32)
        self.memory[: self._used].set(self._host[: self._used], stream=devices.cp.cuda.get_current_stream())
        for counter, advance in self._advances:
            counter += advance

    def back(self):
        """Put the counters back to where they were before the last step."""
        for counter, advance in self._advances:
            counter -= advance
