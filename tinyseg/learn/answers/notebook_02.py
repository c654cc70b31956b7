"""Answers to notebook 2: a depth multiplier that pays, a half that is free, the kernels whose answers are closest."""

import numpy as np

from tinyseg.learn.comparing import Different, case, same


def exercise_1(answer):
    """Check the largest R with which a separable layer is cheaper: a function of K, the channels out, and k."""
    cases = [(K, 3, "") for K in (64, 1024, 2)] + [(64, 2, ""), (512, 2, ""), (1, 3, " (even R = 1 need not pay)")]
    cases += [(K, k, " (cheaper is less than the whole cost)") for K, k in ((4, 2), (72, 3))]
    for K, k, words in cases:
        largest = 0
        while (largest + 1) * (k * k + K) < k * k * K:  # multiply-adds a pixel and input channel
            largest += 1
        with case(f"{k} × {k} kernels and {K} channels out{words}"):
            same(float(answer(K, k)), float(largest), "the largest R")


def exercise_2(answer):
    """Check the share of SD-UNet's multiply-adds that remains, and what 7 × 7 costs in SD-UNet and U-Net: 3 numbers."""
    share, sdunet, unet = (float(number) for number in answer)
    if not 0 < share < 1:
        raise Different("the share that remains is a number between 0 and 1.")
    depthwise, other = _work(separable=True)
    remains = other / (depthwise + other)
    _near(share, remains, "the share of SD-UNet's work that remains", "without the depthwise sums only")
    for found, name, separable, hint in (
        (sdunet, "SD-UNet", True, "only its 3 × 3 kernels grow, that of its first layer, a standard one, too"),
        (unet, "U-Net", False, "only its 3 × 3 kernels grow, and not all of its kernels are 3 × 3"),
    ):
        growth = sum(_work(separable, side=7)) / sum(_work(separable))
        _near(found, growth, f"what 7 × 7 kernels cost in {name}, as a multiple of the work with 3 × 3,", hint)


def exercise_3(answer):
    """Check the best matrix of rank 1 in the measure of Σ: a function of A, (K, k²), and of Σ, (k², k²)."""
    rng = np.random.default_rng(3)
    A, at = rng.standard_normal((5, 9)), np.arange(9)
    place = np.stack([at // 3, at % 3])
    distance = np.hypot(*(place[:, :, None] - place[:, None]))
    for words, S in (
        ("for pixels that have nothing to do with each other", np.eye(9)),
        ("for pixels that are like their neighbours", np.exp(-distance / 4)),
    ):
        B = answer(A.copy(), S.copy())
        if np.shape(B) != A.shape:
            raise Different(f"B has the shape {np.shape(B)}, and A has {A.shape}.")
        singular = np.linalg.svd(B, compute_uv=False)
        if not singular[1] <= 1e-6 * singular[0]:
            raise Different(f"B is not of rank 1, {words}: its second singular value is {singular[1]:.3g}.")
        u = np.linalg.eigh(A @ S @ A.T)[1][:, -1]  # best are the rows of A, projected onto this one direction
        least, found = (np.trace((A - M) @ S @ (A - M).T) for M in (np.outer(u, u @ A), B))
        if not found <= least * (1 + 1e-6):
            times = found / least
            raise Different(f"{words} the mean squared error of the output is {times:.4g} times the least possible.")


def _work(separable, side=3):
    """Return multiply-adds for an input of 256 × 256, by Equations 1 and 2: of depthwise sums, and of all else."""
    layers = [(3, 64, 64, 256)] * (not separable)  # kernel, channels in and out, size
    for K, size in ((128, 128), (256, 64), (512, 32), (1024, 16)):
        layers += [(3, K // 2, K, size), (3, K, K, size)]
    for K, size in ((512, 32), (256, 64), (128, 128), (64, 256)):
        layers += [(2, 2 * K, K, size), (3, 2 * K, K, size), (3, K, K, size)]
    layers += [(3, 64, 2, 256)]
    depthwise, other = 0, (side**2 * 64 + 2) * 256**2  # the first layer and the last, alike in both
    for k, C, K, size in layers:
        k = side if k == 3 else k
        depthwise += k * k * C * size**2 * separable
        other += C * K * size**2 * (1 if separable else k * k)
    return depthwise, other


def _near(found, expected, words, hint):
    """Raise `Different` unless a number is right to one per cent, with a hint in the place of the right one."""
    if not abs(found - expected) <= 0.01 * expected:
        raise Different(f"{words} is too {'large' if found > expected else 'small'}, {found:.4g}: {hint}.")
