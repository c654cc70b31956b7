"""Processes that run what they are told, one at a time: how tinyseg and PyTorch are timed side by side.

A `Worker` is a process with one framework in it. It is told what to do in one line of JSON,
``{"function": "module:name", "arguments": {...}}``, and answers with one, ``{"result": ...}`` or ``{"error": ...}``; in
between it sleeps. `measure` goes through the workers in rounds: each in turn runs its case some times while all others
sleep, in an order that is drawn anew for every round. A machine that slows down for a while slows all of them down.

The functions that a worker calls on itself are `run`, `drop`, `memory`, and the `prepare` of each script, which puts
what is timed into `cases`: ``cases[key]()`` runs it once and returns {direction: seconds}.
"""

import argparse
import contextlib
import gc
import importlib
import json
import math
import os
import pathlib
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
TUNED = {  # glibc keeps freed memory for the next array, instead of asking the operating system for it again
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "67108864",
}
# Workers start without settings of allocators and thread pools, so that what `import tinyseg` sets for its own process
# does not reach PyTorch's through the environment.
NOT_INHERITED = ("MALLOC_", "OMP_", "GOMP_", "KMP_", "MKL_NUM", "MKL_DYNAMIC", "OPENBLAS_")
PAUSE = 0.02  # seconds before each turn, in which the threads of the one before fall asleep
cases = {}


# ----- this side of the pipe -----------------------------------------------------
class WorkerError(RuntimeError):
    """A worker could not do what it was told, or died of it."""


class Worker:
    """A process that answers one call after the other; a context manager.

    Parameters
    ----------
    framework : {"tinyseg", "torch"}
        What it imports at its start.
    tuned : bool
        Start it with the allocator settings `TUNED`.
    numba : bool
        If False, numba cannot be imported in it.
    timeout : float
        Seconds after which a call has failed and the process is killed.
    """

    def __init__(self, framework, tuned=False, numba=True, timeout=600):
        env = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        command = [sys.executable, "-m", "benchmarks.worker", framework]
        if not numba:
            command.append("--without-numba")
        self.timeout, self.stderr = timeout, tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr, cwd=ROOT, text=True,
            env=env | (TUNED if tuned else {}),
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    @property
    def alive(self):
        """Whether it can be called."""
        return self.process.poll() is None

    def call(self, function, **arguments):
        """Call a function in the process.

        Parameters
        ----------
        function : str
            "module:name".
        **arguments
            Anything that JSON can hold.

        Returns
        -------
        object
            What the function returned.

        Raises
        ------
        WorkerError
            If it raised something, took longer than the timeout, or the process died.
        """
        timer = threading.Timer(self.timeout, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(json.dumps({"function": function, "arguments": arguments}) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            timer.cancel()
        if not answer:
            raise WorkerError(f"the process ended with status {self.process.wait()}{self._last_words()}")
        answer = json.loads(answer)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer["result"]

    def close(self):
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()  # it ends by itself ...
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:  # ... unless it is in the middle of something
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.stderr.close()

    def _last_words(self):
        self.stderr.seek(0)
        lines = self.stderr.read().decode(errors="replace").split("\n")
        return next((f" ({line.strip()})" for line in reversed(lines) if line.strip()), "")


def measure(turns, rounds=7, turn=0.3, budget=math.inf, warm_up=2, warmed=None, seed=0):
    """Time cases that are prepared in workers, in interleaved rounds.

    Parameters
    ----------
    turns : dict
        ``{variant: (worker, key)}``.
    rounds : int
        At most; at least three (or `rounds`, if that is less) whatever the budget.
    turn : float
        Seconds that a turn should take: it is a number of repetitions, from 1 to 50, that take about so long.
    budget : float
        Seconds after which no new round is begun.
    warm_up : int
        Repetitions that do not count, for each variant before any is timed.
    warmed : function of (variant, worker), optional
        Called after each variant's.
    seed : int
        Of the order of the turns.

    Returns
    -------
    times : dict
        ``{variant: {direction: {"median", "min", "rounds", "repetitions"}}}``: the median and the minimum of all
        repetitions in seconds, the median of each round, and their number.
    failed : dict
        ``{variant: reason}``; these are not in `times`.
    """
    order, repetitions, seconds, failed = random.Random(seed), {}, {}, {}

    def take_turn(name, k):
        worker, key = turns[name]
        time.sleep(PAUSE)
        try:
            return worker.call("benchmarks.worker:run", key=key, k=k)
        except WorkerError as error:
            failed[name] = str(error)
            seconds.pop(name, None)
            return None

    for name in turns:
        found = take_turn(name, max(1, warm_up))
        if found:
            last = sum(times[-1] for times in found.values())
            repetitions[name] = min(50, max(1, round(turn / max(last, 1e-6))))
            seconds[name] = {direction: [] for direction in found}
            if warmed:
                warmed(name, turns[name][0])
    begin = time.perf_counter()
    for number in range(rounds):
        if number >= 3 and time.perf_counter() - begin > budget:
            break
        for name in order.sample(sorted(seconds), len(seconds)):
            found = take_turn(name, repetitions[name])
            for direction, times in (found or {}).items():
                seconds[name][direction].append(times)
    times = {
        name: {direction: _summary(of_rounds) for direction, of_rounds in directions.items()}
        for name, directions in seconds.items()
    }
    return times, failed


def _summary(of_rounds):
    everything = [t for times in of_rounds for t in times]
    return {
        "median": statistics.median(everything),
        "min": min(everything),
        "rounds": [statistics.median(times) for times in of_rounds],
        "repetitions": len(everything),
    }


def cores():
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def busy(seconds=0.1):
    """Return how many cores are at work while this process sleeps for a moment; 0 where /proc does not tell."""

    def ticks():
        user, nice, system, idle, wait, *rest = map(int, pathlib.Path("/proc/stat").read_text().split()[1:9])
        return idle + wait, user + nice + system + idle + wait + sum(rest)

    try:
        idle, total = ticks()
        time.sleep(seconds)
        idle, total = (after - before for after, before in zip(ticks(), (idle, total), strict=True))
        return os.cpu_count() * (1 - idle / total) if total else 0.0
    except (OSError, ValueError):
        return 0.0


def warn_if_busy():
    """Print a warning if other programs are at work: threads that wait for each other then wait long."""
    cores = busy(1.0)
    if cores > 0.2:
        print(f"Other programs keep {cores:.1f} cores busy, which slows PyTorch more than tinyseg: close them first.")


def git_commit():
    """Return the commit of the working tree, with a + if files differ from it; None outside of git."""
    try:
        git = {"cwd": ROOT, "capture_output": True, "text": True, "check": True}
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], **git).stdout.strip()
        differs = subprocess.run(["git", "status", "--porcelain", "tinyseg"], **git).stdout
        return f"{commit}+" if differs else commit
    except (OSError, subprocess.CalledProcessError):
        return None


# ----- the other side: functions that a worker calls on itself -----------------------
def run(key, k):
    """Run a case k times: {direction: [seconds, ...]}."""
    found = [cases[key]() for _ in range(k)]
    return {direction: [times[direction] for times in found] for direction in found[0]}


def drop():
    """Forget all cases and the arrays they hold."""
    cases.clear()
    gc.collect()


def memory():
    """Resident memory of this process in MiB: {"now", "peak"}."""
    gc.collect()
    try:  # not getrusage where there is /proc: it counts what the parent held when it started this process
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        found = {line.split()[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith(("VmRSS", "VmHWM"))}
        return {"now": found["VmRSS:"], "peak": found["VmHWM:"]}
    except (OSError, KeyError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        return {"now": peak, "peak": peak}


def sample(a, size=64):
    """Return `size` elements of a NumPy array, anywhere in it: what the results of two frameworks are compared by."""
    chosen = random.Random(0).choices(range(a.size), k=size)
    return [float(a[index]) for index in zip(*np.unravel_index(chosen, a.shape), strict=True)] if a.ndim else [float(a)]


def difference(found, expected):
    """Return how far lists of samples are apart: the largest root mean square of the differences of one list.

    Each is relative to the root mean square of the expected samples; a single element that fell on the other side of a
    ReLU's kink does not weigh much. Infinite if something is not a number or has not the expected length.
    """
    if [len(a) for a in found] != [len(b) for b in expected]:
        return math.inf
    of_lists = [math.dist(a, b) / (math.hypot(*b) or 1.0) for a, b in zip(found, expected, strict=True)]
    return max((d if math.isfinite(d) else math.inf for d in of_lists), default=0.0)


def serve(answers):
    """Answer the lines that come in, until there are no more."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            module, name = request["function"].split(":")
            answer = {"result": getattr(importlib.import_module(module), name)(**request["arguments"])}
        except Exception as error:  # whatever it is: it belongs into the table, and the next case may do
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def main():
    parser = argparse.ArgumentParser(description="A worker process: started by the benchmarks, not by hand.")
    parser.add_argument("framework", choices=["tinyseg", "torch"])
    parser.add_argument("--without-numba", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the pipe
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints stays out of the pipe
    if args.without_numba:
        sys.modules["numba"] = None  # `import numba` raises ImportError
    framework = importlib.import_module(args.framework)
    if args.framework == "torch":
        framework.set_num_threads(cores())
    serve(answers)


if __name__ == "__main__":
    from benchmarks import worker  # the module whose `cases` the scripts fill: this one is __main__

    worker.main()
