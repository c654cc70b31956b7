"""Work on many items, shared by several processes: one that is killed loses its item, and not the job."""

import collections
import concurrent.futures


class WorkerLost(RuntimeError):
    """The process that worked on an item was killed, or has crashed."""


def run_jobs(work, items, workers=None):
    """Do work on each item in one of several processes.

    Parameters
    ----------
    work : callable
        ``work(item)``, which can be pickled, as what it returns: a function of a module, or a partial of one.
    items : iterable
        Each is taken when a process is free for it.
    workers : context manager, optional
        One of `tinyseg.commands.workers`; without it this process does the work itself.

    Yields
    ------
    item
    result
        What `work` has returned, or None.
    error : Exception or None
        What it has raised; a `WorkerLost` if the item has killed its process when it was alone.
    """
    if workers is None:
        for item in items:
            result, error = None, None
            try:
                result = work(item)
            except Exception as raised:
                error = raised
            yield item, result, error
        return
    items, suspects, running = iter(items), collections.deque(), {}
    with workers:
        while True:
            # After processes were lost, each of the items that were being worked on is tried alone: one of them is why.
            while suspects and not running:
                running[workers.submit(work, suspects[0])] = suspects[0]
            while not suspects and len(running) < workers.number:
                try:
                    item = next(items)
                except StopIteration:
                    break
                running[workers.submit(work, item)] = item
            if not running:
                return
            done = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED).done
            if any(future.cancelled() for future in done):
                raise ConnectionError("the processes that shared the work are gone: is their scheduler still there?")
            broken = [future for future in done if isinstance(future.exception(), workers.broken)]
            for future in done.difference(broken):
                item, error = running.pop(future), future.exception()
                if suspects:
                    suspects.popleft()
                if isinstance(error, workers.lost):
                    error = _lost()
                yield item, None if error else future.result(), error
            if broken:
                workers.renew()
                if suspects:
                    yield suspects.popleft(), None, _lost()
                else:
                    suspects.extend(running.values())
                running.clear()


def _lost():
    return WorkerLost("the process that worked on it was killed, or has crashed")
