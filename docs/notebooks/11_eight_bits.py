# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 11. What eight bits cost
#
# A trained network multiplies floats of 32 bits. It can do with integers of eight: a quarter of the memory, and four
# products in an instruction for each one of floats. This lesson quantizes a small SD-UNet by hand: how a tensor becomes
# integers, what a convolution does with them, how the range is chosen, why kernels get seven bits and not eight, and
# what is left of the mask. The code that does it for real is [`export/int8.py`](../../tinyseg/export/int8.py) and
# [`export/calibration.py`](../../tinyseg/export/calibration.py), two pages each.

# %%
import time

import numpy as np
from matplotlib import pyplot as plt

from tinyseg import models, no_grad, ops, optim
from tinyseg.data import em_sections, standardize
from tinyseg.export import describe, quantize
from tinyseg.export.int8 import IntegerConvolution, Quantizer
from tinyseg.learn import teaching
from tinyseg.learn.teaching import BLUE, GREY, ORANGE

teaching.style()
teaching.use_one_core()  # for images this small, waking a second core costs more than it saves
images, labels = em_sections(12, 256, seed=0)
images = standardize(images)

# %% [markdown]
# A network to quantize: SD-UNet with 8 channels and three levels learns for a moment on crops of eight synthetic
# sections. The last two sections are for the scores.


# %%
def crops(rng, count=4, size=64):
    """Draw images and labels (count, 1, size, size) from the first eight sections."""
    places = zip(rng.integers(8, size=count), *rng.integers(256 - size, size=(2, count)), strict=True)
    windows = [(k, slice(i, i + size), slice(j, j + size)) for k, i, j in places]
    return tuple(np.stack([stack[window] for window in windows])[:, None] for stack in (images, labels))


model = models.build("sdunet", width=8, levels=3, dropout=0.0, seed=0)
optimizer, rng = optim.Adam(model.parameters(), lr=2e-3), np.random.default_rng(0)
for _ in range(150):
    x, y = crops(rng)
    loss = ops.binary_cross_entropy_with_logits(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
model.eval()
held_out, truth = images[10:, None], labels[10:]
with no_grad():
    floats = model(held_out).data[:, 0]
print(f"right with floats: {np.mean((floats > 0) == truth):.1%} of the pixels of two new sections")

# %% [markdown]
# ## A tensor on 256 steps
#
# A number $x$ becomes an integer $q$ from 0 to 255, and stands for $s\,(q-z)$:
#
# $$ q=\operatorname{round}(x/s)+z,\qquad s=\frac{\text{high}-\text{low}}{255},\qquad
#    z=\operatorname{round}(-\text{low}/s). $$
#
# $z$ is the *zero point*: the integer that stands for 0. 0 has one exactly, because convolutions pad with zeros. Inside
# the range the error is half a step at most; what lies beyond is clipped to its ends.

# %%
network = describe(model)
stem = network.encoder[0].convolutions[0]
x = held_out[:1]


def to_integers(x, low, high):
    s = (high - low) / 255
    z = np.rint(-low / s)
    return np.clip(np.rint(x / s) + z, 0, 255), s, z


q, s, z = to_integers(x, x.min(), x.max())
back = s * (q - z)
print(f"steps of {s:.4f}, zero point {z:.0f}; largest error {abs(back - x).max():.4f}")
assert abs(back - x).max() <= 0.51 * s
mine = Quantizer.of_range(x.min(), x.max())  # the same in tinyseg
assert mine.zero_point == z and np.array_equal(mine.quantize(x), q)

# %% [markdown]
# ## How wide should the range be?
#
# As wide as the values, one would think. But one bright speck, dust on the camera, would widen the steps for all. So
# the rarest values are left out of the range: they are clipped, which costs them much and the others nothing. Here is
# the error of a section with a speck of 30 deviations, and without, for ranges that hold more and more of the values.

# %%
speck = x.copy()
speck[0, 0, 100:102, 100:102] = 30
shares = 100 - np.geomspace(10, 1e-3, 40)  # per cent of the values that the range holds


def error(x, share):
    """Root mean square of what rounding and clipping change, of all but the speck."""
    low, high = np.percentile(x, [(100 - share) / 2, 100 - (100 - share) / 2])
    q, s, z = to_integers(x, min(low, 0), max(high, 0))
    off = (s * (q - z) - x)[x < 29]
    return np.sqrt((off**2).mean())


curves = {"without a speck": [error(x, p) for p in shares], "with one": [error(speck, p) for p in shares]}
assert error(speck, 100) > 3 * error(speck, 99.95)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Error against what is left out of the range. Both curves fall as less is clipped; the one with a speck rises steeply at the end"}}
figure, axes = plt.subplots()
for (name, values), colour in zip(curves.items(), (BLUE, ORANGE), strict=True):
    axes.loglog(100 - shares, values, color=colour, label=name)
axes.set(xlabel="left out of the range, % of the values", ylabel="error (root mean square)")
axes.invert_xaxis()
axes.legend()

# %% [markdown]
# **What to see.** From left to right less is clipped, and the error falls. With a speck it rises again as soon as the
# range has to hold it. The percentile `99.99` of the values of all your images together, which tinyseg takes, is
# hardly moved by it.
#
# ## A convolution of integers
#
# Kernels become integers $p$ with a scale $t$ and no zero point. Then a convolution is a sum of products of integers,
# without any rounding, and one factor at the end makes the next integers of it:
#
# $$ y=\sum xw+b\;\approx\; s\,t\Big(\sum (q-z)\,p+c\Big),\quad c=\operatorname{round}\Big(\frac b{st}\Big);\qquad
#    q'=\operatorname{round}\Big(\frac{s\,t}{s'}\Big(\sum (q-z)\,p+c\Big)\Big)+z'. $$
#
# A ReLU comes for nothing: its output begins at 0, so $z'=0$, and clipping to 0 is the ReLU (exercise 1).

# %%
w, b = stem.kernel, stem.bias  # (8, 1, 3, 3) and (8,)
t = abs(w).max(axis=(1, 2, 3)) / 63  # a scale for each output channel
p = np.rint(w / t[:, None, None, None])
c = np.rint(b / (t * s))
sums = ops.conv2d((q - z).astype(np.float64), p.astype(np.float64), c.astype(np.float64), padding="same").data
assert np.array_equal(sums, np.rint(sums))  # integers: nothing has been rounded
y = np.maximum(ops.conv2d(x, w, b, padding="same").data, 0)  # with floats
q1, s1, z1 = to_integers(y, 0, y.max())
found = np.clip(np.rint(sums * (s * t / s1)[:, None, None]), 0, 255)
print(f"of 256 steps, off by {abs(found - q1).mean():.2f} on average and by {abs(found - q1).max():.0f} at most")

by_tinyseg = IntegerConvolution(
    p.astype(np.int8), t.astype(np.float32), c.astype(np.int32), mine, Quantizer(np.float32(s1), 0)
)
assert np.mean(by_tinyseg(q.astype(np.uint8)) == found) > 0.999  # but for ties

# %% [markdown]
# ## One scale for a kernel, or one for each channel?
#
# In a standard convolution every output channel adds up many weights, and channels are of about one size. A depthwise
# kernel has nine weights a channel. Let one channel's be a hundred times another's, with one scale $t$ for all: the
# small ones round to nothing. Here are kernels whose channels differ by random factors, from alike to very uneven.

# %%
spreads = np.linspace(0, 2.5, 11)
errors = {"one scale": [], "a scale a channel": []}
rng = np.random.default_rng(1)
shape = rng.standard_normal((64, 9))
for spread in spreads:
    uneven = shape * np.exp(spread * rng.standard_normal((64, 1)))
    largest = abs(uneven).max(1, keepdims=True)
    for name, step in (("one scale", largest.max() / 63), ("a scale a channel", largest / 63)):
        off = np.rint(uneven / step) * step - uneven
        errors[name].append(np.sqrt((off**2).sum(1) / (uneven**2).sum(1)).mean())  # relative, mean over channels
assert errors["one scale"][-1] > 20 * errors["a scale a channel"][-1]

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Relative error of a channel's kernel against how uneven channels are. With one scale it rises from 1 per cent to about 80, with a scale a channel it stays at 1 per cent"}}
figure, axes = plt.subplots()
for (name, values), colour in zip(errors.items(), (ORANGE, BLUE), strict=True):
    axes.plot(spreads, 100 * np.array(values), color=colour, label=name)
axes.set(xlabel="how uneven: deviation of the logarithm of a channel's size", ylabel="error of a channel, %")
axes.legend()

# %% [markdown]
# **What to see.** Where channels are alike, one scale is enough; where they are not, it ruins the small ones. SD-UNet's
# are alike ([measured](../quantization.md#does-weight-standardization-help)), but a scale a channel costs next to
# nothing, so it is what tinyseg takes.
#
# ## Why seven bits
#
# Processors with AVX2 multiply bytes in pairs: $a_0b_0+a_1b_1$ in 16 bits, which hold up to 32767. With $a$ up to 255
# and $b$ up to 127 that is not enough, and the sum is cut off without a word. Kernels of seven bits, up to 63, fit.

# %%
a = rng.integers(0, 256, (100_000, 2))
for most in (127, 63):
    pairs = (a * rng.integers(-most, most + 1, a.shape)).sum(1)
    print(f"kernels up to {most}: largest possible pair {2 * 255 * most}, cut off {np.mean(abs(pairs) > 32767):.2%}")
    assert (2 * 255 * most > 32767) == (most == 127)

# %% [markdown]
# With VNNI (`vpdpbusd`) four products are added in 32 bits, and nothing is cut off. tinyseg uses it where it is, and
# seven bits all the same: then every processor gives the same integers.
#
# ## The whole network
#
# `quantize` runs the float network on some images and keeps how often which values occur; then every convolution but
# the last gets its integers. Norms stay float: they divide by small deviations.

# %%
quantized = quantize(network, images[:8, None])
eight = quantized(held_out)[:, 0]
changed = (eight > 0) != (floats > 0)
print(f"right: {np.mean((floats > 0) == truth):.2%} with floats, {np.mean((eight > 0) == truth):.2%} with 8 bits")
print(f"another class: {changed.mean():.2%} of the pixels")
assert changed.mean() < 0.03 and abs(np.mean((eight > 0) == truth) - np.mean((floats > 0) == truth)) < 0.01

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "A section, its probability with floats and with 8 bits, which look the same, and the pixels whose class changed, at the edges of membranes"}}
figure, row = plt.subplots(1, 4, figsize=(9.6, 2.7))
window = slice(60, 188), slice(60, 188)
pictures = {
    "section": held_out[0, 0], "floats": 1 / (1 + np.exp(-floats[0])), "8 bits": 1 / (1 + np.exp(-eight[0])),
    "another class": changed[0],
}  # fmt: skip
for axes, (title, picture) in zip(row, pictures.items(), strict=True):
    axes.imshow(picture[window])
    axes.set_title(title)
    axes.axis("off")

# %% [markdown]
# **What to see.** What changes its class is where the network was undecided, along the edges of membranes.
#
# ## How few bits would do?

# %%
bits = [2, 3, 4, 5, 6, 7]
with_bits = [quantize(network, images[:8, None], kernel_bits=n)(held_out)[:, 0] > 0 for n in bits]
share = [100 * np.mean(mask != (floats > 0)) for mask in with_bits]
right = [100 * np.mean(mask == truth) for mask in with_bits]
assert share[0] > 5 * share[-1]

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Against the bits of the kernels, from 2 to 7: the share of pixels that change their class falls from tens of per cent to less than one, and the share that is right rises to that of floats"}}
figure, (left, middle) = plt.subplots(1, 2, figsize=(8.4, 3.2))
left.semilogy(bits, share, "o-")
left.set(xlabel="bits in kernels", ylabel="pixels of another class, %")
middle.plot(bits, right, "o-")
middle.axhline(100 * np.mean((floats > 0) == truth), color=GREY, ls="--")
middle.annotate("floats", (2, 100 * np.mean((floats > 0) == truth)), (2, 2), textcoords="offset points", va="bottom")
middle.set(xlabel="bits in kernels", ylabel="right, %")

# %% [markdown]
# **What to see.** Each bit less doubles the steps, and more pixels change their class. Down to four bits as many are
# right as before, only not the same ones; below that the network goes wrong.
#
# ## What it buys
#
# Bytes, for certain: kernels of one byte instead of four. And time: here with a network of half the full width, which
# need not be trained for that, on one core of the machine that built this page.


# %%
def milliseconds(call, times=5):
    call()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        found.append(1e3 * (time.perf_counter() - start))
    return min(found)


wide = models.build("sdunet", width=32, seed=0).eval()
wide_network = describe(wide)
wide_eight = quantize(wide_network, images[:2, None])
as_floats = sum(part.kernel.nbytes for part in wide_network.parts)
as_integers = sum(each.kernel.nbytes for each in wide_eight.convolutions.values())
assert 3.9 < as_floats / as_integers < 4.1
print(f"kernels: {as_floats / 1e6:.2f} MB as floats, {as_integers / 1e6:.2f} MB as integers")
with no_grad():
    print(f"a section: {milliseconds(lambda: wide(x)):.0f} ms with floats", end=", ")
print(f"{milliseconds(lambda: wide_eight(x)):.0f} ms with 8 bits")

# %% [markdown]
# Processors with VNNI gain more. [More times, and other runtimes](../performance.md#exported).
#
# ## Exercises
#
# **1. A ReLU for nothing.** Show on the first convolution above that clipping to 0 … 255 with $z'=0$ gives exactly what
# a ReLU of the sums and then rounding would give. (The answer is tried on other sums, and
# other factors $s\,t/s'$ of the shape (C, 1, 1).)

# %%
answer = ...  # a function of sums and factor: (the integers with a ReLU, by clipping)
teaching.check("11.1", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 1"}
# round(f · max(S, 0)) = max(round(f · S), 0) for a factor f > 0, since rounding keeps the order and 0 stays 0.
def both_ways(sums, factor):
    with_relu = np.clip(np.rint(np.maximum(sums, 0) * factor), 0, 255)
    return with_relu, np.clip(np.rint(sums * factor), 0, 255)


assert teaching.check("11.1", both_ways)
with_relu, by_clipping = both_ways(sums, (s * t / s1)[:, None, None])
assert np.array_equal(with_relu, by_clipping) and (sums < 0).any()

# %% [markdown]
# **2. Why 0 must be exact.** Quantize a tensor of values from 1 to 3 with a range that does not contain 0, and pad it
# with the integer nearest to 0. What number do the borders get? How far off is the sum of a 3×3 box filter in the
# corner?

# %%
answer = ...  # what the borders get, and by how much the sum is too large
teaching.check("11.2", answer)

# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 2"}
# All integers stand for 1 … 3, so the nearest to 0 stands for 1. In a corner five of the nine taps lie outside: the sum
# is too large by 5. With 0 in the range it would be exact.
s2 = (3 - 1) / 255
outside = 1 + s2 * np.clip(np.rint((0 - 1) / s2), 0, 255)
assert outside == 1
inside = np.full((2, 2), 2.0)
padded = np.pad(inside, ((1, 0), (1, 0)), constant_values=outside)
off = padded.sum() - inside.sum()
assert off == 5 and teaching.check("11.2", (outside, off))

# %% [markdown]
# **3. Long sums forgive.** Round the weights of a sum of $n$ products to 7 bits and look at the relative error of the
# sum, for $n=9$ (a depthwise kernel) and $n=576$ (a standard one of 64 channels), with inputs from 0 to 1. How does it
# depend on $n$, and why does that make U-Net less sensitive than SD-UNet? (The answer is tried on many sums, one a
# row, and gives each row of weights a scale of its own.)

# %%
answer = ...  # a function of weights and inputs, (m, n): the m relative errors
teaching.check("11.3", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 3"}
# The errors are independent and add up as √n. So does a sum of products whose weights have a mean of 0, and the ratio
# stays the same; but where weights and inputs share a sign, as inputs after a ReLU and a kernel that is mostly
# positive do, the sum grows as n, and the relative error falls as 1/√n. A depthwise kernel has only nine terms.
def relative_errors(weights, inputs):
    step = abs(weights).max(1, keepdims=True) / 63
    exact = (weights * inputs).sum(1)
    return (np.rint(weights / step) * step * inputs).sum(1) / exact - 1


assert teaching.check("11.3", relative_errors)
rng = np.random.default_rng(2)
relative = {}
for n in (9, 576):
    weights, inputs = abs(rng.standard_normal((2000, n))), rng.uniform(0, 1, (2000, n))
    relative[n] = np.sqrt((relative_errors(weights, inputs) ** 2).mean())
    print(f"n = {n:3}: error {relative[n]:.2%}")
assert relative[9] / relative[576] > 4
