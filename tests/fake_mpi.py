"""Processes of a group as threads: what `tinyseg.training.parallel` needs of an mpi4py communicator."""

import collections
import ctypes
import queue
import threading
import types

import numpy as np


class Request:
    """A message on its way, or one that is waited for."""

    def __init__(self, arrived=lambda: True):
        self.arrived = arrived

    def Test(self):  # noqa: N802, mpi4py's name
        return self.arrived()

    def test(self):
        return self.arrived(), None


class Comm:
    """The communicator of one thread."""

    def __init__(self, rank, size, boxes):
        self.rank, self.size, self.boxes = rank, size, boxes

    def Get_rank(self):  # noqa: N802
        return self.rank

    def Get_size(self):  # noqa: N802
        return self.size

    def isend(self, value, dest, tag=0):
        self.boxes[self.rank, dest, tag].put(value)
        return Request()

    def Isend(self, array, dest, tag=0):  # noqa: N802
        return self.isend(array.copy(), dest, tag)

    def Iprobe(self, source, tag=0):  # noqa: N802
        return not self.boxes[source, self.rank, tag].empty()

    def recv(self, source, tag=0):
        return self.boxes[source, self.rank, tag].get()

    def Irecv(self, array, source, tag=0):  # noqa: N802
        def arrived():
            if not self.Iprobe(source, tag):
                return False
            np.copyto(array, self.recv(source, tag))
            return True

        return Request(arrived)


def run_processes(size, work):
    """Call ``work(comm)`` in as many threads, and return what each returns; what one raises is raised."""
    boxes, found = collections.defaultdict(queue.Queue), {}

    def start(rank):
        try:
            found[rank] = work(Comm(rank, size, boxes))
        except BaseException as error:
            found[rank] = error

    threads = [threading.Thread(target=start, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    for rank in range(size):
        if isinstance(found.get(rank), BaseException):
            raise found[rank]
    return [found[rank] for rank in range(size)]


class Nccl:
    """CuPy's module cupy.cuda.nccl, for GPUs of threads: what is received is there at the end of a group of calls."""

    NCCL_FLOAT16, NCCL_FLOAT32, NCCL_FLOAT64 = 6, 7, 8
    sizes = {6: 2, 7: 4, 8: 8}

    def __init__(self):
        self.boxes, self.waiting, self.names = collections.defaultdict(queue.Queue), threading.local(), []

    def get_unique_id(self):
        self.names.append(f"group {len(self.names)}")
        return self.names[-1]

    def groupStart(self):  # noqa: N802, NCCL's name
        self.waiting.list = []

    def groupEnd(self):  # noqa: N802
        for box, pointer, size in self.waiting.list:
            content = self.boxes[box].get(timeout=60)
            assert len(content) == size
            ctypes.memmove(pointer, content, size)
        del self.waiting.list

    def NcclCommunicator(self, ndev, name, rank):  # noqa: N802
        assert name == self.names[-1] and 0 <= rank < ndev

        def send(pointer, count, kind, peer, stream):
            self.boxes[rank, peer].put(ctypes.string_at(pointer, count * self.sizes[kind]))

        def recv(pointer, count, kind, peer, stream):
            self.waiting.list.append(((peer, rank), pointer, count * self.sizes[kind]))

        return types.SimpleNamespace(send=send, recv=recv)
