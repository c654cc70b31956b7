"""Locks that keep two commands out of each other's way, and that end with their process, however it ends.

A lock is the operating system's (``flock``) on a small hidden file. It holds between processes and threads, containers,
and machines that share a disk. A process that is killed leaves the file and no lock, so the next one takes it.

    with locked("runs/isbi", "a training"):         # whoever else wants it meanwhile gets a BusyError
        ...

Where the system or the disk has no such locks (Windows, some network disks), nothing is locked.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import platform
import sys
import time

from tinyseg.data.os_errors import explaining
from tinyseg.data.undisturbed import undisturbed

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

BETWEEN_TRIES = 0.1  # seconds
PATIENCE = 3  # seconds to wait without a word
_held: set = set()  # descriptors of the locks that this process has


class BusyError(RuntimeError):
    """Another command has the lock; the message says which."""


class UnsupportedError(OSError):
    """There are no locks on this system or on this disk."""


@contextlib.contextmanager
def locked(folder, what, file=None, wait=False, shared=False):
    """Lock a folder, or one file in it, for the with-block.

    A folder that does not exist is made, and deleted at the end if nothing was written to it.

    Parameters
    ----------
    folder : path-like
    what : str
        What is done there, for whoever finds it locked: "a training".
    file : str, optional
        The name of the file that is locked, which need not exist. The lock of a folder does not lock its files.
    wait : bool
        Wait instead of raising an error, and say so on the standard error stream if it takes longer than `PATIENCE`.
    shared : bool
        Share the lock with others that do so; whoever wants it alone waits for all of them.

    Raises
    ------
    BusyError
        Another command has the lock, and `wait` is false.
    OSError
        The lock cannot be made, as in a folder where nothing may be written.
    """
    folder = pathlib.Path(folder)
    path = folder / (file or "")
    lock_file = folder / (f".{hashlib.sha1(os.fsencode(file)).hexdigest()[:16]}.lock" if file else ".lock")
    made = not folder.is_dir()
    descriptor = None
    try:
        with explaining(folder), contextlib.suppress(UnsupportedError):
            with undisturbed():
                descriptor = _take(lock_file, shared)
            if descriptor is None and not wait:
                raise BusyError(f"{path} is in use by {_holder(lock_file)}. Wait until it has ended, or give another.")
            began, said = time.monotonic(), False
            while descriptor is None:
                if not said and time.monotonic() - began >= PATIENCE:
                    print(f"{path} is in use by {_holder(lock_file)}: waiting for it.", file=sys.stderr, flush=True)
                    said = True
                time.sleep(BETWEEN_TRIES)
                with undisturbed():
                    descriptor = _take(lock_file, shared)
            _sign(descriptor, what)
        yield
    finally:
        if descriptor in _held:
            _held.remove(descriptor)
            if _is_at(lock_file, descriptor) and (not shared or lock(descriptor)):  # nobody else shares it
                lock_file.unlink(missing_ok=True)
            os.close(descriptor)
        if made:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def _let_go():
    """In a process that was forked, forget the locks: they are those of the process before it alone."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):  # Windows has none
    os.register_at_fork(after_in_child=_let_go)


def _sign(descriptor, what):
    """Write into a lock file who has the lock."""
    who = {"what": what, "process": os.getpid(), "machine": platform.node(), "since": time.strftime("%F %T")}
    with contextlib.suppress(OSError):  # on a full disk others do not learn who it is
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(who).encode(), 0)


def is_ours(descriptor):
    """Whether a lock file, open and locked, is empty or begins as `_sign` writes it."""
    start = os.pread(descriptor, 8, 0)
    return b'{"what":'.startswith(start)


def _take(file, shared=False):
    """Return the descriptor of a lock file that is now locked by this process, or None if another has it."""
    plain = getattr(os, "O_NOFOLLOW", 0)  # a link is refused: it could lead to any file
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        if fcntl is None:  # before there is a file that two commands would delete at the same time
            raise UnsupportedError("this system has no flock")
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | plain, 0o666)
        except PermissionError:  # the file is somebody else's, with whom this folder is shared
            descriptor = os.open(file, os.O_RDONLY | plain)
        try:
            taken = lock(descriptor, shared)
        except UnsupportedError:
            os.close(descriptor)
            file.unlink(missing_ok=True)
            raise
        if taken and _is_at(file, descriptor):
            if not is_ours(descriptor):
                os.close(descriptor)
                raise ValueError(f"{file} is no lock of tinyseg, and a lock of that name is needed: move it elsewhere.")
            _held.add(descriptor)
            return descriptor
        os.close(descriptor)
        if not taken:
            return None
        # Its last owner has deleted the file meanwhile: it is made again.


def lock(descriptor, shared=False):
    """Lock an open file, for this process alone or shared; return whether it is locked now, and not by another.

    Where there are no locks, it is an `UnsupportedError`.
    """
    if fcntl is None:
        raise UnsupportedError("this system has no flock")
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UnsupportedError(str(error)) from None
    return True


def _is_at(file, descriptor):
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.stat(file), os.fstat(descriptor))
    except OSError:
        return False


def _holder(file):
    """Say who has a lock, as far as it is known."""
    try:
        who = json.loads(file.read_bytes())
        known = f"{who['what']} (process {who['process']} on {who['machine']}, since {who['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        known = ""
    return known if known and known.isprintable() else "another command"
