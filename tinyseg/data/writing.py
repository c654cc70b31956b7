"""Writing files as a whole or not at all.

What is written goes to a file with a hidden temporary name in the same folder, is flushed to the disk, and gets its own
name then. Whoever writes a temporary file holds a lock on it (`tinyseg.data.locks`). If the process is killed, the file
stays and the lock does not: the next command that is to write into this folder deletes it (`check_writable`).
"""

import contextlib
import errno
import os
import pathlib
import re
import secrets
import shutil
import tempfile
import time
from typing import TypeAlias

from tinyseg.data import locks, os_errors
from tinyseg.data.os_errors import explaining
from tinyseg.data.undisturbed import undisturbed

FilePath: TypeAlias = str | os.PathLike[str]
"""Where a file or folder is: text, or a path of pathlib."""

PATIENCE = 3  # seconds in which a file that somebody has open may become free
BETWEEN_TRIES = 0.1
TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.(tmp|lock)")


@contextlib.contextmanager
def replacing(path, size=0):
    """Give a temporary file to write; at the end of the with-block it takes the place of the file at `path`.

    A crash, a full disk or an error in the block leaves the old file or the new one, never a part.

    Parameters
    ----------
    path : path-like
        Its folder must exist.
    size : int
        Bytes that are to be written, about, for the message if the disk is full.

    Returns
    -------
    context manager of a binary file, open for writing and reading

    Raises
    ------
    OSError
        The file cannot be written; the message names it and says what to do. Its class and ``errno`` are the system's.
        What is there and is no regular file, such as a folder or a device, is not replaced.
    """
    path = pathlib.Path(path)
    with contextlib.ExitStack() as cleanup:
        with explaining(path, size):
            if path.exists() and not path.is_file():
                raise OSError(errno.EEXIST, "it is a folder, a device or a pipe and not a regular file")
            with undisturbed():
                temporary, file = _begin_temporary(path)
                cleanup.callback(temporary.unlink, missing_ok=True)
                cleanup.callback(close_quietly, file)
        yield file
        with explaining(path, size):
            file.flush()
            os.fsync(file.fileno())
            if os_errors.WINDOWS:  # there an open file cannot be renamed
                file.close()
            rename(temporary, path)  # while it is locked


def rename(file, path):
    """Give a file another name; a file that has this name is replaced.

    Windows refuses that while a program has one of the two open, as a virus scanner or another command has it for a
    moment. It is tried for some seconds.
    """
    began = time.monotonic()
    while True:
        try:
            os.replace(file, path)
            return
        except PermissionError:
            if not os_errors.WINDOWS or time.monotonic() - began > PATIENCE:
                raise
        time.sleep(BETWEEN_TRIES)


def _begin_temporary(path):
    """Make an empty file with a hidden name in the folder of `path`, and lock it; return its path and the open file."""
    while True:
        temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")  # short, however long the name of `path` is
        file = open(temporary, "xb+")  # noqa: SIM115 (closed by `replacing`)
        try:
            mine = locks.lock(file.fileno()) and temporary.exists()
        except locks.UnsupportedError:
            mine = True
        if mine:
            return temporary, file
        file.close()  # `remove_stale` of another process took it before it was locked, and deletes it


def close_quietly(file):
    """Close a file that may be closed already, or on a full disk."""
    with contextlib.suppress(OSError, ValueError):
        file.close()


def write_atomically(path, content):
    """Write bytes or text to `path`, as `replacing` does, with its errors.

    Text is written as UTF-8; the name of a file that is no UTF-8 keeps its bytes.
    """
    content = content.encode(errors="surrogateescape") if isinstance(content, str) else content
    with replacing(path, len(content)) as file, explaining(pathlib.Path(path), len(content)):
        file.write(content)


def check_writable(folder, size=0):
    """Raise an OSError if files of `size` bytes in all cannot be written to a folder. It need not exist yet.

    Commands ask this before their work: a folder where nothing can be written is found at the start, not at the end.
    Temporary files that a killed process left there are deleted.
    """
    folder = pathlib.Path(folder)
    there = folder.absolute()
    while not os.path.lexists(there) and there != there.parent:  # of a drive that is not there is no parent
        there = there.parent
    with explaining(folder, size):
        if not there.is_dir():
            raise OSError(errno.ENOTDIR, f"{there} is not a folder")
        remove_stale(there)
        with tempfile.TemporaryFile(dir=there):
            pass
        if shutil.disk_usage(there).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def remove_stale(folder):
    """Delete temporary files and locks of files that killed processes left in a folder, which need not exist."""
    if not os.path.isdir(folder):
        return
    with os.scandir(folder) as entries:
        found = [entry.path for entry in entries if TEMPORARY.fullmatch(entry.name)]
    for path in found:
        with contextlib.suppress(OSError), open(path, "rb+") as file:  # an OSError: somebody else's, or not there
            if locks.lock(file.fileno()) and (path.endswith(".tmp") or locks.is_ours(file.fileno())):
                os.unlink(path)
