"""Figures of the pages on ops that move pixels: pooling, upsampling, concatenation, padding, cropping."""

import numpy as np

from tinyseg import Tensor, ops
from tinyseg.ops.upsample import _matrix
from tinyseg.report.colours import BLUE, DARK_GREY, GREEN, GREY, ORANGE, PURPLE

from .drawing import arrow, box, grid, number, say, sheet, tint

FOUR = (BLUE, ORANGE, GREEN, PURPLE)


def _through(op, x, gy):
    """Return the output of an op and the gradient of its input, as arrays of two axes."""
    x = Tensor(x[None, None], requires_grad=True)
    y = op(x)
    y.backward(gy[None, None])
    return y.data[0, 0], x.grad[0, 0]


def pool():
    """Four windows, forward and backward, of the maximum and of the average."""
    x = np.array([[1.0, 8, 3, 0], [5, 2, 1, 8], [7, 6, 1, 2], [5, 2, 11, 10]])
    gy = np.array([[8.0, 4], [12, 16]])
    ax = sheet(14.6)
    for left, name in ((0.8, "Forward"), (14.2, "Backward")):
        say(ax, left, 0.7, name, weight="bold")
    for row, (name, op) in enumerate((("max", ops.max_pool2d), ("average", ops.avg_pool2d))):
        y, gx = _through(lambda x, op=op: op(x, 2), x, gy)
        top = 2.8 + 6.4 * row
        window = lambda r, q: FOUR[2 * (r // 2) + q // 2]  # noqa: E731
        won = (gx != 0).__getitem__
        kept = lambda r, q, won=won, window=window: tint(window(r, q), 0.5 if won((r, q)) else 0.1)  # noqa: E731
        grid(ax, 0.8, top, x, kept, "$x$")
        grid(ax, 7.9, top + 1, y, lambda r, q: tint(FOUR[2 * r + q], 0.5), "$y$")
        grid(ax, 14.2, top + 1, gy, lambda r, q: tint(FOUR[2 * r + q], 0.5), "$gy$")
        grid(ax, 20.0, top, gx, kept, "$gx$", grey_zeros=True)
        for left in (0.8, 20.0):
            for r, q in np.ndindex(2, 2):
                box(ax, left + 2 * q, top + 2 * r, 2, 2, "black", 1.3)
        arrow(ax, 5.2, top + 2, 7.5, top + 2, label=name)
        arrow(ax, 16.7, top + 2, 19.6, top + 2)
    say(ax, 0.8, 7.5, "the largest value of each window", 9.5, color=DARK_GREY)
    say(ax, 14.2, 7.5, "all of $gy$ goes to the pixel that won", 9.5, color=DARK_GREY)
    say(ax, 0.8, 13.9, "the mean of each window", 9.5, color=DARK_GREY)
    say(ax, 14.2, 13.9, "every pixel gets $gy / 4$", 9.5, color=DARK_GREY)
    return ax.figure


def upsample():
    """Nearest: copies, and sums on the way back. Bilinear: rows of A make outputs, its columns gather gradients."""
    x, gy = np.array([[3.0, 5], [2, 7]]), np.array([[1.0, 2, 0, 1], [3, 1, 1, 0], [2, 0, 1, 1], [1, 1, 4, 2]])
    y, gx = _through(lambda x: ops.upsample(x, 2), x, gy)
    ax = sheet(18.6)
    block, pixel = (lambda r, q: tint(FOUR[2 * (r // 2) + q // 2], 0.4)), (lambda r, q: tint(FOUR[2 * r + q], 0.4))
    say(ax, 0.8, 0.7, "Nearest: a pixel becomes a block", weight="bold")
    say(ax, 14.2, 0.7, "Backward: the sum of a block", weight="bold")
    grid(ax, 0.8, 3.2, x, pixel, "$x$")
    grid(ax, 6.2, 2.2, y, block, "$y$")
    grid(ax, 14.2, 2.2, gy, block, "$gy$")
    grid(ax, 21.2, 3.2, gx, pixel, "$gx$")
    arrow(ax, 3.3, 4.2, 5.7, 4.2)
    arrow(ax, 18.7, 4.2, 20.7, 4.2)

    x, gy = np.array([4.0, 8, 0]), np.array([4.0, 4, 8, 0, 4, 8])
    A = _matrix(3, 2)
    column = Tensor(x.reshape(1, 1, 3, 1), requires_grad=True)
    y = ops.upsample(column, (2, 1), "bilinear")
    y.backward(gy.reshape(1, 1, 6, 1))
    y, gx = y.data.ravel(), column.grad.ravel()
    assert np.allclose(A @ x, y) and np.allclose(A.T @ gy, gx)
    say(ax, 0.8, 8.0, "Bilinear, one axis", weight="bold")
    say(ax, 10.3, 8.0, "$y = A\\,x$", weight="bold")
    say(ax, 19.2, 8.0, "$gx = A^\\top gy$", weight="bold")
    top = 10.4
    for r in range(3):
        grid(ax, 1.4, top + 2 * r, [[x[r]]], tint(FOUR[r], 0.4), cell=2)
    grid(ax, 5.6, top, y[:, None], "white", cell=1.6, high=1)
    say(ax, 2.4, top - 0.6, "$x$", ha="center")
    say(ax, 6.4, top - 0.6, "$y$", ha="center")
    for i, r in zip(*np.nonzero(A), strict=True):
        ax.plot([3.4, 5.6], [top + 2 * r + 1, top + i + 0.5], color=FOUR[r], linewidth=0.6 + 2 * A[i, r])
    grid(ax, 10.3, top, A, lambda i, r: tint(FOUR[r], 0.5 * A[i, r]), cell=1.6, high=1, grey_zeros=True)
    say(ax, 12.7, top - 0.6, "$A$", ha="center")
    say(ax, 15.5, top + 3, "·", 16, "center")
    grid(ax, 15.9, top + 1.5, x[:, None], lambda r, q: tint(FOUR[r], 0.4))
    say(ax, 16.4, top + 0.9, "$x$", ha="center")
    grid(ax, 19.2, top, gy[:, None], "white")
    say(ax, 19.7, top - 0.6, "$gy$", ha="center")
    grid(ax, 22.3, top + 1.5, gx[:, None], lambda r, q: tint(FOUR[r], 0.4), cell=1.6, high=1)
    say(ax, 23.1, top + 0.9, "$gx$", ha="center")
    arrow(ax, 20.5, top + 3, 22.0, top + 3, label="$A^\\top$")
    back = " + ".join(f"{number(a)}·{number(g)}" for a, g in zip(A[:, 0], gy, strict=True) if a)
    say(ax, 0.8, 17.4, f"A row of $A$ adds up to 1. A column weights what comes back: {back} = {number(gx[0])}.", 9.5)
    return ax.figure


def shape():
    """Concat, pad and crop, and where each one's gradient is read."""
    ax = sheet(16.2)
    a, b = (Tensor(np.array(v).reshape(1, -1, 1, 1), requires_grad=True) for v in ([1.0, 2], [3.0, 4, 5]))
    joined = ops.concat([a, b])
    joined.backward(np.array([7.0, 8, 9, 6, 5]).reshape(1, 5, 1, 1))
    gy = np.array([7.0, 8, 9, 6, 5])
    for left, name in ((0.8, "concat"), (9.4, "pad"), (17.4, "center_crop")):
        say(ax, left, 0.7, name, weight="bold")
    blue, orange, green = (tint(colour, 0.35) for colour in (BLUE, ORANGE, GREEN))
    parts = lambda r, q: blue if r < 2 else orange  # noqa: E731
    for top, pieces, whole, names, way in (
        (2.8, (a.data, b.data), joined.data, ("$x_0$", "$x_1$", "$y$"), 1),
        (10.4, (a.grad, b.grad), gy, ("$gx_0$", "$gx_1$", "$gy$"), -1),
    ):
        grid(ax, 0.8, top, pieces[0].reshape(-1, 1), blue, names[0])
        grid(ax, 2.4, top, pieces[1].reshape(-1, 1), orange, names[1])
        grid(ax, 6.2, top, whole.reshape(-1, 1), parts, names[2])
        ends = (3.8, 5.8)[::way]
        arrow(ax, ends[0], top + 2.5, ends[1], top + 2.5)

    small, large = np.array([[1.0, 2], [3, 4]]), np.arange(1.0, 17).reshape(4, 4)
    back = np.array([[9.0, 8, 7, 6], [5, 4, 3, 2], [1, 2, 3, 4], [5, 6, 7, 8]])
    inner = lambda r, q: green if 1 <= r <= 2 and 1 <= q <= 2 else "white"  # noqa: E731
    y, gx = _through(lambda x: ops.pad(x, 1), small, back)
    cut, gcut = _through(lambda x: ops.center_crop(x, 2), large, small)
    for left, top, first, second, names in (
        (9.4, 2.8, small, y, ("$x$", "$y$")), (9.4, 10.4, gx, back, ("$gx$", "$gy$")),
        (17.4, 2.8, large, cut, ("$x$", "$y$")), (17.4, 10.4, gcut, small, ("$gx$", "$gy$")),
    ):  # fmt: skip
        forward = top < 5
        for n, (values, name) in enumerate(((first, names[0]), (second, names[1]))):
            big = len(values) == 4
            at = left if n == 0 else left + len(first) + 1
            grid(ax, at, top if big else top + 1, values, inner if big else green, name, grey_zeros=True)
        begin, end = left + len(first) + 0.15, left + len(first) + 0.85
        begin, end = (begin, end) if forward else (end, begin)
        arrow(ax, begin, top + 2, end, top + 2)
    ax.plot([0.8, 24.2], [8.1, 8.1], color=GREY, linewidth=0.6)
    say(ax, 0.8, 8.9, "Backward", weight="bold")
    for left, text in ((4.2, "slices"), (9.4, "a crop"), (17.4, "a pad")):
        say(ax, left, 8.9, text, 9.5, color=DARK_GREY)
    return ax.figure
