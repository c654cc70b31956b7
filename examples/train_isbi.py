"""Train U-Net or SD-UNet to find cell membranes in electron micrographs.

    python examples/train_isbi.py --help

The program is `tinyseg/commands/train_isbi.py`, and ``tinyseg train-isbi`` the same.
"""

from tinyseg.commands.main import run

if __name__ == "__main__":
    run("tinyseg.commands.train_isbi")
