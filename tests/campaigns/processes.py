"""Commands as processes of their own: what they say, signals for them, and signals at a chosen system call."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
WRITING = "openat,rename,renameat,renameat2,fsync,fdatasync,unlink,unlinkat,mkdir,mkdirat,flock"
ONE_THREAD = dict.fromkeys(("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
LONGEST = 240  # seconds until a command counts as hanging


class Process:
    """A command that runs in a folder; it and whatever it starts are a session of their own.

    Parameters
    ----------
    words : list
        A script of ``examples/`` and its options, or a list that begins with "-c".
    folder : Path
        Where it runs. What it says goes into a file beside this folder.
    strace : list of str, optional
        Options of strace, under which it runs.
    prefix : list of str
        The command that runs it, such as ``unshare``.
    launch : callable, optional
        ``launch(program, cwd, env, output)`` starts a script in another way, see `tests.campaigns.copies`.
    """

    count = 0

    def __init__(self, words, folder, strace=None, prefix=(), launch=None):
        Process.count += 1
        self.words = list(map(str, words))
        program = self.words if self.words[0] == "-c" else [str(ROOT / "examples" / self.words[0]), *self.words[1:]]
        self.log = folder.parent / f"{folder.name}-{Process.count:04}.txt"
        temporary = folder.parent / f"{folder.name}-tmp"
        temporary.mkdir(exist_ok=True)
        tracer = ["strace", "-f", "-q", "-ttt", *strace] if strace else []
        own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        own |= ONE_THREAD | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
        with open(self.log, "wb") as log:
            if launch and self.words[0] != "-c":
                self.process = launch(program, folder, own, log)
            else:
                self.process = subprocess.Popen(
                    [*tracer, *prefix, sys.executable, *program], cwd=folder, env=own, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, start_new_session=True, preexec_fn=_as_from_a_terminal,
                )  # fmt: skip
        self.began = time.monotonic()

    @property
    def said(self):
        """All that it has said so far."""
        return self.log.read_text(errors="replace").replace("\r", "\n")

    @property
    def seconds(self):
        """Seconds since it was started."""
        return time.monotonic() - self.began

    def wait(self, seconds=LONGEST):
        """Return its status, or None if it has not ended after that time."""
        try:
            return self.process.wait(max(0, seconds))
        except (subprocess.TimeoutExpired, TimeoutError):
            return None

    def send(self, number, everyone=False):
        """Send a signal to it, or to everyone in its session, as a terminal does."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if everyone else os.kill)(self.process.pid, number)

    def others(self):
        """Return the processes that it started and that still run."""
        found = []
        for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, _, session = status.read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(session) == self.process.pid and int(status.parent.name) != self.process.pid and state != "Z":
                found.append(int(status.parent.name))
        return found

    def end(self):
        """End it and all that it started, at once."""
        self.send(signal.SIGKILL, everyone=True)
        for process in self.others():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()


def _as_from_a_terminal():
    """Let the signals do what they do to a program that a user has started."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)


def shows_a_fault(said):
    """Return the lines that a user should never see: of a traceback, or of a fault of the program; or None."""
    for line in said.splitlines():
        if re.search(r"Traceback|Exception ignored|Fatal Python error|This is a bug in tinyseg|leaked", line):
            return " / ".join(said[said.index(line) :].strip().splitlines())[:1500]
    return None


# ----- system calls ----------------------------------------------------------------
CALL = re.compile(r"^(\d+) +[\d.]+ (\w+)\((.*)")


def places(trace):
    """Return the system calls in a file of strace that write: a list of (name, how many of its thread it is)."""
    counts, found, main = {}, set(), None
    for line in trace.read_text(errors="replace").splitlines():
        match = CALL.match(line)
        if not match:
            continue
        thread, name, arguments = match.groups()
        main = main or thread
        number = counts[thread, name] = counts.get((thread, name), 0) + 1
        if name == "openat" and (thread != main or not re.search("O_WRONLY|O_RDWR|O_CREAT", arguments)):
            continue
        if "/dev/shm" not in arguments:
            found.add((name, number))
    return sorted(found)


def at(place, number, trace):
    """Return options of strace that send a signal at a place of `places`."""
    name, count = place
    return [  # not with --seccomp-bpf, which knows nothing of "when"
        "-o", str(trace), "-e", f"trace={name}", "-e", "signal=all",
        "-e", f"inject={name}:signal={signal.Signals(number).name}:when={count}",
    ]  # fmt: skip


def delivered(trace, number):
    """Return how many seconds before the last line of a trace the signal came; None if it did not."""
    lines = trace.read_text(errors="replace").splitlines() if trace.exists() else []
    times = [float(line.split()[1]) for line in lines if f"--- {signal.Signals(number).name} " in line]
    return float(lines[-1].split()[1]) - times[0] if times else None
