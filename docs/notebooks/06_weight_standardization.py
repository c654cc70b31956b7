# %% [markdown]
# # 6. Weight standardization: two readings of one equation
#
# SD-UNet standardizes its depthwise kernels: mean 0, deviation 1. Mean of *what*? The paper's Equation 5 does not say,
# and there are two ways to read it. What does each make of a kernel, and how does a small SD-UNet learn with either?
#
# **Afterwards you can** say what each reading leaves of a kernel, what such a kernel can see of an image, which
# gradients come back, and which sentence was missing in the paper. **Time:** half an hour to read, as much again with
# the exercises; it runs within two minutes.

# %%
import numpy as np

from tinyseg import Tensor, check_grads, metrics, models, nn, no_grad, ops, optim
from tinyseg.data import em_sections, standardize
from tinyseg.learn import teaching
from tinyseg.learn.figures import notebook_06 as draw

teaching.style()
teaching.use_one_core()  # for images this small, waking a second core costs more
READINGS = {"none": None, "per layer": "layer", "per filter": "filter"}

# %% [markdown]
# ## The equation and its two readings
#
# Trained is $v$; convolved is $w$, where the constant gain $a$ is 1 here, and $1/\sqrt 9$ in SD-UNet's layers
# ([derivation](../ops/weight_standardization.md)):
#
# $$ w_i=\frac{a\,(v_i-\mu)}{\sigma+\epsilon}, \qquad \mu=\frac1m\sum_i v_i,\quad \sigma^2=\frac1m\sum_i(v_i-\mu)^2. $$
#
# A depthwise layer has one 3×3 filter for each of its $C$ channels, an array `(C, 3, 3)`. The sums may run
#
# - *per filter*: over the 9 weights of each filter by itself;
# - *per layer*: over all $9\,C$ weights. (The usual Keras code does this to a depthwise kernel; the paper used Keras.)
#
# Take a layer of four filters that everybody knows, and standardize it both ways.

# %%
blur = np.array([[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]])  # weighted mean
edge = np.array([[-0.5, 0, 0.5], [-1, 0, 1], [-0.5, 0, 0.5]])  # Sobel
spot = np.array([[0, -0.25, 0], [-0.25, 1, -0.25], [0, -0.25, 0]])  # Laplace
copy = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]])  # the pixel itself
v, names = np.stack([blur, edge, spot, copy]), ("blur", "edge", "spot", "copy")

kernels = {"none": v}
for reading in ("per layer", "per filter"):
    kernels[reading] = ops.weight_standardization(v, READINGS[reading]).data
sums = {reading: w.sum((1, 2)) for reading, w in kernels.items()}
assert np.allclose(sums["per filter"], 0) and np.isclose(sums["per layer"].sum(), 0)
assert abs(sums["per layer"]).min() > 0.1  # no single one
draw.kernels(names, kernels)

# %% [markdown]
# **What to see.** Per layer, one number is subtracted from all: filters move down together and keep their differences,
# up to one common factor. Per filter, each loses its own mean. The edge and the spot had none to lose. But the blur is
# no blur any more and the copy no copy: both have become spot detectors.
#
# ## What a filter hears
#
# Convolution multiplies every frequency of the image by the filter's Fourier transform. Its value in the middle, at
# frequency 0, is the sum of the weights: what the filter does to a flat region.

# %%
heard = {}  # magnitude of the transfer functions, frequency 0 in the middle
for reading, w in kernels.items():
    transform = np.fft.fft2(w, s=(64, 64))
    heard[reading] = abs(np.fft.fftshift(transform, axes=(1, 2)))
    assert np.allclose(heard[reading][:, 32, 32], abs(sums[reading]))
draw.responses(names, heard)

# %% [markdown]
# **What to see** (white: heard loudest, black: not at all). Per filter, the bottom row, the middle is black in all four
# pictures, and no training can light it: whatever $v$ is, $w$ sums to zero.
#
# ## Brightness
#
# So a constant added to the image vanishes. Here is a section of tissue, its right half made brighter, seen by the blur
# filter in each reading.

# %%
images, labels = em_sections(12, 256, seed=0)
images = standardize(images)
section = images[0, 60:156, 60:156].astype(np.float64)
brighter = section + 1.5 * (np.arange(96) >= 48)


def blurred(image, reading):
    return ops.depthwise_conv2d(image[None, None], kernels[reading][:1]).data[0, 0]


for reading in READINGS:
    change = (blurred(section + 1.5, reading) - blurred(section, reading)).mean()
    factor = sums[reading][0]
    print(
        f"{reading:10}: 1.5 more changes outputs by {change:6.3f} = 1.5 × {factor:.3f}"
    )
    assert np.isclose(change, 1.5 * factor)
draw.brightness(brighter, {r: blurred(brighter, r) for r in READINGS})

# %% [markdown]
# **What to see.** Per filter, the step survives as a line: an edge detector sees where brightness changes, not what it
# is. The layer behind it cannot bring back what is gone. Here is a separable layer on flat features of three levels:

# %%
for per in ("layer", "filter"):
    layer = nn.SeparableConv2d(4, 3, 3, ws=per, rng=1)
    flat = [np.full((1, 4, 5, 5), level, np.float32) for level in (0, 1, 5)]
    answers = np.array([layer(x).data[0, :, 1, 1] for x in flat])
    for level, answer in zip((0, 1, 5), answers.round(2) + 0.0, strict=True):
        print(f"per {per:6}, all channels at level {level}: {answer}")
    assert np.allclose(answers[0], answers[2], atol=1e-5) == (per == "filter")

# %% [markdown]
# Membranes are lines, and a network of edge detectors finds lines. A large tumour is a region: what says "inside" there
# is the level.
#
# (A *standard* filter is less blind. It sums over all its input channels, and a sum of zero over all of them still
# compares one with another: exercise 1.)
#
# ## Gradients
#
# As in [BatchNorm](05_normalization.py), what changes nothing gets no gradient: of $gw$ the parts along $\mathbf 1$ and
# along $w$ are taken out, and the rest is multiplied by $a/\sigma$,
#
# $$ gv=\frac a{\sigma}\Big(gw-\operatorname{mean}(gw)\Big)
#      -\frac{w\,\operatorname{mean}(gw\cdot w)}{a\,\sigma}\qquad(\epsilon=0). $$
#
# Here the readings differ once more: *per layer*, two directions are lost out of $9\,C$; *per filter*, two out of 9 in
# every filter.


# %%
def gradient(v, per, gw):
    """Return w and the gradient of v for the gradient gw of w."""
    v = Tensor(v, requires_grad=True)
    w = ops.weight_standardization(v, per, eps=0.0)
    w.backward(gw)
    return w.data, v.grad


def cosine(a, b):
    """Cosine between a and b, filter by filter."""
    return (a * b).sum((1, 2)) / np.sqrt((a**2).sum((1, 2)) * (b**2).sum((1, 2)))


rng = np.random.default_rng(0)
many = rng.standard_normal((64, 3, 3)) + 0.5 * rng.standard_normal((64, 1, 1))
gw = rng.standard_normal((64, 3, 3))
cosines = {}
for per in ("layer", "filter"):
    w, gv = gradient(many, per, gw)
    cosines[per] = cosine(gv, np.ones_like(gv)), cosine(gv, w)
    assert abs(gv.sum()) < 1e-10 and abs((gv * w).sum()) < 1e-10  # of the whole layer
    assert np.allclose(gradient(many / 10, per, gw)[1], 10 * gv)  # 10 times as large
    check_grads(lambda v, per=per: ops.weight_standardization(v, per), many)
assert np.abs(cosines["filter"]).max() < 1e-10
draw.cosines(cosines)

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
def sdunet(reading, seed):
    options = {"width": 8, "levels": 3, "dropout": 0.0, "seed": seed}
    return models.build("sdunet", ws=READINGS[reading], **options)


def train(model, seed, steps=120):
    """Adam on crops of the first eight sections; returns the loss of every step."""
    rng, losses = np.random.default_rng(seed), []
    optimizer = optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(steps):
        k, i, j = rng.integers((8, 192, 192), size=(4, 3)).T[:, :, None, None]
        window = k, i + np.arange(64)[:, None], j + np.arange(64)  # (4,64,64)
        loss = ops.binary_cross_entropy_with_logits(
            model(images[window][:, None]), labels[window][:, None]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


losses, pictures = {}, {}
for reading in READINGS:
    iou, trained = [], [sdunet(reading, seed) for seed in range(3)]
    losses[reading] = np.array([train(model, k) for k, model in enumerate(trained)])
    for model in trained:
        with no_grad():  # the last two sections: training saw neither, nor a neighbour
            logits = model.eval()(images[10:, None])
        probabilities = ops.sigmoid(logits).data[:, 0]
        scores = metrics.BinaryScores()
        scores.update(probabilities, labels[10:])
        iou.append(scores.compute()["membrane_iou"])
        pictures.setdefault(reading, probabilities[0])  # of the first seed
    print(f"{reading:10}: membrane IoU", np.round(iou, 2), end="; ")
    print("loss of the last 40 steps", losses[reading][:, -40:].mean(1).round(3))

last = {reading: values[:, -40:].mean(1) for reading, values in losses.items()}
none, per_layer, per_filter = last.values()
assert per_filter.min() > max(none.max(), per_layer.max())
difference = abs(per_layer.mean() - none.mean())
assert difference < 0.5 * (per_filter.mean() - none.mean())
share = labels[:8].mean()
constant = -(share * np.log(share) + (1 - share) * np.log(1 - share))
draw.losses(losses, constant)

# %%
part = slice(40, 168), slice(40, 168)
shown = {reading: picture[part] for reading, picture in pictures.items()}
draw.predictions(images[10][part], labels[10][part], shown)

# %% [markdown]
# **What to see.** The edge detectors draw lines; the other two shade regions as well. Per filter, the network learns
# too, but it is behind the other two with every seed. Between *none* and *per layer* three seeds show no difference
# worth a name. So here one reading does harm and the other does nothing. This is a toy, but the [larger
# study](../reproduction.md#what-came-of-the-papers-claims), on real sections and on brain tumours, saw the same:
# of the pixels <!-- n: reproduction/half width, paper's training/isbi/rows/sdunet_filter/figures/accuracy/mean:.3f -->0.853<!-- /n --> were right per filter,
# as against <!-- n: reproduction/half width, paper's training/isbi/rows/sdunet/figures/accuracy/mean:.3f -->0.897<!-- /n --> per layer
# and <!-- n: reproduction/half width, paper's training/isbi/rows/unet_dw_gn/figures/accuracy/mean:.3f -->0.899<!-- /n --> without standardization; and per filter no tumour was
# found at all. tinyseg's default is per layer; `ws="filter"` is the other.
#
# ## Exercises
#
# **1. What survives?** (a) Predict, without computing, what per-filter standardization makes of these kernels, up to a
# factor: a box (nine equal weights), a copy, a Laplacian, a blur plus a Sobel edge. (b) A *standard* filter has shape
# $(C,3,3)$ and its *per filter* runs over all $9\,C$ weights. Build one for $C=2$ that sums to zero and still tells a
# flat image of levels $(1, 0)$ from one of levels $(0, 1)$. (Blur, edge and Laplacian are `blur`, `edge` and `spot`.)

# %%
answer = ...  # a pair: (a) four kernels 3×3, in this order, (b) a filter (2, 3, 3)
teaching.check("6.1", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 1"}
survive, compare = teaching.solution("6.1")(blur, edge)
given = np.stack([np.ones((3, 3)), copy, spot, blur + edge])
w = ops.weight_standardization(given, "filter").data
assert np.allclose(w[0], 0) and np.allclose(cosine(w[1:], np.stack(survive[1:])), 1)
w = ops.weight_standardization(compare[None], "filter").data
for levels in ((1, 0), (0, 1), (1, 1)):
    flat = np.ones((1, 2, 3, 3)) * np.reshape(levels, (1, 2, 1, 1))
    print(f"levels {levels}: {round(ops.conv2d(flat, w).data.item(), 2) + 0.0}")
assert teaching.check("6.1", (survive, compare))

# %% [markdown]
# **2. A learning rate that falls by itself.** Train one filter $v$ by plain gradient descent, $v\leftarrow v-\eta\,gv$,
# per filter. Show that $\lVert v\rVert^2$ grows in every step, by exactly $\eta^2\lVert gv\rVert^2$ (with
# $\epsilon=0$). Then start from $10\,v$ instead of $v$: the network computes the same. How much smaller is the first
# change of $w$, if $\eta$ is small?

# %%
answer = ...  # how many times smaller: a number
teaching.check("6.2", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 2"}
times, squares = teaching.solution("6.2")(*rng.standard_normal((2, 1, 3, 3)))
print("|v|² over the steps:", squares[[0, 1, 2, 5, 10, 20]].round(2))
print(f"first change of w, from 10 v: {times:.1f} times smaller than from v")
assert teaching.check("6.2", times)

# %% [markdown]
# **3. Is it the level?** *Per filter* was behind. Perhaps because filters sum to zero; perhaps for another reason, such
# as what is taken out of the gradients. Test the explanation: give every filter its level back as one trained number,
# $w = \text{standardized}(v) + b$, with $b=0$ at the start, so that the network begins as *per filter* exactly. What do
# you expect of the loss if the explanation is right? (A standardized layer is an `nn.DepthwiseConv2d` with `ws` set; it
# convolves with what its method `kernel()` returns. What is checked is the network.)

# %%
answer = ...  # a function of model: gives its standardized filters their levels
teaching.check("6.3", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 3"}
with_levels = teaching.solution("6.3")
models_with_levels = [with_levels(sdunet("per filter", seed)) for seed in range(3)]
runs = [train(model, seed) for seed, model in enumerate(models_with_levels)]
levelled = np.array(runs)[:, -40:].mean(1)
print(f"loss per filter {per_filter.round(3)}, with a level {levelled.round(3)}")
assert levelled.max() < per_filter.min()
assert teaching.check("6.3", with_levels)
