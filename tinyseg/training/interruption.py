"""Stopping a training at a step: Ctrl-C, SIGTERM (kill, a batch system's limit) and SIGHUP (a closed terminal)."""

import signal
import threading

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has two


class Interruption:
    """Store the first of these signals in `signal`, so that the step can finish. A second Ctrl-C stops at once.

    A signal that the process ignores, as SIGHUP under nohup, stays ignored.
    """

    signal = None

    def __enter__(self):
        self.old = {}
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            for number in STOPS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self.old[number] = signal.signal(number, self.note)
        return self

    def note(self, number, frame):
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or number

    def __exit__(self, *exc):
        for number, handler in self.old.items():
            signal.signal(number, handler)
