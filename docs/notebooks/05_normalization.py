# %% [markdown]
# # 5. Normalization when batches are small
#
# Segmentation networks are trained on few images at a time, because large images fill the memory. BatchNorm takes its
# mean and variance from just those few. How noisy are they then, and what does the network lose?
#
# **Afterwards you can** say which values a norm averages over, how the noise falls with the batch, why training and
# evaluation differ, and where the three terms of the backward pass come from. **Time:** half an hour to read, as much
# again with the exercises; it runs within two minutes.

# %%
import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from tinyseg import Tensor, check_grads, models, nn, no_grad, ops, optim
from tinyseg.data import em_sections, standardize
from tinyseg.learn import teaching
from tinyseg.learn.figures import notebook_05 as draw

teaching.style()
teaching.use_one_core()  # for images this small, waking a second core costs more
rng = np.random.default_rng(0)

# %% [markdown]
# ## What is averaged over
#
# Feature maps have shape $(N, C, H, W)$: images, channels, pixels. Every norm takes a set of $m$ values with mean $\mu$
# and variance $s$; they differ in the set ([BatchNorm](../ops/batch_norm.md), [GroupNorm](../ops/group_norm.md));
# $\gamma$ and $\beta$ are trained, one of each a channel:
#
# $$ \hat x = \frac{x-\mu}{\sqrt{s+\epsilon}},\qquad y=\gamma\,\hat x+\beta. $$

# %%
x = rng.standard_normal((3, 4, 5, 6))
inputs = x, np.concatenate([x[:1], 3 + x[1:]])  # the same first image, other companions
batch = [ops.batch_norm(each, None, None, training=True).data for each in inputs]
group = [ops.group_norm(each, 2).data for each in inputs]
for name, (y, other) in (("BatchNorm", batch), ("GroupNorm", group)):
    print(f"{name}: the first image changes by up to {abs(y - other)[0].max():.2f}")
assert np.allclose(batch[0].mean((0, 2, 3)), 0)  # per channel
assert np.allclose(group[0].reshape(3, 2, -1).mean(2), 0)  # per image and group
draw.averaged_over()

# %% [markdown]
# **What to see.** The orange cells share one mean and one variance. BatchNorm's set reaches through all images of the
# batch. GroupNorm's, one of $G$ groups of channels, never leaves an image: its output does not depend on companions.
#
# ## How noisy is a batch's mean?
#
# The mean of $m$ *independent* values with deviation $\sigma$ has deviation $\sigma/\sqrt m$. A batch of two 32×32
# images has $m=2048$: the noise should be 2 % of $\sigma$. But pixels are not independent. If a crop is dark, all of it
# is dark. Here are crops of (synthetic) sections of neural tissue, and the noise as measured.

# %%
crops = standardize(em_sections(8, 256, seed=0)[0]).reshape(8, 8, 32, 8, 32)
crops = crops.transpose(0, 1, 3, 2, 4).reshape(-1, 1, 32, 32)  # 512 of them
sizes, noise = np.array([1, 2, 4, 8, 16, 32, 64]), []
for n in sizes:
    batches = crops[rng.integers(len(crops), size=(600, n))]  # 600 of n crops
    noise.append(batches.mean((1, 2, 3, 4)).std())
sigma, between = crops.std(), crops.mean((1, 2, 3)).std()
print(f"1024 pixels of a crop are worth {(sigma / between) ** 2:.0f} independent ones")
assert np.allclose(noise, between / np.sqrt(sizes), rtol=0.25)
draw.noise(crops[[3, 40, 77, 120, 200, 310]], sizes, noise, between, sigma / 32)

# %% [markdown]
# **What to see.** The law $1/\sqrt n$ (thin line) holds for the number of *images*. Counted in pixels it would promise
# far less noise than there is (dashed): what a batch needs is many images.
#
# ## The same image in training and in evaluation
#
# In evaluation BatchNorm uses *running* statistics, collected while it trained. So one image has one output in
# evaluation, and in training as many as there are batches to meet it in.


# %%
def outputs(crop, n, times):
    """Of BatchNorm: in evaluation (32,32), and in training beside n - 1 others."""
    norm = nn.BatchNorm2d(1)
    for _ in range(80):
        norm(crops[rng.integers(len(crops), size=n)])
    in_evaluation = norm.eval()(crop).data[0, 0]
    others = rng.integers(len(crops), size=(times, n - 1))
    batches = [np.concatenate([crop, crops[i]]) for i in others]
    in_training = [norm.train()(batch).data[0, 0] for batch in batches]
    return in_evaluation, np.array(in_training)


gap = []
for n in sizes:
    pairs = [outputs(crops[k : k + 1], n, times=5) for k in range(0, 500, 20)]
    gap.append(np.sqrt(np.mean([(training - end) ** 2 for end, training in pairs])))
print(f"typical gap in batches of 2: {gap[1]:.2f}, of 32: {gap[5]:.2f}")
assert gap[0] > 2 * gap[4] and gap[2] > 2 * gap[6]  # 1/√n says 4 for both
one_crop = {n: outputs(crops[310:311], n, times=30) for n in (2, 32)}
draw.training_and_evaluation(one_crop, sizes, gap)

# %% [markdown]
# **What to see.** One row of pixels of one image. In a batch of two the output depends on who the companion is. The
# blue curves also lie to one side of the black one: the image is half of its own batch, and draws the batch's mean
# towards its own. The layers above learn on the blue curves and are used on the black one. GroupNorm has one curve.
#
# ## What a network makes of it
#
# Does it matter? The task: in each pixel, say which of two textures it belongs to, streaks down or streaks across.
# Images are unlike, as if each came from a microscope of its own: gain, level and the share of the textures vary, and
# some show one texture only. That makes small batches hard on purpose; `drift=0, mix=0` makes images alike.
#
# A small U-Net learns it with BatchNorm or GroupNorm, from equal weights and with equal batches, three seeds each.
# Every run sees as many images: the larger the batch, the fewer the steps. It is scored on new images, one at a time.


# %%
def textures(count, seed, drift=0.5, mix=1.5, size=24):
    """Images (count,1,size,size) that `drift` and `mix` make unlike, and masks."""
    rng = np.random.default_rng(seed)
    down, across, hills = rng.standard_normal((3, count, 1, size, size))
    down, across = gaussian_filter1d(down, 2, axis=2), gaussian_filter1d(across, 2)
    hills = gaussian_filter(hills, (0, 0, 5, 5))
    share, gain, level = rng.standard_normal((3, count, 1, 1, 1))
    mask = hills / hills.std() > mix * share  # True where streaks run down
    image = np.where(mask, down / down.std(), across / across.std())
    return np.float32(np.exp(drift * gain) * image + 2 * drift * level), mask


images, masks = textures(600, seed=0)
new_images, new_masks = textures(100, seed=1)
draw.textures(images[:7], masks[:7])


# %%
def train(norm, batch, seed, seen=960):
    """Adam, the rate falling to zero over the second half."""
    options = {"levels": 2, "stem_layers": 1, "bottleneck_layers": 1, "groups": 2}
    model = models.build("unet", width=8, norm=norm, dropout=0.0, seed=seed, **options)
    optimizer, rng = optim.Adam(model.parameters()), np.random.default_rng(seed)
    for left in np.linspace(1, 0, seen // batch, endpoint=False):
        pick = rng.integers(len(images), size=batch)
        loss = ops.binary_cross_entropy_with_logits(model(images[pick]), masks[pick])
        optimizer.zero_grad()
        loss.backward()
        optimizer.lr = 1e-2 * min(1, 2 * left)
        optimizer.step()
    return model


def error(model, training=False):
    """Percentage of wrong pixels of new images, given one by one."""
    model.train(training)
    with no_grad():
        found = np.concatenate([model(x[None]).data > 0 for x in new_images])
    return 100 * np.mean(found != new_masks)


batch_sizes, of_one = (1, 4, 16), []  # of_one: BatchNorm's networks for batches of one
in_evaluation, in_training, with_groups = np.zeros((3, 3, 3))  # batch size, seed
for row, batch in enumerate(batch_sizes):
    for seed in range(3):
        model = train("batch", batch, seed)
        in_evaluation[row, seed] = error(model)
        in_training[row, seed] = error(model, training=True)  # moves statistics
        with_groups[row, seed] = error(train("group", batch, seed))
        of_one += [model] if batch == 1 else []
print("wrong pixels (%), a row for each batch size; BatchNorm:", in_evaluation.round(1))
print("GroupNorm:", with_groups.round(1))
evaluation, groups = in_evaluation.mean(1), with_groups.mean(1)
assert evaluation[0] > groups[0]
assert groups[-1] - groups[0] > evaluation[-1] - evaluation[0]
assert (in_training[[0, -1]] > 1.5 * in_evaluation[[0, -1]]).all()
draw.errors(batch_sizes, in_evaluation, with_groups, in_training)

# %% [markdown]
# **What to see, left** (dots: seeds; band: from the least to the most). Small batches mean more steps for the same
# images, and GroupNorm gains by them. BatchNorm loses that gain again: with single images it ends behind GroupNorm, on
# the mean of three seeds. With the largest batches the two lie close together. None of this is a catastrophe: even one
# image gives every channel hundreds of pixels. In [a larger study](../reproduction.md#isbi-2012), with two sections a
# batch, GroupNorm was worth about a point of accuracy to a *narrow* network of separable convolutions; at full width,
# trained better, both ended alike.
#
# **Right.** A network trained on large batches counts on statistics of many images. Left in training mode on one image
# at a time, it takes that image's own, and many pixels are wrong: of all lines to forget, `model.eval()` is the dearest
# one here. Even networks trained on single images do better in evaluation. An image's own statistics take the level out
# of all its channels ([exercise 1](#exercises)), so where it shows one texture only, nothing says which.
#
# ## Backward: two directions that cannot matter
#
# Take one channel as a vector $x$ of $m$ values, $\epsilon=0$. Forward subtracts the mean, $c=x-\mu\mathbf 1$, and
# keeps only the *direction* of the rest, $\hat x=\sqrt m\;c/\lVert c\rVert = r\,c$. As $\hat x^\top\mathbf 1=0$,
#
# $$ dc = \Big(I-\frac{\mathbf 1\mathbf 1^\top}{m}\Big)dx,\qquad d\hat x = r\Big(I-\frac{\hat x\hat x^\top}{m}\Big)dc
#      = r\Big(I-\frac{\mathbf 1\mathbf 1^\top}{m}-\frac{\hat x\hat x^\top}{m}\Big)dx. $$
#
# The matrix is symmetric, so the gradient goes back through the same one:
#
# $$ gx = r\,\big(g\hat x - \operatorname{mean}(g\hat x) - \hat x\,\operatorname{mean}(g\hat x\cdot\hat x)\big),
#      \qquad g\hat x=\gamma\,gy. $$
#
# It is $r$ times a projection: the parts along $\mathbf 1$ (a shift) and along $\hat x$ (a stretch) are taken out;
# neither changes $\hat x$. Now with three values: seen along $\mathbf 1$, space is a plane, and all $\hat x$ lie on a
# circle.

# %%
plane = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])  # orthogonal to 1
x = Tensor(np.array([3.0, 0.5, 1.0]).reshape(1, 1, 1, 3), requires_grad=True)
y = ops.batch_norm(x, None, None, training=True, eps=0.0)
tip = plane @ y.data.ravel()
into = 0.6 * tip + 1.1 * np.array([-tip[1], tip[0]])  # a gradient, seen in the plane
y.backward((into @ plane + 0.3).reshape(y.shape))  # its mean 0.3 the plane hides
out = plane @ x.grad.ravel() * x.data.std()  # gx / r
draw.projection(tip, into, out)

# %% [markdown]
# **What to see.** Left: a shift is invisible in this view, a stretch moves along the ray; neither moves $\hat x$.
# Right: the incoming gradient loses what points along the ray (dashed), and what is left touches the circle. Now with
# numbers: the closed form against the gradient that the [engine](01_autograd.py) finds by itself through elementary
# ops, and the library's op against a difference quotient.

# %%
per_channel = {"axis": (0, 2, 3), "keepdims": True}
x = Tensor(rng.standard_normal((2, 3, 5, 4)), requires_grad=True)
gy = rng.standard_normal(x.shape)
centred = x - x.mean(**per_channel)
r = ((centred * centred).mean(**per_channel) + 1e-5) ** -0.5
xhat = centred * r
xhat.backward(gy)  # through every one of these ops
along_xhat = xhat.data * (gy * xhat.data).mean(**per_channel)
gx = r.data * (gy - gy.mean(**per_channel) - along_xhat)
print(f"closed form minus composition: at most {abs(gx - x.grad).max():.0e}")
assert np.allclose(gx, x.grad, rtol=0, atol=1e-12)
check_grads(lambda x: ops.batch_norm(x, None, None, training=True), x.data)
parts = gx.mean(**per_channel), (gx * xhat.data).mean(**per_channel)
largest = [abs(part).max() for part in parts]
print(f"gx along 1: at most {largest[0]:.0e}, along x-hat {largest[1]:.0e}")
assert largest[0] < 1e-12 and largest[1] < 1e-4  # the second is of the order of ε

# %% [markdown]
# The closed form keeps $x$, $\mu$ and $r$; the composition keeps every array on its way. And mind the cotangent of a
# gradient check: with $gy=1$ everywhere, $gx$ is zero with *and* without its last term. Only a random one tells a right
# backward from a wrong one.
#
# ## Exercises
#
# **1. Who loses the level?** Three grey images, flat but for a little noise, have levels 0, 1 and 5. A layer of two
# channels makes of an image $x$ the channels $x$ and $1-x$. Which of these norms lets the next layer tell the three
# images apart: BatchNorm in training, GroupNorm with $G=1$, with $G=C=2$? Say first, then compute the mean of the first
# channel of each image.

# %%
answer = ...  # a row for each norm, in this order: the means for levels 0, 1, 5
teaching.check("5.1", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 1"}
levels = np.array([0.0, 1, 5]).reshape(3, 1, 1, 1)
means = teaching.solution("5.1")(levels + 0.1 * rng.standard_normal((3, 1, 16, 16)))
print(means.round(2) + 0.0)
assert teaching.check("5.1", means)

# %% [markdown]
# **2. A variance that is too small.** BatchNorm's running variance is an average of the variances of its batches. Show
# that with batches of $n$ images its expected value is not the variance $\sigma^2$ of all pixels but $\sigma^2 - V/n$,
# where $V$ is the variance of the images' means. Check it on `crops`. What does that do to the outputs of a network
# that was trained on single images? (The answer is a function of images and $n$ that returns two numbers: the expected
# variance, and how many times larger outputs in evaluation are than they would be with $\sigma$.)

# %%
answer = ...  # a function of images (N, 1, H, W) and n: (variance, times)
teaching.check("5.2", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 2"}
law = teaching.solution("5.2")
for n in (1, 2, 8):
    batches = crops[rng.integers(len(crops), size=(2000, n))]
    measured, (expected, times) = batches.var((1, 2, 3, 4)).mean(), law(crops, n)
    print(f"n = {n}: {measured:.3f}, by the law {expected:.3f}; outputs × {times:.2f}")
    assert abs(measured - expected) < 0.03
assert teaching.check("5.2", law)

# %% [markdown]
# **3. Repair a network without training it.** Two things may have hurt BatchNorm with batches of one: training on noisy
# statistics, or being evaluated with bad ones (noisy: a running mean with momentum 0.1 remembers some twenty batches;
# and too small, exercise 2). Find out which. Keep the weights and compute the running statistics again, as plain
# averages over the training images: once image by image, once in batches of 50. (What is checked is how they are
# computed.)

# %%
answer = ...  # a function of model, images and batch: makes the statistics anew
teaching.check("5.3", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 3"}
recalibrate, after = teaching.solution("5.3"), {}
print("GroupNorm", with_groups[0].round(1), "as trained", in_evaluation[0].round(1))
for batch in (1, 50):
    for model in of_one:
        recalibrate(model, images, batch)
    after[batch] = np.array([error(model) for model in of_one])
    print(f"running statistics of batches of {batch}:", after[batch].round(1))
assert after[50].mean() > with_groups[0].mean()
assert teaching.check("5.3", recalibrate)
