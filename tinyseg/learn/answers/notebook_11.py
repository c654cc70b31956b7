"""Answers to notebook 11: a ReLU for nothing, a border of the integer nearest to 0, sums of rounded weights."""

import numpy as np

from tinyseg.learn.comparing import Different, case, same


def exercise_1(answer):
    """Check the integers with a ReLU of the sums, and by clipping alone: a function of sums and factor, two arrays."""
    rng = np.random.default_rng(1)
    for words, largest in (("sums that fit", 10_000), ("sums of which some are too large", 100_000)):
        sums = rng.integers(-largest, largest, (1, 3, 4, 5)).astype(float)
        factor = np.sqrt([1.3e-4, 3e-4, 5e-4])[:, None, None]
        expected = np.zeros(sums.shape)
        for n, c, i, j in np.ndindex(sums.shape):
            expected[n, c, i, j] = min(max(round(float(sums[n, c, i, j] * factor[c, 0, 0])), 0), 255)
        with case(words):
            for found, name in zip(answer(sums.copy(), factor), ("with_relu", "by_clipping"), strict=True):
                same(np.asarray(found, float), expected, name)


def exercise_2(answer):
    """Check the number that the borders get, and by how much the sum in the corner is too large: two numbers."""
    border, off = (float(number) for number in answer)
    if border == 0:
        raise Different("the borders cannot get 0: no integer stands for a number outside of the range.")
    if not 0.99 <= border <= 3.01:  # a zero point that is rounded moves the range by half a step
        raise Different(f"the borders cannot get {border:g}: it lies outside of the range.")
    if border > 1.01:
        raise Different(f"the borders do not get {border:g}: another integer stands for a number nearer to 0.")
    if not abs(abs(off) - 5) <= 0.05:  # of the nine taps four are inside
        raise Different(f"the sum is not off by {off:g}: in a corner, how many of the nine taps lie outside?")


def exercise_3(answer):
    """Check the relative error of each sum with weights of 7 bits: a function of weights and inputs, (m, n) each."""
    rng = np.random.default_rng(3)
    for n in (9, 576):
        weights, inputs = rng.uniform(0.1, 1, (4, n)) * np.array([[1], [3], [0.2], [0.01]]), rng.uniform(0, 1, (4, n))
        exact, right, other = np.zeros((3, 4))
        for m in range(4):
            exact[m] = sum(float(w) * float(x) for w, x in zip(weights[m], inputs[m], strict=True))
            right[m], other[m] = (_rounded(weights[m], inputs[m], most) for most in (63, 127))
        together = [_rounded(weights[m], inputs[m], 63, weights.max()) for m in range(4)]
        with case(f"for n = {n}"):
            found = answer(weights.copy(), inputs.copy())
            if np.shape(found) != (4,):
                raise Different(f"the errors have the shape {np.shape(found)}, and should be one for each row: (4,).")
            found = abs(np.asarray(found, float))
            for hint, error in (
                ("these are the errors of the sums themselves: divide them by the exact sums.", right - exact),
                ("these are the errors with 8 bits: with 7 bits integers go up to 63.", other / exact - 1),
                ("these are the errors with one scale for all rows: each has its own.", together / exact - 1),
            ):
                if np.allclose(found, abs(error), 1e-4, 1e-9):
                    raise Different(hint)
            same(found, abs(right / exact - 1), "the relative error", tolerance=1e-5)


def _rounded(weights, inputs, most, largest=None):
    """Return the sum of products with weights rounded to integers from -most to most."""
    step = (weights.max() if largest is None else largest) / most
    return sum(round(float(w / step)) * float(step) * float(x) for w, x in zip(weights, inputs, strict=True))
