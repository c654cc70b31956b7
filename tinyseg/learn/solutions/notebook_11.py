"""Solutions of notebook 11, what eight bits cost."""

import numpy as np

# %% 1
# round(f · max(S, 0)) = max(round(f · S), 0) for a factor f > 0, since rounding keeps
# the order and 0 stays 0.


def solution_1(sums, factor):
    with_relu = np.clip(np.rint(np.maximum(sums, 0) * factor), 0, 255)
    by_clipping = np.clip(np.rint(sums * factor), 0, 255)
    return with_relu, by_clipping


# %% 2
# All integers stand for 1 … 3, so the nearest to 0 stands for 1. In a corner five of
# the nine taps lie outside: the sum is too large by 5. With 0 in the range it would be
# exact.


def solution_2(low=1, high=3):
    step = (high - low) / 255
    outside = low + step * np.clip(np.rint((0 - low) / step), 0, 255)
    inside = np.full((2, 2), 2.0)  # the four taps in the corner of a plane of 2
    padded = np.pad(inside, ((1, 0), (1, 0)), constant_values=outside)
    return outside, padded.sum() - inside.sum()


# %% 3
# The errors are independent and add up as √n. Where weights and inputs share a sign, as
# here, the sum grows as n, and the relative error falls as 1/√n. With weights of both
# signs, of mean 0, the sum itself grows as √n only, and the ratio stays the same. A
# depthwise kernel has nine terms, while most of U-Net's sums are long, which may be why
# U-Net is changed less.


def solution_3(weights, inputs):
    step = abs(weights).max(1, keepdims=True) / 63
    exact = (weights * inputs).sum(1)
    return (np.rint(weights / step) * step * inputs).sum(1) / exact - 1
