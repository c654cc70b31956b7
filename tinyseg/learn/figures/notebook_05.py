"""Figures of notebook 5, normalization when batches are small."""

import numpy as np
from matplotlib import pyplot as plt

from tinyseg.learn.figures import figure
from tinyseg.report.colours import BLUE, DARK_GREY, DARK_ORANGE, GREY, ORANGE, PURPLE


@figure
def averaged_over():
    """Four blocks of cells with channels, pixels and images as axes; cells that share a mean and a variance are orange.

    BatchNorm: one channel of all images. GroupNorm with two groups: a pair of channels of one image. One group: one
    whole image. A group for each channel: one channel of one image.
    """
    drawn, row = plt.subplots(1, 4, figsize=(9.4, 3.1))
    for ax, title, caption, shared in zip(
        row,
        ("BatchNorm", "GroupNorm, G = 2", "G = 1 (LayerNorm)", "G = C (InstanceNorm)"),
        (
            "m = N·H·W\none channel, all images",
            "m = (C/G)·H·W\na group of one image",
            "m = C·H·W\none image",
            "m = H·W\none channel of one image",
        ),
        (
            lambda n, c: c == 3,
            lambda n, c: n == 0 and c > 1,
            lambda n, c: n == 0,
            lambda n, c: n == 0 and c == 3,
        ),
        strict=True,
    ):
        _block(ax, shared)
        ax.set(aspect="equal", title=title)
        ax.text(0, -4.3, caption, va="top")
        ax.axis("off")
    for x, y, word, angle in ((1.5, -0.5, "channels", 0), (-0.35, -2, "pixels", 90), (0.35, 0.75, "images", 41)):
        row[0].text(x, y, word, rotation=angle, ha="center", va="center", fontsize=9)
    return drawn


def _block(ax, shared, images=3, channels=4, pixels=4):
    """Draw a block of cells in oblique projection; `shared(n, c)` says which belong to the coloured set."""

    def face(corners, coloured):
        points = [(c + 0.42 * n, -p + 0.36 * n) for n, c, p in corners]
        ax.fill(*zip(*points, strict=True), facecolor=ORANGE if coloured else "#f4f4f4", edgecolor=DARK_GREY, lw=0.7)

    for c in range(channels):
        for p in range(pixels):  # front
            face([(0, c, p), (0, c + 1, p), (0, c + 1, p + 1), (0, c, p + 1)], shared(0, c))
        for n in range(images):  # top
            face([(n, c, 0), (n, c + 1, 0), (n + 1, c + 1, 0), (n + 1, c, 0)], shared(n, c))
    last = channels - 1
    for p in range(pixels):
        for n in range(images):  # right
            corners = [(n, last + 1, p), (n + 1, last + 1, p), (n + 1, last + 1, p + 1), (n, last + 1, p + 1)]
            face(corners, shared(n, last))


@figure
def noise(crops, sizes, measured, of_one, of_one_if_independent):
    """Left: six crops of tissue with different means. Right: noise of a batch's mean against batch size.

    It falls as one over the root of n, far above the line for independent pixels.
    """
    drawn = plt.figure(figsize=(9.2, 3.4))
    left, right = drawn.subfigures(1, 2, width_ratios=(0.75, 1))
    for ax, crop in zip(left.subplots(2, 3).ravel(), crops, strict=True):
        ax.imshow(crop[0], vmin=-2.5, vmax=2.5)
        ax.set_title(f"mean {crop.mean():+.1f}\nvar. {crop.var():.1f}", fontsize=9.5)
        ax.axis("off")
    ax = right.subplots()
    ax.loglog(sizes, measured, "o", color=BLUE)
    ax.loglog(sizes, of_one / np.sqrt(sizes), color=BLUE, lw=1)
    ax.loglog(sizes, of_one_if_independent / np.sqrt(sizes), color=GREY, ls="--", lw=1.2)
    ax.text(4.6, of_one / np.sqrt(4), "measured", color=BLUE)
    words = "if pixels were independent"
    ax.text(0.95, of_one_if_independent / np.sqrt(5) * 0.8, words, color=DARK_GREY, va="top")
    ax.set(xlabel="images in the batch, n", ylabel="standard deviation over batches")
    ax.set_title("Noise of a batch's mean")
    ax.set_xticks(sizes, sizes)
    ax.minorticks_off()
    return drawn


@figure
def training_and_evaluation(outputs, sizes, gap):
    """Profiles of one image row after BatchNorm, in training mode and in evaluation.

    With batches of 2 the training-mode curves scatter widely beside the evaluation curve, with 32 they nearly coincide.
    The root mean square gap falls as one over the root of n.
    """
    drawn, row = plt.subplots(1, 3, figsize=(9.6, 3.2))
    for ax, (n, (in_evaluation, in_training)) in zip(row, outputs.items(), strict=False):
        ax.plot(in_training[:, 16].T, color=BLUE, alpha=0.25, lw=0.8)
        ax.plot(in_evaluation[16], color="black", lw=1.6)
        ax.set(title=f"Batches of {n}", xlabel="pixel of row 16", ylim=(-3, 2.4))
    row[0].set_ylabel("output of BatchNorm")
    row[0].text(10, 1.9, f"training, {len(in_training)} batches", color=BLUE)
    row[0].text(10, 1.4, "evaluation", color="black")
    row[2].loglog(sizes, gap, "o", color=BLUE)
    row[2].loglog(sizes, gap[-1] * np.sqrt(sizes[-1] / sizes), color=BLUE, lw=1)
    row[2].set(xlabel="images in the batch, n", ylabel="RMS difference", title="Training minus evaluation")
    row[2].text(10, gap[2], "$\\propto 1/\\sqrt{n}$", color=BLUE)
    row[2].set_xticks(sizes, sizes)
    row[2].set_yticks([0.05, 0.1, 0.2, 0.4], [0.05, 0.1, 0.2, 0.4])
    row[2].minorticks_off()
    return drawn


@figure
def textures(images, masks):
    """Seven images of streaks, of different brightness and contrast.

    The border between streaks down and streaks across is drawn in orange; some images show one texture only.
    """
    drawn, row = plt.subplots(1, len(images), figsize=(9.4, 1.5))
    for ax, image, mask in zip(row, images[:, 0], masks[:, 0], strict=True):
        ax.imshow(image, vmin=-4, vmax=4)
        if 0 < mask.mean() < 1:
            ax.contour(mask, [0.5], colors=[ORANGE], linewidths=1.5)
        ax.axis("off")
    return drawn


@figure
def errors(batch_sizes, in_evaluation, with_groups, in_training):
    """Error against batch size on logarithmic axes, three seeds and their mean.

    Left: BatchNorm lies above GroupNorm for small batches. Right: BatchNorm left in training mode makes many more
    errors when it was trained on large batches.
    """
    drawn, row = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    for ax, values, colour, name in (
        (row[0], in_evaluation, BLUE, "BatchNorm"),
        (row[0], with_groups, ORANGE, "GroupNorm"),
        (row[1], in_evaluation, BLUE, "model.eval()"),
        (row[1], in_training, PURPLE, "forgotten: model.train()"),
    ):
        ax.fill_between(batch_sizes, values.min(1), values.max(1), color=colour, alpha=0.2, lw=0)
        ax.loglog(batch_sizes, values.mean(1), color=colour, label=name)
        ax.loglog(batch_sizes, values, ".", color=colour, ms=5)
    for ax, title, place in zip(
        row,
        ("Two norms, on new images", "BatchNorm with either statistics"),
        ("upper left", "center right"),
        strict=True,
    ):
        ax.set_xticks(batch_sizes, batch_sizes)
        ax.set_yticks([2, 3, 5, 10, 20, 30], [2, 3, 5, 10, 20, 30])
        ax.minorticks_off()
        ax.legend(loc=place)
        ax.set(xlabel="images in a training batch", title=title)
    row[0].set_ylabel("wrong pixels (%)")
    return drawn


@figure
def projection(tip, gradient, left):
    """The plane of centred vectors, with a circle. Left: three vectors on one ray go to the same point on the circle.

    Right: at that point, an arrow for the incoming gradient, its part along x-hat dashed; what remains is tangent to
    the circle.
    """
    drawn, row = plt.subplots(1, 2, figsize=(8.4, 3.7))
    for ax in row:
        ax.add_patch(plt.Circle((0, 0), np.sqrt(3), fill=False, color=GREY))
        ax.plot(*tip, "o", color="black")
        ax.plot(0, 0, "+", color="black", ms=9)
        ax.set(aspect="equal", xlim=(-2.2, 4.1), ylim=(-2.1, 3.1))
        ax.axis("off")
    row[0].plot(*zip((0, 0), 2.2 * tip, strict=True), color=GREY, lw=1)
    for stretch in (0.45, 1.5, 2.0):
        row[0].plot(*(stretch * tip), "o", color=BLUE)
    row[0].text(*(1.5 * tip + (0.15, -0.45)), "all x on this ray ...", color=BLUE)
    row[0].text(*(tip + (-0.1, 0.2)), "... have this $\\hat{x}$", ha="right")
    row[0].set_title("Forward: stretching is undone")
    row[1].set_title("Backward: what would stretch is taken out")
    row[1].plot(*zip(tip + left, tip + gradient, strict=True), color=GREY, ls="--", lw=1.2)
    for arrow, colour, words, place in (
        (gradient, BLUE, "$g\\hat{x}$, its mean taken out", (0.1, 0.05)),
        (left, DARK_ORANGE, "gx / r", (-0.75, 0.0)),
    ):
        row[1].annotate("", tip + arrow, tip, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2})
        row[1].text(*(tip + arrow + place), words, color=colour)
    return drawn
