"""Solutions of notebook 6, two readings of weight standardization."""

import numpy as np

from tinyseg import Tensor, nn, ops

# %% 1
# (a) Only the mean is taken out. A box is nothing but mean, and becomes 0 (σ = 0). A
# copy becomes 8 in the middle and -1 around it: a spot detector. Laplace and Sobel have
# no mean and only change in size. Blur plus edge keeps its edge, and its blur turns
# into a spot.
# (b) Plus one on the first channel, minus one on the second: a sum of zero over the
# filter, not over each plane. Brightness common to both channels is lost, a difference
# between channels is not. A depthwise filter has only one plane.


def solution_1(blur, edge):
    around = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]])
    laplacian = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]])
    survive = np.zeros((3, 3)), around, laplacian, blur - blur.mean() + edge
    compare = np.stack([np.ones((3, 3)), -np.ones((3, 3))])
    return survive, compare


# %% 2
# gv is orthogonal to 1 and to w, hence to v, which is a mix of the two: Pythagoras.
# From 10 v the gradient is a tenth, and relative to v the step is a hundredth: the
# direction of v, which is all that w keeps, turns a hundred times less. As v only
# grows, the step shrinks while training goes on.


def step(v, target, rate):
    """Descend |w - target|²/2: return the new v, gv, and the change of w."""
    v = Tensor(v, requires_grad=True)
    w = ops.weight_standardization(v, "filter", eps=0.0)
    w.backward(w.data - target)
    new = v.data - rate * v.grad
    change = ops.weight_standardization(new, "filter", eps=0.0).data - w.data
    return new, v.grad, change


def solution_2(v, target):
    """How many times smaller the first change of w is, and |v|² in 20 larger steps."""
    changes = [step(scale * v, target, rate=1e-3)[2] for scale in (1, 10)]
    times = np.linalg.norm(changes[0]) / np.linalg.norm(changes[1])
    squares = [(v**2).sum()]
    for _ in range(20):
        v, gv, _ = step(v, target, rate=0.5)
        squares.append((v**2).sum())
        assert np.isclose(squares[-1], squares[-2] + 0.5**2 * (gv**2).sum())
    return times, np.array(squares)


# %% 3
# One number a filter, and the loss falls below that of all networks per filter.
# Strength is still taken out, and so is the gradient along w, so those were not the
# reason: it was the level. An explanation is worth little until it has passed a test
# that it could have failed.


class LevelledConv2d(nn.DepthwiseConv2d):
    """Depthwise, standardized per filter, with a trained level for each filter."""

    def kernel(self):
        return super().kernel() + self.level.reshape((-1, 1, 1))


def solution_3(model):
    for _, layer in model.named_modules():
        if isinstance(layer, nn.DepthwiseConv2d) and layer.ws:
            layer.__class__ = LevelledConv2d  # the same weights, another kernel()
            filters = len(layer.weight.data)
            layer.level = nn.Parameter(np.zeros(filters, np.float32))
    return model
