"""Run a trained network on images, stacks and volumes.

    python examples/predict.py --help

The program is `tinyseg/commands/predict.py`.
"""

import os
import signal
import sys

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # Ctrl-C while the modules are imported
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        from tinyseg.commands import predict
    except Exception as error:  # memory, open files, a setting that a library refuses, a broken installation
        sys.exit(f"tinyseg could not be loaded ({type(error).__name__}: {error}). Where: python -c 'import tinyseg'")
    predict.main()
