"""Who does the jobs of a command: processes of this machine, of a Dask cluster, or of MPI.

    tinyseg predict … --jobs 4
    tinyseg predict … --dask tcp://10.0.0.1:8786                                # after `dask worker` on each machine
    mpiexec -n 5 python -m mpi4py.futures -m tinyseg predict … --jobs mpi       # one of the five hands out

Each kind is a context manager around a `concurrent.futures.Executor`. It knows how many jobs are done at a time, and
what a job raises whose process was killed: `lost`, or `broken` if all that were being done are lost with it, and the
others need new processes. The cores of a machine are divided among its processes, unless NUMBA_NUM_THREADS says how
many threads each has.
"""

import argparse
import collections
import concurrent.futures
import importlib
import multiprocessing
import os
import signal
import sys
import threading
from typing import Any

from tinyseg.backend.devices import cores, use_threads
from tinyseg.training.parallel import share_cores

PATIENCE = 20  # seconds to wait for a Dask cluster
_at_work = False


class Pool:
    """An executor, `_pool`, of which nothing is known to be lost."""

    _pool: concurrent.futures.Executor
    broken: Any = ()
    lost: Any = ()

    def __exit__(self, *exception):
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, work, item):
        """Let a process do work on an item; return the future."""
        return self._pool.submit(_do, work, item)


class Processes(Pool):
    """Processes of this machine, which end when this process ends, however it ends.

    They are new ones, not forks (`spawn`), since the threads of compiled kernels are not in a fork.
    """

    broken = concurrent.futures.BrokenExecutor

    def __init__(self, number):
        self.number = number

    def __enter__(self):
        self._start()
        return self

    def _start(self):
        spawn, threads = multiprocessing.get_context("spawn"), max(1, cores() // self.number)
        self._pool = concurrent.futures.ProcessPoolExecutor(self.number, spawn, _begin, (threads,))

    def renew(self):
        """Replace the processes, after one was killed."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._start()


class DaskCluster(Pool):
    """The workers of a Dask cluster, which read and write the same files under the same names."""

    def __init__(self, address):
        self.address = address

    def __enter__(self):
        try:
            distributed = importlib.import_module("distributed")
        except ImportError:
            raise RuntimeError("--dask needs a package more: pip install 'tinyseg[dask]'") from None
        self.lost = distributed.KilledWorker
        try:
            self._client = distributed.Client(self.address, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConnectionError(
                f"no Dask scheduler answers at {self.address!r} ({error}): start `dask scheduler`, and give the "
                "address that it prints, such as tcp://10.0.0.1:8786."
            ) from None
        try:
            self._client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError:
            self._client.close()
            raise ConnectionError(
                f"the Dask scheduler at {self.address} has no workers: start `dask worker {self.address} --nworkers 4 "
                "--nthreads 1` on each machine."
            ) from None
        self._pool = self._client.get_executor(pure=False)
        return self

    def __exit__(self, *exception):
        self._pool.shutdown(wait=exception == (None, None, None))
        self._client.close()

    @property
    def number(self):
        """How many jobs are done at a time; workers may come and go."""
        return max(1, sum(self._client.nthreads().values()))

    def submit(self, work, item):
        """Let a worker do work on an item; return the future."""
        machines = collections.Counter(address.rpartition(":")[0] for address in self._client.nthreads())
        return self._pool.submit(_do_there, os.getcwd(), max(machines.values(), default=1), work, item)


class MpiProcesses(Pool):
    """The processes beside this one that `mpiexec -n 5 python -m mpi4py.futures …` has started.

    If one is killed, MPI ends all.
    """

    def __enter__(self):
        if "mpi4py.futures" not in sys.orig_argv:
            raise ValueError(
                "--jobs mpi is for processes of MPI: mpiexec -n 5 python -m mpi4py.futures -m tinyseg … --jobs mpi"
            )
        futures = importlib.import_module("mpi4py.futures")
        self.number = max(1, importlib.import_module("mpi4py.MPI").COMM_WORLD.Get_size() - 1)
        self._pool = futures.MPIPoolExecutor(initializer=_begin_mpi)
        return self


def add_worker_options(parser, items):
    """Add --jobs and --dask, by which processes share the `items`."""
    parser.add_argument(
        "--jobs", type=_jobs, default=1, metavar="N", help=f"processes that share the {items} and the cores; or mpi"
    )
    parser.add_argument("--dask", metavar="ADDRESS", help=f"of a Dask scheduler, whose workers share the {items}")


def _jobs(text):
    if text == "mpi":
        return text
    if not (text.isdecimal() and 1 <= int(text) <= 1024):
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 1024, or mpi, found {text!r}")
    return int(text)


def part_of(text):
    """Return --part as two numbers: 2/8 is the second of eight."""
    k, _, parts = text.partition("/")
    if not (k.isdecimal() and parts.isdecimal() and 1 <= int(k) <= int(parts)):
        raise argparse.ArgumentTypeError(f"expected K/N with K from 1 to N, as in 2/8, found {text!r}")
    return int(k), int(parts)


def workers_of(args):
    """Return who does the jobs, see `run_jobs`; None if this process does them."""
    if args.dask:
        return DaskCluster(args.dask)
    if args.jobs == "mpi":
        return MpiProcesses()
    return Processes(args.jobs) if args.jobs > 1 else None


def refuse_devices(parser, args):
    """Refuse options of processes on a GPU, of which all would take the same."""
    if args.dask and "jobs" in args.given:
        parser.error("--jobs is for processes without Dask, which --dask asks for: leave one of the two out")
    if (args.dask or args.jobs != 1) and (args.device == "gpu" or args.cuda_graph):
        parser.error("--jobs and --dask share the cores of CPUs: leave them out, or --device gpu")
    if args.dask or args.jobs != 1:
        args.device = "cpu"


# ----- in the workers --------------------------------------------------------------------
_loaded: dict = {}


def load_once(command, load):
    """Return ``load()``, which is called once in a process for a command, named by a text of its own.

    Workers of Dask may outlive a command: what was loaded for another is dropped.
    """
    if command not in _loaded:
        _loaded.clear()
        _loaded[command] = load()
    return _loaded[command]


def at_work():
    """Whether this process does jobs of another, which shows how far they are."""
    return _at_work


def _do(work, item):
    global _at_work
    _at_work = True
    return work(item)


def _do_there(folder, processes, work, item):
    """Do work where the relative names of files are those of the command."""
    os.chdir(folder)
    use_threads(max(1, cores() // processes))
    return _do(work, item)


def _begin(threads):
    """Leave signals to the process that has started this one, and end with it."""
    for name in ("SIGINT", "SIGHUP"):  # which a terminal sends to all
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_threads(threads)


def _begin_mpi():
    """Share the cores of a machine among the processes on it."""
    mpi = importlib.import_module("mpi4py.MPI")
    workers = importlib.import_module("mpi4py.futures").get_comm_workers()
    share_cores(workers.Split_type(mpi.COMM_TYPE_SHARED))


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)
