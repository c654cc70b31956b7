"""Several runs of a study at a time, each a process of its own: see `tinyseg.commands.jobs.run_jobs`."""

import concurrent.futures

from reproduction import study
from tinyseg.backend.devices import cores
from tinyseg.commands.workers import DaskCluster, Pool


class SideBySide(Pool):
    """Threads of this process, each of which waits for the script of one run."""

    def __init__(self, number):
        self.number = number

    def __enter__(self):
        self._pool = concurrent.futures.ThreadPoolExecutor(self.number)
        return self

    def __exit__(self, kind, *exception):
        if kind is not None:
            study.stop_scripts()
        super().__exit__(kind, *exception)

    def submit(self, work, item):
        """Let a thread do work on an item; return the future."""
        return self._pool.submit(work, item)


def workers_of(args):
    """Return who carries out the runs, and how many threads each of them has: None if all cores are for one."""
    if args.dask:
        return DaskCluster(args.dask), None
    if args.jobs > 1:
        return SideBySide(args.jobs), max(1, cores() // args.jobs)
    return None, None


def carry_out(threads, job):
    """Carry out a run, whose kernels compute in so many threads; the job is its key and the run."""
    _, run = job
    run.threads = threads
    return run.carry_out()
