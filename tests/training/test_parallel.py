"""What processes of a group tell each other, and what happens if one of them ends."""

import contextlib
import os
import socket
import sys
import threading
import time
import types

import numpy as np
import pytest
from fake_mpi import Nccl, run_processes

from tinyseg.backend import devices
from tinyseg.training import lost, parallel
from tinyseg.training.lost import ProcessLost
from tinyseg.training.parallel import ALONE, LAUNCHERS, Mpi, join

SIZES = [2, 4, 8]


def in_group(work):
    """Make a group, do the work with it, and leave it."""

    def start(comm):
        group = Mpi(comm)
        found = work(group)
        group.gather(None)
        group.watch.close()
        return found

    return start


# ----- what is said ---------------------------------------------------------------------
@pytest.mark.parametrize("size", SIZES)
def test_sums_are_the_same_bits_everywhere_and_those_of_one_tree(size):
    rng = np.random.default_rng(0)
    numbers = (rng.standard_normal((size, 1000)) * 10.0 ** rng.integers(-6, 6, (size, 1000))).astype(np.float32)

    def work(group):
        one = np.float64(group.rank)
        return group.sum([numbers[group.rank].copy(), one, np.zeros(0, np.float32)])

    expected = list(numbers)
    while len(expected) > 1:
        expected = [a + b for a, b in zip(expected[::2], expected[1::2], strict=True)]
    for large, small, nothing in run_processes(size, in_group(work)):
        np.testing.assert_array_equal(large, expected[0])
        assert small == sum(range(size)) and small.shape == () and nothing.shape == (0,)


@pytest.mark.parametrize("size", SIZES)
def test_values_are_gathered_in_order_and_the_first_decides(size):
    def work(group):
        calls = []
        first = group.from_first(lambda: calls.append(group.rank) or {"scores": [1.5, None]})
        assert calls == ([0] if group.rank == 0 else [])
        return group.gather(str(group.rank)), group.largest(group.rank % 3), first

    for values, largest, first in run_processes(size, in_group(work)):
        assert values == [str(k) for k in range(size)]
        assert largest == max(k % 3 for k in range(size)) and first == {"scores": [1.5, None]}


def test_the_others_begin_when_the_first_is_done():
    order = []

    def work(group):
        return group.first_alone(lambda: order.append(group.rank) or group.rank)

    assert run_processes(4, in_group(work)) == [0, 1, 2, 3]
    assert order[0] == 0 and sorted(order) == [0, 1, 2, 3]


def test_a_process_alone_is_a_group_too():
    a = [np.ones(3)]
    assert (ALONE.rank, ALONE.size, ALONE.sum(a)) == (0, 1, a)
    assert (ALONE.gather(7), ALONE.largest(7), ALONE.from_first(lambda: 7), ALONE.first_alone(lambda: 7)) == (
        [7],
        7,
        7,
        7,
    )
    assert ALONE.take_gpu() is ALONE.leave() is ALONE.wait_for_loss(0) is None


# ----- GPUs ------------------------------------------------------------------------------
@pytest.mark.parametrize("gpus", [1, 2, 4])
def test_arrays_of_gpus_go_through_nccl_if_each_process_has_one(gpus, stand_in, monkeypatch):
    nccl, taken = Nccl(), []
    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: gpus, setDevice=taken.append, deviceGetPCIBusId=lambda k: f"0000:{k}:00.0"
    )  # fmt: skip
    monkeypatch.setattr(devices.cp.cuda, "runtime", runtime)
    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", nccl)
    numbers = np.random.default_rng(1).standard_normal((4, 5, 3)).astype(np.float32)

    def work(group):
        group.take_gpu()
        arrays = [devices.cp.asarray(numbers[group.rank]).T, np.float64(group.rank), devices.cp.zeros(0, "float32")]
        large, small, nothing = group.sum(arrays)
        assert type(large) is type(nothing) is devices.cp.ndarray
        return large.get(), small, group.nccl is not None

    for large, small, by_nccl in run_processes(4, in_group(work)):
        np.testing.assert_array_equal(large, ((numbers[0] + numbers[1]) + (numbers[2] + numbers[3])).T)
        assert small == 6 and by_nccl == (gpus == 4)
    assert sorted(taken) == sorted(k % gpus for k in range(4))


# ----- one that ends ---------------------------------------------------------------------
def cut(group):
    """End the connections of a process, as the operating system does with those of one that ends, and tells nobody."""
    group.watch._tell = lambda rank: None
    for connection in group.watch._others:
        with contextlib.suppress(OSError):  # the other side was faster
            connection.shutdown(socket.SHUT_RDWR)
    group.watch._thread.join()
    for connection in group.watch._others:
        connection.close()


@pytest.mark.parametrize("dead", [0, 2])
def test_the_others_hear_which_process_has_ended(dead):
    all_there, all_heard = threading.Barrier(4, timeout=60), threading.Barrier(3, timeout=60)

    def work(comm):
        group = Mpi(comm)
        all_there.wait()
        if comm.rank == dead:
            cut(group)
            return "ended"
        with pytest.raises(
            ProcessLost, match=f"process {dead + 1} of 4 has ended, and the others cannot go on without"
        ):
            group.gather(None)
        assert group.wait_for_loss(0) == dead
        all_heard.wait()  # the first is still there when the others hear of another
        cut(group)
        return "heard"

    found = run_processes(4, work)
    assert found.count("heard") == 3 and found[dead] == "ended"


@pytest.mark.parametrize("ends", [True, False])
def test_mpi_that_fails_because_a_process_has_ended_is_told_so(ends, monkeypatch):
    """It reads large messages from the memory of the other process, which may be gone before anybody has noticed."""
    monkeypatch.setattr(parallel, "NOTICE", 20 if ends else 0.05)
    all_there, failed = threading.Barrier(2, timeout=60), threading.Barrier(2, timeout=60)

    def fail(*args):
        failed.wait()
        raise RuntimeError("MPI_ERR_OTHER: known error not in list")

    def work(comm):
        group = Mpi(comm)
        all_there.wait()
        if comm.rank == 1:
            failed.wait()
            time.sleep(0.2)
        else:
            comm.Irecv = fail
            words = "process 2 of 2 has ended" if ends else "known error"
            with pytest.raises(ProcessLost if ends else RuntimeError, match=words):
                group.sum([np.ones(3)])
        cut(group)
        return True

    assert run_processes(2, work) == [True, True]


def test_a_process_that_computes_is_not_ended_from_outside(monkeypatch):
    """It may be about to write: it ends when it next waits. Only what waits inside NCCL cannot be reached otherwise."""
    ended = []
    monkeypatch.setattr(lost.os, "_exit", ended.append)
    all_there = threading.Barrier(2)

    def work(comm):
        group = Mpi(comm)
        if comm.rank == 0:
            group.watch.grace = graces[-1]
        all_there.wait()
        if comm.rank == 0:
            group.watch._thread.join()
            time.sleep(0.3)
        cut(group)
        return True

    graces = [None]
    assert run_processes(2, work) == [True, True] and ended == []
    graces.append(0.05)
    assert run_processes(2, work) == [True, True] and ended == [1]


def test_a_stranger_at_the_door_is_not_taken_for_a_process(monkeypatch):
    create = socket.create_connection

    def after_a_stranger(address, timeout):
        with create(address, timeout) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return create(address, timeout)

    monkeypatch.setattr(socket, "create_connection", after_a_stranger)
    assert run_processes(2, in_group(lambda group: group.gather(1))) == [[1, 1], [1, 1]]


def test_processes_that_cannot_connect_go_on_with_a_warning(monkeypatch):
    def refused(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(socket, "create_server", refused)

    def work(comm):
        return Mpi(comm).gather(comm.rank)

    with pytest.warns(UserWarning, match="cannot connect to the first one .it cannot listen.: if one ends, the others"):
        assert run_processes(2, work) == [[0, 1], [0, 1]]


# ----- how they find each other ------------------------------------------------------------
@pytest.fixture
def launched(monkeypatch):
    """Let a launcher have started so many processes, of which MPI knows as many or others."""
    for name in (*LAUNCHERS, *LAUNCHERS.values(), "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)

    def launch(number, known=None, by="PMI_SIZE"):
        monkeypatch.setenv(by, str(number))
        world = types.SimpleNamespace(Get_size=lambda: number if known is None else known, Get_rank=lambda: 0)
        package = types.SimpleNamespace(rc=types.SimpleNamespace(finalize=None))
        monkeypatch.setitem(sys.modules, "mpi4py", package)
        monkeypatch.setitem(sys.modules, "mpi4py.MPI", types.SimpleNamespace(COMM_WORLD=world))

    return launch


def test_one_process_needs_no_mpi(launched, monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert join() is ALONE
    launched(1)
    assert join() is ALONE
    monkeypatch.setenv("PMI_SIZE", "many")
    assert join() is ALONE


def test_several_processes_without_mpi4py_are_told_what_is_missing(launched, monkeypatch):
    launched(4, by="OMPI_COMM_WORLD_SIZE")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(RuntimeError, match=r"4 processes were started together.*pip install 'tinyseg\[distributed\]'"):
        join()


def test_an_mpi_that_is_not_the_launchers_is_named(launched, monkeypatch):
    launched(4, known=1, by="SLURM_STEP_NUM_TASKS")
    monkeypatch.setenv("SLURM_PROCID", "0")
    with pytest.raises(RuntimeError, match="4 processes were started together, and mpi4py sees 1: it was built for an"):
        join()


def test_what_slurm_has_started_may_have_started_others(launched, monkeypatch):
    """mpirun inside an allocation starts a daemon on each machine by srun, and the daemons start the processes."""
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    launched(1, by="OMPI_COMM_WORLD_SIZE")
    assert join() is ALONE


def test_three_processes_are_refused(launched, monkeypatch):
    launched(3)
    monkeypatch.setenv("PMI_RANK", "0")
    with pytest.raises(ValueError, match="2, 4, 8, … processes can train together, and 3 were started"):
        join()


@pytest.mark.parametrize(("mine", "machine", "threads"), [
    ([0, 1, 2, 3], [[0, 1, 2, 3]] * 2, "2"),  # all may use all cores
    ([0, 1], [[0, 1], [2, 3]], "2"),  # the launcher has bound each to cores of its own
    ([0], [[0]] * 8, "1"),
])  # fmt: skip
def test_the_cores_of_a_machine_are_shared(launched, monkeypatch, mine, machine, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(mine), raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    del sys.modules["numba"]
    comm = types.SimpleNamespace(allgather=lambda own: [set(cores) for cores in machine], Get_size=lambda: len(machine))
    monkeypatch.setenv("NUMBA_NUM_THREADS", "7")
    parallel.share_cores(comm)
    assert os.environ["NUMBA_NUM_THREADS"] == "7"
    monkeypatch.delenv("NUMBA_NUM_THREADS")
    parallel.share_cores(comm)
    assert os.environ["NUMBA_NUM_THREADS"] == threads
    monkeypatch.delenv("NUMBA_NUM_THREADS")
