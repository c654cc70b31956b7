"""Score a network, or predictions, against labels: of cell membranes, or of brain tumours.

    python examples/evaluate.py --help

The program is `tinyseg/commands/evaluate.py`, and ``tinyseg evaluate`` the same.
"""

from tinyseg.commands.main import run

if __name__ == "__main__":
    run("tinyseg.commands.evaluate")
