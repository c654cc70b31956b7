"""Train U-Net or SD-UNet to find cell membranes in electron micrographs.

    python examples/train_isbi.py --help

The program is `tinyseg/commands/train_isbi.py`.
"""

import os
import signal

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # Ctrl-C while the modules are imported
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from tinyseg.commands import train_isbi

    train_isbi.main()
