"""Run an example, or the command tinyseg, as a user would, in this process: what it prints, and how it exits."""

import contextlib
import io
import pathlib
import runpy
import signal
import sys
import warnings

from tinyseg.commands.main import main

ROOT = pathlib.Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "data"
# Options of runs that take a second.
SMALL_ISBI = ["--width", 4, "--size", 32, "--batch-size", 2, "--workers", 1, "--device", "cpu"]
SMALL_BRATS = [*SMALL_ISBI, "--steps-per-epoch", 6, "--shares", "2:1:1"]


def run_example(name, *arguments, code=0):
    """Return (stdout, stderr) of ``python examples/name arguments``; fails if it exits with another code."""
    return _run(lambda: runpy.run_path(str(ROOT / "examples" / name), run_name="__main__"), name, arguments, code)


def run_command(*arguments, code=0):
    """Return (stdout, stderr) of ``tinyseg arguments``; fails if it exits with another code."""
    return _run(main, "tinyseg", arguments, code)


def _run(call, name, arguments, code):
    argv, path, formatter, ctrl_c = sys.argv, sys.path[:], warnings.formatwarning, signal.getsignal(signal.SIGINT)
    sys.argv = [name, *map(str, arguments)]
    out, err, message, status = io.StringIO(), io.StringIO(), "", 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            call()
    except SystemExit as stop:  # what sys.exit is given: a code, or a sentence
        message, status = (stop.code, 1) if isinstance(stop.code, str) else ("", stop.code or 0)
    finally:
        sys.argv, sys.path[:], warnings.formatwarning = argv, path, formatter
        signal.signal(signal.SIGINT, ctrl_c)
    out, err = out.getvalue(), err.getvalue()
    assert status == code, f"exit {status}\n{out}\n{err}\n{message}"
    return out, err + message
