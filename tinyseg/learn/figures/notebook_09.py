"""Figures of notebook 9, brain tumours."""

import numpy as np
from matplotlib import pyplot as plt

from tinyseg.learn.figures import figure, show_images
from tinyseg.report.colours import BLUE, ORANGE, PURPLE

TUMOUR_COLOURS = ((0.34, 0.71, 0.91), (0.94, 0.89, 0.26), (0.84, 0.37, 0.0))  # edema, non-enhancing, enhancing


@figure
def modalities(image, labels, names, classes):
    """One slice in each modality and its labels in colour: edema around a core that is partly enhancing."""
    drawn, axes = plt.subplots(1, len(image) + 1, figsize=(7.5, 2.1))
    pictures = [_painted(modality, 0 * labels) for modality in image] + [_painted(image[0], labels)]
    show_images(axes, pictures, (*names, "Labels"))
    for k, (name, colour) in enumerate(zip(classes[1:], TUMOUR_COLOURS, strict=True)):
        drawn.text(0.01 + 0.33 * k, 0.0, "■", color=colour, fontsize=14, va="bottom")
        drawn.text(0.04 + 0.33 * k, 0.01, name, va="bottom")
    drawn.get_layout_engine().set(rect=(0, 0.12, 1, 0.88))
    return drawn


@figure
def shares(classes, share):
    """Shares of voxels on a logarithmic axis.

    Background is nearly all, edema about a hundredth, the other classes are tenths of a percent.
    """
    drawn, ax = plt.subplots(figsize=(7.5, 2.3))
    ax.barh(classes, share, color=("0.75", *TUMOUR_COLOURS))
    for k, s in enumerate(share):
        ax.text(s * 1.15, k, f"{s:.2%}", va="center")
    ax.set(xscale="log", xlim=(1e-4, 4), xlabel="share of all voxels (logarithmic)")
    ax.set_title("Background outnumbers everything")
    ax.invert_yaxis()
    return drawn


@figure
def pulls(share, balance, probabilities, single):
    """What cross-entropy and soft Dice pull at, in two panels.

    Left: balance of pulls against the tumour's share; cross-entropy falls in proportion, Dice stays at 1. Right: pull
    on one tumour voxel against its probability; cross-entropy stays level as p goes to 0, Dice falls to nothing.
    """
    drawn, axes = plt.subplots(1, 2)
    for name, colour in (("cross-entropy", BLUE), ("soft Dice", ORANGE)):
        axes[0].loglog(share, balance[name], "o-", color=colour, markersize=4)
        axes[1].loglog(probabilities, single[name], color=colour)
    axes[0].text(2e-3, 1.5, "soft Dice", color=ORANGE)
    axes[0].text(8e-3, 2.5e-3, "cross-entropy", color=BLUE)
    axes[0].set(xlabel="tumour's share of the voxels", ylabel="pull up / push down", ylim=(1e-4, 10))
    axes[0].set_title("At the start: who is outvoted?")
    axes[1].text(2e-4, single["cross-entropy"][0] * 1.6, "cross-entropy", color=BLUE)
    axes[1].text(3e-3, single["soft Dice"][20] * 0.2, "soft Dice", color=ORANGE)
    axes[1].set(xlabel="p on the tumour", ylabel="pull on one of its voxels", title="Later: who sees a tumour missed?")
    return drawn


@figure
def curves(steps, found, regions):
    """Dice against steps, one panel a region, two lines a loss.

    Cross-entropy finds the whole tumour, if at all, and core and enhancing tumour not; soft Dice and both losses
    together find all three, unequally from seed to seed.
    """
    drawn, axes = plt.subplots(1, 3, figsize=(7.5, 3), sharey=True)
    for k, (ax, region) in enumerate(zip(axes, regions, strict=True)):
        for seeds, colour in zip(found.values(), (BLUE, ORANGE, PURPLE), strict=True):
            for curve in seeds:
                ax.plot(steps, curve[:, k], "o-", color=colour, markersize=3.5, linewidth=1.4)
        ax.set(title=region.capitalize(), xlabel="training step", ylim=(-0.03, 1.05), xticks=(0, *steps))
    for name, colour, height in zip(found, (BLUE, ORANGE, PURPLE), (0.93, 0.86, 0.79), strict=True):
        axes[0].text(0.03, height, name, color=colour, transform=axes[0].transAxes)
    axes[0].set_ylabel("Dice, mean over patients")
    return drawn


@figure
def predictions(patients, names):
    """Three held-out patients in rows: T1gd, truth, and the prediction of the network trained with each loss."""
    gd = next((k for k, name in enumerate(names) if "gd" in name.lower()), -1)
    drawn, axes = plt.subplots(len(patients), 5, figsize=(7.5, 1.6 * len(patients) + 0.2), squeeze=False)
    titles = (names[gd], "Truth", "Cross-entropy", "Soft Dice", "Both")
    for k, (image, truth, *said) in enumerate(patients):
        pictures = [_painted(image[gd], 0 * truth), *(_painted(image[0], labels) for labels in (truth, *said))]
        show_images(axes[k], pictures, titles if k == 0 else ())
    return drawn


@figure
def small_tumours(radii, formulas, scores, sizes, patients):
    """Dice against radius for an error of one voxel.

    It rises steeply from about 0.6 at radius 2 to above 0.9 beyond radius 8. Held-out patients are diamonds about the
    curves.
    """
    drawn, ax = plt.subplots()
    fine = np.linspace(radii[0], radii[-1], 200)
    for (name, formula), colour, height in zip(formulas.items(), (BLUE, ORANGE), (0.965, 0.82), strict=True):
        ax.plot(fine, formula(fine), color=colour)
        ax.plot(radii, scores[name], "o", color=colour, markersize=4)
        ax.text(12, height, f"one voxel {name}", color=colour)
    ax.plot(sizes, patients, "D", color=PURPLE, markersize=5)
    ax.text(12, 0.5, "held-out patients, network\ntrained with both losses", color=PURPLE)
    ax.set(xlabel="radius in voxels (of a ball of the tumour's volume)", ylabel="Dice", ylim=(0, 1.05))
    ax.set_title("The same error costs a small tumour more")
    return drawn


@figure
def five_scores(ways):
    """Five Dice scores of the same predictions as dots on one axis: they differ by tenths."""
    drawn, ax = plt.subplots(figsize=(7.5, 2.5))
    ax.hlines(range(len(ways)), 0, ways.values(), color="0.85")
    ax.plot(ways.values(), ways.keys(), "o", color=PURPLE, markersize=8)
    for k, value in enumerate(ways.values()):
        ax.text(value + 0.02, k, f"{value:.3f}", va="center")
    ax.set(xlabel="Dice of the whole tumour", xlim=(0, 1.08), title="The same predictions, five scores")
    ax.invert_yaxis()
    return drawn


def _painted(image, labels):
    """Labels in colour on an image in grey, (h, w, 3), as a radiologist sees it: front at the top."""
    low, high = image.min(), image.max()
    picture = np.repeat(((image - low) / (high - low))[..., None], 3, axis=2).astype(float)
    for number, colour in enumerate(TUMOUR_COLOURS, start=1):
        picture[labels == number] = colour
    return np.rot90(picture)
