"""Check answers to the exercises of the notebooks: ``teaching.check("6.2", answer)`` says right, or what is off.

The exercises of notebook 6 are functions of `notebook_06`: `exercise_2(answer)` raises `Different`, with a sentence, if
the answer to 6.2 is wrong. What an answer is, a number, an array or a function, the notebook says. `solution` shows
what stands in `tinyseg.learn.solutions`.
"""

import importlib
import inspect
import re
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
    _, right = _find(exercise, "answers", "exercise")
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


def solution(exercise: str) -> Any:
    """Show the solution to an exercise, and return it.

    Parameters
    ----------
    exercise : str
        The notebook and the exercise: "6.2".

    Returns
    -------
    object
        The answer, where that is a function or a class. Where it is numbers: a function that computes them from what
        the notebook has.

    Raises
    ------
    ValueError
        If there is no such exercise.
    """
    module, found = _find(exercise, "solutions", "solution")
    parts = re.split(r"^# %% (\d+)\n", inspect.getsource(module), flags=re.MULTILINE)
    sections = {int(number): code.strip() for number, code in zip(parts[1::2], parts[2::2], strict=True)}
    _show(sections[int(exercise.partition(".")[2])])
    return found


def _find(exercise, package, name):
    """Return the module of an exercise in a package beside this one, and what has a name there: module, attribute."""
    notebook, _, number = exercise.partition(".")
    try:
        module = importlib.import_module(f"tinyseg.learn.{package}.notebook_{int(notebook):02}")
        return module, getattr(module, f"{name}_{int(number)}")
    except (ValueError, ModuleNotFoundError, AttributeError):
        raise ValueError(f'expected an exercise such as "6.2", found {exercise!r}.') from None


def _show(code):
    """Show code in a notebook, with its colours; print it elsewhere."""
    try:
        from IPython import get_ipython
    except ModuleNotFoundError:
        shell = None
    else:
        shell = get_ipython()
    if shell is None:
        print(code)
    else:
        from IPython.display import Markdown, display

        display(Markdown(f"```python\n{code}\n```"))
