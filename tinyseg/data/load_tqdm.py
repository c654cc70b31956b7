"""Progress bars (`tqdm`), whatever its environment variables are: TQDM_MININTERVAL=abc would end the import of it."""

import logging
import math
import os

# What a user may set. Others, such as TQDM_FILE and TQDM_BAR_FORMAT, would break the bars of every program.
SETTINGS: dict[str, type] = dict.fromkeys(("DISABLE", "LEAVE", "COLOUR", "DYNAMIC_NCOLS"), str)
SETTINGS |= dict.fromkeys(("MININTERVAL", "MAXINTERVAL", "SMOOTHING", "DELAY"), float)
SETTINGS |= dict.fromkeys(("NCOLS", "NROWS", "MINITERS"), int)


def _leave_out_what_does_not_fit():
    for name in [name for name in os.environ if name.upper().startswith("TQDM_")]:
        kind, text = SETTINGS.get(name[len("TQDM_") :].upper()), os.environ[name]
        try:
            fits = kind is str or kind is not None and 0 <= kind(text) < math.inf
        except ValueError:
            fits = False
        if not fits:
            del os.environ[name]
            logging.getLogger("tinyseg").warning(f"{name} is {text!r}, which is of no use here: it is left out.")


_leave_out_what_does_not_fit()

from tqdm import tqdm  # noqa: E402, F401
