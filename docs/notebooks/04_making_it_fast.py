# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4. Making it fast
#
# One layer, a depthwise 3×3 convolution, is written five times, and each program computes the same numbers. Why does
# the first need so much longer than the last, if all of them multiply and add equally often? At the end you can say,
# before a line is written, how fast a layer *can* be on a given machine, which of two limits stops it there,
# arithmetic or memory, and what helps against each.
#
# All times on this page were measured when it was built. On your machine the figures will differ, and perhaps the
# order.

# %%
import collections
import contextlib
import functools
import pathlib
import time

import numpy as np
from matplotlib import pyplot as plt
from numba import njit, prange

from tinyseg import Function, models, nn, no_grad, ops, optim, using
from tinyseg.fast import gpu
from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.gpu.launch import THREADS, blocks_for
from tinyseg.learn import teaching
from tinyseg.learn.teaching import BLUE, GREEN, GREY, ORANGE, PURPLE
from tinyseg.report import profile

teaching.style()
N, C, H, W = 2, 64, 256, 256  # two images at the first level of U-Net: 32 MiB
rng = np.random.default_rng(0)
x = rng.standard_normal((N, C, H, W), np.float32)
w = rng.standard_normal((C, 3, 3), np.float32)

# %% [markdown]
# ## The work
#
# A [depthwise convolution](../ops/depthwise_conv.md) filters every channel with a kernel of its own. With $X$ the
# image inside a border of zeros,
#
# $$ y[n,c,i,j] = \sum_{u=0}^{2}\sum_{v=0}^{2} X[n,c,\,i+u,\,j+v]\; w[c,u,v]. $$
#
# An output takes 9 products and 9 sums, 18 operations. At the least, one float32 is read for it and one written: 8
# bytes. The quotient is the layer's *arithmetic intensity*, $I = 18/8 = 2.25$ flop/byte, and it will decide
# everything.
#
# **a. Nine shifted adds.** For one tap $(u,v)$ and all outputs at once, the equation says: a shifted image times one
# number a channel. NumPy needs no loop over pixels.


# %%
def nine_adds(x, w):
    X = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros_like(x)
    for u in range(3):
        for v in range(3):
            y += X[:, :, u : u + x.shape[2], v : v + x.shape[3]] * w[:, u, v, None, None]
    return y


# %% [markdown]
# Count the bytes. Each tap reads the shifted image, writes the product, reads it again, reads `y` and writes `y`: 20
# bytes an output, nine times, and 12 more for the padded copy and the zeros. That is 192 bytes, where 8 would do, and
# arrays of 32 MiB are more than most caches hold: the bytes go to memory and come back.
#
# **b. The same in blocks.** No tap has to be finished for the whole array before the next one begins. If one channel
# of one image goes through all nine, its products and sums, 768 KiB, are still in cache when the next tap needs them.


# %%
def in_blocks(x, w, channels=1):
    y = np.empty_like(x)
    for n in range(len(x)):
        for c in range(0, x.shape[1], channels):
            y[n, c : c + channels] = nine_adds(x[n : n + 1, c : c + channels], w[c : c + channels])[0]
    return y


# %% [markdown]
# **c. Compiled.** [numba](https://numba.pydata.org) compiles loops in Python to machine code, the following fourteen
# lines for instance. The nine products are now added up *in a register*: no product and no partial sum is ever
# written. The padded channel is a small array in a core's own cache. `prange` shares the channels among the cores, and
# since no two of them write to the same place, the result does not depend on which is first.


# %%
@njit(parallel=True, fastmath={"contract"})  # contract: a product and a sum may become one instruction
def kernel(x, w, y):
    N, C, H, W = x.shape
    for p in prange(N * C):
        n, c = p // C, p % C
        X = np.zeros((H + 2, W + 2), np.float32)
        X[1:-1, 1:-1] = x[n, c]
        for i in range(H):
            for j in range(W):
                s = np.float32(0)
                for u in range(3):
                    for v in range(3):
                        s += X[i + u, j + v] * w[c, u, v]
                y[n, c, i, j] = s
    return y


# %% [markdown]
# **d. In memory that was used before.** `np.empty` seems to cost nothing. But the operating system hands out each page
# of a large array at its first touch, filled with zeros, and a training step makes hundreds of such arrays. tinyseg
# takes them from an [arena](../../tinyseg/fast/cpu/arena.py), which keeps what was freed for the next one of that size.
#
# **e. tinyseg's own.** [`fast/cpu/depthwise_conv.py`](../../tinyseg/fast/cpu/depthwise_conv.py) has the same loops
# inside. It takes any kernel size, stride and padding, is written in vectors, so that its speed does not hang on what
# the compiler sees, and its arrays lie *channels last*: all channels of a pixel side by side, as the matrix product of
# the pointwise layer behind it wants them.
#
# All five are checked against the maths file in float64. Then they race, in rounds: in each round everyone runs once,
# so that a slow moment of the machine hits all alike, and the median counts. One more takes part that computes
# nothing: it copies `x`. A layer of this size has to read and write as much.


# %%
def channels_last(x):
    """The same array with the channels of a pixel side by side in memory."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


@njit(parallel=True)
def copy(source, target):
    for i in prange(len(source)):
        target[i] = source[i]


def copy_x():
    copy(x.reshape(-1, W), target.reshape(-1, W))


def race(contestants, rounds):
    """Seconds of every run, {name: array}; each runs once before the rounds begin."""
    seconds = {name: [] for name in contestants}
    for k in range(rounds + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if k:
                seconds[name].append(time.perf_counter() - start)
    return {name: np.array(found) for name, found in seconds.items()}


x_last, target = channels_last(x), np.empty_like(x)
VERSIONS = {
    "a  nine shifted adds": lambda: nine_adds(x, w),
    "b  in blocks": lambda: in_blocks(x, w),
    "c  compiled": lambda: kernel(x, w, np.empty_like(x)),
    "d  memory reused": lambda: kernel(x, w, empty(x.shape)),
    "e  tinyseg": lambda: ops.depthwise_conv2d(x_last, w, padding="same").data,
}
with no_grad(), using(kernels="reference"):
    truth = ops.depthwise_conv2d(x.astype(float), w.astype(float), padding="same").data
for run in VERSIONS.values():
    assert abs(run() - truth).max() < 1e-5 * abs(truth).max()
del truth
seconds = race(VERSIONS | {"copy": copy_x}, rounds=11)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Bars on a logarithmic axis: the times of the five versions, and a line at the time of a copy."}}
first, floor = (1e3 * np.median(seconds[name]) for name in ("a  nine shifted adds", "copy"))
figure, axes = plt.subplots(figsize=(7.5, 2.9))
for k, name in enumerate(VERSIONS):
    low, middle, high = 1e3 * np.quantile(seconds[name], (0.25, 0.5, 0.75))
    axes.barh(k, middle, color=BLUE, height=0.6)
    axes.plot([low, high], [k, k], color="black", linewidth=1.2)
    text = f"{middle:.3g} ms, {first / middle:.3g} times as fast as a" if k else f"{middle:.3g} ms"
    axes.annotate(text, (high, k), (6, 0), textcoords="offset points", va="center")
axes.axvline(floor, color=ORANGE)
axes.annotate(f"a copy: {floor:.2g} ms", (floor, -0.8), (5, 0), textcoords="offset points", color=ORANGE, va="center")
axes.set(yticks=range(5), yticklabels=VERSIONS, ylim=(4.5, -1.2), xscale="log", xlim=(floor / 2, 12 * first))
axes.xaxis.set_major_formatter("{x:g}")
axes.set(xlabel="ms: median of 11 runs (black: quartiles)", title="One layer, five programs, the same numbers")
plt.show()

# %% [markdown]
# **What to see.** All five do the same arithmetic. From a to b nothing changed but *when* each operation happens. c
# and d differ in one array, which has nothing to do with convolution. The nearer a bar comes to the line of the copy,
# the less there is to win by better arithmetic. Between d and e the machine may decide either way: d is written for
# one case. Were the network to use it, the pointwise layer behind it would first have to bring its output into another
# order, which is a copy more.
#
# ## The roof
#
# A machine that does $R$ operations and moves $B$ bytes a second needs at least $\max(F/R,\ M/B)$ seconds for $F$
# operations on $M$ bytes. With $I=F/M$, its rate is at most
#
# $$ \min(R,\; I\cdot B), $$
#
# the *roofline* (Williams, Waterman and Patterson 2009). $B$ is measured by the copy above, $R$ by a product of
# matrices, NumPy's or tinyseg's own ([`fast/cpu/gemm.py`](../../tinyseg/fast/cpu/gemm.py)), whichever is faster. Under the same roof
# go the other layers that a network is made of, with 64 channels in and out: pointwise, $2\cdot64/8 = 16$ flop/byte,
# and dense 3×3, 144. A roof is what a machine can do at its best, so here the *fastest* run of each counts.

# %%
rows, n = 1536, 512
left, right = rng.standard_normal((rows, n), np.float32), rng.standard_normal((n, n), np.float32)
pixels = left.reshape(1, 32, -1, n).transpose(0, 3, 1, 2)  # as many pixels as rows, channels last
pointwise, dense = nn.PointwiseConv2d(C, C, bias=False), nn.Conv2d(C, C, 3, padding="same", bias=False)
layers = {"pointwise": lambda: pointwise(x_last), "dense 3×3": lambda: dense(x_last)}
with no_grad(), using(winograd=False):
    found = race({"product": lambda: ops.pointwise_conv2d(pixels, right), "copy": copy_x}, rounds=50)
    found |= race({"NumPy's": lambda: left @ right}, rounds=50)  # alone: its threads wait busily for a while
    seconds |= race(layers, rounds=7)
best = {name: times.min() for name, times in found.items()}
R, B = 2 * rows * n * n / min(best["product"], best["NumPy's"]), 2 * x.nbytes / best["copy"]
ridge = R / B
intensity = dict.fromkeys(VERSIONS, 18 / 8) | {"pointwise": 2 * C / 8, "dense 3×3": 18 * C / 8}
rate = {name: 8 * x.size * intensity[name] / seconds[name].min() for name in intensity}  # flop/s
for name in ("e  tinyseg", *layers):
    limit = "memory" if intensity[name] < ridge else "arithmetic"
    reached = rate[name] / min(R, intensity[name] * B)
    print(f"{name:10} {intensity[name]:6.2f} flop/byte, the limit is {limit}, reached: {reached:.0%} of the roof")

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Roofline: a slanted line for memory, a level one for arithmetic. The five versions stand above each other at 2.25 flop per byte, pointwise and dense layers to the right."}}
figure, axes = plt.subplots(figsize=(7.5, 4.6))
I, GR, GB = np.geomspace(0.05, 1000, 300), R / 1e9, B / 1e9
axes.plot(I, np.minimum(GR, I * GB), color="black", zorder=1)
axes.plot([0.05, ridge], [GR, GR], ":", color=GREY, zorder=1)
axes.annotate(f"arithmetic: {GR:.0f} Gflop/s", (0.05, GR), (4, 4), textcoords="offset points")
slope = {"rotation": np.degrees(np.arctan(1.15 * GB)), "rotation_mode": "anchor", "transform_rotates_text": True}
axes.text(0.2, 1.15 * 0.2 * GB, f"memory: {GB:.0f} GB/s", slope)
above = 0
for name in sorted(intensity, key=rate.get):  # labels from below, each above the one before
    colour = {"pointwise": GREEN, "dense 3×3": PURPLE}.get(name, BLUE)
    axes.plot(intensity[name], rate[name] / 1e9, "o", color=colour, markersize=8)
    above = max(rate[name] / 1e9, 1.35 * above) if name in VERSIONS else 0.7 * rate[name] / 1e9
    axes.annotate(name, (intensity[name], above), (9, 0), textcoords="offset points", va="center", color=colour)
a = rate["a  nine shifted adds"] / 1e9
axes.annotate("", (18 / 192, a), (2, a), arrowprops={"arrowstyle": "->", "color": BLUE, "linestyle": ":"})
axes.plot(18 / 192, a, "o", color="white", markeredgecolor=BLUE, markersize=8)
axes.annotate("what a moves", (18 / 192, a), (-6, -16), textcoords="offset points", color=BLUE)
axes.set(xscale="log", yscale="log", xlim=(0.05, 1000), ylim=(min(0.4 * a, 0.04 * GB), 4 * GR))
for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_formatter("{x:g}")
axes.set(xlabel="flop / byte", ylabel="Gflop / s", title="This machine's roof, and what stands under it")
plt.show()

# %% [markdown]
# **What to see.** The depthwise layer stands under the slanted roof on every processor that can do more than 2.25
# operations in the time of a byte, and most can do many times as many. No better loop can change that. The hollow mark
# is version a at the intensity that its *program* has, $18/192\approx 0.09$: NumPy does quickly what it was told, and
# it was told to move memory. A step up uses the machine better; a step to the right moves less. (Another way past a
# roof is to need fewer operations: [Winograd's method](../ops/winograd.md), which this picture leaves out, computes
# the dense layer with a quarter of the multiplications.)
#
# ## Where a training step goes
#
# What does it mean for a network? Each op is a node with the methods `forward` and `backward`. A stopwatch around
# both, put on every node at its call, adds up the time by kind of op;
# [`multiply_adds`](../../tinyseg/report/profile/trace.py) tells the arithmetic. (`FusedConv2d` is the standard first
# layer with its ReLU.)


# %%
def timed(method, entry, column, *arrays):
    start = time.perf_counter()
    result = method(*arrays)
    entry[column] += 1e3 * (time.perf_counter() - start)
    return result


@contextlib.contextmanager
def stopwatch():
    """Yield {kind of op: [ms forward, ms backward, multiply-adds]}, which fills while ops run."""
    found, call = collections.defaultdict(lambda: np.zeros(3)), Function.__call__

    def watched(node, *inputs):
        entry = found[type(node).__name__]
        for column, name in enumerate(("forward", "backward")):
            setattr(node, name, functools.partial(timed, getattr(node, name), entry, column))
        y = call(node, *inputs)
        entry[2] += profile.multiply_adds(node, [a.shape for a in inputs], y.shape)
        return y

    Function.__call__ = watched
    try:
        yield found
    finally:
        Function.__call__ = call


# %% [markdown]
# tinyseg computes a separable convolution as [one op](../ops/separable_conv.md). To see its parts, a second SD-UNet
# with the same weights takes plain steps. Both then do eight steps of training.


# %%
class PlainSteps(nn.SeparableConv2d):
    def forward(self, *xs):
        x = ops.concat(xs) if len(xs) > 1 else xs[0]
        x = ops.upsample(x, self.upsample) if self.upsample > 1 else x
        d = ops.depthwise_conv2d(x, self.depthwise.kernel(), None, self.depthwise.stride, self.depthwise.padding)
        return ops.relu(ops.pointwise_conv2d(d, self.pointwise.weight, self.pointwise.bias))


networks = {name: models.build("sdunet", width=32, dropout=0) for name in ("plain steps", "one op")}
for _, module in networks["plain steps"].named_modules():
    if type(module) is nn.SeparableConv2d:
        module.__class__ = PlainSteps
image = rng.standard_normal((1, 1, 256, 256), np.float32)
mask = (rng.random(image.shape) < 0.5).astype(np.float32)
with no_grad():
    assert np.allclose(*(model(image).data for model in networks.values()), atol=1e-4)
optimizers = {name: optim.Adam(model.parameters(), lr=1e-4) for name, model in networks.items()}
steps = {name: [] for name in networks}
for _ in range(8):
    for name, model in networks.items():
        with stopwatch() as found:
            optimizers[name].zero_grad()
            ops.binary_cross_entropy_with_logits(model(image), mask).backward()
            timed(optimizers[name].step, found["Adam"], 0)
        steps[name].append(found)
costs = {name: {op: np.median([s[op] for s in found[1:]], axis=0) for op in found[0]} for name, found in steps.items()}
convolutions = {op: entry for op, entry in costs["plain steps"].items() if entry[2]}
whole = sum(convolutions.values())
for op, (forward, backward, work) in convolutions.items():
    share = (forward + backward) / whole[:2].sum()
    print(f"{op:15} {work / whole[2]:4.0%} of the convolutions' multiply-adds, {share:4.0%} of their time")

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Bars: milliseconds of each kind of op in a training step, forward and backward, at the left in plain steps, at the right with fused ops."}}
figure, grid = plt.subplots(1, 2, figsize=(9, 3.4), sharex=True)
for axes, (name, found) in zip(grid, costs.items(), strict=True):
    spent = {op: entry[:2] for op, entry in sorted(found.items(), key=lambda item: -item[1][:2].sum())}
    total = sum(both.sum() for both in spent.values())
    shown = [op for op, both in spent.items() if both.sum() > 0.01 * total]
    for k, (forward, backward) in enumerate(spent[op] for op in shown):
        axes.barh(k, forward, color=BLUE, height=0.65)
        axes.barh(k, backward, left=forward, color=ORANGE, height=0.65)
        axes.text(forward + backward, k, f" {forward + backward:.1f}", va="center")
    axes.set(yticks=range(len(shown)), yticklabels=shown, ylim=(len(shown) - 0.4, -0.6), xlabel="ms")
    axes.set_title(f"{name}: {total:.0f} ms in ops and Adam")
    axes.text(0.98, 0.2, "forward", color=BLUE, transform=axes.transAxes, ha="right")
    axes.text(0.98, 0.1, "backward", color=ORANGE, transform=axes.transAxes, ha="right")
axes.set_xlim(right=1.18 * max(entry[:2].sum() for found in costs.values() for entry in found.values()))
plt.show()

# %% [markdown]
# **What to see.** At the left, the depthwise half takes a far larger share of the time than of the multiply-adds, and
# ops that hardly compute anything (ReLU, concatenation, upsampling, the norms) stand beside the convolutions: memory,
# all of them. At the right most of these are gone. The joined, upsampled input and the depthwise result live a few
# rows at a time in cache, where the matrix product picks them up. That is the remedy under a slanted roof: what cannot
# be computed faster need not be written.
#
# ## The same on a GPU
#
# A GPU has the same two limits, with larger numbers, and another way to divide the work. A *kernel* is what one
# *thread* does; 256 threads here make a *block*, and the blocks make up the *grid*. This is the plain forward kernel
# of [`fast/gpu/depthwise_conv.cu`](../../tinyseg/fast/gpu/depthwise_conv.cu), read as source: nothing on this page runs on a GPU.

# %%
source = pathlib.Path(gpu.__file__).with_name("depthwise_conv.cu").read_text()
for start in ("__device__ inline Task task_of", 'extern "C" __global__ void forward('):
    print(source[source.index(start) : source.index("\n}\n", source.index(start)) + 2])

# %% [markdown]
# There is no loop over outputs. A thread asks which one it is, divides that number into column `j`, row `s`, channel
# `c` and image `n`, adds up nine products in a register and writes the one output that nobody else writes. Threads run
# in *warps* of 32 that do the same instruction together. Since `j` varies fastest, a warp's 32 reads lie side by side,
# and memory delivers them in a few long pieces.
#
# But each thread reads nine values for one output, and its neighbours read nearly the same ones. In `forward_strips`,
# made for 3×3 and 2×2 kernels, a thread owns **8 outputs below each other**. It walks down its three columns once, and
# each value that it reads goes into up to three sums. The division of labour, in Python:


# %%
def owners(rows, H, W):
    """Which thread writes each output of a plane, as `task_of` has it for one channel of one image."""
    thread = np.full((H, W), -1)
    for t in range(blocks_for(H, rows) * W):  # blocks_for(a, b): a / b, rounded up
        j, s = t % W, t // W
        assert (thread[s * rows : (s + 1) * rows, j] == -1).all()  # nobody else writes here
        thread[s * rows : (s + 1) * rows, j] = t
    return thread


for rows in (1, 8):
    threads, reads = N * C * blocks_for(H, rows) * W, 3 * (rows + 2) / rows
    print(
        f"outputs a thread: {rows}, threads: {threads:,} in {blocks_for(threads):,} blocks of {THREADS}, "
        f"reads an output: {reads}"
    )

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "A plane of 24 by 64 outputs, grey by warp: one output a thread makes a warp half a row, strips make it a field of 32 by 8. Outlined: what one thread reads."}}
figure, grid = plt.subplots(1, 2, figsize=(9, 2.2), sharey=True)
for axes, rows, title in zip(grid, (1, 8), ("One output a thread", "A strip of 8 outputs a thread"), strict=True):
    warp = owners(rows, 24, 64) // 32
    axes.imshow((warp + warp // 2) % 2, vmin=-9, vmax=2)
    axes.add_patch(plt.Rectangle((19.5, 7.5), 1, rows, color=BLUE))
    axes.add_patch(plt.Rectangle((18.5, 6.5), 3, rows + 2, fill=False, edgecolor=ORANGE, linewidth=1.8))
    axes.text(23, 8, "what a thread\nwrites", color=BLUE, va="center")
    axes.text(18, 8, "and reads", color=ORANGE, ha="right", va="center")
    axes.set(title=f"{title} (grey: warps)", xlabel="column j")
grid[0].set_ylabel("row i")
plt.show()

# %% [markdown]
# **What to see.** Left: a warp writes 32 outputs of one row. Right: 32 columns of eight, with 3.75 reads an output in
# the place of 9. It is the step from a to c at another scale. On every machine the way is the same: count the bytes,
# then arrange that each is fetched once. [Performance](../performance.md) has tinyseg beside PyTorch and what was
# tried and dropped, [On a GPU](../gpu.md) the state of the CUDA kernels, [Contributing](../../CONTRIBUTING.md) the
# rules for writing either kind.
#
# ## Exercises
#
# **1. When does a layer leave the slanted roof?** Derive the intensity of a pointwise convolution from $C$ to $K$
# channels, weights apart. From how many channels on does arithmetic limit a layer with $C=K$ on *this* machine? And
# why does no number of output channels help a layer with $C=4$ where the ridge lies at 10 flop/byte?

# %%
answer = ...  # the intensity in flop/byte: a function of C and of K
teaching.check("4.1", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 1"}
def pointwise_intensity(C, K):
    return 2 * C * K / (4 * (C + K))  # a pixel: 2CK operations; C values read, K written


# With C = K it is C / 4, so the ridge is reached at C = 4 · ridge. For K -> infinity it tends to C / 2: each output must
# be written, and is a sum of C products only. With C = 4 that is 2 flop/byte.
assert pointwise_intensity(64, 64) == 16 and teaching.check("4.1", pointwise_intensity)
assert max(pointwise_intensity(4, K) for K in (4, 64, 1024, 10**6)) < 2
print(f"arithmetic is the limit from C = {np.ceil(4 * ridge):.0f} on")

# %% [markdown]
# **2. How large should a block be?** Version b takes one channel at a time. Predict what happens with 4, 16 and 64,
# and with images of 32×32 in the place of 256×256 (as many values, 64 times as many channels). Measure all eight
# cases. Which two costs pull in opposite directions? (Times cannot be checked. What can is where a prediction begins:
# how many KiB a block's products and sums are, counted as the 768 KiB above.)

# %%
answer = ...  # KiB for 1, 4, 16, 64 channels: [[four of 256×256], [four of 32×32]]
teaching.check("4.2", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 2"}
# A large block leaves the cache. A small one leaves the interpreter's share, some microseconds a NumPy call, to few values:
# one plane of 32 x 32 is 4 KiB. tinyseg aims at 512 KiB (`fast/cpu/by_channels.py`), whatever the shape.
def kib(channels, size):
    return 3 * 4 * channels * size**2 >> 10  # the padded copy, a product and the sum


many, many_w = x.reshape(2, 64 * C, 32, 32), np.repeat(w, 64, axis=0)
assert np.array_equal(in_blocks(many, many_w, 1), in_blocks(many, many_w, 64))
for size, images, taps in ((256, x, w), (32, many, many_w)):
    cases = {k: lambda k=k, images=images, taps=taps: in_blocks(images, taps, k) for k in (1, 4, 16, 64)}
    for k, found in race(cases, rounds=3).items():
        ms = 1e3 * np.median(found)
        print(f"{k:2} channels of {size:3}², {kib(k, size):5} KiB: {ms:5.0f} ms")
sizes = [[kib(k, size) for k in (1, 4, 16, 64)] for size in (256, 32)]
assert teaching.check("4.2", sizes)

# %% [markdown]
# **3. Past the roof by fusion.** In many networks a bias and a ReLU follow the depthwise layer. How many bytes an
# output must three ops move, and how many one? Predict the ratio of the times. Then make `kernel` compute $\max(y+b,
# 0)$ before it writes, check it against tinyseg, and compare it with three steps that work in place.

# %%
answer = ...  # (bytes of three ops, bytes of one, the kernel: f(x, w, b, y))
teaching.check("4.3", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 3"}
@njit(parallel=True, fastmath={"contract"})
def fused(x, w, b, y):
    N, C, H, W = x.shape
    for p in prange(N * C):
        n, c = p // C, p % C
        X = np.zeros((H + 2, W + 2), np.float32)
        X[1:-1, 1:-1] = x[n, c]
        for i in range(H):
            for j in range(W):
                s = b[c]  # where the sum starts: the bias costs nothing
                for u in range(3):
                    for v in range(3):
                        s += X[i + u, j + v] * w[c, u, v]
                y[n, c, i, j] = max(s, np.float32(0))
    return y


def three_steps(x, w, b):
    y = kernel(x, w, empty(x.shape))
    y += b[:, None, None]
    return np.maximum(y, 0, out=y)


# Each of three ops reads a value and writes one, 24 bytes an output; one op 8. Where memory is the limit a third of the
# time is the prediction. NumPy's two steps run on one core, so that the ratio may be larger.
b = rng.standard_normal(C, np.float32)
with no_grad():
    expected = ops.relu(ops.depthwise_conv2d(x, w, b, padding="same")).data
assert np.allclose(fused(x, w, b, empty(x.shape)), expected, atol=1e-4)
assert np.allclose(three_steps(x, w, b), expected, atol=1e-4)
assert teaching.check("4.3", (24, 8, fused))
found = race({"three": lambda: three_steps(x, w, b), "one": lambda: fused(x, w, b, empty(x.shape))}, rounds=7)
print(f"three ops take {np.median(found['three']) / np.median(found['one']):.1f} times as long as one")
