"""Printing that cannot end a run: under any encoding, when the reader has gone, when the disk is full."""

import contextlib
import os
import sys
import unicodedata

LONGEST = 2000  # characters of a line that says what is wrong


def one_line(text):
    """Return a text in one line, which may quote anything that a file holds: what is very long loses its middle.

    What cannot be printed, as what changes the colours of a terminal, becomes a replacement character.
    """
    letters = text.replace("\n", " ")
    text = "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else "\ufffd" for c in letters)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"


class Output:
    """A text stream whose `write` and `flush` do not fail. All else is the stream's own.

    When the stream fails for the first time, as it does behind ``| head``, what comes after is thrown away.
    """

    def __init__(self, stream):
        self.stream = stream
        if hasattr(stream, "reconfigure"):  # a letter that the encoding does not have becomes "?"
            stream.reconfigure(errors="replace")

    def write(self, text):
        """Write text, or throw it away."""
        with self._failing_quietly():
            self.stream.write(text)
        return len(text)

    def flush(self):
        """Send what was written on its way, or throw it away."""
        with self._failing_quietly():
            self.stream.flush()

    @contextlib.contextmanager
    def _failing_quietly(self):
        try:
            yield
        except (OSError, ValueError):  # ValueError: the stream is closed
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name):
        return getattr(self.stream, name)


@contextlib.contextmanager
def safe_output():
    """Put an `Output` into the place of sys.stdout and sys.stderr, and send all on its way at the end."""
    with contextlib.ExitStack() as stack:
        before = sys.stdout, sys.stderr
        for name in ("stderr", "stdout"):
            stream = getattr(sys, name)
            if stream is None:  # closed by whoever started the program, as in 2>&-
                stream = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            setattr(sys, name, Output(stream))
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = before
