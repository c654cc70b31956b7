# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2. What a convolution costs
#
# SD-UNet has an eighth of U-Net's weights because it replaces one operation, the standard convolution, by two cheaper
# ones. How can that be so much cheaper, and what is given up? At the end you can count the parameters and
# multiplications of a convolutional layer in your head, say for which layers the replacement pays and for which it does
# not, and name what the cheap layer cannot compute.

# %%
import numpy as np
from matplotlib import pyplot as plt

from tinyseg import models, nn, ops
from tinyseg.data import em_sections, standardize
from tinyseg.learn import teaching
from tinyseg.learn.teaching import BLUE, GREY, ORANGE, PURPLE
from tinyseg.report import profile

teaching.style()
rng = np.random.default_rng(0)

# %% [markdown]
# ## One number of the output
#
# A standard convolution has a kernel of $k \times k$ taps for every pair of an output channel $n$ and an input channel
# $c$. One number of the output is a sum over all taps of all input channels ([derivation](../ops/conv2d.md)):
#
# $$ y[n,i,j] = \sum_{c=1}^{C}\;\sum_{u,v=1}^{k} w[n,c,u,v]\; x[c,\,i+u,\,j+v] $$
#
# That is $k \cdot k \cdot C$ multiplications, each followed by an addition: as many *multiply-adds*.

# %%
C, K, k = 3, 3, 3  # channels in, channels out, taps a side
x = rng.normal(size=(1, C, 6, 6))
w = rng.normal(size=(K, C, k, k))

by_hand = np.sum(w[2] * x[0, :, 1 : 1 + k, 3 : 3 + k])  # output channel 2, row 1, column 3
assert np.isclose(by_hand, ops.conv2d(x, w).data[0, 2, 1, 3])
print("one number of the output takes", w[2].size, "multiply-adds")

# %% [markdown]
# ## Two jobs, done one at a time
#
# The sum does two things at once: it looks *around* a pixel ($u, v$), and it mixes *channels* ($c$). A depthwise
# separable convolution does one after the other:
#
# $$ \underbrace{d[c,i,j] = \sum_{u,v} w_d[c,u,v]\; x[c,i+u,j+v]}_{\text{depthwise: around, each channel for itself}}
# \qquad
# \underbrace{y[n,i,j] = \sum_c w_p[n,c]\; d[c,i,j]}_{\text{pointwise: across channels, each pixel for itself}} $$
#
# All of these are linear, so each is a matrix that takes the pixels of all input channels to those of all output
# channels. To see a matrix, feed it unit vectors: an image with a single 1 gives one column.

# %%
w_d, w_p = rng.normal(size=(C, k, k)), rng.normal(size=(K, C))


def matrix(convolution, size):
    images = np.eye(C * size * size).reshape(-1, C, size, size)  # one image for each column
    return convolution(images).data.reshape(len(images), -1).T


standard = matrix(lambda images: ops.conv2d(images, w), size=6)
depthwise = matrix(lambda images: ops.depthwise_conv2d(images, w_d), size=6)
pointwise = matrix(lambda images: ops.pointwise_conv2d(images, w_p), size=4)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Three matrices as pictures. Standard: nine blocks, each with bands. Depthwise: bands only in the three diagonal blocks. Pointwise: nine blocks, each with one diagonal line."}}
figure, axes = plt.subplots(1, 3, figsize=(8.6, 2.1), width_ratios=(108, 108, 48))
matrices = {"Standard": standard, "Depthwise": depthwise, "Pointwise": pointwise}
for ax, (name, m) in zip(axes, matrices.items(), strict=True):
    ax.imshow(np.where(m == 0, np.nan, m), cmap="PuOr", vmin=-2.5, vmax=2.5)
    ax.set(title=f"{name}: {np.count_nonzero(m)}", xticks=[], yticks=[], xlabel="3 channels in")
    for edge in (1, 2):
        ax.axvline(edge * m.shape[1] / 3 - 0.5, color=GREY, linewidth=0.8)
        ax.axhline(edge * m.shape[0] / 3 - 0.5, color=GREY, linewidth=0.8)
    ax.spines[["top", "right"]].set_visible(True)
axes[0].set_ylabel("3 channels out")
plt.show()

# %% [markdown]
# **What to see** (purple: positive, orange: negative). Each block leads from one input channel to one output channel. The standard convolution fills every
# block with bands, one for each tap. Depthwise keeps the bands but only the blocks of a channel with itself; pointwise
# has every block, but only one diagonal in it. Each number that is not zero, counted in the titles, is one
# multiply-add. The product of the two matrices fills all places that the standard one fills, so the separable
# convolution *sees* as much with fewer numbers:

# %%
both = pointwise @ depthwise
assert np.array_equal(both != 0, standard != 0)
assert np.allclose(both, matrix(lambda images: ops.separable_conv2d(images, w_d, w_p), size=6))
print(f"standard {np.count_nonzero(standard)}, separable {np.count_nonzero(depthwise) + np.count_nonzero(pointwise)}")

# %% [markdown]
# ## Equations 1 and 2
#
# Count the same for an output of $H \times W$ pixels. These are Equations 1 and 2 of the [paper](../reproduction.md)
# (which writes $D_k$ for $k$, $M$ for $C$, $N$ for $K$, $D_f$ for $H$ and $W$), and without the factor $HW$ they count
# the weights:
#
# $$ \text{standard:}\;\; k^2\,C\,K\,H\,W \qquad\qquad \text{separable:}\;\; k^2\,C\,H\,W + C\,K\,H\,W $$
#
# $$ \frac{\text{separable}}{\text{standard}} = \frac{1}{K} + \frac{1}{k^2} $$
#
# [`tinyseg.report.profile`](../../tinyseg/report/profile/trace.py) counts what a layer does while it runs. Both should agree:

# %%
C, K, H, W = 64, 128, 32, 32


def count(layer):
    found = profile.summary(layer, (1, C, H, W), show=False)
    return sum(p.size for p in layer.parameters() if p.data.ndim > 1), found.multiply_adds  # biases left out


for k in (1, 3, 5, 7):
    dense = count(nn.Conv2d(C, K, k, padding="same"))
    cheap = count(nn.SeparableConv2d(C, K, k, padding="same"))
    assert dense == (k * k * C * K, k * k * C * K * H * W)  # Equation 1
    assert cheap == (k * k * C + C * K, k * k * C * H * W + C * K * H * W)  # Equation 2
    assert np.isclose(cheap[1] / dense[1], 1 / K + 1 / k**2)
    print(f"{k} x {k}: {dense[0]:7,} weights against {cheap[0]:6,}: {dense[1] / cheap[1]:5.2f} times fewer")

# %% [markdown]
# ## Where it pays
#
# The number of input channels has dropped out, and so has the size of the image. What is left is a surface over two
# numbers.

# %%
unet, sdunet = (models.build(name, head="paper") for name in ("unet", "sdunet"))
separable = [layer for _, layer in sdunet.named_modules() if isinstance(layer, nn.SeparableConv2d)]
places = sorted({(layer.pointwise.weight.shape[0], layer.depthwise.weight.shape[-1]) for layer in separable})

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Contours of how many times fewer multiply-adds a separable convolution needs, over output channels and kernel size. Contours run level for many channels and upright for few. Points mark SD-UNet's layers: most near 8 times, those of 2 by 2 near 4, the last one below 2."}}
figure, ax = plt.subplots(figsize=(7.2, 3.6))
channels, taps = np.meshgrid(np.geomspace(1, 1100, 300), np.linspace(1, 7.2, 300))
times = 1 / (1 / channels + 1 / taps**2)
levels = [1, 2, 4, 8, 16, 32]
ax.contour(channels, taps, times, levels=levels, colors=BLUE, linewidths=1.3)
for level in levels:
    text = "as many" if level == 1 else f"{level} times fewer"
    ax.text(1200, 1 / np.sqrt(1 / level - 1 / 1100) if level > 1 else 1, text, color=BLUE, va="center")
ax.plot(*zip(*places, strict=True), "o", color=ORANGE, markersize=7, clip_on=False)
for x_at, y_at, text in ((90, 3.3, "3 × 3"), (90, 2.3, "2 × 2, upsampling"), (2.3, 3, "3 × 3, head")):
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    ax.text(x_at, y_at, text, color="#8a5f00", va="center", bbox=box)
ax.set(xscale="log", xlabel="output channels K", ylabel="kernel size k", xlim=(1, 1100), ylim=(0.9, 7.2))
ax.set_title("Multiply-adds saved, and the layers of SD-UNet (points)")
ax.set_xticks([1, 4, 16, 64, 256, 1024], ["1", "4", "16", "64", "256", "1024"])
plt.show()

# %% [markdown]
# **What to see.** To the right the contours run level: with many channels the saving is $k^2$ and more channels do not
# help. A 3 × 3 layer can never become more than nine times cheaper, a 2 × 2 layer never more than four times. To the
# left they run upright: with few output channels the pointwise half has nothing to share the depthwise half among, and
# the saving is at most $K$. The last 3 × 3 layer of SD-UNet's head lies there.
#
# ## A whole network
#
# Now the real networks, at the input size that the paper states. The profile runs each of them once.


# %%
def layers(model):
    found = profile.summary(model, (1, 1, 256, 256), show=False)
    return found, [row for row in found.rows if "Conv2d" in row.kind]


(dense, dense_rows), (cheap, cheap_rows) = layers(unet), layers(sdunet)
by_name = {row.name: row for row in cheap_rows}
print("in U-Net alone:", [row.name for row in dense_rows if row.name not in by_name])
for title, a, b in (
    ("parameters", dense.parameters, cheap.parameters),
    ("multiply-adds", dense.multiply_adds, cheap.multiply_adds),
):
    print(f"{title:13} {a:14,} against {b:13,}: {a / b:.2f} times fewer")

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Two rows of bars, one bar a layer, U-Net behind and SD-UNet in front. Parameters peak in the middle of the network, where images are small. Multiply-adds are spread over all levels and highest in the decoder. SD-UNet's bars are much lower everywhere but in the first layer."}}
figure, axes = plt.subplots(2, 1, figsize=(8.6, 4.6), sharex=True)
at = np.arange(len(dense_rows))
for ax, key, unit, label in (
    (axes[0], "parameters", 1e6, "parameters in millions"),
    (axes[1], "multiply_adds", 1e9, "multiply-adds in G"),
):
    ax.bar(at, [getattr(row, key) / unit for row in dense_rows], 0.8, color=BLUE)
    ax.bar(at, [getattr(by_name.get(row.name), key, 0) / unit for row in dense_rows], 0.5, color=ORANGE)
    ax.set_ylabel(label)
axes[0].set_title("Layer by layer, in the order in which they run")
axes[0].text(9.8, 7.4, "U-Net", color=BLUE, weight="bold")
axes[0].text(9.8, 5.9, "SD-UNet (in front)", color="#8a5f00", weight="bold")
sizes = [row.output[-1] for row in dense_rows]
starts = [i for i in at if i == 0 or sizes[i] != sizes[i - 1]]
for begin in starts:
    for ax in axes:
        ax.axvline(begin - 0.5, color=GREY, linewidth=0.5)
middles = [(begin + end - 1) / 2 for begin, end in zip(starts, [*starts[1:], len(sizes)], strict=True)]
axes[1].set_xticks(middles, [f"{sizes[begin]}²" for begin in starts])
axes[1].tick_params(axis="x", length=0)
axes[1].set(xlabel="size of the layer's output in pixels", xlim=(-0.5, len(sizes) - 0.5))
plt.show()

# %% [markdown]
# **What to see.** Parameters and work sit in different places. Most parameters are in the middle, where there are many
# channels and few pixels. Multiply-adds are spread over all levels, because the next level has twice the channels, so
# four times the weights, and a quarter of the pixels. A count of parameters says little about the work:
# [notebook 10](10_reading_a_paper.py) shows what happens when the two are mixed up. (The layer that U-Net alone has is
# the second of its first block: SD-UNet's first block has only one.)
#
# ## What is given up
#
# Put the depthwise sum into the pointwise one: a separable convolution *is* a standard one, with a kernel that is a
# product ([page](../ops/separable_conv.md)). With $R$ depthwise kernels for each input channel (the *depth multiplier*;
# SD-UNet has $R = 1$) it is a sum of $R$ products:
#
# $$ w[n,c,u,v] = \sum_{r=1}^{R} w_p[n,c,r]\; w_d[c,r,u,v] $$
#
# Fix $c$ and write its kernels as a matrix with one row for each output channel and one column for each tap, $K \times
# k^2$. The equation says that this matrix has at most rank $R$. For $R=1$: each input channel is filtered *once*, and all
# output channels share that one picture. The best choice for a given standard kernel is known: the first $R$ terms of
# the singular value decomposition.


# %%
def closest(w, R):
    """Return the closest depthwise (R·C, k, k) and pointwise (K, R·C) kernel to w (K, C, k, k), and their product."""
    K, C, k, _ = w.shape
    U, s, V = np.linalg.svd(w.transpose(1, 0, 2, 3).reshape(C, K, k * k), full_matrices=False)
    U, V = (U * s[:, None])[:, :, :R], V[:, :R]  # (C, K, R) and (C, R, k·k)
    w_d, w_p = V.transpose(1, 0, 2).reshape(R * C, k, k), U.transpose(1, 2, 0).reshape(K, R * C)
    return w_d, w_p, (U @ V).transpose(1, 0, 2).reshape(w.shape)


def relative_error(w, R):
    return np.linalg.norm(closest(w, R)[2] - w) / np.linalg.norm(w)


w, x = rng.normal(size=(8, 4, 3, 3)), rng.normal(size=(1, 4, 20, 20))
for R in (1, 3, 8):
    w_d, w_p, w_both = closest(w, R)
    y = ops.separable_conv2d([x] * R, w_d, w_p)  # the input R times: R depthwise kernels a channel
    assert np.allclose(y.data, ops.conv2d(x, w_both).data)
    print(f"R = {R}: relative error of the kernel {relative_error(w, R):.3f}")

# %% [markdown]
# How much is lost depends on the kernels. Three banks of 16 kernels of 9 × 9 taps on one input channel: random numbers,
# as a layer has before training; line detectors (Gabor functions) in 16 directions, which the first layers of trained
# networks often resemble; and edge detectors, the derivative of a Gaussian in 16 directions.


# %%
def bank(kernel, directions=16, half=4):
    v, u = np.mgrid[-half : half + 1, -half : half + 1]
    angles = np.pi * np.arange(directions) / directions
    found = [kernel(u * np.cos(a) + v * np.sin(a), v * np.cos(a) - u * np.sin(a)) for a in angles]
    return np.stack([f / np.linalg.norm(f) for f in (f - f.mean() for f in found)])[:, None]  # (K, 1, k, k)


banks = {
    "random": nn.Conv2d(1, 16, 9).weight.data,
    "lines": bank(lambda across, along: -np.exp(-(across**2) / 5 - along**2 / 16) * np.cos(across)),
    "edges": bank(lambda across, along: across * np.exp(-(across**2 + along**2) / 8)),
}
multipliers = np.arange(1, 17)
errors = {name: [relative_error(w, R) for R in multipliers] for name, w in banks.items()}
assert errors["edges"][1] < 1e-6 < 0.1 < errors["lines"][1] < errors["random"][1]

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Error of the best separable kernel against the number of depthwise kernels a channel, from 1 to 16. Edges fall to zero at 2. Lines fall in steps of two and are near zero at 7. Random kernels fall slowly and reach zero at 16."}}
figure, ax = plt.subplots(figsize=(7.2, 3.4))
for (name, values), colour, spot in zip(
    errors.items(), (GREY, BLUE, PURPLE), ((8.2, 0.57), (3.2, 0.4), (2.15, 0.05)), strict=True
):
    ax.plot(multipliers, values, "o-", markersize=4, color=colour)
    ax.text(*spot, name, color=colour, weight="bold")
ax.set(xlabel="R, depthwise kernels for each input channel", ylabel="relative error of the kernels", ylim=(-0.03, 1))
ax.set_title("What the best separable kernel misses")
plt.show()

# %% [markdown]
# **What to see.** Random kernels have no structure to use: every further depthwise kernel removes a little. The edge
# detectors are all combinations of *two* kernels, because $\cos a\;\partial_u + \sin a\;\partial_v$ is the derivative
# in direction $a$: two depthwise kernels are exact. The line detectors lie between. Here is every second of them, and
# what becomes of it:

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Eight line detectors in eight directions, in four rows. Exact: each has its own direction. R = 1: all eight show the same round spot. R = 3: eight directions, blurred. R = 5: nearly the exact ones."}}
exact = banks["lines"][::2]
figure, axes = plt.subplots(4, 8, figsize=(7.6, 4.1))
for row, R in zip(axes, (None, 1, 3, 5), strict=True):
    w = exact if R is None else closest(exact, R)[2]
    for ax, picture in zip(row, w[:, 0], strict=True):
        ax.imshow(picture, vmin=-0.4, vmax=0.4)
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel("exact" if R is None else f"R = {R}", rotation=0, ha="right", va="center")
figure.suptitle("Line detectors, and the closest separable kernels", x=0.02, ha="left", fontsize=11)
plt.show()

# %% [markdown]
# With $R=1$ all eight must share one picture, and the best compromise between eight directions has none: a round spot.
# Directions come in with the next two kernels, as $\cos 2a$ and $\sin 2a$. On an image, take at each pixel the
# strongest of the eight answers, as a simple membrane detector would:

# %%
images, _ = em_sections(num_sections=1, size=256)
section = standardize(images)[None, :, :128, :128].astype(np.float64)


def strongest(R=None):
    if R is None:
        answers = ops.conv2d(section, exact, padding="same")
    else:
        answers = ops.separable_conv2d([section] * R, *closest(exact, R)[:2], padding="same")
    return answers.data[0].max(axis=0)


# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "A synthetic section with dark membranes, and the strongest answer of eight line detectors: with the exact kernels membranes stand out in every direction, with R = 1 they fall apart into spots, with R = 3 it is nearly the exact picture."}}
figure, axes = plt.subplots(1, 4, figsize=(8.6, 2.5))
axes[0].imshow(section[0, 0])
axes[0].set_title("section")
for ax, R in zip(axes[1:], (None, 1, 3), strict=True):
    ax.imshow(strongest(R), vmin=0, vmax=np.quantile(strongest(), 0.99))
    ax.set_title("exact" if R is None else f"R = {R}")
for ax in axes:
    ax.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# **What to see.** One kernel for all directions answers to dots, and membranes fall apart. Three give most of it back.
#
# Is SD-UNet, with $R=1$, blind to directions, then? No: a layer with 64 input channels has 64 depthwise kernels, and
# training can spread the pictures that it needs over the channels. The *first* layer, with its one input channel, is a
# standard one in SD-UNet: there $R=1$ would leave one picture. And nobody cuts a trained kernel down; the network is
# trained with the constraint from the start. What that costs only training can tell:
# [our runs](../reproduction.md) did, at the same norm.
#
# ## Exercises
#
# **1. When does a depth multiplier stop paying?** Write the cost of a separable layer with $R$ depthwise kernels a
# channel beside that of the standard one. Up to which $R$ is it cheaper? Find that number for every kind of layer in
# SD-UNet, and say what it means for exactness.

# %%
answer = ...  # that number: a function of K, the channels out, and of k
teaching.check("2.1", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 1"}
# R (k² + K) C against k² K C: it pays while R < k² K / (k² + K), which is the saving with R = 1.
def largest_multiplier(K, k):
    return int(np.ceil(k * k * K / (k * k + K))) - 1


for K, k in places:
    largest = largest_multiplier(K, k)
    assert largest * (k * k + K) < k * k * K <= (largest + 1) * (k * k + K)
    print(f"{k} x {k}, {K:3} channels out: pays up to R = {largest}, exact for every kernel from R = {min(K, k * k)}")
    # Exact for every kernel takes R = min(K, k²), and that never pays: no saving without loss.
    assert largest < min(K, k * k)
assert teaching.check("2.1", largest_multiplier)

# %% [markdown]
# **2. Which half to attack next?** Somebody makes the depthwise half of every layer free. How many of SD-UNet's
# multiply-adds remain? And what does it cost, in this light, to go from 3 × 3 to 7 × 7 kernels, in SD-UNet and in
# U-Net? (Give what remains as a share, and the two costs as multiples of the work with 3 × 3.)

# %%
answer = ...  # (share that remains, cost in SD-UNet, cost in U-Net)
teaching.check("2.2", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 2"}
def around_and_across(model, rows, taps=9):
    """Return multiply-adds with k x k kernels, those of 3 x 3 made `taps` large, and with 1 x 1 kernels."""
    found, modules = [0, 0], dict(model.named_modules())
    for row in rows:
        for p in modules[row.name].parameters():
            if p.data.ndim > 1:  # no bias; a pointwise kernel has two dimensions
                growth = taps / 9 if p.shape[-1] == 3 and p.data.ndim > 2 else 1
                found[p.data.ndim == 2] += p.size * growth * row.output[-2] * row.output[-1]
    return np.array(found)


growths = {}
for name, model, found, rows in (("U-Net", unet, dense, dense_rows), ("SD-UNet", sdunet, cheap, cheap_rows)):
    work = around_and_across(model, rows)
    assert work.sum() == found.multiply_adds
    share, growth = work[1] / work.sum(), around_and_across(model, rows, taps=49).sum() / work.sum()
    growths[name] = growth
    print(f"{name:7}: {share:4.0%} is pointwise; 7 x 7 in place of 3 x 3 takes {growth:.2f} times the work")
# Nearly all of SD-UNet's work is pointwise. Fewer or grouped channels would save more than cleverness with taps, and
# large kernels are cheap. (In seconds the depthwise half weighs more: it waits for memory, not for arithmetic.)
assert share > 0.9 and growth < 1.4
assert teaching.check("2.2", (share, growths["SD-UNet"], growths["U-Net"]))

# %% [markdown]
# **3. Closest in the kernel, or closest in the answer?** The SVD treats all differences between kernels alike. But
# neighbouring pixels of an image are alike, so that some differences hardly change the output. Let $\Sigma$ be the $k^2
# \times k^2$ matrix of mean products of the pixels in a window. Show that the mean squared error of the output is
# $\lVert (A - B)\,\Sigma^{1/2} \rVert^2$, with $A$ and $B$ the exact and the approximate $K \times k^2$ matrix. Find
# the best $B$ of rank 1 for the *random* kernels on the section, and compare it with that of the SVD.

# %%
answer = ...  # the best B of rank 1: a function of A and of Σ
teaching.check("2.3", answer)

# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 3"}
# For a window p the error is (A - B) p, its mean square tr((A - B) Σ (A - B)ᵀ) = ‖(A - B) Σ^½‖². So the SVD of A Σ^½
# gives the best matrix of rank 1 in that measure, and Σ^-½ takes it back to kernels.
k = 9
A = banks["random"].reshape(-1, k * k).astype(np.float64)
windows = np.lib.stride_tricks.sliding_window_view(section[0, 0], (k, k)).reshape(-1, k * k)
products = windows.T @ windows / len(windows)  # Σ


def roots(S):
    """Return S^½ and S^-½."""
    values, V = np.linalg.eigh(S)
    return (V * np.sqrt(values)) @ V.T, (V / np.sqrt(values)) @ V.T


def rank_1(M):
    U, s, V = np.linalg.svd(M)
    return s[0] * np.outer(U[:, 0], V[0])


def best_answer(A, S):
    root, inverse = roots(S)
    return rank_1(A @ root) @ inverse


def error(B):
    return np.linalg.norm(windows @ (A - B).T) / np.linalg.norm(windows @ A.T)


in_kernel, in_answer = error(rank_1(A)), error(best_answer(A, products))
print(f"relative error of the output: closest kernel {in_kernel:.2f}, closest answer {in_answer:.2f}")
mean_square = np.linalg.norm(windows @ A.T) ** 2 / len(windows)
assert np.isclose(mean_square, np.linalg.norm(A @ roots(products)[0]) ** 2)
assert in_answer < 0.8 * in_kernel and teaching.check("2.3", best_answer)
# Random kernels have nothing in common, but their answers on an image do: most of what an image holds is smooth.
