# %% [markdown]
# # 10. Reading a paper critically
#
# The SD-UNet paper says that the network is 23 times smaller than U-Net and needs 8 times fewer operations, and its
# Table 1 has the figures. Are both sentences true, and how would one find out? The paper is easy to check, which is to
# its credit: equations, architecture and each step of the ablation are printed, and most of what it says about cost
# holds. What goes wrong here goes wrong in many tables, and is seldom so easy to trace.
#
# **Afterwards you can** test a table with nothing but a division, recompute it from live networks, say what is left of
# a claim, and estimate how many runs it takes to believe a difference. **Time:** half an hour to read, as much again
# with the exercises; it runs within four minutes.

# %%
import json
import pathlib
import tempfile

import numpy as np
from scipy import stats

import tinyseg
from tinyseg import models, optim
from tinyseg.learn import teaching
from tinyseg.learn.figures import notebook_10 as draw
from tinyseg.models import checkpoint
from tinyseg.report import profile

teaching.style()

ROWS = {  # the six networks of Table 1, as `models.build` and as the paper names them
    "unet": "U-Net",
    "unet_gn": "U-Net (GN=32)",
    "unet_dw_bn": "U-Net (depthwise+BN)",
    "unet_dw_gn": "U-Net (depthwise+GN=32)",
    "sdunet_bn": "SD-UNet (depthwise+BN+WS)",
    "sdunet": "SD-UNet",
}
# Millions of parameters and of "FLOPs", "size in memory" in MB, ms on a Tesla K40c
TABLE_1 = {
    "unet":  # standard convolutions, no norm
    {"parameters": 31, "flops": 62.04, "megabytes": 372.5, "milliseconds": 188},
    "unet_gn":  # standard convolutions, GroupNorm
    {"parameters": 26, "flops": 51.9, "megabytes": 311.7, "milliseconds": 283},
    "unet_dw_bn":  # separable convolutions, BatchNorm
    {"parameters": 3.9, "flops": 7.8, "megabytes": 47.0, "milliseconds": 94},
    "unet_dw_gn":  # separable convolutions, GroupNorm
    {"parameters": 3.9, "flops": 7.7, "megabytes": 47.1, "milliseconds": 87},
    "sdunet_bn":  # the same with standardized weights, BatchNorm
    {"parameters": 3.9, "flops": 7.8, "megabytes": 15.8, "milliseconds": 99},
    "sdunet":  # the same with standardized weights, GroupNorm
    {"parameters": 3.9, "flops": 7.8, "megabytes": 15.8, "milliseconds": 107},
}
TABLE_2 = {  # on membranes
    "unet": {"accuracy": 0.9767, "mean_iou": 0.8735, "dice": 0.9851},
    "unet_gn": {"accuracy": 0.9808, "mean_iou": 0.8867, "dice": 0.9877},
    "unet_dw_bn": {"accuracy": 0.9362, "mean_iou": 0.7462, "dice": 0.9591},
    "unet_dw_gn": {"accuracy": 0.9394, "mean_iou": 0.7654, "dice": 0.9613},
    "sdunet_bn": {"accuracy": 0.9636, "mean_iou": 0.8210, "dice": 0.9767},
    "sdunet": {"accuracy": 0.9673, "mean_iou": 0.8326, "dice": 0.9784},
}

# %% [markdown]
# ## Divide the columns by each other
#
# Before anything is run: columns that measure different things should not be proportional. Divide two by the first.

# %%
flops_each = [row["flops"] / row["parameters"] for row in TABLE_1.values()]
bytes_each = [row["megabytes"] / row["parameters"] for row in TABLE_1.values()]
assert np.allclose(flops_each, 2, rtol=0.02)
assert np.allclose(bytes_each, [12, 12, 12, 12, 4, 4], rtol=0.02)
draw.columns(ROWS.values(), flops_each, bytes_each)

# %% [markdown]
# **What to see.** The FLOPs are 2 × parameters in every row, so the column says nothing new. The size is 12 bytes a
# parameter in four rows, 4 in the two of SD-UNet. Two networks with the same 3.9 million parameters are printed with
# 47.1 and 15.8 MB.
#
# ## Operations
#
# How can a convolution need 2 operations for each weight, one multiplication and one addition? Only if it computes one
# pixel. On an image it uses each weight *once for every output pixel* ([notebook 2](02_convolution_cost.py)). So 2 ×
# parameters is what a profiler counts that does not know the size of the image. A live count:

# %%
networks = {name: models.build(name, head="paper") for name in ("unet", "sdunet")}
sides, work = (64, 128, 256), {}
for name, model in networks.items():
    found = [profile.summary(model, (1, 1, side, side), show=False) for side in sides]
    work[name] = [counted.flops for counted in found]
    one_pixel = sum(r.multiply_adds // np.prod(r.output[-2:]) for r in found[0].rows)
    print(f"{ROWS[name]}: {2e-6 * one_pixel:.2f} M for one pixel,", end=" ")
    print(f"{1e-9 * work[name][-1]:.2f} G for 256 x 256")
assert np.isclose(work["unet"][0] * 16, work["unet"][-1])  # four times the side
draw.operations(sides, work, {name: 1e6 * TABLE_1[name]["flops"] for name in work})

# %% [markdown]
# **What to see.** At the input size that the paper states, the work is more than a thousand times what is printed. But
# *both* figures are too small in nearly the same proportion, so that the claim survives its numbers:
# some <!-- n: reproduction/ratios/multiply_adds:.1f -->7.4<!-- /n --> times fewer operations, where 8 were claimed. An
# error common to both sides of a ratio cancels. The next one is not common to both.
#
# ## Megabytes
#
# Write real files: the weights alone, which is what a phone needs; and the weights with the state of the optimizer,
# which is what one keeps to continue the training. Adam keeps two numbers for each weight.

# %%
size, printed = {}, {name: TABLE_1[name]["megabytes"] for name in networks}
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "file.safetensors"
    for name, model in networks.items():
        adam = optim.Adam(model.parameters())
        for kind, optimizer in (("weights", None), ("with Adam", adam)):
            checkpoint.save(path, model, optimizer)
            size[name, kind] = path.stat().st_size / 1e6
assert np.isclose(printed["unet"], size["unet", "with Adam"], rtol=0.02)
assert np.isclose(printed["sdunet"], size["sdunet", "weights"], rtol=0.02)
draw.files(size, printed)

# %% [markdown]
# **What to see.** The table compares opposite corners: U-Net with Adam's state and SD-UNet without. The factor 23.6 is
# a product of two steps, <!-- n: reproduction/ratios/parameters:.2f -->7.95<!-- /n --> for the network and 3 for the
# kind of file. (The last percent may be the file format.) Like with like, in either column, SD-UNet's file
# is <!-- n: reproduction/ratios/parameters:.2f -->7.95<!-- /n --> times smaller, as are the parameters: a good result.
#
# ## Smaller in what?
#
# A platform with a low budget, as in the paper's title, may be short of disk, arithmetic, memory or time:

# %%
pair, shape = networks.values(), (1, 1, 256, 256)
answers = {
    "size, as printed": printed["unet"] / printed["sdunet"],
    "file, like with like": size["unet", "weights"] / size["sdunet", "weights"],
    "operations": work["unet"][-1] / work["sdunet"][-1],
}
for what, training in (("inference", False), ("a training step", True)):
    dense, cheap = (profile.memory(m, shape, training=training).measured for m in pair)
    answers[f"memory of {what}"] = dense / cheap
    assert 1.3 < dense / cheap < 3
dense, cheap = (profile.latency(m, shape, repeats=3) for m in pair)
answers["time, this machine"] = dense.minimum / cheap.minimum
dense, cheap = (TABLE_1[name]["milliseconds"] for name in networks)
answers["time, as printed"] = dense / cheap
assert 7.9 < answers["file, like with like"] < 8 and 7.3 < answers["operations"] < 7.5
draw.times_less(answers)

# %% [markdown]
# **What to see.** One network, many answers. Memory falls less than the file does, because it also holds the images
# between the layers, and these are no smaller than in U-Net: a separable layer saves weights, not activations. Whoever
# writes "smaller" has to say in what. (It is [measured](../../tinyseg/report/profile/footprint.py) in its own process.)
#
# ## Rebuild a row
#
# U-Net (GN=32) is "Original U-Net architecture with GN only with 32 groups". Build it, and the others:

# %%
live = {}
for name, title in ROWS.items():
    live[name] = sum(p.size for p in models.build(name, head="paper").parameters())
    print(f"{title:26} {TABLE_1[name]['parameters']:4} M printed, {live[name]:,} built")
assert live["unet_gn"] > live["unet"]  # a norm adds parameters

# %% [markdown]
# Five rows agree. The 26 million of U-Net (GN=32) cannot be derived from the text: GroupNorm *adds* two numbers a
# channel to U-Net's 31.0 million. More cannot be said without the authors' code; the honest note is "not derivable",
# not "wrong".
#
# ## How many runs does a difference need?
#
# Table 2 reports accuracies on membranes, one figure for each network, without a spread. How much would a second run
# have differed? Our [reproduction](../reproduction.md), small as it is, has three seeds for each. Its figures are in a
# file to which that page links; a notebook outside of a clone needs a copy beside it.

# %%
clone = pathlib.Path(tinyseg.__file__).parents[1] / "docs" / "reproduction.json"
path = clone if clone.is_file() else pathlib.Path("reproduction.json")  # beside this
assert path.is_file(), "docs/reproduction.json of tinyseg's sources is missing here"
results = json.loads(path.read_text(encoding="utf-8"))
membranes, tumours = (
    {name: row["figures"][figure] for name, row in results[data]["rows"].items()}
    for data, figure in (("isbi", "accuracy"), ("brats", "dice"))
)
draw.runs(ROWS, membranes, TABLE_2)

# %% [markdown]
# **What to see.** The levels cannot be compared: ours are networks of a quarter of the width, trained for 300 steps, on
# sections held out; the paper does not say which sections were scored. The *scatter* is the point. Where seeds agree to
# a thousandth, one run tells much; where they differ by hundredths, one run of each may put them in either order.
#
# Let two networks differ by $d$ in truth, and runs of either scatter with standard deviation $s$. A t-test with $n$
# runs of each at the 5 % level finds the difference with a probability, its *power*, that depends on $n$ and $d/s$
# alone. How many runs are needed for a power of 80 %?


# %%
def power(n, effect):
    """The probability that a t-test (5 %) with n runs of each finds effect = d / s."""
    degrees = 2 * n - 2
    return stats.nct.sf(stats.t.ppf(0.975, degrees), degrees, effect * np.sqrt(n / 2))


def runs_needed(effect):
    return next(n for n in range(2, 10_000) if power(n, effect) >= 0.8)


questions = {}
for question, found, a, b in (
    ("depthwise or standard (GN)", membranes, "unet_dw_gn", "unet_gn"),
    ("GN or BN (depthwise)", membranes, "unet_dw_gn", "unet_dw_bn"),
    ("SD-UNet or depthwise+GN", membranes, "sdunet", "unet_dw_gn"),
    ("SD-UNet or U-Net, tumours", tumours, "sdunet", "unet"),
):
    d = abs(found[a]["mean"] - found[b]["mean"])
    s = np.sqrt((found[a]["std"] ** 2 + found[b]["std"] ** 2) / 2)
    questions[question] = d / s, runs_needed(d / s)
    print(f"{question:26} d = {d:.4f}, s = {s:.4f}: {runs_needed(d / s):3} runs each")
assert runs_needed(1) == 17 and power(3, 3) < 0.8 < power(3, 3.2)
low, high = (np.sqrt(4 / stats.chi2.ppf(q, 4)) for q in (0.975, 0.025))
print(f"s of twice three runs: 95 % from {low:.2f} to {high:.1f} times the estimate")
effects = np.geomspace(0.25, 14, 80)
draw.runs_needed(effects, [runs_needed(effect) for effect in effects], questions)

# %% [markdown]
# **What to see.** A difference of one standard deviation takes 17 runs of each network; three runs find what is larger
# than about three deviations. So they tell that depthwise convolution costs these narrow, briefly trained networks
# accuracy at equal norm ([at full width](../reproduction.md#at-full-width-with-todays-training) nearly nothing is left
# of that), and cannot tell whether SD-UNet beats depthwise+GN. This cuts both ways, against our verdicts as much as
# against the paper's. And take the places of the points as rough, because even twice three runs hardly know their
# spread (last line printed).
#
# ## A checklist
#
# 1. **Divide columns by each other.** Proportional columns are one column. A jump between rows is a change of unit.
# 2. **Ask for the unit.** Bytes of what? Operations on what input? Milliseconds on which device, at which batch size?
# 3. **Like with like?** The same file, input, protocol and data on both sides of a ratio?
# 4. **Does an error cancel?** A factor common to both sides leaves the ratio alone.
# 5. **Rebuild what can be built.** Parameters and operations follow from the text. If they do not, say so, and no more.
# 6. **Do the metrics agree with each other?** Dice and IoU of one mask determine each other.
# 7. **On which data was it scored,** and could the network have seen them?
# 8. **How many runs, and what spread?** Without a spread a difference has no size.
# 9. **What is true in it?** Write that down first. Here: 8 times fewer parameters, <!-- n: reproduction/ratios/multiply_adds:.1f -->7.4<!-- /n --> times fewer operations, faster.
#
# ## Exercises
#
# **1. Two sentences.** The paper says of U-Net (depthwise+GN=32) that it is "still 3x the size of SD-UNet", and of
# U-Net (GN=32) that it is "19× bigger in size". Write both as they should stand, from networks that you build, and
# explain the 3.

# %%
answer = ...  # how many times as big as SD-UNet, like with like: in the same order
teaching.check("10.1", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 1"}
times = teaching.solution("10.1")(live)
print("like with like {:.2f} and {:.2f} times as big".format(*times))
assert teaching.check("10.1", times)

# %% [markdown]
# **2. Can these be of one mask?** Table 2 gives accuracy $a$, Dice $D$ and "mean IOU" for each network. If $a$ and $D$
# come from the same pixels at the same threshold, they determine TP, TN and the sum FP + FN, and so both classes' IoU.
# Derive them, and compare with what is printed. Which readings of "mean IOU" can you exclude?

# %%
answer = ...  # a function of a and D: the IoU of the class that has D, and of the other
teaching.check("10.2", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 2"}
both_ious = teaching.solution("10.2")
print("IoU of the inside, of membranes, mean of both; mean IOU as printed")
for name, row in TABLE_2.items():
    found = both_ious(row["accuracy"], row["dice"])
    ious = np.array([*found, np.mean(found)])
    print(f"{ROWS[name]:25}", ious.round(3), row["mean_iou"])
    off = ious - row["mean_iou"]
    assert off[0] > 0.08 and abs(off[1]) < 0.05 and off[2] > 0.04
assert teaching.check("10.2", both_ious)

# %% [markdown]
# **3. The best of six.** Suppose that all six networks of Table 2 were equally good, and each was trained once. By how
# much does the best beat the worst, in units of $s$? Simulate it, then do the same for the mean of three runs, and for
# a researcher who reports the best of three runs of one favourite network and a single run of the others: how often
# does the favourite come first?

# %%
answer = ...  # the gap with one run, the gap with three, how often: three numbers
teaching.check("10.3", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 3"}
gap_of_one, gap_of_three, first = teaching.solution("10.3")()
print(f"best - worst: {gap_of_one:.2f} s with one run, {gap_of_three:.2f} s with three")
print(f"the favourite comes first in {first:.0%} of tables, by right in {1 / 6:.0%}")
worst = membranes["unet_dw_bn"]["std"]
print(f"with the spread of U-Net (depthwise+BN) the gap is {gap_of_one * worst:.3f}")
assert teaching.check("10.3", (gap_of_one, gap_of_three, first))
