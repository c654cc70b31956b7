"""Figures of notebook 12, where to start and how far to step."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import NullLocator

from tinyseg.learn.figures import Film, figure
from tinyseg.report.colours import BLUE, DARK_ORANGE, GREEN, GREY, ORANGE, PURPLE


@figure
def depth(at, measured, predicted):
    """Deviation of outputs and of gradients in 16 layers, on a logarithmic axis, for three gains.

    With gain 2 both stay near 1 in every layer. With gain 1 outputs fall along a straight line to about a 200th, with
    gain 4 they rise to some hundreds; gradients do the same from the last layer to the first. Four seeds each lie near
    the dashed lines of the formula.
    """
    drawn, axes = plt.subplots(1, 2, figsize=(8.6, 3.5), sharey=True)
    names = {1: "g = 1, Glorot", 2: "g = 2, He", 4: "g = 4"}
    for (gain, name), colour in zip(names.items(), (BLUE, GREEN, ORANGE), strict=True):
        for k, ax in enumerate(axes):
            for run in measured[gain]:
                ax.semilogy(at, run[k], color=colour, linewidth=0.9)
            ax.semilogy(at, predicted[gain][k], "--", color="black", linewidth=1)
        words = DARK_ORANGE if colour == ORANGE else colour
        axes[0].text(at[-1] + 0.4, predicted[gain][0, -1], name, color=words, va="center")
    axes[0].set(title="Forwards: outputs", ylabel="deviation", xlabel="layer")
    axes[1].set(title="Backwards: their gradients", xlabel="layer")
    for ax in axes:
        ax.set_xticks([1, 4, 8, 12, 16])
        ax.yaxis.set_minor_locator(NullLocator())
    return drawn


@figure
def norms(signals, scales, moved):
    """Left: deviation of outputs in eight separable layers. Right: length of the first step against the weights' scale.

    Left: with fan_in 9 it stays near 1, with 9 C it falls by a factor of eight in each layer, and GroupNorm keeps it
    level after the first layer. Right, both axes logarithmic: SGD's relative step falls along a line of slope -2,
    Adam's along one of slope -1.
    """
    drawn, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.4))
    places = (8.2, 0), (8.2, 0), (3.2, 0.35)
    for (name, values), colour, (x, y) in zip(signals.items(), (BLUE, ORANGE, GREEN), places, strict=True):
        left.semilogy(range(1, len(values) + 1), values, "o-", markersize=4, color=colour)
        words = DARK_ORANGE if colour == ORANGE else colour
        left.text(x, y or values[-1], f"fan_in = {name}", color=words, va="center", ha="left")
    left.set(xlabel="separable layer", ylabel="deviation of its output", title="What the wrong count does")
    left.set_xticks(range(1, 9))
    left.yaxis.set_minor_locator(NullLocator())
    for (name, values), colour, slope in zip(moved.items(), (BLUE, PURPLE), ("1/s²", "1/s"), strict=True):
        right.loglog(scales, values, "o-", color=colour)
        right.text(scales[-1] * 1.2, values[-1], f"{name}: {slope}", color=colour, va="center")
    right.set(xlabel="scale s of the weights", ylabel="first step, relative to them", title="Before a norm")
    right.set_xticks(scales, [f"{s:g}" for s in scales])
    right.xaxis.set_minor_locator(NullLocator())
    return drawn


@figure
def bowl(rates, curvatures, paths, losses):
    """Gradient descent in a long bowl, a frame for each learning rate: its path on contours, and its loss.

    Small rates creep along the valley. At 1/L the path reaches the valley in one step; beyond, it jumps from wall to
    wall and is faster; in the last frame, beyond 2/L, the jumps and the loss grow.
    """
    drawn, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.2), width_ratios=(1.3, 1))
    u, v = np.meshgrid(np.linspace(-0.35, 1, 120), np.linspace(-0.9, 0.9, 120))
    heights = 0.5 * (curvatures[0] * u**2 + curvatures[1] * v**2)

    def show(k):
        for ax in (left, right):
            ax.clear()
        left.contour(u, v, heights, levels=np.array([0.02, 0.1, 0.3, 0.7, 1.5, 3]), colors=GREY, linewidths=0.8)
        left.plot(*paths[k].T, "o-", color=BLUE, markersize=4, linewidth=1.2)
        left.plot(0, 0, "+", color="black", markersize=10)
        left.set(xlim=(-0.35, 1), ylim=(-0.9, 0.9), xlabel="u, curvature ℓ", ylabel="v, curvature L")
        left.set_title(f"η = {rates[k] * curvatures[1]:.2f} / L")
        for other in losses[:k]:
            right.semilogy(other, color=GREY, linewidth=0.7, alpha=0.5)
        right.semilogy(losses[k], color=BLUE)
        right.set(xlabel="step", title="loss", ylim=(1e-5, 10), xlim=(0, losses.shape[1] - 1))
        right.yaxis.set_minor_locator(NullLocator())

    return Film(drawn, show, len(rates), seconds=1.0)


@figure
def rates(sweep, tests, one_answer):
    """Loss against the learning rate, logarithmic. Left: after 30 steps with each rate. Right: in a range test.

    Three curves: SD-UNet with SGD and with Adam, U-Net with Adam. Each falls into a valley and ends in divergence (SGD)
    or rises to the dotted line, the loss of one answer for all pixels; U-Net's valley ends at the smallest rate. In
    the range tests the curves fall at about the same rates, and U-Net's rises later.
    """
    drawn, axes = plt.subplots(1, 2, figsize=(8.8, 3.5), sharey=True, sharex=True)
    names = {("sdunet", "SGD"): (BLUE, "SD-UNet, SGD"), ("sdunet", "Adam"): (PURPLE, "SD-UNet, Adam")}
    names |= {("unet", "Adam"): (ORANGE, "U-Net, Adam")}
    top = 1.25
    for key, (colour, name) in names.items():
        at, losses = sweep[key][0], np.array(sweep[key][1])
        fits = np.isfinite(losses) & (losses < top)
        axes[0].plot(at[fits], losses[fits], "o-", color=colour, markersize=4, label=name)
        axes[0].plot(at[~fits], np.full(np.sum(~fits), top - 0.03), "x", color=colour, markersize=8)
        at, losses = tests[key]
        smooth = np.convolve(losses, np.ones(5) / 5, "valid")
        last = np.argmax(~(smooth < top)) or len(smooth)  # the first that is too large, or nan
        at = at[2:-2]
        axes[1].plot(at[:last], smooth[:last], color=colour)
        if last < len(smooth):
            axes[1].plot(at[last], top - 0.03, "x", color=colour, markersize=8)
    axes[0].set(xscale="log", ylim=(0.2, top), ylabel="loss", title="Sweep: 30 steps with each rate")
    axes[1].set(title="Range test: one run, rising rate")
    axes[0].legend(loc="upper left")
    for ax in axes:
        ax.axhline(one_answer, color="black", linestyle=":", linewidth=0.9)
        ax.set_xlabel("learning rate")
        ax.set_xticks([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100])
        ax.xaxis.set_minor_locator(NullLocator())
    return drawn


@figure
def schedules(bowls, losses):
    """Left: mean square distance in a noisy bowl against the step. Right: the loss of U-Net with three schedules.

    Left: a large constant rate falls at once to a floor, a small one falls slowly, the cosine falls with the first and
    ends far below both. Right: with a constant rate the loss jumps up at the second step, and one of the two seeds
    stays behind to the end; with a warm-up it falls from the start, with a cosine too.
    """
    drawn, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.4))
    names = {"large": "constant, large", "small": "constant, small", "cosine": "cosine from the large one"}
    for (key, name), colour in zip(names.items(), (ORANGE, GREY, BLUE), strict=True):
        left.semilogy(bowls[key], color=colour, label=name)
    left.set(xlabel="step", ylabel="E[w²]", title="A noisy bowl")
    left.legend(loc="upper right")
    looks = {"constant": (ORANGE, "-"), "warm-up, cosine": (BLUE, "-"), "warm-up": (GREEN, "--")}
    for key, (colour, style) in looks.items():
        for k, run in enumerate(losses[key]):
            right.semilogy(range(1, len(run) + 1), run, style, color=colour, linewidth=1.3, label="" if k else key)
    right.set(xlabel="step", ylabel="loss", title="U-Net, Adam, two seeds")
    right.legend(loc="upper right")
    return drawn
