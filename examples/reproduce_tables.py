"""Make the tables and figures of Gadosey et al. (2020) again, the paper's numbers beside ours.

    python examples/reproduce_tables.py --help

The program is `reproduction/command.py`.
"""

import pathlib
import sys

from tinyseg.commands.main import run

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # `reproduction` is not installed
    run("reproduction.command")
