# %% [markdown]
# # 1. Autograd on one page
#
# A program computes a loss from a hundred thousand weights. How does one call, `loss.backward()`, find the derivative
# with respect to each of them, in the time of a few forward passes and without a formula?
#
# **Afterwards you can** write such a program in some twenty lines, follow a gradient through the graph of
# [tinyseg's engine](../../tinyseg/autograd/engine.py), say what a graph keeps in memory, and tell a right gradient from
# a wrong one. **Time:** half an hour to read, as much again with the exercises; it runs within a minute.

# %%
import tracemalloc

import numpy as np

from tinyseg import Function, Tensor, check_grads, no_grad, ops
from tinyseg.learn import teaching
from tinyseg.learn.figures import notebook_01 as draw

teaching.style()

# %% [markdown]
# ## A formula that is a graph
#
# One weight $w$, one input $x$, one target $t$; a squared error and a penalty on a large weight. $w$ is used twice.
#
# $$ L = (w\,x - t)^2 + w^2, \qquad
#    \frac{\partial L}{\partial w} = 2\,(w\,x-t)\,x + 2\,w, \qquad \frac{\partial L}{\partial x} = 2\,(w\,x-t)\,w $$


# %%
def loss(w, x, t):
    return (w * x - t) ** 2 + w**2


loss(3.0, 2.0, 4.0)

# %% [markdown]
# A computer takes the formula one operation at a time: $u=w\,x$, then $e=u-t$, then $e^2$, then $w^2$, then the sum.
# Draw an arrow from each value to what is computed from it, and there is the graph. The chain rule speaks about it.
# Write $gv$ for $\partial L/\partial v$; then, for any value $v$,
#
# $$ gv = \sum_{c\ \text{computed from}\ v} gc\;\frac{\partial c}{\partial v} $$
#
# An operation has to know only its own slopes $\partial c/\partial v$: $1$ for a sum, the other factor for a product.
# The rest is bookkeeping, by two rules. What comes back to a value that was used several times is **added up**. And a
# value has its turn when **all its users have had theirs**, because only then is its sum complete.
#
# ## By hand: numbers that remember where they came from


# %%
class Var:
    def __init__(self, value, parents=()):
        self.value, self.parents, self.grad = value, parents, 0.0

    def __add__(self, other):
        return Var(self.value + other.value, [(self, 1), (other, 1)])

    def __sub__(self, other):
        return Var(self.value - other.value, [(self, 1), (other, -1)])

    def __mul__(self, other):
        return Var(self.value * other.value, [(self, other.value), (other, self.value)])

    def __pow__(self, k):
        return Var(self.value**k, [(self, k * self.value ** (k - 1))])


def parents_first(var, order):
    if var not in order:
        for parent, _ in var.parents:
            parents_first(parent, order)
        order.append(var)
    return order


def backward(result):
    result.grad = 1.0  # dL/dL
    for var in reversed(parents_first(result, [])):  # users first
        for parent, slope in var.parents:
            parent.grad += var.grad * slope  # the chain rule; += is its sum


# %% [markdown]
# The function `loss` does not notice that it now gets `Var`s. That is the whole trick of *reverse-mode* differentiation
# in a language with operators: run the ordinary program once, leave a trail, walk it back. (For long programs ours is
# too simple: it searches a list at every value, and it recurses. The engine has a set and a stack of its own.)

# %%
w, x, t = Var(3.0), Var(2.0), Var(4.0)
L = loss(w, x, t)
backward(L)
print(f"L = {L.value}   gw = {w.grad}   gx = {x.grad}   gt = {t.grad}")
assert (w.grad, x.grad) == (2 * (3 * 2 - 4) * 2 + 2 * 3, 2 * (3 * 2 - 4) * 3)

# %% [markdown]
# ## The same in the engine
#
# In tinyseg a value is a `Tensor` (an array), an operation is a `Function` with a `forward` and a `backward`, and the
# trail is in `tensor.creator.parents`. The slope is not stored as a number, since between arrays it would be a matrix
# as large as all inputs times all outputs. Instead, `backward(gy)` is *code* that multiplies by it.
# [One page for every op](../ops/index.md) derives that code.

# %%
w, x = Tensor(3.0, requires_grad=True), Tensor(2.0, requires_grad=True)
t = Tensor(4.0)  # a constant: no gradient wanted
u = w * x
e = u - t
L = e**2 + w**2
print(L, "from", [type(parent).__name__ for parent in L.creator.parents])
picture = teaching.draw_graph(L, names={"w": w, "x": x, "u": u, "e": e, "L": L})
draw.loss_graph(picture)

# %% [markdown]
# **What to see.** This is read from the live graph, not drawn from the formula. Boxes are nodes: the engine's name for
# an operation at its place. Round ones are leaves, which no operation made. Two arrows leave $w$, which is used twice.
# There is no $t$: it wants no gradient, so the subtraction has noted `None` in its place.
#
# ## Gradients flow back
#
# `teaching.trace_backward` calls `L.backward()` and notes each visit to a node. Think before you look: which number
# will stand on each arrow?

# %%
visits = teaching.trace_backward(L)
assert (w.grad, x.grad, t.grad) == (14, 12, None)  # what came out by hand
draw.gradients_flow(picture, visits)

# %% [markdown]
# **What to see.** The walk begins with $gL=1$ at the right. A node (orange) sends to each parent the number that came
# in times its slope. At $w$ the gradient stands at 8 after the first arrow and at 14 after the second: $8 = 4\cdot x$
# from the error, $6 = 2w$ from the penalty. That is the sum in the chain rule. In a convolution one weight is used at
# every pixel, and its gradient is the same sum with a term for each; see [notebook 3](03_depthwise_by_hand.py).
#
# Each node is visited **once**. It would also be correct to hand on every contribution as soon as it arrives, but that
# follows every *path* from the result to the leaves. In a chain of $n$ steps $h \leftarrow h + f(h)$, which is what
# skip connections are, there are $2^n$ paths and about $2n$ nodes. To wait until a sum is complete is what makes the
# method affordable.
#
# ## What a node holds, and what it lets go
#
# A node holds its **parents**: who holds `L` holds the whole graph. It does not hold its **output**. An array stays
# alive if somebody needs it to go back: `Multiply` saves its factors, `Sigmoid` its output (its slope is $y\,(1-y)$),
# `Add` nothing. We can watch that. `Probe` is a node of our own that does nothing but look at the memory in use.


# %%
class Probe(Function):
    def forward(self, x):
        held.append(tracemalloc.get_traced_memory()[0] / 2**20)
        return x

    def backward(self, gy):
        held.append(tracemalloc.get_traced_memory()[0] / 2**20)
        return gy


def memory_of(step):
    """MiB in use before each of twelve steps on 1 MiB of numbers, forward and back."""
    held.clear()
    h = Probe()(Tensor(np.linspace(-1, 1, 2**17), requires_grad=True))
    for _ in range(12):
        h = Probe()(step(h))
    h.sum().backward()
    return np.array(held) - held[0]


held = []
tracemalloc.start()
curves = {"sigmoid(h)": memory_of(ops.sigmoid), "h + 0.1": memory_of(lambda h: h + 0.1)}
tracemalloc.stop()
assert curves["sigmoid(h)"][12] > 10 and curves["h + 0.1"].max() < 3
draw.memory(curves)

# %% [markdown]
# **What to see.** Each sigmoid leaves an array of 1 MiB behind. Twelve additions leave twelve nodes and no array: the
# curve stays at two, the array that is read and the one that is written. If nodes held their outputs, both curves would
# be the upper one. On the way back it falls, because the engine lets go of a node, and of what it saved, when it has
# been visited. The price: a graph can be walked once, and intermediate tensors have no `.grad` unless you ask for it
# (`tensor.retain_grad()`). Where nothing shall be kept, for a prediction say, `with no_grad():` leaves no trail.
#
# ## Is it right?
#
# A backward pass is code, and code has mistakes. The judge is the definition of the derivative,
#
# $$ f'(x) \approx \frac{f(x+\varepsilon)-f(x-\varepsilon)}{2\,\varepsilon}. $$
#
# Too large a step $\varepsilon$ measures the curve's bend as well. Too small a step subtracts two nearly equal numbers,
# of which only the last digits remain. So [`check_grads`](../../tinyseg/ops/gradcheck.py) works in float64, with
# $\varepsilon=10^{-6}$. It does not try every element: it draws a random direction $v$ for each input and a random
# *cotangent* $c$ for the output (what a backward pass is given, see the [glossary](../glossary.md)), and compares two
# numbers, $\langle v, J^\top c\rangle$ from the backward pass and $\langle c, Jv\rangle$ from two forward passes, where
# $J$ holds all the slopes. ([Notebook 3](03_depthwise_by_hand.py) shows why random.)


# %%
class Square(Function):
    def forward(self, x):
        self.saved = x
        return x * x

    def backward(self, gy):
        return gy * self.saved


rng = np.random.default_rng(0)
check_grads(loss, *rng.standard_normal((3, 5, 4)))  # silent: all is right
try:
    check_grads(lambda x: Square()(x), rng.standard_normal((5, 4)))
except AssertionError as error:
    print(error)

# %% [markdown]
# A factor of 2 is missing. All ops have passed this; [a test](../../tests/ops/test_breaks.py) breaks each on purpose.
#
# ## Exercises
#
# **1. Cut a path.** Let $s=x\cdot x$ and $y=s\cdot x$ at $x=2$. Which gradient arrives at $x$? And which if the line
# `s = x * x`, and only that, runs under `no_grad`? Say both numbers, and draw both graphs, before you run anything. Of
# which function is the second number the derivative?

# %%
answer = ...  # both gradients: (whole, cut)
teaching.check("1.1", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 1"}
assert teaching.check("1.1", teaching.solution("1.1")())
x = Tensor(2.0, requires_grad=True)
with no_grad():
    s = x * x
y = s * x
draw.cut_graph(teaching.draw_graph(y, names={"x": x, "y": y}))

# %% [markdown]
# **2. Addition that does not commute.** `Twice` looks right, and alone it is right. Yet $2x+\sigma(x)$ and
# $\sigma(x)+2x$ get different gradients. Which of the two is wrong, where is the mistake, and why does the order of the
# summands matter? (What does `Add` send to its two parents?)


# %%
class Twice(Function):
    def forward(self, x):
        return 2 * x

    def backward(self, gy):
        gy *= 2
        return gy


def gradient(f):
    x = Tensor(np.array([0.0, 1.0]), requires_grad=True)
    f(x).backward(np.ones(2))
    return x.grad


print("2x          ", gradient(lambda x: Twice()(x)))
print("2x + sigmoid", gradient(lambda x: Twice()(x) + ops.sigmoid(x)))
print("sigmoid + 2x", gradient(lambda x: ops.sigmoid(x) + Twice()(x)))

# %%
answer = ...  # what Twice.backward should be: a function of the node and of gy
teaching.check("1.2", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 2"}
Twice.backward = teaching.solution("1.2")
one = gradient(lambda x: Twice()(x) + ops.sigmoid(x))
other = gradient(lambda x: ops.sigmoid(x) + Twice()(x))
print(one, other)
assert one[0] == other[0] == 2.25
assert teaching.check("1.2", Twice.backward)

# %% [markdown]
# **3. A node that is worth writing.** $y=\log(e^a+e^b)$ can be composed of `ops.exp`, `+` and `ops.log`. Derive $ga$
# and $gb$ all the same and write it as one `Function` that keeps a single array for backward and is finite at $a=1000$,
# $b=999$. Check it, and compare it with the composition at that point. What do $ga$ and $gb$ add up to?

# %%
answer = ...  # your class, called as LogAddExp()(a, b); the array is in self.saved
teaching.check("1.3", answer)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Solution 3"}
LogAddExp = teaching.solution("1.3")
check_grads(lambda a, b: LogAddExp()(a, b), *rng.standard_normal((2, 5, 4)))
a, b = (Tensor(np.array(value), requires_grad=True) for value in (1000.0, 999.0))
y = LogAddExp()(a, b)
y.backward()
with np.errstate(over="ignore"):
    composed = ops.log(ops.exp(a) + ops.exp(b)).item()
print(f"one node: {y.item():.4f}, ga {a.grad:.4f}, gb {b.grad:.4f}")
print(f"composed: {composed}")
assert composed == np.inf
assert teaching.check("1.3", LogAddExp)
