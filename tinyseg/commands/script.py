"""Run a command: set up its process, end it by one sentence, and let no signal leave anything half done."""

import contextlib
import errno
import os
import platform
import signal
import sys
import threading
import traceback
import warnings

from tinyseg import backend
from tinyseg.commands.output import one_line, safe_output
from tinyseg.training.interruption import Stopped, handle, restore, say
from tinyseg.training.loop import keep_freed_memory


def run_script(main, out_of_memory):
    """Run a command; an error that its user can mend ends it with one sentence and a status that is not 0.

    What the command prints can be lost, as when its reader has gone (``| head``), but does not end it. Ctrl-C, SIGTERM
    and SIGHUP end it with the status 128 + the signal's number, after whatever it is writing has been cleaned up.

    Parameters
    ----------
    main : callable
        Without arguments. What it raises by a fault of the program, such as a TypeError, keeps its traceback, with a
        line below it that says where to report it. Whatever reads a file turns the errors of reading into a ValueError
        whose message names the file.
    out_of_memory : str
        What to try if the memory of the computer or of the GPU does not suffice.
    """
    warnings.formatwarning = lambda message, *_: f"Warning: {one_line(str(message))}\n"
    keep_freed_memory()
    with safe_output(), stopped_by_signals():
        status = _status_of(main, out_of_memory)
    if status:
        sys.exit(status)


@contextlib.contextmanager
def stopped_by_signals():
    """Let the first signal in the with-block raise a SystemExit. A Ctrl-C after it ends the process at once."""
    said = []

    def stop(number, frame):
        handle(signal.SIG_IGN)  # some send SIGTERM twice
        restore({signal.SIGINT: signal.SIG_DFL})
        if not said:
            say(f"Stopped by {signal.Signals(number).name}. What was written is whole: run the command again.")
        said.append(number)
        sys.exit(128 + number)

    def stop_again(lost):
        """Stop a moment later: the signal came where Python drops exceptions, as while an object is deleted.

        Other exceptions that are dropped after a signal come from objects that it left half closed: nothing is said.
        """
        if said and issubclass(lost.exc_type, SystemExit):
            signal.signal(said[0], stop)
            threading.Timer(0.05, signal_main_thread, said[:1]).start()
        elif not said and not issubclass(lost.exc_type, Stopped):
            hook(lost)

    before, hook = handle(stop), sys.unraisablehook
    sys.unraisablehook = stop_again
    try:
        yield
    finally:
        if not said:  # after a signal the process ends: a second SIGTERM may come until then, and objects are deleted
            restore(before)
            sys.unraisablehook = hook


def signal_main_thread(number):
    """Send a signal to the main thread, which wakes it where the system can do that (not on Windows)."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident, number)
    else:
        signal.raise_signal(number)


def explain(error):
    """Return the sentence with which an error ends a command."""
    text = one_line(str(error))
    if "start new thread" in text:  # Python's words
        text += (
            ": the limit of processes or of memory (ulimit -u, ulimit -v), or the container's, is reached. Raise it."
        )
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        text += " So many files may be open at a time (ulimit -n): raise that."
    if isinstance(error, FileNotFoundError) and _is_deleted_here():
        text = "the current folder was deleted: change to one that is there (cd), and run the command again."
    return f"{type(error).__name__}: {text}"


def _is_deleted_here():
    """Whether the current folder was deleted."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _status_of(main, out_of_memory):
    """Run `main`; return the status of the process, or the sentence with which it ends."""
    try:
        main()
    except (MemoryError, ValueError, OSError, RuntimeError) as error:
        if not backend.is_out_of_memory(error):
            return explain(error)
        why = str(error).removeprefix("Out of memory ").rstrip(".")
        if "limit set to" in why:  # CuPy's words, where its pool has a limit
            out_of_memory += ", or a larger --gpu-memory"
        return f"Out of memory ({why}): {out_of_memory}."
    except Warning as warning:
        return f"{explain(warning)} It ended the command because -W or PYTHONWARNINGS says so: leave that out."
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:
        return stop.code
    except Exception:
        traceback.print_exc()
        versions = ", ".join(f"{name} {version}" for name, version in backend.versions().items())
        return (
            "This is a bug in tinyseg: please report it to its developers, with the lines above and this one "
            f"({versions}; {platform.platform()})."
        )
    return 0
