# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 10. Reading a paper critically
#
# The SD-UNet paper says that the network is 23 times smaller than U-Net and needs 8 times fewer operations, and its
# Table 1 has the figures. Are both sentences true, and how would one find out? At the end you can test a table with
# nothing but a division, recompute it from live networks, say what is left of a claim, and estimate how many runs it
# takes to believe a difference.
#
# The paper is an easy one to check, which is to its credit: its equations, its architecture and every step of its
# ablation are printed, and most of what it says about cost holds. What goes wrong here goes wrong in many tables, and
# is seldom so easy to trace.

# %%
import json
import pathlib
import tempfile

import numpy as np
from matplotlib import pyplot as plt
from scipy import stats

import tinyseg
from tinyseg import models, optim
from tinyseg.learn import teaching
from tinyseg.learn.teaching import BLUE, GREY, ORANGE
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
TABLE_1 = {  # millions of parameters, "FLOPs" in millions, "size in memory" in MB, ms on a Tesla K40c
    "unet": {"parameters": 31, "flops": 62.04, "megabytes": 372.5, "milliseconds": 188},
    "unet_gn": {"parameters": 26, "flops": 51.9, "megabytes": 311.7, "milliseconds": 283},
    "unet_dw_bn": {"parameters": 3.9, "flops": 7.8, "megabytes": 47.0, "milliseconds": 94},
    "unet_dw_gn": {"parameters": 3.9, "flops": 7.7, "megabytes": 47.1, "milliseconds": 87},
    "sdunet_bn": {"parameters": 3.9, "flops": 7.8, "megabytes": 15.8, "milliseconds": 99},
    "sdunet": {"parameters": 3.9, "flops": 7.8, "megabytes": 15.8, "milliseconds": 107},
}
TABLE_2 = {  # on membranes
    "unet": {"accuracy": 0.9767, "mean_iou": 0.8735, "dice": 0.9851},
    "unet_gn": {"accuracy": 0.9808, "mean_iou": 0.8867, "dice": 0.9877},
    "unet_dw_bn": {"accuracy": 0.9362, "mean_iou": 0.7462, "dice": 0.9591},
    "unet_dw_gn": {"accuracy": 0.9394, "mean_iou": 0.7654, "dice": 0.9613},
    "sdunet_bn": {"accuracy": 0.9636, "mean_iou": 0.8210, "dice": 0.9767},
    "sdunet": {"accuracy": 0.9673, "mean_iou": 0.8326, "dice": 0.9784},
}

print(f"{'':26} parameters   'FLOPs'      size    time")
for name, title in ROWS.items():
    row = TABLE_1[name]
    print(f"{title:26} {row['parameters']:8} M {row['flops']:7} M {row['megabytes']:6} MB", end="")
    print(f" {row['milliseconds']:4} ms")

# %% [markdown]
# ## Divide the columns by each other
#
# Before anything is run: columns that measure different things should not be proportional. Divide two of them by the
# first.

# %%
flops_each = [row["flops"] / row["parameters"] for row in TABLE_1.values()]
bytes_each = [row["megabytes"] / row["parameters"] for row in TABLE_1.values()]
assert np.allclose(flops_each, 2, rtol=0.02)
assert np.allclose(bytes_each[:4], 12, rtol=0.02) and np.allclose(bytes_each[4:], 4, rtol=0.02)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Two rows of six points, one for each network of Table 1. FLOPs per parameter: all six at 2. Bytes per parameter: the first four at 12, the two SD-UNets at 4."}}
figure, axes = plt.subplots(1, 2, figsize=(8.6, 2.8), sharey=True)
for ax, values, top, label in (
    (axes[0], flops_each, 3, "printed FLOPs per parameter"),
    (axes[1], bytes_each, 14, "printed bytes per parameter"),
):
    ours = ["sdunet" in name for name in ROWS]
    ax.scatter(values, range(6), s=60, color=[ORANGE if own else BLUE for own in ours], zorder=2)
    ax.set(xlabel=label, xlim=(0, top))
    for value in sorted({round(v) for v in values}):
        ax.axvline(value, color=GREY, linewidth=0.8)
axes[1].set_xticks([0, 4, 8, 12])
axes[0].set_yticks(range(6), ROWS.values())
axes[0].invert_yaxis()
figure.suptitle("Table 1, divided by its own first column", x=0.02, ha="left", fontsize=11)
plt.show()

# %% [markdown]
# **What to see.** The FLOPs are 2 × parameters in every row, so the column says nothing that the first one has not
# said. The size is 12 bytes a parameter in four rows and 4 bytes in the two of SD-UNet. Two networks with the same 3.9
# million parameters are printed with 47.1 and 15.8 MB.
#
# ## Operations
#
# How can a convolution need 2 operations for each weight, one multiplication and one addition? Only if it computes one
# pixel. On an image it uses each weight *once for every output pixel* ([notebook 2](02_convolution_cost.py)). So 2 ×
# parameters is what a profiler counts that does not know the size of the image. A live count, once for one output pixel
# in every layer, then for images:

# %%
networks = {name: models.build(name, head="paper") for name in ("unet", "sdunet")}
sides, work = (64, 128, 256), {}
for name, model in networks.items():
    counts = [profile.summary(model, (1, 1, side, side), show=False) for side in sides]
    work[name] = [found.flops for found in counts]
    one_pixel = sum(row.multiply_adds // (row.output[-2] * row.output[-1]) for row in counts[-1].rows)
    print(f"{ROWS[name]:8} printed {TABLE_1[name]['flops']:6.2f} M; live: 2 x parameters", end=" ")
    print(f"{2e-6 * counts[-1].parameters:6.2f} M, for one pixel {2e-6 * one_pixel:6.2f} M,", end=" ")
    print(f"for 256 x 256 {1e-9 * work[name][-1]:6.2f} G")
assert np.isclose(work["unet"][0] * 16, work["unet"][-1])  # four times the side, sixteen times the work

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Operations against the side of the image, both axes logarithmic. The lines of U-Net and SD-UNet rise in parallel from a few G at 64 pixels to 109 and 15 G at 256. The figures printed in the paper are level lines a thousand times lower."}}
figure, ax = plt.subplots(figsize=(7.2, 3.6))
for (name, values), colour in zip(work.items(), (BLUE, ORANGE), strict=True):
    ink = "#8a5f00" if colour == ORANGE else colour
    ax.plot(sides, values, "o-", color=colour)
    ax.text(268, values[-1], f"{ROWS[name]}, {values[-1] / 1e9:.0f} G", color=ink, va="center", weight="bold")
    printed = 1e6 * TABLE_1[name]["flops"]
    ax.plot([sides[0], sides[-1]], [printed] * 2, "--", color=colour)
    ax.text(268, printed, f"as printed, {printed / 1e6:g} M", color=ink, va="center")
ax.set(xscale="log", yscale="log", xlabel="side of the image in pixels", ylabel="operations (2 × multiply-adds)")
ax.set_xticks(sides, map(str, sides))
ax.minorticks_off()
ax.set_title("The work grows with the image, the printed figure does not")
plt.show()

# %% [markdown]
# **What to see.** At the input size that the paper states, the work is more than a thousand times what is printed. But
# *both* figures are too small in nearly the same proportion, so that the claim survives its numbers:
# some <!-- n: reproduction/ratios/multiply_adds:.1f -->7.4<!-- /n --> times fewer
# operations, where 8 were claimed. An error common to both sides of a ratio cancels. The next one is not common to
# both.
#
# ## Megabytes
#
# Write real files: the weights alone, which is what a phone needs; and the weights with the state of the optimizer,
# which is what one keeps to continue the training. Adam keeps two numbers for each weight. (Half a gigabyte, in a
# folder that is deleted at once.)

# %%
size = {}
with tempfile.TemporaryDirectory() as folder:
    for name, model in networks.items():
        for kind, optimizer in (("weights", None), ("with Adam", optim.Adam(model.parameters()))):
            path = pathlib.Path(folder) / "file.safetensors"
            checkpoint.save(path, model, optimizer)
            size[name, kind] = path.stat().st_size / 1e6
            print(f"{ROWS[name]:8} {kind:10} {size[name, kind]:6.1f} MB")

printed = {name: TABLE_1[name]["megabytes"] for name in networks}
assert np.isclose(printed["unet"], size["unet", "with Adam"], rtol=0.02)
assert np.isclose(printed["sdunet"], size["sdunet", "weights"], rtol=0.02)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "A square of four file sizes: U-Net with Adam's state 372, U-Net's weights 124, SD-UNet with Adam's state 47, SD-UNet's weights 16 megabytes. Downwards the factor is 7.95, to the right 3. The paper's 23 times is the diagonal."}}
figure, ax = plt.subplots(figsize=(7.2, 3.3))
spots = {"with Adam": 0, "weights": 3}, {"unet": 2, "sdunet": 0}
for (name, kind), value in size.items():
    paired = (name, kind) in (("unet", "with Adam"), ("sdunet", "weights"))
    box = {"boxstyle": "round,pad=0.5", "facecolor": "#fbe7c0" if paired else "#eeeeee", "edgecolor": "none"}
    text = f"{ROWS[name]}, {kind}\n{value:.1f} MB"
    if paired:
        text += f"\n(printed: {printed[name]:g} MB)"
    ax.text(spots[0][kind], spots[1][name], text, ha="center", va="center", bbox=box)
ratios = (
    ((0, 1.45), (0, 0.4), size["unet", "with Adam"] / size["sdunet", "with Adam"], (-0.1, 0.95), "right", GREY),
    ((3, 1.6), (3, 0.55), size["unet", "weights"] / size["sdunet", "weights"], (3.1, 1.05), "left", GREY),
    ((1, 2), (2.1, 2), size["unet", "with Adam"] / size["unet", "weights"], (1.55, 2.15), "center", GREY),
    ((1, 0), (2.1, 0), size["sdunet", "with Adam"] / size["sdunet", "weights"], (1.55, -0.4), "center", GREY),
    ((0.8, 1.5), (2.2, 0.5), printed["unet"] / printed["sdunet"], (1.65, 1.08), "left", "#8a5f00"),
)
for begin, end, ratio, spot, side, colour in ratios:
    ax.annotate("", end, begin, arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.6})
    ax.text(*spot, f"{ratio:.3g} times", ha=side, color=colour, weight="bold")
ax.set(xlim=(-1, 4), ylim=(-0.6, 2.6), title="Two steps in one number")
ax.axis("off")
plt.show()

# %% [markdown]
# **What to see.** The table compares opposite corners: U-Net with Adam's state and SD-UNet without. The factor 23.6 is
# a product of two steps, <!-- n: reproduction/ratios/parameters:.2f -->7.95<!-- /n --> for the network and 3 for the kind of file. (The last percent may be what a file format
# adds to the numbers.) Like with like, in whichever column, SD-UNet's file is <!-- n: reproduction/ratios/parameters:.2f -->7.95<!-- /n --> times smaller. That is a good
# result, and the same as that for parameters.
#
# ## Smaller in what?
#
# A platform with a low budget, as in the title of the paper, may be short of disk, arithmetic, memory or time. These
# are different questions:

# %%
shape = (1, 1, 256, 256)
answers = {
    "size, as printed": printed["unet"] / printed["sdunet"],
    "file, like with like": size["unet", "weights"] / size["sdunet", "weights"],
    "operations": work["unet"][-1] / work["sdunet"][-1],
}
for what, training in (("memory of inference", False), ("memory of a training step", True)):
    need = {n: profile.memory(m, shape, training=training).measured for n, m in networks.items()}
    answers[what] = need["unet"] / need["sdunet"]
seconds = {name: profile.latency(model, shape, repeats=7) for name, model in networks.items()}
answers["time, this machine"] = seconds["unet"].minimum / seconds["sdunet"].minimum
answers["time, as printed"] = TABLE_1["unet"]["milliseconds"] / TABLE_1["sdunet"]["milliseconds"]

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Bars: how many times less SD-UNet needs than U-Net. Size as printed 23.6; file like with like 7.95; operations 7.4; memory of inference and of a training step about 2; time on this machine, and as printed 1.8."}}
figure, ax = plt.subplots(figsize=(7.2, 3.2))
bars = ax.barh(list(answers), list(answers.values()), color=[GREY if "printed" in a else BLUE for a in answers])
ax.bar_label(bars, [f"{value:.3g}" for value in answers.values()], padding=4)
ax.invert_yaxis()
ax.set(
    xlabel="U-Net's need divided by SD-UNet's", title="How many times less? (grey: printed in the paper)", xlim=(0, 26)
)
plt.show()

# %%
assert 7.9 < answers["file, like with like"] < 8 and 7.3 < answers["operations"] < 7.5
assert 1.3 < answers["memory of inference"] < 3 and 1.3 < answers["memory of a training step"] < 3

# %% [markdown]
# **What to see.** One network, many answers. Memory falls less than the file does, because it also holds the images
# between the layers, and these are no smaller than before: a separable layer saves weights, not activations. Whoever
# writes "smaller" has to say in what. (Memory is [measured](../../tinyseg/report/profile/footprint.py) in a process of its own.)
#
# ## Rebuild a row
#
# Some figures can be tested by building what the text describes. U-Net (GN=32) is "Original U-Net
# architecture with GN only with 32 groups":

# %%
live = {name: sum(p.size for p in models.build(name, head="paper").parameters()) for name in ROWS}
for name, n in live.items():
    print(f"{ROWS[name]:26} printed {TABLE_1[name]['parameters']:4} M, built {1e-6 * n:5.2f} M")
assert live["unet_gn"] > live["unet"]  # a norm adds parameters

# %% [markdown]
# Five rows agree. The 26 million of U-Net (GN=32) cannot be derived from the text: GroupNorm *adds* two numbers a
# channel to U-Net's 31.0 million. More cannot be said without the authors' code; the honest note is "not derivable",
# not "wrong".
#
# ## How many runs does a difference need?
#
# Table 2 reports accuracies on membranes, one figure for each network, without a spread. How much would a second run
# have differed? Our [reproduction](../reproduction.md), small as it is, has three seeds for each, and every figure is
# in a file of the documentation. A notebook outside of a clone needs a copy of that file beside it; the page just named
# has a link to it.


# %%
def find(name):
    """Return the path of a file of docs/: in the clone that tinyseg is imported from, or beside this notebook."""
    for path in (pathlib.Path(tinyseg.__file__).parents[1] / "docs" / name, pathlib.Path(name)):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{name} was expected in docs/ of a clone of tinyseg or beside this notebook, but is in neither. "
        "Download it from the page 'The paper's tables again' of the documentation into the notebook's folder."
    )


results = json.loads(find("reproduction.json").read_text(encoding="utf-8"))
membranes = {name: np.array(row["figures"]["accuracy"]["values"]) for name, row in results["isbi"]["rows"].items()}
spread = {name: values.std(ddof=1) for name, values in membranes.items()}

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Accuracy of six networks: three points for our three seeds, a diamond for the paper's figure. The seeds of most networks lie together, those of U-Net depthwise BatchNorm are scattered as widely as the networks differ. The paper's figures are 0.94 to 0.98, ours 0.86 to 0.91."}}
figure, ax = plt.subplots(figsize=(7.5, 3.2))
for height, name in enumerate(ROWS):
    ax.plot(membranes[name], [height] * 3, "o", color=BLUE, alpha=0.7)
    ax.plot(TABLE_2[name]["accuracy"], height, "D", color=ORANGE)
ax.text(0.885, -0.55, "ours, three seeds", color=BLUE, weight="bold", ha="center")
ax.text(0.97, -0.55, "paper", color="#8a5f00", weight="bold", ha="center")
ax.set_yticks(range(6), ROWS.values())
ax.set(xlabel="accuracy on membranes (ISBI 2012)", ylim=(5.5, -1), title="One dot is one run")
plt.show()

# %% [markdown]
# **What to see.** The levels cannot be compared: ours are networks of a quarter of the width, trained for 300 steps, on
# sections held out; the paper does not say which sections were scored. The *scatter* is the point. Where seeds agree to
# a thousandth, one run tells much; where they differ by hundredths, one run of each network may put them in either
# order.
#
# Let two networks differ by $d$ in truth, and runs of either scatter with standard deviation $s$. A t-test with $n$
# runs of each at the 5 % level finds the difference with a probability, its *power*, that depends on $n$ and $d/s$
# alone. How many runs are needed for a power of 80 %?


# %%
def power(n, effect):
    """Return the probability that a t-test (5 %) with n runs of each network finds a difference of effect = d/s."""
    degrees = 2 * n - 2
    return stats.nct.sf(stats.t.ppf(0.975, degrees), degrees, effect * np.sqrt(n / 2))


def runs_needed(effect, largest=10_000):
    return next(n for n in range(2, largest) if power(n, effect) >= 0.8)


tumours = {name: np.array(row["figures"]["dice"]["values"]) for name, row in results["brats"]["rows"].items()}
questions = {
    "depthwise or standard (GN)": (membranes, "unet_dw_gn", "unet_gn"),
    "GN or BN (depthwise)": (membranes, "unet_dw_gn", "unet_dw_bn"),
    "SD-UNet or depthwise+GN": (membranes, "sdunet", "unet_dw_gn"),
    "SD-UNet or U-Net, tumours": (tumours, "sdunet", "unet"),
}
found = {}
for question, (scores, a, b) in questions.items():
    d, s = abs(scores[a].mean() - scores[b].mean()), np.sqrt((scores[a].var(ddof=1) + scores[b].var(ddof=1)) / 2)
    found[question] = d / s, runs_needed(d / s)
    print(f"{question:27} difference {d:.4f}, deviation {s:.4f}: {found[question][1]:3} runs of each")
assert runs_needed(1) == 17 and power(3, 3) < 0.8 < power(3, 3.2)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the drawing code", "image": {"alt": "Runs needed of each network against difference over standard deviation, both axes logarithmic: 64 runs for half a deviation, 17 for one, 6 for two, 3 for four. Four comparisons from our reproduction are marked on the curve, and a level line at three runs."}}
figure, ax = plt.subplots(figsize=(7.2, 3.6))
effects = np.geomspace(0.25, 14, 80)
ax.plot(effects, [runs_needed(effect) for effect in effects], color=GREY, drawstyle="steps-mid")
for (question, (effect, n)), shift, side in zip(
    found.items(), ((8, 26), (-8, -10), (7, 5), (7, 3)), ("right", "right", "left", "left"), strict=True
):
    ax.plot(effect, n, "o", color=ORANGE)
    ax.annotate(question, (effect, n), shift, textcoords="offset points", color="#8a5f00", ha=side)
ax.axhline(3, color=BLUE, linewidth=0.8, linestyle="--")
ax.text(0.25, 3.2, "what we have: 3", color=BLUE)
ax.set(xscale="log", yscale="log", xlabel="difference / standard deviation of runs", ylabel="runs of each network")
ax.set_xticks([0.25, 0.5, 1, 2, 4, 8], ["¼", "½", "1", "2", "4", "8"])
ax.set_yticks([2, 3, 5, 10, 20, 50, 100, 200], ["2", "3", "5", "10", "20", "50", "100", "200"])
ax.minorticks_off()
ax.set_title("Runs it takes to see a difference (power 80 %, level 5 %)")
plt.show()

# %% [markdown]
# **What to see.** A difference of one standard deviation takes 17 runs of each network; three runs find what is larger
# than about three deviations. So they tell that depthwise convolution costs accuracy at equal norm, and cannot tell
# whether SD-UNet beats depthwise+GN. This cuts both ways, against our verdicts as much as against the paper's. And take
# the places of the points as rough, because three runs hardly know their own spread:

# %%
low, high = (np.sqrt(2 / stats.chi2.ppf(q, 2)) for q in (0.975, 0.025))
print(f"the deviation estimated from 3 runs may be off: 95 % interval from {low:.2f} to {high:.1f} times the estimate")

# %% [markdown]
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

# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 1"}
for name, claim in (("unet_dw_gn", 3), ("unet_gn", 19)):
    as_printed = TABLE_1[name]["megabytes"] / printed["sdunet"]
    print(f"{ROWS[name]:24} claimed {claim:2}, printed {as_printed:4.1f}, like with like", end=" ")
    print(f"{live[name] / live['sdunet']:.2f} times")
    assert claim - 0.1 < as_printed < claim + 1
# "is of the same size as SD-UNet", and "is 7.95 times as big". The 3 is not in the network: it is the weights and
# Adam's two moments against the weights, 12 bytes against 4. It is in the 19 as well, on top of the 26 million.
assert abs(live["unet_dw_gn"] / live["sdunet"] - 1) < 0.01
times = [live[name] / live["sdunet"] for name in ("unet_dw_gn", "unet_gn")]
assert teaching.check("10.1", times)

# %% [markdown]
# **2. Can these be of one mask?** Table 2 gives accuracy $a$, Dice $D$ and "mean IOU" for each network. If $a$ and $D$
# come from the same pixels at the same threshold, they determine TP, TN and the sum FP + FN, and so both
# classes' IoU. Derive them, and compare with what is printed. Which readings of "mean IOU" can you exclude?

# %%
answer = ...  # a function of a and D: the IoU of the class that has D, and of the other
teaching.check("10.2", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 2"}
# As shares of all pixels: errors e = 1 - a, D = 2 TP / (2 TP + e), so TP = D e / (2 (1 - D)) and TN = a - TP.
def both_ious(a, D):
    e = 1 - a
    TP = D * e / (2 * (1 - D))
    TN = a - TP
    return TP / (TP + e), TN / (TN + e)


assert teaching.check("10.2", both_ious)
print(f"{'':26} inside  membrane  mean of both  printed")
for name, row in TABLE_2.items():
    D = row["dice"]
    inside, membrane = both_ious(row["accuracy"], D)
    print(f"{ROWS[name]:26} {inside:6.3f}  {membrane:8.3f}  {(inside + membrane) / 2:12.3f}  {row['mean_iou']:7.3f}")
    assert np.isclose(inside, D / (2 - D))  # Dice and IoU of one class determine each other
    assert inside - row["mean_iou"] > 0.08 and (inside + membrane) / 2 - row["mean_iou"] > 0.04
    assert abs(membrane - row["mean_iou"]) < 0.05
# It is neither the IoU of the class whose Dice is printed nor, on these assumptions, the mean of both classes' at that
# threshold. It lies within 5 points of the membranes' own IoU; a mean over several thresholds also remains possible.

# %% [markdown]
# **3. The best of six.** Suppose that all six networks of Table 2 were equally good, and each was trained once. By how
# much does the best beat the worst, in units of $s$? Simulate it, then do the same for the mean of three runs, and for
# a researcher who reports the best of three runs of one favourite network and a single run of the others: how often
# does the favourite come first?

# %%
answer = ...  # the gap with one run, the gap with three, how often: three numbers
teaching.check("10.3", answer)

# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 3"}
draws = np.random.default_rng(0).normal(size=(100_000, 6, 3))  # tables, networks, runs; s = 1
gap_of_one, gap_of_three = (np.ptp(runs, axis=1).mean() for runs in (draws[:, :, 0], draws.mean(axis=2)))
favourite, others = draws[:, 0].max(axis=1), draws[:, 1:, 0].max(axis=1)
first = (favourite > others).mean()
print(f"best - worst of six equal networks: {gap_of_one:.2f} s with one run, {gap_of_three:.2f} s with three")
print(f"the favourite comes first in {first:.0%} of the tables, by right in {1 / 6:.0%}")
worst = spread["unet_dw_bn"]
print(f"with the spread of U-Net (depthwise+BN), s = {worst:.3f}, that gap is {gap_of_one * worst:.3f} in accuracy")
# Some row of a table is always in bold. Three runs shrink the gap by √3; choosing among three runs is as good as
# entering three of eight networks: the favourite wins 3/8 of the tables by luck.
assert np.isclose(gap_of_one, 2.53, atol=0.02) and np.isclose(gap_of_three, gap_of_one / np.sqrt(3), rtol=0.02)
assert np.isclose(first, 3 / 8, atol=0.01)
assert teaching.check("10.3", (gap_of_one, gap_of_three, first))
