"""Train U-Net or SD-UNet to find cell membranes in electron micrographs.

    python examples/train_isbi.py --help

The program is `tinyseg/commands/train_isbi.py`.
"""

from tinyseg.commands import train_isbi

if __name__ == "__main__":
    train_isbi.main()
