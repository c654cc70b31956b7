"""Answers to notebook 4: the intensity of a pointwise layer, the size of a block, a bias and a ReLU in one kernel."""

import numpy as np
from scipy.signal import correlate2d

from tinyseg.learn.comparing import Different, case, same


def exercise_1(answer):
    """Check the intensity of a pointwise convolution, in flop/byte: a function of C and K."""
    cases = {(64, 64): 16.0, (4, 4): 1.0, (3, 1): 0.375, (4, 12): 1.5, (96, 32): 12.0}  # by hand
    found = [float(answer(C, K)) for C, K in cases]
    times = found / np.array(list(cases.values()))
    if np.allclose(times, times[0]) and not np.isclose(times[0], 1):
        hint = "how many operations are a product and a sum, and how many bytes a float32?"
        raise Different(f"all intensities are {times[0]:.4g} times what they should be: {hint}")
    for ((C, K), expected), number in zip(cases.items(), found, strict=True):
        same(number, expected, f"the intensity from {C} to {K} channels")


def exercise_2(answer):
    """Check the KiB of a block of 1, 4, 16 and 64 channels, of images of 256×256 and of 32×32: 2 rows of 4 numbers."""
    found = np.asarray(answer, float)
    if found.shape != (2, 4):
        raise Different(f"the answer has the shape {found.shape}, and should have (2, 4): a row for each size.")
    for size, row in zip((256, 32), found, strict=True):
        for channels, number in zip((1, 4, 16, 64), row, strict=True):
            kib = 3 * 4 * channels * size**2 / 1024  # three arrays; with the border one of them is a little larger
            if not kib * 0.99 <= number <= kib * 1.06:
                off = "large" if number > kib else "small"
                hint = "three float32 arrays have the size of the block"
                raise Different(f"a block of {channels} × {size} × {size}: {number:.6g} KiB is too {off}; {hint}.")


def exercise_3(answer):
    """Check the bytes an output that three ops move, those of one, and the kernel: a function of x, w, b and y."""
    three, one, fused = answer
    for number, words, bytes_moved in ((three, "that three ops move", 24), (one, "that one op moves", 8)):
        if number != bytes_moved:
            hint = "what has to be read and what written, weights and bias apart?"
            off = "many" if number > bytes_moved else "few"
            raise Different(f"the bytes an output {words} are too {off}, {number}: {hint}")
    if fused is ...:
        raise Different("the bytes are right, and the kernel is still to be written.")
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((2, 3, 5, 7), np.float32), rng.standard_normal((3, 3, 3), np.float32)
    for words, b in (
        ("without a bias", np.zeros(3, np.float32)),
        ("with a bias", np.array([2, -2, 0.5], np.float32)),
    ):
        expected = np.array([[correlate2d(X, taps, "same") for X, taps in zip(image, w, strict=True)] for image in x])
        expected = np.maximum(expected + b[:, None, None], 0).astype(np.float32)
        y = np.full(x.shape, np.nan, np.float32)
        with case(words):
            found = fused(x, w, b, y)
            same(y if found is None else found, expected, "y", tolerance=1e-5)
