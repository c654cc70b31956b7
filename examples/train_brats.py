"""Train U-Net or SD-UNet to find brain tumours in MRI.

    python examples/train_brats.py --help

The program is `tinyseg/commands/train_brats.py`.
"""

import os
import signal

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # Ctrl-C while the modules are imported
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from tinyseg.commands import train_brats

    train_brats.main()
