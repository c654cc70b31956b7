"""Figures of notebook 10, reading a paper critically."""

from matplotlib import pyplot as plt

from tinyseg.learn.figures import figure
from tinyseg.report.colours import BLUE, DARK_ORANGE, GREY, ORANGE

TITLES = {"unet": "U-Net", "sdunet": "SD-UNet"}


@figure
def columns(names, flops_each, bytes_each):
    """Two rows of six points, one for each network of Table 1.

    FLOPs per parameter: all six at 2. Bytes per parameter: the first four at 12, the two SD-UNets at 4.
    """
    drawn, axes = plt.subplots(1, 2, figsize=(8.6, 2.8), sharey=True)
    colours = [ORANGE if name.startswith("SD-UNet") else BLUE for name in names]
    for ax, values, top, label in (
        (axes[0], flops_each, 3, "printed FLOPs per parameter"),
        (axes[1], bytes_each, 14, "printed bytes per parameter"),
    ):
        ax.scatter(values, range(6), s=60, color=colours, zorder=2)
        ax.set(xlabel=label, xlim=(0, top))
        for value in sorted({round(v) for v in values}):
            ax.axvline(value, color=GREY, linewidth=0.8)
    axes[1].set_xticks([0, 4, 8, 12])
    axes[0].set_yticks(range(6), names)
    axes[0].invert_yaxis()
    drawn.suptitle("Table 1, divided by its own first column", x=0.02, ha="left", fontsize=11)
    return drawn


@figure
def operations(sides, counted, printed):
    """Operations against the side of the image, both axes logarithmic.

    The lines of U-Net and SD-UNet rise in parallel from a few G at 64 pixels to 109 and 15 G at 256. The figures
    printed in the paper are level lines a thousand times lower.
    """
    drawn, ax = plt.subplots(figsize=(7.2, 3.6))
    for name, colour, ink in (("unet", BLUE, BLUE), ("sdunet", ORANGE, DARK_ORANGE)):
        title, values = TITLES[name], counted[name]
        ax.plot(sides, values, "o-", color=colour)
        ax.text(268, values[-1], f"{title}, {values[-1] / 1e9:.0f} G", color=ink, va="center", weight="bold")
        ax.plot([sides[0], sides[-1]], [printed[name]] * 2, "--", color=colour)
        ax.text(268, printed[name], f"as printed, {printed[name] / 1e6:g} M", color=ink, va="center")
    ax.set(xscale="log", yscale="log", xlabel="side of the image in pixels", ylabel="operations (2 × multiply-adds)")
    ax.set_xticks(sides, map(str, sides))
    ax.minorticks_off()
    ax.set_title("The work grows with the image, the printed figure does not")
    return drawn


@figure
def files(size, printed):
    """A square of four file sizes in megabytes.

    U-Net with Adam's state 372, U-Net's weights 124, SD-UNet with Adam's state 47, SD-UNet's weights 16. Downwards the
    factor is 7.95, to the right 3. The paper's 23 times is the diagonal.
    """
    drawn, ax = plt.subplots(figsize=(7.2, 3.3))
    spots = {"with Adam": 0, "weights": 3}, {"unet": 2, "sdunet": 0}
    for (name, kind), value in size.items():
        paired = (name, kind) in (("unet", "with Adam"), ("sdunet", "weights"))
        box = {"boxstyle": "round,pad=0.5", "facecolor": "#fbe7c0" if paired else "#eeeeee", "edgecolor": "none"}
        text = f"{TITLES[name]}, {kind}\n{value:.1f} MB"
        if paired:
            text += f"\n(printed: {printed[name]:g} MB)"
        ax.text(spots[0][kind], spots[1][name], text, ha="center", va="center", bbox=box)
    dense, cheap = ([size[name, kind] for kind in ("with Adam", "weights")] for name in ("unet", "sdunet"))
    for begin, end, ratio, spot, side, colour in (
        ((0, 1.45), (0, 0.4), dense[0] / cheap[0], (-0.1, 0.95), "right", GREY),
        ((3, 1.6), (3, 0.55), dense[1] / cheap[1], (3.1, 1.05), "left", GREY),
        ((1, 2), (2.1, 2), dense[0] / dense[1], (1.55, 2.15), "center", GREY),
        ((1, 0), (2.1, 0), cheap[0] / cheap[1], (1.55, -0.4), "center", GREY),
        ((0.8, 1.5), (2.2, 0.5), printed["unet"] / printed["sdunet"], (1.65, 1.08), "left", DARK_ORANGE),
    ):
        ax.annotate("", end, begin, arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.6})
        ax.text(*spot, f"{ratio:.3g} times", ha=side, color=colour, weight="bold")
    ax.set(xlim=(-1, 4), ylim=(-0.6, 2.6), title="Two steps in one number")
    ax.axis("off")
    return drawn


@figure
def times_less(answers):
    """Bars: how many times less SD-UNet needs than U-Net.

    Size as printed 23.6; file like with like 7.95; operations 7.4; memory of inference and of a training step about 2;
    time on this machine, and as printed 1.8.
    """
    drawn, ax = plt.subplots(figsize=(7.2, 3.2))
    bars = ax.barh(list(answers), list(answers.values()), color=[GREY if "printed" in a else BLUE for a in answers])
    ax.bar_label(bars, [f"{value:.3g}" for value in answers.values()], padding=4)
    ax.invert_yaxis()
    ax.set(xlabel="U-Net's need divided by SD-UNet's", xlim=(0, 26))
    ax.set_title("How many times less? (grey: printed in the paper)")
    return drawn


@figure
def runs(names, ours, paper):
    """Accuracy of six networks: three points for our three seeds, a diamond for the paper's figure.

    The seeds of most networks lie together, those of U-Net depthwise BatchNorm are scattered as widely as the networks
    differ. The paper's figures are 0.94 to 0.98, ours 0.86 to 0.91.
    """
    drawn, ax = plt.subplots(figsize=(7.5, 3.2))
    for height, name in enumerate(names):
        ax.plot(ours[name]["values"], [height] * 3, "o", color=BLUE, alpha=0.7)
        ax.plot(paper[name]["accuracy"], height, "D", color=ORANGE)
    ax.text(0.885, -0.55, "ours, three seeds", color=BLUE, weight="bold", ha="center")
    ax.text(0.97, -0.55, "paper", color=DARK_ORANGE, weight="bold", ha="center")
    ax.set_yticks(range(6), names.values())
    ax.set(xlabel="accuracy on membranes (ISBI 2012)", ylim=(5.5, -1), title="One dot is one run")
    return drawn


@figure
def runs_needed(effects, needed, questions):
    """Runs needed of each network against difference over standard deviation, both axes logarithmic.

    64 runs for half a deviation, 17 for one, 6 for two, 3 for four. Four comparisons from our reproduction are marked
    on the curve, and a level line at three runs.
    """
    drawn, ax = plt.subplots(figsize=(7.2, 3.6))
    ax.plot(effects, needed, color=GREY, drawstyle="steps-mid")
    beside = ((8, 26), "right"), ((-8, -10), "right"), ((7, 5), "left"), ((7, 3), "left")
    for (question, (effect, n)), (shift, side) in zip(questions.items(), beside, strict=True):
        ax.plot(effect, n, "o", color=ORANGE)
        ax.annotate(question, (effect, n), shift, textcoords="offset points", color=DARK_ORANGE, ha=side)
    ax.axhline(3, color=BLUE, linewidth=0.8, linestyle="--")
    ax.text(0.25, 3.2, "what we have: 3", color=BLUE)
    ax.set(xscale="log", yscale="log", xlabel="difference / standard deviation of runs", ylabel="runs of each network")
    ax.set_xticks([0.25, 0.5, 1, 2, 4, 8], ["¼", "½", "1", "2", "4", "8"])
    ax.set_yticks([2, 3, 5, 10, 20, 50, 100, 200], ["2", "3", "5", "10", "20", "50", "100", "200"])
    ax.minorticks_off()
    ax.set_title("Runs it takes to see a difference (power 80 %, level 5 %)")
    return drawn
