"""Solutions of notebook 3, depthwise convolution by hand."""

import numpy as np

from tinyseg import Function, ops

# %% 1
# gX[r] is the sum over u of gy[r - u] w[u]. Count the taps from the other end, with
# t = KH-1 - u: it is the sum over t of gy[r - (KH-1) + t] w[KH-1 - t]. So the kernel is
# turned round, and gy gets a border of KH-1. A forward padding of p is cropped from the
# result, which leaves a border of KH-1 - p.


def solution_1(gy, w, p):
    border = w.shape[1] - 1 - p, w.shape[2] - 1 - p
    return ops.depthwise_conv2d(gy, w[:, ::-1, ::-1], padding=border).data


# %% 2
# Only the views differ. All three passes take them from one place, so forward and
# backward cannot disagree.


class Dilated(Function):
    """A depthwise convolution with dilation 2."""

    def views(self, X, kernel, d=2):
        OH, OW = (n - d * (k - 1) for n, k in zip(X.shape[2:], kernel, strict=True))
        for u, v in np.ndindex(*kernel):
            yield u, v, X[:, :, d * u : d * u + OH, d * v : d * v + OW]

    def forward(self, x, w):
        self.saved = x, w
        views = self.views(x, w.shape[1:])
        return sum(view * w[:, u, v, None, None] for u, v, view in views)

    def backward(self, gy):
        x, w = self.saved
        gx, gw = np.zeros(x.shape), np.zeros(w.shape)
        for u, v, view in self.views(x, w.shape[1:]):
            gw[:, u, v] = (view * gy).sum(axis=(0, 2, 3))
        for u, v, view in self.views(gx, w.shape[1:]):
            view += gy * w[:, u, v, None, None]  # writes into gx
        return gx, gw


solution_2 = Dilated

# %% 3
# Missing is the term -r xhat mean(gy xhat): x moves the standard deviation, too. For
# ones it is -r xhat mean(xhat) = 0. Fooled are all gy with mean(gy xhat) = 0, those at
# right angles to xhat: a hyperplane, which a random gy meets with probability 0.


class Mended(Function):
    """To mean 0 and variance 1, with the whole of its backward pass."""

    def forward(self, x):
        r = 1 / np.sqrt(x.var() + 1e-5)
        self.saved = (x - x.mean()) * r, r
        return self.saved[0]

    def backward(self, gy):
        xhat, r = self.saved
        return r * (gy - gy.mean() - xhat * (gy * xhat).mean())


solution_3 = Mended
