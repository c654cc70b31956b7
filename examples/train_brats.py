"""Train U-Net or SD-UNet to find brain tumours in MRI.

    python examples/train_brats.py --help

The program is `tinyseg/commands/train_brats.py`.
"""

from tinyseg.commands import train_brats

if __name__ == "__main__":
    train_brats.main()
