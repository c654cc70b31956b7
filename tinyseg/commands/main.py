"""The command ``tinyseg``: find the program of a command, and run it.

Each command is a module of this folder with a function `main`, which takes its options from `sys.argv`. Nothing else is
imported here, so that ``tinyseg --help`` is there at once.
"""

import difflib
import importlib
import os
import signal
import sys

import tinyseg
from tinyseg.commands.output import one_line, safe_output

COMMANDS = {
    "demo": "train a small network on synthetic sections, in minutes",
    "train": "train a network on your own images and their masks",
    "train-isbi": "train a network to find the membranes of cells in electron micrographs",
    "train-brats": "train a network to find brain tumours in MRI",
    "predict": "segment images and volumes with a trained network",
    "evaluate": "score a network, or predictions, against labels",
    "export": "write a trained network as one HTML file, as C, as ONNX or for bioimage.io",
    "profile": "show what a network costs: parameters, multiply-adds, memory, time",
    "course": "write tinyseg yourself: seven lessons with tasks that are checked",
    "warm": "compile the kernels now, so that the first result comes at once",
    "info": "show versions, device, kernels and folders: what belongs into a report of a bug",
    "completion": "print what makes a shell complete commands and options",
}
USAGE = f"""usage: tinyseg COMMAND [options]

Train U-Net or SD-UNet on a modest machine, and segment images with it.

    tinyseg demo                                                        # a first result, without any data
    tinyseg train images masks --out runs/cells                         # two folders, or two stacks
    tinyseg predict --checkpoint runs/cells/best.safetensors image.png

commands:
{chr(10).join(f"  {name:13} {what}" for name, what in COMMANDS.items())}

options:
  -h, --help     show this, or after a command all that it takes
  --version      show the version"""


def main() -> None:
    """Run the command that `sys.argv` asks for."""
    name, *words = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "--version"):
        with safe_output():
            print(f"tinyseg {tinyseg.__version__}" if name == "--version" else USAGE)
    elif name in COMMANDS:
        sys.argv = [f"tinyseg {name}", *words]
        run(module_of(name))
    else:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        with safe_output():
            print(
                one_line(f"tinyseg has no command {name!r}: expected one of {', '.join(COMMANDS)}.{hint}"),
                file=sys.stderr,
            )
        sys.exit(2)


def module_of(name):
    """Return the name of a command's module, which has functions `main` and `build_parser`."""
    return f"tinyseg.commands.{name.replace('-', '_')}"


def called_as():
    """Return the words with which this command was called: ["tinyseg", "predict"], or ["python", "predict.py"]."""
    name = sys.argv[0]
    return name.split(" ") if name.startswith("tinyseg ") else ["python", name]


def run(module):
    """Import a module, and call its function `main`; Ctrl-C and an error while it is imported end in no traceback."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        program = importlib.import_module(module)
    except Exception as error:  # memory, open files, a setting that a library refuses, a broken installation
        sys.exit(
            f"tinyseg could not be loaded ({type(error).__name__}: {error}). Perhaps this process may have too little "
            f"memory (ulimit -v) or too few files (ulimit -n); python -c 'import {module}' shows where it failed."
        )
    program.main()
