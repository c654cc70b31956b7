"""Places of the campaign of `environment` that are limits of a process, other users, and containers."""

import os
import pathlib
import resource
import shutil
import subprocess

from tests.campaigns.environment_places import Missing, Place, a_program

NOBODY = 65534


TWO, FOUR = ("train_isbi", "predict"), ("train_isbi", "train_brats", "predict", "evaluate")


# ----- limits ----------------------------------------------------------------------
def limit(name, value, expected="either", words=()):
    def make(setting, command):
        kind = getattr(resource, name)
        setting.before = lambda: resource.setrlimit(kind, (value, value))
        setting.expected, setting.words = expected, words
        setting.killed = name == "RLIMIT_AS"  # LLVM, which compiles kernels, and OpenBLAS say so and end the process
        yield
        setting.before = None
        yield

    return make


def prefixed(*words):
    def make(setting, command):
        if shutil.which(words[0]) is None:
            raise Missing(f"there is no {words[0]}")
        a_program(*words, "true")
        setting.prefix = list(words)
        yield

    return make


def control_group(controller, file, value):
    """Put the command into a control group of its own, version 1."""

    def make(setting, command):
        group = pathlib.Path("/sys/fs/cgroup", controller, setting.room.name)
        try:
            group.mkdir()
        except OSError as error:
            raise Missing(f"control groups cannot be made ({error.strerror})") from None
        try:
            (group / file).write_text(str(value))
            setting.before = lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
            setting.expected, setting.killed = "either", True
            yield
            setting.before = None
            yield
        finally:
            group.rmdir()

    return make


# ----- users -----------------------------------------------------------------------
def as_user(uid, home=None, threads=None, **environment):
    """Run the command as somebody else, who may read everything, as in a container, and owns the folder of the case."""

    def make(setting, command):
        who = f"--reuid={uid} --regid={uid} --clear-groups --bounding-set=-dac_override"
        prefix = ["setpriv", *who.split(), "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        a_program(*prefix, "true")
        if home is None:
            setting.environment["HOME"] = str(setting.room / "home")
            os.mkdir(setting.environment["HOME"])
        else:
            setting.environment["HOME"] = home
        setting.environment |= environment
        subprocess.run(["chown", "-R", str(uid), setting.room, setting.room.parent / "slices"], check=True)
        setting.prefix = prefix
        if threads:
            setting.expected, setting.words = "either", ("ulimit", "hread")
            setting.environment |= dict.fromkeys(("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "8")
            setting.prefix = [*prefix, "prlimit", f"--nproc={threads}"]
            setting.close = True
        yield
        subprocess.run(["chown", "-R", "0", setting.room, setting.room.parent / "slices"], check=True)
        setting.prefix = []
        yield

    return make


def in_a_container(*commands):
    """Run in a mount name space of its own, after these commands of the shell; ``$BASE`` is the base folder."""

    def make(setting, command):
        script = " && ".join([*commands, 'exec "$@"']).replace("$BASE", str(setting.room.parent))
        a_program("unshare", "-m", "true")
        setting.prefix = ["unshare", "-m", "sh", "-c", script, "sh"]
        yield

    return make


# Nothing can be written but the folder of the campaign: not the package, not HOME, no temporary folder.
READ_ONLY_IMAGE = "mount -o remount,bind,ro /", "mount --bind $BASE $BASE", "mount -o remount,bind,rw $BASE"


def all_places():
    """Yield every place."""
    memory = ("memory", "OpenBLAS", "allocate", "shared object")  # the last are the words of what loads LLVM
    for megabytes in (300, 500, 700, 1000):
        yield Place("limits", f"{megabytes} MB of addresses", limit("RLIMIT_AS", megabytes * 10**6, words=memory))
    for files in (12, 20, 40):
        yield Place("limits", f"{files} open files", limit("RLIMIT_NOFILE", files, words=("open files",)))
    yield Place("limits", "a stack of 256 KiB", limit("RLIMIT_STACK", 1 << 18), FOUR)
    yield Place("limits", "a group of one thread", control_group("pids", "pids.max", 1), ("train_isbi", "predict"))
    yield Place("limits", "a group of 150 MB", control_group("memory", "memory.limit_in_bytes", 150 << 20))
    yield Place("limits", "nice", prefixed("nice", "-n", "19"), ("train_isbi", "evaluate"))
    yield Place("limits", "one processor", prefixed("taskset", "-c", "0"), ("train_isbi", "evaluate"))

    yield Place("users", "nobody", as_user(NOBODY))
    yield Place("users", "a number without a name and without HOME", as_user(54321, home="/nonexistent"))
    yield Place("users", "nobody, no temporary folder", as_user(NOBODY, home="/root", TMPDIR="/root"), FOUR)
    for threads in (1, 3):
        yield Place("users", f"at most {threads} threads", as_user(NOBODY, threads=threads))
    yield Place("users", "a read-only image", in_a_container(*READ_ONLY_IMAGE))
    yield Place("users", "no /proc", in_a_container("umount -l /proc"), ("train_isbi", "predict"))
    yield Place(
        "users", "no shared memory", in_a_container("mount -t tmpfs -o ro t /dev/shm"), ("train_isbi", "predict")
    )
    yield Place("users", "no network", prefixed("unshare", "-n"), ("train_isbi", "tables"))
