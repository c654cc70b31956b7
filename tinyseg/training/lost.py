"""Notice that one of several processes has ended, so that the others do not wait for it for ever.

MPI does not say so: who waits for a message waits. Here each process holds a connection to the first. The operating
system closes it when a process ends in whatever way; if its computer fails, the others hear no answer any more.
"""

import contextlib
import os
import selectors
import socket
import struct
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

CONNECT = 10  # seconds for the connections at the start
SILENCE = 5, 3, 4  # seconds without a word, seconds between questions, questions without an answer
GRACE = 25  # seconds for a process to end by itself, after another was lost


class ProcessLost(RuntimeError):
    """A process of the group has ended, and this one cannot go on without it."""


class Watch:
    """The connections between the processes of a group.

    Parameters
    ----------
    rank, size : int
    gather : callable
        As `Group.gather`.
    """

    def __init__(self, rank: int, size: int, gather: Callable[[Any], list[Any]]) -> None:
        self.size, self.lost = size, ""
        self._thread: threading.Thread | None = None
        self._others: dict[socket.socket, int] = {}
        try:
            self._connect(rank, gather)
        except OSError as error:
            warnings.warn(
                f"The processes cannot connect to the first one ({error}): if one ends, the others may wait for it.",
                stacklevel=2,
            )
            return
        self._thread = threading.Thread(target=self._look, name="tinyseg-watch", daemon=True)
        self._thread.start()

    def _connect(self, rank, gather):
        here, secret = socket.gethostname(), os.urandom(16)
        server = None
        if rank == 0:
            with contextlib.suppress(OSError):
                server = socket.create_server(("", 0), backlog=self.size)
                server.settimeout(CONNECT)
        first = gather((here, server.getsockname()[1], secret) if server else None)[0]
        if first is None:
            raise OSError("it cannot listen")
        if rank > 0:
            host, port, secret = first
            connection = socket.create_connection(("localhost" if host == here else host, port), CONNECT)
            connection.sendall(secret + struct.pack("!I", rank))
            self._others[connection] = 0
            return
        with server:
            while len(self._others) < self.size - 1:
                connection, _ = server.accept()
                connection.settimeout(CONNECT)
                with contextlib.suppress(OSError):
                    said = connection.recv(len(secret) + 4, socket.MSG_WAITALL)
                    if said.startswith(secret):
                        self._others[connection] = struct.unpack("!I", said[len(secret) :])[0]
                if connection not in self._others:  # somebody who looks for open ports
                    connection.close()

    def _look(self):
        """Wait until a connection is closed without a farewell."""
        with selectors.DefaultSelector() as selector:
            for connection in self._others:
                keep_asking(connection)
                selector.register(connection, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    try:
                        farewell = key.fileobj.recv(1)
                    except OSError:
                        farewell = b""
                    selector.unregister(key.fileobj)
                    if not farewell:
                        self._note(self._others[key.fileobj])
                        return

    def _note(self, rank):
        self.lost = (
            f"process {rank + 1} of {self.size} has ended, and the others cannot go on without it: see what it said "
            "last. What was written is whole; go on with --resume."
        )
        timer = threading.Timer(GRACE, self._end)
        timer.daemon = True
        timer.start()

    def _end(self):
        """End the process, which is busy with something that does not ask whether all are there."""
        with contextlib.suppress(OSError, ValueError):
            print(f"ProcessLost: {self.lost}", file=sys.stderr, flush=True)
        os._exit(1)

    def check(self) -> None:
        """Raise ProcessLost if a process has ended."""
        if self.lost:
            raise ProcessLost(self.lost)

    def close(self) -> None:
        """Say farewell when all is done, and wait until the others do."""
        for connection in self._others:
            with contextlib.suppress(OSError):
                connection.sendall(b".")
        if self._thread is not None:
            self._thread.join()
        for connection in self._others:
            connection.close()


def keep_asking(connection):
    """Let the system ask whether the computer at the other end is there, where it can be told how often."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in zip(("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"), SILENCE, strict=True):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
