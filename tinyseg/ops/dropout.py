"""Dropout (Srivastava et al. 2014): in training, zero each value with probability p and scale the rest.

    forward   y = x m / (1 - p),   m in {0, 1},  P(m = 1) = 1 - p
    grad_x    gx = gy m / (1 - p)

m comes from a hash function, not from a random generator with a state: m = 1 for element number t if
hash(t, seed) >= p 2³². The same seed gives the same mask on the CPU and on the GPU, and in a run that was interrupted
and resumed. `dropout2d` draws one m for each channel of each image (Tompson et al. 2015).

Shapes: x and y may have any shape; for dropout2d (N, C, H, W).
"""

from collections.abc import Sequence

import numpy as np

from tinyseg.autograd import Array, Tensor
from tinyseg.backend import check_number, kernels, xp_of
from tinyseg.backend.half import HalfFunction
from tinyseg.ops.window import check_nchw


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def mask(x, shape, p, seed):
    """Draw m / (1 - p) for each element of `shape`: an array of x's dtype, on its device."""
    xp = xp_of(x)
    key1, key2 = keys_of(seed)
    t = xp.arange(int(np.prod(shape)), dtype=np.uint32)
    random = _scramble(_scramble(t ^ key1) + key2)  # two rounds: neighbouring seeds must not look alike
    keep = random >= np.uint32(min(round(p * 2**32), 2**32 - 1))
    return (keep * x.dtype.type(1 / (1 - p))).reshape(shape)


def keys_of(seed):
    """Return the two uint32 numbers that a mask is drawn from."""
    try:
        return np.random.SeedSequence(seed).generate_state(2, np.uint32)
    except (TypeError, ValueError):
        found = f"but is {seed!r}"
        raise ValueError(f"dropout: seed must be a whole number of at least 0 or several, {found}.") from None


def _scramble(h):
    """Mix the bits of a uint32 array so that counters become random numbers; different inputs stay different."""
    h = h ^ (h >> np.uint32(16))
    h = h * np.uint32(0x85EBCA6B)
    h = h ^ (h >> np.uint32(13))
    h = h * np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))


def grad_x(gy, m):
    """Return gy m, and 0 where m is 0, also where gy is NaN or infinite: a dropped value has no gradient."""
    return xp_of(gy).where(m != 0, gy, gy.dtype.type(0)) * m


# ----- the node of the graph -------------------------------------------------
class Dropout(HalfFunction):
    def __init__(self, p, seed, channelwise=False):
        self.p, self.seed, self.channelwise = p, seed, channelwise

    def forward(self, x):
        shape = (*x.shape[:2], 1, 1) if self.channelwise else x.shape
        self.saved = kernels(__name__, x).mask(x, shape, self.p, self.seed)
        return x * self.saved

    def backward(self, gy):
        return kernels(__name__, gy, self.saved).grad_x(gy, self.saved)


def dropout(
    x: Tensor | Array, p: float = 0.5, training: bool = True, *, seed: int | Sequence[int] | Array | None = None
) -> Tensor:
    """Zero single values with probability `p` and scale the rest by 1/(1-p); see the module docstring.

    Parameters
    ----------
    x : Tensor or ndarray, any shape
    p : float
        Probability of being zeroed, in [0, 1).
    training : bool
        False returns `x` unchanged.
    seed : int or sequence of int
        Needed in training. The mask depends only on the seed and on x's size: give a new seed in every step, as
        `tinyseg.nn.Dropout` does.

    Returns
    -------
    Tensor, shape and dtype of x
    """
    return _apply("dropout", Dropout(p, seed), x, training)


def dropout2d(
    x: Tensor | Array, p: float = 0.5, training: bool = True, *, seed: int | Sequence[int] | Array | None = None
) -> Tensor:
    """Zero whole channels of `x` (N, C, H, W) with probability `p`; otherwise as `dropout`."""
    check_nchw("dropout2d", x)
    return _apply("dropout2d", Dropout(p, seed, channelwise=True), x, training)


def _apply(op, node, x, training):
    check_number(f"{op}: p", node.p, "[0, 1)")
    if training and node.p > 0:
        if node.seed is None:
            raise ValueError(f"{op} in training needs a seed, a new one every step (nn.Dropout counts them itself).")
        return node(x)
    return x if isinstance(x, Tensor) else Tensor(x)
