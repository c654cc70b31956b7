"""What a small file may ask for: how much memory this process can have, and how large a packed file can become.

A header of a few bytes can claim an image of a terabyte. Readers ask here before they allocate anything.
"""

import contextlib
import functools
import os
import pathlib

# Deflate, in PNG, gzip and TIFF, makes bytes at most 1032 times as many.
DEFLATE = 1100
CGROUPS, OWN_GROUPS = pathlib.Path("/sys/fs/cgroup"), pathlib.Path("/proc/self/cgroup")


def memory_limit():
    """Return how many bytes this process can have: the least of what the computer, a container and `ulimit -v` allow.

    Infinity if the system does not say it.
    """
    return min(_of_the_computer(), _of_cgroups(), _of_the_process())


def refuse_too_large(size, what):
    """Raise a ValueError if `size` bytes, read with a copy beside them, are more than this process can have.

    `what` is the subject of the sentence: "a.tif, 8 × 8 pixels of uint8,".
    """
    refuse_beyond_memory(2 * size, f"{what} would take", "memory to read", "cut it into parts, or make it smaller")


def refuse_beyond_memory(size, what, purpose, advice):
    """Raise a ValueError if `size` bytes are more than this process can have.

    The sentence: ``<what> 12.0 GiB of <purpose>, and this computer has 8.0 GiB: <advice>.``
    """
    limit = memory_limit()
    if size > limit:
        raise ValueError(
            f"{what} {in_gib(size)} GiB of {purpose}, and this computer has {limit / 2**30:.1f} GiB for it: {advice}."
        )


def in_gib(size):
    """Return a number of bytes, which may be very large, in GiB."""
    gib = size / 2**30
    return f"{gib:.1f}" if gib < 1e7 else f"{gib:.1e}"


def refuse_impossible(size, stored, factor, what):
    """Raise an EOFError if `stored` bytes of a packed file cannot hold what its header asks for.

    Parameters
    ----------
    size : int
        Bytes that the header asks for.
    stored : int
        Bytes in the file.
    factor : int
        How many times as many the packing can make of them at most.
    what : str
        The subject of the sentence: "it".
    """
    if size > max(stored, 1) * factor:
        raise EOFError(f"{what} has {stored} bytes, too few for the {in_gib(size)} GiB that its header asks for")


@functools.cache
def _of_the_computer():
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not on Windows
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return float("inf")


@functools.cache
def _of_cgroups():
    """Return the least limit of the control groups of this process (Linux): of its container, or its batch job."""
    found = [float("inf")]
    with contextlib.suppress(OSError, ValueError):
        for line in OWN_GROUPS.read_text(encoding="utf-8").splitlines():
            _, kinds, place = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            root = CGROUPS / "memory" if kinds else CGROUPS
            name = "memory.limit_in_bytes" if kinds else "memory.max"
            folder = root / place.lstrip("/")
            for each in (folder, *folder.parents):
                if each != root and root not in each.parents:
                    break
                with contextlib.suppress(OSError, ValueError):  # "max", or no such file here
                    found.append(int((each / name).read_text(encoding="utf-8")))
    return min(found)


def _of_the_process():
    """Return what `ulimit -v` leaves, which counts all that a process has mapped."""
    with contextlib.suppress(ImportError, OSError, ValueError, AttributeError):  # not on Windows
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            pages = int(pathlib.Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
            return max(0, limit - pages * os.sysconf("SC_PAGE_SIZE"))
    return float("inf")
