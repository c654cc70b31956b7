"""Hashes of the files that a run reads, remembered so that a file which has not changed is not read again.

    with Sources(folder) as sources:
        sources.sha1("BRATS_001.nii.gz")

A hash is remembered under the path of its file, with the file's size and times. The file system sets one of these
times, that of the last change, itself: a program that writes a file and turns its clock back does not deceive it.
"""

import contextlib
import threading
from pathlib import Path

from tinyseg.data.fingerprint import fingerprint_of_file
from tinyseg.data.json_files import read_sealed, write_sealed

RECORD = "sources.json"


class Sources(contextlib.AbstractContextManager):
    """Hashes of files, remembered in ``sources.json`` of a folder when the with-block ends."""

    def __init__(self, folder):
        self._record, self._lock = Path(folder) / RECORD, threading.Lock()
        self._known = self._read()
        self._found = {}

    def _read(self):
        with contextlib.suppress(OSError, ValueError):  # there is none, or it was damaged: the files are read again
            return read_sealed(self._record, dict[str, tuple[int, int, int, int, str]], "a record of hashes")
        return {}

    def sha1(self, path):
        """Return the SHA-1 of a file, 40 hexadecimal digits."""
        path = Path(path).resolve()
        status = path.stat()
        state = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
        *known, digest = self._known.get(str(path), (None,))
        if tuple(known) == state:
            return digest
        digest = fingerprint_of_file(path)
        with self._lock:
            self._found[str(path)] = (*state, digest)
        return digest

    def __exit__(self, *error):
        if self._found:  # another process may have written meanwhile: what it found is kept
            with contextlib.suppress(OSError):  # on a full disk the files are read again next time
                write_sealed(self._record, self._read() | self._found)
