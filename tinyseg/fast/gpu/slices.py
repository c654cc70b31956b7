"""Launches slices.cu: sums over sets of planes, which the norms and the weight standardization have in common.

An array is (outer, sets, P): set s has the plane of P elements at [o, s] for every o. With outer = N, sets = C these
are the channels of images (N, C, H, W); with outer = 1, sets = N·G the groups of channels of single images.
"""

import numpy as np

from tinyseg.backend import devices
from tinyseg.fast.gpu.launch import SLICE, cut, launch, load, threads_for

kernel = load(__file__)


def moments(x, outer, sets, eps=None):
    """Return mean and variance of each set, (sets,) each. With an `eps`, 1/√(variance + eps) replaces the variance."""
    P = x.size // (outer * sets)
    slices, threads = cut(P)
    partial = devices.cp.empty((2, outer * sets * slices), np.float32)
    launch(
        kernel("slice_moments", x.dtype), outer * sets * slices, x, partial[0], partial[1], P, SLICE, threads=threads
    )
    found = devices.cp.empty((2, sets), np.float32)
    spread = (found[1], None, 0.0) if eps is None else (None, found[1], eps)
    sizes, threads = (P, SLICE, outer, slices), threads_for(outer * slices)
    launch(kernel("fold_moments"), sets, partial[0], partial[1], found[0], *spread, *sizes, threads=threads)
    return found[0], found[1]


def products(a, b, sets):
    """Return the sums of a and of a·b over each of the `sets` planes that make up both arrays: (2, sets)."""
    P = a.size // sets
    slices, threads = cut(P)
    partial = devices.cp.empty((2, sets * slices), a.dtype)
    launch(kernel("slice_products"), sets * slices, a, b, partial[0], partial[1], P, SLICE, threads=threads)
    return fold(partial, slices, sets, 1, sets)


def fold(partial, slices, C, outer, sets, factor=None):
    """Add up two sums of every slice, (2, planes · slices), for each set: (2, sets).

    With a `factor`, (C,), what comes from plane k is multiplied by number k modulo C of it.
    """
    inner = partial.shape[1] // (outer * sets)
    sums = devices.cp.empty((2, sets), partial.dtype)
    args = partial[0], partial[1], factor, sums[0], sums[1], slices, C, outer, inner
    launch(kernel("fold_sums"), sets, *args, threads=threads_for(outer * inner))
    return sums
