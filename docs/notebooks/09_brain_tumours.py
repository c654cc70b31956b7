# %% [markdown]
# # 9. Brain tumours
#
# A tumour fills about one voxel in a hundred of a brain scan. A network that never says "tumour" is right in the other
# ninety-nine, and nobody needs it. What should it be asked to minimize, and what should be reported?
#
# **Afterwards you can** say what cross-entropy and soft Dice each pull at and where each goes blind, why small tumours
# score low even if they are found, and why there is no such thing as *the* Dice of a test set. **Time:** half an hour
# to read, as much again with the exercises; it runs within two minutes.

# %%
import os
import tempfile

import numpy as np

from tinyseg import Tensor, models, ops, optim
from tinyseg.data import Loader
from tinyseg.data.brain import Preparation
from tinyseg.data.brats import find_cases
from tinyseg.data.classes import REGIONS
from tinyseg.data.slice_sampler import SliceSampler
from tinyseg.data.slices import SliceCache
from tinyseg.data.synthetic_brain import write_brains
from tinyseg.learn import teaching
from tinyseg.learn.figures import notebook_09 as draw
from tinyseg.metrics import dice
from tinyseg.prediction import predict_logits
from tinyseg.prediction.evaluation import score_patients
from tinyseg.training.losses import dice_and_cross_entropy

teaching.style()
teaching.use_one_core()  # for images this small, waking a second core costs more
DATA = os.environ.get("TINYSEG_BRATS")  # a folder of BraTS or Decathlon cases, if any

# %% [markdown]
# ## Four modalities
#
# A case is one patient: some kinds of image of the same head, and a label for each voxel. Without data of your own the
# cases are [drawn](../../tinyseg/data/synthetic_brain.py). Axial slices are brought to 48 × 48, and each modality to
# mean 0 and variance 1 over the brain. The split is by patient: slices of one head are alike.

# %%
folder = tempfile.TemporaryDirectory()
source = DATA or write_brains(f"{folder.name}/brains", num_cases=20, shape=(60, 60, 20))
preparation = Preparation(48, "resize" if DATA else "crop")
stored = f"{folder.name}/slices"
cache = SliceCache.build(find_cases(source), stored, preparation, progress=False)
names, classes = list(cache.entries), cache.classes
held = max(1, 2 * len(names) // 5)  # so many patients are not trained on
train_names, held_names = names[:-held], names[-held:]


def largest_slice(name):
    """The slice of a patient with most tumour, (modalities, h, w), and its labels."""
    z = int(cache.entries[name].counts[:, 1:].sum(1).argmax())
    return cache.images(name)[z], cache.labels(name)[z]


draw.modalities(*largest_slice(train_names[0]), cache.modalities, classes)

# %% [markdown]
# **What to see.** No modality shows it all. Edema is bright in FLAIR and T2, the enhancing rim only in T1 after
# gadolinium, and to tell the core from edema one needs several at once. So the first layer takes them all, as channels.
# Scores are given for *regions*: whole tumour (all three), tumour core (without edema), enhancing.
#
# ## One voxel in a hundred

# %%
counts = sum(cache.entries[name].counts.sum(0) for name in names)
print(f'always "background" has accuracy {counts[0] / counts.sum():.4f} and Dice 0')
draw.shares(classes, counts / counts.sum())

# %% [markdown]
# ## What a loss pulls at
#
# Of $N$ voxels $A$ are tumour, and the network says $p$ everywhere. Voxel $i$ has the target $t_i$, 1 in the tumour and
# else 0, and the logit $z_i$. Descent pulls the tumour's logits up and pushes the background's down. Which is stronger,
# summed over all voxels? From the gradients [of both losses](../ops/loss.md),
#
# $$ \frac{\partial L_{CE}}{\partial z_i}=\frac{p_i-t_i}{N},\qquad
# \frac{\partial L_{Dice}}{\partial z_i}=\frac{D-2t_i}{\Sigma p+A}\,p_i(1-p_i),\qquad
# D=\frac{2\,\Sigma p\,t}{\Sigma p+A}, $$
#
# follows at $p=\frac12$, where training begins, the ratio of the two pulls: $A/(N-A)$ for cross-entropy, $(N+A)/(N-A)$
# for Dice. The first goes to 0 with the tumour's size, the second to 1.


# %%
def soft_dice(z, t):
    return ops.soft_dice_loss(z, t, smooth=0.0, empty="ignore")  # as in the equation


def pulls(loss, p_tumour, p_background, area):
    """Pull up on all tumour, push down on all background, pull on one tumour voxel."""
    target = (np.arange(N) < area).reshape(1, 1, 1, N).astype(float)
    p = np.where(target == 1, p_tumour, p_background)
    z = Tensor(np.log(p / (1 - p)), requires_grad=True)
    loss(z, target).backward()
    return -z.grad[target == 1].sum(), z.grad[target == 0].sum(), -z.grad.flat[0]


cross_entropy = ops.binary_cross_entropy_with_logits
N, areas = 64 * 64, np.array([1, 3, 10, 30, 100, 300, 1000])
sure = np.logspace(-4, -0.01, 60)  # p on a tumour of 30 voxels, elsewhere p = 0.001
balance, single = {}, {}
for name, loss in (("cross-entropy", cross_entropy), ("soft Dice", soft_dice)):
    up, down, _ = np.transpose([pulls(loss, 0.5, 0.5, area) for area in areas])
    balance[name], single[name] = up / down, [pulls(loss, p, 1e-3, 30)[2] for p in sure]
assert np.allclose(balance["cross-entropy"], areas / (N - areas))
assert np.allclose(balance["soft Dice"], (N + areas) / (N - areas))
draw.pulls(areas / N, balance, sure, single)

# %% [markdown]
# **What to see.** Left: under cross-entropy the first thing learned is "less tumour, everywhere": a small one is
# outvoted by as many times as there is more background. Under Dice both sides pull alike, whatever the size. Right:
# once the background is learned, a tumour that was missed has $p\approx0$. Cross-entropy pulls at it as hard as ever.
# Dice has the factor $p(1-p)$ and does not feel it; where $p$ is middling it pulls harder, since it divides by the
# small tumour instead of by $N$. So one is outvoted, and the other goes blind. The [paper](../brain_tumours.md) takes
# both: cross-entropy minus soft Dice.
#
# ## Trained three times
#
# The same small SD-UNet, the same slices in the same order, three losses, two seeds.

# %%
STEPS, EVERY, BATCH = 150, 50, 8
WEIGHTS = {"cross-entropy": (0, 1), "soft Dice": (1, 0), "both": (1, 1)}  # Dice's first


def train(name, seed):
    """A trained network, and the Dice of each region, mean over held-out patients."""
    loss = dice_and_cross_entropy(*WEIGHTS[name])
    empty = None if DATA else 0.3  # share of slices without tumour; None: as they come
    sampler = SliceSampler(cache, train_names, BATCH * STEPS, empty, seed=seed)
    small = {"width": 8, "levels": 3, "dropout": 0.0, "seed": seed}
    model = models.build("sdunet", len(cache.modalities), len(classes), **small)
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    schedule = optim.CosineAnnealingLR(optimizer, STEPS, warmup=5)
    curve = []
    batches = enumerate(Loader(sampler, BATCH, shuffle=False).epoch(0), start=1)
    for step, (x, y) in batches:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
        schedule.step()
        if step % EVERY == 0:
            found = score_patients(model, cache, held_names, REGIONS, loss, 20, "nan")
            curve.append([found["regions"][region]["mean"] for region in REGIONS])
            model.train()
    return model, np.array(curve)


runs = {name: [train(name, seed) for seed in (0, 1)] for name in WEIGHTS}
curves = {name: np.stack([curve for _, curve in pair]) for name, pair in runs.items()}
print("Dice after the last step, mean of two seeds:", ", ".join(REGIONS))
for name, found in curves.items():
    print(f"{name:14}", found[:, -1].mean(0).round(2))
gained = (curves["both"] - curves["cross-entropy"])[:, -1, 1:]  # core, enhancing
assert DATA or gained.mean(0).min() > 0.1
draw.curves(range(EVERY, STEPS + 1, EVERY), curves, REGIONS)

# %%
best = [pair[curves[name][:, -1].mean(1).argmax()][0] for name, pair in runs.items()]
patients = []
for x, y in map(largest_slice, held_names[:3]):
    patients.append((x, y, *(predict_logits(m, x[None])[0].argmax(0) for m in best)))
draw.predictions(patients, cache.modalities)

# %% [markdown]
# **What to see.** Cross-entropy learns in the order of frequency: the whole tumour first, if anything in so few steps,
# the rare classes last. After these steps core and enhancing are still at 0: the loss decides what is learned *first*.
# Soft Dice does not wait for what is frequent, but alone it is unsteady: false tumour of which the network is sure
# feels as little pull as a tumour that it surely misses. Which of the two with Dice is ahead changes with region and
# seed: two seeds are no ranking. (The masks, and all that follows, are of each loss's better seed on these very
# patients: a little too good.)
#
# ## Small tumours
#
# Let a prediction be perfect in shape, but one voxel aside. For a ball of radius $r$ the overlap of the two balls gives
#
# $$ D(r)=1-\frac{3}{4r}+\frac{1}{16r^3} $$
#
# and for one that is a voxel too thick all round $D(r)=2r^3/(r^3+(r+1)^3)$.


# %%
formulas = {
    "aside": lambda r: 1 - 3 / (4 * r) + 1 / (16 * r**3),
    "too thick": lambda r: 2 * r**3 / (r**3 + (r + 1) ** 3),
}


def ball(radius):
    return sum(axis**2 for axis in np.ogrid[(slice(-23, 24),) * 3]) <= radius**2


radii = np.arange(2, 21)
scores = {
    "aside": [dice(np.roll(ball(r), 1, axis=0), ball(r)) for r in radii],
    "too thick": [dice(ball(r + 1), ball(r)) for r in radii],
}
assert np.allclose(scores["aside"], formulas["aside"](radii), atol=0.04)

rng, aside = np.random.default_rng(0), formulas["aside"]
for hospital, median in (("that refers late", 12), ("that screens", 5)):
    r = np.clip(median * np.exp(0.4 * rng.standard_normal(2000)), 1.5, 40)
    stratum = aside(r[(r >= 5) & (r < 8)]).mean()
    print(f"hospital {hospital}: {aside(r).mean():.3f}; radius 5 to 8: {stratum:.3f}")

truths, predictions = {}, {}
for name in held_names:
    truths[name] = np.asarray(cache.labels(name)) > 0
    predictions[name] = predict_logits(best[-1], cache.images(name), 20).argmax(1) > 0
folder.cleanup()  # all that is needed of the slices is in memory now
sizes = [np.cbrt(3 * truth.sum() / (4 * np.pi)) for truth in truths.values()]
patients = [dice(predictions[name], truth) for name, truth in truths.items()]
draw.small_tumours(radii, formulas, scores, sizes, patients)

# %% [markdown]
# **What to see.** The same care with the pencil costs a ball of radius 2 more than a third of its Dice, one of radius
# 20 a few hundredths. Compare the network's patients with the curves at their own size. A mean over patients says as
# much about the sizes in the test set as about the method. The printed lines are the mean Dice of two hospitals, with
# one method that is always one voxel aside: the means differ much, among tumours of one size they hardly do.
# [`score_patients`](../../tinyseg/prediction/evaluation.py) reports small and large tumours apart for this reason.
#
# ## Which Dice?
#
# One set of predictions, one formula. Left open is what is averaged, and what a slice scores that has no tumour and in
# which none was predicted: 0/0.


# %%
def five_ways(predictions):
    """Dice of the whole tumour on the held-out patients, in five ways."""
    volumes = [(predictions[name], truth) for name, truth in truths.items()]
    slices = [pair for volume in volumes for pair in zip(*volume, strict=True)]
    pooled = map(np.concatenate, zip(*volumes, strict=True))
    patients = [dice(*volume) for volume in volumes]
    ways = {"all voxels pooled": dice(*pooled), "mean over patients": np.mean(patients)}
    for empty, words in (("nan", "left out"), ("zero", "as 0"), ("one", "as 1")):
        found = np.nanmean([dice(*pair, empty) for pair in slices])
        ways[f"mean over slices, 0/0 {words}"] = found
    return ways


ways = five_ways(predictions)
assert DATA or max(ways.values()) - min(ways.values()) > 0.1
draw.five_scores(ways)

# %% [markdown]
# **What to see.** None is wrong. Pooled, a large tumour counts as much as many small ones. Over patients each counts
# once, and so does each disappointment. Over slices a long tumour counts often, its thin ends score low, and healthy
# slices decide the rest: how many of them there are, and what 0/0 is taken for. Say it beside every Dice.
#
# ## Exercises
#
# **1. One number for all voxels.** Let a network be able to say only one probability $p$, the same everywhere, of a
# tumour that fills 2 % of a slice. Which $p$ has the lowest cross-entropy, which the lowest soft Dice loss? What does
# that say about the first steps of training?

# %%
answer = ...  # both p: (of the lowest cross-entropy, of the lowest soft Dice loss)
teaching.check("9.1", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 1"}
lowest = teaching.solution("9.1")(cross_entropy, soft_dice)
print(f"cross-entropy is lowest at p = {lowest[0]:.3f}, soft Dice at {lowest[1]:.3f}")
assert teaching.check("9.1", lowest)

# %% [markdown]
# **2. Nothing, scored well.** Score the network that never says tumour in the five ways. Which would you have to report
# to look respectable, and on which patients?

# %%
answer = ...  # the five scores, as five_ways returns them
teaching.check("9.2", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 2"}
nothing = teaching.solution("9.2")(five_ways, truths)
print({way: round(float(score), 3) for way, score in nothing.items()})
healthy = np.mean([not plane.any() for truth in truths.values() for plane in truth])
assert np.isclose(nothing["mean over slices, 0/0 as 1"], healthy)
assert teaching.check("9.2", nothing)

# %% [markdown]
# **3. Thin, not small.** An enhancing rim may have many voxels and still score low. Compare a rim of outer radius 14
# and thickness 3 with the ball of the same volume, both predicted one voxel aside. What takes the place of the radius?

# %%
answer = ...  # both Dice, of the shapes in voxels: (rim, ball)
teaching.check("9.3", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 3"}
rim, same = teaching.solution("9.3")(ball)
expected = 1 - 3 * (14**2 + 11**2) / (4 * (14**3 - 11**3))  # 1 - S / (4 V) of the rim
print(f"rim {rim:.3f}, expected {expected:.3f}; ball {same:.3f}")
assert abs(rim - expected) < 0.05 and rim < same - 0.1
assert teaching.check("9.3", (rim, same))
