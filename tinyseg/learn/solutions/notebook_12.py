"""Solutions of notebook 12, where to start and how far to step."""

# %% 1
# A normal y is above 0 as often as below. Above, its square stays; below, it is
# multiplied by a². So of the mean square (1 + a²) / 2 is left, and the gain has to make
# up for it. a = 0 is the ReLU, and He's 2; a = 1 bends nothing, and Glorot's 1 is back.
# a = -1 is the absolute value: it keeps the mean square too.


def solution_1(a):
    return 2 / (1 + a**2)


# %% 2
# The factors are 1 - η ℓ and 1 - η L. While η grows, the first falls from 1; the second
# is negative beyond η = 1 / L, and its size rises. The larger of the two is least where
# they meet, 1 - η ℓ = η L - 1. With L = 100 ℓ the factor is 99 / 101: more than a
# hundred steps for a digit, and no rate helps, only a bowl that is rounder.


def solution_2(flat, steep):
    return 2 / (flat + steep), (steep - flat) / (steep + flat)


# %% 3
# Weights that are s times as large must take steps that are s times as long: then they
# stay s times as large, and the norm sees no difference. The gradient is 1 / s of what
# it was. SGD multiplies it by the rate, so the rate has to be s² η. Adam divides it by
# its own size: 1 / s drops out, and s η is left.


def solution_3(s, rate):
    return s**2 * rate, s * rate
