"""Answers to notebook 7: how far a U-Net sees, what comes from near pixels, a sum as a special case of joining."""

import numpy as np
from scipy.signal import correlate2d

from tinyseg import nn
from tinyseg.learn.comparing import Different, case, numbers, same

RADII = {0: 2, 1: 10, 2: 26, 3: 58, 4: 122, 5: 250, 6: 506}  # added up by hand
SAVED = 9 * (64**2 + 128**2 + 256**2 + 512**2)  # half of 9 · 2c · c at each level


def exercise_1(answer):
    """Check the bound on the radius, a function of b, and the poolings with which all of 512 × 512 is seen."""
    radius, poolings = answer
    for b, expected in RADII.items():
        same(float(radius(b)), float(expected), f"with {b} pooling{'s' * (b != 1)} the radius")
    if poolings is ...:
        raise Different("the formula is right, and the number of poolings is still to be given.")
    if poolings != 6:
        off = "many: fewer reach as far" if poolings > 6 else "few"
        raise Different(f"{poolings} poolings are too {off}. How far from the middle is the edge of the image?")


def exercise_2(answer):
    """Check the part of the influence that comes from the 5 × 5 pixels around an output: a function of a model."""
    for k in (3, 5, 7, 9):
        layer = nn.Conv2d(1, 1, k, padding="same", rng=0)
        w = numbers(k, k, seed=k)
        layer.weight.data = w[None, None].astype(np.float32)
        edge = max(k - 5, 0) // 2
        middle = abs(w[edge : k - edge, edge : k - edge]).sum() / abs(w).sum()
        with case(f"a single {k} × {k} convolution"):
            found = float(answer(nn.Sequential(layer)))
            if k > 5 and abs(found - 100 * middle) < 0.01:
                raise Different("the part is in percent; give it as a number from 0 to 1.")
            same(found, float(middle), "the part", tolerance=1e-4)


def exercise_3(answer):
    """Check the kernel for what is joined, a function of the sum's kernel w, and how many weights addition saves."""
    kernel, saved = answer
    skip, below, w = numbers(3, 8, 7, seed=1), numbers(3, 8, 7, seed=2), numbers(2, 3, 3, 3, seed=3)
    found = kernel(w.copy())
    if np.shape(found) != (2, 6, 3, 3):
        raise Different(f"the kernel has the shape {np.shape(found)} if w has {w.shape}: how many channels are joined?")
    joined = np.concatenate([skip, below])  # (6,8,7)
    with case("what is joined, convolved with that kernel"):
        same(_convolve(joined, np.asarray(found)), _convolve(skip + below, w), "y")
    if saved is ...:
        raise Different("the kernel is right, and the number of weights is still to be given.")
    for number, hint in (
        (2 * SAVED, "these are all weights of the convolutions of what is joined: addition still needs some of them."),
        (SAVED // 9, "is each kernel 1 × 1?"),
        (4 * SAVED, "at the top the skip has 64 channels."),
    ):
        if saved == number:
            raise Different(f"not {saved:,}: {hint}")
    if saved != SAVED:
        off = "many" if saved > SAVED else "few"
        raise Different(f"{saved:,} weights are too {off}: which layers see what is joined, and how many channels?")


def _convolve(x, w):
    """Return the sums of products, (K, H, W), for x (C, H, W) and w (K, C, 3, 3), with a border of zeros."""
    return np.array([sum(correlate2d(X, taps, "same") for X, taps in zip(x, kernel, strict=True)) for kernel in w])
