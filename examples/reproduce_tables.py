"""Make the tables and figures of Gadosey et al. (2020) again, the paper's numbers beside ours.

    python examples/reproduce_tables.py --help

The program is `reproduction/command.py`.
"""

import os
import pathlib
import signal
import sys

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # Ctrl-C while the modules are imported
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # `reproduction` is not installed
    try:
        from reproduction import command
    except Exception as error:  # memory, open files, a setting that a library refuses, a broken installation
        sys.exit(f"tinyseg could not be loaded ({type(error).__name__}: {error}). Where: python -c 'import tinyseg'")

    command.main()
