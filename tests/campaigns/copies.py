"""Commands in copies of this process, which has imported all that they need: that saves a second or two for each.

A copy has a session, a folder, an output and signals of its own, and runs the script of ``examples/`` from its first
line. It loads its own kernels and starts its own threads.
"""

import atexit
import importlib
import io
import os
import pkgutil
import runpy
import signal
import sys
import tempfile
import time
import traceback

import benchmarks.machine  # noqa: F401 (what the commands import)
import reproduction.command  # noqa: F401
import tinyseg.commands.evaluate
import tinyseg.commands.predict
import tinyseg.commands.train_brats
import tinyseg.commands.train_isbi  # noqa: F401
import tinyseg.fast.cpu
from tinyseg.report.load_matplotlib import load_matplotlib

for _module in pkgutil.iter_modules(tinyseg.fast.cpu.__path__):
    importlib.import_module(f"tinyseg.fast.cpu.{_module.name}")
load_matplotlib()
importlib.import_module("matplotlib.figure").Figure().savefig(io.BytesIO())


class Copy:
    """A command in a copy of this process, with what is used here of `subprocess.Popen`.

    Parameters
    ----------
    program : list of str
        A script and its options.
    cwd : Path
    env : dict
        Environment variables.
    output : file
        For its standard output and error streams.
    """

    returncode = None

    def __init__(self, program, cwd, env, output):
        ready, begun = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                signal.signal(signal.SIGINT, signal.default_int_handler)
                os.write(begun, b"x")
                status = _run(program, cwd, env, output)
            except BaseException:  # of the copy's preparation, or a signal in it
                status = 130
            os._exit(status)
        os.close(begun)
        os.read(ready, 1)  # from now on, signals reach its session
        os.close(ready)

    def poll(self):
        """Return its status if it has ended, otherwise None."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout=None):
        """Return its status; a TimeoutError if it has not ended after these seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if end is not None and time.monotonic() >= end:
                raise TimeoutError
            time.sleep(0.005)
        return self.returncode


def _run(program, cwd, env, output):
    """Run a script in this process as Python does; return its status."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    sys.stdout, sys.stderr = (open(k, "w", buffering=1, closefd=False, encoding="utf-8") for k in (1, 2))  # noqa: SIM115
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir, sys.argv, status = None, program, 0
    atexit._clear()
    try:
        runpy.run_path(program[0], run_name="__main__")
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status
