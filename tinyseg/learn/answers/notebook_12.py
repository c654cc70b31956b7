"""Answers to notebook 12: the gain of a leaky ReLU, the best rate for a bowl, the same run from other weights."""

import math

import numpy as np

from tinyseg.learn.comparing import Different, case, same


def exercise_1(answer):
    """Check the gain that keeps the mean square through a leaky ReLU: a function of its slope a."""
    y = np.arange(-8, 8, 1e-3) + 5e-4
    density = np.exp(-(y**2) / 2) / np.exp(-(y**2) / 2).sum()
    for a in (0.0, 0.2, 0.5, 1.0, -1.0):
        kept = float((density * np.where(y > 0, y, a * y) ** 2).sum())  # of a mean square of 1
        with case(f"a = {a:g}"):
            found = float(answer(a))
            for hint, other in (
                ("this is what is left of the mean square, and the gain has to make up for it.", kept),
                ("this makes up for the deviation, and a gain is a factor of the variance.", 1 / math.sqrt(kept)),
                ("this is the gain of a ReLU. What becomes of the negative half?", 2.0),
                ("how does the negative half enter a mean of squares?", 2 / (1 + a) if a != -1 else math.inf),
            ):
                if math.isclose(found, other, rel_tol=1e-4) and not math.isclose(other, 1 / kept, rel_tol=1e-4):
                    raise Different(hint)
            same(found, 1 / kept, "the gain", tolerance=1e-4)


def exercise_2(answer):
    """Check the best rate for a bowl and the factor of its slower direction: a function of ℓ and L, two numbers."""
    for flat, steep in ((1.0, 10.0), (2.0, 2.0), (0.5, 100.0)):
        with case(f"ℓ = {flat:g}, L = {steep:g}"):
            rate, factor = (float(number) for number in answer(flat, steep))
            slower = max(abs(1 - rate * flat), abs(1 - rate * steep))
            if not slower < 1:
                raise Different(f"with the rate {rate:.4g} a direction does not shrink: its factor is {slower:.4g}.")
            for other in (0.999 * rate, 1.001 * rate):
                at_other = max(abs(1 - other * flat), abs(1 - other * steep))
                if at_other < slower - 1e-12:
                    off = "large" if other < rate else "small"
                    raise Different(
                        f"the rate {rate:.4g} is too {off}: the slower direction has the factor {slower:.4g}, "
                        f"and with {other:.4g} it has {at_other:.4g}."
                    )
            if math.isclose(factor, slower**2, rel_tol=1e-6) and slower:
                raise Different("the rate is right. The factor is that of the loss: the distance is asked for.")
            if math.isclose(factor, -slower, rel_tol=1e-6) and slower:
                raise Different("the rate is right. Give the size of the factor, without its sign.")
            same(factor, slower, "the factor")


def exercise_3(answer):
    """Check the rates that make the same run from weights s times as large: a function of s and η, two numbers."""
    for s, rate in ((10.0, 1e-3), (0.5, 0.1), (3.0, 0.2)):
        with case(f"s = {s:g}, η = {rate:g}"):
            sgd, adam = (float(number) for number in answer(s, rate))
            if math.isclose(sgd, s * rate) and math.isclose(adam, s * s * rate):
                raise Different("both are right, but SGD's rate comes first.")
            for hint, found, other in (
                ("SGD: the weights are s times as large, but what of the gradient?", sgd, s * rate),
                ("SGD: the gradient is smaller, but how long must the steps be?", sgd, rate),
                ("Adam: its step does not depend on the size of the gradient.", adam, s * s * rate),
                ("Adam: its steps are as long as before, but the weights are not.", adam, rate),
            ):
                if math.isclose(found, other):
                    raise Different(hint)
            for name, found, expected in (("SGD", sgd, s * s * rate), ("Adam", adam, s * rate)):
                if not math.isclose(found, expected, rel_tol=1e-6):
                    off = "large" if found > expected else "small"
                    raise Different(f"the rate with {name} is too {off}, {found:.4g}.")
