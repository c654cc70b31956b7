"""Answers to the exercises of the notebooks: the solutions are right, and these are not."""

import importlib
import pathlib
import re

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from scipy.signal import correlate2d

from tinyseg import nn, ops
from tinyseg.autograd import Function, Tensor
from tinyseg.learn import answers, teaching

NOTEBOOKS = sorted((pathlib.Path(__file__).resolve().parents[2] / "docs" / "notebooks").glob("[0-9]*.py"))


# ----- notebook 1 ------------------------------------------------------------------
class KeepsTwo(Function):
    """log(exp(a) + exp(b)), which keeps two arrays."""

    def forward(self, a, b):
        self.saved = a, b
        return np.logaddexp(a, b)

    def backward(self, gy):
        a, b = self.saved
        ga = gy / (1 + np.exp(b - a))
        return ga, gy - ga


class Overflows(KeepsTwo):
    def forward(self, a, b):
        self.saved = a, b
        with np.errstate(over="ignore"):
            return np.log(np.exp(a) + np.exp(b))


def in_place(node, gy):
    gy *= 2
    return gy


# Exercise, answer, what is said.
WRONG_01 = [
    ("1.1", (12, 12), "The gradient with s computed under no_grad is 12, and should be 4"),
    ("1.1", 12, "TypeError: cannot unpack"),
    ("1.2", in_place, "The gradient of 2x + σ(x)[0] is 2.5, and should be 2.25"),
    ("1.2", lambda node, gy: gy, "The gradient of 2x[0] is 1, and should be 2"),
    ("1.3", KeepsTwo, "keeps several arrays"),
    ("1.3", Overflows, "Y at a = 1000, b = 999 is inf"),
]


# ----- notebook 2 ------------------------------------------------------------------
def closest_kernel(A, S):
    """The best matrix of rank 1 for Σ = 1."""
    U, s, V = np.linalg.svd(A)
    return s[0] * np.outer(U[:, 0], V[0])


WRONG_02 = [
    (
        "2.1",
        lambda K, k: k * k * K // (k * k + K),
        "2 × 2 kernels and 4 channels out (cheaper is less than the whole cost): the largest R is 2",
    ),
    ("2.1", lambda K, k: k * k * K / (k * k + K), "3 × 3 kernels and 64 channels out: the largest R is 7.89041"),
    ("2.1", lambda K, k: k * k - 1, "3 × 3 kernels and 64 channels out: the largest R is 8, and should be 7"),
    ("2.2", (95.0, 1.2, 4.75), "The share that remains is a number between 0 and 1"),
    ("2.2", (0.05, 1.2, 4.75), "The share of SD-UNet's work that remains is too small, 0.05"),
    ("2.2", (0.95, 1.18, 4.75), "in SD-UNet, as a multiple of the work with 3 × 3, is too small, 1.18"),
    ("2.2", (0.95, 1.2, 49 / 9), "not all of its kernels are 3 × 3"),
    ("2.3", closest_kernel, "For pixels that are like their neighbours the mean squared error of the output is"),
    ("2.3", lambda A, S: A, "B is not of rank 1"),
    ("2.3", lambda A, S: closest_kernel(A, S)[0], "B has the shape (9,), and A has (5, 9)"),
]


# ----- notebook 3 ------------------------------------------------------------------
class NotDilated(Function):
    """The convolution without holes."""

    step = 1

    def views(self, X, kernel):
        d = self.step
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


class DilatedTurnedRound(NotDilated):
    """The dilated convolution, with the kernel turned round in the gradient of x."""

    step = 2

    def backward(self, gy):
        gw = super().backward(gy)[1]
        self.saved = self.saved[0], self.saved[1][:, ::-1, ::-1]
        return super().backward(gy)[0], gw


class Normalize(Function):
    """Lacks a term."""

    def forward(self, x):
        r = 1 / np.sqrt(x.var() + 1e-5)
        self.saved = (x - x.mean()) * r, r
        return self.saved[0]

    def backward(self, gy):
        return self.saved[1] * (gy - gy.mean())


class AddsTheTerm(Normalize):
    """Has the term with the wrong sign."""

    def backward(self, gy):
        xhat, r = self.saved
        return super().backward(gy) + r * xhat * (gy * xhat).mean()


class LacksTheMean(Normalize):
    """Has the term, and lacks the other one."""

    def backward(self, gy):
        xhat, r = self.saved
        return r * (gy - xhat * (gy * xhat).mean())


def gathered(gy, w, p, border):
    return ops.depthwise_conv2d(gy, w, padding=border(w.shape[1] - 1, w.shape[2] - 1, p))


WRONG_03 = [
    (
        "3.1",
        lambda gy, w, p: gathered(gy, w, p, lambda h, v, p: (h - p, v - p)),
        "A 3 × 2 kernel and a padding of 0: gx[0, 0, 0, 0] is",
    ),
    (
        "3.1",
        lambda gy, w, p: gathered(gy, w[:, ::-1, ::-1], p, lambda h, v, p: (h, v)),
        "A 3 × 2 kernel and a padding of 1: gx has the shape (2, 2, 8, 6), and should have (2, 2, 6, 4)",
    ),
    (
        "3.1",
        lambda gy, w, p: gathered(gy, w[:, ::-1, ::-1], p, lambda h, v, p: (2 - p, 1 - p)),
        "A 3 × 3 kernel and a padding of 0: gx has the shape",
    ),
    ("3.2", NotDilated, "A 3 × 2 kernel: y has the shape (2, 2, 4, 4), and should have (2, 2, 2, 3)"),
    ("3.2", DilatedTurnedRound, "A 3 × 2 kernel: gx[0, 0, 0, 0] is"),
    ("3.3", Normalize, "A random gy: gx[0, 0] is"),
    ("3.3", AddsTheTerm, "A random gy: gx[0, 0] is"),
    ("3.3", LacksTheMean, "Gy = 1 everywhere: gx[0, 0] is"),
]


# ----- notebook 4 ------------------------------------------------------------------
def without_relu(x, w, b, y):
    for n, c in np.ndindex(x.shape[:2]):
        y[n, c] = correlate2d(x[n, c], w[c], mode="same") + b[c]
    return y


def bias_after_relu(x, w, b, y):
    without_relu(x, w, 0 * b, y)
    np.maximum(y, 0, out=y)
    y += b[:, None, None]


def adds_to_y(x, w, b, y):
    y += np.maximum(without_relu(x, w, b, np.empty_like(y)), 0)
    return y


KIB = np.multiply.outer([256, 1], [1, 4, 16, 64])  # 256×256 values of 4 bytes, and 32×32

WRONG_04 = [
    ("4.1", lambda C, K: C * K / (4 * (C + K)), "All intensities are 0.5 times what they should be"),
    ("4.1", lambda C, K: C / 4, "The intensity from 3 to 1 channels is 0.75, and should be 0.375"),
    ("4.2", 3 * KIB, "A block of 1 × 32 × 32: 3 KiB is too small"),
    ("4.2", 3 * KIB.T, "The answer has the shape (4, 2), and should have (2, 4)"),
    ("4.3", (24, 24, ...), "The bytes an output that one op moves are too many, 24"),
    ("4.3", (16, 8, ...), "The bytes an output that three ops move are too few, 16"),
    ("4.3", (24, 8, ...), "The bytes are right, and the kernel is still to be written"),
    ("4.3", (24, 8, without_relu), "Without a bias: y[0, 0,"),
    ("4.3", (24, 8, bias_after_relu), "With a bias: y[0, 0,"),
    ("4.3", (24, 8, adds_to_y), "Without a bias: y[0, 0, 0, 0] is nan"),
]


# ----- notebook 5 ------------------------------------------------------------------
OF_BATCH, OF_IMAGE, OF_CHANNEL = [-0.93, -0.46, 1.39], [-0.98, 0.98, 1.0], [0, 0, 0]  # means of the first channel


def factor_of_the_variance(images, n):
    variance = images.var() - images.mean((1, 2, 3)).var() / n
    return variance, images.var() / variance


def of_all_pixels(images, n):
    return images.var(), 1.0


def statistics(momentum=None, training=True, batched=True, bent=False):
    """A function that computes running statistics again, with a mistake."""

    def recalibrate(model, images, batch):
        norms = [layer for _, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)]
        batch = batch if batched else 1
        model.train(training)
        for k in range(len(images) // batch):
            for norm in norms:
                norm.momentum = momentum or 1 / (k + 1)
            y = model(images[k * batch : (k + 1) * batch])
            if bent:
                y.backward(np.ones_like(y.data))
                for p in model.parameters():
                    p.data = p.data - 0.01 * p.grad

    return recalibrate


WRONG_05 = [
    ("5.1", [OF_CHANNEL, OF_IMAGE, OF_CHANNEL], "BatchNorm, the image of level 0: a mean of 0.00 is too large"),
    ("5.1", [OF_BATCH, OF_CHANNEL, OF_CHANNEL], "GroupNorm, G = 1, the image of level 0: a mean of 0.00 is too large"),
    ("5.1", [OF_BATCH, OF_IMAGE, OF_IMAGE], "GroupNorm, G = 2, the image of level 0: a mean of -0.98 is too small"),
    ("5.1", np.transpose([OF_BATCH, OF_IMAGE, OF_CHANNEL]), "a row should be a norm"),
    ("5.1", [True, False, False], "The answer has the shape (3,), and should have (3, 3)"),
    ("5.2", factor_of_the_variance, "Images of unlike means, n = 1: the second number is the ratio"),
    ("5.2", of_all_pixels, "Images of unlike means, n = 1: the expected variance of a batch is"),
    ("5.2", lambda images, n: (factor_of_the_variance(images, 1)[0], 1.0), "n = 1: the second number is 1, and should"),
    ("5.3", statistics(momentum=0.1), "Image by image: the running mean of the first norm is"),
    ("5.3", statistics(training=False), "Image by image: the running mean of the first norm has not moved"),
    ("5.3", statistics(batched=False), "All images in one batch: the running variance of the first norm is"),
    ("5.3", statistics(bent=True), "Image by image: the weights have changed"),
]


# ----- notebook 6 ------------------------------------------------------------------
BLUR = np.array([[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]])
EDGE = np.array([[-0.5, 0, 0.5], [-1, 0, 1], [-0.5, 0, 0.5]])
SPOT = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]])
COPY = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]])
SURVIVE = [0 * BLUR, COPY, SPOT, EDGE + BLUR - 4 / 9]


def with_a_filter(second):
    return SURVIVE, np.stack([np.ones((3, 3)), second])


def levels(start=0.0, shape=lambda C: C, graph=True, used=True, everywhere=False):
    """A function that gives depthwise layers their levels, with a mistake."""

    class Levelled(nn.DepthwiseConv2d):
        def kernel(self):
            b = self.level if graph else self.level.data
            return super().kernel() + b.reshape((-1, 1, 1)) if used else super().kernel()

    def with_levels(model):
        for _, layer in model.named_modules():
            if isinstance(layer, nn.DepthwiseConv2d) and (everywhere or layer.ws):
                layer.__class__ = Levelled
                layer.level = nn.Parameter(np.full(shape(len(layer.weight.data)), start, np.float32))
        return model

    return with_levels


WRONG_06 = [
    ("6.1", ([BLUR, *SURVIVE[1:]], ...), "(a) the box has another end"),
    ("6.1", ([0 * BLUR, COPY > 0, *SURVIVE[2:]], ...), "(a) the copy becomes a kernel whose sum is 1"),
    ("6.1", ([0 * BLUR, COPY, -SPOT, SURVIVE[3]], ...), "(a) the Laplacian has the wrong sign"),
    ("6.1", ([*SURVIVE[:3], EDGE], ...), "(a) the blur plus the edge becomes something else"),
    ("6.1", (SURVIVE, ...), "(a) is right, and the filter of (b)"),
    ("6.1", with_a_filter(np.ones((3, 3))), "(b) the filter sums to 18"),
    ("6.1", (SURVIVE, np.stack([COPY, -COPY])), "(b) the filter answers both images alike"),
    ("6.1", (SURVIVE, np.ones((3, 3))), "(b) the filter has the shape (3, 3)"),
    ("6.2", 10, "10 times smaller is the gradient of v"),
    ("6.2", 0.01, "say how many times smaller"),
    ("6.2", 1, "1 is too small"),
    ("6.3", lambda model: model, "The model has no new parameters"),
    ("6.3", levels(shape=lambda C: 1), "new numbers are too few"),
    ("6.3", levels(everywhere=True), "new numbers are too many"),
    ("6.3", levels(start=1.0), "The levels are not 0 at the start"),
    ("6.3", levels(used=False), "With all levels 0.1: the output"),
    ("6.3", levels(graph=False), "No gradient arrives at the levels"),
]


# ----- notebook 7 ------------------------------------------------------------------
def share_of(a, b):
    """The share of the pixels from a before to b behind the middle."""

    def share(model):
        x = Tensor(np.random.default_rng(0).standard_normal((2, 1, 32, 32), np.float32), requires_grad=True)
        y = model.eval()(x)
        gy = np.zeros_like(y.data)
        gy[:, :, 16, 16] = 1
        y.backward(gy)
        g = abs(x.grad).mean((0, 1))
        return g[16 - a : 16 + b, 16 - a : 16 + b].sum() / g.sum()

    return share


def doubled(w):
    return np.concatenate([w, w], axis=1)


WRONG_07 = [
    ("7.1", (lambda b: 8 * 2**b - 7, 6), "With 0 poolings the radius is 1, and should be 2"),
    ("7.1", (lambda b: 5 * 2**b - 3, 6), "With 1 pooling the radius is 7, and should be 10"),
    ("7.1", (lambda b: 8 * 2**b - 6, ...), "The formula is right"),
    ("7.1", (lambda b: 8 * 2**b - 6, 5), "5 poolings are too few"),
    ("7.1", (lambda b: 8 * 2**b - 6, 7), "7 poolings are too many"),
    ("7.2", share_of(2, 2), "A single 5 × 5 convolution: the part is"),
    ("7.2", share_of(5, 6), "A single 7 × 7 convolution: the part is 1, and should be"),
    ("7.2", lambda model: 100 * share_of(2, 3)(model), "A single 3 × 3 convolution: the part is 100, and should be 1"),
    ("7.3", (lambda w: w, 3133440), "The kernel has the shape (2, 3, 3, 3) if w has"),
    ("7.3", (lambda w: doubled(w) / 2, 3133440), "All are 0.5 times what they should be"),
    ("7.3", (doubled, ...), "The kernel is right"),
    ("7.3", (doubled, 6266880), "Not 6,266,880: these are all weights"),
    ("7.3", (doubled, 36864), "36,864 weights are too few"),
]


# ----- notebook 8 ------------------------------------------------------------------
TISSUE = np.ones((1, 69, 69), bool)  # nine cells
TISSUE[:, 21:24] = TISSUE[:, 45:48] = TISSUE[:, :, 21:24] = TISSUE[:, :, 45:48] = False
HOLES, SHRUNK = TISSUE.copy(), binary_erosion(TISSUE, np.ones((1, 3, 3)), iterations=3, border_value=1)
HOLES[:, 34, 21:24] = HOLES[:, 34, 45:48] = HOLES[:, 10, 21:24] = HOLES[:, 10, 45:48] = True
HOLES[:, 58, 21:24] = HOLES[:, 58, 45:48] = HOLES[:, 21:24, 34] = HOLES[:, 45:48, 34] = True


def of_K(K):
    return K / (K + 1), (K - 1 / 2) / (K - 1 / 4)


def losses(table, sign=1, counted=False):
    own = table.argmax(0)
    scores = [table if counted else np.delete(table, k, axis=1) for k in range(table.shape[1])]
    overall = table.mean(1).argmax()
    return sign * np.array([s[overall].mean() - s[t].mean() for s, t in zip(scores, own, strict=True)])


WRONG_08 = [
    ("8.1", (TISSUE, SHRUNK, HOLES), "right nearly everywhere: 7"),
    ("8.1", (TISSUE, TISSUE, SHRUNK), "right nearly everywhere: V^Rand is 1.000, not below 0.3"),
    ("8.1", (TISSUE, HOLES, HOLES), "often wrong: 0.5 % of its pixels are wrong"),
    ("8.1", (TISSUE, HOLES, ~TISSUE), "often wrong: V^Rand is"),
    ("8.1", (TISSUE, HOLES[0], SHRUNK), "has the shape (69, 69), and the true masks have (1, 69, 69)"),
    ("8.1", (TISSUE, HOLES, 0.5 * SHRUNK), "The proposal that is often wrong is no mask"),
    ("8.2", (lambda K: (K / (K + 2), of_K(K)[1]), 100, 26), "2 cells: V^Rand after a merge is 0.5, and should be"),
    ("8.2", (lambda K: (of_K(K)[0], 1 - 1 / K), 100, 26), "2 cells: V^Rand after a split is 0.5, and should be"),
    ("8.2", (lambda K: of_K(K)[::-1], 100, 26), "2 cells: both are right, but the merge comes first"),
    ("8.2", (lambda K: 1 - np.array(of_K(K)), 100, 26), "2 cells: these are the losses"),
    ("8.2", (of_K, 99, 26), "Among 99 cells a merge costs 0.01, not less than a hundredth"),
    ("8.2", (of_K, 100, 25), "Among 25 cells a split costs 0.010101"),
    ("8.2", (of_K, 100, 100), "Among fewer than 100 cells a split costs less than a hundredth, too"),
    ("8.3", lambda table: losses(table, sign=-1), "Two thresholds, three sections: the loss"),
    ("8.3", lambda table: losses(table, counted=True), "the section that chooses is scored with the others"),
    ("8.3", lambda table: losses(table).mean(), "the loss has the shape (), and should have (3,)"),
]


# ----- notebook 9 ------------------------------------------------------------------
FIVE_WAYS = ["all voxels pooled", "mean over patients"]
FIVE_WAYS += [f"mean over slices, 0/0 {empty}" for empty in ("left out", "as 0", "as 1")]

WRONG_09 = [
    ("9.1", (0.5, 0.999), "The p with the lowest cross-entropy is 0.5, but a lower one is better"),
    ("9.1", (0.001, 0.999), "but a higher one is better"),
    ("9.1", (0.02, 0.02), "The p with the lowest soft Dice loss is 0.02, but at 0.51 it is lower"),
    ("9.1", (2, 100), "2 is no probability"),
    ("9.2", dict(zip(FIVE_WAYS, (0.8, 0.7, 0.6, 0.4, 0.75), strict=True)), "All voxels pooled: 0.800. Can any voxel"),
    ("9.2", [0.0, 0.0, 0.0, 0.0, 0.0], "Mean over slices, 0/0 as 1: 0.000. What does a slice score"),
    ("9.2", [0.0, 0.3], "There are 2 scores, and should be 5"),
    ("9.3", (0.9468, 0.93), "The Dice of the rim is that of the whole ball of radius 14"),
    ("9.3", (0.8333, 0.9468), "The Dice of the ball is that of the whole ball of radius 14"),
    ("9.3", (0.93, 0.833), "the rim's comes first"),
    ("9.3", (1.0, 1.0), "The Dice of the rim is 1, so that nothing has moved"),
    ("9.3", (0.7, 0.93), "The Dice of the rim is too small, 0.700"),
    ("9.3", (float("nan"), 0.93), "The Dice of the rim is too small, nan"),
]


# ----- notebook 10 -----------------------------------------------------------------
def shares_of(a, D):
    """TP with half of what it should be."""
    e = 1 - a
    TP = D * e / (4 * (1 - D))
    return TP / (TP + e), (a - TP) / (a - TP + e)


def exchanged(a, D):
    own = D / (2 - D)
    TP = own * (1 - a) / (1 - own)
    return (a - TP) / (1 - TP), own


WRONG_10 = [
    (
        "10.1",
        (47.1 / 15.8, 7.95),
        "U-Net (depthwise+GN=32) is not 2.98 times as big as SD-UNet, though it is printed so",
    ),
    ("10.1", (1.0, 19.7), "U-Net (GN=32) is not 19.7 times as big as SD-UNet, though it is printed so"),
    ("10.1", (1.0, 26 / 3.9), "the 26 million are printed"),
    ("10.1", (1.0, 9.0), "U-Net (GN=32) is not 9 times as big as SD-UNet, but less"),
    ("10.2", shares_of, "Of 100 pixels 70 are in both masks, 20 in neither, 10 in one of the two: the IoU"),
    ("10.2", exchanged, "the class comes first whose Dice is D"),
    ("10.2", lambda a, D: (D / (2 - D), a), "the IoU of the other class is 0.9, and should be 0.666667"),
    ("10.3", (1.69, 1.46, 0.375), "With one run the mean of best - worst is too small, 1.69 s"),
    ("10.3", (2.53, 0.845, 0.375), "is not a third"),
    ("10.3", (2.53, 2.53, 0.375), "is not the same: s is the deviation of one run"),
    ("10.3", (2.53, 1.8, 0.375), "With the mean of three runs best - worst is too large, 1.8 s"),
    ("10.3", (2.53, 1.46, 1 / 6), "as often as any other"),
    ("10.3", (2.53, 1.46, 0.5), "The favourite comes first too often, in 0.5 of the tables"),
    ("10.3", (2.53, 1.46, 37.5), "is a share, from 0 to 1"),
]


# ----- notebook 11 -----------------------------------------------------------------
def clipped_twice(sums, factor):
    found = np.minimum(np.rint(sums * factor), 255)
    return np.maximum(found, 0), found


def not_rounded_again(sums, factor):
    return np.clip(np.rint(np.maximum(sums, 0)) * factor, 0, 255), np.clip(np.rint(sums * factor), 0, 255)


def wraps(sums, factor):
    found = np.rint(np.maximum(sums, 0) * factor).astype(np.int64).astype(np.uint8)
    return found, found


def errors_with(most=63, together=False, relative=True):
    def errors(weights, inputs):
        step = weights.max(None if together else 1, keepdims=True) / most
        exact = (weights * inputs).sum(1)
        off = (np.rint(weights / step) * step * inputs).sum(1) - exact
        return off / exact if relative else off

    return errors


WRONG_11 = [
    ("11.1", clipped_twice, "Sums that fit: by_clipping[0, 0, "),
    ("11.1", not_rounded_again, "Sums that fit: with_relu[0, 0, "),
    ("11.1", wraps, "Sums of which some are too large: with_relu[0, 0, "),
    ("11.2", (0, 0), "no integer stands for a number outside of the range"),
    ("11.2", (3, 15), "The borders do not get 3: another integer stands for a number nearer to 0"),
    ("11.2", (-1, 5), "The borders cannot get -1: it lies outside of the range"),
    ("11.2", (1, 4), "The sum is not off by 4: in a corner, how many of the nine taps"),
    ("11.3", errors_with(127), "For n = 9: these are the errors with 8 bits"),
    ("11.3", errors_with(together=True), "For n = 9: these are the errors with one scale for all rows"),
    ("11.3", errors_with(relative=False), "For n = 9: these are the errors of the sums themselves"),
    ("11.3", lambda weights, inputs: errors_with()(weights, inputs).std(), "For n = 9: the errors have the shape ()"),
    ("11.3", lambda weights, inputs: 0 * weights[:, 0], "For n = 9: the relative error[0] is 0"),
]


# ----- notebook 12 -----------------------------------------------------------------
def factor_of(rate, times=1.0, power=1):
    def best(flat, steep):
        eta = rate(flat, steep)
        return eta, times * max(abs(1 - eta * flat), abs(1 - eta * steep)) ** power

    return best


def middle(flat, steep):
    return 2 / (flat + steep)


WRONG_12 = [
    ("12.1", lambda a: 2.0, "A = 0.2: this is the gain of a ReLU"),
    ("12.1", lambda a: 2 / (1 + a), "A = 0.2: how does the negative half enter a mean of squares?"),
    ("12.1", lambda a: (1 + a**2) / 2, "A = 0: this is what is left of the mean square"),
    ("12.1", lambda a: np.sqrt(2 / (1 + a**2)), "A = 0: this makes up for the deviation"),
    ("12.1", lambda a: 2 - a, "A = 0.2: the gain is 1.8, and should be 1.92308"),
    ("12.2", factor_of(lambda flat, steep: 1 / steep), "ℓ = 1, L = 10: the rate 0.1 is too small"),
    ("12.2", factor_of(lambda flat, steep: 1.9 / steep), "ℓ = 1, L = 10: the rate 0.19 is too large"),
    ("12.2", factor_of(lambda flat, steep: 2 / steep), "the rate 0.2 a direction does not shrink"),
    ("12.2", factor_of(middle, power=2), "The factor is that of the loss"),
    ("12.2", factor_of(middle, times=-1), "Give the size of the factor"),
    ("12.2", lambda flat, steep: (middle(flat, steep), 0.5), "the factor is 0.5, and should be 0.818182"),
    ("12.3", lambda s, rate: (s * rate, s * rate), "S = 10, η = 0.001: SGD: the weights are s times as large"),
    ("12.3", lambda s, rate: (rate, s * rate), "SGD: the gradient is smaller"),
    ("12.3", lambda s, rate: (s * s * rate, s * s * rate), "Adam: its step does not depend"),
    ("12.3", lambda s, rate: (s * s * rate, rate), "Adam: its steps are as long as before"),
    ("12.3", lambda s, rate: (s * rate, s * s * rate), "η = 0.001: both are right, but SGD's rate comes first"),
    ("12.3", lambda s, rate: (s**3 * rate, s * rate), "the rate with SGD is too large, 1"),
    ("12.3", lambda s, rate: (s * s * rate, rate / s), "the rate with Adam is too small, 0.0001"),
]


# Solutions that are answers, and those that are functions without arguments, which return an answer.
ANSWERS = [
    "1.2", "1.3", "2.1", "2.3", "3.1", "3.2", "3.3", "4.1", "5.2", "5.3", "6.3", "8.3", "10.2", "11.1", "11.3", "12.1",
    "12.2", "12.3",
]  # fmt: skip
COMPUTED = ["1.1", "7.1", "8.2", "10.3", "11.2"]

WRONG = [
    *WRONG_01, *WRONG_02, *WRONG_03, *WRONG_04, *WRONG_05, *WRONG_06, *WRONG_07, *WRONG_08, *WRONG_09, *WRONG_10,
    *WRONG_11, *WRONG_12,
]  # fmt: skip


@pytest.mark.parametrize(("exercise", "answer", "words"), WRONG)
def test_what_is_wrong_is_said(capsys, exercise, answer, words):
    assert teaching.check(exercise, answer) is None
    said = capsys.readouterr().out
    assert said.startswith(f"{exercise}: not yet. ") and words in said


def test_an_answer_that_is_still_to_be_given(capsys):
    assert not teaching.check("1.1", ...)
    assert capsys.readouterr().out == "1.1: put your answer in the place of the three dots.\n"


def test_a_right_answer(capsys):
    assert teaching.check("1.1", (12, 4.0))
    assert capsys.readouterr().out == "1.1: right.\n"


@pytest.mark.parametrize("exercise", ["1.9", "77.1", "x"])
def test_no_such_exercise(exercise):
    for ask in (lambda: answers.check(exercise, 1), lambda: answers.solution(exercise)):
        with pytest.raises(ValueError, match=f"found '{exercise}'"):
            ask()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_solution_is_shown_alone(path, capsys):
    for k in (1, 2, 3):
        answers.solution(f"{int(path.stem[:2])}.{k}")
        code = capsys.readouterr().out
        assert code.startswith("# ") and f"solution_{k}" in code and "# %%" not in code


@pytest.mark.parametrize("exercise", [*ANSWERS, *COMPUTED])
def test_a_solution_is_right(exercise):  # the other ones take what their notebook has, which checks them
    found = answers.solution(exercise)
    assert answers.check(exercise, found() if exercise in COMPUTED else found)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_exercise_has_a_place_for_an_answer_and_a_solution_that_is_checked(path):
    text, number = path.read_text(encoding="utf-8"), int(path.stem[:2])
    importlib.import_module(f"tinyseg.learn.answers.notebook_{number:02}")
    for k in (1, 2, 3):
        assert "answer = ..." in text and f'teaching.check("{number}.{k}", answer)' in text
        assert re.search(rf'assert .*teaching\.check\("{number}\.{k}", (?!answer\))', text)
        assert any(exercise == f"{number}.{k}" for exercise, _, _ in WRONG)
