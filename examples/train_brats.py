"""Train U-Net or SD-UNet to find brain tumours in MRI.

    python examples/train_brats.py --help

The program is `tinyseg/commands/train_brats.py`, and ``tinyseg train-brats`` the same.
"""

from tinyseg.commands.main import run

if __name__ == "__main__":
    run("tinyseg.commands.train_brats")
