"""Train U-Net or SD-UNet to find brain tumours in MRI.

    python examples/train_brats.py --help

The program is `tinyseg/commands/train_brats.py`.
"""

import os
import signal
import sys

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # Ctrl-C while the modules are imported
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        from tinyseg.commands import train_brats
    except Exception as error:  # memory, open files, a setting that a library refuses, a broken installation
        sys.exit(f"tinyseg could not be loaded ({type(error).__name__}: {error}). Where: python -c 'import tinyseg'")
    train_brats.main()
