"""Run a trained network on images, stacks and volumes.

    python examples/predict.py --help

The program is `tinyseg/commands/predict.py`, and ``tinyseg predict`` the same.
"""

from tinyseg.commands.main import run

if __name__ == "__main__":
    run("tinyseg.commands.predict")
