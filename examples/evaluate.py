"""Score a network, or predictions, against labels: of cell membranes, or of brain tumours.

    python examples/evaluate.py --help

The program is `tinyseg/commands/evaluate.py`.
"""

import os
import signal

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # Ctrl-C while the modules are imported
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from tinyseg.commands import evaluate

    evaluate.main()
