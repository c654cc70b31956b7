"""State dictionaries, {name: array}: whether a saved one fits a model or an optimizer."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinyseg.autograd import as_array
from tinyseg.backend.devices import to_numpy

KINDS = {"f": "floating-point numbers", "i": "integers", "u": "integers"}
SHOWN = 6


def compare_states(mine: Mapping[str, Any], state: Any) -> str:
    """Say in what a saved state differs from one's own.

    Parameters
    ----------
    mine : dict of str to ndarray
    state : dict of str to array_like

    Returns
    -------
    str
        Sentences that name what is missing, unexpected, of another shape or of another kind of number; the precision
        may differ. Empty if the state fits.
    """
    if not hasattr(state, "keys"):
        return f"A state is a dictionary of arrays by name, but this is a {type(state).__name__}."
    problems = [f"missing: {name}" for name in mine if name not in state]
    problems += [f"unexpected: {name}" for name in state if name not in mine]
    for name, expected in mine.items():
        if name in state:
            found = np.asarray(to_numpy(as_array(state[name])))
            if found.shape != expected.shape:
                problems.append(f"{name}: expected the shape {expected.shape}, found {found.shape}")
            elif KINDS.get(found.dtype.kind) != KINDS[expected.dtype.kind]:
                problems.append(f"{name}: expected {KINDS[expected.dtype.kind]}, found {found.dtype}")
    more = f" (and {len(problems) - SHOWN} more)" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + more + ("." if problems else "")
