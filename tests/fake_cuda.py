"""Streams, events and the memory pool of the stand-in for CuPy (fake_cupy.py).

What is put on the default stream is done at once. On any other stream it is done when somebody waits for it, and not
before: who reads too early reads what lay there.
"""

import time
import types


class Stream:
    """Work in order. `log` tells what was put on it: "do", "wait" or "record"."""

    made = []  # all of them, for the tests

    def __init__(self, non_blocking=False):
        self.waiting, self.log = [], []
        Stream.made.append(self)

    def do(self, work):
        self.log.append("do")
        self.waiting.append(work)
        if self is NULL:
            self.synchronize()

    def wait_event(self, event):
        self.log.append("wait" if event.stream is NULL else "wait for itself")

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def synchronize(self):
        self.run(len(self.waiting))

    def run(self, count):
        for work in self.waiting[:count]:
            work()
        del self.waiting[:count]


class Event:
    def record(self, stream=None):
        self.stream = stream or NULL
        self.work = self.stream.waiting[-1:]  # the last that comes before it
        self.seconds = time.perf_counter()
        self.stream.log.append("record")

    def synchronize(self):
        if self.work and self.work[0] in self.stream.waiting:
            self.stream.run(self.stream.waiting.index(self.work[0]) + 1)


NULL = Stream()


def get_elapsed_time(start, end):
    """Milliseconds."""
    return 1e3 * (end.seconds - start.seconds)


def get_default_memory_pool():
    return pool


pool = types.SimpleNamespace(limit=0)
pool.set_limit = lambda size: setattr(pool, "limit", size)
pool.get_limit = lambda: pool.limit
pool.used_bytes = pool.total_bytes = lambda: 0
pool.free_all_blocks = lambda: None
