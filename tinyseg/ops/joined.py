"""The input of the fused convolutions in plain steps: several arrays joined along the channels, then upsampled.

    X = nearest upsampling by `factor` of concat(x_0, x_1, …)

The maths files use these functions. The fast CPU kernels read the x_k directly and never write X.
"""

import numpy as np

from tinyseg.backend import kernels
from tinyseg.ops.shape import concat_backward, concat_forward
from tinyseg.ops.upsample import Upsample
from tinyseg.ops.window import check_nchw


def join(xs, factor):
    """Return X, (N, sum of C_k, factor·H, factor·W); for one array and factor 1 the array itself."""
    x = xs[0] if len(xs) == 1 else concat_forward(xs, 1)
    return x if factor == 1 else kernels(Upsample.__module__, x).nearest_forward(x, (factor, factor))


def split(gX, xs, factor):
    """Return the gradients of the x_k from that of X, a tuple."""
    gx = gX if factor == 1 else kernels(Upsample.__module__, gX).nearest_grad_x(gX, (factor, factor))
    return concat_backward(gx, np.cumsum([x.shape[1] for x in xs])[:-1].tolist(), 1)


def as_list(x):
    """Return the inputs as a list: `x`, if it is a list or tuple of several, otherwise [x]."""
    return list(x) if isinstance(x, (list, tuple)) else [x]


def check_joined(op, xs, channels, factor, activation):
    """Raise unless the xs can be joined to `channels` channels; return X's shape."""
    if not isinstance(factor, int) or factor < 1:
        raise ValueError(f"{op}: upsample must be a whole number of at least 1, but is {factor!r}.")
    if activation not in (None, "relu"):
        raise ValueError(f"{op}: activation must be None or 'relu', but is {activation!r}.")
    for x in xs:
        check_nchw(op, x)
    shapes = [x.shape for x in xs]
    if len({(N, H, W) for N, _, H, W in shapes}) > 1:
        raise ValueError(f"{op}: inputs that are joined may differ only in their channels, but are {shapes}.")
    C = sum(shape[1] for shape in shapes)
    if channels != C:
        raise ValueError(f"{op}: the weights are for {channels} channels, but the input has {C}.")
    N, _, H, W = shapes[0]
    return N, C, factor * H, factor * W
