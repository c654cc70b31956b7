# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 7. U-Net from blocks
#
# To say whether a pixel is membrane one has to know *what* is around it, which takes a wide view, and *where* exactly
# it lies, which takes a sharp one. How can one network have both? At the end you have built U-Net from two kinds of
# blocks, have measured how far an output of it sees, and know from networks with their connections cut what each part
# of the U carries.

# %%
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm
from scipy.stats import rankdata

from tinyseg import Tensor, models, nn, no_grad, ops, optim, prediction, using
from tinyseg.data import em_sections, standardize
from tinyseg.learn import teaching
from tinyseg.learn.teaching import BLUE, GREEN, GREY, ORANGE
from tinyseg.models.unet import Up

teaching.style()

# %% [markdown]
# ## Two blocks
#
# The **encoder** repeats: two 3×3 convolutions with their ReLUs, then a max pool that halves height and width.
# Channels double as pixels become fewer. The **decoder** goes the way back: upsample, convolve 2×2, *join* the result
# with what the encoder had at this resolution (the skip connection), two convolutions. "same" padding keeps all sizes.


# %%
def block(c_in, c_out):
    first, second = (nn.Conv2d(c, c_out, 3, padding="same") for c in (c_in, c_out))
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())


class Decoder(nn.Module):
    def __init__(self, c_in, c_out):
        self.up = nn.Sequential(nn.Upsample(2), nn.Conv2d(c_in, c_out, 2, padding="same"), nn.ReLU())
        self.block = block(2 * c_out, c_out)

    def forward(self, x, skip):
        return self.block(ops.concat([skip, self.up(x)]))  # along the channels


class SmallUNet(nn.Module):
    def __init__(self, c):
        self.encoder = [block(1, c), block(c, 2 * c), block(2 * c, 4 * c)]
        self.decoder = [Decoder(4 * c, 2 * c), Decoder(2 * c, c)]
        self.head = nn.PointwiseConv2d(c, 1)

    def forward(self, x):
        first = self.encoder[0](x)
        second = self.encoder[1](ops.max_pool2d(first, 2))
        bottom = self.encoder[2](ops.max_pool2d(second, 2))
        return self.head(self.decoder[1](self.decoder[0](bottom, second), first))


# %% [markdown]
# That is all of it. tinyseg's [`UNet`](../../tinyseg/models/unet.py) writes the same as a loop over any number of
# levels, and lets one op do a convolution with its ReLU, the upsampling before it and the joining. With the same
# weights, both must give the same logits.

# %%
rng = np.random.default_rng(0)
mine, theirs = SmallUNet(8), models.build("unet", width=8, levels=3).eval()
for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
    assert p.shape == q.shape
    p.data = q.data
image = rng.standard_normal((1, 1, 64, 96), np.float32)
with no_grad():
    assert np.allclose(mine(image).data, theirs(image).data, atol=1e-4)
print(f"{mine.num_parameters():,} parameters, the same logits")

# %% [markdown]
# ## The U, drawn by a network at work
#
# `nn.watch` calls a function after the forward pass of every module. Here it writes down the shapes of what each block
# and each convolution puts out, and the drawing is made of nothing else: the height of a box is the image's height,
# its width the number of channels.

# %%
model = models.build("unet", width=32, levels=5).eval()
names, shapes = {id(module): name for name, module in model.named_modules()}, {}
with nn.watch(lambda module, y: shapes.update({names[id(module)]: y.shape})), no_grad():
    model(np.zeros((1, 1, 256, 256), np.float32))
for name in ("encoder.0", "encoder.1.convs.0", "decoder.0.conv", "decoder.0", "head"):
    print(f"{name:18} {shapes[name]}")

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "The U: boxes become lower and wider from level to level down to the bottleneck, then higher and narrower again. Orange arrows, the skip connections, lead across."}}
levels, gap = len(model.encoder), 60
heights = [shapes[f"encoder.{level}"][2] for level in range(levels)]
middle = [-sum(heights[:level]) - heights[level] / 2 - 65 * level for level in range(levels)]
figure, axes = plt.subplots(figsize=(11, 5.2))
axes.axis("off")


def draw(start, level, channels, colours, text):
    """Draw boxes beside each other from `start` on, the text above; return where the last one ends."""
    at, low = start, middle[level] - heights[level] / 2
    for width, colour in zip(channels, colours, strict=True):
        axes.add_patch(plt.Rectangle((at, low), width, heights[level], color=colour, alpha=0.85, linewidth=0))
        at += width + gap * (colour != ORANGE)  # what is joined touches
    axes.text((start + at - gap) / 2, low + heights[level] + 8, text, ha="center", va="bottom")
    return at - gap


def arrow(begin, end, colour):
    axes.annotate("", end, begin, arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkA": 1, "shrinkB": 1})


at, ends = 0, []
for level, height in enumerate(heights):
    if level:
        arrow((ends[-1] - 16, middle[level - 1] - heights[level - 1] / 2), (at, middle[level]), GREY)
    channels = [shapes[f"encoder.{level}.convs.{k}"][1] for k in range(2)]
    ends.append(draw(at, level, channels, [BLUE, BLUE], f"{channels[-1]}"))
    deepest = level == levels - 1
    place = (at, middle[level] - 50) if deepest else (ends[-1] + 25, middle[level] + 7)
    axes.text(*place, f"{height} × {height}", color=GREY, va="baseline")
    at = ends[-1] + gap + 10
for k, level in enumerate(reversed(range(levels - 1))):
    skip, up = shapes[f"encoder.{level}"][1], shapes[f"decoder.{k}.conv"][1]
    channels = [skip, up, *(shapes[f"decoder.{k}.block.convs.{i}"][1] for i in range(2))]
    arrow((at - gap, middle[level + 1]), (at + skip + up / 2, middle[level] - heights[level] / 2), GREEN)
    arrow((ends[level], middle[level]), (at, middle[level]), ORANGE)
    at = draw(at, level, channels, [ORANGE, GREEN, BLUE, BLUE], f"{skip} + {up} → {channels[-1]}") + gap + 10
axes.text(at / 2, middle[0] + 8, "skip: copied and joined", color=ORANGE, ha="center")
axes.text(ends[0] - 40, middle[1] + 80, "max pool", color=GREY, ha="right")
axes.text(at - 150, middle[2] + 60, "upsample,\nconvolve 2 × 2", color=GREEN, ha="right", va="center")
axes.text(0, middle[-1], "blue: convolution 3 × 3, ReLU\nabove a block: channels", va="center", color=BLUE)
axes.set(xlim=(-130, at), ylim=(middle[-1] - 60, 40), title="U-Net of width 32, as it computes an image of 256 × 256")
plt.show()

# %% [markdown]
# **What to see.** At each step down the image has half the height and half the width, a quarter of the pixels, and
# twice the channels: a box half as high and twice as wide. The way across is short at
# the top and long around the bottom: a value can reach the output through one level or through five.
#
# ## How far an output sees
#
# The *receptive field* of an output is the set of inputs on which it depends. A 3×3 convolution at level $l$ reaches
# $2^l$ pixels further to each side, a 2×2 pooling half a step. Adding up along the longest way through the U gives a
# radius that no output can exceed; the model knows it as `receptive_radius`.
#
# Which inputs count *in fact*, and how much? The gradient of one output with respect to the input says so. Let the
# cotangent be 1 at the middle pixel and 0 elsewhere; then `x.grad` is that picture. Its absolute value is averaged
# over eight random images, because each image switches other ReLUs on. (Winograd's method is switched off: its
# rounding errors would put tiny numbers where zeros belong.)


# %%
def influence(model, side=256, images=8, seed=0):
    """Mean |gradient| of the middle output with respect to each input pixel, (side, side)."""
    x = Tensor(np.random.default_rng(seed).standard_normal((images, 1, side, side), np.float32), requires_grad=True)
    with using(winograd=False):
        y = model.eval()(x)
        gy = np.zeros_like(y.data)
        gy[:, :, side // 2, side // 2] = 1
        y.backward(gy)
    return abs(x.grad).mean(axis=(0, 1))


def effective_side(g, part=0.95):
    """Side of the smallest square about the middle that holds `part` of the sum."""
    distance = abs(np.arange(len(g)) - len(g) // 2)
    radius = np.maximum(distance[:, None], distance)
    return next(2 * r + 1 for r in range(len(g)) if g[radius <= r].sum() >= part * g.sum())


fields = {}
for levels in (2, 3, 4, 5):
    model = models.build("unet", width=8, levels=levels, dropout=0, seed=1)
    g, radius = fields[levels] = influence(model), model.receptive_radius
    rows = np.flatnonzero(g.any(axis=1)) - len(g) // 2
    assert max(abs(rows)) <= radius  # nothing at all is seen from farther away
    print(f"{levels - 1} poolings: bound ±{radius} pixels, seen: {rows.min()} to {rows.max()}")

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Four maps of the influence of input pixels on the middle output, on a logarithmic scale: a bright centre that fades outwards, larger with every pooling, inside of the theoretical box."}}
figure, grid = plt.subplots(1, 4, figsize=(11, 3.3), sharey=True)
for axes, (levels, (g, radius)) in zip(grid, fields.items(), strict=True):
    half, side = len(g) // 2, effective_side(g)
    shown = axes.imshow(g / g.max() + 1e-12, norm=LogNorm(1e-6, 1), cmap="magma", extent=(-half, half, half, -half))
    for r, colour in ((radius, "white"), (side // 2, "#56B4E9")):
        axes.add_patch(plt.Rectangle((-r, -r), 2 * r, 2 * r, fill=False, edgecolor=colour, linewidth=1.4))
    axes.set_title(f"{levels - 1} pooling{'s' * (levels > 2)}: bound {2 * radius + 1}\n95 % in {side} pixels")
    axes.set(xlabel="pixels", xticks=(-100, 0, 100))
figure.colorbar(shown, ax=grid, label="influence, relative", shrink=0.8)
plt.show()

# %% [markdown]
# **What to see.** Each pooling more than doubles the view. The middle pixel sees less than the bound, and not
# equally far to both sides: it is the first pixel of its cell at every level, and "same" puts the extra pixel of a 2 × 2
# kernel at the bottom and right. The bound is that of the worst placed pixel. Nor is the view a window with equal rights:
# nearly all of the influence comes from a middle part (blue), and the deeper the network, the smaller this part is.
# Many ways lead through the U to a near pixel, and few to one at the edge. This is the network before training.
#
# ## What skips carry
#
# Two networks, the same weights to begin with, the same batches in the same order. One is a U-Net; in the other each
# skip is replaced by zeros, so that everything must pass through the bottom. The task is to find the membranes in
# [synthetic EM sections](../../tinyseg/data/synthetic.py); two sections are kept for testing.

# %%
sections, inside = em_sections(num_sections=8, size=256, seed=1)
x, y = standardize(sections)[:, None], inside[:, None].astype(np.float32)  # y: 1 inside of a cell, 0 on membrane


class WithoutSkip(Up):
    def forward(self, x, skip):
        return self.block(np.zeros_like(skip.data), self.conv(x))


def change(up, cls):
    up.__class__ = cls  # same weights, another forward


def train(model, steps=150, seed=1):
    rng, optimizer, losses = np.random.default_rng(seed), optim.Adam(model.parameters(), lr=2e-3), []
    model.train()
    for _ in range(steps):
        where = rng.integers(0, (6, 161, 161), (4, 3))  # section, row and column
        xs, ys = (np.stack([a[s, :, i : i + 96, j : j + 96] for s, i, j in where]) for a in (x, y))
        loss = ops.binary_cross_entropy_with_logits(model(xs), ys)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


networks = {name: models.build("unet", width=8, levels=4, dropout=0, seed=1) for name in ("with skips", "without")}
for up in networks["without"].decoder:
    change(up, WithoutSkip)
losses = {"with skips": train(networks["with skips"])}

# %%
losses["without"] = train(networks["without"])

# %% [markdown]
# A score that needs no threshold: the probability that a membrane pixel, drawn at random, gets a higher membrane score
# than a random pixel inside a cell (the area under the ROC curve; 0.5 is chance).


# %%
def score(model):
    """Membrane probability of the two test sections, and the area under the ROC curve."""
    p = 1 - prediction.predict(model, x[6:])
    membrane = y[6:] == 0
    rank, n = rankdata(p)[membrane.ravel()], membrane.sum()
    return p[0, 0], float((rank.sum() - n * (n + 1) / 2) / (n * (membrane.size - n)))


found = {name: score(model) for name, model in networks.items()}
assert found["with skips"][1] > found["without"][1] + 0.01

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Two loss curves, the one without skips above the other; beside them a section, its membranes, and the predictions of both networks: fine lines with skips, thick blurred ones without."}}
figure, grid = plt.subplots(1, 5, figsize=(11, 2.9), width_ratios=(1.6, 1, 1, 1, 1))
for (name, values), colour, away in zip(losses.items(), (BLUE, ORANGE), (-20, 12), strict=True):
    smooth = np.convolve(values, np.ones(15) / 15, "valid")
    grid[0].plot(np.arange(len(smooth)) + 7, smooth, color=colour)
    grid[0].annotate(name, (100, smooth[93]), (0, away), textcoords="offset points", color=colour, ha="center")
grid[0].set(xlabel="step", ylabel="cross-entropy", title="Loss (mean of 15 steps)", ylim=(0, None))
part = slice(0, 128), slice(0, 128)
pictures = {"a test section": x[6, 0], "membranes": y[6, 0]}
pictures |= {f"{name}: {auc:.2f}": -p for name, (p, auc) in found.items()}
for axes, (title, picture) in zip(grid[1:], pictures.items(), strict=True):
    axes.imshow(picture[part])
    axes.set_title(title)
    axes.axis("off")
plt.show()

# %% [markdown]
# **What to see.** Without skips the network finds *that* there are membranes, and cannot draw them: at the bottom one
# pixel stands for 8 × 8, and where in these 64 a line runs would have to be encoded in channels. With skips the fine
# levels say where the lines are, and the deep ones need only say which of them matter.
#
# ### One at a time
#
# Now the trained U-Net, one connection cut at a time: each channel of it is replaced by its mean over the image, which
# tells how much there is of a feature, but not where. First the skips; then, in the lower row of the figure, what
# comes up from below.


# %%
def flat(a):
    return np.broadcast_to(a.data.mean(axis=(2, 3), keepdims=True), a.shape).copy()


class CutSkip(Up):
    def forward(self, x, skip):
        return self.block(flat(skip), self.conv(x))


class CutBelow(Up):
    def forward(self, x, skip):
        return self.block(skip, flat(self.conv(x)))


cuts = {}
for cls in (CutSkip, CutBelow):
    for level, up in enumerate(reversed(networks["with skips"].decoder)):
        change(up, cls)
        cuts[cls, level] = score(networks["with skips"])
        change(up, Up)
assert cuts[CutSkip, 0][1] < cuts[CutSkip, 2][1] and cuts[CutSkip, 0][1] < found["with skips"][1] - 0.01

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Predictions with one connection cut: the upper row without one of the three skips, the lower row without what comes from below each level."}}
figure, grid = plt.subplots(2, 4, figsize=(9, 4.9))
for row, (cls, what) in zip(grid, ((CutSkip, "skip {} cut"), (CutBelow, "below {} cut")), strict=True):
    for level, axes in enumerate(row[1:]):
        p, auc = cuts[cls, level]
        axes.imshow(-p[part])
        axes.set_title(f"{what.format(level)}: {auc:.2f}")
for axes, picture, title in zip(grid[:, 0], (-found["with skips"][0], y[6, 0]), ("whole", "membranes"), strict=True):
    axes.imshow(picture[part])
    axes.set_title(f"whole: {found['with skips'][1]:.2f}" if title == "whole" else title)
for axes in grid.ravel():
    axes.axis("off")
plt.show()

# %% [markdown]
# **What to see.** (Each picture has its own scale of grey.) The topmost skip, of level 0, carries the sharp position
# of the lines; cutting the deepest costs much less. In the lower row, what comes from below level 0 decides *which*
# dark lines are membranes: without it the network is a filter of 9 × 9 pixels, and organelles are as dark as
# membranes. After so short a training the levels further down do little; they pay with longer training and larger
# structures.
#
# ## Sizes, padding, checkerboards
#
# Each pooling halves the size, so height and width must be multiples of $2^{\text{levels}-1}$. The model says so;
# [`prediction`](../../tinyseg/prediction/tiles.py) pads by mirroring at the bottom and right, and crops the result.

# %%
model = networks["with skips"]
try:
    model(x[6:7, :, :250, :250])
except ValueError as error:
    print(error)
with no_grad():
    full = model.eval()(x[6:7]).data[0, 0, :250, :250]
padded = prediction.predict_logits(model, x[6:7, :, :250, :250])[0, 0]
difference = abs(full - padded)
reach = 250 - model.receptive_radius
assert difference[:reach, :reach].max() < 1e-3 < difference.max()

# %% [markdown]
# The other trap is the way up. A transposed convolution with stride 2 adds stamps of its kernel; where 3×3 stamps
# overlap, an output gets one, two or four contributions, and even a constant image becomes a checkerboard. Kernels of
# 2×2 do not overlap, yet give each of the four pixels of a stamp a weight of its own. U-Net here upsamples and then
# convolves, so that every pixel is made in the same way.

# %%
ones = np.ones((1, 1, 7, 7), np.float32)
kernels = {k: rng.random((1, 1, k, k), np.float32) for k in (2, 3)}
with no_grad():
    ways_up = {
        "transposed, 3×3": ops.conv_transpose2d(ones, kernels[3], stride=2).data,
        "transposed, 2×2": ops.conv_transpose2d(ones, kernels[2], stride=2).data,
        "upsample, then 2×2": ops.conv2d(ops.upsample(ones, 2), kernels[2], padding="same").data,
    }
assert np.ptp(ways_up["upsample, then 2×2"][0, 0, :-1, :-1]) < 1e-6  # constant, but for the padded row and column

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Left: the error of mirrored padding is confined to the right and lower border. Right: a constant image after three ways of upsampling, two with a checkerboard, the third even."}}
figure, grid = plt.subplots(1, 4, figsize=(11, 2.9), width_ratios=(1.25, 1, 1, 1))
shown = grid[0].imshow(difference + 1e-9, norm=LogNorm(1e-5, 1), cmap="magma")
figure.colorbar(shown, ax=grid[0], label="|difference of logits|")
grid[0].axvline(reach, color="white", linewidth=1)
grid[0].axhline(reach, color="white", linewidth=1)
grid[0].set_title("250² mirrored, or cut from 256²")
for axes, (name, picture) in zip(grid[1:], ways_up.items(), strict=True):
    axes.imshow(picture[0, 0], vmin=0)
    axes.set_title(name)
    axes.axis("off")
plt.show()

# %% [markdown]
# **What to see.** Left: the six rows and columns that had to be invented change the logits near them, and none beyond
# the receptive radius (white lines). Right: one constant image, made twice as large in three ways. Only the last is
# even, up to a row and a column at the end: a 2×2 kernel cannot be centred, and "same" puts the missing zeros at the
# bottom and right.
#
# ## Exercises
#
# **1. Count the reach.** Find a closed formula for the bound on the radius of the receptive field of a U-Net with $b$ poolings and
# two convolutions a block: how far reach the convolutions on the way down, the poolings, the decoder? Test it on the
# models above. How many poolings must a network have whose middle output is to see all of an image of 512 × 512?

# %%
answer = ...  # the radius, a function of b; the number of poolings
teaching.check("7.1", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 1"}
def reach_of(b):
    down = sum(2 * 2**level for level in range(b + 1))  # two convolutions at each of the b + 1 levels
    pools = sum(2 ** (level - 1) for level in range(1, b + 1))
    up = sum(3 * 2**level for level in range(b))  # the 2 x 2 kernel on upsampled pixels, and two convolutions
    return down + pools + up


# The sums are geometric: 2 (2·2^b - 1) + (2^b - 1) + 3 (2^b - 1) = 8·2^b - 6. The bound only excludes five poolings;
# that six suffice shows in the gradient, as above: the middle then sees from -382 to 445.
assert all(reach_of(levels - 1) == 8 * 2 ** (levels - 1) - 6 == radius for levels, (_, radius) in fields.items())
needed = next(b for b in range(20) if reach_of(b) >= 256)
assert needed == 6 and teaching.check("7.1", (reach_of, needed))
print(f"{needed} poolings; five reach at most {reach_of(5)} pixels, and 256 are needed")

# %% [markdown]
# **2. Short ways.** What part of the influence on an output comes from the 5 × 5 pixels around it? Compare the two
# networks, before and after training. What have skips to do with it?

# %%
answer = ...  # that part, from 0 to 1: a function of the model
teaching.check("7.2", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 2"}
def share_of_middle(model):
    g = influence(model)
    middle = len(g) // 2
    return float(g[middle - 2 : middle + 3, middle - 2 : middle + 3].sum() / g.sum())


assert teaching.check("7.2", share_of_middle)

fresh = {name: models.build("unet", width=8, levels=4, dropout=0, seed=1) for name in networks}
for up in fresh["without"].decoder:
    change(up, WithoutSkip)
# The topmost skip is a way of four convolutions, which can only see near pixels. Without skips, every way goes through
# the bottom, where one pixel stands for 8 x 8 of the image.
for when, pair in (("before", fresh), ("after", networks)):
    shares = {name: share_of_middle(model) for name, model in pair.items()}
    assert shares["with skips"] > 1.3 * shares["without"]
    print(f"{when} training: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))

# %% [markdown]
# **3. Join or add?** Some networks *add* the skip to what comes from below. Show, with numbers, that a convolution of
# a sum is a special case of the convolution of what is joined. What does joining cost: how many weights of the
# original U-Net, `models.build("unet")`, would addition save?

# %%
answer = ...  # the kernel for what is joined, a function of w; the weights saved
teaching.check("7.3", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 3"}
def kernel_for_joined(w):
    return np.concatenate([w, w], axis=1)


skip, below = rng.standard_normal((2, 1, 8, 32, 32), np.float32)
w = rng.standard_normal((4, 8, 3, 3), np.float32)
with no_grad():
    added = ops.conv2d(skip + below, w, padding="same").data
    both = ops.concat([skip, below])
    joined = ops.conv2d(both, kernel_for_joined(w), padding="same").data
# A convolution is linear: w * (s + b) = w * s + w * b. Joined, both may have weights of their own; added, they share
# them. So joining can do all that adding can, and can tell from which side a feature came.
assert np.allclose(added, joined, atol=1e-3)
original = models.build("unet")
saved = sum(up.block.convs[0].weight.size // 2 for up in original.decoder)
assert saved == 9 * sum(c * c for c in (64, 128, 256, 512))
assert teaching.check("7.3", (kernel_for_joined, saved))
print(f"addition saves {saved:,} of {original.num_parameters():,} weights, {saved / original.num_parameters():.0%}")
