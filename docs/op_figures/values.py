"""Figures of the pages on ops that work value by value, and on losses."""

import itertools

import numpy as np

from tinyseg import Tensor, ops
from tinyseg.report.colours import BLUE, DARK_GREY, DARK_ORANGE, GREEN, GREY, ORANGE

from .drawing import arrow, grid, number, plots, say, sheet, tint


def _slope(op, x, pick):
    """Return the values y[pick] of an op and the gradient of their sum with respect to x."""
    x = Tensor(x, requires_grad=True)
    y = op(x)
    gy = np.zeros(y.shape)
    gy[pick] = 1
    y.backward(gy)
    return y.data[pick], x.grad


def activation():
    """Four functions above, their derivatives below."""
    x = np.linspace(-6, 6, 121)
    logits = np.stack([x, np.zeros_like(x), np.ones_like(x)], 1)  # (121, 3): the first of three classes varies
    figure, axes = plots(2, 4, 4.0, sharex=True)
    for column, (name, op) in enumerate((("ReLU", ops.relu), ("sigmoid", ops.sigmoid))):
        y, slope = _slope(op, x, slice(None))
        if name == "ReLU":  # the corner and the jump as they are
            axes[0, 0].plot([-6, 0, 6], ops.relu(np.array([-6.0, 0, 6])).data, color=BLUE)
            axes[1, 0].plot([-6, 0], [0, 0], color=BLUE)
            axes[1, 0].plot([0, 6], [1, 1], color=BLUE)
        else:
            axes[0, column].plot(x, y, color=BLUE)
            axes[1, column].plot(x, slope, color=BLUE)
        axes[0, column].set_title(name)
    for column, (name, op) in ((2, ("softmax", ops.softmax)), (3, ("log-softmax", ops.log_softmax))):
        for c, colour in enumerate((BLUE, ORANGE, GREEN)):
            y, slope = _slope(op, logits, (slice(None), c))
            dashes = (0, (3, 5)) if (name, c) == ("log-softmax", 2) else "-"  # two slopes are the same
            axes[0, column].plot(x, y, color=colour)
            axes[1, column].plot(x, slope[:, 0], color=colour, linestyle=dashes)
        axes[0, column].set_title(name)
    ticks = {(0, 0): [0, 3, 6], (0, 1): [0, 0.5, 1], (0, 2): [0, 0.5, 1], (0, 3): [-6, -3, 0], (1, 0): [0, 1],
             (1, 1): [0, 0.25], (1, 2): [-0.25, 0, 0.25], (1, 3): [-1, 0, 1]}  # fmt: skip
    for (row, column), at in ticks.items():
        ax = axes[row, column]
        ax.set_yticks(at, [number(value) for value in at])
        ax.axhline(0, color=GREY, linewidth=0.6, zorder=0)
        ax.set_xticks([-6, 0, 6], ["−6", "0", "6"])
        ax.tick_params(labelsize=9)
    axes[0, 0].set_ylabel("$y$")
    axes[1, 0].set_ylabel("derivative")
    for column in (0, 1):
        axes[1, column].set_xlabel("$x$")
    for column in (2, 3):
        axes[1, column].set_xlabel("$x_0$   ($x_1 = 0$, $x_2 = 1$)", fontsize=9)
    axes[1, 1].set_ylim(-0.02, 0.3)
    for at, y, colour, text in (
        (1.2, 0.9, BLUE, "$y_0$"),
        (-5.8, 0.37, DARK_ORANGE, "$y_1$"),
        (-5.8, 0.64, GREEN, "$y_2$"),
    ):
        axes[0, 2].text(at, y, text, color=colour, va="center")
    return figure


def loss():
    """Binary cross-entropy and soft Dice, and their gradients, against the logit of one pixel."""
    z = np.linspace(-8, 8, 81)
    figure, axes = plots(2, 2, 4.9, sharex=True)
    for t, colour in ((1, BLUE), (0, ORANGE)):
        loss, slope = [], []
        for value in z:
            logit = Tensor(np.array([value]), requires_grad=True)
            one = ops.binary_cross_entropy_with_logits(logit, np.array([float(t)]))
            one.backward()
            loss.append(one.item())
            slope.append(logit.grad.item())
        axes[0, 0].plot(z, loss, color=colour)
        axes[0, 1].plot(z, slope, color=colour)
        loss, slope = [], []
        target = np.array([[[[1.0, 1], [0, 0]]]])
        for value in z:
            logits = np.array([[[[6.0, 6], [-6, -6]]]])
            at = (0, 0, 1 - t, 0)
            logits[at] = value
            logits = Tensor(logits, requires_grad=True)
            one = ops.soft_dice_loss(logits, target)
            one.backward()
            loss.append(one.item())
            slope.append(logits.grad[at])
        axes[1, 0].plot(z, loss, color=colour)
        axes[1, 1].plot(z, slope, color=colour)
    axes[0, 0].set(title="Binary cross-entropy $l$ of one pixel")
    axes[0, 1].set(title="Its gradient, $p - t$", ylim=(-1.2, 1.2))
    axes[1, 0].set(title="Soft Dice loss $1 - D$ of four pixels", ylim=(-0.01, 0.28))
    axes[1, 1].set(title="Its gradient for the pixel", ylim=(-0.1, 0.1))
    for ax, at in zip(axes.ravel(), ([0, 4, 8], [-1, 0, 1], [0, 0.1, 0.2], [-0.05, 0, 0.05]), strict=True):
        ax.set_yticks(at, [number(value) for value in at])
        ax.set_xticks([-8, -4, 0, 4, 8], ["−8", "−4", "0", "4", "8"])
        ax.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    for ax in axes[1]:
        ax.set_xlabel("logit $z$ of the pixel")
    axes[0, 0].text(-5, 6.4, "$t = 1$", color=BLUE)
    axes[0, 0].text(5, 6.4, "$t = 0$", color=DARK_ORANGE, ha="right")
    axes[0, 1].text(-7.8, -0.75, "surely wrong: −1", color=BLUE, fontsize=9)
    axes[0, 1].text(7.8, 0.65, "surely wrong: 1", color=DARK_ORANGE, fontsize=9, ha="right")
    axes[1, 1].text(-7.8, -0.035, "surely wrong:\nnear 0", color=BLUE, fontsize=9, va="center")
    axes[1, 1].text(7.8, 0.035, "surely wrong:\nnear 0", color=DARK_ORANGE, fontsize=9, va="center", ha="right")
    return figure


def dropout():
    """A mask, the scale, and the same mask on the way back; beside it a mask of whole channels."""
    x = Tensor(np.arange(1.0, 13).reshape(3, 4), requires_grad=True)
    y = ops.dropout(x, p=0.5, seed=9)
    gy = np.array([[1.0, 2, 1, 3], [2, 1, 1, 2], [1, 3, 2, 1]])
    y.backward(gy)
    kept = (ops.dropout(np.ones((3, 4)), p=0.5, seed=9).data != 0).astype(float)
    planes = ops.dropout2d(np.ones((1, 4, 2, 2)), p=0.5, seed=25).data[0] / 2

    ax = sheet(11.4)
    on = lambda r, q: tint(BLUE, 0.3) if kept[r, q] else "white"  # noqa: E731
    say(ax, 0.8, 0.7, "dropout, $p = \\frac{1}{2}$, so $1/(1 - p) = 2$", weight="bold")
    say(ax, 19.0, 0.7, "dropout2d", weight="bold")
    for top, values, out, names in ((2.6, x.data, y.data, ("$x$", "$y$")), (7.6, gy, x.grad, ("$gy$", "$gx$"))):
        grid(ax, 0.8, top, values, on, names[0])
        grid(ax, 6.2, top, kept, on, "mask $m$", grey_zeros=True)
        grid(ax, 13.0, top, out, on, names[1], grey_zeros=True)
        say(ax, 5.5, top + 1.5, "×", 13, "center")
        say(ax, 11.6, top + 1.5, "× 2  =", 12, "center")
    for c, plane in enumerate(planes):
        left, top = 19.0 + 3 * (c % 2), 2.6 + 3.8 * (c // 2)
        fill = tint(BLUE, 0.3) if plane[0, 0] else "white"
        grid(ax, left, top, plane, fill, f"$m$, $c={c}$", grey_zeros=True)
    say(ax, 19.0, 9.4, "a whole channel is", 9.5, color=DARK_GREY)
    say(ax, 19.0, 10.2, "kept or set to 0", 9.5, color=DARK_GREY)
    return ax.figure


def arithmetic():
    """Two arrays that broadcast, and the sums over what was repeated."""
    a, b = Tensor(np.array([1.0, 2, 3]), requires_grad=True), Tensor(np.array([[10.0], [20]]), requires_grad=True)
    y = a * b
    gy = np.array([[1.0, 2, 1], [3, 1, 2]])
    y.backward(gy)
    to_a, to_b = gy * b.data, gy * a.data
    assert np.array_equal(to_a.sum(0), a.grad) and np.array_equal(to_b.sum(1, keepdims=True), b.grad)
    ax = sheet(16.8)
    blue, orange, green = tint(BLUE, 0.35), tint(ORANGE, 0.4), tint(GREEN, 0.3)
    pale_blue, pale_orange, w = tint(BLUE, 0.1), tint(ORANGE, 0.12), 1.3

    say(ax, 0.8, 0.7, "Forward: $y = a \\cdot b$, each read as if repeated (pale)", weight="bold")
    grid(ax, 0.8, 2.9, np.tile(a.data, (2, 1)), lambda r, q: pale_blue if r else blue, "$a$  (3,)", w, high=1)
    grid(ax, 7.0, 2.9, np.tile(b.data, (1, 3)), lambda r, q: pale_orange if q else orange, "$b$  (2, 1)", w, high=1)
    grid(ax, 13.2, 2.9, y.data, green, "$y$  (2, 3)", w, high=1)
    say(ax, 5.85, 3.9, "×", 13, "center")
    say(ax, 12.05, 3.9, "=", 13, "center")

    say(ax, 0.8, 6.6, "Backward: the product rule, then a sum over what was repeated", weight="bold")
    grid(ax, 0.8, 8.8, gy, "white", "$gy$", w, high=1)
    grid(ax, 7.0, 8.8, to_a, pale_blue, "$gy \\cdot b$", w, high=1)
    grid(ax, 17.2, 9.3, a.grad[None], blue, "$ga$  (3,)", w, high=1)
    grid(ax, 7.0, 13.9, to_b, pale_orange, "$gy \\cdot a$", w, high=1)
    grid(ax, 17.2, 13.9, b.grad, orange, "$gb$  (2, 1)", w, high=1)
    arrow(ax, 5.0, 9.8, 6.6, 9.8)
    arrow(ax, 4.0, 11.2, 6.6, 14.4)
    arrow(ax, 11.4, 9.8, 16.7, 9.8, label="sum of each column", size=9.5)
    arrow(ax, 11.4, 14.9, 16.7, 14.9, label="sum of each row", size=9.5)
    return ax.figure


def _percent(share):
    return "none" if share == 0 else "less than 0.1 %" if share < 0.001 else f"{100 * share:.0f} %"


def cast():
    """The relative error of float16 over all sizes, and gradients of a loss before and after scaling."""
    edges = np.union1d(10 ** np.arange(-12, 4.7, 0.25), (2.0**-25, 65520, 1e6))
    generator = np.random.default_rng(0)
    worst = []
    for low, high in itertools.pairwise(edges):
        x = 10 ** generator.uniform(np.log10(low), np.log10(high), 2000)
        with np.errstate(over="ignore"):
            half = ops.cast(x, "float16").data.astype(float)
        worst.append(np.max(np.abs(np.where(np.isinf(half), 2 * x, half) - x) / x))
    size = 512
    z = Tensor(generator.normal(0, 4, (size, size)).astype(np.float32), requires_grad=True)
    target = generator.random((size, size)) < ops.sigmoid(z.data).data
    ops.binary_cross_entropy_with_logits(z, target.astype(np.float32)).backward()
    g, scale = np.abs(z.grad.astype(float)).ravel(), 2.0**16

    share = [np.mean(ops.cast(a.astype(np.float32), "float16").data == 0) for a in (g, g * scale)]

    figure, axes = plots(2, 1, 5.2, sharex=True)
    top, bottom = axes[:, 0]
    for ax in (top, bottom):
        ax.axvspan(1e-12, 2.0**-25, color=tint(GREY, 0.18), linewidth=0)
        ax.axvspan(65520, 1e6, color=tint(GREY, 0.18), linewidth=0)
        ax.axvline(2.0**-14, color=GREY, linewidth=0.8, linestyle=":")
    top.stairs(worst, edges, color=BLUE, baseline=None, linewidth=1.8)
    top.set(xscale="log", yscale="log", xlim=(1e-12, 1e6), ylim=(1e-4, 30))
    top.set_title("Largest relative error of rounding to float16")
    top.set_yticks([1e-3, 1e-2, 1e-1, 1], ["$10^{-3}$", "$10^{-2}$", "0.1", "1"])
    for ax in (top, bottom):
        ax.minorticks_off()
    for at, text in ((-9.75, "becomes 0"), (-5.85, "steps of $2^{-24}$"), (0.3, "at most $2^{-11}$"), (5.4, "∞")):
        top.text(10**at, 8, text, ha="center", va="center", fontsize=9.5)
    bins = 10 ** np.arange(-12, 2.01, 0.25)
    for values, colour in ((g, ORANGE), (g * scale, BLUE)):
        counts, _ = np.histogram(values, bins)
        some = slice(np.flatnonzero(counts)[0], np.flatnonzero(counts)[-1] + 1)
        edges = bins[some.start : some.stop + 1]
        bottom.stairs(counts[some] / values.size, edges, color=colour, baseline=None, linewidth=1.8)
    bottom.set(ylim=(0, 0.2), xlabel="size of the number")
    bottom.set_yticks([0, 0.1], ["0", "0.1"])
    bottom.set_ylabel("share")
    bottom.set_title("Gradients of a loss of 512 × 512 pixels, and the same times $2^{16}$ (loss scaling)")
    how = {"fontsize": 9.5, "va": "center", "ha": "center"}
    bottom.text(10**-9.3, 0.165, f"as they are:\n{_percent(share[0])} become 0", color=DARK_ORANGE, **how)
    bottom.text(10**-1.2, 0.165, f"scaled:\n{_percent(share[1])} become 0", color=BLUE, **how)
    at = range(-12, 7, 3)
    bottom.set_xticks([10.0**n for n in at], [f"$10^{{{n}}}$" if n else "1" for n in at])
    return figure
