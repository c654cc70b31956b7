# %% [markdown]
# # 12. Where to start, and how far to step
#
# Training begins at random weights and takes steps. How large should the weights be, and how long the steps? A wrong
# answer to either, and the same network learns nothing or ends in `nan`.
#
# **Afterwards you can** derive the scale of first weights, say what a norm changes about it, and find a learning rate
# for a new network. **Time:** half an hour to read, as much again with the exercises; it runs within two minutes.

# %%
import numpy as np

from tinyseg import models, nn, ops, optim
from tinyseg.data import em_sections, standardize
from tinyseg.learn import teaching
from tinyseg.learn.figures import notebook_12 as draw

teaching.style()
teaching.use_one_core()  # for images this small, a second core costs more than it saves
rng = np.random.default_rng(0)

# %% [markdown]
# ## How large is the output of a layer?
#
# One number of a convolution's output is a sum of $\text{fan\_in} = k^2C$ products, $y=\sum_i w_i x_i$. Draw weights
# symmetrically about 0, independent of each other and of $x$: then $E[w_iw_j]=0$ for $i\neq j$. Squares remain,
#
# $$ \operatorname{var}(y)=E[y^2]=\sum_i E[w_i^2]\,E[x_i^2]=\text{fan\_in}\;\operatorname{var}(w)\;E[x^2] $$
#
# $y$ is above 0 as often as below, and as large there: a ReLU removes half of its mean square. Backwards the roles
# change. A pixel of the input is in $\text{fan\_out}=k^2K$ products, and the ReLU lets half of the gradients through.
# So, with $c=\frac12$ where there is a ReLU and $c=1$ elsewhere, the mean square is kept from layer to layer if
#
# $$ c\;\text{fan\_in}\,\operatorname{var}(w)=1\;\;\text{(forwards)},\qquad
# c\;\text{fan\_out}\,\operatorname{var}(w)=1\;\;\text{(backwards)} $$
#
# For $c=1$ this is by [Glorot and Bengio (2010)](https://proceedings.mlr.press/v9/glorot10a.html); between the two they
# take $\operatorname{var}(w)=2/(\text{fan\_in}+\text{fan\_out})$. For $c=\frac12$ it is by [He et al.
# (2015)](https://arxiv.org/abs/1502.01852), who show that either is enough, and take $2/\text{fan\_in}$. tinyseg writes
# $g/\text{fan\_in}$ with a *gain* $g$, 2 before a ReLU and otherwise 1 ([`nn/init.py`](../../tinyseg/nn/init.py)).
#
# A factor near 1 is harmless once. In a stack of $L$ layers it is taken to a power. If $\text{fan\_in}=
# \text{fan\_out}$, $E[x^2]=1$, and gradients have deviation 1 behind the last ReLU, output and gradient of layer $l$ have
#
# $$ \operatorname{var}(y_l)=g\,\big(\tfrac g2\big)^{l-1},\qquad
# \operatorname{var}(gy_l)=\tfrac12\big(\tfrac g2\big)^{L-l} $$

# %%
C, L = 64, 16
noise, gy = rng.normal(size=(2, 1, C, 40, 40)).astype(np.float32)


def through(layers, x, norm=False):
    """Deviations of each layer's output and of its gradient, away from the border."""
    outputs = []
    for layer in layers:
        y = layer(x)
        y.retain_grad()
        outputs.append(y)
        x = ops.relu(ops.group_norm(y, 8) if norm else y)
    x.backward(gy)
    arrays = np.array([(y.data, y.grad) for y in outputs])[..., 12:28, 12:28]
    return np.sqrt(np.mean(arrays**2, axis=(2, 3, 4, 5))).T


at, predicted = np.arange(1, L + 1), {}
measured = {1: [], 2: [], 4: []}  # gains: Glorot's (fan_in = fan_out), He's, twice He's
for gain, runs in measured.items():
    for draws in map(np.random.default_rng, range(4)):
        layers = [nn.Conv2d(C, C, 3, padding=1, gain=gain, rng=draws) for _ in at]
        runs.append(through(layers, noise))
    powers = (gain / 2) ** np.array([at - 1, L - at])
    predicted[gain] = np.sqrt([[gain], [0.5]] * powers)
    assert abs(np.log2(runs / predicted[gain])).max() < 2
draw.depth(at, measured, predicted)

# %% [markdown]
# **What to see** (lines: four seeds; dashed: the formula). At He's scale signals and gradients pass. With half of that
# variance, or twice of it, 16 layers make them $2^{8}$ times smaller, or larger. Such a network gives all images one
# answer, or has a huge loss and huge gradients. Seeds stray: the formula is a mean over all draws.
#
# ## fan_in is a count, and what a norm changes
#
# A depthwise kernel has the shape `(C, 3, 3)`, but one number of its output is a sum of 9 products: fan_in is 9. Who
# counts as for a standard convolution finds $9\,C$ (Keras' `he_normal` does), and gets kernels $\sqrt C$ times too
# small. (Their gain is 1: the pointwise half comes next, with no ReLU between.)
#
# Where a [norm](05_normalization.py) follows, or $w$ is [standardized](06_weight_standardization.py), its scale does
# not matter for the output: $f(sw)=f(w)$. Differentiate by $w$: $s\,\nabla f(sw)=\nabla f(w)$, the gradient goes with
# $1/s$ ([in full](../ops/weight_standardization.md#gradient)). How long a step is, relative to $w$, depends on the
# optimizer: SGD, or Adam ([Kingma and Ba 2015](https://arxiv.org/abs/1412.6980)) with running means $\hat m$ of
# $\nabla f$ and $\hat v$ of its square, both corrected for their start at 0.
#
# $$ \text{SGD:}\;\; w\leftarrow w-\eta\,\nabla f \qquad\qquad
# \text{Adam:}\;\; w\leftarrow w-\eta\,\hat m\,/\,(\sqrt{\hat v}+\epsilon) $$

# %%
signals = {}
for name, counted in (("9", 9), ("9 C", 9 * C), ("9 C, with GroupNorm", 9 * C)):
    draws = np.random.default_rng(0)
    layers = [nn.SeparableConv2d(C, C, 3, padding="same", rng=draws) for _ in range(8)]
    for layer in layers:
        layer.depthwise.weight.data *= np.float32(np.sqrt(9 / counted))
    signals[name] = through(layers, noise, norm="GroupNorm" in name)[0]
assert np.allclose(signals["9"] / signals["9 C"], 8.0 ** np.arange(1, 9), rtol=0.01)


def first_step(optimizer, scale, rate=1e-3):
    """How far the first step moves a layer's weights, relative to them; the output."""
    layer = nn.Conv2d(C, C, 3, padding="same", rng=0)
    layer.weight.data = layer.weight.data * np.float32(scale)
    before = layer.weight.data.copy()
    y = ops.group_norm(layer(noise), 8, eps=0.0)
    y.backward(gy)
    optimizer([layer.weight], rate).step()
    return np.linalg.norm(layer.weight.data - before) / np.linalg.norm(before), y.data


scales, moved = np.array([0.1, 0.3, 1, 3, 10]), {}
for optimizer, power in ((optim.SGD, 2), (optim.Adam, 1)):
    steps, outputs = zip(*(first_step(optimizer, s) for s in scales), strict=True)
    assert all(np.allclose(y, outputs[0], atol=1e-3) for y in outputs)
    assert np.allclose(steps * scales**power, steps[2], rtol=0.05)
    moved[optimizer.__name__] = steps
draw.norms(signals, scales, moved)

# %% [markdown]
# **What to see, left:** with the wrong count the signal vanishes; with a norm behind each layer the next one begins
# anew. **Right:** the output is the same for all five scales, but the scale acts as a learning rate. From tenfold
# weights SGD's step is a hundredth and Adam's a tenth, because Adam divides the gradient by its size. So with a norm
# the first scale no longer decides whether the network learns, but how fast.
#
# ## How far to step: two curvatures
#
# Near a minimum a loss is a bowl. The simplest that is not round has two curvatures, $\ell<L$. (From here on $L$ is a
# curvature, not the number of layers.)
#
# $$ f(u,v)=\tfrac12\big(\ell\,u^2+L\,v^2\big),\qquad
# u\leftarrow(1-\eta\,\ell)\,u,\quad v\leftarrow(1-\eta L)\,v $$
#
# At $\eta=1/L$ the steep direction is at its goal in one step. Beyond $2/L$ its factor is below $-1$: the error grows.

# %%
curvatures, steps = np.array([1, 10]), np.arange(26)[:, None]
rates = np.array([0.02, 0.05, 0.08, 0.1, 0.12, 0.15, 0.18, 0.205])
paths = [[0.8, 0.6] * (1 - rate * curvatures) ** steps for rate in rates]
losses = np.square(paths) @ curvatures / 2
assert paths[3][1, 1] == 0  # 1 / L
assert np.array_equal(losses[:, -1] > losses[:, 0], rates > 2 / 10)
draw.bowl(rates, curvatures, paths, losses)

# %% [markdown]
# **What to see** (a film: $\eta$ grows). Small rates creep along the valley. Beyond $1/L$ the path jumps from wall to
# wall and still gets on faster; beyond $2/L$ the jumps grow. The best rates lie close below the first that fails.
#
# ## A network: the sweep and the range test
#
# Nobody knows $L$ of a network, and it changes on the way. So try: train a small network for 30 steps with each of many
# rates, a factor $\sqrt{10}$ apart. SD-UNet has norms, U-Net has none. The *range test* of [Smith
# (2017)](https://arxiv.org/abs/1506.01186) needs one run only, in which the rate grows. (He raises it linearly and
# plots the accuracy; here it grows by a factor, and the loss is plotted.)

# %%
images, labels = em_sections(12, 256, seed=0)
images = standardize(images)


def train(name, optimizer, rates, seed=0):
    """Train a new network, one step with each of the rates; the loss of every step."""
    model = models.build(name, width=8, levels=3, dropout=0.0, seed=seed)
    optimizer, losses = optimizer(model.parameters()), []
    draws = np.random.default_rng(seed)
    for optimizer.lr in rates:
        k, (i, j) = draws.integers(12, size=2), draws.integers(192, size=2)
        crops = np.s_[k, None, i : i + 64, j : j + 64]
        loss = ops.binary_cross_entropy_with_logits(model(images[crops]), labels[crops])
        optimizer.zero_grad()
        with np.errstate(all="ignore"):  # what diverges overflows
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


runs = [("sdunet", "SGD", -3), ("sdunet", "Adam", -4.5), ("unet", "Adam", -4.5)]
sweep, tests = {}, {}
for name, method, least in runs:
    key, optimizer = (name, method), getattr(optim, method)
    rates = 10 ** (least + np.arange(9) / 2)
    ends = [train(name, optimizer, [rate] * 30)[-10:].mean() for rate in rates]
    growing = np.geomspace(rates[0] / 3, rates[-1] * 10, 80)
    sweep[key], tests[key] = (rates, ends), (growing, train(name, optimizer, growing))
    print(f"{name:6} {method:4}: best {rates[np.nanargmin(ends)]:.0e}")
assert sweep["unet", "Adam"][1][7] > 0.45 > sweep["sdunet", "Adam"][1][7]  # at 0.1
shares = np.array([labels.mean(), 1 - labels.mean()])
draw.rates(sweep, tests, -shares @ np.log(shares))

# %% [markdown]
# **What to see, left:** every curve has a side where little is learned, a valley, and an end: divergence (cross) or one
# answer for all pixels (dotted). SGD's valley lies elsewhere than Adam's, and Adam's ends sooner without norms.
# **Right:** one run shows where the loss begins to fall and where it rises again. Take a rate between the two, well
# below the end. U-Net's end comes later here: the smaller rates before were a warm-up, and no rate lasts for long.
#
# ## Warm-up and cosine
#
# At the start Adam's means hold one gradient, $\hat m/\sqrt{\hat v}=\pm1$: *every* weight moves by $\eta$. A *warm-up*
# raises the rate from near 0 during the first steps. At the end something else is in the way. With a gradient from few
# images, $w+n$ for $f=\frac12w^2$ with noise $n$ of variance 1, a constant rate never arrives:
#
# $$ E[w^2]\leftarrow(1-\eta)^2E[w^2]+\eta^2\qquad\Rightarrow\qquad E[w^2]\to\frac{\eta}{2-\eta} $$
#
# So the rate has to fall: [Loshchilov and Hutter (2017)](https://arxiv.org/abs/1608.03983) take half a cosine over $T$
# steps, $\eta_t=\frac12\eta\,(1+\cos\pi t/T)$, and restart it; tinyseg does not restart.


# %%
def cosine(rate, steps, warmup=0):
    optimizer = optim.SGD([nn.Parameter(np.zeros(1))], rate)
    schedule = optim.CosineAnnealingLR(optimizer, steps, warmup=warmup)
    return np.array([rate * schedule.rate(t) for t in range(steps)])


flat = np.ones(300)
bowls = {"large": 0.5 * flat, "small": 0.01 * flat, "cosine": cosine(0.5, 300)}
for name, rates in bowls.items():
    w, bowls[name] = np.full(2000, 10.0), []
    for rate in rates:
        w = w - rate * (w + rng.normal(size=2000))
        bowls[name].append(np.mean(w**2))
assert abs(np.mean(bowls["large"][-100:]) - 0.5 / 1.5) < 0.02  # η / (2 - η)
assert bowls["cosine"][-1] < 0.5 * min(bowls["large"][-1], bowls["small"][-1])

plans = {"constant": 0.03 * flat[:60], "warm-up, cosine": cosine(0.03, 60, warmup=15)}
plans["warm-up"] = np.where(np.arange(60) < 15, plans["warm-up, cosine"], 0.03)
losses = {}
for name, rates in plans.items():
    losses[name] = np.array([train("unet", optim.Adam, rates, seed) for seed in (0, 1)])
    print(f"{name:15}: last 15 steps {losses[name][:, -15:].mean(1).round(2)}")
assert losses["constant"].max(1).min() > 3 * losses["warm-up"].max()
assert losses["constant"][:, -15:].mean() > losses["warm-up"][:, -15:].mean()
draw.schedules(bowls, losses)

# %% [markdown]
# **What to see, left:** a large constant rate is quick and stays at $\eta/(2-\eta)$, a small one is slow; a cosine is
# quick first and ends far below both. **Right:** U-Net at a rate above the best of its sweep. Without a warm-up the
# loss shoots up in the second step, and one of two seeds stays behind to the end; with one the rate works. A cosine
# adds nothing clear in a run this short.
#
# ## What tinyseg does
#
# Adam with 2e-3, but 2e-4 for plain U-Net, which has no norm; a warm-up of 20 steps, a cosine, gradients of norm 1 at
# most. Little of it was [measured](../results.md#what-decided-the-first-results): after 120 steps at a
# constant rate, a copy of SD-UNet in PyTorch had an accuracy of <!-- n: results/learning rate/rows/Adam 3e-4/accuracy at step 120:.3f -->0.888<!-- /n --> with 3e-4, <!-- n: results/learning rate/rows/Adam 1e-3/accuracy at step 120:.3f -->0.895<!-- /n --> with 1e-3 and <!-- n: results/learning rate/rows/Adam 2e-3/accuracy at step 120:.3f -->0.896<!-- /n --> with 2e-3, one run each. Within 25
# steps at 3e-4 U-Net's gradients reached a norm of <!-- n: results/learning rate/gradient norm/U-Net -->248<!-- /n -->, SD-UNet's <!-- n: results/learning rate/gradient norm/SD-UNet:.1f -->2.5<!-- /n -->. With the paper's rate for tumours, 1e-5,
# [the whole tumour](../brain_tumours.md) of the one patient held out had a Dice of <!-- n: results/one patient/whole tumour/SD-UNet at 1e-5/100:.2f -->0.14<!-- /n --> after 100 steps, with 2e-3 of <!-- n: results/one patient/whole tumour/SD-UNet at 2e-3/100:.2f -->0.90<!-- /n -->.
#
# ## Exercises
#
# **1. Another bend.** A *leaky* ReLU gives $y$ where $y>0$, and otherwise $a\,y$. Which gain keeps the mean square
# through layer and leaky ReLU? Whose rules come back at $a=0$ and at $a=1$?

# %%
answer = ...  # g: a function of a
teaching.check("12.1", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 1"}
gain = teaching.solution("12.1")
y = np.sqrt(gain(0.2)) * rng.normal(size=100_000)  # from E[x²] = 1
print(f"{gain(0.2):.2f}; kept: {np.mean(np.where(y > 0, y, 0.2 * y) ** 2):.2f}")
assert teaching.check("12.1", gain)

# %% [markdown]
# **2. The best rate for a bowl.** After many steps the slower direction is what is left. With which rate does it shrink
# fastest, and by which factor does its distance from 0 shrink in each step? And with $L=100\,\ell$?

# %%
answer = ...  # (rate, factor): a function of ℓ and L
teaching.check("12.2", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 2"}
best = teaching.solution("12.2")
print("(rate, factor):", np.round([best(1, 10), best(1, 100)], 3).tolist())
assert teaching.check("12.2", best)

# %% [markdown]
# **3. The same run from other weights.** Weights before a norm are multiplied by $s$ at the start; the outputs of all
# steps shall stay what they were. Which rate do they need instead of $\eta$: with SGD, and with Adam ($\epsilon=0$)?

# %%
answer = ...  # (rate with SGD, rate with Adam): a function of s and η
teaching.check("12.3", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 3"}
same_run = teaching.solution("12.3")
for optimizer, rate in zip((optim.SGD, optim.Adam), same_run(10, 1e-3), strict=True):
    step, scaled = first_step(optimizer, 1)[0], first_step(optimizer, 10, rate)[0]
    print(f"{optimizer.__name__}: relative step {step:.4f}, from 10 w {scaled:.4f}")
    assert np.isclose(step, scaled, rtol=0.01)
assert teaching.check("12.3", same_run)
