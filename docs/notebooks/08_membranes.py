# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 8. SD-UNet on membranes
#
# To follow a nerve fibre through a stack of electron micrographs one must know where one cell ends and the next begins:
# find the membranes. A small SD-UNet learns it here within a minute, and more than eight pixels in ten are right. **Is
# that good?** At the end you can say what a threshold does, why a gap of three pixels can be worse than a thousand
# wrong ones, and which of the network's mistakes to mend first.

# %%
import os

import numpy as np
from matplotlib import pyplot as plt
from scipy.ndimage import binary_dilation, binary_erosion, label

import tinyseg as ts
from tinyseg import metrics, ops
from tinyseg.data import Augment, Loader, Sections, SegmentationDataset, em_sections, isbi, standardize
from tinyseg.learn import teaching
from tinyseg.learn.teaching import BLUE, GREEN, GREY, ORANGE
from tinyseg.metrics.isbi import isbi_scores, label_scores, thin
from tinyseg.training import evaluate

teaching.style()

DATA = None  # or the folder of your ISBI 2012 stack, with train-volume.tif and train-labels.tif
DATA = DATA or os.environ.get("TINYSEG_ISBI")

# %% [markdown]
# ## Sections
#
# Without data of your own, [`em_sections`](../../tinyseg/data/synthetic.py) draws tissue
# ([how near it comes to the real one](../results.md#the-synthetic-stack)). The last four sections are held out:
# neighbours look alike, and a random choice would show the network nearly what it is tested on.

# %%
if DATA:
    sections = isbi.load(DATA, labels="required").resized(256)
else:
    images, labels = em_sections(num_sections=24, size=256, seed=0)
    sections = Sections(images, labels, [f"synthetic section {k}" for k in range(len(images))])
train, held = sections.split(4)
train_x, held_x = standardize(train.images), standardize(held.images)  # mean 0, variance 1 in each section

white = np.ones_like(held.labels)
guess = metrics.accuracy(white, held.labels)
print(
    f"{len(train)} sections to learn from, {len(held)} held out; {held.labels.mean():.0%} of these is inside of a cell"
)
print(f"a mask that is white everywhere: accuracy {guess:.3f}, Dice {metrics.dice(white, held.labels):.3f}")


# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "A section, grey cells with dark borders, beside its label: cells white, membranes black."}}
def show(row, pictures, titles=()):
    """Draw pictures side by side, without ticks."""
    for ax, picture in zip(row, pictures, strict=True):
        ax.imshow(picture)
        ax.set(xticks=[], yticks=[])
    for ax, title in zip(row, titles, strict=False):
        ax.set_title(title)


_, axes = plt.subplots(1, 2, figsize=(7.5, 4))
show(axes, (held.images[0], held.labels[0]), ("Dark: membranes, and other things", "White: inside of a cell"))
plt.show()

# %% [markdown]
# White everywhere is no segmentation at all, and yet look at its accuracy and its Dice. Every score below has to be
# read against them.
#
# ## A training step
#
# In the middle of the loop stands one training step: predict, compare, walk back, change the weights. The loss is the
# [binary cross-entropy](../ops/loss.md#binary-cross-entropy) of logits. Width 8 in place of the paper's 64 makes a
# network that is small enough to watch.

# %%
model = ts.models.build("sdunet", width=8, levels=4, dropout=0.0, seed=0)
optimizer = ts.optim.Adam(model.parameters(), lr=6e-3)
augment = Augment.parse("hflip,vflip,turns,rotation=10,zoom=0.1")  # what a short training can use
loader = Loader(SegmentationDataset(train_x, train.labels, augment), batch_size=2)
epochs = 16
schedule = ts.optim.CosineAnnealingLR(optimizer, epochs * len(loader), warmup=10)

losses, tested, film = [], [], []
for epoch in range(epochs):
    for x, y in loader.epoch(epoch):  # (2, 1, 256, 256) each
        loss = ops.binary_cross_entropy_with_logits(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    scores, probability = evaluate(model, held_x, held.labels)  # probability of "inside": (4, 256, 256)
    tested.append(scores["loss"])
    film.append(probability[0, :160, :160])

print(f"{model.num_parameters():,} weights, {len(losses)} steps; held out: accuracy {scores['accuracy']:.3f}", end="")
print(f", Dice {scores['dice']:.3f}, Dice of the membrane {scores['membrane_dice']:.3f}")
assert scores["accuracy"] > guess + 0.02 and scores["membrane_dice"] > 0.4

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Loss against steps. Training and held-out loss fall steeply at first, then slowly, far below what is reached by knowing only how much is white."}}
_, ax = plt.subplots()
ax.plot(np.arange(1, len(losses) + 1), losses, color=ORANGE, linewidth=1)
ax.plot(np.arange(1, epochs + 1) * len(loader), tested, "o-", color=BLUE, markersize=4)
constant = -(guess * np.log(guess) + (1 - guess) * np.log(1 - guess))
ax.axhline(constant, color=GREY, linestyle=":", linewidth=1.2)
ax.text(len(losses), constant + 0.01, "knows only how much is white", color=GREY, ha="right")
ax.text(len(losses), constant - 0.07, "held-out sections, after each epoch", color=BLUE, ha="right")
ax.text(len(losses), constant - 0.13, "each training step", color=ORANGE, ha="right")
ax.set(xlabel="training step", ylabel="cross-entropy (nats a pixel)", title="The loss falls", ylim=(0, None))
plt.show()

# %% [markdown]
# Within a few dozen steps it finds that dark lines are membranes. The rest goes slowly, and is the interesting part.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code"}
figure, axes = plt.subplots(1, 2, figsize=(7.5, 4.1))
show(axes, (held.images[0, :160, :160], film[0]), ("Never seen in training",))
axes[1].images[0].set_clim(0, 1)


def frame(k):
    axes[1].images[0].set_data(film[k])
    axes[1].set_title(f"Probability of inside, step {(k + 1) * len(loader)}")


teaching.animate(figure, frame, epochs, alt="A held-out section. Predicted membranes grow sharper as training goes on.")

# %% [markdown]
# ## What it found, pixel by pixel
#
# A probability becomes a mask by a threshold: inside where $p>t$. With $t=\frac12$:

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Two held-out sections: image, probability of inside, and the image with missed membrane in blue and false membrane in orange."}}
figure, axes = plt.subplots(2, 3, figsize=(7.5, 5.2))
titles = ("Held-out section", "Probability of inside", "Errors at threshold 0.5")
for row, k in zip(axes, (0, -1), strict=True):
    errors = ts.plots.error_overlay(held.images[k], held.labels[k], probability[k] > 0.5)
    show(row, (held.images[k], probability[k], errors), titles if k == 0 else ())
axes[1, 2].set_xlabel("blue: missed membrane\norange: false membrane")
plt.show()

# %% [markdown]
# Where blue or orange runs along the side of a membrane, the line is drawn too thin or too thick. Where blue goes right
# *across*, the membrane is missing; orange inside of a cell is a false wall, or an organelle. Accuracy counts all alike.
#
# **What does the threshold do?** A higher one calls more pixels membrane: lines get thicker.

# %%
thresholds = np.array([*np.arange(0.05, 0.96, 0.05), 0.97, 0.98, 0.99])
accuracy = [metrics.accuracy(probability > t, held.labels) for t in thresholds]
inside = [metrics.dice(probability > t, held.labels) for t in thresholds]
membrane = [metrics.dice(probability <= t, ~held.labels) for t in thresholds]

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Accuracy, Dice of the inside and Dice of the membrane against the threshold. The first two are nearly flat over a wide range."}}
_, ax = plt.subplots()
lines = [("Dice of the inside", inside, BLUE, 0.02), ("accuracy", accuracy, ORANGE, -0.06)]
for name, values, colour, above in [*lines, ("Dice of the membrane", membrane, GREEN, -0.09)]:
    ax.plot(thresholds, values, color=colour)
    ax.text(0.5, np.interp(0.5, thresholds, values) + above, name, color=colour)
ax.axhline(guess, color=GREY, linestyle=":", linewidth=1.2)
ax.text(0.05, guess - 0.015, "accuracy of all white", color=GREY, va="top")
ax.set(xlabel="threshold t", ylabel="score", title="Pixel scores are flat over a wide range")
ax.set(xlim=(0.04, 0.96), ylim=(0, 1))
plt.show()

# %% [markdown]
# Accuracy and Dice hardly care: they count the majority, which is right either way. The membrane's own Dice says more.
# It is low where few membranes are left.
#
# ## What pixel scores do not see
#
# Nine cells and three proposals: one with a gap in a wall, one with a line across a cell, one with thick walls.

# %%
truth = np.ones((69, 69), bool)
truth[21:24] = truth[45:48] = truth[:, 21:24] = truth[:, 45:48] = False  # walls 3 pixels wide, cells of 21 × 21
gap, line, thick = truth.copy(), truth.copy(), binary_erosion(truth, iterations=3, border_value=1)
gap[34, 21:24] = True
line[10, :21] = False
proposals = {"a gap": gap, "a line": line, "thick walls": thick}

toy = {name: isbi_scores(mask, truth) for name, mask in proposals.items()}
print("              wrong  accuracy  V^Rand (split, merge)  V^Info (split, merge)")
for name, s in toy.items():
    wrong = proposals[name] != truth
    print(f"{name:12}  {wrong.sum():5}    {1 - wrong.mean():.4f}    {s.v_rand:.3f} ({s.v_rand_split:.3f}, ", end="")
    print(f"{s.v_rand_merge:.3f})   {s.v_info:.3f} ({s.v_info_split:.3f}, {s.v_info_merge:.3f})")
assert toy["a gap"].v_rand < toy["a line"].v_rand < toy["thick walls"].v_rand == 1


# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Three by three cells, four times: the truth; a gap joins two cells, orange; a line cuts one into two blues; thick walls change no cell."}}
def overlaps(segments, cells):
    """Table n of pixels: n[i, j] lie in true cell i and in predicted segment j; membrane and lines left out."""
    n = np.zeros((cells.max() + 1, segments.max() + 1))
    np.add.at(n, (cells, segments), 1)
    return n[1:, 1:]


def paint(mask, cells):
    """Colour a mask's segments: grey if right, orange over several cells, shades of blue for pieces of one cell."""
    n = overlaps(thin(mask), cells)
    share = n / np.maximum(n.sum(1, keepdims=True), 1)  # of a cell, in each segment
    several, pieces = (share > 0.5).sum(0) > 1, share > 0.05
    colours = np.full((n.shape[1] + 1, 3), 0.85)
    for j in np.flatnonzero((pieces.sum(1) > 1)[n.argmax(0)]):
        number = pieces[n[:, j].argmax(), :j].sum() % 3
        colours[j + 1] = ((0, 0.45, 0.7), (0.45, 0.75, 0.95), (0.2, 0.25, 0.55))[number]
    colours[1:][several] = (0.9, 0.62, 0)
    return np.where(mask[..., None], colours[thin(mask)], 0)


_, axes = plt.subplots(1, 4, figsize=(7.5, 2.3))
painted = [paint(mask, label(truth)[0]) for mask in (truth, *proposals.values())]
show(axes, painted, ("Truth", *(name.capitalize() for name in toy)))
for ax, s in zip(axes[1:], toy.values(), strict=True):
    ax.set_xlabel(f"V$^{{Rand}}$ = {s.v_rand:.3f}")
plt.show()

# %% [markdown]
# Three wrong pixels in the gap cost more V^Rand than all those of the thick walls. Whoever follows a fibre agrees: a
# wall may be thick or thin, but through a gap two neurons become one.
#
# **V^Rand** looks at *pairs* of pixels. With $AB$ pairs that lie in one cell both in the truth and in the proposal,
# *missing* ones that do so only in the truth, *false* ones only in the proposal,
#
# $$ V^{Rand}=\frac{AB}{AB+\frac12(\text{missing}+\text{false})} $$
#
# It is the Dice score of pairs. Their recall $AB/(AB+\text{missing})$ is called split score, their precision
# $AB/(AB+\text{false})$ merge score. Joining cells of $a$ and $b$ pixels makes $2ab$ false pairs, cutting a cell into
# $a$ and $b$ loses $2ab$. Two cells of $m$ pixels joined: $2m^2$. One of them cut in halves: $m^2/2$, a quarter.
#
# **V^Info** asks how much the name of a pixel's segment tells of its cell. An error counts by the share of the pixels
# it concerns, not by its square, so that large cells weigh less. Before either score, membranes are *thinned*: cells
# grow until they meet. That is why thick walls are free. [All of it, exactly](../isbi_score.md).
#
# ## The threshold again
#
# The same predictions, the same thresholds, the other score.

# %%
found = isbi_scores(probability, held.labels, thresholds)
split, merge, rand = (part.mean(1) for part in (found.rand_split, found.rand_merge, found.rand))  # over sections
for k in (np.abs(thresholds - 0.5).argmin(), rand.argmax()):
    print(f"threshold {thresholds[k]:.2f}: accuracy {accuracy[k]:.3f}, V^Rand {rand[k]:.3f}")
score = isbi_scores(probability, held.labels)  # at the challenge's own eleven thresholds
print(f"the challenge's scores: V^Rand {score.v_rand:.3f} (threshold {score.v_rand_threshold:.1f})", end="")
print(f", V^Info {score.v_info:.3f} (threshold {score.v_info_threshold:.1f})")
assert rand.argmax() > np.argmax(accuracy) and merge[2] < 0.5 < split[2]

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Split score, merge score and V-Rand against the threshold. The merge score is near 0 at low thresholds and rises late; the split score falls from 1; V-Rand peaks where they meet."}}
_, ax = plt.subplots()
places = [(split, "split score", BLUE, 0.3, 0.03), (merge, "merge score", ORANGE, 0.8, -0.13)]
for values, name, colour, where, above in [*places, (accuracy, "accuracy", GREY, 0.1, -0.1)]:
    ax.plot(thresholds, values, color=colour, linestyle=":" if name == "accuracy" else "-")
    ax.text(where, np.interp(where, thresholds, values) + above, name, color=colour)
ax.plot(thresholds, rand, color=GREEN, linewidth=3)
ax.plot(thresholds[rand.argmax()], rand.max(), "o", color=GREEN)
ax.text(1.01, rand.max(), "V$^{Rand}$", color=GREEN, va="center")
ax.set(xlabel="threshold t", ylabel="score", title="Cells come apart only when the threshold is high")
ax.set(xlim=(0.04, 1.07), ylim=(0, 1.08))
plt.show()

# %% [markdown]
# At a low threshold one gap or another joins nearly all cells: nothing is cut (split score near 1), everything is
# merged (merge score near 0). As $t$ rises walls close, and then cells fall apart. V^Rand peaks at a higher threshold
# than accuracy: false walls are cheaper than gaps.
#
# ## Look at the mistakes
#
# Which single error costs most? With $n_{ij}$ pixels in true cell $i$ and segment $j$, cells $i$ and $k$ are falsely
# together in $2\sum_j n_{ij}n_{kj}=2(nn^\top)_{ik}$ pairs. Of the dearest of them each wall is mended in turn: its
# pixels become membrane, and the section is scored again. In the same way the cells that are most cut up are filled.

# %%
worst = score.v_rand_sections.argmin()
truth, mask = held.labels[worst], probability[worst] > score.v_rand_threshold
cells = label(truth)[0]
n = overlaps(thin(mask), cells)  # n[i, j]: pixels in true cell i and predicted segment j

tried = {"merge": [], "split": []}  # (V^Rand when mended, pixels changed, cells)
together = np.triu(n @ n.T, 1)
for i, k in np.argwhere(together >= np.sort(together, axis=None)[-40]):
    near_i, near_k = (binary_dilation(cells == c + 1, iterations=5) for c in (i, k))
    leak = mask & ~truth & near_i & near_k  # what was taken for inside, of the wall between them
    tried["merge"].append((isbi_scores(mask & ~leak, truth).v_rand, leak, (i, k)))
for i in np.argsort(n.sum(1) ** 2 - (n**2).sum(1))[-10:]:  # pairs of cell i that lie in two segments
    false = ~mask & binary_erosion(cells == i + 1, iterations=3)  # not what merely makes its border thick
    tried["split"].append((isbi_scores(mask | false, truth).v_rand, false, (i,)))
best = {kind: max(repairs, key=lambda repair: repair[0]) for kind, repairs in tried.items()}

print(
    f"{held.names[worst]}: V^Rand {isbi_scores(mask, truth).v_rand:.3f}, accuracy {metrics.accuracy(mask, truth):.4f}"
)
for kind, (after, changed, _) in best.items():
    right = metrics.accuracy(mask ^ changed, truth)
    print(f"costliest {kind}, {changed.sum()} pixels mended: V^Rand {after:.3f}, accuracy {right:.4f}")

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Crops around the costliest merge and the costliest split: image, true cells, probability, predicted segments with the mended pixels in magenta."}}
_, axes = plt.subplots(2, 4, figsize=(7.5, 4.2))
for row, (kind, (_, changed, concerned)) in zip(axes, best.items(), strict=True):
    middle = [np.median(c) if len(c) else 128 for c in np.nonzero(changed)]
    y, x = (int(np.clip(c, 48, 208)) for c in middle)
    true_cells, predicted = np.where(truth[..., None], [0.85] * 3, 0), paint(mask, cells)
    for c, colour in zip(concerned, ((0.34, 0.71, 0.91), (0.94, 0.89, 0.26)), strict=False):
        true_cells[cells == c + 1] = colour
    predicted[changed] = (0.85, 0, 0.5)
    pictures = (held.images[worst], true_cells, probability[worst], predicted)
    titles = ("Image", "True cells", "Probability", "Predicted")
    show(row, [picture[y - 48 : y + 48, x - 48 : x + 48] for picture in pictures], titles if kind == "merge" else ())
    for ax in row[[0, 2, 3]] if kind == "merge" else ():
        ax.add_patch(
            plt.Circle((middle[1] - x + 48, middle[0] - y + 48), 9, fill=False, color="#D90080", linewidth=1.5)
        )
    row[0].set_ylabel(f"costliest {kind}", fontsize=11)
axes[1, 3].set_xlabel("magenta: mended")
plt.show()

# %% [markdown]
# An orange segment holds several true cells, blue ones are pieces of a cell. Look at the image where it was mended: is
# the membrane faint, oblique, or beside something dark? There more data, a wider view, or a mean over
# [flips and turns](../results.md#objects-by-their-borders) may help. A lower loss elsewhere will not.
#
# ## Exercises
#
# **1. Two absurd proposals.** Make from the true masks one proposal that is right in more than 98 % of the pixels and
# has V^Rand below 0.3, and one that is wrong in more than 15 % of them and has V^Rand above 0.95.

# %%
answer = ...  # held.labels and the two proposals, (4, 256, 256) each
teaching.check("8.1", answer)

# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 1"}
# A column opened here and there breaks through every wall that it crosses; thicker walls break through nothing.
holes = held.labels.copy()
holes[:, :, 10::20] = True
shrunk = np.stack([binary_erosion(section, iterations=2, border_value=1) for section in held.labels])
right = [metrics.accuracy(proposal, held.labels) for proposal in (holes, shrunk)]
v = [isbi_scores(proposal, held.labels).v_rand for proposal in (holes, shrunk)]
assert right[0] > 0.98 and v[0] < 0.3 and right[1] < 0.85 and v[1] > 0.95
print(f"holes: accuracy {right[0]:.3f}, V^Rand {v[0]:.3f}; shrunk: accuracy {right[1]:.3f}, V^Rand {v[1]:.3f}")
assert teaching.check("8.1", (held.labels, holes, shrunk))

# %% [markdown]
# **2. One error among K cells.** Let all K cells have m pixels. Derive V^Rand after two of them were joined, and after
# one was cut in halves, and check both with [`label_scores`](../../tinyseg/metrics/isbi.py). From which K on does a
# merge cost less than a hundredth, and a split?

# %%
answer = ...  # (V^Rand after a merge, after a split) of K; K of merge; K of split
teaching.check("8.2", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 2"}
# In units of m²: joined, AB = K and 2 pairs are false: V = K / (K + 1). Cut, AB = K - 1/2 and 1/2 is missing:
# V = (K - 1/2) / (K - 1/4).
def v_of_one_error(K):
    return K / (K + 1), (K - 1 / 2) / (K - 1 / 4)


cost = {"merge": [], "split": []}
for K in range(2, 200):
    names = np.repeat(np.arange(1, K + 1), 10)[None]
    cut = names.copy()
    cut[0, :5] = K + 1
    cost["merge"].append(1 - label_scores(np.where(names == 2, 1, names), names).rand)
    cost["split"].append(1 - label_scores(cut, names).rand)
    assert np.allclose([1 - costs[-1] for costs in cost.values()], v_of_one_error(K))
first = {kind: 2 + int(np.argmax(np.array(costs) < 0.01 - 1e-12)) for kind, costs in cost.items()}
assert first == {"merge": 100, "split": 26}
assert teaching.check("8.2", (v_of_one_error, *first.values()))

# %% [markdown]
# **3. A threshold that has not seen the answers.** The challenge takes the best threshold on the sections that are
# scored. Choose it on one of the held-out sections and score the three others, each in turn. How much is lost, and why
# is nothing ever gained? (What is checked is a function of the table of scores, with a loss for each section on which
# the threshold is chosen: the others' mean score at the best threshold on all sections, minus that at the chosen one.)

# %%
answer = ...  # a function of the table (thresholds, sections): the losses
teaching.check("8.3", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 3"}
# Let r be the table of scores, t* the best threshold on all sections, t_k the best on section k. t_k has at most t*'s
# sum over all sections and at least its score on section k: what is left for the others is at most what t* has there.
def scores_of_others(table):
    honest, optimistic = [], []
    for k in range(table.shape[1]):
        others = np.delete(table, k, axis=1).mean(1)
        honest.append(others[table[:, k].argmax()])
        optimistic.append(others[table.mean(1).argmax()])
    return np.array(honest), np.array(optimistic)


def losses_of(table):
    honest, optimistic = scores_of_others(table)
    return optimistic - honest


table = found.rand  # (thresholds, sections)
honest, optimistic = scores_of_others(table)
assert (honest <= optimistic + 1e-9).all() and teaching.check("8.3", losses_of)
print(
    f"V^Rand at a threshold chosen on another section {np.mean(honest):.3f}, on all {np.mean(optimistic):.3f}; ", end=""
)
print(f"each section at its own best, more optimistic still: {table.max(0).mean():.3f}")
