"""Figures of the pages on convolutions."""

import numpy as np

from tinyseg import ops
from tinyseg.ops.conv2d import im2col
from tinyseg.report.colours import BLUE, DARK_GREY, DARK_ORANGE, GREEN, GREY, ORANGE, PURPLE

from .drawing import arrow, box, grid, number, say, sheet, tint

NOTHING = "#f2f2f2"  # a border of zeros


def _sum(a, b):
    """Write the sum of products of two arrays."""
    pairs = [[f"({number(value)})" if value < 0 else number(value) for value in both]
             for both in zip(a.ravel(), b.ravel(), strict=True)]  # fmt: skip
    return " + ".join("·".join(pair) for pair in pairs)


def conv2d():
    """A window of the input and the sum it makes; below, the same as a product of matrices."""
    x = np.array([[[2.0, 0, 1], [1, 3, 2], [0, 1, 4]], [[1.0, 2, 0], [3, 1, 2], [2, 0, 1]]])
    w = np.array([[[[1.0, -1], [2, 0]], [[0, 1], [1, 1]]], [[[0.0, 2], [1, 1]], [[-1, 0], [0, 2]]]])
    y = ops.conv2d(x[None], w).data[0]
    cols = im2col(x[None], (2, 2), (2, 2), (1, 1)).reshape(8, 4)
    product = w.reshape(2, 8) @ cols
    assert np.array_equal(product.reshape(2, 2, 2), y)

    ax = sheet(19.3)
    blue, orange = tint(BLUE, 0.22), tint(ORANGE, 0.35)
    for c in (0, 1):
        left = 0.7 + 3.8 * c
        grid(ax, left, 1.9, x[c], lambda r, q: orange if r < 2 and q > 0 else "white", f"$X$, $c = {c}$")
        box(ax, left + 1, 1.9, 2, 2, ORANGE)
        grid(ax, 9.6 + 2.9 * c, 2.4, w[0, c], blue, f"$w$, $c = {c}$")
        grid(ax, 17.5 + 3.6 * c, 2.4, y[c], lambda r, q, c=c: tint(GREEN, 0.4) if (c, r, q) == (0, 0, 1) else "white",
             f"$y$, $k = {c}$")  # fmt: skip
    say(ax, 9.6, 0.8, "kernel $k = 0$", color=BLUE)
    say(ax, 8.55, 3.4, "×", 13, "center")
    arrow(ax, 15.1, 3.4, 17.1, 3.4, label="sum")
    window = x[:, :2, 1:]
    say(ax, 0.7, 5.9, f"$y[k = 0,\\ i = 0,\\ j = 1]$ = {_sum(window, w[0])} = {number(y[0, 0, 1])}")
    say(ax, 0.7, 7.7, "The same for all windows and kernels at once, $Y = W$ cols$(X)$:", weight="bold")

    top = 10.3
    grid(ax, 2.1, top + 3, w.reshape(2, 8), lambda r, q: blue if r == 0 else "white", "$W$: one row for each kernel")
    grid(ax, 12.9, top, cols, lambda r, q: orange if q == 1 else "white")
    grid(ax, 18.8, top + 3, product, lambda r, q: tint(GREEN, 0.4) if (r, q) == (0, 1) else "white")
    say(ax, 12.9, top - 1.4, "cols$(X)$: one column for each window")
    say(ax, 18.8, top + 1.6, "$Y$")
    for k in (0, 1):
        say(ax, 1.9, top + 3.5 + k, f"$k = {k}$", 8.5, "right", color=DARK_GREY)
    for row, (c, u, v) in enumerate(np.ndindex(2, 2, 2)):
        say(ax, 12.7, top + 0.5 + row, f"{c} {u} {v}", 8.5, "right", color=DARK_GREY)
    say(ax, 12.7, top - 0.5, "$c\\ u\\ v$", 8.5, "right", color=DARK_GREY)
    for column, (i, j) in enumerate(np.ndindex(2, 2)):
        say(ax, 13.4 + column, top - 0.5, f"{i} {j}", 8.5, "center", color=DARK_GREY)
        say(ax, 19.3 + column, top + 2.5, f"{i} {j}", 8.5, "center", color=DARK_GREY)
    say(ax, 17.1, top - 0.5, "$i\\ j$", 8.5, color=DARK_GREY)
    say(ax, 23.0, top + 2.5, "$i\\ j$", 8.5, color=DARK_GREY)
    box(ax, 13.9, top, 1, 8, ORANGE)
    box(ax, 2.1, top + 3, 8, 1, BLUE)
    say(ax, 10.85, top + 4, "·", 16, "center")
    say(ax, 17.85, top + 4, "=", 13, "center")
    return ax.figure


def depthwise_conv():
    """Two channels, each with a kernel of its own; the first one as the sum of nine shifted images."""
    x = np.array([[[1.0, 2, 3], [4, 5, 6], [7, 8, 9]], [[2.0, 1, 1], [1, 3, 2], [4, 1, 2]]])
    w = np.array([[[1.0, 0, -1], [2, 1, 0], [0, 1, 3]], [[0.0, 1, 0], [1, -2, 1], [0, 1, 0]]])
    y = ops.depthwise_conv2d(x[None], w, padding=1).data[0]
    padded = ops.pad(x[None], 1).data[0]
    views = {(u, v): padded[0, u : u + 3, v : v + 3] for u, v in np.ndindex(3, 3)}
    assert np.array_equal(sum(w[0, u, v] * view for (u, v), view in views.items()), y[0])

    ax = sheet(15.2)
    for c, colour in enumerate((BLUE, GREEN)):
        top, light = 2.1 + 7 * c, tint(colour, 0.2)
        inside = lambda r, q, light=light: light if 1 <= r <= 3 and 1 <= q <= 3 else NOTHING  # noqa: E731
        grid(ax, 0.6, top, padded[c], inside, f"$X$, $c = {c}$", grey_zeros=True, cell=0.9)
        grid(ax, 6.0, top + 0.9, w[c], tint(colour, 0.4), f"$w$, $c = {c}$", cell=0.9)
        grid(ax, 10.3, top + 0.9, y[c], light, f"$y$, $c = {c}$", cell=0.9)
        say(ax, 5.55, top + 2.25, "∗", 12, "center")
        say(ax, 9.5, top + 2.25, "=", 12, "center")
    say(ax, 0.6, 0.6, "Each channel with a kernel of its own", weight="bold")
    say(ax, 14.6, 0.6, "$c = 0$, tap by tap: nine shifted images", weight="bold")
    for (u, v), view in views.items():
        left, top, there = 14.6 + 3.4 * v, 2.1 + 3.6 * u, w[0, u, v]
        shaded = lambda r, q, u=u, v=v: tint(BLUE, 0.2) if 1 <= r + u <= 3 and 1 <= q + v <= 3 else NOTHING  # noqa: E731
        say(ax, left, top - 0.55, f"$w_{{{u}{v}}}$ = {number(there)}", 9)
        grid(ax, left, top, view, shaded, cell=0.85, size=9, grey_zeros=True)
    say(ax, 14.6, 12.9, "Each image times its weight $w_{uv}$,", 10)
    say(ax, 14.6, 13.8, "all nine added up: $y$ of $c = 0$.", 10)
    return ax.figure


def pointwise_conv():
    """The channels of one pixel are one column of X; W maps each column by itself."""
    x = np.array([[[1.0, 2], [0, 3]], [[2.0, 1], [1, 0]], [[0.0, 3], [2, 1]]])
    w = np.array([[1.0, 2, -1], [0, 1, 2]])
    y = ops.pointwise_conv2d(x[None], w).data[0]
    flat, out = x.reshape(3, 4), y.reshape(2, 4)
    assert np.array_equal(w @ flat, out)

    ax = sheet(10.6)
    orange, green = tint(ORANGE, 0.35), tint(GREEN, 0.4)
    say(ax, 0.7, 0.6, "$C = 3$ channels", weight="bold")
    say(ax, 7.2, 0.6, "$Y = W X$: one column for each pixel", weight="bold")
    say(ax, 21.0, 0.6, "$K = 2$", weight="bold")
    for c in range(3):
        top = 1.5 + 2.9 * c
        grid(ax, 0.7, top, x[c], lambda r, q: orange if (r, q) == (0, 1) else "white")
        box(ax, 1.7, top, 1, 1, ORANGE)
        say(ax, 3.0, top + 1, f"$c = {c}$", 9, color=DARK_GREY)
    arrow(ax, 5.0, 5.4, 6.7, 5.4)
    grid(ax, 7.2, 4.4, w, tint(BLUE, 0.2), "$W$")
    say(ax, 10.7, 5.4, "·", 16, "center")
    grid(ax, 11.2, 3.9, flat, lambda r, q: orange if q == 1 else "white")
    box(ax, 12.2, 3.9, 1, 3, ORANGE)
    say(ax, 11.2, 2.4, "$X$")
    say(ax, 15.65, 5.4, "=", 13, "center")
    grid(ax, 16.1, 4.4, out, lambda r, q: green if q == 1 else "white")
    say(ax, 16.1, 2.9, "$Y$")
    for column, (i, j) in enumerate(np.ndindex(2, 2)):
        say(ax, 11.7 + column, 3.45, f"{i} {j}", 8.5, "center", color=DARK_GREY)
        say(ax, 16.6 + column, 3.95, f"{i} {j}", 8.5, "center", color=DARK_GREY)
    arrow(ax, 20.5, 5.4, 20.9, 5.4)
    box(ax, 17.1, 4.4, 1, 2, GREEN)
    for k in range(2):
        top = 2.9 + 2.9 * k
        grid(ax, 21.2, top, y[k], lambda r, q: green if (r, q) == (0, 1) else "white")
        box(ax, 22.2, top, 1, 1, GREEN)
        say(ax, 23.4, top + 1, f"$k = {k}$", 9, color=DARK_GREY)
    for k in range(2):
        say(ax, 7.2, 8.4 + k, f"$y[k = {k}]$ at pixel 0 1:  {_sum(w[k], flat[:, 1])} = {number(out[k, 1])}")
    return ax.figure


def separable_conv():
    """The two stages of a layer; what stands between the inputs and y is never stored as a whole."""
    x = [np.array([[1.0, 2], [0, 1]]), np.array([[2.0, 0], [1, 3]])]
    wd = np.array([[[0.0, 1, 0], [1, 0, -1], [0, 0, 0]], [[0.0, 0, 0], [0, 1, 1], [0, -1, 0]]])
    wp = np.array([[1.0, 2], [2, -1]])
    inputs = [a[None, None] for a in x]
    X = ops.upsample(ops.concat(inputs), 2).data
    d = ops.depthwise_conv2d(X, wd, padding=1).data
    z = ops.pointwise_conv2d(d, wp).data
    y = ops.separable_conv2d(inputs, wd, wp, upsample=2, padding=1, activation="relu").data
    assert np.array_equal(np.maximum(z, 0), y)

    ax = sheet(15.6)
    for c, colour in enumerate((BLUE, GREEN)):
        top, light = 2.9 + 6.2 * c, tint(colour, 0.2)
        grid(ax, 0.6, top + 1, x[c], light, f"$x_{c}$", cell=0.95)
        grid(ax, 4.5, top, X[0, c], "white", cell=0.95, size=9.5)
        grid(ax, 9.3, top + 0.9, wd[c], tint(colour, 0.4), cell=0.7, size=8, name=f"$w_d$, $c = {c}$")
        grid(ax, 12.9, top, d[0, c], "white", cell=0.95, size=9.5)
        grid(ax, 20.2, top, y[0, c], tint(ORANGE, 0.3), cell=0.95, size=9.5)
        arrow(ax, 2.8, top + 1.95, 4.2, top + 1.95)
        arrow(ax, 8.6, top + 3.4, 12.6, top + 3.4)
        for left in (4.5, 12.9):
            box(ax, left, top, 3.8, 3.8, GREY, 1.8, (0, (3, 2)))
    for begin, end in (((16.85, 5.0), (17.6, 6.85)), ((16.85, 10.9), (17.6, 9.05)),
                       ((19.3, 6.85), (20.05, 5.0)), ((19.3, 9.05), (20.05, 10.9))):  # fmt: skip
        arrow(ax, *begin, *end)
    grid(ax, 17.55, 7.05, wp, tint(PURPLE, 0.45), cell=0.9, size=9.5)
    say(ax, 18.45, 6.0, "$w_p$", ha="center")
    for left, first, second in (
        (0.6, "inputs", ""), (4.5, "upsampled, joined", "$X$"), (12.9, "depthwise", "$d$"),
        (20.2, "pointwise, ReLU", "$y$"),
    ):  # fmt: skip
        say(ax, left, 0.7, first, weight="bold")
        say(ax, left, 1.7, second)
    box(ax, 0.6, 14.1, 1.4, 0.8, GREY, 1.8, (0, (3, 2)))
    say(
        ax,
        2.4,
        14.5,
        "Not kept; the fast namesake never stores it whole. Kept for backward: $x_0$, $x_1$, weights, $y$.",
    )
    return ax.figure


def conv_transpose():
    """Four pixels stamp the kernel onto the output; stamps that overlap add up."""
    x, w = np.array([[1.0, 10], [100, 1000]]), np.arange(1.0, 10).reshape(3, 3)
    y = ops.conv_transpose2d(x[None, None], w[None, None], stride=2).data[0, 0]
    count = ops.conv_transpose2d(np.ones((1, 1, 2, 2)), np.ones((1, 1, 3, 3)), stride=2).data[0, 0]
    colours = {(0, 0): BLUE, (0, 1): ORANGE, (1, 0): GREEN, (1, 1): PURPLE}

    ax = sheet(11.6)
    say(ax, 0.7, 0.7, "Input and kernel", weight="bold")
    say(ax, 10.0, 0.7, "Output: four stamps, two pixels apart (stride 2)", weight="bold")
    grid(ax, 0.7, 2.6, x, lambda r, q: tint(colours[r, q], 0.45), "$x$", cell=1.5, high=1.2)
    grid(ax, 5.1, 2.6, w, "white", "$w$", cell=1.0)
    shade = {1: "white", 2: "#dcdcdc", 4: "#b4b4b4"}
    left, top, wide, high = 10.0, 2.6, 1.7, 1.3
    grid(ax, left, top, y, lambda r, q: shade[int(count[r, q])], "$Y$", cell=wide, high=high)
    for n, ((r, q), colour) in enumerate(colours.items()):
        inset = 0.1 if n in (1, 2) else 0.0
        box(ax, left + 2 * q * wide + inset, top + 2 * r * high + inset, 3 * wide - 2 * inset, 3 * high - 2 * inset,
            colour, 2.6)  # fmt: skip
    for row, (stamps, text) in enumerate(((1, "one stamp"), (2, "two stamps"), (4, "four stamps"))):
        at = top + 0.2 + 1.5 * row
        grid(ax, 19.6, at, [[stamps]], shade[stamps], cell=0.9, words=None)
        say(ax, 20.8, at + 0.45, text)
    say(ax, 0.7, 6.9, "Every pixel stamps $w$, times its", 10)
    say(ax, 0.7, 7.8, "value, in its own colour.", 10)
    parts = (1, w[2, 2]), (10, w[2, 0]), (100, w[0, 2]), (1000, w[0, 0])
    terms = " + ".join(f"{value}·{number(weight)}" for value, weight in parts)
    say(ax, 0.7, 10.5, f"In the middle: {terms} = {number(y[2, 2])}; each stamp makes one of its digits.")
    return ax.figure


AT = np.array([[1.0, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
G = np.array([[6.0, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
BT = np.array([[4.0, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0],
               [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]])  # fmt: skip


def winograd():
    """Tiles that overlap, the transforms of one tile, and the multiplications of both ways."""
    generator = np.random.default_rng(3)
    d, w = generator.integers(-3, 4, (6, 6)).astype(float), generator.integers(-2, 3, (3, 3)).astype(float)
    V, U = BT @ d @ BT.T, G @ w @ G.T
    Y = AT @ (U * V) @ AT.T
    assert np.allclose(Y, ops.conv2d(d[None, None], w[None, None]).data[0, 0])

    def shaded(a):
        return lambda r, q: tint(
            ORANGE if a[r, q] > 0 else BLUE, 0.25 * np.ceil(3 * (abs(a[r, q]) / abs(a).max()) ** 0.6)
        )

    ax = sheet(17.6)
    say(ax, 0.7, 0.7, "Input tiles: 6 × 6", weight="bold")
    say(ax, 8.9, 0.7, "Output tiles: 4 × 4", weight="bold")
    say(ax, 16.3, 0.7, "Multiplications per tile", weight="bold")
    both = lambda r, q: "#dcdcdc" if r < 6 and q in (4, 5) else "white"  # noqa: E731
    grid(ax, 0.7, 1.6, np.zeros((10, 10)), both, cell=0.5, words=None)
    grid(ax, 9.4, 2.1, np.zeros((8, 8)), "white", cell=0.5, words=None)
    for n, colour in enumerate((BLUE, ORANGE)):
        box(ax, 0.7 + 2 * n, 1.6, 3, 3, colour)
        box(ax, 9.4 + 2 * n, 2.1, 2, 2, colour)
    arrow(ax, 6.3, 4.1, 8.7, 4.1)
    for row, (name, value, colour) in enumerate((("direct", Y.size * w.size, GREY), ("Winograd", U.size, GREEN))):
        at = 2.1 + 2.2 * row
        say(ax, 16.3, at, name)
        ax.barh(at + 0.85, value / 20, height=0.7, left=16.3, color=colour)
        how = f"{value}" + (f" = {Y.size}·{w.size}" if name == "direct" else " = 6·6")
        say(ax, 24.3 if name == "direct" else 18.4, at if name == "direct" else at + 0.85, how,
            ha="right" if name == "direct" else "left")  # fmt: skip
    say(ax, 16.3, 6.2, "for one pair of channels,", 9, color=DARK_GREY)
    say(ax, 16.3, 6.9, "without those of the transforms", 9, color=DARK_GREY)

    say(ax, 0.7, 7.9, "One tile", weight="bold")
    say(ax, 3.4, 7.9, "(orange: positive, blue: negative, white: 0)", 9, color=DARK_GREY)
    cell = 0.5
    grid(ax, 0.7, 9.4, d, shaded(d), "$d$  6 × 6", cell, words=None)
    grid(ax, 8.2, 9.4, V, shaded(V), "$V$  6 × 6", cell, words=None)
    grid(ax, 0.7, 14.6, w, shaded(w), "$w$  3 × 3", cell, words=None)
    grid(ax, 8.2, 13.9, U, shaded(U), "$U$  6 × 6", cell, words=None)
    grid(ax, 14.3, 11.6, U * V, shaded(U * V), "$U \\odot V$", cell, words=None)
    grid(ax, 21.7, 12.1, Y, shaded(Y), "$Y$  4 × 4", cell, words=None)
    arrow(ax, 4.2, 10.9, 7.8, 10.9, label="$B^\\top d\\,B$")
    arrow(ax, 2.7, 15.4, 7.8, 15.4, label="$G\\,w\\,G^\\top$")
    arrow(ax, 11.5, 11.2, 13.9, 12.6)
    arrow(ax, 11.5, 15.0, 13.9, 13.6)
    arrow(ax, 17.7, 13.1, 21.3, 13.1, label="$A^\\top(\\ldots)A$")
    say(ax, 14.3, 15.5, "36 multiplications; the sum", 9.5, color=DARK_ORANGE)
    say(ax, 14.3, 16.3, "over input channels is here", 9.5, color=DARK_ORANGE)
    return ax.figure
