"""Print what makes a shell complete the commands of tinyseg and their options.

    tinyseg completion bash > ~/.local/share/bash-completion/completions/tinyseg
    tinyseg completion zsh > ~/.zfunc/_tinyseg                          # in a folder of $fpath
    tinyseg completion tcsh > ~/.tinyseg.csh                            # and source it in ~/.tcshrc

Then begin a new shell.
"""

import argparse
import importlib

import shtab

from tinyseg.commands.main import COMMANDS, module_of
from tinyseg.commands.numbers import make_parser
from tinyseg.commands.script import run_script


def main():
    run_script(show, out_of_memory="close other programs")


def show():
    shell = build_parser().parse_args().shell
    everything = argparse.ArgumentParser("tinyseg")
    everything.add_argument("--version", action="store_true", help="show the version")
    commands = everything.add_subparsers()
    for name, what in COMMANDS.items():
        parser = importlib.import_module(module_of(name)).build_parser()
        commands.add_parser(name, help=what, parents=[parser], add_help=False)
    print(shtab.complete(everything, shell))


def build_parser():
    parser = make_parser(__doc__, "SHELL")
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS)
    return parser
