"""Run a trained network on images, stacks and volumes.

    python examples/predict.py --help

The program is `tinyseg/commands/predict.py`.
"""

import os
import signal

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # Ctrl-C while the modules are imported
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from tinyseg.commands import predict

    predict.main()
