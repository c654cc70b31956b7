"""Several processes that train together, as `mpiexec -n 4 tinyseg train-isbi …` starts them, on one machine or many.

A `Group` is what a process knows of the others. Sums over all of them are made by recursive doubling: with P processes,
a power of two, process r exchanges its sum with process r ^ 1, then with r ^ 2, r ^ 4 …, and adds what it gets. Since
a + b = b + a to the last bit, all end with the same bits, those of one binary tree over the processes.

`Group` is one process alone, `Mpi` are several, which mpi4py connects. Arrays of a GPU go through the memory of the
computer, or from GPU to GPU by `Nccl`, if each process has one of its own.
"""

import contextlib
import importlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from tinyseg.autograd import Array
from tinyseg.backend import device_of, devices, to_device, to_numpy
from tinyseg.training.lost import GRACE, ProcessLost, Watch

Value = TypeVar("Value")
# Which process this is and how many a launcher has started: of Open MPI, of MVAPICH, of MPICH and Intel MPI, of Slurm's
# srun, which may itself have started one of the others.
LAUNCHERS = {
    "OMPI_COMM_WORLD_RANK": "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK": "MV2_COMM_WORLD_SIZE",
    "PMI_RANK": "PMI_SIZE", "SLURM_PROCID": "SLURM_STEP_NUM_TASKS",
}  # fmt: skip
NOTICE = 3  # seconds in which a process that has ended is noticed
LONGEST_PAUSE = 2e-3  # seconds between two looks whether a message has come
SPIN = 2e-3  # seconds in which there is no pause


class Group:
    """A process that trains alone.

    Attributes
    ----------
    rank, size : int
        Which process this is, from 0, and how many there are.
    threads : bool
        Whether another thread than the main one may call it, one at a time.
    """

    rank, size = 0, 1
    threads = False

    def sum(self, arrays: list[Array]) -> list[Array]:
        """Return the sums of the arrays of all processes, which are changed: the same bits in each."""
        return arrays

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all processes, in their order. They are sent by pickle."""
        return [value]

    def from_first(self, make: Callable[[], Value]) -> Value:
        """Return what ``make()`` returns in the first process, where alone it is called; the others wait for it."""
        return self.gather(make() if self.rank == 0 else None)[0]  # type: ignore[return-value]

    def first_alone(self, make: Callable[[], Value]) -> Value:
        """Return what ``make()`` returns. It is called in the first process, and when it is done there, in the others.

        So what it writes for later, such as a cache, is there for them.
        """
        made = [make()] if self.rank == 0 else []
        self.gather(None)
        return made[0] if made else make()

    def largest(self, number: int) -> int:
        """Return the largest of the numbers of all processes."""
        return max(self.gather(number))

    def take_gpu(self) -> None:
        """Compute on a GPU of this machine that no other process has, if there are enough."""

    def wait_for_loss(self, seconds: float) -> int | None:
        """Return the number of a process that has ended, or ends within some seconds; None if none does."""
        return None

    def leave(self) -> None:
        """Wait until all processes have come to their end. One that ends without this ends the others."""


ALONE = Group()


class Mpi(Group):
    """Processes that mpi4py connects.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
    threads : bool
        Whether MPI can be called by another thread than the main one, one at a time.
    """

    def __init__(self, comm: Any, threads: bool = False) -> None:
        self.comm, self.rank, self.size, self.left = comm, comm.Get_rank(), comm.Get_size(), False
        self.watch: Watch | None = None
        self.watch = Watch(self.rank, self.size, self.gather)
        self.nccl: Nccl | None = None
        self.threads = threads

    def take_gpu(self) -> None:
        hosts = self.gather(socket.gethostname())
        mine = [k for k, host in enumerate(hosts) if host == hosts[self.rank]]
        runtime = devices.cp.cuda.runtime
        number = runtime.getDeviceCount()
        runtime.setDevice(mine.index(self.rank) % number)
        gpus = self.gather((hosts[self.rank], runtime.deviceGetPCIBusId(mine.index(self.rank) % number)))
        try:
            there = bool(importlib.import_module("cupy.cuda.nccl"))
        except ImportError:
            there = False
        if all(self.gather(there)) and len(set(gpus)) == self.size:  # NCCL takes no GPU twice
            self.nccl = Nccl(self)
            if self.watch is not None:
                self.watch.grace = GRACE

    def sum(self, arrays: list[Array]) -> list[Array]:
        for partner in self._partners():
            with self._loss_instead():
                found = self._swap(arrays, partner)
            arrays = add(arrays, found)
        return arrays

    def gather(self, value: Value) -> list[Value]:
        values = {self.rank: value}
        for partner in self._partners():
            with self._loss_instead():
                values |= self._swap_objects(values, partner)
        return [values[k] for k in range(self.size)]

    def wait_for_loss(self, seconds: float) -> int | None:
        end = time.monotonic() + seconds
        while self.watch is not None and self.watch.lost is None and time.monotonic() < end:
            time.sleep(LONGEST_PAUSE)
        return None if self.watch is None else self.watch.lost

    def leave(self) -> None:
        if self.left:
            return
        self.gather(None)
        self.left = True
        if self.watch is not None:
            self.watch.close()
        importlib.import_module("mpi4py.MPI").Finalize()

    @contextlib.contextmanager
    def _loss_instead(self):
        """Raise ProcessLost where MPI fails because a process has ended: reading its memory, say."""
        try:
            yield
        except RuntimeError as error:  # as mpi4py's Exception is
            if isinstance(error, ProcessLost) or self.wait_for_loss(NOTICE) is None:
                raise
            self.watch.check()

    def _partners(self):
        """Yield the processes to exchange with, one after the other."""
        distance = 1
        while distance < self.size:
            yield self.rank ^ distance
            distance *= 2

    def _swap(self, arrays, partner):
        """Send arrays to a process, and return what it sends: arrays of the same shapes and types."""
        if self.nccl is not None:
            on_gpu = [k for k, a in enumerate(arrays) if device_of(a) == "gpu" and a.size]
            rest = [k for k in range(len(arrays)) if k not in on_gpu]
            found = dict(zip(on_gpu, self.nccl.swap([arrays[k] for k in on_gpu], partner), strict=True))
            found |= zip(rest, self._swap_by_host([arrays[k] for k in rest], partner), strict=True)
            return [found[k] for k in range(len(arrays))]
        return self._swap_by_host(arrays, partner)

    def _swap_by_host(self, arrays, partner):
        """Do the same through the memory of the computer."""
        here = [np.asarray(to_numpy(a), order="C") for a in arrays]
        there = [np.empty_like(a) for a in here]
        requests = [self.comm.Irecv(a, partner, tag) for tag, a in enumerate(there)]
        requests += [self.comm.Isend(a, partner, tag) for tag, a in enumerate(here)]
        for request in requests:
            self._wait(request.Test)
        return [to_device(a, device_of(b)) for a, b in zip(there, arrays, strict=True)]

    def _swap_objects(self, value, partner):
        sent = self.comm.isend(value, partner, tag=1000)
        self._wait(lambda: self.comm.Iprobe(partner, tag=1000))
        found = self.comm.recv(source=partner, tag=1000)
        self._wait(lambda: sent.test()[0])
        return found

    def _wait(self, arrived):
        """Wait for a message, without keeping a core from those who compute; Python handles signals meanwhile."""
        start, pause = time.monotonic(), 1e-5
        spin = SPIN if threading.current_thread() is threading.main_thread() else 0  # where others compute meanwhile
        while not arrived():
            if time.monotonic() - start >= spin:
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            if self.watch is not None:
                self.watch.check()


class Nccl:
    """Exchange arrays between GPUs, of which each process has one. Each process makes one at the same time.

    Parameters
    ----------
    group : Group
    """

    def __init__(self, group: Group) -> None:
        self.nccl = importlib.import_module("cupy.cuda.nccl")
        name = group.from_first(self.nccl.get_unique_id)
        self.communicator = self.nccl.NcclCommunicator(group.size, name, group.rank)
        self.types = {"f2": self.nccl.NCCL_FLOAT16, "f4": self.nccl.NCCL_FLOAT32, "f8": self.nccl.NCCL_FLOAT64}

    def swap(self, arrays: list[Any], partner: int) -> list[Any]:
        """Send arrays to a process, and return what it sends: arrays of the same shapes and types."""
        cp = devices.cp
        here = [cp.ascontiguousarray(a) for a in arrays]
        there, stream = [cp.empty_like(a) for a in here], cp.cuda.get_current_stream().ptr
        self.nccl.groupStart()  # so that both can send at the same time
        for a, b in zip(here, there, strict=True):
            number, kind = a.size, self.types[a.dtype.str[1:]]
            self.communicator.send(a.data.ptr, number, kind, partner, stream)
            self.communicator.recv(b.data.ptr, number, kind, partner, stream)
        self.nccl.groupEnd()
        return there


def add(arrays: list[Array], others: list[Array]) -> list[Array]:
    """Return the sums of arrays and others; where an array is no single number, it is changed and returned."""
    for k, b in enumerate(others):
        arrays[k] += b
    return arrays


def check_same_start(group: Group, **what: Any) -> None:
    """Raise a ValueError unless all processes begin with the same; `what` is that by name, values that can be printed.

    The message names what differs.
    """
    starts = group.gather({name: str(value) for name, value in what.items()})
    for k, start in enumerate(starts):
        differs = [name for name in start if start[name] != starts[0][name]]
        if differs:
            name = differs[0]
            raise ValueError(
                f"process {k + 1} of {group.size} begins with another {', '.join(differs)} ({name}: {start[name]}, and "
                f"of the first {starts[0][name]}): all need the same options and data, on a disk that all can read. "
                "Processes that are to train apart must not know of their launcher: see docs/howto/cluster.md."
            )


def join() -> Group:
    """Return the group of the processes that were started together by mpiexec or srun; `ALONE` if there is one.

    On each machine the cores are divided among its processes, unless NUMBA_NUM_THREADS says how many threads each has.

    Raises
    ------
    RuntimeError
        mpi4py is not there, or does not belong to the launcher.
    ValueError
        The number of processes is no power of two.
    """
    known = [(rank, int(os.environ[size])) for rank, size in LAUNCHERS.items() if os.environ.get(size, "").isdecimal()]
    if not known or known[0][1] <= 1:
        return ALONE
    rank, launched = known[0]
    try:
        return _join(launched)
    except (RuntimeError, ValueError):
        time.sleep(0 if os.environ.get(rank) == "0" else 2)  # the first says it for all
        raise


def _join(launched):
    """Return the group of so many processes."""
    try:
        # A process that fails must not wait for the others at its exit, where they would have to end MPI together.
        importlib.import_module("mpi4py").rc.finalize = False
        mpi = importlib.import_module("mpi4py.MPI")
    except ImportError as error:
        raise RuntimeError(
            f"{launched} processes were started together, and they find each other by mpi4py, which cannot be used "
            f"({error}): pip install 'tinyseg[distributed]', or start one process."
        ) from None
    comm = mpi.COMM_WORLD
    if comm.Get_size() != launched:
        raise RuntimeError(
            f"{launched} processes were started together, and mpi4py sees {comm.Get_size()}: it was built for another "
            "MPI than that of mpiexec or srun. Use the mpiexec of the MPI that mpi4py.MPI.Get_library_version() names; "
            "with srun, try --mpi=pmi2 or --mpi=pmix."
        )
    if launched & (launched - 1):
        raise ValueError(
            f"2, 4, 8, … processes can train together, and {launched} were started: give mpiexec another -n."
        )
    share_cores(comm.Split_type(mpi.COMM_TYPE_SHARED))
    if hasattr(signal, "SIGUSR1") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # MPICH sends it when a process has failed: `Watch` sees it too
    return Mpi(comm, mpi.Query_thread() >= mpi.THREAD_SERIALIZED)


def share_cores(machine: Any) -> None:
    """Give this process its share of the cores of its machine, whose processes are the communicator `machine`."""
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(devices.cores()))
    all_cores = set().union(*machine.allgather(mine))
    devices.use_threads(max(1, min(len(mine), len(all_cores) // machine.Get_size())))
