"""The system's errors of writing, explained: what could not be written, why, and what to do."""

import contextlib
import errno
import os

WINDOWS = os.name == "nt"  # there no file can be renamed, replaced or deleted that a program has open


@contextlib.contextmanager
def explaining(path, size=0):
    """Explain the system's errors about a file or folder in a sentence; their class and ``errno`` stay the same.

    `size` is the number of bytes that were to be written, if it is known.
    """
    try:
        yield
    except OSError as error:
        sentence = f"{path} could not be written: {error.strerror or error}."
        if error.errno == errno.ENOENT and not path.parent.is_dir():
            sentence += f" The folder {path.parent} does not exist: make it first."
        elif error.errno in (errno.ENOSPC, errno.EDQUOT):
            needed = f" Up to {size / 2**20:.1f} MiB are needed." if size else ""
            sentence += f"{needed} Make room or choose another folder."
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            is_open = WINDOWS and error.errno != errno.EROFS and path.is_file()
            sentence += " Close the program that has it open, if one has." if is_open else ""
            sentence += " Choose another folder, or ask for permission to write there."
        elif error.errno == errno.EFBIG:
            sentence += " A limit of the size of files (ulimit -f, or the disk's) is reached: raise it."
        elif error.errno == errno.EEXIST:
            sentence += " Move it elsewhere, or choose another name."
        explained = type(error)(sentence)
        explained.errno = error.errno
        raise explained from error
