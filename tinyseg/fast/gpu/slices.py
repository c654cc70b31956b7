"""Launches slices.cu: sums over sets of planes, for the norms and the weight standardization.

An array is (outer, sets, P): set s has the plane of P elements at [o, s] for every o. With outer = N and sets = C a set
is a channel of the whole batch (N, C, H, W); with outer = 1 and sets = N·G it is a group of channels of one image.
"""

import numpy as np

from tinyseg.backend import devices
from tinyseg.fast.gpu.launch import launch, launch_slices, load, slices_of, threads_for

kernel = load(__file__)


def moments(x, outer, sets, eps=None):
    """Return mean and variance of each set, (sets,) each. With an `eps`, 1/√(variance + eps) replaces the variance."""
    P = x.size // (outer * sets)
    slices = slices_of(P)
    partial = devices.cp.empty((2, outer * sets * slices), np.float32)
    launch_slices(kernel("slice_moments", x.dtype), outer * sets, P, x, partial[0], partial[1])
    mean, spread = devices.cp.empty((2, sets), np.float32)
    args = partial[0], partial[1], mean, *((spread, None, 0.0) if eps is None else (None, spread, eps))
    launch(kernel("fold_moments"), sets, *args, P, outer, slices, threads=threads_for(outer * slices))
    return mean, spread


def products(a, b, sets):
    """Return the sums of a and of a·b over each of the `sets` planes that make up both arrays: (2, sets)."""
    P = a.size // sets
    slices = slices_of(P)
    partial = devices.cp.empty((2, sets * slices), a.dtype)
    launch_slices(kernel("slice_products"), sets, P, a, b, partial[0], partial[1])
    return fold(partial, slices, sets, 1, sets)


def fold(partial, slices, C, outer, sets, factor=None):
    """Add up the two sums of every slice, (2, planes · slices), over each set: (2, sets).

    With a `factor`, (C,), what comes from plane k is multiplied by factor[k % C].
    """
    inner = partial.shape[1] // (outer * sets)
    sums = devices.cp.empty((2, sets), partial.dtype)
    args = partial[0], partial[1], factor, sums[0], sums[1], slices, C, outer, inner
    launch(kernel("fold_sums"), sets, *args, threads=threads_for(outer * inner))
    return sums
