# %% [markdown]
# # 3. Depthwise convolution by hand
#
# Nine weights slide over an image. How does one write that without a loop over pixels, and what are its gradients?
#
# **Afterwards you can** write a convolution and both of its gradients as one loop over nine shifted images, explain why
# the gradient of the input is a transpose, and choose a test that a wrong gradient does not pass. **Time:** half an
# hour to read, an hour more for the exercises; it runs within a minute.

# %%
import numpy as np
from scipy.signal import correlate2d

from tinyseg import Function, Tensor, check_grads, ops
from tinyseg.learn import teaching
from tinyseg.learn.figures import notebook_03 as draw
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
draw.window_by_window(x, w, y)

# %% [markdown]
# **What to see.** The output, $OH\times OW$, is smaller by $KH-1$ rows and $KW-1$ columns: a window must fit. It is
# positive where a window has the block at its right, negative where at its left.
#
# ## Tap by tap
#
# In Python a loop over pixels is slow. Change the order of the sums: fix one position $(u,v)$ in the kernel, a *tap*,
# and ask what it sees in *all* windows. It sees the image, shifted: `x[u : u + OH, v : v + OW]`, a view that copies
# nothing. The convolution is nine shifted images, each times one number, added up.

# %%
terms = [x[u : u + 4, v : v + 6] * w[u, v] for u, v in np.ndindex(3, 3)]
sums = np.cumsum(terms, axis=0)  # the first term, the first two, and so on
assert np.array_equal(sums[-1], y)
draw.tap_by_tap(x, w, sums)

# %% [markdown]
# **What to see.** The frame on $x$ begins at $(u,v)$, and what is in it, times $w[u,v]$, is added to the whole output;
# nothing changes where $w[u,v]=0$. In code, with a stride $s$ (windows begin at every $s$-th pixel only):


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

# %%
seen = {}
for stride, padding in ((1, 0), (1, 1), (2, 1)):
    image = Tensor(np.ones((1, 1, 7, 9)), requires_grad=True)
    y = ops.depthwise_conv2d(image, np.ones((1, 3, 3)), None, stride, padding)
    y.sum().backward()
    seen[stride, padding] = image.grad[0, 0]
draw.windows_over_a_pixel(seen)

# %% [markdown]
# **What to see.** Inside, nine windows see a pixel; a corner is seen once, padded four times; with stride 2, one, two
# or four.
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
# forward *read*. The loop stays, its body changes.


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
draw.matrix_and_transpose(small[0], A, At)

# %% [markdown]
# **What to see.** The darker, the larger the weight. A block (blue lines) belongs to one row of $y$ and one of $x$. It
# is constant along its diagonals, which hold one row of the kernel: a *Toeplitz* matrix. The blocks are constant along
# theirs: *doubly* Toeplitz. It must be so, since the same nine numbers are used everywhere. `grad_x` has each at the
# mirrored place.
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


ones = np.ones((1, 1, 9, 11))
random = rng.integers(-1, 2, ones.shape).astype(float)
pairs = {}
for name, gy in (("gy = 1 everywhere", ones), ("gy random", random)):
    pairs[name] = gradient(DepthwiseConv2d, gy), gradient(Flipped, gy)
    assert np.array_equal(*pairs[name]) == (gy is ones)
draw.right_and_wrong(pairs)

# %% [markdown]
# **What to see.** In this border every pixel meets all nine weights. With ones it gets their sum, in whatever order:
# the wrong gradient is *equal*. ($\mathbf 1^\top A$ knows only the sums of a matrix's columns.) A random cotangent
# gives each row its own weight. Behind a normalization it is worse:

# %%
for node in (DepthwiseConv2d, Flipped):
    image = Tensor(X[:, :1], requires_grad=True)
    ops.batch_norm(node(1, 1)(image, small), None, None, training=True).sum().backward()
    largest = abs(image.grad).max()
    print(f"{node.__name__:15} largest gradient of y.sum(): {largest:.0e}")
    assert largest < 1e-9
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


# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 1"}
gathered = teaching.solution("3.1")
for p in (0, 1):
    image = Tensor(X, requires_grad=True)
    gy = rng.standard_normal((2, 3, 7 + 2 * p, 7 + 2 * p))
    ops.depthwise_conv2d(image, W, padding=p).backward(gy)
    off = abs(gathered(gy, W, p) - image.grad).max()
    print(f"padding {p}: largest difference {off:.0e}")
    assert off < 1e-9
assert teaching.check("3.1", gathered)

# %% [markdown]
# **2. Holes in the kernel.** A *dilated* convolution reads $x[i+d\,u,\;j+d\,v]$. Write it as a `Function` for $d=2$,
# with its backward. Compare it with `ops.depthwise_conv2d`, given a kernel with holes or
# [its own `dilation`](../ops/depthwise_conv.md#dilation); check its gradients. What had to change?

# %%
answer = ...  # the class that you wrote, called as Dilated()(x, w)
teaching.check("3.2", answer)


# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 2"}
Dilated = teaching.solution("3.2")
holes = np.kron(W, np.outer([1, 0], [1, 0]))[:, :5, :3]  # a zero after each weight
print(holes[0].round(2))
y = Dilated()(X, W).data
assert np.allclose(y, ops.depthwise_conv2d(X, holes).data)
assert np.allclose(y, ops.depthwise_conv2d(X, W, dilation=2).data)
check_grads(lambda x, w: Dilated()(x, w), X, W)
assert teaching.check("3.2", Dilated)

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


# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 3"}
Mended = teaching.solution("3.3")
check_grads(lambda x: Mended()(x), X)
node, gy = Mended(), rng.standard_normal(X.shape)
xhat = node(Tensor(X, requires_grad=True)).data
right_angle = gy - xhat * (gy * xhat).sum() / (xhat**2).sum()
cotangents = {"ones": np.ones(X.shape), "right angle": right_angle, "random": gy}
fooled = {}
for name, c in cotangents.items():
    fooled[name] = np.allclose(Normalize.backward(node, c), node.backward(c))
print(fooled)
assert fooled == {"ones": True, "right angle": True, "random": False}
assert teaching.check("3.3", Mended)
