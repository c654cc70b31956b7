"""Fingerprints of what a run reads, so that it never goes on with other data than it began with.

A run keeps a dict of fingerprints, one for each thing that it reads (``{"training images": "9f86d08…", …}``). When it
is resumed, the same things are read again, and `refuse_changed` names those that differ.
"""

import hashlib
import os

import numpy as np


def fingerprint(*parts):
    """Return the SHA-1 of arrays and texts, as 40 hexadecimal digits.

    Parameters
    ----------
    *parts : ndarray or str
        Of an array, its shape and type count besides its values.
    """
    digest = hashlib.sha1(usedforsecurity=False)
    for part in parts:
        if isinstance(part, str):
            content = part.encode()
            header = f"str {len(content)} "
        else:
            content = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
            header = f"{part.dtype.str} {part.shape} "
        digest.update(header.encode())
        digest.update(content)
    return digest.hexdigest()


def fingerprint_of_file(path):
    """Return the SHA-1 of the content of a file, as 40 hexadecimal digits.

    What is there and is no regular file is an OSError: a pipe, or a link to a device, could be read without end.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f"{path} is a folder, a device or a pipe: expected a file.")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()


def refuse_changed(before, now, run):
    """Raise a ValueError that names what a resumed run does not find as it was.

    Parameters
    ----------
    before, now : dict of str to str
        Fingerprints of the same things when the run began and now, by name.
    run : str or Path
        The run, for the message.
    """
    changed = [name for name in before | now if before.get(name) != now.get(name)]
    if changed:
        raise ValueError(
            f"this is not the data that {run} was begun with: {', '.join(changed)} differ. "
            "Give the data as they were, or begin a new run: without --resume, and with another --out."
        )
