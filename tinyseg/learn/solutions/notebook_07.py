"""Solutions of notebook 7, U-Net from blocks."""

import numpy as np

# %% 1
# The sums are geometric: 2 (2·2^b - 1) + (2^b - 1) + 3 (2^b - 1) = 8·2^b - 6. To see
# all of 512 × 512 from the middle takes a radius of 256. The bound only excludes five
# poolings; that six suffice shows in the gradient: the middle then sees from -382 to
# 445.


def radius(b):
    down = sum(2 * 2**level for level in range(b + 1))  # two convolutions a level
    pools = sum(2 ** (level - 1) for level in range(1, b + 1))
    up = sum(3 * 2**level for level in range(b))  # the 2 × 2 one and two of 3 × 3
    return down + pools + up


def solution_1():
    return radius, next(b for b in range(20) if radius(b) >= 256)


# %% 2
# The topmost skip is a way of four convolutions, which can only see near pixels.
# Without skips every way goes through the bottom, where one pixel stands for 8 × 8 of
# the image.


def solution_2(g):
    """The part of a model's influence g that comes from the middle 5 × 5 pixels."""
    middle = len(g) // 2
    near = slice(middle - 2, middle + 3)
    return float(g[near, near].sum() / g.sum())


# %% 3
# A convolution is linear: w * (s + b) = w * s + w * b. Joined, both may have weights of
# their own; added, they share them. So joining can do all that adding can, and can tell
# from which side a feature came. Adding would need half of the first kernel in each
# block of the decoder.


def kernel_for_joined(w):
    return np.concatenate([w, w], axis=1)


def solution_3(unet):
    saved = sum(up.block.convs[0].weight.size // 2 for up in unet.decoder)
    return kernel_for_joined, saved
