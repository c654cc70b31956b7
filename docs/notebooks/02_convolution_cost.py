# %% [markdown]
# # 2. What a convolution costs
#
# SD-UNet has an eighth of U-Net's weights because it replaces one operation, the standard convolution, by two cheaper
# ones. How can that be so much cheaper, and what is given up?
#
# **Afterwards you can** count the parameters and multiplications of a convolutional layer in your head, say for which
# layers the replacement pays, and name what the cheap layer cannot compute. **Time:** half an hour to read, as much
# again with the exercises; it runs within a minute.

# %%
import numpy as np

from tinyseg import models, nn, ops
from tinyseg.data import em_sections, standardize
from tinyseg.learn import teaching
from tinyseg.learn.figures import notebook_02 as draw
from tinyseg.report import profile

teaching.style()
rng = np.random.default_rng(0)

# %% [markdown]
# ## One number of the output
#
# A standard convolution has a kernel of $k \times k$ taps for every pair of an output channel $n$ and an input channel
# $c$. One number of the output is a sum over all taps of all input channels ([derivation](../ops/conv2d.md)):
#
# $$ y[n,i,j] = \sum_{c=0}^{C-1}\;\sum_{u,v=0}^{k-1} w[n,c,u,v]\; x[c,\,i+u,\,j+v] $$
#
# That is $k \cdot k \cdot C$ multiplications, each followed by an addition: as many *multiply-adds*.

# %%
C, K, k = 3, 3, 3  # channels in, channels out, taps a side
x = rng.normal(size=(1, C, 6, 6))
w = rng.normal(size=(K, C, k, k))

by_hand = np.sum(w[2] * x[0, :, 1 : 1 + k, 3 : 3 + k])  # channel 2, row 1, column 3
assert np.isclose(by_hand, ops.conv2d(x, w).data[0, 2, 1, 3])

# %% [markdown]
# ## Two jobs, done one at a time
#
# The sum does two things at once: it looks *around* a pixel ($u, v$), and it mixes *channels* ($c$). A depthwise
# separable convolution does one after the other:
#
# $$ \begin{aligned}
# d[c,i,j] &= \sum_{u,v} w_d[c,u,v]\; x[c,i+u,j+v] &&\text{depthwise: around, each channel for itself} \\
# y[n,i,j] &= \sum_c w_p[n,c]\; d[c,i,j] &&\text{pointwise: across channels, each pixel for itself} \end{aligned} $$
#
# All of these are linear, so each is a matrix that takes the pixels of all input channels to those of all output
# channels. To see a matrix, feed it unit vectors: an image with a single 1 gives one column.

# %%
w_d, w_p = rng.normal(size=(C, k, k)), rng.normal(size=(K, C))


def matrix(convolution, size):
    images = np.eye(C * size**2).reshape(-1, C, size, size)  # one for each column
    return convolution(images).data.reshape(len(images), -1).T


standard = matrix(lambda images: ops.conv2d(images, w), size=6)
depthwise = matrix(lambda images: ops.depthwise_conv2d(images, w_d), size=6)
pointwise = matrix(lambda images: ops.pointwise_conv2d(images, w_p), size=4)
draw.matrices(standard, depthwise, pointwise)

# %% [markdown]
# **What to see** (purple: positive, orange: negative). Each block leads from one input channel to one output channel.
# The standard convolution fills every block with bands, one for each tap. Depthwise keeps the bands but only the blocks
# of a channel with itself; pointwise has every block, but only one diagonal in it. Each number that is not zero,
# counted in the titles, is one multiply-add. The product of the two matrices fills all places that the standard one
# fills, so the separable convolution *sees* as much with fewer numbers:

# %%
both = pointwise @ depthwise
assert np.array_equal(both != 0, standard != 0)
one_op = matrix(lambda images: ops.separable_conv2d(images, w_d, w_p), size=6)
assert np.allclose(both, one_op)

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
# [`profile`](../../tinyseg/report/profile/trace.py) counts what a layer does while it runs. Both should agree:

# %%
C, K, H, W = 64, 128, 32, 32


def count(layer):
    weights = sum(p.size for p in layer.parameters() if p.data.ndim > 1)  # no biases
    return weights, profile.summary(layer, (1, C, H, W), show=False).multiply_adds


for k in (1, 3, 5, 7):
    dense = count(nn.Conv2d(C, K, k, padding="same"))
    cheap = count(nn.SeparableConv2d(C, K, k, padding="same"))
    assert dense == (k * k * C * K, k * k * C * K * H * W)  # Equation 1
    assert cheap == (k * k * C + C * K, k * k * C * H * W + C * K * H * W)  # Equation 2
    saved = dense[1] / cheap[1]
    print(
        f"{k} x {k}: {dense[0]:7,} weights or {cheap[0]:6,}: {saved:5.2f} times fewer"
    )
    assert np.isclose(1 / saved, 1 / K + 1 / k**2)

# %% [markdown]
# ## Where it pays
#
# The number of input channels has dropped out, and so has the size of the image: two numbers are left.

# %%
unet, sdunet = (models.build(name, head="paper") for name in ("unet", "sdunet"))
places = set()  # (channels out, taps a side) of SD-UNet's separable layers
for _, layer in sdunet.named_modules():
    if isinstance(layer, nn.SeparableConv2d):
        places.add((len(layer.pointwise.weight), layer.depthwise.weight.shape[-1]))
draw.savings(places)

# %% [markdown]
# **What to see.** To the right the contours run level: with many channels the saving is $k^2$ and more channels do not
# help. A 3 × 3 layer can never become more than nine times cheaper, a 2 × 2 layer never more than four times. To the
# left they run upright: where output channels are few, so are those that share one depthwise sum, and the saving is at
# most $K$. The last 3 × 3 layer of SD-UNet's head lies there.
#
# ## A whole network
#
# Now the real networks, at the input size that the paper states. The profile runs each of them once.

# %%
shape = 1, 1, 256, 256
dense, cheap = (profile.summary(model, shape, show=False) for model in (unet, sdunet))
rows = [[row for row in p.rows if "Conv2d" in row.kind] for p in (dense, cheap)]
for what in ("parameters", "multiply_adds"):
    of_unet, of_sdunet = getattr(dense, what), getattr(cheap, what)
    print(f"{of_unet:,} {what} or {of_sdunet:,}: {of_unet / of_sdunet:.2f} times fewer")
draw.layer_by_layer(*rows)

# %% [markdown]
# **What to see.** Parameters and work sit in different places. Most parameters are in the middle, where there are many
# channels and few pixels. Multiply-adds are spread over all levels, because the next level has twice the channels, so
# four times the weights, and a quarter of the pixels. A count of parameters says little about the work ([notebook
# 10](10_reading_a_paper.py)). The second bar is U-Net's alone: its first block has two layers, SD-UNet's one.
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
# k^2$. The equation says that this matrix has at most rank $R$. For $R=1$: each input channel is filtered *once*, and
# all output channels share that one picture. The best choice for a given standard kernel is known: the first $R$ terms
# of the singular value decomposition.


# %%
def closest(w, R):
    """The depthwise and pointwise kernel closest to w (K, C, k, k), and both in one."""
    K, C, k, _ = w.shape
    A = w.transpose(1, 0, 2, 3).reshape(C, K, k * k)
    U, s, V = np.linalg.svd(A, full_matrices=False)
    U, V = (U * s[:, None])[:, :, :R], V[:, :R]  # (C, K, R) and (C, R, k·k)
    w_p, w_d = U.transpose(1, 2, 0).reshape(K, R * C), V.transpose(1, 0, 2)
    product = (U @ V).transpose(1, 0, 2).reshape(w.shape)
    return w_d.reshape(R * C, k, k), w_p, product


w, x = rng.normal(size=(8, 4, 3, 3)), rng.normal(size=(1, 4, 20, 20))
for R in (1, 3, 8):
    w_d, w_p, product = closest(w, R)
    y = ops.separable_conv2d([x] * R, w_d, w_p)  # x R times: R kernels a channel
    assert np.allclose(y.data, ops.conv2d(x, product).data)
assert np.allclose(product, w)  # R = 8, the channels out: nothing is lost

# %% [markdown]
# How much is lost depends on the kernels. Three banks of 16 kernels of 9 × 9 taps on one input channel: random numbers,
# as a layer has before training; line detectors (Gabor functions) in 16 directions, which the first layers of trained
# networks often resemble; and edge detectors, the derivative of a Gaussian in 16 directions.


# %%
def relative_error(w, R):
    return np.linalg.norm(closest(w, R)[2] - w) / np.linalg.norm(w)


def bank(kernel):
    v, u = np.mgrid[-4:5, -4:5]
    angles = np.pi * np.arange(16).reshape(-1, 1, 1, 1) / 16
    c, s = np.cos(angles), np.sin(angles)
    found = kernel(u * c + v * s, v * c - u * s)  # across and along each direction
    found -= found.mean((2, 3), keepdims=True)
    return found / np.linalg.norm(found, axis=(2, 3), keepdims=True)  # (K, 1, k, k)


banks = {
    "random": nn.Conv2d(1, 16, 9).weight.data,
    "lines": bank(lambda x, y: -np.exp(-(x**2) / 5 - y**2 / 16) * np.cos(x)),
    "edges": bank(lambda x, y: x * np.exp(-(x**2 + y**2) / 8)),
}
lost = {name: [relative_error(w, R) for R in range(1, 17)] for name, w in banks.items()}
assert lost["edges"][1] < 1e-6 < 0.1 < lost["lines"][1] < lost["random"][1]
draw.errors(lost)

# %% [markdown]
# **What to see.** Random kernels have no structure to use: every further depthwise kernel removes a little. The edge
# detectors are all combinations of *two* kernels, because $\cos a\;\partial_u + \sin a\;\partial_v$ is the derivative
# in direction $a$: two depthwise kernels are exact. The line detectors lie between. Here is every second of them:

# %%
exact = banks["lines"][::2]
kernels = {"exact": exact} | {f"R = {R}": closest(exact, R)[2] for R in (1, 3, 5)}
draw.line_detectors(kernels)

# %% [markdown]
# With $R=1$ all eight must share one picture, and the best compromise between eight directions has none: a round spot.
# Directions come in with the next two kernels, as $\cos 2a$ and $\sin 2a$. On an image, take at each pixel the
# strongest of the eight answers, as a simple membrane detector would:

# %%
section = standardize(em_sections(num_sections=1, size=256)[0])[None, :, :128, :128]
strongest = {}
for name, w in kernels.items():
    answers = ops.conv2d(section.astype(w.dtype), w, padding="same").data
    strongest[name] = answers[0].max(axis=0)
draw.strongest_answers(section[0, 0], strongest)

# %% [markdown]
# **What to see.** One kernel for all directions answers to dots, and membranes fall apart. Three give most of it back.
#
# Is SD-UNet, with $R=1$, blind to directions, then? No: a layer with 64 input channels has 64 depthwise kernels, and
# training can spread the pictures that it needs over the channels. The *first* layer, with its one input channel, is a
# standard one in SD-UNet: there $R=1$ would leave one picture. And no trained kernel is cut down here: the network is
# trained with the constraint from the start. What that costs only [training](../reproduction.md) can tell.
#
# ## Exercises
#
# **1. When does a depth multiplier stop paying?** Write the cost of a separable layer with $R$ depthwise kernels a
# channel beside that of the standard one. Up to which $R$ is it cheaper? Find that number for every kind of layer in
# SD-UNet, and say what it means for exactness.

# %%
answer = ...  # that number: a function of K, the channels out, and of k
teaching.check("2.1", answer)


# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 1"}
largest = teaching.solution("2.1")
for K, k in sorted(places):
    print(f"{k} x {k}, {K:3} channels out: pays up to R = {largest(K, k)},", end=" ")
    print(f"exact for every kernel from R = {min(K, k * k)}")
assert teaching.check("2.1", largest)

# %% [markdown]
# **2. Which half to attack next?** Somebody makes the depthwise half of every layer free. How many of SD-UNet's
# multiply-adds remain? And what does it cost, in this light, to go from 3 × 3 to 7 × 7 kernels, in SD-UNet and in
# U-Net? All 3 × 3 kernels grow, that of the first layer too. (Give a share, and two multiples of the work with 3 × 3.)

# %%
answer = ...  # (share that remains, cost in SD-UNet, cost in U-Net)
teaching.check("2.2", answer)


# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 2"}
share, *costs = teaching.solution("2.2")(unet, sdunet, *rows)
print(f"{share:.0%} remains; 7 x 7 costs", *(f"{cost:.2f}" for cost in costs))
assert teaching.check("2.2", (share, *costs))

# %% [markdown]
# **3. Closest in the kernel, or closest in the answer?** The SVD treats all differences between kernels alike. But
# neighbouring pixels of an image are alike, so that some differences hardly change the output. Let $\Sigma$ be the
# $k^2 \times k^2$ matrix of mean products of the pixels in a window. Show that the squared error of the output, summed
# over channels, has the mean $\lVert (A - B)\,\Sigma^{1/2} \rVert_F^2$, for the exact and the approximate
# $K \times k^2$ matrix $A$ and $B$. Find the best $B$ of rank 1 for the *random* kernels on the section.

# %%
answer = ...  # the best B of rank 1: a function of A and of Σ
teaching.check("2.3", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 3"}
best_answer = teaching.solution("2.3")
A = banks["random"].reshape(16, 81).astype(np.float64)
windows = np.lib.stride_tricks.sliding_window_view(section[0, 0], (9, 9))
windows = windows.reshape(-1, 81).astype(np.float64)
S = windows.T @ windows / len(windows)
for name, measure in (("kernel", np.eye(81)), ("answer", S)):  # Σ = 1: the SVD of A
    off = windows @ (A - best_answer(A, measure)).T
    error = np.linalg.norm(off) / np.linalg.norm(windows @ A.T)
    print(f"closest {name}: relative error of the output {error:.2f}")
assert teaching.check("2.3", best_answer)
