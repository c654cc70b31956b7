"""Check answers to the exercises of the notebooks: ``teaching.check("6.2", answer)`` says right, or what is off.

The exercises of notebook 6 are functions of `notebook_06`: `exercise_2(answer)` raises `Different`, with a sentence, if
the answer to 6.2 is wrong. What an answer is, a number, an array or a function, the notebook says.
"""

import importlib
import traceback
from typing import Any, Literal

from tinyseg.learn.comparing import Different


def check(exercise: str, answer: Any) -> Literal[True] | None:
    """Print whether an answer to an exercise is right, or what is off.

    Parameters
    ----------
    exercise : str
        The notebook and the exercise: "6.2".
    answer : object
        What the exercise asks for. ``...`` stands for an answer that is still to be given.

    Returns
    -------
    True or None
        True if it is right, and otherwise None, which a notebook does not show.

    Raises
    ------
    ValueError
        If there is no such exercise.
    """
    notebook, _, number = exercise.partition(".")
    try:
        module = importlib.import_module(f"{__name__}.notebook_{int(notebook):02}")
        right = getattr(module, f"exercise_{int(number)}")
    except (ValueError, ModuleNotFoundError, AttributeError):
        raise ValueError(f'expected an exercise such as "6.2", found {exercise!r}.') from None
    if answer is ...:
        print(f"{exercise}: put your answer in the place of the three dots.")
        return None
    try:
        right(answer)
    except Different as different:
        print(f"{exercise}: not yet. {str(different)[0].upper()}{str(different)[1:]}")
        return None
    except Exception as error:  # of the reader's function, or of an answer of another kind
        last = traceback.extract_tb(error.__traceback__)[-1]
        print(f"{exercise}: not yet. {type(error).__name__}: {error} (in {last.name}, line {last.lineno}: {last.line})")
        return None
    print(f"{exercise}: right.")
    return True
