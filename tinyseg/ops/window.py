"""What convolutions and pools share: kernel, stride and padding arguments, and the loop over the taps.

A window operation reads X, the padded input, at KH·KW *taps* (u, v). Tap (u, v) of output (i, j) is
X[..., i·sh + u·dh, j·sw + v·dw], with stride (sh, sw) and dilation (dh, dw). For one tap and all outputs that is a
strided view of X. The forward pass reads these views; the gradient with respect to x, its transpose, adds into them.
"""

import numbers
from typing import Any, Literal, TypeAlias

from tinyseg.autograd import as_array
from tinyseg.backend import xp_of
from tinyseg.backend.half import wide
from tinyseg.ops.sums import sum_over

Pair: TypeAlias = int | tuple[int, int]
"""One number for both axes, or (height, width)."""

Sides: TypeAlias = Pair | tuple[tuple[int, int], tuple[int, int]]
"""Padding in numbers: both axes alike, (height, width), or ((top, bottom), (left, right))."""

Padding: TypeAlias = Sides | Literal["valid", "same"]
"""Padding in numbers, or by name; see `resolve`."""


def pair(value: Any, name: str) -> tuple[int, int]:
    """Return `value`, an integer or a pair of integers, as (height, width), two Python ints."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2 or not all(isinstance(v, numbers.Integral) and not isinstance(v, bool) for v in values):
        raise ValueError(f"{name} must be an integer or a pair (height, width), but is {value!r}.")
    return int(values[0]), int(values[1])


def resolve(x_shape, kernel, stride, padding, dilation=(1, 1)):
    """Turn the arguments of a window operation into numbers.

    Parameters
    ----------
    x_shape : tuple of int
        (N, C, H, W) of the input.
    kernel : tuple of int
        (KH, KW).
    stride : int or pair of int
    padding : int, pair, pair of pairs, "valid" or "same"
        An int or pair (ph, pw) pads both sides alike; ((top, bottom), (left, right)) states each side; "valid" pads
        nothing; "same" gives OH = ceil(H / sh), and if the total is odd (as with even kernels), the extra row and
        column go to the bottom and right, as in Keras.
    dilation : tuple of int
        (dh, dw), the distance from one tap to the next: the kernel covers (KH - 1)·dh + 1 rows.

    Returns
    -------
    stride : (sh, sw)
    pads : ((top, bottom), (left, right))
    out : (OH, OW)

    Raises
    ------
    ValueError
        If the arguments make no sense or the kernel does not fit into the padded input.
    """
    size, stride = x_shape[2:], pair(stride, "stride")
    covers = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    if min(*stride, *kernel, *dilation) < 1:
        raise ValueError(f"Kernel, stride and dilation must be at least 1, but are {kernel}, {stride} and {dilation}.")
    if padding == "same":
        pads = tuple(_same(n, k, s) for n, k, s in zip(size, covers, stride, strict=True))
    elif padding == "valid":
        pads = ((0, 0), (0, 0))
    elif isinstance(padding, str):
        raise ValueError(f"padding must be 'same', 'valid' or numbers, but is {padding!r}.")
    else:
        pads = sides(padding)
    out = tuple((n + sum(p) - k) // s + 1 for n, k, s, p in zip(size, covers, stride, pads, strict=True))
    if min(out) < 1:
        dilated = f" with dilation {dilation}, which covers {covers}," if covers != tuple(kernel) else ""
        raise ValueError(f"A kernel of {kernel}{dilated} does not fit into an input of {size} padded by {pads}.")
    return stride, pads, out


def sides(padding):
    """Return padding, given in numbers, as ((top, bottom), (left, right))."""
    if isinstance(padding, (tuple, list)) and any(isinstance(p, (tuple, list)) for p in padding):
        pads = tuple(pair(p, "each side of padding") for p in padding)
        if len(pads) != 2:
            raise ValueError(f"padding by sides must be ((top, bottom), (left, right)), but is {padding!r}.")
    else:
        pads = tuple((p, p) for p in pair(padding, "padding"))
    if min(map(min, pads)) < 0:
        raise ValueError(f"padding must not be negative, but is {padding!r}: use center_crop to make an image smaller.")
    return pads


def _same(size, k, s):
    total = max((-(-size // s) - 1) * s + k - size, 0)
    return total // 2, total - total // 2


def pad2d(x, pads, value=0):
    """Return `x` (N, C, H, W) with a border of `value`; `x` itself if the border is empty."""
    (top, bottom), (left, right) = pads
    if not (top or bottom or left or right):
        return x
    N, C, H, W = x.shape
    X = xp_of(x).full((N, C, top + H + bottom, left + W + right), value, dtype=x.dtype)
    X[:, :, top : top + H, left : left + W] = x
    return X


def crop2d(X, pads):
    """Undo `pad2d`: return the view of `X` without its border."""
    (top, bottom), (left, right) = pads
    return X[:, :, top : X.shape[2] - bottom, left : X.shape[3] - right]


def taps(X, kernel, out, stride, dilation=(1, 1)):
    """Yield (u, v, view) for each tap: what it reads for all outputs, a view of X of shape (N, C, OH, OW)."""
    (KH, KW), (OH, OW), (sh, sw), (dh, dw) = kernel, out, stride, dilation
    for u in range(KH):
        for v in range(KW):
            yield u, v, X[:, :, u * dh : u * dh + sh * OH : sh, v * dw : v * dw + sw * OW : sw]


def check_nchw(op, x, channels=None):
    """Raise unless `x` is (N, C, H, W), with C = `channels` if that is given."""
    if x.ndim != 4:
        raise ValueError(
            f"{op} takes x of shape (N, C, H, W), but got {x.shape}; add the missing axes, e.g. x[None, None]."
        )
    if channels is not None and x.shape[1] != channels:
        raise ValueError(f"{op}: the weights are for {channels} channels, but x has {x.shape[1]} (shape {x.shape}).")


def add_bias(op, y, b=None):
    """Add b[k] to channel k of `y` (N, K, OH, OW), in place, if there is a bias; return y."""
    if b is not None:
        check_shape(op, "b", b, (y.shape[1],))
        y += b[:, None, None]
    return y


def grad_bias(gy, *needed):
    """Return the gradient of the bias, gb[k] = sum_{n,i,j} gy[n,k,i,j], as a tuple; without a bias an empty one.

    `needed` is empty without a bias, and otherwise says whether its gradient is needed.
    """
    return tuple(sum_over(gy, (0, 2, 3)) if need else None for need in needed)


def check_axes(op, x, axes):
    """Raise unless `axes`, an int, a tuple of them or None for all, are different axes of `x`."""
    given = () if axes is None else axes if isinstance(axes, tuple) else (axes,)
    whole = all(isinstance(k, numbers.Integral) for k in given)
    if not whole or not all(-x.ndim <= k < x.ndim for k in given) or len({k % x.ndim for k in given}) < len(given):
        raise ValueError(f"{op}: axis must name axes of an array of shape {x.shape}, each once, but is {axes!r}.")


def check_shape(op, name, array, shape):
    """Raise unless `array` has this shape."""
    if array.shape != shape:
        raise ValueError(f"{op}: {name} must have shape {shape}, but has {array.shape}.")


def bias_or_zeros(b, w):
    """Return the bias `b`; for None, a zero for each output channel of the weights `w`, an array or Tensor."""
    w = as_array(w)
    return b if b is not None else xp_of(w).zeros(w.shape[:1], w.dtype)


def default_affine(op, x, weight, bias):
    """Return γ and β of a norm over the channels of `x` (N, C, H, W): `weight` and `bias`; 1 and 0 for None."""
    x = as_array(x)
    check_nchw(op, x)
    C, xp, dtype = x.shape[1], xp_of(x), wide(x.dtype)
    return xp.ones(C, dtype) if weight is None else weight, xp.zeros(C, dtype) if bias is None else bias
