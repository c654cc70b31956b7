# %% [markdown]
# # 7. U-Net from blocks
#
# To say whether a pixel is membrane one has to know *what* is around it, which takes a wide view, and *where* exactly
# it lies, which takes a sharp one. How can one network have both?
#
# **Afterwards you can** build U-Net from two kinds of blocks, measure how far an output sees, and say what each
# connection carries. **Time:** half an hour to read, as much again with the exercises; it runs within two minutes.

# %%
import numpy as np
from scipy.stats import mannwhitneyu

from tinyseg import Tensor, models, nn, no_grad, ops, optim, prediction, using
from tinyseg.data import em_sections, standardize
from tinyseg.learn import teaching
from tinyseg.learn.figures import notebook_07 as draw

teaching.style()

# %% [markdown]
# ## Two blocks
#
# The **encoder** repeats: two 3×3 convolutions with their ReLUs, then a max pool that halves height and width. Channels
# double as pixels become fewer. The **decoder** goes the way back: upsample, convolve 2×2, *join* the result with what
# the encoder had at this resolution (the skip connection), two convolutions. "same" padding keeps all sizes.
#
# tinyseg's [`UNet`](../../tinyseg/models/unet.py) writes the same as a loop, and lets one op do a convolution with its
# ReLU, the upsampling before it and the joining. With the same weights both must give the same logits.


# %%
def block(c_in, c_out):
    first, second = (nn.Conv2d(c, c_out, 3, padding="same") for c in (c_in, c_out))
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())


class Decoder(nn.Module):
    def __init__(self, c_in, c_out):
        conv = nn.Conv2d(c_in, c_out, 2, padding="same")
        self.up = nn.Sequential(nn.Upsample(2), conv, nn.ReLU())
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


rng = np.random.default_rng(0)
mine, theirs = SmallUNet(8), models.build("unet", width=8, levels=3).eval()
for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
    p.data = q.data
image = rng.standard_normal((1, 1, 64, 96), np.float32)
with no_grad():
    assert np.allclose(mine(image).data, theirs(image).data, atol=1e-4)
print(f"{mine.num_parameters():,} parameters, the same logits")

# %% [markdown]
# ## The U, drawn by a network at work
#
# `nn.watch` calls a function after the forward pass of every module. Here it notes the shape of each output, and the
# drawing is made of nothing else: the height of a box is the image's height, its width the number of channels.

# %%
model = models.build("unet", width=32, levels=5).eval()
names, shapes = {id(module): name for name, module in model.named_modules()}, {}
with no_grad(), nn.watch(lambda part, y: shapes.update({names[id(part)]: y.shape})):
    model(np.zeros((1, 1, 256, 256), np.float32))
draw.the_u(shapes)

# %% [markdown]
# **What to see.** At each step down there are a quarter of the pixels and twice the channels: a box is half as high and
# twice as wide. A value reaches the output by a short way through one level, or by a long one through all five.
#
# ## How far an output sees
#
# The *receptive field* of an output is the set of inputs on which it depends. At level $l$ a pixel stands for $2^l$ of
# the image. So a 3×3 convolution there reaches $2^l$ pixels further to each side, a 2×2 one as far to one side, and a
# pooling from level $l-1$ into $l$ reaches $2^{l-1}$. Their sum along the longest way through the U bounds the radius;
# the model knows it as `receptive_radius`. Which inputs count *in fact*, and how much, says the gradient of one output
# with respect to the input: with a cotangent of 1 at the middle pixel and 0 elsewhere, `x.grad` is that picture. Its
# absolute value is averaged over four random images, because each switches other ReLUs on. (Without Winograd's method,
# whose rounding errors would put tiny numbers where zeros belong.)


# %%
def influence(model, shape=(4, 1, 256, 256)):
    """Mean |gradient| of output (128, 128) with respect to each pixel, (256, 256)."""
    noise = np.random.default_rng(0).standard_normal(shape, np.float32)
    x, gy = Tensor(noise, requires_grad=True), np.zeros(shape, np.float32)
    gy[:, :, 128, 128] = 1
    with using(winograd=False):
        model.eval()(x).backward(gy)
    return abs(x.grad).mean(axis=(0, 1))


fields = {}  # of each number of poolings: influence, bound, radius of 95 % of it
for levels in (2, 3, 4, 5):
    model = models.build("unet", width=8, levels=levels, dropout=0, seed=1)
    g, bound = influence(model), model.receptive_radius
    within = [g[128 - r : 129 + r, 128 - r : 129 + r].sum() for r in range(128)]
    fields[levels - 1] = g, bound, np.searchsorted(within, 0.95 * g.sum())
    rows = np.flatnonzero(g.any(axis=1)) - len(g) // 2
    assert max(abs(rows)) <= bound  # nothing at all is seen from farther away
    print(f"{levels - 1} poolings: bound ±{bound}, seen: {rows.min()} to {rows.max()}")
draw.receptive_fields(fields)

# %% [markdown]
# **What to see.** Each pooling more than doubles the view. The middle pixel sees less than the bound, which is that of
# the worst placed pixel, and not equally far to both sides: it is the first pixel of its cell at every level, and
# "same" puts the extra pixel of a 2 × 2 kernel at the bottom and right. Nearly all of the influence comes from a middle
# part (blue), and the deeper the network, the smaller this part is: many ways lead through the U to a near pixel, and
# few to one at the edge. This is the network before training.
#
# ## What skips carry
#
# Two networks begin with the same weights and get the same batches. One is a U-Net; in the other each skip is replaced
# by zeros, so that everything must pass through the bottom. They are to find membranes in [synthetic EM
# sections](../../tinyseg/data/synthetic.py), two of which are kept for testing. The score is the probability that a
# membrane pixel gets a higher membrane score than a pixel inside a cell (the area under the ROC curve; 0.5 is chance).

# %%
teaching.use_one_core()  # for small pieces a second one costs more than it saves
sections, inside = em_sections(num_sections=8, size=256, seed=1)
x, y = standardize(sections)[:, None], inside[:, None].astype(np.float32)


def rewire(up, skip=lambda a: a, below=lambda a: a):
    """Let a decoder see functions of the skip and of what comes from below."""
    up.forward = lambda x, s: up.block(skip(s), below(up.conv(x)))


def build(skips):
    model = models.build("unet", width=8, levels=4, dropout=0, seed=1)
    for up in () if skips else model.decoder:
        rewire(up, skip=lambda a: np.zeros_like(a.data))
    return model


def train(model, steps=120):
    """Train on pieces of the first six sections, four a step; return the losses."""
    rng, losses = np.random.default_rng(1), []
    optimizer = optim.Adam(model.train().parameters(), lr=2e-3)
    for _ in range(steps):
        i, j = rng.integers(0, 161, 2)
        batch = np.s_[rng.permutation(6)[:4], :, i : i + 96, j : j + 96]
        loss = ops.binary_cross_entropy_with_logits(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def score(model):
    """Return the prediction of a test section, and the area under the curve of both."""
    p, inside = prediction.predict(model, x[6:]), y[6:] == 1
    pairs = mannwhitneyu(p[inside], p[~inside]).statistic  # in which "inside" is higher
    return p[0, 0], pairs / (inside.sum() * (~inside).sum())


networks = {"with skips": build(skips=True), "without": build(skips=False)}
losses = {name: train(model) for name, model in networks.items()}
found = {name: score(model) for name, model in networks.items()}
assert found["with skips"][1] > found["without"][1] + 0.01
draw.with_and_without_skips(losses, x[6, 0], y[6, 0], found)

# %% [markdown]
# **What to see.** Without skips the network finds *that* there are membranes, and cannot draw them: at the bottom one
# pixel stands for 8 × 8, and where in these 64 a line runs would have to be encoded in channels. With skips the fine
# levels say where the lines are, and the deep ones need only say which of them matter.
#
# Now the trained U-Net with one connection cut: its channels become their means over the image, which tell how much
# there is of a feature, but not where. The upper row cuts a skip, the lower one what comes from below a level.


# %%
def flat(a):
    return np.broadcast_to(a.data.mean(axis=(2, 3), keepdims=True), a.shape).copy()


unet, cuts = networks["with skips"], {"skip": [], "below": []}
for what, scores in cuts.items():
    for up in reversed(unet.decoder):  # from level 0 down
        rewire(up, **{what: flat})
        scores.append(score(unet))
        rewire(up)
assert cuts["skip"][0][1] < min(cuts["skip"][2][1], found["with skips"][1] - 0.01)
draw.cuts(found["with skips"], y[6, 0], cuts)

# %% [markdown]
# **What to see.** (Each picture has its own scale of grey.) The topmost skip, of level 0, carries the sharp position of
# the lines; cutting the deepest costs much less. In the lower row, what comes from below level 0 decides *which* dark
# lines are membranes: without it the network is a filter of 9 × 9 pixels, and organelles are as dark as membranes.
# After so short a training the levels further down do little; they pay with longer training and larger structures.
#
# ## Sizes, padding, checkerboards
#
# Each pooling halves the size, so height and width must be multiples of $2^{\text{levels}-1}$. The model says so;
# [`prediction`](../../tinyseg/prediction/tiles.py) pads by mirroring at the bottom and right, and crops the result.
#
# The other trap is the way up. A transposed convolution with stride 2 adds stamps of its kernel. Where 3×3 stamps
# overlap, an output gets one, two or four contributions, and even a constant image becomes a checkerboard. Kernels of
# 2×2 do not overlap, yet give each pixel of a stamp a weight of its own. U-Net here upsamples and then convolves, so
# that every pixel is made in the same way.

# %%
small = x[6:7, :, :250, :250]
try:
    unet(small)
except ValueError as error:
    print(error)
padded, full = (prediction.predict_logits(unet, a)[0, 0] for a in (small, x[6:7]))
difference, reach = abs(full[:250, :250] - padded), 250 - unet.receptive_radius
assert difference[:reach, :reach].max() < 1e-3 < difference.max()

ones = np.ones((1, 1, 7, 7), np.float32)
two, three = (rng.random((1, 1, k, k), np.float32) for k in (2, 3))
ways_up = {
    "transposed, 3×3": ops.conv_transpose2d(ones, three, stride=2),
    "transposed, 2×2": ops.conv_transpose2d(ones, two, stride=2),
    "upsample, then 2×2": ops.conv2d(ops.upsample(ones, 2), two, padding="same"),
}
even = ways_up["upsample, then 2×2"].data[..., :-1, :-1]  # without the padded end
assert np.ptp(even) < 1e-6
draw.borders_and_checkerboards(difference, reach, ways_up)

# %% [markdown]
# **What to see.** Left: the six rows and columns that had to be invented change the logits near them, and none beyond
# the receptive radius (white lines). Right: of three ways to double a constant image only the last is even, up to a row
# and a column at the end: a 2×2 kernel cannot be centred, and "same" puts the missing zeros there.
#
# ## Exercises
#
# **1. Count the reach.** Find a closed formula for the bound on the radius of the receptive field of a U-Net with $b$
# poolings and two convolutions a block: how far reach the convolutions on the way down, the poolings, the decoder? Test
# it on the models above. How many poolings must a network have whose middle output is to see all of an image of 512 ×
# 512?

# %%
answer = ...  # the radius, a function of b; the number of poolings
teaching.check("7.1", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 1"}
radius_of, needed = teaching.solution("7.1")()
assert all(radius_of(b) == bound for b, (_, bound, _) in fields.items())
print(f"{needed} poolings: five reach at most {radius_of(5)} pixels, not 256")
assert teaching.check("7.1", (radius_of, needed))

# %% [markdown]
# **2. Short ways.** What part of the influence on an output comes from the 5 × 5 pixels around it? Compare the two
# networks, before and after training. What have skips to do with it?

# %%
answer = ...  # that part, from 0 to 1: a function of the model
teaching.check("7.2", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 2"}
share_of_middle = teaching.solution("7.2")
fresh = {"with skips": build(skips=True), "without": build(skips=False)}
for when, pair in {"before": fresh, "after": networks}.items():
    shares = {name: share_of_middle(influence(model)) for name, model in pair.items()}
    print(f"{when} training:", {name: f"{share:.1%}" for name, share in shares.items()})
    assert shares["with skips"] > 1.3 * shares["without"]
assert teaching.check("7.2", lambda model: share_of_middle(influence(model)))

# %% [markdown]
# **3. Join or add?** Some networks *add* the skip to what comes from below. Show, with numbers, that a convolution of a
# sum is a special case of the convolution of what is joined. What does joining cost: how many weights of the original
# U-Net, `models.build("unet")`, would addition save?

# %%
answer = ...  # the kernel for what is joined, a function of w; the weights saved
teaching.check("7.3", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 3"}
original = models.build("unet")
kernel_for_joined, saved = teaching.solution("7.3")(original)
(skip, below), w = rng.normal(size=(2, 1, 8, 9, 9)), rng.normal(size=(4, 8, 3, 3))
added = ops.conv2d(skip + below, w)
joined = ops.conv2d(ops.concat([skip, below]), kernel_for_joined(w))
assert np.allclose(added.data, joined.data)
print(f"adding saves {saved:,} weights, {saved / original.num_parameters():.0%}")
assert teaching.check("7.3", (kernel_for_joined, saved))
