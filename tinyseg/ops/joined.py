"""What the fused convolutions read: several arrays side by side, upsampled. In plain steps, for the maths files.

    X = nearest upsampling by `factor` of concat(x_0, x_1, …)

The fast kernels read the x_k where they lie; nobody writes X.
"""

import numpy as np

from tinyseg.backend import kernels
from tinyseg.ops.activation import check_activation
from tinyseg.ops.shape import concat_backward, concat_forward
from tinyseg.ops.upsample import Upsample
from tinyseg.ops.window import check_nchw


def join(xs, factor):
    """Return X, (N, sum of C_k, factor·H, factor·W); the array itself where nothing is to be done."""
    x = xs[0] if len(xs) == 1 else concat_forward(xs, 1)
    return x if factor == 1 else kernels(Upsample.__module__, x).nearest_forward(x, (factor, factor))


def split(gX, xs, factor):
    """Return the gradients of the x_k from that of X, a tuple."""
    gx = gX if factor == 1 else kernels(Upsample.__module__, gX).nearest_grad_x(gX, (factor, factor))
    return concat_backward(gx, np.cumsum([x.shape[1] for x in xs])[:-1].tolist(), 1)


def as_list(x):
    """Return the inputs as a list: of one, unless `x` is a list or tuple of several."""
    return list(x) if isinstance(x, (list, tuple)) else [x]


def check_joined(op, xs, channels, factor, activation):
    """Raise unless the xs can be joined to `channels` channels; return X's shape."""
    if not isinstance(factor, int) or factor < 1:
        raise ValueError(f"{op}: upsample must be a whole number of at least 1, but is {factor!r}.")
    check_activation(op, activation)
    for x in xs:
        check_nchw(op, x)
        if (x.shape[0], *x.shape[2:]) != (xs[0].shape[0], *xs[0].shape[2:]):
            raise ValueError(f"{op}: inputs that are joined must agree but in their channels: {[x.shape for x in xs]}.")
    C = sum(x.shape[1] for x in xs)
    if channels != C:
        raise ValueError(f"{op}: the weights are for {channels} channels, but the input has {C}.")
    N, _, H, W = xs[0].shape
    return N, C, factor * H, factor * W
