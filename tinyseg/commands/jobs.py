"""Work on many items, shared by several processes: one that is killed loses its item, and not the job.

The processes are new ones, not forks (`spawn`), since the threads of compiled kernels are not in a fork. The cores are
divided among them. They end when this process ends, however it ends.
"""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures.process import BrokenProcessPool

from tinyseg.backend.devices import cores


class WorkerLost(RuntimeError):
    """The process that worked on an item was killed, or has crashed."""


def run_jobs(work, items, processes):
    """Do work on each item in one of several processes.

    Parameters
    ----------
    work : callable
        ``work(item)``, which can be pickled, as what it returns: a function of a module, or a partial of one.
    items : iterable
        Each is taken when a process is free for it.
    processes : int
        1: this one does the work itself.

    Yields
    ------
    item
    result
        What `work` has returned, or None.
    error : Exception or None
        What it has raised; a `WorkerLost` if the item has killed its process when it was alone.
    """
    if processes == 1:
        for item in items:
            result, error = None, None
            try:
                result = work(item)
            except Exception as raised:
                error = raised
            yield item, result, error
        return
    items, suspects, running = iter(items), collections.deque(), {}
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(_pool(processes))
        while True:
            # After a process was lost, each of the items that were being worked on is tried alone: one of them is why.
            while suspects and not running:
                running[pool.submit(work, suspects[0])] = suspects[0]
            while not suspects and len(running) < processes:
                try:
                    item = next(items)
                except StopIteration:
                    break
                running[pool.submit(work, item)] = item
            if not running:
                return
            done = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED).done
            lost = [future for future in done if isinstance(future.exception(), BrokenProcessPool)]
            for future in done.difference(lost):
                item, error = running.pop(future), future.exception()
                if suspects:
                    suspects.popleft()
                yield item, None if error else future.result(), error
            if lost:
                stack.close()
                pool = stack.enter_context(_pool(processes))
                if suspects:
                    error = WorkerLost("the process that worked on it was killed, or has crashed")
                    yield suspects.popleft(), None, error
                else:
                    suspects.extend(running.values())
                running.clear()


def in_worker():
    """Whether this is a process that does jobs of another, which shows how far they are."""
    return multiprocessing.parent_process() is not None


@contextlib.contextmanager
def _pool(processes):
    """A pool of processes, with their share of the cores."""
    before = os.environ.get("NUMBA_NUM_THREADS")
    os.environ["NUMBA_NUM_THREADS"] = str(max(1, cores() // processes))
    spawn = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(processes, spawn, _begin)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        del os.environ["NUMBA_NUM_THREADS"]
        if before is not None:
            os.environ["NUMBA_NUM_THREADS"] = before


def _begin():
    """Leave signals to the process that has started this one, and end with it."""
    for name in ("SIGINT", "SIGHUP"):  # which a terminal sends to all
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)
