# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 9. Brain tumours
#
# A tumour fills about one voxel in a hundred of a brain scan. A network that never says "tumour" is right in the other
# ninety-nine, and nobody needs it. **What should it be asked to minimize, and what should be reported?** At the end you
# can say what cross-entropy and soft Dice each pull at and where each goes blind, why small tumours score low even if
# they are found, and why there is no such thing as *the* Dice of a test set.

# %%
import os
import tempfile

import numpy as np
from matplotlib import pyplot as plt

import tinyseg as ts
from tinyseg import Tensor, ops
from tinyseg.data import Loader
from tinyseg.data.brain import Preparation
from tinyseg.data.brats import find_cases
from tinyseg.data.classes import REGIONS
from tinyseg.data.slice_sampler import SliceSampler
from tinyseg.data.slices import SliceCache
from tinyseg.data.synthetic_brain import write_brains
from tinyseg.learn import teaching
from tinyseg.learn.teaching import BLUE, ORANGE, PURPLE
from tinyseg.metrics import SegmentationScores, dice
from tinyseg.prediction import predict_logits
from tinyseg.prediction.evaluation import score_patients
from tinyseg.training.losses import dice_and_cross_entropy

teaching.style()

DATA = None  # or a folder with Task01_BrainTumour of the Medical Segmentation Decathlon, or with BraTS cases
DATA = DATA or os.environ.get("TINYSEG_BRATS")

# %% [markdown]
# ## Four modalities
#
# A case is one patient: some kinds of image of the same head, and a label for each voxel. Without data of your own the
# cases are [drawn](../../tinyseg/data/synthetic_brain.py). Axial slices are brought to 64 × 64, and each modality to
# mean 0 and variance 1 over the brain. The split is by patient: with slices of one head on both sides the test would be
# of what was learned by heart.

# %%
folder = tempfile.TemporaryDirectory()
cases = find_cases(DATA or write_brains(f"{folder.name}/brains", num_cases=20, shape=(80, 80, 20)))
preparation = Preparation(64, "resize" if DATA else "crop")
cache = SliceCache.build(cases, f"{folder.name}/slices", preparation, progress=False)
names = list(cache.entries)
train_names, held_names = names[: -max(1, 2 * len(names) // 5)], names[-max(1, 2 * len(names) // 5) :]
print(f"{len(train_names)} patients to learn from, {len(held_names)} held out; {', '.join(cache.modalities)}")

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "One slice in each modality and its labels in colour: edema around a core that is partly enhancing."}}
CLASS_COLOURS = ((0.34, 0.71, 0.91), (0.94, 0.89, 0.26), (0.84, 0.37, 0.0))  # edema, non-enhancing, enhancing


def painted(image, labels):
    """Labels in colour on an image in grey, (h, w, 3), as a radiologist sees it: front at the top."""
    low, high = image.min(), image.max()
    picture = np.repeat(((image - low) / (high - low))[..., None], 3, axis=2).astype(float)
    for number, colour in enumerate(CLASS_COLOURS, start=1):
        picture[labels == number] = colour
    return np.rot90(picture)


def show(row, pictures, titles=()):
    """Draw pictures side by side, without ticks."""
    for ax, picture in zip(row, pictures, strict=True):
        ax.imshow(picture)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for ax, title in zip(row, titles, strict=False):
        ax.set_title(title)


def largest_slice(name):
    return int(cache.entries[name].counts[:, 1:].sum(1).argmax())


example = max(train_names, key=lambda name: cache.entries[name].counts[:, 3].max())
x, y = (a(example)[largest_slice(example)] for a in (cache.images, cache.labels))
figure, axes = plt.subplots(1, len(x) + 1, figsize=(7.5, 2.1))
pictures = [painted(m, 0 * y) for m in x] + [painted(x[0], y)]
show(axes, pictures, (*cache.modalities, "Labels"))
for k, (name, colour) in enumerate(zip(cache.classes[1:], CLASS_COLOURS, strict=True)):
    figure.text(0.01 + 0.33 * k, 0.0, "■", color=colour, fontsize=14, va="bottom")
    figure.text(0.04 + 0.33 * k, 0.01, name, va="bottom")
figure.get_layout_engine().set(rect=(0, 0.12, 1, 0.88))
plt.show()

# %% [markdown]
# No modality shows it all. Edema is bright in FLAIR and T2, the enhancing rim only in T1 after gadolinium, and to tell
# the core from edema one needs several at once. So the network's first layer takes them all, as channels. Scores are
# given for *regions*: whole tumour (all three), tumour core (non-enhancing and enhancing), enhancing.
#
# ## One voxel in a hundred

# %%
counts = sum(cache.entries[name].counts.sum(0) for name in names)
share = counts / counts.sum()
print(f'a network that always says "background" has accuracy {share[0]:.4f} and Dice 0')

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Shares of voxels on a logarithmic axis: background nearly all, edema about a hundredth, the other classes tenths of a percent."}}
_, ax = plt.subplots(figsize=(7.5, 2.3))
ax.barh(cache.classes, share, color=("0.75", *CLASS_COLOURS))
for k, s in enumerate(share):
    ax.text(s * 1.15, k, f"{s:.2%}", va="center")
ax.set(
    xscale="log", xlim=(1e-4, 4), xlabel="share of all voxels (logarithmic)", title="Background outnumbers everything"
)
ax.invert_yaxis()
plt.show()

# %% [markdown]
# ## What a loss pulls at
#
# Of $N$ voxels $A$ are tumour, and the network says $p$ everywhere. Descent pulls the tumour's logits up and pushes the
# background's down. Which is stronger, summed over all voxels? From the gradients [of both losses](../ops/loss.md),
#
# $$ \frac{\partial L_{CE}}{\partial z_a}=\frac{p_a-t_a}{N},\qquad
# \frac{\partial L_{Dice}}{\partial z_a}=\frac{D-2t_a}{\Sigma p+A}\,p_a(1-p_a),\qquad
# D=\frac{2\,\Sigma p\,t}{\Sigma p+A}, $$
#
# follows at $p=\frac12$, where training begins, the ratio of the two pulls: $A/(N-A)$ for cross-entropy,
# $(N+A)/(N-A)$ for Dice. The first goes to 0 with the tumour's size, the second to 1.


# %%
def pulls(loss, p_tumour, p_background, area, size=64):
    """Pull up on all tumour voxels, push down on all background voxels, and pull on one tumour voxel."""
    target = np.zeros((1, 1, size, size))
    target.flat[:area] = 1
    p = np.where(target == 1, p_tumour, p_background)
    z = Tensor(np.log(p / (1 - p)), requires_grad=True)
    loss(z, target).backward()
    up, down = -z.grad[target == 1], z.grad[target == 0]
    return up.sum(), down.sum(), up[0]


def soft_dice(z, t):
    return ops.soft_dice_loss(z, t, smooth=0.0, empty="ignore")  # s = 0 as in the equation


TWO_LOSSES = {"CE": ops.binary_cross_entropy_with_logits, "Dice": soft_dice}
N, areas = 64 * 64, np.array([1, 3, 10, 30, 100, 300, 1000])
balance = {}
for name, loss in TWO_LOSSES.items():
    balance[name] = [up / down for up, down, _ in (pulls(loss, 0.5, 0.5, area) for area in areas)]
assert np.allclose(balance["CE"], areas / (N - areas)) and np.allclose(balance["Dice"], (N + areas) / (N - areas))

sure = np.logspace(-4, -0.01, 60)  # p on a tumour of 30 voxels, while the background is learned: p = 0.001
single = {name: [pulls(loss, p, 1e-3, 30)[2] for p in sure] for name, loss in TWO_LOSSES.items()}

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Left: balance of pulls against the tumour's share; cross-entropy falls in proportion, Dice stays at 1. Right: pull on one tumour voxel against its probability; cross-entropy stays level as p goes to 0, Dice falls to nothing."}}
_, axes = plt.subplots(1, 2)
for name, colour in (("CE", BLUE), ("Dice", ORANGE)):
    axes[0].loglog(areas / N, balance[name], "o-", color=colour, markersize=4)
    axes[1].loglog(sure, single[name], color=colour)
axes[0].text(2e-3, 1.5, "soft Dice", color=ORANGE)
axes[0].text(8e-3, 2.5e-3, "cross-entropy", color=BLUE)
axes[0].set(xlabel="tumour's share of the voxels", ylabel="pull up / push down", title="At the start: who is outvoted?")
axes[0].set_ylim(1e-4, 10)
axes[1].text(2e-4, single["CE"][0] * 1.6, "cross-entropy", color=BLUE)
axes[1].text(3e-3, single["Dice"][20] * 0.2, "soft Dice", color=ORANGE)
axes[1].set(xlabel="p on the tumour", ylabel="pull on one of its voxels", title="Later: who sees a tumour missed?")
plt.show()

# %% [markdown]
# **Left.** Under cross-entropy the first thing learned is "less tumour, everywhere": a small one is outvoted by as many
# times as there is more background. Under Dice both sides pull alike, whatever the size.
#
# **Right.** Once the background is learned, a tumour that was missed has $p\approx0$. Cross-entropy pulls at it as hard
# as ever. Dice has the factor $p(1-p)$ and does not feel it; where $p$ is middling it pulls harder, since it divides by
# the small tumour instead of by $N$. So one is outvoted, and the other goes blind. The
# [paper](../brain_tumours.md) takes both: cross-entropy minus soft Dice.
#
# ## Trained three times
#
# The same small SD-UNet, the same slices in the same order, three losses, two seeds.

# %%
STEPS, EVERY = 160, 40
LOSSES = {
    "cross-entropy": dice_and_cross_entropy(dice_weight=0),
    "soft Dice": dice_and_cross_entropy(ce_weight=0),
    "both": dice_and_cross_entropy(),
}


def train(loss, seed):
    """Return a trained network, and the Dice of each region (mean over held-out patients) every few steps."""
    empty = None if DATA else 0.3  # share of slices without tumour; None: as they come
    sampler = SliceSampler(cache, train_names, 8 * STEPS, empty, seed=seed)
    options = {"width": 8, "levels": 3, "dropout": 0.0, "seed": seed}
    model = ts.models.build("sdunet", len(cache.modalities), len(cache.classes), **options)
    optimizer = ts.optim.Adam(model.parameters(), lr=1e-2)
    schedule = ts.optim.CosineAnnealingLR(optimizer, STEPS, warmup=5)
    curve = []
    for step, (x, y) in enumerate(Loader(sampler, batch_size=8, shuffle=False).epoch(0), start=1):
        value = loss(model(x), y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        if step % EVERY == 0:
            report = score_patients(model, cache, held_names, REGIONS, loss, batch_size=20, empty="nan")
            curve.append([report["regions"][region]["mean"] for region in REGIONS])
            model.train()
    return model, np.array(curve)


runs = {name: [train(loss, seed) for seed in (0, 1)] for name, loss in LOSSES.items()}
final = {name: np.mean([curve[-1] for _, curve in pair], axis=0) for name, pair in runs.items()}
print(
    f"{'':14}" + "  ".join(f"{region:>12}" for region in REGIONS) + "   (Dice after the last step, mean of two seeds)"
)
for name, scores in final.items():
    print(f"{name:14}" + "  ".join(f"{score:12.2f}" for score in scores))
assert DATA or (final["both"] > final["cross-entropy"] + 0.05)[1:].all()

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Dice against steps, one panel a region, two lines a loss. Cross-entropy finds the whole tumour, if at all, and core and enhancing tumour not; soft Dice and both losses together find all three, unequally from seed to seed."}}
_, axes = plt.subplots(1, 3, figsize=(7.5, 3), sharey=True)
for k, (ax, region) in enumerate(zip(axes, REGIONS, strict=True)):
    for (name, pair), colour in zip(runs.items(), (BLUE, ORANGE, PURPLE), strict=True):
        for _, curve in pair:
            ax.plot(
                np.arange(1, len(curve) + 1) * EVERY, curve[:, k], "o-", color=colour, markersize=3.5, linewidth=1.4
            )
        if k == 0:
            ax.text(
                0.03,
                {"cross-entropy": 0.93, "soft Dice": 0.86, "both": 0.79}[name],
                name,
                color=colour,
                transform=ax.transAxes,
            )
    ax.set(title=region.capitalize(), xlabel="training step", ylim=(-0.03, 1.05), xticks=range(0, STEPS + 1, 2 * EVERY))
axes[0].set_ylabel("Dice, mean over patients")
plt.show()

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Three held-out patients in rows: T1gd, truth, and the prediction of the network trained with each loss."}}
models = {name: max(pair, key=lambda run: run[1][-1].mean())[0] for name, pair in runs.items()}  # the better seed
shown = held_names[:3]
gd = next((k for k, name in enumerate(cache.modalities) if "gd" in name.lower()), -1)
_, axes = plt.subplots(len(shown), 5, figsize=(7.5, 1.6 * len(shown) + 0.2), squeeze=False)
for row, name in zip(axes, shown, strict=True):
    z = largest_slice(name)
    x, y = cache.images(name)[z], cache.labels(name)[z]
    said = [predict_logits(model, x[None])[0].argmax(0) for model in models.values()]
    pictures = [painted(x[gd], 0 * y), *(painted(x[0], labels) for labels in (y, *said))]
    titles = (cache.modalities[gd], "Truth", "Cross-entropy", "Soft Dice", "Both")
    show(row, pictures, titles if name == shown[0] else ())
plt.show()

# %% [markdown]
# Cross-entropy learns in the order of frequency: the whole tumour first, if anything in so few steps, the rare classes
# last. More steps would bring it nearer; the loss decides what is learned *first*. Soft Dice does not wait for what is
# frequent, but alone it is unsteady: false tumour of which the network is sure feels as little pull as a tumour that it
# surely misses. Which of the two that contain Dice comes out ahead changes with region, seed and even rounding: two
# seeds and a handful of patients show a tendency, no ranking.
#
# ## Small tumours
#
# Let a prediction be perfect in shape, but one voxel aside. For a ball of radius $r$ the overlap of the two balls gives
#
# $$ D(r)=1-\frac{3}{4r}+\frac{1}{16r^3} $$
#
# and for one that is a voxel too thick all round $D(r)=2r^3/(r^3+(r+1)^3)$.


# %%
def ball(radius, size):
    return sum(axis**2 for axis in np.ogrid[(slice(-size, size + 1),) * 3]) <= radius**2


radii = np.arange(2, 21)
aside = [dice(np.roll(b, 1, axis=0), b) for b in (ball(r, 23) for r in radii)]
thick = [dice(ball(r + 1, 23), ball(r, 23)) for r in radii]
predictions = {n: predict_logits(models["both"], cache.images(n), 20).argmax(1) > 0 for n in held_names}
truths = {n: np.asarray(cache.labels(n)) > 0 for n in held_names}
folder.cleanup()  # all that is needed of the slices is in memory now
volumes = np.array([t.sum() for t in truths.values()])
patients = np.array([dice(predictions[n], t) for n, t in truths.items()])
assert np.allclose(aside, 1 - 3 / (4 * radii) + 1 / (16 * radii**3), atol=0.04)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Dice against radius for an error of one voxel: it rises steeply from about 0.6 at radius 2 to above 0.9 beyond radius 8. Held-out patients as diamonds about the curves."}}
_, ax = plt.subplots()
fine = np.linspace(2, 20, 200)
ax.plot(fine, 1 - 3 / (4 * fine) + 1 / (16 * fine**3), color=BLUE)
ax.plot(radii, aside, "o", color=BLUE, markersize=4)
ax.plot(fine, 2 * fine**3 / (fine**3 + (fine + 1) ** 3), color=ORANGE)
ax.plot(radii, thick, "o", color=ORANGE, markersize=4)
ax.plot(np.cbrt(3 * volumes / (4 * np.pi)), patients, "D", color=PURPLE, markersize=5)
ax.text(12, 0.965, "one voxel aside", color=BLUE)
ax.text(12, 0.82, "one voxel too thick", color=ORANGE)
ax.text(12, 0.5, "held-out patients, network\ntrained with both losses", color=PURPLE)
ax.set(
    xlabel="radius in voxels (of a ball of the tumour's volume)",
    ylabel="Dice",
    title="The same error costs a small tumour more",
    ylim=(0, 1.05),
)
plt.show()

# %% [markdown]
# The same care with the pencil costs a ball of radius 2 more than a third of its Dice, one of radius 20 a few
# hundredths. Compare the network's patients with the curves at their own size. A mean over patients says as much about
# the sizes in the test set as about the method. Two hospitals, one method that is always one voxel aside:

# %%
rng = np.random.default_rng(0)
strata = ((0, 5), (5, 8), (8, 12), (12, 99))
print("mean Dice (share of patients)    all    " + "".join(f"   radius {a:2}-{b:<3}" for a, b in strata))
for hospital, median in (("that refers late", 12), ("that screens", 5)):
    r = np.clip(median * np.exp(0.4 * rng.standard_normal(2000)), 1.5, 40)
    d = 1 - 3 / (4 * r) + 1 / (16 * r**3)
    parts = [(r >= a) & (r < b) for a, b in strata]
    print(f"hospital {hospital:23} {d.mean():.3f}", end="")
    print("".join(f"    {d[part].mean():.3f} ({part.mean():3.0%})" for part in parts))

# %% [markdown]
# The means differ much, and the method not at all. Within a stratum little is left of the difference.
# [`score_patients`](../../tinyseg/prediction/evaluation.py) reports small and large tumours apart for this reason.
#
# ## Which Dice?
#
# One set of predictions, one kind of score. What is left open is what is averaged, and what a slice scores in which
# there is no tumour and none was predicted: 0/0.


# %%
def five_ways(predictions):
    """Dice of the whole tumour on the held-out patients, in five ways."""
    whole = SegmentationScores(2)
    slices = {empty: SegmentationScores(2, empty=empty) for empty in ("nan", "zero", "one")}
    for name, truth in truths.items():
        whole.update(predictions[name][None], truth[None])  # one image: the whole volume
        for scores in slices.values():
            scores.update(predictions[name], truth)  # as many images as slices
    ways = {"all voxels pooled": whole.pooled()["classes"]["1"]["dice"]}
    ways["mean over patients"] = whole.mean()["classes"]["1"]["dice"]["mean"]
    words = {"nan": "left out", "zero": "as 0", "one": "as 1"}
    for empty, scores in slices.items():
        ways[f"mean over slices, 0/0 {words[empty]}"] = scores.mean()["classes"]["1"]["dice"]["mean"]
    return ways


ways = five_ways(predictions)
assert DATA or max(ways.values()) - min(ways.values()) > 0.1

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Five Dice scores of the same predictions as dots on one axis: they differ by tenths."}}
_, ax = plt.subplots(figsize=(7.5, 2.5))
ax.hlines(range(len(ways)), 0, ways.values(), color="0.85")
ax.plot(ways.values(), ways.keys(), "o", color=PURPLE, markersize=8)
for k, value in enumerate(ways.values()):
    ax.text(value + 0.02, k, f"{value:.3f}", va="center")
ax.set(xlabel="Dice of the whole tumour", xlim=(0, 1.08), title="The same predictions, five scores")
ax.invert_yaxis()
plt.show()

# %% [markdown]
# None is wrong. Pooled, a large tumour counts as much as many small ones. Over patients each counts once, and so does
# each disappointment. Over slices a long tumour counts often, its thin ends score low, and healthy slices decide the
# rest: how many of them there are, and what 0/0 is taken for. A Dice without this sentence beside it cannot be compared
# with another.
#
# ## Exercises
#
# **1. One number for all voxels.** Let a network be able to say only one probability $p$, the same everywhere, of a
# tumour that fills 2 % of a slice. Which $p$ has the lowest cross-entropy, which the lowest soft Dice loss? What does
# that say about the first steps of training?

# %%
answer = ...  # both p: (of the lowest cross-entropy, of the lowest soft Dice loss)
teaching.check("9.1", answer)

# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 1"}
# Cross-entropy wants the share, p = A / N, and every threshold then says background. Soft Dice of a constant,
# 2 A p / (N p + A), rises with p to the end: all tumour. One goes silent first, the other shouts first.
target = np.zeros((1, 1, 50, 50))
target.flat[:50] = 1
p = np.linspace(0.001, 0.999, 999)
z = [np.full(target.shape, np.log(q / (1 - q))) for q in p]
lowest_ce = p[np.argmin([ops.binary_cross_entropy_with_logits(constant, target).item() for constant in z])]
lowest_dice = p[np.argmin([soft_dice(constant, target).item() for constant in z])]
assert np.isclose(lowest_ce, 0.02) and lowest_dice == p[-1]
assert teaching.check("9.1", (lowest_ce, lowest_dice))
print(f"lowest cross-entropy at p = {lowest_ce:.3f}, lowest soft Dice loss at p = {lowest_dice:.3f}")

# %% [markdown]
# **2. Nothing, scored well.** Score the network that never says tumour in the five ways. Which would you have to report
# to look respectable, and on which patients?

# %%
answer = ...  # the five scores, as five_ways returns them
teaching.check("9.2", answer)

# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 2"}
# Slices without tumour, 0/0 taken for 1: the score is their share. The more healthy slices, the better.
nothing = five_ways({name: np.zeros_like(truth) for name, truth in truths.items()})
assert teaching.check("9.2", nothing)
healthy = np.mean([not plane.any() for truth in truths.values() for plane in truth])
assert np.isclose(nothing.pop("mean over slices, 0/0 as 1"), healthy) and set(nothing.values()) == {0.0}
print(f"0/0 as 1: {healthy:.3f}; in every other way 0")

# %% [markdown]
# **3. Thin, not small.** An enhancing rim may have many voxels and still score low. Compare a rim of outer radius 14
# and thickness 3 with the ball of the same volume, both predicted one voxel aside. What takes the place of the radius?

# %%
answer = ...  # both Dice, of the shapes in voxels: (rim, ball)
teaching.check("9.3", answer)

# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 3"}
# Moved aside, a shape bares a layer of |cos| of a voxel on the half of its surface S that looks back, on average half a
# voxel: S / 4 lost, D = 1 - S / (4 V). What counts is V / S: r / 3 for a ball, only about w / 2 for a rim of thickness
# w, however large it is.
outer, thickness = 14, 3
rim = ball(outer, 23) & ~ball(outer - thickness, 23)
same = ball(np.cbrt(3 * rim.sum() / (4 * np.pi)), 23)
scores = {name: dice(np.roll(shape, 1, axis=0), shape) for name, shape in {"rim": rim, "ball": same}.items()}
surface = 4 * np.pi * (outer**2 + (outer - thickness) ** 2)
assert abs(same.sum() / rim.sum() - 1) < 0.05 and scores["rim"] < scores["ball"] - 0.1
assert abs(scores["rim"] - (1 - surface / (4 * rim.sum()))) < 0.05
assert teaching.check("9.3", (scores["rim"], scores["ball"]))
print(f"{rim.sum()} voxels each: rim {scores['rim']:.3f}, ball {scores['ball']:.3f}")
