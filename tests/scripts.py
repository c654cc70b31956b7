"""Run an example as a user would, in this process: what it prints, and how it exits."""

import pathlib
import runpy
import sys
import warnings

ROOT = pathlib.Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "data"


def run_example(name, *arguments, capsys, code=0):
    """Return (stdout, stderr) of ``python examples/name arguments``; fails if it exits with another code."""
    argv, formatter = sys.argv, warnings.formatwarning
    sys.argv = [name, *map(str, arguments)]
    message, status = "", 0
    capsys.readouterr()
    try:
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    except SystemExit as stop:  # what sys.exit is given: a code, or a sentence
        message, status = (stop.code, 1) if isinstance(stop.code, str) else ("", stop.code or 0)
    finally:
        sys.argv, warnings.formatwarning = argv, formatter
    out, err = capsys.readouterr()
    assert status == code, f"exit {status}\n{out}\n{err}\n{message}"
    return out, err + message
