# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3. Depthwise convolution by hand
#
# Nine weights slide over an image. How does one write that without a loop over pixels, and what are its gradients? At
# the end you will have written forward and backward as one loop over nine shifted images, know why the gradient of the
# input is a transpose, and have seen a wrong gradient pass a test.

# %%
import numpy as np
from matplotlib import pyplot as plt
from scipy.signal import correlate2d

from tinyseg import Function, Tensor, check_grads, ops
from tinyseg.learn import teaching
from tinyseg.learn.teaching import BLUE
from tinyseg.ops.depthwise_conv import DepthwiseConv2d

teaching.style()
rng = np.random.default_rng(0)

# %% [markdown]
# ## Window by window
#
# Input $x$ of shape `(N, C, H, W)`, kernels $w$ of shape `(C, KH, KW)`: each channel has a kernel of its own and does
# not see the others. Output pixel $(i,j)$ is a weighted sum of the window that begins there,
#
# $$ y[n,c,i,j] = \sum_{u,v} x[n,c,\;i+u,\;j+v]\; w[c,u,v]. $$
#
# One channel with a bright block in it, and a kernel that takes the right column minus the left:

# %%
x, w = np.pad(np.ones((3, 4)), ((2, 1), (2, 2))), np.outer([1.0, 2, 1], [-1, 0, 1])
y = correlate2d(x, w, mode="valid")  # SciPy's, as an independent answer
assert np.array_equal(ops.depthwise_conv2d(x[None, None], w[None]).data[0, 0], y)


# %% tags=["hide-input"] mystnb={"image": {"alt": "A window of 3 by 3 slides over the input; each position fills one pixel of the output."}, "code_prompt_show": "Show the drawing code"}
def cells(ax, values, title, limit=8):  # numbers as coloured squares, orange below 0, purple above; NaN stays empty
    ax.clear()
    ax.imshow(values, cmap="PuOr", vmin=-limit, vmax=limit)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            ax.text(column, row, f"{value:g}", ha="center", va="center", fontsize=9)
    ax.set(xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(True)


def film(steps, hold, seconds, alt):  # a step: for x, w and y, numbers, a title, corner and size of a frame
    figure, axes = plt.subplots(1, 3, figsize=(8.5, 2.6), width_ratios=[8, 3, 6])
    figure.get_layout_engine().set(w_pad=0.15)

    def draw(k):
        for ax, (values, title, (row, column), size) in zip(axes, steps[min(k, len(steps) - 1)], strict=True):
            cells(ax, values, title)
            corner = column - 0.5, row - 0.5
            ax.add_patch(plt.Rectangle(corner, *size[::-1], fill=False, ec=BLUE, lw=3, clip_on=False))

    return teaching.animate(figure, draw, len(steps) + hold, seconds, alt)


steps = []
for k, (i, j) in enumerate(np.ndindex(4, 6)):
    filled = np.where(np.arange(24).reshape(4, 6) <= k, y, np.nan), f"y[{i}, {j}] = {y[i, j]:g}", (i, j), (1, 1)
    steps.append([(x, "x, a window", (i, j), (3, 3)), (w, "w", (0, 0), (3, 3)), filled])
film(steps, 4, 0.3, "A window of 3 by 3 slides over the input; each position fills one pixel of the output.")

# %% [markdown]
# **What to see.** The output is smaller by $KH-1$ rows and $KW-1$ columns: a window must fit. It is positive where a
# window has the block at its right, negative where at its left.
#
# ## Tap by tap
#
# In Python a loop over pixels is slow. Change the order of the sums: fix one position $(u,v)$ in the kernel, a *tap*,
# and ask what it sees in *all* windows. It sees the image, shifted: `x[u : u + OH, v : v + OW]`, a view that copies
# nothing. The convolution is nine shifted images, each times one number, added up.

# %% tags=["hide-input"] mystnb={"image": {"alt": "A frame as large as the output takes nine places on the input; each adds a term to all of it."}, "code_prompt_show": "Show the drawing code"}
steps, sums = [], 0
for u, v in np.ndindex(3, 3):
    sums = sums + x[u : u + 4, v : v + 6] * w[u, v]
    seen = x, f"x[{u}:{u + 4}, {v}:{v + 6}]", (u, v), (4, 6)
    steps.append([seen, (w, f"w[{u}, {v}] = {w[u, v]:g}", (u, v), (1, 1)), (sums, "y, so far", (0, 0), (4, 6))])
film(steps, 3, 0.9, "A frame as large as the output takes nine places on the input; each adds a term to all of it.")

# %% [markdown]
# **What to see.** The frame on $x$ moves by one pixel, and each tap adds to the whole output. In code, with a stride
# $s$ (windows begin at every $s$-th pixel only):


# %%
def shifted(X, kernel, out, s):
    for u, v in np.ndindex(*kernel):  # what tap (u, v) of every window sees
        yield u, v, X[:, :, u : u + s * out[0] : s, v : v + s * out[1] : s]


def forward(X, w, s=1):
    out = [(n - k) // s + 1 for n, k in zip(X.shape[2:], w.shape[1:], strict=True)]
    y = np.zeros((*X.shape[:2], *out))
    for u, v, view in shifted(X, w.shape[1:], out, s):
        y += view * w[:, u, v, None, None]
    return y


X, W = rng.standard_normal((2, 3, 9, 8)), rng.standard_normal((3, 3, 2))
assert np.allclose(forward(X, W, s=2), ops.depthwise_conv2d(X, W, stride=2).data)
assert np.allclose(forward(X, W)[1, 2], correlate2d(X[1, 2], W[2], mode="valid"))

# %% [markdown]
# [`depthwise_conv.py`](../../tinyseg/ops/depthwise_conv.py) is this and *padding*, a border of zeros around $x$:
# windows may hang over the edge. How many windows see a pixel? With a kernel of ones, the gradient of $\sum y$ says:

# %% mystnb={"image": {"alt": "How many windows see each pixel. Without padding 1 at the corners and 9 inside; with padding 4 at the corners; with stride 2 a pattern of 1, 2 and 4."}}
figure, axes = plt.subplots(1, 3, figsize=(9.5, 2.6))
for ax, (stride, padding) in zip(axes, [(1, 0), (1, 1), (2, 1)], strict=True):
    ones = Tensor(np.ones((1, 1, 7, 9)), requires_grad=True)
    ops.depthwise_conv2d(ones, np.ones((1, 3, 3)), None, stride, padding).sum().backward()
    cells(ax, ones.grad[0, 0], f"stride {stride}, padding {padding}", limit=18)

# %% [markdown]
# **What to see.** Inside, nine windows see a pixel; a corner is seen once, padded four times; with stride 2, 1 to 4.
#
# ## Both gradients
#
# Given $gy=\partial L/\partial y$, the chain rule sums over all outputs ([in full](../ops/depthwise_conv.md)). With one
# index for both axes, without $n$ and $c$, and $X$ for $x$ in its border, $y[i]$ is $\sum_u X[i\,s+u]\,w[u]$, and
#
# $$ \frac{\partial y[i]}{\partial w[u]} = X[i\,s+u] \quad\Rightarrow\quad gw[u] = \sum_i gy[i]\,X[i\,s+u] $$
#
# $$ \frac{\partial y[i]}{\partial X[r]} = \sum_u w[u]\,[\,r=i\,s+u\,]
#    \quad\Rightarrow\quad gX[r] = \sum_{i,u} gy[i]\,w[u]\,[\,r=i\,s+u\,] $$
#
# A bracket is 1 where its statement holds, else 0. Read it as an address: $gy[i]\,w[u]$ is *added at* $r=i\,s+u$, where
# forward *read*. The loop stays, its middle line changes.


# %%
def grad_w(X, gy, kernel, s=1):
    gw = np.zeros((X.shape[1], *kernel))
    for u, v, view in shifted(X, kernel, gy.shape[2:], s):
        gw[:, u, v] = (view * gy).sum(axis=(0, 2, 3))
    return gw


def grad_x(gy, w, shape, s=1):
    gX = np.zeros(shape)
    for u, v, view in shifted(gX, w.shape[1:], gy.shape[2:], s):
        view += gy * w[:, u, v, None, None]  # writes into gX
    return gX


tx, tw = Tensor(X, requires_grad=True), Tensor(W, requires_grad=True)
ops.depthwise_conv2d(tx, tw, stride=2).backward(gy := rng.standard_normal((2, 3, 4, 4)))
assert np.allclose(grad_w(X, gy, (3, 2), s=2), tw.grad)
assert np.allclose(grad_x(gy, W, X.shape, s=2), tx.grad)

# %% [markdown]
# ## Why it is the transpose
#
# For a fixed kernel $y$ is linear in $x$: flattened, $y=Ax$. The gradient of a linear map is its transpose,
# $gx=A^\top gy$. Nobody stores $A$, but a small one can be seen: column $k$ is the output for an image that is 1 at
# pixel $k$, else 0.

# %%
small = np.arange(1.0, 10).reshape(1, 3, 3)
A = forward(np.eye(30).reshape(30, 1, 5, 6), small).reshape(30, 12).T
At = grad_x(np.eye(12).reshape(12, 1, 3, 4), small, (12, 1, 5, 6)).reshape(12, 30).T
assert np.array_equal(At, A.T)

# %% tags=["hide-input"] mystnb={"image": {"alt": "A kernel with the values 1 to 9; the matrix of 12 rows and 30 columns that it makes, in blocks of 4 by 6 with constant diagonals, which are constant along block diagonals; and the transposed matrix."}, "code_prompt_show": "Show the drawing code"}
figure, axes = plt.subplots(1, 3, figsize=(9.5, 4.4), width_ratios=[3, 15, 7])
cells(axes[0], small[0], "w", limit=14)
for ax, matrix, (rows, columns) in zip(axes[1:], (A, At), [(4, 6), (6, 4)], strict=True):
    ax.imshow(matrix, cmap="PuOr", vmin=-14, vmax=14)
    ax.set_xticks(np.arange(columns, matrix.shape[1], columns) - 0.5, [])
    ax.set_yticks(np.arange(rows, matrix.shape[0], rows) - 0.5, [])
    ax.grid(color=BLUE, lw=0.8)
axes[1].set(title="A, forward", xlabel="pixels of x, row after row", ylabel="pixels of y")
_ = axes[2].set(title="Aᵀ, grad_x", xlabel="pixels of y", ylabel="pixels of x")

# %% [markdown]
# **What to see.** The darker, the larger the weight. A block (blue lines) belongs to one row of $y$ and one of $x$. It is constant along its diagonals,
# which hold one row of the kernel: a *Toeplitz* matrix. The blocks are constant along theirs: *doubly* Toeplitz. It
# must be so, since the same nine numbers are used everywhere. `grad_x` has each at the mirrored place.
#
# ## How a check is fooled
#
# A popular test: `y.sum().backward()`, then difference quotients. Here is a node with a classic mistake, the kernel
# turned round in `grad_x`. An image in a border of 2 gets these gradients:


# %%
class Flipped(DepthwiseConv2d):
    def backward(self, gy):
        self.saved = self.saved[0], self.saved[1][:, ::-1, ::-1]
        return super().backward(gy)


def gradient(node, gy):
    image = Tensor(np.ones((1, 1, 7, 9)), requires_grad=True)
    node(1, 2)(image, small).backward(gy)
    return image.grad[0, 0]


ones, random = np.ones((1, 1, 9, 11)), rng.integers(-1, 2, (1, 1, 9, 11)).astype(float)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two rows of three images: right gradient, gradient with the kernel turned round, difference. With a cotangent of ones both are 45 everywhere and the difference 0; with a random one they differ almost everywhere."}, "code_prompt_show": "Show the drawing code"}
figure, axes = plt.subplots(2, 3, figsize=(9.5, 4.8))
for row, gy, name in zip(axes, (ones, random), ("gy = 1 everywhere", "gy random"), strict=True):
    right, wrong = gradient(DepthwiseConv2d, gy), gradient(Flipped, gy)
    cells(row[0], right, f"{name}: right", limit=90)
    cells(row[1], wrong, "kernel turned round", limit=90)
    cells(row[2], wrong - right, "difference", limit=90)
    assert np.array_equal(right, wrong) == (gy is ones)

# %% [markdown]
# **What to see.** In this border every pixel meets all nine weights. With ones it gets their sum, in whatever order:
# the wrong gradient is *equal*. ($\mathbf 1^\top A$ knows only the sums of a matrix's columns.) A random cotangent
# gives each row its own weight. Behind a normalization it is worse:

# %%
for node in (DepthwiseConv2d, Flipped):
    image = Tensor(X[:, :1], requires_grad=True)
    ops.batch_norm(node(1, 1)(image, small), None, None, training=True).sum().backward()
    print(f"{node.__name__:15} largest gradient of y.sum(): {abs(image.grad).max():.0e}")
try:
    check_grads(lambda x, w: Flipped(1, 1)(x, w), X, W)
except AssertionError as error:
    print(error)

# %% [markdown]
# A norm's outputs have mean 0 whatever comes in. Their sum is constant, and its gradient 0 (up to rounding) for all
# that lies before, right or wrong. So [`check_grads`](../../tinyseg/ops/gradcheck.py) draws its cotangent at random.
#
# ## Exercises
#
# **1. The transpose of a convolution is a convolution.** At stride 1, solve the bracket for $i$ and compute $gx$ with
# the *forward* op applied to $gy$. Which kernel, which padding? And if the forward pass had a padding of 1?

# %%
answer = ...  # gx: a function of gy, w and the padding p of the forward pass
teaching.check("3.1", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 1"}
# gX[r] = sum over u of gy[r - u] w[u]; with t = KH-1 - u, gy[r - (KH-1) + t] w[KH-1 - t]: the kernel turned round, and
# a border of KH-1. A forward padding of p is cropped from the result, which leaves a border of KH-1 - p.
def gathered_gradient(gy, w, p):
    border = w.shape[1] - 1 - p, w.shape[2] - 1 - p
    return ops.depthwise_conv2d(gy, w[:, ::-1, ::-1], padding=border).data


for p in (0, 1):
    image = Tensor(X, requires_grad=True)
    gy = rng.standard_normal((2, 3, 7 + 2 * p, 7 + 2 * p))
    ops.depthwise_conv2d(image, W, padding=p).backward(gy)
    gathered = gathered_gradient(gy, W, p)
    print(f"padding {p}: largest difference {abs(gathered - image.grad).max():.0e}")
    assert np.allclose(gathered, image.grad)
assert teaching.check("3.1", gathered_gradient)

# %% [markdown]
# **2. Holes in the kernel.** A *dilated* convolution reads $x[i+d\,u,\;j+d\,v]$. Write it as a `Function` for $d=2$,
# with its backward. Compare it with `ops.depthwise_conv2d`, given a kernel with holes or
# [its own `dilation`](../ops/depthwise_conv.md#dilation); check its gradients. What had to change?

# %%
answer = ...  # the class that you wrote
teaching.check("3.2", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 2"}
# Only the views differ. All three passes take them from one place, so forward and backward cannot disagree.
class Dilated(Function):
    def views(self, X, kernel, d=2):
        OH, OW = (n - d * (k - 1) for n, k in zip(X.shape[2:], kernel, strict=True))
        return [(u, v, X[:, :, d * u : d * u + OH, d * v : d * v + OW]) for u, v in np.ndindex(*kernel)]

    def forward(self, x, w):
        self.saved = x, w
        return sum(view * w[:, u, v, None, None] for u, v, view in self.views(x, w.shape[1:]))

    def backward(self, gy):
        (x, w), gx, gw = self.saved, np.zeros(self.input_shapes[0]), np.zeros(self.input_shapes[1])
        for (u, v, view), (_, _, g) in zip(self.views(x, w.shape[1:]), self.views(gx, w.shape[1:]), strict=True):
            gw[:, u, v] = (view * gy).sum(axis=(0, 2, 3))
            g += gy * w[:, u, v, None, None]
        return gx, gw


holes = np.kron(W, np.outer([1, 0], [1, 0]))[:, :5, :3]  # 5×3: zeros after every weight, and the last ones cut off
assert np.allclose(Dilated()(X, W).data, ops.depthwise_conv2d(X, holes).data)
assert np.allclose(Dilated()(X, W).data, ops.depthwise_conv2d(X, W, dilation=2).data)
check_grads(lambda x, w: Dilated()(x, w), X, W)
assert teaching.check("3.2", Dilated)
holes[0].round(2)

# %% [markdown]
# **3. The missing term.** This node brings an array to mean 0 and variance 1. Its backward pass lacks a term. Find it
# ([derivation](../ops/batch_norm.md)), show that ones do not notice, and describe *all* cotangents that are fooled.


# %%
class Normalize(Function):
    def forward(self, x):
        r = 1 / np.sqrt(x.var() + 1e-5)
        self.saved = (x - x.mean()) * r, r
        return self.saved[0]

    def backward(self, gy):
        xhat, r = self.saved
        return r * (gy - gy.mean())


# %%
answer = ...  # Normalize with the whole of its backward pass, a class
teaching.check("3.3", answer)


# %% tags=["hide-cell"] jupyter={"source_hidden": true} mystnb={"code_prompt_show": "Solution 3"}
# Missing: - xhat mean(gy xhat), since x moves the deviation too. For ones it is mean(xhat) = 0. Fooled are all gy with
# mean(gy xhat) = 0, those at right angles to xhat: a hyperplane, which a random gy meets with probability 0.
class Mended(Normalize):
    def backward(self, gy):
        xhat, r = self.saved
        return super().backward(gy) - r * xhat * (gy * xhat).mean()


check_grads(lambda x: Mended()(x), X)
node, gy = Mended(), rng.standard_normal(X.shape)
xhat = node(Tensor(X, requires_grad=True)).data
fooling = {"ones": np.ones(X.shape), "at right angles": gy - xhat * (gy * xhat).sum() / (xhat**2).sum(), "random": gy}
fooled = {name: np.allclose(Normalize.backward(node, gy), node.backward(gy)) for name, gy in fooling.items()}
assert fooled == {"ones": True, "at right angles": True, "random": False}
assert teaching.check("3.3", Mended)
fooled
