# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5. Normalization when batches are small
#
# Segmentation networks are trained on few images at a time, because large images fill the memory. BatchNorm takes its
# mean and variance from just those few. How noisy are they then, and what does the network lose? At the end you can
# say which values a norm averages over, how the noise falls with the batch, why training and evaluation differ, where
# the three terms of the backward pass come from, and what all this did to a small network. The formulas are derived
# on the pages [BatchNorm](../ops/batch_norm.md) and [GroupNorm](../ops/group_norm.md).

# %%
import numpy as np
from matplotlib import pyplot as plt
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from tinyseg import Tensor, check_grads, nn, no_grad, ops, optim
from tinyseg.data import em_sections, standardize
from tinyseg.learn import teaching
from tinyseg.learn.teaching import BLUE, GREY, ORANGE, PURPLE

teaching.style()
teaching.use_one_core()  # for images this small, waking a second core costs more than it saves

# %% [markdown]
# ## What is averaged over
#
# Feature maps have shape $(N, C, H, W)$: images, channels, pixels. Every norm here does the same with a set of $m$
# values,
#
# $$ \hat x = \frac{x-\mu}{\sqrt{s+\epsilon}},\qquad y=\gamma\,\hat x+\beta, $$
#
# with the mean $\mu$ and the variance $s$ of the set. Norms differ in the set.


# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Four blocks of cells with channels, pixels and images as axes; in each, the cells that share one mean and variance are orange: a channel of all images, a pair of channels of one image, one whole image, one channel of one image"}}
def block(axes, title, caption, shared, N=3, C=4, P=4, depth=(0.42, 0.36)):
    """Draw N x C x P cells in oblique projection; `shared(n, c)` says which belong to the coloured set."""

    def face(corners, coloured):
        points = [(c + depth[0] * n, -p + depth[1] * n) for n, c, p in corners]
        axes.fill(*zip(*points, strict=True), facecolor=ORANGE if coloured else "#f4f4f4", edgecolor="#555555", lw=0.7)

    for c in range(C):
        for p in range(P):  # front
            face([(0, c, p), (0, c + 1, p), (0, c + 1, p + 1), (0, c, p + 1)], shared(0, c))
        for n in range(N):  # top
            face([(n, c, 0), (n, c + 1, 0), (n + 1, c + 1, 0), (n + 1, c, 0)], shared(n, c))
    for p in range(P):
        for n in range(N):  # right
            face([(n, C, p), (n + 1, C, p), (n + 1, C, p + 1), (n, C, p + 1)], shared(n, C - 1))
    axes.set(aspect="equal", title=title)
    axes.text(0, -P - 0.3, caption, va="top")
    axes.axis("off")


figure, row = plt.subplots(1, 4, figsize=(9.4, 3.1))
block(row[0], "BatchNorm", "m = N·H·W\none channel, all images", lambda n, c: c == 3)
block(row[1], "GroupNorm, G = 2", "m = (C/G)·H·W\na group of one image", lambda n, c: n == 0 and c > 1)
block(row[2], "G = 1 (LayerNorm)", "m = C·H·W\none image", lambda n, c: n == 0)
block(row[3], "G = C (InstanceNorm)", "m = H·W\none channel of one image", lambda n, c: n == 0 and c == 3)
for x, y, word, angle in ((1.5, -0.5, "channels", 0), (-0.35, -2, "pixels", 90), (0.35, 0.75, "images", 41)):
    row[0].text(x, y, word, rotation=angle, ha="center", va="center", fontsize=9)

# %% [markdown]
# **What to see.** The orange cells share one mean and one variance. BatchNorm's set reaches through all images of the
# batch; GroupNorm's never leaves an image. The ops say the same in numbers: change the companions of the first image,
# and see whether its output moves.

# %%
rng = np.random.default_rng(0)
x = rng.standard_normal((3, 4, 5, 6))
companions_changed = np.concatenate([x[:1], 3 + x[1:]])


def batch_norm(x):
    return ops.batch_norm(x, None, None, training=True).data


def group_norm(x):
    return ops.group_norm(x, 2).data


assert np.allclose(batch_norm(x).mean((0, 2, 3)), 0)  # per channel
assert np.allclose(group_norm(x).reshape(3, 2, -1).mean(2), 0)  # per image and group
for norm in (batch_norm, group_norm):
    print(f"first image changes by up to {abs(norm(x) - norm(companions_changed))[0].max():.2f}")

# %% [markdown]
# ## How noisy is a batch's mean?
#
# The mean of $m$ *independent* values with deviation $\sigma$ has deviation $\sigma/\sqrt m$. A batch of two 32×32
# images has $m=2048$: the noise should be 2 % of $\sigma$. But pixels are not independent. If a crop is dark, all of
# it is dark. Here are crops of (synthetic) sections of neural tissue, and the noise as measured.

# %%
sections, _ = em_sections(8, 256, seed=0)
crops = standardize(sections).reshape(8, 8, 32, 8, 32).transpose(0, 1, 3, 2, 4).reshape(-1, 1, 32, 32)  # (512,1,32,32)

sizes = np.array([1, 2, 4, 8, 16, 32, 64])
noise_of_mean, noise_of_variance = [], []
for n in sizes:
    batches = crops[rng.integers(len(crops), size=(600, n))]  # (600,n,1,32,32): 600 batches
    noise_of_mean.append(batches.mean((1, 2, 3, 4)).std())
    noise_of_variance.append(batches.var((1, 2, 3, 4)).std())

sigma, between = crops.std(), crops.mean((1, 2, 3)).std()
print(f"deviation of pixels {sigma:.2f}, of the means of crops {between:.2f}")
print(f"a crop of 1024 pixels is worth {(sigma / between) ** 2:.0f} independent ones")
of_squares = ((crops - crops.mean()) ** 2).mean((1, 2, 3)).std()  # the same for squared distances: the variance's law
assert np.allclose(noise_of_mean, between / np.sqrt(sizes), rtol=0.25)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Left: six crops of tissue with different means. Right: noise of the mean and of the variance against batch size, both falling as one over the root of n, far above the line for independent pixels"}}
figure = plt.figure(figsize=(9.2, 3.4))
left, axes = figure.subfigures(1, 2, width_ratios=(0.75, 1))
for picture, crop in zip(left.subplots(2, 3).ravel(), crops[[3, 40, 77, 120, 200, 310]], strict=True):
    picture.imshow(crop[0], vmin=-2.5, vmax=2.5)
    picture.set_title(f"mean {crop.mean():+.1f}\nvar. {crop.var():.1f}", fontsize=9.5)
    picture.axis("off")
axes = axes.subplots()
axes.loglog(sizes, noise_of_mean, "o", color=BLUE)
axes.loglog(sizes, noise_of_variance, "s", color=ORANGE)
axes.loglog(sizes, between / np.sqrt(sizes), color=BLUE, lw=1)
axes.loglog(sizes, of_squares / np.sqrt(sizes), color=ORANGE, lw=1)
axes.loglog(sizes, sigma / np.sqrt(sizes * 1024), color=GREY, ls="--", lw=1.2)
axes.text(4.6, between / np.sqrt(4), "of the mean", color=BLUE)
axes.text(4.2, of_squares / np.sqrt(4) * 0.6, "of the variance", color="#9a6a00", va="top")
axes.text(0.95, sigma / np.sqrt(5 * 1024) * 0.8, "of the mean, if pixels\nwere independent", color="#555555", va="top")
axes.set(
    xlabel="images in the batch, n", ylabel="standard deviation over batches", title="Noise of a batch's statistics"
)
axes.set_xticks(sizes, sizes)
axes.minorticks_off()

# %% [markdown]
# **What to see.** The law $1/\sqrt n$ (thin lines) holds for the number of *images*. Counted in pixels it would
# promise far less noise than there is (dashed): what a batch needs is many images. (For one or two crops
# the variance's noise lies below its line: a batch measures distances from its own mean, not from that of all.
# [Exercise 2](#exercises) shows what else follows.)
#
# ## The same image in training and in evaluation
#
# In evaluation BatchNorm uses *running* statistics, collected while it trained. So one image has one output in
# evaluation, and in training as many as there are batches to meet it in.


# %%
def trained_norm(n, batches=200):
    """A BatchNorm layer that has seen `batches` batches of n crops."""
    norm = nn.BatchNorm2d(1)
    for _ in range(batches):
        norm(crops[rng.integers(len(crops), size=n)])
    return norm


def outputs(norm, crop, n, times=60):
    """Output for one crop: in evaluation (32,32), and in training beside n - 1 others, `times` times."""
    in_evaluation = norm.eval()(crop).data[0, 0]  # first: each pass in training mode moves the running statistics
    others = rng.integers(len(crops), size=(times, n - 1))
    in_training = [norm.train()(np.concatenate([crop, crops[i]])).data[0, 0] for i in others]
    return in_evaluation, np.array(in_training)


gap = []
for n in sizes:
    pairs = [outputs(trained_norm(n), crops[k : k + 1], n, times=5) for k in range(0, 500, 20)]
    gap.append(np.sqrt(np.mean([(in_training - in_evaluation) ** 2 for in_evaluation, in_training in pairs])))
print(f"typical gap with batches of 2: {gap[1]:.2f}, of 32: {gap[5]:.2f} (the output's own deviation is 1)")
assert gap[0] > 2 * gap[4] and gap[2] > 2 * gap[6]  # 1/sqrt(n) says a factor of 4 for both

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Profiles of one image row after BatchNorm: with batches of 2 the training-mode curves scatter widely beside the evaluation curve, with 32 they nearly coincide; the root mean square gap falls as one over the root of n"}}
figure, row = plt.subplots(1, 3, figsize=(9.6, 3.2))
for axes, n in zip(row, (2, 32), strict=False):
    in_evaluation, in_training = outputs(trained_norm(n), crops[310:311], n)
    axes.plot(in_training[:30, 16].T, color=BLUE, alpha=0.25, lw=0.8)
    axes.plot(in_evaluation[16], color="black", lw=1.6)
    axes.set(title=f"Batches of {n}", xlabel="pixel of row 16", ylim=(-3, 2.4))
row[0].set_ylabel("output of BatchNorm")
row[0].text(10, 1.9, "training, 30 batches", color=BLUE)
row[0].text(10, 1.4, "evaluation", color="black")
row[2].loglog(sizes, gap, "o", color=BLUE)
row[2].loglog(sizes, gap[-1] * np.sqrt(64 / sizes), color=BLUE, lw=1)
row[2].set(xlabel="images in the batch, n", ylabel="RMS difference", title="Training minus evaluation")
row[2].text(10, gap[2], "$\\propto 1/\\sqrt{n}$", color=BLUE)
row[2].set_xticks(sizes, sizes)
row[2].set_yticks([0.05, 0.1, 0.2, 0.4], [0.05, 0.1, 0.2, 0.4])
row[2].minorticks_off()

# %% [markdown]
# **What to see.** One row of pixels of one image. In a batch of two the output depends on who the companion is. The
# blue curves also lie to one side of the black one: the image is half of its own batch, and draws the batch's mean
# towards its own. The layers above learn on the blue curves and are used on the black one. GroupNorm has one curve,
# always.
#
# ## What a network makes of it
#
# Does it matter? The task: in each pixel, say which of two textures it belongs to, streaks down or streaks across.
# Images are unlike, as if each came from a microscope of its own: gain, level and the share of the textures vary, and
# some show one texture only. That makes small batches hard on purpose; `drift=0, mix=0` makes images alike.


# %%
def textures(count, seed, drift=0.5, mix=1.5, size=32):
    """Images (count,1,size,size) and masks: True where streaks run down. `drift` and `mix` make them unlike."""
    rng = np.random.default_rng(seed)
    shape = (count, size, size)
    down, across = (gaussian_filter1d(rng.standard_normal(shape), 2.0, axis=axis) for axis in (1, 2))
    hills = gaussian_filter(rng.standard_normal(shape), (0, 5, 5))
    mask = hills / hills.std() > mix * rng.standard_normal((count, 1, 1))
    image = np.where(mask, down / down.std(), across / across.std())
    image = np.exp(drift * rng.standard_normal((count, 1, 1))) * image + 2 * drift * rng.standard_normal((count, 1, 1))
    return image.astype(np.float32)[:, None], mask[:, None]


def network(norm, seed):
    """Four 3x3 convolutions, each with a norm and a ReLU; two of them at half resolution."""
    rng = np.random.default_rng(seed)

    def layer(c, k):
        normalize = nn.BatchNorm2d(k) if norm == "batch" else nn.GroupNorm(k // 4, k)
        return nn.Conv2d(c, k, 3, padding="same", rng=rng), normalize, nn.ReLU()

    return nn.Sequential(
        *layer(1, 8), nn.MaxPool2d(2), *layer(8, 16), *layer(16, 16), nn.Upsample(2), *layer(16, 8),
        nn.PointwiseConv2d(8, 1, rng=rng, gain=1.0),
    )  # fmt: skip


def train(model, images, masks, batch, seed, seen=960, lr=1e-2):
    """Adam on `seen` images in batches, the rate falling to zero over the second half."""
    optimizer, rng, steps = optim.Adam(model.parameters(), lr), np.random.default_rng(seed), seen // batch
    for k in range(steps):
        pick = rng.integers(len(images), size=batch)
        loss = ops.binary_cross_entropy_with_logits(model(images[pick]), masks[pick])
        optimizer.zero_grad()
        loss.backward()
        optimizer.lr = lr * min(1, 2 * (1 - k / steps))
        optimizer.step()
    return model


def error(model, images, masks, training=False):
    """Percentage of wrong pixels, image by image; in training mode if `training`."""
    model.train(training)
    with no_grad():
        wrong = [((model(x[None]).data > 0) != mask).mean() for x, mask in zip(images, masks, strict=True)]
    return 100 * np.mean(wrong)


images, masks = textures(600, seed=0)
new_images, new_masks = textures(150, seed=1)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Seven images of streaks, of different brightness and contrast, with the border between streaks down and streaks across drawn in orange; some show one texture only"}}
figure, row = plt.subplots(1, 7, figsize=(9.4, 1.5))
for axes, image, mask in zip(row, images, masks, strict=False):
    axes.imshow(image[0], vmin=-4, vmax=4)
    if 0 < mask.mean() < 1:
        axes.contour(mask[0], [0.5], colors=[ORANGE], linewidths=1.5)
    axes.axis("off")

# %% [markdown]
# Every run sees 960 images, whatever the batch: 960 steps of one or 30 steps of 32. BatchNorm and GroupNorm (groups
# of four channels) start from equal weights and see equal batches. Three seeds. Scored on new images, one at a time.

# %%
batch_sizes, seeds = (1, 2, 8, 32), (0, 1, 2)
models = {
    (norm, batch, seed): train(network(norm, seed), images, masks, batch, seed)
    for norm in ("batch", "group")
    for batch in batch_sizes
    for seed in seeds
}


def errors(norm, training=False):
    """Errors of the trained networks, (batch sizes, seeds)."""
    return np.array([[error(models[norm, b, s], new_images, new_masks, training) for s in seeds] for b in batch_sizes])


in_evaluation, in_training, with_groups = errors("batch"), errors("batch", training=True), errors("group")
for b, *rows in zip(batch_sizes, in_evaluation, with_groups, strict=True):
    print(f"batch {b:2}:  wrong pixels, BatchNorm {rows[0].round(1)} %   GroupNorm {rows[1].round(1)} %")
assert in_evaluation[0].mean() > with_groups[0].mean()
assert with_groups[3].mean() - with_groups[0].mean() > in_evaluation[3].mean() - in_evaluation[0].mean()
assert abs(with_groups[3].mean() - in_evaluation[3].mean()) < 1.5
assert in_training[3].min() > 2 * in_evaluation[3].max()

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Error against batch size on logarithmic axes, three seeds and their mean: left BatchNorm lies above GroupNorm at batch 1 and 2; right BatchNorm left in training mode makes many more errors when it was trained on large batches"}}
figure, row = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
curves = [
    (row[0], in_evaluation, BLUE, "BatchNorm"), (row[0], with_groups, ORANGE, "GroupNorm"),
    (row[1], in_evaluation, BLUE, "model.eval()"), (row[1], in_training, PURPLE, "forgotten: model.train()"),
]  # fmt: skip
for axes, values, colour, name in curves:
    axes.fill_between(batch_sizes, values.min(1), values.max(1), color=colour, alpha=0.2, lw=0)
    axes.loglog(batch_sizes, values.mean(1), color=colour, label=name)
    axes.loglog(batch_sizes, values, ".", color=colour, ms=5)
    axes.set_xticks(batch_sizes, batch_sizes)
    axes.set_yticks([2, 3, 5, 10, 20, 30], [2, 3, 5, 10, 20, 30])
    axes.minorticks_off()
    axes.legend(loc="upper left" if axes is row[0] else "center right")
    axes.set_xlabel("images in a training batch")
    axes.set_title("Two norms, on new images" if axes is row[0] else "BatchNorm with either statistics")
row[0].set_ylabel("wrong pixels (%)")
row[0].minorticks_off()

# %% [markdown]
# **What to see, left** (dots: seeds; band: from the least to the most). Small batches mean more steps for the same
# images, and GroupNorm gains by them. BatchNorm gains less: with single images it ends behind GroupNorm, on the mean
# of three seeds. With 32 images the two lie close together. None of this is a catastrophe. In a network without dense
# layers even one image gives every channel hundreds of pixels, and evaluation with the running statistics works. In
# [a larger study](../reproduction.md#isbi-2012), with two sections a batch, GroupNorm was worth about a point of
# accuracy to a network of separable convolutions, and its seeds agreed better.
#
# **Right.** A network trained on large batches counts on statistics of many images. Left in training mode on one
# image at a time, it takes that image's own, and a large part of the pixels is wrong. Of all lines to forget,
# `model.eval()` is the dearest one here. (GroupNorm has no two modes.)
#
# ## Backward: two directions that cannot matter
#
# Take one channel as a vector $x$ of $m$ values, $\epsilon=0$. Forward does two things: it subtracts the mean,
# $c = x-\mu\mathbf 1$, and it keeps only the *direction* of the rest, $\hat x=\sqrt m\;c/\lVert c\rVert = r\,c$. So
#
# $$ dc = \Big(I-\frac{\mathbf 1\mathbf 1^\top}{m}\Big)dx,\qquad d\hat x = r\Big(I-\frac{\hat x\hat x^\top}{m}\Big)dc
# \quad\Rightarrow\quad d\hat x = r\Big(I-\frac{\mathbf 1\mathbf 1^\top}{m}-\frac{\hat x\hat x^\top}{m}\Big)dx $$
#
# as $\hat x^\top\mathbf 1=0$. The matrix is symmetric, so the gradient goes back through the same one:
#
# $$ gx = r\,\big(g\hat x - \operatorname{mean}(g\hat x) - \hat x\,\operatorname{mean}(g\hat x\cdot\hat x)\big),
#      \qquad g\hat x=\gamma\,gy. $$
#
# It is a projection: the parts along $\mathbf 1$ (a shift) and along $\hat x$ (a stretch) are taken out, because
# neither changes $\hat x$. With three values this can be drawn. Seen along $\mathbf 1$, space becomes a plane, and
# all $\hat x$ lie on a circle.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "The plane of centred vectors. Left: three vectors on one ray go to the same point on the circle. Right: at that point, an arrow for the incoming gradient, its part along x-hat dashed, and what remains is tangent to the circle"}}
plane = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])  # two directions, orthogonal to each other and to 1
x = Tensor(np.array([3.0, 0.5, 1.0]).reshape(1, 1, 1, 3), requires_grad=True)
y = ops.batch_norm(x, None, None, training=True, eps=0.0)
tip = plane @ y.data.ravel()
into = 0.6 * tip + 1.1 * np.array([-tip[1], tip[0]])  # the gradient that comes in, seen in the plane,
y.backward((into @ plane + 0.3).reshape(y.shape))  # and a mean, which the plane does not show
out = plane @ x.grad.ravel() * x.data.std()  # gx / r
figure, row = plt.subplots(1, 2, figsize=(8.4, 3.7))
for axes in row:
    axes.add_patch(plt.Circle((0, 0), np.sqrt(3), fill=False, color=GREY))
    axes.plot(*tip, "o", color="black")
    axes.plot(0, 0, "+", color="black", ms=9)
    axes.set(aspect="equal", xlim=(-2.2, 4.1), ylim=(-2.1, 3.1))
    axes.axis("off")
row[0].plot(*zip((0, 0), 2.2 * tip, strict=True), color=GREY, lw=1)
for stretch in (0.45, 1.5, 2.0):
    row[0].plot(*(stretch * tip), "o", color=BLUE)
row[0].text(*(1.5 * tip + (0.15, -0.45)), "all x on this ray ...", color=BLUE)
row[0].text(*(tip + (-0.1, 0.2)), "... have this $\\hat{x}$", ha="right")
row[0].set_title("Forward: stretching is undone")
row[1].set_title("Backward: what would stretch is taken out")
row[1].plot(*zip(tip + out, tip + into, strict=True), color=GREY, ls="--", lw=1.2)
for arrow, colour, words, place in (
    (into, BLUE, "$g\\hat{x}$, its mean taken out", (0.1, 0.05)),
    (out, "#9a6a00", "gx / r", (-0.75, 0.0)),
):
    row[1].annotate("", tip + arrow, tip, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2})
    row[1].text(*(tip + arrow + place), words, color=colour)

# %% [markdown]
# **What to see.** Left: a shift is invisible in this view, a stretch moves along the ray; neither moves $\hat x$.
# Right: the incoming gradient loses what points along the ray (dashed), and what is left touches the circle. Now with
# numbers: the op against the same thing composed of elementary ops, whose gradient the [engine](01_autograd.py) finds
# by itself, and against a difference quotient.


# %%
def composed(x, gamma, beta, eps=1e-5):
    """BatchNorm in training, of elementary ops."""
    centred = x - x.mean((0, 2, 3), keepdims=True)
    variance = (centred * centred).mean((0, 2, 3), keepdims=True)
    return centred * (variance + eps) ** -0.5 * gamma.reshape((1, -1, 1, 1)) + beta.reshape((1, -1, 1, 1))


def closed(x, gamma, beta):
    return ops.batch_norm(x, None, None, gamma, beta, training=True)


inputs = rng.standard_normal((2, 3, 5, 4)), rng.standard_normal(3), rng.standard_normal(3)
gy = rng.standard_normal((2, 3, 5, 4))
gradients = []
for f in (composed, closed):
    tensors = [Tensor(a, requires_grad=True) for a in inputs]
    f(*tensors).backward(gy)
    gradients.append([t.grad for t in tensors])
differences = [abs(a - b).max() for a, b in zip(*gradients, strict=True)]
print("closed form minus composition, gx, gγ, gβ:", *(f"{d:.0e}" for d in differences))
assert max(differences) < 1e-12
check_grads(closed, *inputs)

gx, xhat = gradients[1][0], batch_norm(inputs[0])
print(f"of gy, mean along 1 {gy.mean():+.3f}, along x-hat {(gy * xhat).mean():+.3f}")
print(f"of gx, mean along 1 {gx.mean():+.0e}, along x-hat {(gx * xhat).mean():+.0e}   (not 0 but of the order of ε)")
assert abs(gx.mean((0, 2, 3))).max() < 1e-12 and abs((gx * xhat).mean((0, 2, 3))).max() < 1e-4

# %% [markdown]
# The closed form keeps $x$, $\mu$ and $r$, and needs two sums. The composition keeps every array on its way. And mind
# the cotangent of a gradient check: with $gy=1$ everywhere, $gx$ is zero with *and* without its last term. Only a
# random one can tell a right backward from a wrong one.
#
# ## Exercises
#
# **1. Who loses the level?** Three grey images, flat but for a little noise, have levels 0, 1 and 5. A layer of two
# channels makes of an image $x$ the channels $x$ and $1-x$. Which of these norms lets the next layer tell the three
# images apart: BatchNorm in training, GroupNorm with $G=1$, with $G=C=2$? Say first, then compute the mean of the
# first channel of each image.

# %%
answer = ...  # a row for each norm, in this order: the means for levels 0, 1, 5
teaching.check("5.1", answer)

# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 1"}
flat = np.array([0.0, 1, 5]).reshape(3, 1, 1, 1) + 0.1 * rng.standard_normal((3, 1, 16, 16))
x = np.concatenate([flat, 1 - flat], axis=1)
normalized = {
    "BatchNorm": batch_norm(x),
    "GroupNorm, G = 1": ops.group_norm(x, 1).data,
    "GroupNorm, G = 2": group_norm(x),
}
levels = {name: y[:, 0].mean((1, 2)).round(2) for name, y in normalized.items()}
for name, values in levels.items():
    print(f"{name:17}", *(f"{value:6.2f}" for value in values))
# G = C takes the mean out of every channel of every image: nothing is left of the level. With G = 1 a channel keeps
# its place relative to the others of its image: here "below" or "above", not how far. BatchNorm keeps the levels,
# because it sees other images; in a batch of one it is InstanceNorm.
assert abs(levels["GroupNorm, G = 2"]).max() == 0
assert np.ptp(levels["GroupNorm, G = 1"]) > 1 and np.ptp(levels["BatchNorm"]) > 1
assert np.allclose(batch_norm(x[:1]), group_norm(x[:1]))
assert teaching.check("5.1", list(levels.values()))

# %% [markdown]
# **2. A variance that is too small.** BatchNorm's running variance is the mean of the variances of its batches. Show
# that with batches of $n$ images its expected value is not the variance $\sigma^2$ of all pixels but
# $\sigma^2 - V/n$, where $V$ is the variance of the images' means. Check it on `crops`. What does that do to the
# outputs of a network that was trained on single images? (What is checked is a function of images and $n$, with the
# expected variance and how many times as large as with $\sigma$ the outputs in evaluation are.)

# %%
answer = ...  # a function of images (N, 1, H, W) and n: (variance, times)
teaching.check("5.2", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 2"}
# A batch has variance s = mean(x²) - μ². Over all batches mean(x²) has the right expected value, σ² + M² (M: the mean
# of all). But E[μ²] = M² + var(μ), and var(μ) = V/n. The difference is σ² - V/n: a batch cannot see how far it is
# itself from the others. (The factor m/(m-1) that the layer applies would mend it for independent pixels; here m is
# large, and it does nothing.)
def law(images, n):
    sigma2, V = images.var(), images.mean((1, 2, 3)).var()
    return sigma2 - V / n, np.sqrt(sigma2 / (sigma2 - V / n))


for n in (1, 2, 8):
    expected, _ = law(crops, n)
    measured = crops[rng.integers(len(crops), size=(2000, n))].var((1, 2, 3, 4)).mean()
    print(f"n = {n}: batches' variance {measured:.3f}, by the law {expected:.3f}, of all pixels {crops.var():.3f}")
    assert abs(measured - expected) < 0.03
_, times = law(crops, 1)
print(f"n = 1: in evaluation, outputs are {100 * (times - 1):.0f} % too large")
assert teaching.check("5.2", law)

# %% [markdown]
# **3. Repair a network without training it.** Two things may have hurt BatchNorm with batches of one: training on
# noisy statistics, or being evaluated with bad ones (noisy: a running mean with momentum 0.1 remembers some twenty
# batches; and too small, exercise 2). Find out which. Keep the weights and compute the running statistics again, as
# plain averages over the training images: once image by image, once in batches of 50. (What is checked is how they are
# computed.)

# %%
answer = ...  # a function of model, images and batch: makes the statistics anew
teaching.check("5.3", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 3"}
def recalibrate(model, images, batch):
    norms = [layer for _, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    model.train()
    with no_grad():
        for k in range(len(images) // batch):
            for norm in norms:
                norm.momentum = 1 / (k + 1)  # the k-th value moves a plain average by 1/(k+1)
            model(images[k * batch : (k + 1) * batch])


def recalibrated_error(model, batch):
    recalibrate(model, images, batch)
    return error(model, new_images, new_masks)


# Weights are as they were, so whatever improves was the fault of the statistics. Plain averages over single images
# are free of noise but not of the variance that is too small; batches of 50 are free of both. What remains, compared
# with GroupNorm, is training's share.
after = {b: np.array([recalibrated_error(models["batch", 1, seed], b) for seed in seeds]) for b in (1, 50)}
print(f"wrong pixels (%), as trained    {in_evaluation[0].round(1)}")
for b, values in after.items():
    print(f"running statistics of batches of {b}: {values.round(1)}")
print(f"GroupNorm {with_groups[0].round(1)}")
assert after[50].mean() < in_evaluation[0].mean() and teaching.check("5.3", recalibrate)
