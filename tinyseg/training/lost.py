"""Notice that one of several processes has ended, so that the others do not wait for it for ever.

MPI does not say so: who waits for a message waits. Here each process holds a connection to the first. The operating
system closes it when a process ends in whatever way; if its computer fails, the others hear no answer any more. The
first tells the others who it was. All notice it when they next wait for each other.
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
STRANGER = 1  # seconds for a process to say that it is one
SILENCE = 5, 3, 4  # seconds without a word, seconds between questions, questions without an answer
GRACE = 25  # seconds until a process ends that waits for another by NCCL, which cannot be called back
FAREWELL = 2**32 - 1  # in the place of a rank: all is done


class ProcessLost(RuntimeError):
    """A process of the group has ended, and this one cannot go on without it."""


class Watch:
    """The connections between the processes of a group.

    Parameters
    ----------
    rank, size : int
    gather : callable
        As `Group.gather`.

    Attributes
    ----------
    lost : int or None
        The number of a process that has ended.
    grace : float or None
        Seconds after which this process ends too then, if it has not noticed it.
    """

    lost: int | None = None
    grace: float | None = None

    def __init__(self, rank: int, size: int, gather: Callable[[Any], list[Any]]) -> None:
        self.rank, self.size = rank, size
        self._thread: threading.Thread | None = None
        self._others: dict[socket.socket, int] = {}
        try:
            self._connect(gather)
        except OSError as error:
            warnings.warn(
                f"The processes cannot connect to the first one ({error}): if one ends, the others may wait for it.",
                stacklevel=2,
            )
            return
        self._thread = threading.Thread(target=self._look, name="tinyseg-watch", daemon=True)
        self._thread.start()

    def _connect(self, gather):
        here, secret = socket.gethostname(), os.urandom(16)
        alone = len(set(gather(here))) == 1  # on one machine nobody else needs to get in
        server = None
        if self.rank == 0:
            with contextlib.suppress(OSError):
                server = socket.create_server(("localhost" if alone else "", 0), backlog=self.size)
                server.settimeout(CONNECT)
        first = gather((here, server.getsockname()[1], secret) if server else None)[0]
        if first is None:
            raise OSError("it cannot listen")
        if self.rank > 0:
            host, port, secret = first
            connection = socket.create_connection(("localhost" if host == here else host, port), CONNECT)
            connection.sendall(secret + struct.pack("!I", self.rank))
            self._others[connection] = 0
            return
        with server:
            while len(self._others) < self.size - 1:
                connection, _ = server.accept()
                connection.settimeout(STRANGER)
                with contextlib.suppress(OSError):
                    said = _receive(connection, len(secret) + 4)
                    if said.startswith(secret):
                        self._others[connection] = struct.unpack("!I", said[len(secret) :])[0]
                if connection not in self._others:  # somebody who looks for open ports
                    connection.close()

    def _look(self):
        """Wait until a connection is closed without a farewell, or the first says that another's was."""
        with selectors.DefaultSelector() as selector:
            for connection in self._others:
                keep_asking(connection)
                selector.register(connection, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    said = b""
                    with contextlib.suppress(OSError):
                        said = _receive(key.fileobj, 4)
                    selector.unregister(key.fileobj)
                    who = struct.unpack("!I", said)[0] if len(said) == 4 else self._others[key.fileobj]
                    if who != FAREWELL:
                        self._note(who)
                        return

    def _note(self, rank):
        self.lost = rank
        if self.rank == 0:
            self._tell(rank)
        if self.grace is not None:
            timer = threading.Timer(self.grace, self._end)
            timer.daemon = True
            timer.start()

    def _tell(self, rank):
        for connection in self._others:
            with contextlib.suppress(OSError):
                connection.sendall(struct.pack("!I", rank))

    def _end(self):
        with contextlib.suppress(OSError, ValueError):
            print(f"ProcessLost: {self._say()}", file=sys.stderr, flush=True)
        os._exit(1)

    def _say(self):
        return (
            f"process {self.lost + 1} of {self.size} has ended, and the others cannot go on without it: see what it "
            "said last. What was written is whole; go on with --resume."
        )

    def check(self) -> None:
        """Raise ProcessLost if a process has ended."""
        if self.lost is not None:
            raise ProcessLost(self._say())

    def close(self) -> None:
        """Say farewell when all is done, and wait until the others do."""
        self._tell(FAREWELL)
        if self._thread is not None:
            self._thread.join()
        for connection in self._others:
            connection.close()


def _receive(connection, number):
    """Return so many bytes; less if the connection is closed before."""
    found = b""
    while len(found) < number and (more := connection.recv(number - len(found))):
        found += more
    return found


def keep_asking(connection):
    """Let the system ask whether the computer at the other end is there, where it can be told how often."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in zip(("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"), SILENCE, strict=True):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
