"""Run tinyseg as on Windows, as far as Linux can be made to look like it: ``python like_windows.py predict …``.

What Python does not have on Windows is taken away; /proc cannot be read; a file that is open or mapped can be neither
replaced nor deleted; the output is in the code page 1252. Paths stay those of Linux.
"""

import builtins
import ctypes
import importlib
import io
import mmap
import os
import shutil
import signal
import sys
import types

# Imported now, while they find what they need on Linux.
for library in ("asyncio", "multiprocessing", "numpy", "platform", "subprocess", "tempfile"):
    importlib.import_module(library)

MISSING = {
    os: "sched_getaffinity register_at_fork fork pread pwrite sysconf statvfs mkfifo O_NOFOLLOW O_NONBLOCK O_CLOEXEC",
    signal: "SIGHUP SIGALRM SIGPIPE SIGKILL SIGUSR1 pthread_kill pthread_sigmask siginterrupt setitimer",
    mmap: "MAP_PRIVATE MAP_ANONYMOUS MADV_HUGEPAGE",
}
POSIX = "/proc/", "/sys/"


def refuse_files_in_use(name):
    """Let a function of `os` refuse a file that this process has open or mapped."""
    function, links, listed, read = getattr(os, name), os.readlink, os.listdir, io.open

    def in_use(path):
        path = os.path.realpath(path)
        for descriptor in listed("/proc/self/fd"):
            try:
                if links(f"/proc/self/fd/{descriptor}") == path:
                    return True
            except FileNotFoundError:  # that of the listing
                pass
        with read("/proc/self/maps", "rb") as maps:
            return path.encode() in maps.read()

    def call(*paths, **options):
        for path in paths:
            if "dir_fd" not in options and in_use(path):
                raise PermissionError(13, "it is being used by another process", os.fspath(path))
        return function(*paths, **options)

    setattr(os, name, call)


def refuse_posix(function):
    """Return `open` without the files in which Linux says what it knows."""

    def call(path, *arguments, **options):
        if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(POSIX):
            raise FileNotFoundError(2, "No such file or directory", os.fspath(path))
        return function(path, *arguments, **options)

    return call


def load(name, *arguments, find=ctypes.CDLL, **options):
    """Load a library; there is no None, which stands for the program itself."""
    if name is None:
        raise TypeError("bad argument type for built-in operation")
    return find(name, *arguments, **options)


def look_like_windows():
    """Change this process, before tinyseg is imported."""
    for name in ("replace", "rename", "unlink", "remove"):
        refuse_files_in_use(name)
    for module, names in MISSING.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    for name in ("fcntl", "resource"):
        sys.modules[name] = None  # an import of it fails
    builtins.open = io.open = refuse_posix(io.open)
    ctypes.CDLL = load
    shutil.disk_usage = lambda path: types.SimpleNamespace(total=2**40, used=0, free=2**40)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="cp1252")


if __name__ == "__main__":
    look_like_windows()
    from tinyseg.commands.main import main
    from tinyseg.data import files, os_errors

    os_errors.WINDOWS = os.environ.get("TINYSEG_TEST_WINDOWS") != "0"  # 0: to see that the rest would notice
    files.FOLDS_NAMES = True
    sys.argv[0] = "tinyseg"
    main()
