"""Streams, events and the memory pool of the stand-in for CuPy (fake_cupy.py).

What is put on the default stream is done at once. On any other stream it is done when somebody waits for it, and not
before: who reads too early reads what lay there.
"""

import time
import types

import fake_graphs


class Stream:
    """Work in order. `log` tells what was put on it: "do", "wait" or "record"."""

    made = []  # all of them, for the tests
    current = []  # those of the `with` blocks under way

    def __init__(self, non_blocking=False):
        self.waiting, self.log = [], []
        Stream.made.append(self)

    def __enter__(self):
        Stream.current.append(self)
        return self

    def __exit__(self, *exception):
        Stream.current.pop()

    @property
    def ptr(self):
        return 0 if self is NULL else id(self)

    def begin_capture(self):
        if self is NULL:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        assert Stream.current[-1:] == [self]  # else nothing would be captured
        fake_graphs.begin()

    def end_capture(self):
        return fake_graphs.end()

    def is_capturing(self):
        return fake_graphs.capture is not None and Stream.current[-1:] == [self]

    def do(self, work):
        fake_graphs.forbid("copying from the host")
        self.log.append("do")
        self.waiting.append(work)
        if self is NULL or self in Stream.current:
            self.synchronize()

    def wait_event(self, event):
        self.log.append("wait" if event.stream is NULL else "wait for itself")

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def synchronize(self):
        fake_graphs.forbid("waiting for a stream")
        self.run(len(self.waiting))

    def run(self, count):
        for work in self.waiting[:count]:
            work()
        del self.waiting[:count]


class Event:
    def record(self, stream=None):
        self.stream = stream or current_stream()
        self.work = self.stream.waiting[-1:]  # the last that comes before it
        self.seconds = time.perf_counter()
        self.stream.log.append("record")

    def synchronize(self):
        if self.work and self.work[0] in self.stream.waiting:
            self.stream.run(self.stream.waiting.index(self.work[0]) + 1)


NULL = Stream()


def current_stream():
    """Of the innermost `with` block, else the default."""
    return Stream.current[-1] if Stream.current else NULL


def get_elapsed_time(start, end):
    """Milliseconds."""
    return 1e3 * (end.seconds - start.seconds)


def get_default_memory_pool():
    return pool


pool = types.SimpleNamespace(limit=0)  # of all that is in no other
pool.set_limit = lambda size: setattr(pool, "limit", size)
pool.get_limit = lambda: pool.limit
pool.used_bytes = pool.total_bytes = lambda: 0
pool.free_all_blocks = lambda: None
