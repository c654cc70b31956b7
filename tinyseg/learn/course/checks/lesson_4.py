"""Lesson 4: norms against their definition, value by value, and their gradients against difference quotients."""

import importlib

import numpy as np

from tinyseg.learn.comparing import case, keeping, keeps_float32, numbers, same, slopes

group_norm = importlib.import_module("tinyseg.ops.group_norm")  # under this name tinyseg.ops has the function
weight_standardization = importlib.import_module("tinyseg.ops.weight_standardization")

EPS = 1e-3
CASES = (
    ("one image, one group of two channels", (1, 2, 2, 3), 1),
    ("one image, two groups of one channel", (1, 2, 2, 3), 2),
    ("two images, two groups of two channels", (2, 4, 2, 3), 2),
)


def right_group_norm(x, gamma, beta, G):
    """Normalize group by group of image by image; return y, μ and r, too."""
    y, (N, C) = np.empty_like(x), x.shape[:2]
    mean, rstd = np.empty((N, G, 1)), np.empty((N, G, 1))
    for n, g in np.ndindex(N, G):
        own = slice(g * C // G, (g + 1) * C // G)
        values = x[n, own]
        mean[n, g], rstd[n, g] = values.mean(), 1 / np.sqrt(values.var() + EPS)
        y[n, own] = (values - mean[n, g]) * rstd[n, g] * gamma[own, None, None] + beta[own, None, None]
    return y, mean, rstd


def drawn(shape):
    """Return x, γ and β of a case, far from mean 0 and deviation 1."""
    x = 2 * numbers(*shape) + 3 * np.arange(shape[1])[:, None, None] - 1
    return x, 1 + 0.5 * numbers(shape[1], seed=1), numbers(shape[1], seed=2)


def test_1_group_norm_forward():
    for words, shape, G in CASES:
        x, gamma, beta = drawn(shape)
        with case(words):
            with keeping(x=x, γ=gamma, β=beta):
                found = group_norm.forward(x, gamma, beta, G, EPS)
            for a, b, name in zip(found, right_group_norm(x, gamma, beta, G), ("y", "μ", "r"), strict=True):
                same(a, b, name)
    keeps_float32(group_norm.forward, x, gamma, beta, G, EPS)


def test_2_group_norm_backward():
    for words, shape, G in CASES:
        x, gamma, beta = drawn(shape)
        gy = numbers(*shape, seed=3)
        arrays = {"x": x, "gamma": gamma, "beta": beta}
        mean, rstd = right_group_norm(x, gamma, beta, G)[1:]

        def loss(name, a, arrays=arrays, gy=gy, G=G):
            return (gy * right_group_norm(**(arrays | {name: a}), G=G)[0]).sum()

        with case(words):
            with keeping(gy=gy, x=x, γ=gamma):
                found = group_norm.backward(gy, x, gamma, mean, rstd)
            for name, letter, g in zip(("beta", "gamma", "x"), ("gβ", "gγ", "gx"), found[::-1], strict=True):
                same(g, slopes(lambda a, name=name: loss(name, a), arrays[name]), letter, 1e-6)


SETS = (
    ("all weights of the layer as one set", (2, 3, 2), (0, 1, 2), 1.0),
    ("each filter by itself", (3, 2, 3), (1, 2), 1.0),
    ("each filter by itself, with a gain of 1/3", (3, 3, 3), (1, 2), 1 / 3),
)


def right_standardized(v, axes, a):
    """Standardize set by set."""
    w = np.empty_like(v)
    for own in [...] if len(axes) == v.ndim else range(len(v)):
        w[own] = a * (v[own] - v[own].mean()) / (v[own].std() + EPS)
    return w


def test_3_weight_standardization_forward():
    for words, shape, axes, a in SETS:
        v = 0.3 * numbers(*shape) + 0.2
        with case(words):
            with keeping(v=v):
                w, std = weight_standardization.forward(v, axes, EPS, a)
            same(w, right_standardized(v, axes, a), "w")
            same(std, v.std(axis=axes, keepdims=True), "σ")


def test_4_weight_standardization_backward():
    for words, shape, axes, a in SETS:
        v, gw = 0.3 * numbers(*shape) + 0.2, numbers(*shape, seed=1)
        w, std = right_standardized(v, axes, a), v.std(axis=axes, keepdims=True)
        with case(words):
            with keeping(gw=gw, w=w, σ=std):
                found = weight_standardization.grad_v(gw, w, std, axes, EPS, a)
            right = slopes(lambda v: (gw * right_standardized(v, axes, a)).sum(), v)
            same(found, right, "gv", 1e-6)
    with (
        case("two filters, the second with equal weights, so that σ = 0"),
        np.errstate(invalid="raise", divide="raise"),
    ):
        v, gw = np.stack([0.3 * numbers(2, 3), np.ones((2, 3))]), numbers(2, 2, 3, seed=1)
        w, std = right_standardized(v, (1, 2), 1.0), v.std(axis=(1, 2), keepdims=True)
        found = weight_standardization.grad_v(gw, w, std, (1, 2), EPS, 1.0)
        same(
            found[0], slopes(lambda v: (gw[0] * right_standardized(v[None], (1, 2), 1.0)[0]).sum(), v[0]), "gv[0]", 1e-6
        )
        same(found[1], (gw[1] - gw[1].mean()) / EPS, "gv[1]")


def draw(path):
    """Draw what a network's activations do with their scale in ten layers, without and with the student's norms."""
    from tinyseg.learn.course.pictures import figure

    rng, C, layers = np.random.default_rng(0), 16, 10
    spread = {"neither": [], "your GroupNorm": [], "your weight standardization": []}
    for name, deviations in spread.items():
        x = rng.standard_normal((1, C, 24, 24))
        for _ in range(layers):
            v = 0.4 * rng.standard_normal((C, C)) + 0.05
            w = weight_standardization.forward(v, (1,), 1e-5, 1.4 / np.sqrt(C))[0] if "weight" in name else v
            x = np.maximum(np.einsum("kc,ncij->nkij", w, x), 0)
            if "Group" in name:
                x = group_norm.forward(x, np.ones(C), np.zeros(C), 4, 1e-5)[0]
            deviations.append(x.std())
    with figure(path, "The scale of ten layers, without and with your norms", 1) as axis:
        for name, deviations in spread.items():
            axis.semilogy(range(1, layers + 1), deviations, "o-", label=name)
        axis.set_xlabel("layer (1 × 1 convolution, then ReLU)")
        axis.set_ylabel("deviation of its output")
        axis.legend()
