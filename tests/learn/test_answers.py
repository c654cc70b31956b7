"""Answers to the exercises of the notebooks: the solutions are right (the notebooks run), and these are not."""

import importlib
import pathlib
import re

import numpy as np
import pytest

from tinyseg.autograd import Function
from tinyseg.learn import answers, teaching

NOTEBOOKS = sorted((pathlib.Path(__file__).resolve().parents[2] / "docs" / "notebooks").glob("[0-9]*.py"))


# ----- notebook 1 ------------------------------------------------------------------
class KeepsTwo(Function):
    """log(exp(a) + exp(b)), which keeps two arrays."""

    def forward(self, a, b):
        self.saved = a, b
        return np.logaddexp(a, b)

    def backward(self, gy):
        a, b = self.saved
        ga = gy / (1 + np.exp(b - a))
        return ga, gy - ga


class Overflows(KeepsTwo):
    def forward(self, a, b):
        self.saved = a, b
        with np.errstate(over="ignore"):
            return np.log(np.exp(a) + np.exp(b))


def in_place(node, gy):
    gy *= 2
    return gy


# Exercise, answer, what is said.
WRONG_01 = [
    ("1.1", (12, 12), "The gradient with s computed under no_grad is 12, and should be 4"),
    ("1.1", 12, "TypeError: cannot unpack"),
    ("1.2", in_place, "The gradient of 2x + σ(x)[0] is 2.5, and should be 2.25"),
    ("1.2", lambda node, gy: gy, "The gradient of 2x[0] is 1, and should be 2"),
    ("1.3", KeepsTwo, "keeps several arrays"),
    ("1.3", Overflows, "Y at a = 1000, b = 999 is inf"),
]


WRONG = [*WRONG_01]


@pytest.mark.parametrize(("exercise", "answer", "words"), WRONG)
def test_what_is_wrong_is_said(capsys, exercise, answer, words):
    assert teaching.check(exercise, answer) is False
    said = capsys.readouterr().out
    assert said.startswith(f"{exercise}: not yet. ") and words in said


def test_an_answer_that_is_still_to_be_given(capsys):
    assert not teaching.check("1.1", ...)
    assert capsys.readouterr().out == "1.1: put your answer in the place of the three dots.\n"


def test_a_right_answer(capsys):
    assert teaching.check("1.1", (12, 4.0))
    assert capsys.readouterr().out == "1.1: right.\n"


@pytest.mark.parametrize("exercise", ["1.9", "77.1", "x"])
def test_no_such_exercise(exercise):
    with pytest.raises(ValueError, match=f"found '{exercise}'"):
        answers.check(exercise, 1)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_exercise_has_a_place_for_an_answer_and_a_solution_that_is_checked(path):
    text, number = path.read_text(encoding="utf-8"), int(path.stem[:2])
    try:
        module = importlib.import_module(f"tinyseg.learn.answers.notebook_{number:02}")
    except ModuleNotFoundError:
        pytest.skip("its exercises have no checks")
    for k in (1, 2, 3):
        if hasattr(module, f"exercise_{k}"):
            assert "answer = ..." in text and f'teaching.check("{number}.{k}", answer)' in text
            assert re.search(rf'assert .*teaching\.check\("{number}\.{k}", (?!answer\))', text)
            assert any(exercise == f"{number}.{k}" for exercise, _, _ in WRONG)
