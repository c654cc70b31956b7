"""Moments in which a signal has to wait: between the making of a file and the note that it is to be deleted.

Python runs the handler of a signal in its main thread, between any two instructions, and a handler may raise an
exception there. In the with-block of `undisturbed` it does not:

    with undisturbed():
        file = open(temporary, "xb")
        cleanup.callback(temporary.unlink)

The handlers of tinyseg ask `postpone` first (`tinyseg.training.interruption.handle`).
"""

import contextlib
import signal
import threading

_blocks = 0  # that the main thread is in
_postponed: list = []


@contextlib.contextmanager
def undisturbed():
    """Let signals that come in the with-block wait for its end. Nothing in it may take long."""
    global _blocks
    if threading.current_thread() is not threading.main_thread():  # which handles no signals
        yield
        return
    _blocks += 1
    try:
        yield
    finally:
        _blocks -= 1
        if _blocks == 0 and _postponed:
            number = _postponed[0]
            _postponed.clear()
            signal.raise_signal(number)


def postpone(number):
    """Return whether a signal that has come must wait; if so, it comes again at the end of the block."""
    if _blocks:
        _postponed.append(number)
    return _blocks > 0
