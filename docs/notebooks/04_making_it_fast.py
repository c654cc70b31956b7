# %% [markdown]
# # 4. Making it fast
#
# One layer, a depthwise 3×3 convolution, is written five times, and each program computes the same numbers. Why does
# the first need so much longer than the last, if all of them multiply and add equally often?
#
# **Afterwards you can** say, before a line is written, how fast a layer *can* be on a given machine, which of two
# limits stops it there, arithmetic or memory, and what helps against each. **Time:** three quarters of an hour to read,
# as much again with the exercises; it runs within two minutes.
#
# This notebook needs numba, which compiles Python: `pip install tinyseg[fast]`. All times were measured when the page
# was built. On your machine they will differ, and perhaps their order.

# %%
import cProfile
import pathlib
import timeit

import numpy as np
from numba import njit, prange

from tinyseg import models, nn, no_grad, ops, using
from tinyseg.fast import gpu
from tinyseg.fast.cpu.arena import empty
from tinyseg.learn import teaching
from tinyseg.learn.figures import notebook_04 as draw
from tinyseg.report.profile.steps import make_batch, make_step

teaching.style()
N, C, H, W = 2, 64, 256, 256  # two images at the first level of U-Net: 32 MiB
rng = np.random.default_rng(0)
x, w = (rng.standard_normal(s, np.float32) for s in ((N, C, H, W), (C, 3, 3)))

# %% [markdown]
# ## The work
#
# A [depthwise convolution](../ops/depthwise_conv.md) filters every channel with a kernel of its own. With $X$ the image
# inside a border of zeros,
#
# $$ y[n,c,i,j] = \sum_{u=0}^{2}\sum_{v=0}^{2} X[n,c,\,i+u,\,j+v]\; w[c,u,v]. $$
#
# An output takes 9 products and 9 sums, 18 operations. At the least, one float32 is read for it and one written: 8
# bytes. The quotient is the layer's *arithmetic intensity*, $I = 18/8 = 2.25$ flop/byte, and it will decide everything.
#
# **a. Nine shifted adds.** For one tap $(u,v)$ and all outputs at once, the equation says: a shifted image times one
# number a channel. NumPy needs no loop over pixels.
#
# Count the bytes. Each tap reads the shifted image, writes the product, reads it again, reads `y` and writes `y`: 20
# bytes an output, nine times, and 12 more for the padded copy and the zeros. That is 192 bytes, where 8 would do, and
# arrays of 32 MiB are more than most caches hold: the bytes go to memory and come back.
#
# **b. The same in blocks.** No tap has to be finished for the whole array before the next one begins. If one channel of
# one image goes through all nine, its three arrays (padded copy, product and sum: 768 KiB) stay in cache all the while.


# %%
def nine_adds(x, w):
    X, y = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), np.zeros_like(x)
    H, W = x.shape[2:]
    for u in range(3):
        for v in range(3):
            y += X[:, :, u : u + H, v : v + W] * w[:, u, v, None, None]
    return y


def in_blocks(x, w, channels=1):
    y = np.empty_like(x)
    for n in range(len(x)):
        for c in range(0, x.shape[1], channels):
            block = slice(c, c + channels)
            y[n, block] = nine_adds(x[n : n + 1, block], w[block])[0]
    return y


# %% [markdown]
# **c. Compiled.** [numba](https://numba.pydata.org) compiles loops in Python to machine code. The nine products are now
# added up *in a register*: no product and no partial sum is ever written. The padded channel is a small array in a
# core's own cache. `prange` shares the channels among the cores, and no two of them write to the same place.
#
# **d. In memory that was used before.** `np.empty` seems to cost nothing. But the operating system hands out each page
# of a large array at its first touch, filled with zeros, and a training step makes hundreds of such arrays. tinyseg
# takes them from an [arena](../../tinyseg/fast/cpu/arena.py), which keeps what was freed for the next one of that size.
#
# **e. tinyseg's own.** [`fast/cpu/depthwise_conv.py`](../../tinyseg/fast/cpu/depthwise_conv.py) has the same loops for
# any kernel. Its arrays lie *channels last*, the channels of a pixel side by side, as a pointwise layer wants them.
#
# All five are checked against the op's plain NumPy code in float64. Then they race in rounds, so that a slow moment of
# the machine hits all alike. One more takes part that only copies `x`: a layer of this size has to read and write as
# much.


# %%
@njit(parallel=True, fastmath={"contract"})  # a product and a sum in one instruction
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


@njit(parallel=True)
def copy(x, y):
    for p in prange(N * C):
        y[p // C, p % C] = x[p // C, p % C]


# %%
def race(contestants, rounds):
    """Seconds of every run but the first, {name: list}."""
    seconds = {name: [] for name in contestants}
    for _ in range(rounds + 1):
        for name, run in contestants.items():
            seconds[name].append(timeit.timeit(run, number=1))
    return {name: found[1:] for name, found in seconds.items()}


x_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
VERSIONS = {
    "a  nine shifted adds": lambda: nine_adds(x, w),
    "b  in blocks": lambda: in_blocks(x, w),
    "c  compiled": lambda: kernel(x, w, np.empty_like(x)),
    "d  memory reused": lambda: kernel(x, w, empty(x.shape)),
    "e  tinyseg": lambda: ops.depthwise_conv2d(x_last, w, padding="same").data,
}
with using(kernels="reference"):
    truth = ops.depthwise_conv2d(x.astype(float), w.astype(float), padding="same").data
for run in VERSIONS.values():
    assert abs(run() - truth).max() < 1e-5 * abs(truth).max()
COPY = {"copy": lambda: copy(x, empty(x.shape))}
seconds = race(VERSIONS | COPY, rounds=11)
draw.race(seconds)

# %% [markdown]
# **What to see.** From a to b nothing changed but *when* each operation happens. c and d differ in one array, which has
# nothing to do with convolution. The nearer a bar is to the line of the copy, the less there is to win by better
# arithmetic. (d may be faster than e, but a pointwise layer after it would need a copy more.)
#
# ## The roof
#
# A machine that does $R$ operations and moves $B$ bytes a second needs at least $\max(F/R,\ M/B)$ seconds for $F$
# operations on $M$ bytes. With $I=F/M$, its rate is at most
#
# $$ \min(R,\; I\cdot B), $$
#
# the *roofline* ([Williams, Waterman and Patterson 2009](https://doi.org/10.1145/1498765.1498785)). Its two parts meet
# at the *ridge*, $I=R/B$. $B$ is measured by the copy above, $R$ by tinyseg's product of matrices
# ([`fast/cpu/gemm.py`](../../tinyseg/fast/cpu/gemm.py)), of a size that fits into the cache. Under the same roof go the
# other layers that a network is made of, with 64 channels in and out: pointwise, $2\cdot64/8 = 16$ flop/byte, and dense
# 3×3, 144. A roof is what a machine can do at its best, so the *fastest* run of each counts.

# %%
rows = rng.standard_normal((1, 32, 48, 512), np.float32).transpose(0, 3, 1, 2)
M = rng.standard_normal((512, 512), np.float32)
pointwise = nn.PointwiseConv2d(C, C, bias=False)
dense = nn.Conv2d(C, C, 3, padding="same", bias=False)
layers = {"pointwise": lambda: pointwise(x_last), "dense 3×3": lambda: dense(x_last)}
with no_grad(), using(winograd=False):
    seconds |= race({"product": lambda: ops.pointwise_conv2d(rows, M)}, rounds=50)
    seconds |= race(layers, rounds=7) | race(COPY, rounds=50)
best = {name: min(found) for name, found in seconds.items()}
R, B = 2 * rows.size * 512 / best["product"], 2 * x.nbytes / best["copy"]
intensity = dict.fromkeys(VERSIONS, 18 / 8) | {"pointwise": 16, "dense 3×3": 144}
rate = {name: 8 * x.size * I / best[name] for name, I in intensity.items()}  # flop/s
for name in ("e  tinyseg", *layers):
    reached = rate[name] / min(R, intensity[name] * B)
    print(f"{name:10} reaches {reached:.0%} of the roof")
draw.roofline(intensity, rate, 18 / 192, R, B)

# %% [markdown]
# **What to see.** The depthwise layer stands under the slanted roof on every processor that can do more than 2.25
# operations in the time of a byte. No better loop can change that. The hollow mark is version a at its *program's*
# intensity, $18/192\approx 0.09$: most of its time goes into moving memory, as NumPy was told. A step up uses the
# machine better; one to the right moves less. (Left out: [Winograd's method](../ops/winograd.md), which computes less.)
#
# ## Where a training step goes
#
# What does it mean for a network? Each op is a node with the methods `forward` and `backward`, and Python's own
# profiler finds the time in both. tinyseg computes a separable convolution as [one op](../ops/separable_conv.md). To
# see its parts, seven training steps run it in plain steps and seven, in turn with them, as one op; of each method the
# shortest time counts. (`FusedConv2d` is the standard first layer with its ReLU.)


# %%
def plain_steps(layer, *xs):
    x = ops.concat(xs) if len(xs) > 1 else xs[0]
    x = ops.upsample(x, layer.upsample) if layer.upsample > 1 else x
    return ops.relu(layer.pointwise(layer.depthwise(x)))


def keep_shortest(step, ms):
    """Run a step; keep the shortest time in each method: {"Relu.forward": 1.5}."""
    with cProfile.Profile() as profiler:
        step()
    for called in profiler.getstats():  # every function
        file = pathlib.Path(getattr(called.code, "co_filename", ""))
        name = getattr(called.code, "co_qualname", "")
        if file.parent.name == "ops" and name.endswith((".forward", ".backward")):
            ms[name] = min(1e3 * called.totaltime, ms.get(name, np.inf))


model, one_op = models.build("sdunet", width=32, dropout=0), nn.SeparableConv2d.forward
step = make_step(model, make_batch(model, (1, 1, 256, 256)), training=True)
layer = nn.SeparableConv2d(C, C, 3, padding="same", activation="relu")
assert np.allclose(plain_steps(layer, x).data, layer(x).data, atol=1e-4)
costs = {"plain steps": {}, "one op": {}}
for _ in range(7):
    for ms, forward in zip(costs.values(), (plain_steps, one_op), strict=True):
        nn.SeparableConv2d.forward = forward
        keep_shortest(step, ms)
ms = costs["plain steps"]
share = ms["DepthwiseConv2d.forward"] / ms["PointwiseConv2d.forward"]
print(f"forward, the depthwise half takes {share:.0%} of the pointwise half's time")
draw.training_step(costs)

# %% [markdown]
# **What to see.** With $K$ channels out, here 32 to 512, the depthwise half has at most $9/K$ of the pointwise half's
# multiply-adds, and at the left it takes a far larger share of the time. Ops that hardly compute anything (ReLU,
# concatenation, upsampling, the norms) stand beside the convolutions: memory, all of them. At the right most of these
# are gone. The joined, upsampled input and the depthwise result live a few rows at a time in cache, where the matrix
# product picks them up. That is the remedy under a slanted roof: what cannot be computed faster need not be written.
#
# ## The same on a GPU
#
# A GPU has the same two limits, with larger numbers, and another way to divide the work. A *kernel* is what one
# *thread* does; 256 threads here make a *block*, and the blocks make up the *grid*. Below is the plain forward kernel
# of [`fast/gpu/depthwise_conv.cu`](../../tinyseg/fast/gpu/depthwise_conv.cu), as source; nothing here runs on a GPU.
#
# There is no loop over outputs. A thread divides its number into column `j`, row `s`, channel `c` and image `n`, adds
# up nine products in a register and writes the one output that nobody else writes. Threads run in *warps* of 32 that do
# the same instruction together. With `j` fastest, a warp's 32 reads lie side by side, and come in a few long pieces.
#
# But each thread reads nine values, and its neighbours nearly the same ones. In `forward_strips` a thread owns **8
# outputs below each other**. It walks down three columns once, and each value that it reads goes into up to three sums.

# %%
code = pathlib.Path(gpu.__file__).with_name("depthwise_conv.cu").read_text()
for start in ("__device__ inline Task task_of", 'extern "C" __global__ void forward('):
    print(code[code.index(start) :].partition("\n}\n")[0] + "\n}")
i, j = np.mgrid[:24, :64]  # a plane of outputs
warps = {rows: (i // rows * 64 + j) // 32 for rows in (1, 8)}  # of each output's thread
draw.strips(warps)

# %% [markdown]
# **What to see.** Left: a warp writes 32 outputs of one row. Right: 32 columns of eight, with 3 · 10 / 8 = 3.75 reads
# an output in the place of 9. It is the step from a to c at another scale. On every machine the way is the same: count
# the bytes, then arrange that each is fetched once. (More: [Performance](../performance.md), [On a GPU](../gpu.md).)
#
# ## Exercises
#
# **1. When does a layer leave the slanted roof?** Derive the intensity of a pointwise convolution from $C$ to $K$
# channels, weights apart. From how many channels on does arithmetic limit a layer with $C=K$ on *this* machine? And why
# does no number of output channels help a layer with $C=4$ where the ridge lies at 10 flop/byte?

# %%
answer = ...  # the intensity in flop/byte: a function of C and of K
teaching.check("4.1", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 1"}
of_pointwise = teaching.solution("4.1")
print(f"arithmetic is the limit from C = {np.ceil(4 * R / B):.0f} on")
assert teaching.check("4.1", of_pointwise)

# %% [markdown]
# **2. How large should a block be?** Version b takes one channel at a time. Predict what happens with 4, 16 and 64, and
# with images of 32×32 in the place of 256×256 (as many values, 64 times as many channels). Measure all eight cases.
# Which two costs pull in opposite directions? (Times cannot be checked. What can is where a prediction begins: how many
# KiB a block's padded copy, product and sum are, counted as the 768 KiB above.)

# %%
answer = ...  # KiB for 1, 4, 16, 64 channels: [[four of 256×256], [four of 32×32]]
teaching.check("4.2", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 2"}
kib = teaching.solution("4.2")(race, in_blocks, x, w)
assert teaching.check("4.2", kib)

# %% [markdown]
# **3. Past the roof by fusion.** In many networks a bias and a ReLU follow the depthwise layer. How many bytes an
# output must three ops move, and how many one? Predict the ratio of the times. Then make `kernel` compute $\max(y+b,
# 0)$ before it writes, check it against tinyseg, and compare it with three steps, bias and ReLU in place.

# %%
answer = ...  # (bytes of three ops, bytes of one, the kernel: f(x, w, b, y))
teaching.check("4.3", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 3"}
found = teaching.solution("4.3")(race, kernel, x, w)
assert teaching.check("4.3", found)
