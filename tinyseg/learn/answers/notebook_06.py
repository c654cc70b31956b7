"""Answers to notebook 6: what survives standardization, a first change of w, a level given back to each filter."""

import numpy as np

from tinyseg import models, nn
from tinyseg.autograd import no_grad
from tinyseg.learn.comparing import Different, same

BLUR = np.array([[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]])
EDGE = np.array([[-0.5, 0, 0.5], [-1, 0, 1], [-0.5, 0, 0.5]])
SURVIVE = {  # up to a factor, by hand
    "the box": np.zeros((3, 3)),
    "the copy": np.array([[-1.0, -1, -1], [-1, 8, -1], [-1, -1, -1]]),
    "the Laplacian": np.array([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]]),
    "the blur plus the edge": BLUR - 4 / 9 + EDGE,
}


def exercise_1(answer):
    """Check (a) what becomes of four kernels, up to a factor, and (b) a filter that compares two channels."""
    kernels, compare = answer
    kernels = np.array([np.asarray(kernel, float) for kernel in kernels])
    if kernels.shape != (4, 3, 3):
        raise Different(f"(a) the kernels have the shape {kernels.shape}, and should have (4, 3, 3).")
    for (name, expected), found in zip(SURVIVE.items(), kernels, strict=True):
        if not expected.any():
            if abs(found).max() > 1e-6:
                raise Different(f"(a) {name} has another end: what is left of it without its mean?")
            continue
        if abs(found.sum()) > 0.01 * abs(found).max():
            raise Different(f"(a) {name} becomes a kernel whose sum is {found.sum():.4g}: can it have one?")
        length = np.linalg.norm(found)
        cosine = (found * expected).sum() / (length * np.linalg.norm(expected)) if length else 0.0
        if not cosine > 0.999:
            hint = "has the wrong sign" if cosine < -0.999 else "becomes something else"
            raise Different(f"(a) {name} {hint}. Only the mean of the nine weights is taken out, and a factor.")
    if compare is ...:
        raise Different("(a) is right, and the filter of (b) is still to be built.")
    compare = np.asarray(compare, float)
    if compare.size != 18 or compare.shape[-3:] != (2, 3, 3):
        raise Different(f"(b) the filter has the shape {compare.shape}, and should have (2, 3, 3): a plane a channel.")
    first, second = compare.reshape(2, 9).sum(1)
    if abs(first + second) > 1e-6 * max(abs(compare).max(), 1e-3):
        raise Different(f"(b) the filter sums to {first + second:.4g}, and should sum to zero.")
    if abs(first - second) < 1e-3 * abs(compare).max() or not compare.any():
        raise Different("(b) the filter answers both images alike: what does each plane make of a flat channel?")


def exercise_2(answer):
    """Check how many times smaller the first change of w is from 10 v: a number."""
    times = float(answer)
    if abs(times - 10) < 0.5:
        raise Different("10 times smaller is the gradient of v. By how much does such a step turn the longer v?")
    if 0 < times < 1:
        raise Different(f"{times:g} is less than 1: say how many times smaller the change is.")
    if not 95 <= times <= 105:  # exactly 100 as the rate goes to 0
        off = "large" if times > 100 else "small"
        raise Different(f"{times:.4g} is too {off}: how long is the gradient from 10 v, and what does a step turn?")


def exercise_3(answer):
    """Check the levels of a network's standardized filters: a function of the model."""
    options = {"width": 4, "levels": 3, "dropout": 0.0, "seed": 6}
    given = models.build("sdunet", ws="filter", **options)
    x = np.random.default_rng(6).standard_normal((2, 1, 16, 16), np.float32)
    old = {id(p) for p in given.parameters()}
    filters = sum(len(layer.weight.data) for layer in _depthwise(given) if layer.ws)
    found = answer(given)
    model = given if found is None else found
    levels = [p for p in model.parameters() if id(p) not in old]
    if not levels:
        raise Different("the model has no new parameters: a level that is trained is a Parameter of its layer.")
    count = sum(p.size for p in levels)
    if count != filters:
        off = "many" if count > filters else "few"
        raise Different(f"{count} new numbers are too {off}: {filters} filters of this model are standardized.")
    if any(p.data.any() for p in levels):
        raise Different("the levels are not 0 at the start.")
    for b in (0.0, 0.1):
        for p in levels:
            p.data = np.full_like(p.data, b)
        y = model(x)
        with no_grad():
            expected = _levelled(options, b)(x).data
        same(y.data, expected, f"with all levels {b:g}: the output", tolerance=1e-3)
    y.backward(np.ones_like(y.data))
    if any(p.grad is None for p in levels):
        raise Different("no gradient arrives at the levels: is b a Tensor where it is added?")
    if not all(p.grad.any() for p in levels):
        raise Different("the gradient of a level is 0 throughout: is it added to the kernel that is used?")


def _depthwise(model):
    """Return the depthwise layers of a model."""
    return [layer for _, layer in model.named_modules() if isinstance(layer, nn.DepthwiseConv2d)]


def _levelled(options, b):
    """Return the network with plain depthwise kernels, which are those of *per filter* and b."""
    plain, patterns = models.build("sdunet", ws=None, **options), models.build("sdunet", ws="filter", **options)
    for layer, pattern in zip(_depthwise(plain), _depthwise(patterns), strict=True):
        if pattern.ws:
            v = pattern.weight.data.astype(float).reshape(len(pattern.weight.data), -1)
            w = (v - v.mean(1, keepdims=True)) / (v.std(1, keepdims=True) + 1e-5)
            w = w / np.sqrt(v.shape[1]) + b
            layer.weight.data = w.reshape(layer.weight.shape).astype(np.float32)
    return plain
