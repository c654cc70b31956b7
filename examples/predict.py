"""Run a trained network on images, stacks and volumes.

    python examples/predict.py --help

The program is `tinyseg/commands/predict.py`.
"""

from tinyseg.commands import predict

if __name__ == "__main__":
    predict.main()
