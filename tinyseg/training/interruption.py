"""Ctrl-C and SIGTERM during training."""

import signal
import threading


class Interruption:
    """Notes Ctrl-C and SIGTERM instead of dying, so that the step can finish; a second Ctrl-C is obeyed at once."""

    signal = None

    def __enter__(self):
        self.old = {}
        if threading.current_thread() is threading.main_thread():  # elsewhere Python does not allow handlers
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
