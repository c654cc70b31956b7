"""Answers to notebook 10: sizes like with like, two IoUs from an accuracy and a Dice, the best of six equals."""

import numpy as np
from scipy.special import ndtr

from tinyseg.learn.comparing import Different, case, same


def exercise_1(answer):
    """Check how many times as big as SD-UNet are U-Net (depthwise+GN=32) and U-Net (GN=32): two numbers."""
    sd = _parameters(separable=True, first=1)
    for found, name, printed, own in zip(
        answer,
        ("U-Net (depthwise+GN=32)", "U-Net (GN=32)"),
        (47.1 / 15.8, 311.7 / 15.8),
        (_parameters(separable=True), _parameters(separable=False)),
        strict=True,
    ):
        if abs(found - own / sd) <= 0.005 * own / sd:
            continue
        words = f"{name} is not {found:.3g} times as big as SD-UNet"
        if abs(found - printed) <= 0.02 * printed:
            raise Different(f"{words}, though it is printed so: do both files hold the same kinds of numbers?")
        if abs(found - 26 / 3.9) <= 0.01 * found:
            raise Different(f"{words}: the 26 million are printed; how many parameters has the network that you build?")
        raise Different(f"{words}, but {'less' if found > own / sd else 'more'}: divide what two live networks have.")


def exercise_2(answer):
    """Check the IoU of the class that has the Dice D, and of the other: a function of the accuracy a and D."""
    for TP, TN, FP, FN in ((70, 20, 4, 6), (50, 40, 10, 0), (30, 55, 0, 15), (81, 13, 1, 5)):
        e = FP + FN
        with case(f"of 100 pixels {TP} are in both masks, {TN} in neither, {e} in one of the two"):
            own, other = answer((TP + TN) / 100, 2 * TP / (2 * TP + e))
            if np.allclose((own, other), (TN / (TN + e), TP / (TP + e))):
                raise Different("both are right, but the class comes first whose Dice is D.")
            same(float(own), TP / (TP + e), "the IoU of the class whose Dice is D")
            same(float(other), TN / (TN + e), "the IoU of the other class")


def exercise_3(answer):
    """Check best - worst with one run and with the mean of three, in s, and the favourite's share: three numbers."""
    one, three, share = (float(number) for number in answer)
    x = np.linspace(-9, 9, 3001)
    gap = (1 - ndtr(x) ** 6 - ndtr(-x) ** 6).sum() * (x[1] - x[0])  # the mean range of six normal numbers
    if not abs(one - gap) <= 0.05:
        off = "large" if one > gap else "small"
        raise Different(f"with one run the mean of best - worst is too {off}, {one:.3g} s.")
    if abs(three - one / 3) <= 0.03:
        raise Different("with the mean of three runs the gap is not a third: how does the deviation of a mean fall?")
    if abs(three - one) <= 0.05:
        raise Different("with the mean of three runs the gap is not the same: s is the deviation of one run in both.")
    if not abs(three - gap / np.sqrt(3)) <= 0.04:
        off = "large" if three > gap / np.sqrt(3) else "small"
        raise Different(f"with the mean of three runs best - worst is too {off}, {three:.3g} s.")
    if 1 < share <= 100:
        raise Different("how often the favourite comes first is a share, from 0 to 1.")
    if abs(share - 1 / 6) <= 0.015:
        raise Different("the favourite comes first as often as any other: has it alone three runs to choose from?")
    if not abs(share - 3 / 8) <= 0.015:  # three of the eight runs that enter are the favourite's
        off = "often" if share > 3 / 8 else "seldom"
        raise Different(f"the favourite comes first too {off}, in {share:.3g} of the tables. Are there enough tables?")


def _parameters(separable, first=2):
    """Return the parameters of U-Net with GroupNorm, with standard or separable layers: by adding up its layers."""

    def layer(k, C, K):
        return k * k * C + C * K + K if separable else k * k * C * K + K

    widths = (64, 128, 256, 512, 1024)
    total = 9 * 64 + 64 + (first - 1) * layer(3, 64, 64) + 2 * 64  # the first layer is standard in all
    for C, K in zip(widths, widths[1:], strict=False):
        total += layer(3, C, K) + layer(3, K, K) + 2 * K  # down
        total += layer(2, K, C) + layer(3, K, C) + layer(3, C, C) + 2 * C  # and up
    return total + layer(3, 64, 2) + 3
