"""Ctrl-C and SIGTERM during training."""

import signal
import threading


class Interruption:
    """Store Ctrl-C or SIGTERM in `signal`, so that the step can finish. A second Ctrl-C stops the program at once."""

    signal = None

    def __enter__(self):
        self.old = {}
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            for number in (signal.SIGINT, signal.SIGTERM):
                self.old[number] = signal.signal(number, self.note)
        return self

    def note(self, number, frame):
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def __exit__(self, *exc):
        for number, handler in self.old.items():
            signal.signal(number, handler)
