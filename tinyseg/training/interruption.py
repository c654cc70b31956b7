"""Stopping a training at a step: Ctrl-C, SIGTERM (kill, a batch system's limit) and SIGHUP (a closed terminal)."""

import contextlib
import io
import os
import signal
import sys
import threading

from tinyseg.data.undisturbed import postpone

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has two


class Stopped(BaseException):
    """A signal came in a block that it ends at once, see `Interruption.at_once`."""


class Interruption:
    """Store the first of these signals in `signal`, and say what is waited for. A second Ctrl-C stops at once.

    A signal that the process ignores, as SIGHUP under nohup, stays ignored.
    """

    signal = None
    _at_once = False

    def __enter__(self):
        self.old = handle(self.note)
        return self

    def note(self, number, frame):
        """Handle a signal."""
        if self.signal is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.signal = number
        what = "the validation is broken off" if self._at_once else "this step is finished"
        say(f"Stopping at {signal.Signals(number).name}: {what}, and a checkpoint is written. Ctrl-C stops at once.")
        if self._at_once:
            raise Stopped

    @contextlib.contextmanager
    def at_once(self):
        """Let a signal end the with-block by a `Stopped`, as something that may take long and can be done again."""
        self._at_once = True
        try:
            if self.signal is not None:
                raise Stopped
            yield
        finally:
            self._at_once = False

    def __exit__(self, *exc):
        restore(self.old)


def handle(handler):
    """Handle the signals that the process does not ignore; return the handlers before, for `restore`.

    The handler is a function, or `signal.SIG_IGN`. It is called later if a signal comes at a moment that must not be
    disturbed (`tinyseg.data.undisturbed`).
    """

    def handle_now_or_later(number, frame):
        if not postpone(number):
            handler(number, frame)

    old = {}
    if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                old[number] = signal.signal(number, handle_now_or_later if callable(handler) else handler)
    return old


def restore(handlers):
    """Handle signals as before `handle`."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


def say(sentence):
    """Print a line to the standard error stream from a handler of signals, which may come in the middle of a print."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or never there
        try:
            os.write(sys.stderr.fileno(), f"\n{sentence}\n".encode())
        except io.UnsupportedOperation:  # a stream that is no file, as in a notebook
            print(f"\n{sentence}", file=sys.stderr)
