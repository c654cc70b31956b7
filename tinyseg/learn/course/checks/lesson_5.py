"""Lesson 5: pooling, upsampling and joining by loops over all indices, and the way through a U."""

import importlib

import numpy as np

from tinyseg.autograd import Tensor, no_grad
from tinyseg.learn.comparing import Different, case, keeping, keeps_float32, numbers, same
from tinyseg.models import unet
from tinyseg.ops import pool, shape
from tinyseg.ops.window import resolve

upsample = importlib.import_module("tinyseg.ops.upsample")  # under this name tinyseg.ops has the function

# Words, the shape of x, kernel, stride, padding.
POOLS = (
    ("windows of 2 × 2, side by side", (2, 3, 4, 6), (2, 2), (2, 2), 0),
    ("windows of 2 × 3, side by side", (1, 2, 4, 6), (2, 3), (2, 3), 0),
    ("windows of 3 × 3 that overlap", (1, 2, 5, 6), (3, 3), (2, 1), 0),
    ("windows of 3 × 2 with a border of 1", (1, 2, 5, 4), (3, 2), (2, 2), 1),
)


def pools():
    """Yield the words, x with all numbers below 0, kernel, stride, pads, out; and y, winner and gx by loops."""
    for words, size, kernel, stride, padding in POOLS:
        _, pads, out = resolve(size, kernel, stride, padding)
        x = -np.abs(numbers(*size)) - 0.1
        y, winner = np.empty((*size[:2], *out)), np.empty((*size[:2], *out), np.uint8)
        gy, gx = numbers(*y.shape, seed=1), np.zeros(size)
        for n, c, i, j in np.ndindex(y.shape):
            seen = {}
            for u, v in np.ndindex(kernel):
                r, q = i * stride[0] + u - pads[0][0], j * stride[1] + v - pads[1][0]
                if 0 <= r < size[2] and 0 <= q < size[3]:
                    seen[u * kernel[1] + v] = r, q
            winner[n, c, i, j] = max(seen, key=lambda tap: x[n, c, *seen[tap]])
            r, q = seen[winner[n, c, i, j]]
            y[n, c, i, j] = x[n, c, r, q]
            gx[n, c, r, q] += gy[n, c, i, j]
        yield words, x, (kernel, stride, pads), out, y, winner, gy, gx


def test_1_max_pooling_forward():
    for words, x, window, out, y, winner, _, _ in pools():
        with case(words):
            with keeping(x=x):
                found, taps = pool.max_forward(x, *window, out)
            same(found, y, "y")
            same(taps, winner, "the number of the largest tap")
    with case("a window in which all are equal"):
        same(pool.max_forward(np.ones((1, 1, 2, 2)), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1))[1],
             np.zeros((1, 1, 1, 1), np.uint8), "the number of the largest tap")  # fmt: skip


def test_2_max_pooling_backward():
    for words, x, window, _, _, winner, gy, gx in pools():
        with case(words):
            with keeping(gy=gy):
                found = pool.max_grad_x(gy, winner, x.shape, *window)
            same(found, gx, "gx")
    keeps_float32(pool.max_grad_x, gy, winner, x.shape, *window)


def test_3_nearest_upsampling():
    for words, factor in (("by 2", (2, 2)), ("by 3 rows and 2 columns", (3, 2))):
        x = numbers(2, 2, 3, 4)
        y = np.kron(x, np.ones((1, 1, *factor)))
        gy = numbers(*y.shape, seed=1)
        gx = np.zeros_like(x)
        for n, c, i, j in np.ndindex(y.shape):
            gx[n, c, i // factor[0], j // factor[1]] += gy[n, c, i, j]
        with case(words):
            with keeping(x=x):
                found = upsample.nearest_forward(x, factor)
            same(found, y, "y")
            with keeping(gy=gy):
                found = upsample.nearest_grad_x(gy, factor)
            same(found, gx, "gx")


def test_4_joining():
    xs = numbers(2, 2, 3, 4), numbers(2, 5, 3, 4, seed=1), numbers(2, 1, 3, 4, seed=2)
    y = shape.concat_forward(xs, 1)
    with case("2, 5 and 1 channels"):
        same(y[:, 2:7], xs[1], "channels 2 to 6 of y")
        same(y[:, :2], xs[0], "channels 0 and 1 of y")
        found = shape.concat_backward(numbers(2, 8, 3, 4, seed=3), [2, 7], 1)
        if len(found) != 3:
            raise Different(f"there are {len(found)} gradients, and should be 3.")
        whole = numbers(2, 8, 3, 4, seed=3)
        for g, (a, b) in zip(found, ((0, 2), (2, 7), (7, 8)), strict=True):
            same(g, whole[:, a:b], f"the gradient of channels {a} to {b - 1}")
    with case("joined along the rows"):
        same(shape.concat_forward((xs[0], xs[0]), 2)[:, :, 3:], xs[0], "the second three rows of y")
        found = shape.concat_backward(numbers(2, 1, 5, 4, seed=3), [3], 2)
        same(found[1], numbers(2, 1, 5, 4, seed=3)[:, :, 3:], "the gradient of rows 3 and 4")


class Note:
    """Stands for a layer: notes what it was called with, and returns what `result` makes of it."""

    def __init__(self, name, calls, result):
        self.name, self.calls, self.result = name, calls, result

    def __call__(self, *xs):
        self.calls.append((self.name, [np.asarray(getattr(x, "data", x)) for x in xs]))
        return self.result(*xs)


def test_5_the_blocks():
    a, b = numbers(1, 1, 2, 2), numbers(1, 1, 2, 2, seed=1)
    for norm in (None, lambda x: Tensor(x.data * 2)):
        calls = []
        first = Note("the first convolution", calls, lambda *xs: Tensor(sum(x.data for x in xs)))
        second = Note("the second convolution", calls, lambda x: Tensor(x.data + 1))
        with case(f"a block of two convolutions {'and a norm' if norm else 'without a norm'}, with two inputs"):
            y = unet.Block([first, second], norm).forward(Tensor(a), Tensor(b))
            same(y.data, (a + b + 1) * (2 if norm else 1), "the result")
    calls = []
    conv = Note("the convolution that doubles the size", calls, lambda x: Tensor(x.data * 10))
    block = Note("the block", calls, lambda *xs: xs[0])
    with case("a level of the decoder"):
        unet.Up(conv, block).forward(Tensor(a), Tensor(b))
        names = [name for name, _ in calls]
        if names != ["the convolution that doubles the size", "the block"]:
            raise Different(f"called were {' and '.join(names)}; expected the convolution, and then the block.")
        if len(calls[1][1]) != 2:
            raise Different(f"the block got {len(calls[1][1])} inputs, and should get two.")
        same(calls[1][1][0], b, "the block's first input, the skip")
        same(calls[1][1][1], a * 10, "the block's second input, what was doubled in size")


def test_6_the_u():
    """Every layer of a network of four levels multiplies by a number of its own, so that its way can be read off."""
    net = unet.UNet(1, 1, width=1, levels=4, dropout=0.0)
    calls, primes = [], [2, 3, 5, 7, 11, 13, 17]

    def times(k):
        return lambda x: Tensor(x.data * primes[k])

    x = 1 + np.arange(64.0).reshape(1, 1, 8, 8)
    net.encoder = [Note(f"encoder {k}", calls, times(k)) for k in range(4)]
    net.drops = [Note(f"dropout {k}", calls, lambda x: Tensor(x.data * 19)) for k in range(2)]

    def up(k):
        def double(x, skip):
            y = np.kron(x.data, np.ones((2, 2)))
            return Tensor(y + primes[4 + k] * skip.data if skip.shape == y.shape else y)

        return double

    net.decoder = [Note(f"decoder {k}", calls, up(k)) for k in range(3)]
    net.head = Note("the head", calls, lambda x: x)
    y = net.forward(Tensor(x))
    order = ["encoder 0", "encoder 1", "encoder 2", "dropout 0", "encoder 3", "dropout 1"]
    order += ["decoder 0", "decoder 1", "decoder 2", "the head"]
    names = [name for name, _ in calls]
    if names != order:
        raise Different(f"the layers were called as {', '.join(names)}; expected {', '.join(order)}.")
    levels = [x]
    for k in range(4):
        if k:
            levels[-1:] = [levels[-1], levels[-1][:, :, 1::2, 1::2]]  # the largest of each window is its last
        same(calls[[0, 1, 2, 4][k]][1][0], levels[-1], f"what encoder {k} gets")
        levels[-1] = levels[-1] * primes[k] * (19 if k > 1 else 1)
    right = levels.pop()
    for k in range(3):
        skip = levels.pop()
        same(calls[6 + k][1][1], skip, f"the skip that decoder {k} gets")
        right = np.kron(right, np.ones((2, 2))) + primes[4 + k] * skip
    same(y.data, right, "the result")


def draw(path):
    """Draw what is left of a section after pooling three times, and what a skip brings back."""
    from tinyseg.data.synthetic import em_sections
    from tinyseg.learn.course.pictures import figure
    from tinyseg.learn.figures import show_images

    x = em_sections(num_sections=1, size=128, seed=5)[0][:1, None].astype(np.float32) / 255
    with no_grad():
        down = [x]
        for _ in range(3):
            down.append(pool.max_pool2d(down[-1], 2).data)
        up = down[-1]
        for _ in range(3):
            up = upsample.upsample(up, 2).data
        joined = shape.concat([up, x]).data.mean(axis=1)
    with figure(path, "Down three levels with your pooling, up again, and beside the skip", 5) as axes:
        pictures = [x[0, 0], down[1][0, 0], down[3][0, 0], up[0, 0], joined[0]]
        titles = ["128 × 128", "pooled once", "three times: 16 × 16", "upsampled again", "with the skip (mean)"]
        show_images(axes, pictures, titles)
