"""Score a network, or predictions, against labels: of cell membranes, or of brain tumours.

    python examples/evaluate.py --help

The program is `tinyseg/commands/evaluate.py`.
"""

from tinyseg.commands import evaluate

if __name__ == "__main__":
    evaluate.main()
