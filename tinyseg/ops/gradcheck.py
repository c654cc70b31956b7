"""check_grads: check that backward() computes the derivative of forward().

For a random cotangent u and a random direction v the chain rule says

    < v, Jᵀ u >  =  < u, J v >  ≈  < u, ( f(x + eps v) − f(x − eps v) ) / (2 eps) >

where J is the matrix of derivatives of f. The left side takes one backward pass, the right side two forward passes,
whatever the size of x. u must be random: with u = 1 everywhere, the gradient through a normalization is 0, and a wrong
backward pass can give 0 too.
"""

from collections.abc import Callable

import numpy as np

from tinyseg.autograd import Array, Tensor, no_grad
from tinyseg.backend import device_of, to_device, to_numpy


def check_grads(f: Callable[..., Tensor], *arrays: Array, eps: float = 1e-6, tol: float = 1e-6, seed: int = 0) -> None:
    """Check `backward` of ``f(*tensors)`` against a central difference, in float64, one input at a time.

    Parameters
    ----------
    f : callable
        Takes one Tensor per array and returns one Tensor. Must be deterministic, must not change its inputs, and must
        be smooth within `eps` of `arrays` (keep inputs of ReLU and max pooling away from their kinks).
    *arrays : ndarray
        Inputs; converted to float64.
    eps : float
        Step of the central difference, as a multiple of a direction of standard-normal numbers.
    tol : float
        Largest accepted ``|numeric − backward| / max(1, |numeric|, |backward|)``: relative for gradients above 1,
        absolute below. Scale up an `f` whose gradients are tiny, such as a mean over many pixels.
    seed : int
        Seed of the random cotangent and directions.

    Raises
    ------
    AssertionError
        If a gradient is wrong (the message names the input and both values), missing, or if `f` changed its input.
    """
    rng = np.random.default_rng(seed)
    before = [a.astype(np.float64) for a in arrays]
    xs = [Tensor(a.copy(), requires_grad=True) for a in before]
    y = f(*xs)
    u = _like(y.data, rng)
    y.backward(u)
    for i, (x, old) in enumerate(zip(xs, before, strict=True)):
        if not (x.data == old).all():
            raise AssertionError(f"input {i} was changed in place.")
        if x.grad is None:
            raise AssertionError(f"input {i} got no gradient: the output does not depend on it through the graph.")
        v = _like(x.data, rng)
        with no_grad():
            plus = f(*[Tensor(t.data + eps * v if t is x else t.data) for t in xs]).data
            minus = f(*[Tensor(t.data - eps * v if t is x else t.data) for t in xs]).data
        numeric = float(to_numpy((u * (plus - minus)).sum())) / (2 * eps)
        analytic = float(to_numpy((v * x.grad).sum()))
        error = abs(numeric - analytic) / max(1.0, abs(numeric), abs(analytic))
        if not error < tol:  # unlike error >= tol, this is true for NaN
            found = f"numeric {numeric:.9g}, backward {analytic:.9g}, relative error {error:.1e}"
            raise AssertionError(f"input {i} of shape {x.shape}: {found}")


def _like(array, rng):
    """Return standard-normal numbers in `array`'s shape, on its device. The CPU draws them: the same on all devices."""
    return to_device(np.asarray(rng.standard_normal(array.shape)), device_of(array))
