"""What a place of the campaign of `environment` is.

A place is a generator that changes a `Setting` and yields: the command runs then. If it yields again, the place has
been mended, and the command runs once more. What comes after that, or in a ``finally``, clears the place away.
"""

import subprocess
from dataclasses import dataclass

from tests.campaigns.environment_commands import QUICK


class Missing(Exception):
    """This machine does not have what a place needs, such as root."""


@dataclass
class Place:
    """A strange place; ``make(setting, command)`` is the generator, `commands` the names of those that are tried."""

    kind: str
    name: str
    make: object
    commands: tuple = QUICK


def a_program(*words):
    """Run a program of the system; without the right to do so, or without the program, a place is left out."""
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError:
        raise Missing(f"there is no {words[0]}") from None
    if done.returncode:
        raise Missing(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
