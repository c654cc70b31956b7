"""Types of options: each says in words what it takes, in the help and in the error for anything else.

    add("--width", type=Number(int, 1, 4096))        # --width 0: "expected a whole number from 1 to 4096, found '0'"

An option keeps the text that is given where that text is kept with a run: "4" and "2:5" for --val-sections.
"""

import argparse
import math
import re

from tinyseg.commands.output import one_line
from tinyseg.data import Augment
from tinyseg.data.class_masks import parse_class_names


class Number:
    """A number within limits.

    Parameters
    ----------
    kind : {int, float}
    low, high : int or float
        The smallest and the largest number, which belong to the range.
    above : bool
        Whether `low` itself is left out.
    below : bool
        Whether `high` itself is left out.
    """

    def __init__(self, kind, low, high, above=False, below=False):
        self.kind, self.low, self.high, self.above, self.below = kind, low, high, above, below

    def __call__(self, text):
        """Return the number that a text says; argparse shows the error."""
        try:
            value = self.kind(text)
        except ValueError:
            value = math.nan
        fits = self.low < value if self.above else self.low <= value
        if not (fits and (value < self.high if self.below else value <= self.high)):  # NaN does not fit either
            raise argparse.ArgumentTypeError(f"expected {self}, found {text!r}")
        return value

    @property
    def range(self):
        """The limits in words, for the help."""
        low, high = (f"{limit:.16g}" for limit in (self.low, self.high))
        return f"{'above' if self.above else 'from'} {low} {'to below' if self.below else 'to'} {high}"

    def __str__(self):
        return f"a {'whole ' if self.kind is int else ''}number {self.range}"


class Text:
    """A text of a form that `check` knows: it raises a ValueError, whose message is the error, for any other."""

    def __init__(self, check, range=None):
        self.check, self.range = check, range

    def __call__(self, text):
        """Return the text as it is given."""
        try:
            self.check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text


def _numbers(text, separator, words):
    """Return the finite numbers, none below 0 and not all 0, in a text."""
    try:
        numbers = [float(part) for part in text.split(separator)]
    except ValueError:
        numbers = []
    if not numbers or not all(0 <= number <= 1e9 for number in numbers) or not any(numbers):
        raise ValueError(f"expected {words}, found {text!r}")
    return numbers


def read_class_weights(text, classes=None):
    """Return the numbers of --class-weights.

    If the names of the classes are given, there must be a number for each, or it is a ValueError.
    """
    words = "finite numbers with commas between them, none below 0 and not all 0, such as 0.1,1,1,1"
    weights = _numbers(text, ",", words)
    if classes is not None and (len(weights) != len(classes) or len(classes) == 1):
        names = f"the classes are {', '.join(classes)}: give {len(classes)} numbers with commas between them"
        if len(classes) == 1:
            names = f"there is one class, {classes[0]}: leave them out"
        raise ValueError(f"--class-weights {text} do not fit: {names}.")
    return weights


def _check_shares(text):
    words = "three numbers with colons between them, none below 0 and the first above 0, such as 406:32:46"
    numbers = _numbers(text, ":", words)
    if len(numbers) != 3 or numbers[0] == 0:
        raise ValueError(f"expected {words}, found {text!r}")


def _check_sections(text):
    found = re.fullmatch(r"(?:([0-9]{1,9}):)?([0-9]{1,9})", text)
    if found is None or int(found[2]) <= int(found[1] or 0):
        raise ValueError(f"expected a number k > 0 (the last k sections) or a:b (sections a to b-1), found {text!r}")


def _check_chosen(text):
    if text != "all":
        _check_sections(text)


def _check_name(text):
    if not (text.strip() and text.isprintable() and len(text) <= 60):
        raise ValueError(f"expected a few words, found {text!r}")


NAME = Text(_check_name)
PROBABILITY = Number(float, 0, 1)
MEMORY = Number(float, 0, 2**20, above=True)  # GiB
SECTIONS = Text(_check_sections)
CHOSEN_SECTIONS = Text(_check_chosen)
SHARES = Text(_check_shares)
CLASS_WEIGHTS = Text(read_class_weights)
BALANCED_WEIGHTS = Text(lambda text: text in ("balanced", "none") or read_class_weights(text))
CLASS_NAMES = Text(parse_class_names)
AUGMENTATION = Text(Augment.parse)


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help that says the range of each number."""

    def _get_help_string(self, action):
        limits = getattr(action.type, "range", None)
        return action.help if limits is None else f"{action.help or ''} [{limits}]".strip()


class Parser(argparse.ArgumentParser):
    """A parser whose result says in `given` which options were given: a set of their names, as in ``gpu_memory``."""

    def parse_args(self, args=None, namespace=None, intermixed=False):
        """Return the options of a command line, with the defaults of those that are not there.

        ``intermixed``: what is no option may stand in several places, with options between.
        """
        parse = super().parse_intermixed_args if intermixed else super().parse_args
        options = [action for action in self._actions if action.option_strings]
        actions = [action for action in options if action.default is not argparse.SUPPRESS]  # not --help
        defaults = [action.default for action in actions]
        for action in actions:
            action.default = argparse.SUPPRESS
        try:
            found = vars(parse(args, namespace))
        finally:
            for action, default in zip(actions, defaults, strict=True):
                action.default = default
        known = {action.dest: action.default for action in actions}
        # argparse returns what is no option even if it was left out: None, or an empty list.
        names = [action.dest for action in self._actions if not action.option_strings]
        left_out = {name for name in names if found[name] in (None, [])}
        return argparse.Namespace(**known | found, given=set(found) - left_out)

    def error(self, message):
        """End the process with a sentence of what is wrong with the command line."""
        super().error(one_line(message))

    def _get_values(self, action, arg_strings):
        if action.option_strings and arg_strings == ["--"]:  # --out=--, of which argparse makes an empty list
            raise argparse.ArgumentError(action, "expected one argument, found '--'")
        return super()._get_values(action, arg_strings)


def refuse_given(args, names, why):
    """Raise a ValueError if options were given that would change nothing.

    Parameters
    ----------
    args : argparse.Namespace
        Of a `Parser`.
    names : sequence of str
        Of the options, as in ``gpu_memory``.
    why : str
        What they are for, and what to do: "are for volumes: leave them out".
    """
    found = ["--" + name.replace("_", "-") for name in names if name in args.given]
    if found:
        raise ValueError(f"{' and '.join(found)}: {why}.")


def make_parser(description, inputs=""):
    """Return a parser whose help shows `description` as it is written, and the range of each number.

    `inputs` names what a command takes beside its options.
    """
    return Parser(usage=f"%(prog)s [options] {inputs}".rstrip(), description=description, formatter_class=Formatter)
