"""Lesson 7: SD-UNet's convolution, a training on the student's ops alone, and a kernel that numba compiles."""

import functools
import time

import numpy as np
import pytest

from tinyseg import models, ops, optim
from tinyseg.autograd import Tensor, no_grad
from tinyseg.backend import fast, kernels, using
from tinyseg.data.synthetic import em_sections
from tinyseg.learn.comparing import Different, case, keeping, numbers, same, slopes
from tinyseg.learn.course.checks import lesson_3, lesson_5
from tinyseg.ops import pool, separable_conv
from tinyseg.training import step

PADS = ((1, 0), (1, 1))
CASES = (
    ("one input, without ReLU", 1, 1, False),
    ("one input, with ReLU", 1, 1, True),
    ("two inputs that are joined and upsampled by 2, with ReLU", 2, 2, True),
)


def right_separable(xs, wd, wp, b, factor, relu):
    """Join, upsample, filter each channel, mix the channels, add the bias, rectify."""
    X = np.kron(np.concatenate(xs, axis=1), np.ones((1, 1, factor, factor)))
    d = lesson_3.right_depthwise(X, wd, (1, 1), PADS, (1, 1))
    y = np.einsum("kc,ncij->nkij", wp, d) + b[:, None, None]
    return np.maximum(y, 0) if relu else y


def separable_cases():
    """Yield the words, {"xs", "wd", "wp", "b"}, factor, relu, and the size of the output."""
    for words, inputs, factor, relu in CASES:
        xs = tuple(numbers(2, 2, 3, 4, seed=k) for k in range(inputs))
        C = 2 * inputs
        arrays = {"xs": xs, "wd": numbers(C, 2, 3, seed=5), "wp": numbers(3, C, seed=6), "b": numbers(3, seed=7)}
        yield words, arrays, factor, relu, (3 * factor, 4 * factor)


def test_1_separable_forward():
    for words, arrays, factor, relu, out in separable_cases():
        with case(words):
            found = separable_conv.forward(*arrays.values(), (1, 1), PADS, out, factor, relu)
            same(found, right_separable(**arrays, factor=factor, relu=relu), "y")


def test_2_separable_backward():
    for words, arrays, factor, relu, out in separable_cases():
        y = right_separable(**arrays, factor=factor, relu=relu)
        gy = numbers(2, 3, *out, seed=8)

        def loss(name, a, arrays=arrays, gy=gy, factor=factor, relu=relu):
            return (gy * right_separable(**(arrays | {name: a}), factor=factor, relu=relu)).sum()

        xs, wd, wp, _ = arrays.values()
        with case(words):
            with keeping(gy=gy, wd=wd, wp=wp, y=y, x=xs[0]):
                *found, gxs = separable_conv.backward(gy, xs, wd, wp, y, (1, 1), PADS, factor, relu)
            for name, letter, g in zip(("wd", "wp", "b"), ("gwd", "gwp", "gb"), found, strict=True):
                same(g, slopes(lambda a, name=name: loss(name, a), arrays[name]), letter, 1e-5)
            for k, g in enumerate(gxs):
                right = slopes(lambda a: loss("xs", (*xs[:k], a, *xs[k + 1 :])), xs[k])
                same(g, right, f"gx of input {k}", 1e-5)


SIZE, STEPS, BATCH = 64, 400, 4


@functools.cache
@using(kernels="reference")
def trained():
    """Train a small SD-UNet on the maths alone.

    Returns it, its losses, the seconds of a step, and two sections that it has not seen with their labels.
    """
    images, labels = em_sections(num_sections=14, size=SIZE, seed=3)
    x = ((images - images.mean()) / images.std()).astype(np.float32)[:, None]
    y = labels.astype(np.float32)[:, None]
    network = models.build("sdunet", in_channels=1, num_classes=1, width=8, levels=3, groups=4, dropout=0.0, seed=0)
    optimizer = optim.Adam(network.parameters(), lr=4e-3)
    loss = functools.partial(ops.binary_cross_entropy_with_logits, pos_weight=0.45)  # membranes, class 0, are rare
    train, rng = step.Step(network, optimizer, loss, clip=1.0), np.random.default_rng(0)
    losses, begin = [], time.monotonic()
    for k in range(STEPS):
        optimizer.lr = 4e-3 * 0.5 * (1 + np.cos(np.pi * k / STEPS))
        chosen = rng.choice(12, BATCH, replace=False)
        turns, mirror = rng.integers(4), (slice(None, None, -1), slice(None))[rng.integers(2)]
        batch = [np.ascontiguousarray(np.rot90(a[chosen], turns, (2, 3))[..., mirror]) for a in (x, y)]
        losses.append(train(*batch).loss)
    return network, losses, (time.monotonic() - begin) / STEPS, x[12:], y[12:]


def membrane_iou(probability, label):
    """Return the intersection over the union of the membranes, which are the pixels of label 0."""
    found, true = probability < 0.5, label < 0.5
    return float((found & true).sum() / (found | true).sum())


@using(kernels="reference")
def predict(network, x):
    """Return the probabilities that a network gives, on the maths alone."""
    network.eval()
    with no_grad():
        return 1 / (1 + np.exp(-network(Tensor(x)).data))


def test_3_sd_unet_learns():
    network, losses, _, x, y = trained()
    early, late = np.mean(losses[:10]), np.mean(losses[-10:])
    if not late < 0.7 * early:
        raise Different(f"the loss was {early:.3f} on the mean of the first ten steps, and {late:.3f} of the last.")
    grey = max(membrane_iou((x > t).astype(float), y) for t in np.linspace(-2, 2, 81))
    found = membrane_iou(predict(network, x), y)
    if not found > grey:
        raise Different(f"its membranes have IoU {found:.3f}, no more than the best grey level finds, {grey:.3f}.")


def test_4_one_thing_made_fast():
    pytest.importorskip("numba")
    kernel = fast("cpu.pool")  # the student's file
    one, tap = np.ones((1, 1), np.float32), np.zeros((1, 1), np.uint8)
    kernel.pool_channel(one, (1, 1), (1, 1), one.copy(), tap)  # by itself: what it raises in a loop of numba is lost
    for words, x, window, out, y, winner, _, _ in lesson_5.pools():
        if window[2] == ((0, 0), (0, 0)):
            with case(words):
                found, taps = kernel.max_forward(x.astype(np.float32), *window, out)
                same(found, y.astype(np.float32), "y")
                same(taps, winner, "the number of the largest tap")
    with case("a window in which all are equal"):
        one = np.ones((1, 1, 2, 2), np.float32)
        _, taps = kernel.max_forward(one, (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1))
        same(taps, np.zeros((1, 1, 1, 1), np.uint8), "the number of the largest tap")


def draw(path):
    """Draw the curve of the training, and what the student's network finds on a section that it has not seen."""
    from tinyseg.learn.course.pictures import figure
    from tinyseg.learn.figures import show_images

    network, losses, seconds, x, y = trained()
    p = predict(network, x)
    with figure(path, f"Your SD-UNet: {STEPS} steps of {seconds:.2f} s, with nothing but your ops", 4) as axes:
        axes[0].plot(losses)
        axes[0].set_xlabel("step")
        axes[0].set_ylabel("loss")
        titles = ["a new section", "its label", f"your network\n(membrane IoU {membrane_iou(p, y):.2f})"]
        show_images(axes[1:], [images[0, 0] for images in (x, y, p)], titles)


def measure():
    """Return a sentence: how long the student's loop over taps and the compiled kernel take, on a layer of SD-UNet."""
    x, window = numbers(1, 32, 128, 128).astype(np.float32), ((2, 2), (2, 2), ((0, 0), (0, 0)), (64, 64))
    times = []
    for forward in (pool.max_forward, kernels(pool.__name__, x).max_forward):
        forward(x, *window)  # compiles the kernel
        each = []
        for _ in range(15):
            begin = time.perf_counter()
            forward(x, *window)
            each.append(time.perf_counter() - begin)
        times.append(sorted(each)[7])
    numpy, compiled = times
    return (
        f"To pool 32 channels of 128 × 128, your loop over the taps takes {1000 * numpy:.2f} ms, and your compiled "
        f"kernel {1000 * compiled:.2f} ms ({numpy / compiled:.1f} times as fast)."
    )
