# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6. Weight standardization: two readings of one equation
#
# SD-UNet standardizes its depthwise kernels: mean 0, deviation 1. Mean of *what*? The paper's Equation 5 does not
# say, and there are two ways to read it. This lesson looks at both: what they make of a kernel, what such a kernel
# can see of an image, which gradients come back, and how a small SD-UNet learns with either. At the end you know
# which sentence was missing in the paper, and why it matters. The gradient is derived on [the op's
# page](../ops/weight_standardization.md).

# %%
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap

from tinyseg import Tensor, check_grads, metrics, models, nn, no_grad, ops, optim
from tinyseg.data import em_sections, standardize
from tinyseg.learn import teaching
from tinyseg.learn.teaching import BLUE, GREY, ORANGE

teaching.style()
teaching.use_one_core()  # for images this small, waking a second core costs more than it saves
READINGS = {"none": None, "per layer": "layer", "per filter": "filter"}
COLOURS = {"none": GREY, "per layer": BLUE, "per filter": ORANGE}


def kernel(v, reading):
    """What is convolved with when v is trained, as an array."""
    return ops.weight_standardization(v, READINGS[reading]).data if READINGS[reading] else v


# %% [markdown]
# ## The equation and its two readings
#
# Trained is $v$; convolved is
#
# $$ w_i=\frac{a\,(v_i-\mu)}{\sigma+\epsilon}, \qquad \mu=\frac1m\sum_i v_i,\quad \sigma^2=\frac1m\sum_i(v_i-\mu)^2, $$
#
# where $a$ is a constant gain. A depthwise layer has one 3×3 filter for each of its $C$ channels, an array `(C, 3,
# 3)`. The sums may run
#
# - *per filter*: over the 9 weights of each filter by itself;
# - *per layer*: over all $9\,C$ weights. (The usual Keras code does this to a depthwise kernel; the paper used Keras.)
#
# Take a layer of four filters that everybody knows, and standardize it both ways.

# %%
v = np.array(
    [
        [[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]],  # blur: a weighted mean
        [[-0.5, 0, 0.5], [-1, 0, 1], [-0.5, 0, 0.5]],  # edge (Sobel)
        [[0, -0.25, 0], [-0.25, 1, -0.25], [0, -0.25, 0]],  # spot (Laplace)
        [[0, 0, 0], [0, 1, 0], [0, 0, 0]],  # copy: the pixel itself
    ]
)
names = ("blur", "edge", "spot", "copy")
kernels = {reading: kernel(v, reading) for reading in READINGS}
sums = {reading: w.sum((1, 2)) for reading, w in kernels.items()}
assert np.allclose(sums["per filter"], 0) and np.isclose(sums["per layer"].sum(), 0)
assert abs(sums["per layer"]).min() > 0.1  # no single one

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Twelve 3 by 3 kernels with their weights. As trained, blur and copy sum to 4 and 1, edge and spot to 0. Per layer the sums are 6.3, -2.9, -2.9 and -0.57, zero in all. Per filter every sum is 0, and blur and copy look like spot"}}
diverging = LinearSegmentedColormap.from_list("blue to orange", [BLUE, "white", ORANGE])


def number(value):
    return f"{value:.2g}" if abs(value) > 1e-9 else "0"


figure, grid = plt.subplots(3, 4, figsize=(7.6, 6))
for row, reading in zip(grid, READINGS, strict=True):
    row[0].set_ylabel("v, as trained" if reading == "none" else f"w, {reading}", fontsize=11)
    for axes, w, name in zip(row, kernels[reading], names, strict=True):
        axes.imshow(w, cmap=diverging, vmin=-abs(w).max(), vmax=abs(w).max())
        axes.set(xticks=[], yticks=[], title=f"{name}: sum {number(w.sum())}")
        for (i, j), weight in np.ndenumerate(w):
            colour = "white" if weight < -0.9 * abs(w).max() else "black"
            axes.text(j, i, number(weight), ha="center", va="center", color=colour)

# %% [markdown]
# **What to see.** Per layer, one number is subtracted from all: filters move down together and keep their
# differences. Per filter, each loses its own sum. The edge and the spot had none to lose. But the blur is no blur any
# more and the copy no copy: both have become spot detectors.
#
# ## What a filter hears
#
# Convolution multiplies every frequency of the image by the filter's Fourier transform. Its value in the middle, at
# frequency 0, is the sum of the weights: what the filter does to a flat region.


# %%
def response(w, size=64):
    """Magnitude of the transfer function, (size, size), frequency 0 in the middle."""
    return abs(np.fft.fftshift(np.fft.fft2(w, s=(size, size))))


assert all(np.isclose(response(w)[32, 32], abs(w.sum())) for reading in READINGS for w in kernels[reading])

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Transfer functions of the twelve kernels. Blur and copy as trained are bright in the middle; per filter all four are black in the middle"}}
figure, grid = plt.subplots(3, 4, figsize=(7.6, 6.2))
for row, reading in zip(grid, READINGS, strict=True):
    row[0].set_ylabel("v, as trained" if reading == "none" else f"w, {reading}", fontsize=11)
    for axes, w, name in zip(row, kernels[reading], names, strict=True):
        axes.imshow(response(w), vmin=0, vmax=response(w).max() * 1.0001, extent=(-0.5, 0.5, 0.5, -0.5))
        axes.set(xticks=[], yticks=[], title=f"{name}: {number(response(w)[32, 32])} at 0")
        axes.spines[:].set_visible(True)
    row[0].set_yticks([-0.5, 0, 0.5])
figure.supxlabel("cycles per pixel", fontsize=10)
for axes in grid[2]:
    axes.set_xticks([-0.5, 0, 0.5], ["-0.5", "0", "0.5"])

# %% [markdown]
# **What to see** (white: heard loudest, black: not at all). Per filter, the bottom row, the middle is black in all
# four pictures, and no training can light it: whatever $v$ is, $w$ sums to zero.
#
# ## Brightness
#
# So a constant added to the image vanishes. Here is a section of tissue, its right half made brighter, seen by the
# blur filter in each reading.

# %%
images, labels = em_sections(12, 256, seed=0)
images = standardize(images)
section = images[0, 60:156, 60:156].astype(np.float64)
brighter = section + 1.5 * (np.arange(96) >= 48)


def blurred(image, reading):
    return ops.depthwise_conv2d(image[None, None], kernels[reading][:1]).data[0, 0]


for reading in READINGS:
    change = (blurred(section + 1.5, reading) - blurred(section, reading)).mean()
    print(f"{reading:10}: brightness 1.5 changes every output by {change:6.3f} = 1.5 × {sums[reading][0]:.3f}")
    assert np.isclose(change, 1.5 * sums[reading][0])

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "A section whose right half is brighter, and the output of the blur filter. As trained and per layer the right half is brighter too; per filter both halves are the same grey, with a line between them"}}
figure, row = plt.subplots(1, 4, figsize=(9.4, 2.9))
for axes, image, title in zip(
    row, [brighter, *(blurred(brighter, r) for r in READINGS)], ["image", *READINGS], strict=True
):
    axes.imshow(image)
    half = image.shape[1] // 2
    left, right = image[:, : half - 2].mean(), image[:, half + 2 :].mean()
    axes.set_title(title)
    axes.text(0, image.shape[0] + 2, f"mean {left.round(1) + 0.0:.1f}", va="top")
    axes.text(half, image.shape[0] + 2, f"mean {right.round(1) + 0.0:.1f}", va="top")
    axes.axis("off")

# %% [markdown]
# **What to see.** Per filter, the step survives as a line: an edge detector sees where brightness changes, not what
# it is. The layer behind it cannot bring back what is gone. A separable layer on flat features, whatever their
# levels:

# %%
for per in ("layer", "filter"):
    layer = nn.SeparableConv2d(4, 3, 3, ws=per, rng=1)
    answers = [layer(np.tile(np.float32(level), (1, 4, 5, 5))).data[0, :, 1, 1] for level in (0, 1, 5)]
    for level, answer in zip((0, 1, 5), answers, strict=True):
        print(f"per {per:6}, all channels at level {level}:", *(f"{value:6.2f}" for value in answer.round(2) + 0.0))
    assert np.allclose(answers[0], answers[2], atol=1e-5) == (per == "filter")

# %% [markdown]
# Membranes are lines, and a network of edge detectors finds lines. A large tumour is a region: what says "inside"
# there is the level.
#
# (A *standard* filter is less blind. It sums over all its input channels, and a sum of zero over all of them still
# compares one with another: exercise 1.)
#
# ## Gradients
#
# As in [BatchNorm](05_normalization.py), what changes nothing gets no gradient: the parts of $gv$ along $\mathbf 1$
# and along $w$ are taken out, and the rest is divided by $\sigma$,
#
# $$ gv=\frac a{\sigma}\Big(gw-\operatorname{mean}(gw)\Big)
#      -\frac{w\,\operatorname{mean}(gw\cdot w)}{a\,\sigma}\qquad(\epsilon=0). $$
#
# Here the readings differ once more: *per layer*, two directions are lost out of $9\,C$; *per filter*, two out of 9
# in every filter.


# %%
def gradient(v, per, gw, eps=0.0):
    """Return w and the gradient of v for the gradient gw of w."""
    v = Tensor(v, requires_grad=True)
    w = ops.weight_standardization(v, per, eps=eps)
    w.backward(gw)
    return w.data, v.grad


def along(g, direction):
    """Cosine between g and a direction, filter by filter."""
    lengths = np.sqrt((g**2).sum((1, 2)) * (direction**2).sum((1, 2)))
    return (g * direction).sum((1, 2)) / lengths


rng = np.random.default_rng(0)
many = rng.standard_normal((64, 3, 3)) + 0.5 * rng.standard_normal((64, 1, 1))
gw = rng.standard_normal((64, 3, 3))
cosines = {}
for per in ("layer", "filter"):
    w, gv = gradient(many, per, gw)
    cosines[per] = along(gv, np.ones_like(gv)), along(gv, w)
    assert abs(gv.sum()) < 1e-10 and abs((gv * w).sum()) < 1e-10  # both: nothing along 1 and w of the whole layer
    assert np.allclose(gradient(many / 10, per, gw)[1], 10 * gv)  # a tenth of the weights, ten times the gradient
    check_grads(lambda v, per=per: ops.weight_standardization(v, per), many)
assert np.abs(cosines["filter"]).max() < 1e-10

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "For each of 64 filters the cosine of its gradient with the vector of ones and with its weights. Per layer the points scatter widely; per filter all lie at zero"}}
figure, row = plt.subplots(1, 2, figsize=(7.4, 3.6), sharey=True)
for axes, per in zip(row, ("layer", "filter"), strict=True):
    axes.axhline(0, color=GREY, lw=0.6)
    axes.axvline(0, color=GREY, lw=0.6)
    axes.plot(*cosines[per], "o", color=COLOURS[f"per {per}"], ms=5, alpha=0.7)
    axes.set(
        xlim=(-1, 1), ylim=(-1, 1), title=f"per {per}", xlabel="cosine with 1 (level of the filter)", aspect="equal"
    )
row[0].set_ylabel("cosine with w (its strength)")
row[1].annotate("all 64 filters", (0.02, 0.03), (0.25, 0.5), arrowprops={"arrowstyle": "->", "color": "#555555"})
figure.align_labels()

# %% [markdown]
# **What to see.** One point a filter. Per layer, each filter can still learn its level and its strength beside the
# other filters. Per filter, it can learn neither. And note the division by $\sigma$: small weights have large
# gradients, so the starting scale of $v$ acts as a learning rate (exercise 2; Adam, which divides by the gradient's
# size, is less sensitive).
#
# ## Does it matter for learning?
#
# In SD-UNet the first convolution and the 2×2 ones are not standardized and can see a level; but every block that
# follows begins with a standardized 3×3 kernel. Here is a small SD-UNet (8 channels, three levels) on crops of
# synthetic sections: without standardization, per layer, per filter; everything else is alike. Three seeds each.


# %%
def crops(rng, count=4, size=64):
    """Draw images and labels (count, 1, size, size) from the first eight sections."""
    places = zip(rng.integers(8, size=count), *rng.integers(256 - size, size=(2, count)), strict=True)
    windows = [(k, slice(i, i + size), slice(j, j + size)) for k, i, j in places]
    return tuple(np.stack([stack[window] for window in windows])[:, None] for stack in (images, labels))


def train(model, seed, steps=150):
    """Adam on binary cross-entropy; returns the loss of every step."""
    optimizer, rng, losses = optim.Adam(model.parameters(), lr=2e-3), np.random.default_rng(seed), []
    for _ in range(steps):
        x, y = crops(rng)
        loss = ops.binary_cross_entropy_with_logits(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def evaluate(model):
    """Probabilities and scores on the last two sections, which training does not touch (nor their neighbours)."""
    model.eval()
    with no_grad():
        probabilities = ops.sigmoid(model(images[10:, None])).data[:, 0]
    scores = metrics.BinaryScores()
    scores.update(probabilities, labels[10:])
    return probabilities, scores.compute()


def sdunet(reading, seed):
    return models.build("sdunet", width=8, levels=3, dropout=0.0, ws=READINGS[reading], seed=seed)


losses, pictures = {}, {}
for reading in READINGS:
    trained = [sdunet(reading, seed) for seed in range(3)]
    losses[reading] = np.array([train(model, seed) for seed, model in enumerate(trained)])
    results = [evaluate(model) for model in trained]
    pictures[reading] = results[0][0][0]
    end = losses[reading][:, -40:].mean(1)
    iou = [scores["membrane_iou"] for _, scores in results]
    print(f"{reading:10}: loss, last 40 steps {end.round(3)}; membrane IoU {np.round(iou, 2)}")

last = {reading: values[:, -40:].mean(1) for reading, values in losses.items()}
assert last["per filter"].min() > max(last["none"].max(), last["per layer"].max())
assert abs(last["per layer"].mean() - last["none"].mean()) < 0.5 * (last["per filter"].mean() - last["none"].mean())

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Training loss against step, mean of three seeds in a band from least to most. Without standardization and per layer the curves lie on each other; per filter lies above both"}}
members = labels[:8].mean()
figure, axes = plt.subplots(figsize=(7.5, 3.6))
for reading, values in losses.items():
    smooth = np.array([np.convolve(run, np.ones(15) / 15, "valid") for run in values])
    step = np.arange(15, values.shape[1] + 1)
    axes.fill_between(step, smooth.min(0), smooth.max(0), color=COLOURS[reading], alpha=0.25, lw=0)
    axes.plot(step, smooth.mean(0), color=COLOURS[reading], ls="--" if reading == "none" else "-", label=reading)
constant = -(members * np.log(members) + (1 - members) * np.log(1 - members))
axes.axhline(constant, color="black", lw=0.8, ls=":")
axes.text(150, constant + 0.01, "one answer for all pixels", ha="right")
axes.set(
    xlabel="step", ylabel="loss (mean of 15 steps)", title="Three seeds each: mean, and least to most", ylim=(0.25, 0.9)
)
axes.legend()
axes.margins(x=0.02)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "A new section, its true labels and the three networks' probabilities. Per filter membranes come out as thin, broken lines; the other two are alike and show dark regions as well"}}
window = slice(40, 168), slice(40, 168)
figure, row = plt.subplots(1, 5, figsize=(9.6, 2.3))
shown = {"new section": images[10], "truth": labels[10], **pictures}
for axes, (title, picture) in zip(row, shown.items(), strict=True):
    limits = {} if title == "new section" else {"vmin": 0, "vmax": 1}
    axes.imshow(picture[window], **limits)
    axes.set_title(title)
    axes.axis("off")

# %% [markdown]
# **What to see.** The edge detectors draw lines; the other two shade regions as well. Per filter, the network learns
# too, but it is behind the other two with every seed. Between *none* and *per layer* three seeds show no difference
# worth a name. So here one reading does harm and the other does nothing. This is a toy, but the [larger
# study](../reproduction.md#what-came-of-the-papers-claims), on real sections and on brain tumours, saw the same:
# of the pixels <!-- n: reproduction/half width, paper's training/isbi/rows/sdunet_filter/figures/accuracy/mean:.3f -->0.853<!-- /n --> were right per filter,
# as against <!-- n: reproduction/half width, paper's training/isbi/rows/sdunet/figures/accuracy/mean:.3f -->0.897<!-- /n --> per layer
# and <!-- n: reproduction/half width, paper's training/isbi/rows/unet_dw_gn/figures/accuracy/mean:.3f -->0.899<!-- /n --> with GroupNorm alone; and per filter no tumour was
# found at all. tinyseg's default is per layer; `ws="filter"` is the other.
#
# ## Exercises
#
# **1. What survives?** (a) Predict, without computing, what per-filter standardization makes of these kernels, up to
# a factor: a box (nine equal weights), a copy, a Laplacian, a blur plus a Sobel edge. (b) A *standard* filter has
# shape $(C,3,3)$ and its *per filter* runs over all $9\,C$ weights. Build one for $C=2$ that sums to zero and still
# tells a flat image of levels $(1, 0)$ from one of levels $(0, 1)$. (Blur and edge are those of `v`.)

# %%
answer = ...  # (a) four kernels 3×3, in this order, (b) a filter (2, 3, 3)
teaching.check("6.1", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 1"}
# (a) Only the mean is taken out. A box is nothing but mean, and becomes 0 (σ = 0). A copy becomes 8 in the middle and
# -1 around it: a spot detector. Laplace and Sobel have no mean and only change in size. Blur plus edge keeps its
# edge, and its blur turns into a spot.
def cosine(a, b):
    return (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())


box, blur, edge, spot, copy = np.ones((3, 3)), *v
standardized = ops.weight_standardization(np.stack([box, copy, spot, edge, blur + edge]), "filter").data
assert np.allclose(standardized[0], 0)
expected = [np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]), spot, edge, blur - blur.mean() + edge]
assert all(np.isclose(cosine(w, e), 1) for w, e in zip(standardized[1:], expected, strict=True))

# (b) Plus one on the first channel, minus one on the second: a sum of zero over the filter, not over each plane.
# Brightness common to both channels is lost, a difference between channels is not. A depthwise filter has only one
# plane.
compare = np.stack([np.ones((3, 3)), -np.ones((3, 3))])[None]  # (1,2,3,3)
w = ops.weight_standardization(compare, "filter").data
for levels in ((1, 0), (0, 1), (1, 1)):
    flat = np.ones((1, 2, 3, 3)) * np.reshape(levels, (1, 2, 1, 1))
    print(f"levels {levels}: {ops.conv2d(flat, w).data.item():+.2f}")
assert np.isclose(w.sum(), 0)
assert teaching.check("6.1", (standardized[[0, 1, 2, 4]], compare))

# %% [markdown]
# **2. A learning rate that falls by itself.** Train one filter $v$ by plain gradient descent,
# $v\leftarrow v-\eta\,gv$, per filter. Show that $\lVert v\rVert^2$ grows in every step, by exactly
# $\eta^2\lVert gv\rVert^2$ (with $\epsilon=0$). Then start from $10\,v$ instead of $v$: the network computes the
# same. How much smaller is the first change of $w$, if $\eta$ is small?

# %%
answer = ...  # how many times smaller: a number
teaching.check("6.2", answer)

# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 2"}
# gv is orthogonal to 1 and to w, hence to v, which is a mix of the two: Pythagoras. From 10 v the gradient is a
# tenth, and relative to v the step is a hundredth: the direction of v, which is all that w keeps, turns a hundred
# times less. As v only grows, the step shrinks while training goes on.
target = rng.standard_normal((1, 3, 3))


def descend(start, steps, rate=0.5):
    """Minimize |w - target|²/2; returns v² and w after every step, and what Pythagoras says of v²."""
    v, squares, ws, predicted = start.copy(), [], [], []
    for _ in range(steps):
        w = ops.weight_standardization(v, "filter", eps=0.0).data
        gv = gradient(v, "filter", w - target)[1]
        squares.append((v**2).sum())
        ws.append(w)
        predicted.append(squares[-1] + rate**2 * (gv**2).sum())
        v -= rate * gv
    return np.array(squares), np.array(ws), np.array(predicted)


start = rng.standard_normal((1, 3, 3))
squares, ws, predicted = descend(start, 20)
print("v² over the steps:", squares[[0, 1, 2, 5, 10, 19]].round(2))
assert np.allclose(squares[1:], predicted[:-1]) and (np.diff(squares) > 0).all()
turned = [np.linalg.norm(np.diff(descend(scale * start, 2, rate=1e-3)[1], axis=0)) for scale in (1, 10)]
print(f"first change of w, from v and from 10 v: {turned[0] / turned[1]:.1f} times smaller")
assert abs(turned[0] / turned[1] - 100) < 1
assert teaching.check("6.2", turned[0] / turned[1])

# %% [markdown]
# **3. Is it the level?** *Per filter* was behind. Perhaps because filters sum to zero; perhaps for another reason,
# such as what is taken out of the gradients. Test the explanation: give every filter its level back as one trained
# number, $w = \text{standardized}(v) + b$, with $b=0$ at the start, so that the network begins as *per filter*
# exactly. What do you expect of the loss if the explanation is right? (What is checked is the network.)

# %%
answer = ...  # a function of model: gives its standardized filters their levels
teaching.check("6.3", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 3"}
class LevelledConv2d(nn.DepthwiseConv2d):
    """Depthwise convolution, standardized per filter, with a trained level for each filter."""

    def kernel(self):
        return super().kernel() + self.level.reshape((-1, 1, 1))


def with_levels(model):
    for _, layer in model.named_modules():
        if isinstance(layer, nn.DepthwiseConv2d) and layer.ws:
            layer.__class__ = LevelledConv2d  # the same weights, another kernel()
            layer.level = nn.Parameter(np.zeros(len(layer.weight.data), np.float32))
    return model


# One number a filter, and the network learns like the others. Strength is still taken out and the gradients are still
# cut, so those were not the reason: it was the level. An explanation is worth little until it has passed a test that
# it could have failed.
levelled = np.array([train(with_levels(sdunet("per filter", seed)), seed)[-40:] for seed in range(3)]).mean(1)
print("loss, per filter:", last["per filter"].round(3), " with a level:", levelled.round(3))
assert levelled.max() < last["per filter"].min() and teaching.check("6.3", with_levels)
