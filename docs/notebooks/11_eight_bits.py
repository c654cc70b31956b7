# %% [markdown]
# # 11. What eight bits cost
#
# A trained network multiplies floats of 32 bits. It can do with integers of eight: a quarter of the memory, and four
# products in an instruction for each one of floats. How does a network become integers, and what is left of the mask?
#
# **Afterwards you can** quantize a tensor and a convolution by hand, choose a range and the scales of kernels, and say
# why kernels get seven bits and not eight. The code that does it for real is
# [`export/int8.py`](../../tinyseg/export/int8.py) and [`export/calibration.py`](../../tinyseg/export/calibration.py),
# two pages each. **Time:** half an hour to read, as much again with the exercises; it runs within two minutes.

# %%
import timeit

import numpy as np

from tinyseg import models, no_grad, ops, optim
from tinyseg.data import em_sections, standardize
from tinyseg.export import describe, quantize
from tinyseg.export.int8 import IntegerConvolution, Quantizer
from tinyseg.learn import teaching
from tinyseg.learn.figures import notebook_11 as draw

teaching.style()
teaching.use_one_core()  # on small images a second one costs more than it saves
images, labels = em_sections(12, 256, seed=0)
images = standardize(images)

# %% [markdown]
# A network to quantize: SD-UNet with 8 channels and three levels learns for a moment on crops of eight synthetic
# sections. The last two sections are for the scores.


# %%
def crops(rng, count=4, size=64):
    """Images and labels (count, 1, size, size) from the first eight sections."""
    sections = rng.integers(8, size=count)
    corners = rng.integers(256 - size, size=(2, count))
    places = zip(sections, *corners, strict=True)
    windows = [(k, slice(i, i + size), slice(j, j + size)) for k, i, j in places]
    return [np.stack([a[w] for w in windows])[:, None] for a in (images, labels)]


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
right_with_floats = np.mean((floats > 0) == truth)
print(f"right with floats: {right_with_floats:.1%} of the pixels of two new sections")

# %% [markdown]
# ## A tensor on 256 steps
#
# A number $x$ becomes an integer $q$ from 0 to 255, and stands for $s\,(q-z)$:
#
# $$ q=\operatorname{round}(x/s)+z,\qquad s=\frac{\text{high}-\text{low}}{255},\qquad
#    z=\operatorname{round}(-\text{low}/s). $$
#
# $z$ is the *zero point*: the integer that stands for 0, and exactly so, because convolutions pad with zeros. Inside
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
    return np.sqrt(np.mean((s * (q - z) - x)[x < 29] ** 2))


curves = {"without a speck": x, "with one": speck}
curves = {name: [error(x, p) for p in shares] for name, x in curves.items()}
assert error(speck, 100) > 3 * error(speck, 99.95)
draw.ranges(100 - shares, curves)

# %% [markdown]
# **What to see.** From left to right less is clipped, and the error falls. With a speck it rises again as soon as the
# range has to hold it. Half of what is left out lies at each end, and the speck is one pixel in 16,384 of this section.
# tinyseg takes the range that holds `99.99` per cent of the values of *all* your images together; of these a speck in
# one of them is a much smaller share.
#
# ## A convolution of integers
#
# Kernels become integers $p$ with a scale $t$ and no zero point. Then a convolution is a sum of products of integers,
# without any rounding, and one factor at the end makes the next integers of it:
#
# $$ y=\sum xw+b\;\approx\; s\,t\Big(\sum (q-z)\,p+c\Big),\qquad c=\operatorname{round}\Big(\frac b{st}\Big), $$
#
# $$ q'=\operatorname{round}\Big(\frac{s\,t}{s'}\Big(\sum (q-z)\,p+c\Big)\Big)+z'. $$
#
# A ReLU comes for nothing: its output begins at 0, so $z'=0$, and clipping to 0 is the ReLU (exercise 1).

# %%
w, b = stem.kernel, stem.bias  # (8, 1, 3, 3) and (8,)
t = abs(w).max(axis=(1, 2, 3)) / 63  # a scale for each output channel
p = np.rint(w / t[:, None, None, None]).astype(np.int8)
c = np.rint(b / (t * s)).astype(np.int32)
sums = ops.conv2d(*(a.astype(np.float64) for a in (q - z, p, c)), padding="same").data
assert np.array_equal(sums, np.rint(sums))  # integers: nothing has been rounded
y = np.maximum(ops.conv2d(x, w, b, padding="same").data, 0)  # with floats
q1, s1, z1 = to_integers(y, 0, y.max())
found = np.clip(np.rint(sums * (s * t / s1)[:, None, None]), 0, 255)
off = abs(found - q1)
print(f"off by {off.mean():.2f} of 256 steps on average, by {off.max():.0f} at most")

next_one = Quantizer(np.float32(s1), 0)
by_tinyseg = IntegerConvolution(p, t.astype(np.float32), c, mine, next_one)
assert np.mean(by_tinyseg(q.astype(np.uint8)) == found) > 0.999  # but for ties

# %% [markdown]
# ## One scale for a kernel, or one for each channel?
#
# In a standard convolution every output channel adds up many weights, and channels are of about one size. A depthwise
# kernel has nine weights a channel. Let one channel's be larger than another's by a factor of 200, with one scale $t$
# for all: the small ones round to nothing. Here are kernels whose channels differ by random factors, from alike to very
# uneven.

# %%
spreads = np.linspace(0, 2.5, 11)
errors = {"one scale": [], "a scale a channel": []}
rng = np.random.default_rng(1)
shape = rng.standard_normal((64, 9))
for spread in spreads:
    uneven = shape * np.exp(spread * rng.standard_normal((64, 1)))
    largest = abs(uneven).max(1, keepdims=True)
    steps = largest.max() / 63, largest / 63
    for found, step in zip(errors.values(), steps, strict=True):
        off = np.rint(uneven / step) * step - uneven
        relative = np.linalg.norm(off, axis=1) / np.linalg.norm(uneven, axis=1)
        found.append(relative.mean())  # over the channels
assert errors["one scale"][-1] > 20 * errors["a scale a channel"][-1]
draw.scales(spreads, errors)

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
    cut, largest = np.mean(abs(pairs) > 32767), 2 * 255 * most
    print(f"kernels up to {most}: largest possible pair {largest}, cut off {cut:.2%}")
    assert (largest > 32767) == (cut > 0) == (most == 127)

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
changed, right = (eight > 0) != (floats > 0), np.mean((eight > 0) == truth)
print(f"right: {right_with_floats:.2%} with floats, {right:.2%} with 8 bits")
print(f"another class: {changed.mean():.2%} of the pixels")
assert changed.mean() < 0.03 and abs(right - right_with_floats) < 0.01
probabilities = [1 / (1 + np.exp(-z[0])) for z in (floats, eight)]
draw.masks(held_out[0, 0], *probabilities, changed[0])

# %% [markdown]
# **What to see.** What changes its class is where the network was undecided: along the edges of what it takes for
# membrane, rightly or not.
#
# ## How few bits would do?

# %%
bits = [2, 3, 4, 5, 6, 7]
few = [quantize(network, images[:8, None], kernel_bits=n)(held_out)[:, 0] for n in bits]
share = [100 * np.mean((logits > 0) != (floats > 0)) for logits in few]
right = [100 * np.mean((logits > 0) == truth) for logits in few]
assert share[0] > 5 * share[-1]
draw.fewer_bits(bits, share, right, 100 * right_with_floats)

# %% [markdown]
# **What to see.** Each bit less doubles the steps, and more pixels change their class. Down to four bits as many are
# right as before, only not the same ones; below that the network goes wrong.
#
# ## What it buys
#
# Bytes, for certain: kernels of one byte instead of four. And time: here with a network of half the full width, which
# need not be trained for that, on one core of the machine that built this page.

# %%
wide = models.build("sdunet", width=32, seed=0).eval()
wide_network = describe(wide)
wide_eight = quantize(wide_network, images[:2, None])
as_floats = sum(part.kernel.nbytes for part in wide_network.parts)
as_integers = sum(each.kernel.nbytes for each in wide_eight.convolutions.values())
assert 3.9 < as_floats / as_integers < 4.1
print(f"kernels: {as_floats / 1e6:.2f} MB, as integers {as_integers / 1e6:.2f} MB")
for name, run in {"floats": no_grad()(wide), "8 bits": wide_eight}.items():
    seconds = timeit.repeat(lambda run=run: run(x), number=1, repeat=6)
    print(f"a section: {1e3 * min(seconds):.0f} ms with {name}")

# %% [markdown]
# Processors with VNNI gain more. [More times, and other runtimes](../performance.md#exported).
#
# ## Exercises
#
# **1. A ReLU for nothing.** Show on the first convolution above that rounding and then clipping to 0 … 255, with
# $z'=0$, gives exactly what a ReLU of the sums, rounding and a limit of 255 would give. (The answer is tried on other
# sums, and other factors $s\,t/s'$ of the shape (C, 1, 1).)

# %%
answer = ...  # a function of sums and factor: (the integers with a ReLU, by clipping)
teaching.check("11.1", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 1"}
both_ways = teaching.solution("11.1")
with_relu, by_clipping = both_ways(sums, (s * t / s1)[:, None, None])
assert np.array_equal(with_relu, by_clipping) and (sums < 0).any()
assert teaching.check("11.1", both_ways)

# %% [markdown]
# **2. Why 0 must be exact.** Quantize a tensor of values from 1 to 3 with the range of just 1 to 3, and pad it with the
# integer that stands for the number nearest to 0. What number do the borders get? By how much is the sum of a 3×3 box
# filter too large in the corner, if borders should be 0?

# %%
answer = ...  # what the borders get, and by how much the sum is too large
teaching.check("11.2", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 2"}
outside, too_large = teaching.solution("11.2")()
print(f"the borders get {outside:.0f}, the sum is too large by {too_large:.0f}")
assert teaching.check("11.2", (outside, too_large))

# %% [markdown]
# **3. Long sums forgive.** Round the weights of a sum of $n$ products, all of them positive, to 7 bits and look at the
# relative error of the sum, for $n=9$ (a depthwise kernel) and $n=576$ (a standard one of 64 channels), with inputs
# from 0 to 1. How does it depend on $n$? What changes with weights of both signs? (The answer is tried on many sums,
# one a row, and gives each row of weights a scale of its own.)

# %%
answer = ...  # a function of weights and inputs, (m, n): the m relative errors
teaching.check("11.3", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 3"}
relative_errors, found = teaching.solution("11.3"), {}
for n in (9, 576):
    weights, inputs = abs(rng.standard_normal((2000, n))), rng.uniform(0, 1, (2000, n))
    found[n] = np.sqrt(np.mean(relative_errors(weights, inputs) ** 2))
    print(f"n = {n:3}: error {found[n]:.2%}")
assert found[9] / found[576] > 4
assert teaching.check("11.3", relative_errors)
